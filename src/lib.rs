//! supos-auth
pub mod app;
pub mod cli;
pub mod config;
pub mod grpc;
