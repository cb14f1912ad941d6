//! What callers may rely on, tested over the wire: the real service, the real Envoy, real clients.

mod admin_api;
mod answers;
mod authorities;
mod authorize;
mod browser;
mod callers;
mod clients;
mod edge;
mod errors;
mod examples;
mod exchange;
#[expect(dead_code, reason = "shared with other targets, which use the rest")]
mod harness;
mod inspect;
mod life;
mod lifetimes;
mod logouts;
mod newcomers;
mod operators;
mod pages;
mod parameters;
mod restarts;
mod robustness;
mod security;
