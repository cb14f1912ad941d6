//! What callers may rely on, tested over the wire: the real service, the real Envoy, real clients.

mod harness;
