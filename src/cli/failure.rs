//! What went wrong, and what to do next.

use std::{error::Error, fmt, io};

use super::text::printable;

/// Why a command failed, in words for the person who gave it. Never holds a password, secret or ticket.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    usage: bool,
}

impl Failure {
    /// The command failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, usage: false }
    }

    /// The command lacks something, or contradicts itself.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { usage: true, ..Self::new(message) }
    }

    /// The command failed because of an error, which is told with its causes.
    pub(crate) fn from_error(what: &str, error: &(dyn Error + 'static)) -> Self {
        Self::new(format!("{what}: {}", printable(&with_causes(error))))
    }

    /// A file could not be read or written.
    pub(crate) fn from_io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::from_error(&format!("cannot {what}"), error)
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the arguments are at fault.
    pub(crate) fn is_usage(&self) -> bool {
        self.usage
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n{hint}"))
    }
}

impl Error for Failure {}

/// An error and its causes in one line. Many errors repeat their cause in their own text: that is said once.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store cannot be opened")]
    struct Outer(#[source] io::Error);

    #[test]
    fn says_causes_and_hint() {
        let failure = Failure::from_error("the service has stopped", &Outer(io::Error::other("disk is full"))).hint("Make room.");
        assert_eq!(failure.to_string(), "the service has stopped: the store cannot be opened: disk is full\nMake room.");
    }

    #[test]
    fn only_usage_is_usage() {
        assert!(Failure::usage("no --yes").is_usage());
        assert!(!Failure::new("refused").is_usage());
    }
}
