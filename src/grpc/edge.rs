//! The edge: what Envoy made gRPC calls of, back to what was sent.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, Request, Response};
use tonic::{Status, body::Body};

use super::{
    parameters::Original,
    status::{Reader, status},
};
use crate::{
    core::{Error, secret::Secret},
    dialect::{Dialect, language::Language, operation::Operation},
};

/// The header that Envoy proves itself with where the edge is no Unix socket.
const SECRET_HEADER: &str = "x-edge-secret";
// What Envoy says of the call that it was sent.
static ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");
static ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-envoy-original-method");
static EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// What Envoy has to show; nothing on a Unix socket, which only its owner can open.
pub type EdgeSecret = Option<Arc<Secret>>;

/// Reads the HTTP call that Envoy made a gRPC call of, and checks that its path is bound to the method being called, so that nothing that
/// is good for one operation opens another. It runs before the message is decoded, which a bad `%XX` would make fail.
///
/// # Errors
/// The answer to a call that goes no further.
pub fn open(
    secret: Option<&Secret>,
    operation: Option<&'static Operation>,
    request: &mut Request<Body>,
) -> Result<(), Box<Response<Body>>> {
    if secret.is_some_and(|secret| !request.headers().get(SECRET_HEADER).is_some_and(|shown| secret.matches(shown.as_bytes()))) {
        tracing::warn!("a call to the edge without Envoy's secret is refused: only Envoy may call it");
        return Err(Box::new(Status::permission_denied("only Envoy may call this listener").into_http()));
    }
    let Some(operation) = operation else { return Ok(()) };
    match original(operation, request.headers()) {
        Ok(original) => {
            request.extensions_mut().insert(original);
            Ok(())
        }
        Err(error) => {
            let language = Language::of_headers(request.headers());
            tracing::info!(operation = operation.rpc, outcome = "INVALID_PARAMETER", "{} refused: {error}", operation.rpc);
            Err(Box::new(status(&error, Dialect::of_rpc(operation.rpc), Reader::Envoy, language).into_http()))
        }
    }
}

/// A header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn original(operation: &'static Operation, headers: &HeaderMap) -> Result<Original, Error> {
    let path = single(headers, &ORIGINAL_PATH).ok_or(Error::NotOffered)?;
    let method = single(headers, &ORIGINAL_METHOD).ok_or(Error::NotOffered)?;
    let mut original = Original::read(operation, method, path)?;
    original.address = address(headers);
    Ok(original)
}

/// The client's address, as Envoy vouches for it: its own word takes the place of one that a client sent.
#[must_use]
pub fn address(headers: &HeaderMap) -> Option<IpAddr> {
    single(headers, &EXTERNAL_ADDRESS).and_then(|address| address.parse().ok())
}
