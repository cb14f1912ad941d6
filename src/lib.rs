//! supos-auth
pub mod grpc;
