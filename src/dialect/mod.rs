//! The generations of the interface: V1, V2 and V2.8.1 are names and error numbers for the same few operations of [`crate::core`]. Nothing
//! is decided here.

pub mod error;
pub mod language;
pub mod operation;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use self::operation::Operation;

/// A generation of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// V1 and V2: operations 1 to 3 and 10 to 14.
    Current,
    /// V2.8.1: operations 4 to 9.
    V281,
    /// The admin API.
    Admin,
}

impl Dialect {
    /// The generation that a gRPC method belongs to.
    #[must_use]
    pub fn of_rpc(path: &str) -> Self {
        if path.starts_with("/supos.auth.v281.") {
            Self::V281
        } else if path.starts_with("/supos.auth.admin.") {
            Self::Admin
        } else {
            Self::Current
        }
    }
}

/// When the deprecated operations were deprecated, in seconds since 1970: the day that the V2 interface was published.
const DEPRECATED_AT: HeaderValue = HeaderValue::from_static("@1735689600");
const SUCCEEDED_BY_TOKEN: HeaderValue = HeaderValue::from_static("</open-api/auth/v2/oauth2/token>; rel=\"successor-version\"");
const SUCCEEDED_BY_AUTHORIZE: HeaderValue = HeaderValue::from_static("</inter-api/auth/v1/oauth2/authorize>; rel=\"successor-version\"");
const SUCCEEDED_BY_SIGN_OUT: HeaderValue = HeaderValue::from_static("</inter-api/auth/logout>; rel=\"successor-version\"");

/// Adds the headers that tell users of a deprecated operation what to use instead (RFC 9745; RFC 5829 for the link).
pub fn mark_deprecated(operation: &Operation, headers: &mut HeaderMap) {
    let successor = match operation.rpc {
        "/supos.auth.v1.AuthService/Token" | "/supos.auth.v281.AuthService/ExchangeCode" | "/supos.auth.v281.AuthService/RefreshToken" => {
            Some(SUCCEEDED_BY_TOKEN)
        }
        "/supos.auth.v281.AuthService/Authorize" => Some(SUCCEEDED_BY_AUTHORIZE),
        "/supos.auth.v281.AuthService/SignOut" => Some(SUCCEEDED_BY_SIGN_OUT),
        _ => None,
    };
    headers.insert(HeaderName::from_static("deprecation"), DEPRECATED_AT);
    if let Some(successor) = successor {
        headers.insert(header::LINK, successor);
    }
}
