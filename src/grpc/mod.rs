//! gRPC: the generated code and its adapters.
pub mod pb;
