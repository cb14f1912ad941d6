//! gRPC: the services, each an adapter between its messages and [`crate::core`].

pub mod admin;
mod auth_v1;
mod auth_v2;
mod auth_v281;
pub(crate) mod convert;
pub mod edge;
pub mod gate;
mod load;
pub mod parameters;
pub mod pb;
pub mod status;

use tonic::service::RoutesBuilder;

use self::{
    gate::Gate,
    pb::supos::auth::{v1, v2, v281},
};

/// The most bytes of a request message.
const MAX_MESSAGE: usize = 128 * 1024;

/// The names of the services of the documented interface, for health.
pub const SERVICES: [&str; 3] = ["supos.auth.v1.AuthService", "supos.auth.v2.AuthService", "supos.auth.v281.AuthService"];

/// Adds the services of the documented interface.
pub fn add_to(routes: &mut RoutesBuilder, gate: &Gate) {
    routes
        .add_service(v1::auth_service_server::AuthServiceServer::new(auth_v1::Service(gate.clone())).max_decoding_message_size(MAX_MESSAGE))
        .add_service(v2::auth_service_server::AuthServiceServer::new(auth_v2::Service(gate.clone())).max_decoding_message_size(MAX_MESSAGE))
        .add_service(
            v281::auth_service_server::AuthServiceServer::new(auth_v281::Service(gate.clone())).max_decoding_message_size(MAX_MESSAGE),
        );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_descriptor_that_envoy_reads_is_that_of_the_protos() {
        let committed = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/envoy/descriptor.pb")).unwrap();
        assert!(committed == super::pb::DESCRIPTOR, "run `make descriptor`");
    }
}
