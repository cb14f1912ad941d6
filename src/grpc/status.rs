//! How an error is told to a gRPC caller, and to Envoy, which makes an HTTP answer of it.

use prost::Message as _;
use tonic::{
    Code, Status,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    core::Error,
    dialect::{
        Dialect,
        error::{Row, row_of, text_of},
        language::Language,
    },
};

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "supos-auth";
/// What a caller without a good credential is asked for.
const CHALLENGES: [&str; 2] = ["Sign realm=\"supos-auth\"", "Bearer realm=\"supos-auth\""];

/// Who reads an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// Envoy: the number stands for the status code, and comes out as `code` in the JSON body.
    Envoy,
    /// A gRPC caller: a conforming status, with the number in its details.
    Native,
}

/// Tells an error.
#[must_use]
pub fn status(error: &Error, dialect: Dialect, reader: Reader, language: Language) -> Status {
    let row = row_of(error, dialect);
    let text = text_of(error, language);
    let metadata = metadata(error, row, dialect);
    match reader {
        Reader::Envoy => {
            // Envoy makes 501 of UNIMPLEMENTED; an operation that is not offered is 404 like a path that is not there.
            let code = if row.code == Code::Unimplemented { Code::NotFound } else { row.code };
            let body =
                tonic_types::pb::Status { code: row.number.try_into().unwrap_or_default(), message: text.clone(), details: Vec::new() };
            Status::with_details_and_metadata(code, text, body.encode_to_vec().into(), metadata)
        }
        Reader::Native => {
            let mut details = ErrorDetails::with_error_info(row.reason, DOMAIN, [("code".to_owned(), row.number.to_string())]);
            if let Some(name) = parameter_of(error) {
                details.add_bad_request_violation(name, text.clone());
            }
            if let Error::Busy { retry_after } | Error::TooManyTries { retry_after } = error {
                details.set_retry_info(Some(*retry_after));
            }
            Status::with_error_details_and_metadata(row.code, text, details, metadata)
        }
    }
}

/// The parameter that an error is about.
#[must_use]
pub fn parameter_of(error: &Error) -> Option<&str> {
    match error {
        Error::Parameter { name, .. } | Error::AlreadyExists { name } => Some(name),
        Error::UnknownApp => Some("appid"),
        Error::NoSingleApp | Error::RedirectMismatch => Some("redirectUri"),
        Error::CodeRefused | Error::CodeReplayed => Some("code"),
        Error::RefreshTokenRefused | Error::RefreshTokenReplayed => Some("refreshToken"),
        Error::AccessTokenRefused => Some("accessToken"),
        Error::AuthorityExists => Some("clientName"),
        Error::StateRefused => Some("state"),
        _ => None,
    }
}

fn metadata(error: &Error, row: Row, dialect: Dialect) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("cache-control", MetadataValue::from_static("no-store"));
    if matches!(error, Error::CredentialRequired | Error::CredentialRefused) {
        if dialect == Dialect::Admin {
            metadata.append("www-authenticate", MetadataValue::from_static("Ticket realm=\"supos-auth\""));
        }
        for challenge in CHALLENGES {
            metadata.append("www-authenticate", MetadataValue::from_static(challenge));
        }
    }
    if let Some(http) = row.http {
        metadata.insert("x-http-status", MetadataValue::from(http));
    }
    let retry_after = match error {
        Error::Busy { retry_after } | Error::TooManyTries { retry_after } => Some(retry_after.as_secs().max(1)),
        // What an authority was asked cannot be asked again: the sign-in begins anew.
        Error::AuthorityTokenFailed(_) | Error::AuthorityUserFailed(_) => None,
        _ if row.code == Code::Unavailable => Some(5),
        _ => None,
    };
    if let Some(seconds) = retry_after {
        metadata.insert("retry-after", MetadataValue::from(seconds));
    }
    metadata
}
