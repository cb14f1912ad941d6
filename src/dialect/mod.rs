//! The generations of the interface: V1, V2 and V2.8.1 are names and error numbers for the same few operations of [`crate::core`]. Nothing
//! is decided here.

pub mod error;
pub mod language;
pub mod operation;

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
const DEPRECATED_AT: &str = "@1735689600";

/// The headers that tell users of a deprecated operation what to use instead (RFC 9745; RFC 5829 for the link).
#[must_use]
pub fn deprecation(rpc: &str) -> Vec<(&'static str, String)> {
    let successor = match rpc {
        "/supos.auth.v1.AuthService/Token" | "/supos.auth.v281.AuthService/ExchangeCode" | "/supos.auth.v281.AuthService/RefreshToken" => {
            Some("/open-api/auth/v2/oauth2/token")
        }
        "/supos.auth.v281.AuthService/Authorize" => Some("/inter-api/auth/v1/oauth2/authorize"),
        "/supos.auth.v281.AuthService/SignOut" => Some("/inter-api/auth/logout"),
        _ => None,
    };
    let mut headers = vec![("deprecation", DEPRECATED_AT.to_owned())];
    headers.extend(successor.map(|path| ("link", format!("<{path}>; rel=\"successor-version\""))));
    headers
}
