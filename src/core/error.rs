//! Everything that an operation can end in but success.

use std::time::Duration;

use thiserror::Error as ThisError;

/// Why an operation did not do what was asked. A variant names the cause, never holds a secret, and has its status, number and text in
/// `dialect::error`.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// A parameter, header or body is not as it has to be.
    #[error("{name}: {problem}")]
    Parameter {
        /// The parameter's name on the wire.
        name: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// No enabled app has this id.
    #[error("the app is unknown or disabled")]
    UnknownApp,
    /// No app, or more than one, has registered the redirect URI.
    #[error("the redirect URI is that of no app, or of several")]
    NoSingleApp,
    /// The app has not registered the redirect URI.
    #[error("the redirect URI is not one of the app's")]
    RedirectMismatch,
    /// There is no such code, or it has expired, or it is another app's, or its session has ended.
    #[error("the code is unknown, expired or another app's")]
    CodeRefused,
    /// The code was used before; what the first use gave out has been ended.
    #[error("the code was used a second time")]
    CodeReplayed,
    /// There is no such refresh token, or it is another app's, or its session has ended.
    #[error("the refresh token is unknown, ended or another app's")]
    RefreshTokenRefused,
    /// The refresh token was used before, too long ago for a retry; its family has been ended.
    #[error("the refresh token was used a second time")]
    RefreshTokenReplayed,
    /// The access token that is asked about is not one that the caller may ask about, or is not good.
    #[error("the access token is unknown, ended or somebody else's")]
    AccessTokenRefused,
    /// The caller showed no credential, and has to.
    #[error("no credential was shown")]
    CredentialRequired,
    /// The caller's credential is not good.
    #[error("the credential is not good")]
    CredentialRefused,
    /// The caller is known, and may not do this.
    #[error("the caller may not do this")]
    NotAllowed,
    /// The user name or the password is wrong.
    #[error("the user name or the password is wrong")]
    WrongPassword,
    /// The password is right, and the user is disabled.
    #[error("the user is disabled")]
    UserDisabled,
    /// The password is right, and has to be changed first.
    #[error("the password has to be changed first")]
    PasswordChangeRequired,
    /// There is nothing of that name.
    #[error("{0} not found")]
    NotFound(&'static str),
    /// There is something of that name already.
    #[error("{name}: exists already")]
    AlreadyExists {
        /// The field that has to be unique.
        name: String,
    },
    /// There is a third-party authority of that name already.
    #[error("there is an authority of that name")]
    AuthorityExists,
    /// There is no such third-party authority, or it is not enabled.
    #[error("the authority is unknown or off")]
    AuthorityOff,
    /// The state that came back from an authority is unknown, expired or used, or another browser's.
    #[error("the state is unknown, expired, used or another browser's")]
    StateRefused,
    /// The authority says that it, or the user, did not want him signed in.
    #[error("the authority did not sign the user in")]
    AuthorityDenied,
    /// The authority gave no token for its code.
    #[error("the authority's token call failed: {0}")]
    AuthorityTokenFailed(String),
    /// The authority did not say who its user is.
    #[error("the authority's user call failed: {0}")]
    AuthorityUserFailed(String),
    /// Nobody here is the user whom the authority has signed in.
    #[error("the authority's user is nobody here")]
    AuthorityUserUnknown,
    /// It would leave the service in a state that nobody wants.
    #[error("{0}")]
    Precondition(&'static str),
    /// The operation is not offered.
    #[error("the operation is not offered")]
    NotOffered,
    /// Somebody was wrong too often; the credential was not looked at.
    #[error("too many tries")]
    TooManyTries {
        /// When to try again.
        retry_after: Duration,
    },
    /// There is more to do than can be done; the work has not been begun.
    #[error("too much to do at once")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The store cannot be read or written; what was asked for has not been promised to anybody.
    #[error("store: {0}")]
    StoreUnavailable(String),
    /// The answer took too long.
    #[error("the answer took too long")]
    Timeout,
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
pub enum Problem {
    /// It is not there, or empty.
    #[error("is required")]
    Missing,
    /// It is there more than once.
    #[error("is given more than once")]
    Twice,
    /// It is not of the right form.
    #[error("is malformed")]
    Malformed,
    /// It has a value that is not among those that are taken.
    #[error("has a value that is not allowed")]
    NotAllowed,
    /// It is longer than it may be.
    #[error("is too long")]
    TooLong,
    /// It is shorter than it has to be.
    #[error("is too short")]
    TooShort,
    /// It is among what somebody who guesses tries first.
    #[error("is too easy to guess")]
    TooCommon,
    /// It stands where it may not stand, or says two things at once.
    #[error("is ambiguous")]
    Ambiguous,
}

impl Error {
    /// A parameter that is not as it has to be.
    #[must_use]
    pub fn parameter(name: impl Into<String>, problem: Problem) -> Self {
        Self::Parameter { name: name.into(), problem }
    }

    /// Puts the parameter's place in front of its name, where the error is about one.
    #[must_use]
    pub fn within(self, place: &str) -> Self {
        match self {
            Self::Parameter { name, problem } => Self::Parameter { name: format!("{place}.{name}"), problem },
            Self::AlreadyExists { name } => Self::AlreadyExists { name: format!("{place}.{name}") },
            other => other,
        }
    }
}
