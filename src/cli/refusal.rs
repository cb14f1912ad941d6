//! What the service says when it does not do what it was asked, in words.

use std::{error::Error as _, fmt::Write as _};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{connection::ServerUrl, failure::Failure, text::printable};

/// A gRPC status, and the service that sent it.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: Status,
    server: ServerUrl,
}

/// A field of the request that is at fault, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) field: String,
    pub(crate) description: String,
}

impl Refusal {
    pub(crate) fn new(status: Status, server: ServerUrl) -> Self {
        Self { status, server }
    }

    pub(crate) fn code(&self) -> Code {
        self.status.code()
    }

    /// The service's message, fit for a terminal; what the code means when there is none.
    pub(crate) fn message(&self) -> String {
        match self.status.message() {
            "" => self.status.code().description().to_owned(),
            message => printable(message).into_owned(),
        }
    }

    /// The machine-readable reason, which never changes.
    pub(crate) fn reason(&self) -> Option<String> {
        self.status.get_details_error_info().map(|info| info.reason)
    }

    /// The fields at fault.
    pub(crate) fn violations(&self) -> Vec<Violation> {
        let text = |text: &str| printable(text).into_owned();
        let violations = self.status.get_details_bad_request().map(|bad_request| bad_request.field_violations).unwrap_or_default();
        violations.iter().map(|violation| Violation { field: text(&violation.field), description: text(&violation.description) }).collect()
    }

    /// The refusal of a call that itself says who is calling, where signing in is no advice.
    pub(crate) fn without_advice_to_sign_in(self) -> Failure {
        match self.code() {
            Code::Unauthenticated | Code::PermissionDenied => Failure::new(self.text(&self.status.get_error_details())),
            _ => self.into(),
        }
    }

    fn text(&self, details: &ErrorDetails) -> String {
        let mut text = match self.code() {
            Code::Unavailable if details.error_info().is_none() => {
                format!("the service at {} cannot be reached: {}", self.server, self.message())
            }
            Code::Unimplemented => format!("the service at {} does not know this operation", self.server),
            _ => self.message(),
        };
        for violation in self.violations() {
            // Where there is one fault, the message often says it in the same words.
            if !text.contains(&violation.description) {
                // Writing to a string cannot fail.
                let _ = write!(text, "\n  {}: {}", violation.field, violation.description);
            }
        }
        text
    }

    fn hint(&self, details: &ErrorDetails) -> Option<String> {
        if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
            return Some(format!("Try again in {} s.", delay.as_secs().max(1)));
        }
        // An HTTP/2 error has a cause on this side; what the service says has none.
        let is_broken_connection = self.status.source().is_some();
        let hint = match self.code() {
            Code::Unavailable if details.error_info().is_none() => {
                "Is the service running there? Name another one with --server or SUPOS_AUTH_SERVER."
            }
            Code::Unavailable => "Try again later.",
            Code::Unauthenticated => "Sign in: `supos-auth login`.",
            Code::PermissionDenied => "Sign in as an administrator: `supos-auth login --user NAME`.",
            Code::Unimplemented => "Is it an older version, or something other than supos-auth?",
            Code::DeadlineExceeded => "It may have been done all the same: look before you try again. --timeout waits longer.",
            _ if is_broken_connection => "The connection broke, or what answers there is not supos-auth.",
            Code::Internal | Code::Unknown | Code::DataLoss => "This is a fault of the service: its log says more.",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let details = refusal.status.get_error_details();
        let failure = Self::new(refusal.text(&details));
        match refusal.hint(&details) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::Duration};

    use super::*;

    fn explain(status: Status) -> String {
        Failure::from(Refusal::new(status, "http://127.0.0.1:1".parse().unwrap())).to_string()
    }

    fn with(code: Code, message: &str, details: ErrorDetails) -> String {
        explain(Status::with_error_details(code, message, details))
    }

    #[test]
    fn names_what_is_at_fault() {
        let mut details = ErrorDetails::with_bad_request_violation("app.redirect_uris[1]", "must be absolute");
        details.add_bad_request_violation("app.display_name", "is longer than 256 bytes");
        assert_eq!(
            with(Code::InvalidArgument, "the app is not acceptable", details),
            "the app is not acceptable\n  app.redirect_uris[1]: must be absolute\n  app.display_name: is longer than 256 bytes"
        );
        let details = ErrorDetails::with_bad_request_violation("app_id", "app_id is taken");
        assert_eq!(with(Code::AlreadyExists, "app_id is taken", details), "app_id is taken");
    }

    #[test]
    fn says_what_to_do_next() {
        let info = || ErrorDetails::with_error_info("X", "supos-auth", HashMap::new());
        for (text, words) in [
            (explain(Status::unauthenticated("the ticket has ended")), ["the ticket has ended", "`supos-auth login`"]),
            (explain(Status::permission_denied("not allowed")), ["not allowed", "administrator"]),
            (explain(Status::unimplemented("")), ["http://127.0.0.1:1 does not know", "older version"]),
            (explain(Status::unavailable("tcp connect error")), ["cannot be reached: tcp connect error", "Is the service running"]),
            (with(Code::Unavailable, "the store cannot be written", info()), ["the store cannot be written", "later"]),
            (explain(Status::internal("")), ["nternal", "log"]),
        ] {
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        let retry = ErrorDetails::with_retry_info(Some(Duration::from_secs(30)));
        assert_eq!(with(Code::ResourceExhausted, "too many tries", retry), "too many tries\nTry again in 30 s.");
        assert_eq!(explain(Status::not_found("there is no app x")), "there is no app x");
    }

    #[test]
    fn cannot_steer_the_terminal() {
        assert_eq!(explain(Status::not_found("\u{1b}[2J")), "\\u{1b}[2J");
    }
}
