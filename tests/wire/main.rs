//! What callers may rely on, tested over the wire: the real service, the real Envoy, real clients.

mod answers;
mod authorize;
mod edge;
mod errors;
mod harness;
mod life;
mod parameters;
