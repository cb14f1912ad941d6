//! supos-auth: an OAuth 2.0 authorization service.
//!
//! Read in this order: [`core`] has the rules, [`store`] keeps what they work on, [`issuer`] makes access tokens, [`sign`] is how an app signs a
//! call, [`caller`] says who is calling, [`outbound`] calls others, [`dialect`] has the names and errors of the interface's generations,
//! [`grpc`] serves it all, [`http`] has what browsers get, [`app`] joins them, [`backup`] is the
//! file that a store is moved by, [`config`] has the settings, [`telemetry`] logs and counts, and [`cli`] is the command line.

pub mod app;
pub mod backup;
pub mod caller;
pub mod cli;
pub mod config;
pub mod core;
pub mod dialect;
#[cfg(test)]
mod documents;
pub mod grpc;
pub mod http;
pub mod issuer;
pub mod outbound;
pub mod sign;
pub mod store;
pub mod telemetry;
