//! The pages, and the headers that every one of them has.

use askama::Template;
use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

use super::{look::Look, words::Words};
use crate::core::Error;

/// What an answer to a browser is.
#[derive(Debug)]
pub(super) struct Answer(pub(super) Response);

/// No script, nothing from elsewhere, in nobody's frame. `form-action` is left out: it would also bind where the app sends the browser on
/// after it has signed in.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The sign-in page.
#[derive(Template)]
#[template(path = "sign_in.html")]
pub(super) struct SignIn<'a> {
    pub(super) words: &'a Words,
    pub(super) look: &'a Look,
    pub(super) title: &'a str,
    pub(super) app: Option<App>,
    pub(super) alert: Option<String>,
    pub(super) user_name: &'a str,
    pub(super) form: &'a str,
    pub(super) authorities: Vec<Authority>,
}

/// The app that asks, as a person reads it.
#[derive(Debug)]
pub(super) struct App {
    pub(super) name: String,
    pub(super) host: String,
}

/// A third-party authority to sign in at.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) id: String,
    pub(super) name: String,
}

/// The page to change one's password.
#[derive(Template)]
#[template(path = "password.html")]
pub(super) struct Password<'a> {
    pub(super) words: &'a Words,
    pub(super) look: &'a Look,
    pub(super) title: &'a str,
    pub(super) forced: bool,
    pub(super) alert: Option<String>,
    pub(super) user_name: &'a str,
    pub(super) form: &'a str,
    pub(super) min_length: usize,
}

/// A page that says something.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message<'a> {
    pub(super) words: &'a Words,
    pub(super) look: &'a Look,
    pub(super) title: &'a str,
    pub(super) is_error: bool,
    pub(super) text: &'a str,
    pub(super) link: Option<Link<'a>>,
}

/// Where one can go from a page.
pub(super) struct Link<'a> {
    pub(super) target: &'a str,
    pub(super) text: &'a str,
    pub(super) is_button: bool,
}

impl Answer {
    /// A page.
    pub(super) fn page(status: StatusCode, page: &impl Template) -> Result<Self, Error> {
        let html = page.render().map_err(|error| Error::Internal(format!("a page cannot be made: {error}")))?;
        let mut response = (status, Html(html)).into_response();
        for (name, value) in HEADERS {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(Self(response))
    }

    /// A redirect, with GET whatever the method was when it is a 303.
    pub(super) fn redirect(status: StatusCode, location: &str) -> Result<Self, Error> {
        let answer = Self(status.into_response()).with(header::LOCATION, location)?;
        answer.with(header::CACHE_CONTROL, "no-store")?.with(header::REFERRER_POLICY, "no-referrer")
    }

    /// The answer with one more header.
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Result<Self, Error> {
        let value = HeaderValue::try_from(value).map_err(|_| Error::Internal(format!("{name} is no header value")))?;
        self.0.headers_mut().append(name, value);
        Ok(self)
    }
}
