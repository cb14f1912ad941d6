//! The code that `build.rs` generates from `proto/`, and the descriptor that Envoy and reflection read.
#![expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::all,
    clippy::pedantic,
    reason = "generated code; its documentation is in the protos"
)]

pub mod google {
    pub mod api {
        tonic::include_proto!("google.api");
    }
}

pub mod supos {
    pub mod auth {
        pub mod v1 {
            tonic::include_proto!("supos.auth.v1");
        }
        pub mod v2 {
            tonic::include_proto!("supos.auth.v2");
        }
        pub mod v281 {
            tonic::include_proto!("supos.auth.v281");
        }
        pub mod admin {
            pub mod v1 {
                tonic::include_proto!("supos.auth.admin.v1");
            }
        }
    }
}

/// The `google.protobuf.FileDescriptorSet` of the whole API, imports and HTTP bindings included, without comments.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.pb"));
