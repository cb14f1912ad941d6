//! Calls that the service makes by itself: to apps, that a session has ended, and to third-party certification authorities.
//!
//! [`address`] says which addresses may be called, and [`Client`] makes the calls. It is not a general HTTP client: one request on one
//! connection, HTTP/1.1, no redirects, no proxies, no cookies, nothing from the environment but where the system keeps its trusted roots
//! (`SSL_CERT_FILE`, `SSL_CERT_DIR`). What it leaves out is what has let others be sent to addresses that they meant to refuse. A name is
//! resolved once a call, and the addresses that come back are the ones that are judged and connected to.
//!
//! Knows nothing of apps, sessions or tokens.

pub mod address;
mod authorities;
mod client;
mod connect;

pub use self::{
    client::{Answer, CallError, Client},
    connect::Trust,
};
