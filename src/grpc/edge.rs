//! The edge: what Envoy made gRPC calls of, back to what was sent.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue};

use super::{
    parameters::Original,
    status::{Reader, status},
};
use crate::{
    core::{Error, secret::Secret},
    dialect::{self, Dialect, language::Language, operation::Operation},
};

/// The header that Envoy proves itself with where the edge is no Unix socket.
const SECRET_HEADER: &str = "x-edge-secret";

/// What Envoy has to show; nothing on a Unix socket, which only its owner can open.
pub type EdgeSecret = Option<Arc<Secret>>;

/// Reads the HTTP call that Envoy made a gRPC call of, and checks that its path is bound to the method being called, so that nothing that
/// is good for one operation opens another. It runs before the message is decoded, which a bad `%XX` would make fail.
pub async fn open(State(secret): State<EdgeSecret>, mut request: Request, next: Next) -> Response {
    if secret.is_some_and(|secret| !request.headers().get(SECRET_HEADER).is_some_and(|shown| secret.matches(shown.as_bytes()))) {
        tracing::warn!("a call to the edge without Envoy's secret is refused: only Envoy may call it");
        return tonic::Status::permission_denied("only Envoy may call this listener").into_http::<axum::body::Body>();
    }
    let Some(operation) = Operation::of_rpc(request.uri().path()) else { return next.run(request).await };
    let mut response = match original(operation, request.headers()) {
        Ok(original) => {
            request.extensions_mut().insert(original);
            next.run(request).await
        }
        Err(error) => {
            let language = Language::of_headers(request.headers());
            let status = status(&error, Dialect::of_rpc(operation.rpc), Reader::Envoy, language);
            tracing::info!(operation = operation.rpc, outcome = "INVALID_PARAMETER", "{} refused: {error}", operation.rpc);
            status.into_http::<axum::body::Body>().into_response()
        }
    };
    if operation.deprecated {
        for (name, value) in dialect::deprecation(operation.rpc) {
            response.headers_mut().extend(HeaderValue::try_from(value).ok().map(|value| (http::HeaderName::from_static(name), value)));
        }
    }
    response
}

/// A header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

fn original(operation: &'static Operation, headers: &HeaderMap) -> Result<Original, Error> {
    let path = single(headers, "x-envoy-original-path").ok_or(Error::NotOffered)?;
    let method = single(headers, "x-envoy-original-method").ok_or(Error::NotOffered)?;
    let mut original = Original::read(operation, method, path)?;
    original.address = address(headers);
    Ok(original)
}

/// The client's address, as Envoy vouches for it: its own word takes the place of one that a client sent.
#[must_use]
pub fn address(headers: &HeaderMap) -> Option<IpAddr> {
    single(headers, "x-envoy-external-address").and_then(|address| address.parse().ok())
}
