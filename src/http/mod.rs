//! What a browser gets: pages and redirects. Envoy sends the page paths here, and GETs of operations 4, 10, 12 and 13 whose `Accept` has
//! `text/html`. Each calls the same core operation as its gRPC adapter, through the same [`Gate`]; nothing is decided here.
//!
//! | path | |
//! |---|---|
//! | `/inter-api/auth/sign-in` | [`sign_in`] |
//! | `/inter-api/auth/password` | [`password`] |
//! | `/inter-api/auth/assets/…` | [`look`] |
//! | operations 4 and 10 | [`authorize`] |
//! | operation 12 | [`sign_out`] |
//! | operation 13 | [`third_party`] |

mod authorize;
mod look;
mod page;
mod password;
mod sealed;
mod sign_in;
mod sign_out;
mod third_party;
mod words;

use std::sync::Arc;

use axum::{
    body::to_bytes,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use serde_json::json;

pub use self::look::Look;
use self::{
    page::{Answer, Link, Message},
    words::Words,
};
use crate::{
    caller::{self, Caller},
    core::{Error, Problem, secret::Secret},
    dialect::{
        self, Dialect,
        error::{row_of, text_of},
        language::Language,
        operation::Operation,
    },
    grpc::{gate::Gate, parameters::Original, status::parameter_of},
    sign::Query,
};

/// The sign-in page.
pub(crate) const SIGN_IN: &str = "/inter-api/auth/sign-in";
/// The page to change one's password.
const PASSWORD: &str = "/inter-api/auth/password";
/// The cookie that tells browsers apart before anybody has signed in.
const BEFORE: &str = "suposSignIn";
/// The most bytes of a form.
const MAX_FORM: usize = 64 * 1024;

/// What the pages are made with.
#[derive(Clone, Debug)]
pub struct Pages {
    gate: Gate,
    look: Look,
    min_password_length: usize,
}

/// A request by a browser.
struct Browser<'a> {
    pages: &'a Pages,
    parts: Parts,
    language: Language,
    words: &'static Words,
}

impl Pages {
    /// Pages that look like this.
    #[must_use]
    pub const fn new(gate: Gate, look: Look, min_password_length: usize) -> Self {
        Self { gate, look, min_password_length }
    }
}

/// Serves a browser.
pub async fn serve(State(pages): State<Arc<Pages>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let language = Language::of_headers(&parts.headers);
    let browser = Browser { pages: &pages, parts, language, words: Words::of(language) };
    let path = browser.parts.uri.path().to_owned();
    let path = path.strip_suffix('/').unwrap_or(&path);
    let form = async || Form::read(&browser.parts.headers, body).await;
    let answer = match (&browser.parts.method, path) {
        (&Method::GET, SIGN_IN) => sign_in::show(&browser).await,
        (&Method::POST, SIGN_IN) => sign_in::send(&browser, form().await).await,
        (&Method::GET, PASSWORD) => password::show(&browser).await,
        (&Method::POST, PASSWORD) => password::send(&browser, form().await).await,
        (&Method::GET, path) if path.starts_with(look::FOLDER) => {
            return pages.look.file(path).unwrap_or_else(|| not_there(browser.headers(), language));
        }
        (&Method::GET, path) => match Operation::of_http("GET", path) {
            Some(operation) => browser.operation(operation).await,
            None => return not_there(browser.headers(), language),
        },
        _ => return not_there(browser.headers(), language),
    };
    match answer.or_else(|error| browser.failed(&error)) {
        Ok(answer) => answer.0,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The answer to a path or a method that there is not, as Envoy gives it to those that it does not pass on.
fn not_there(headers: &HeaderMap, language: Language) -> Response {
    let error = Error::NotOffered;
    // A gRPC client takes the status for `UNIMPLEMENTED`, and a body for a message.
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return status_of(&error).into_response();
    }
    let body = json!({"code": row_of(&error, Dialect::Current).number, "message": text_of(&error, language)}).to_string();
    (status_of(&error), [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

impl Browser<'_> {
    fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// A GET of an operation that browsers call.
    async fn operation(&self, operation: &'static Operation) -> Result<Answer, Error> {
        let target = self.parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let answer = async {
            let mut original = Original::read(operation, "GET", target)?;
            original.address = crate::grpc::edge::address(self.headers());
            match operation.rpc {
                "/supos.auth.v2.AuthService/Authorize" => authorize::browse(self, &original, target, false).await,
                "/supos.auth.v281.AuthService/Authorize" => authorize::browse(self, &original, target, true).await,
                "/supos.auth.v2.AuthService/SignOut" => sign_out::browse(self, &original).await,
                "/supos.auth.v2.AuthService/CompleteThirdPartySignIn" => third_party::come_back(self, &original).await,
                _ => Err(Error::NotOffered),
            }
        };
        let mut answer = answer.await.or_else(|error| self.failed(&error))?;
        if operation.deprecated {
            dialect::mark_deprecated(operation, answer.0.headers_mut());
        }
        Ok(answer)
    }

    /// The page that says what went wrong.
    fn failed(&self, error: &Error) -> Result<Answer, Error> {
        let text = format!("{} {}", self.sentence(error), self.words.ask_the_app);
        self.message(status_of(error), self.words.cannot, true, &text, None).and_then(|answer| hint(answer, error))
    }

    /// The page that says that a page of another site is behind it.
    fn of_another_site(&self) -> Result<Answer, Error> {
        self.message(StatusCode::FORBIDDEN, self.words.cannot, true, self.words.other_site, None)
    }

    /// What an error says, as a sentence.
    fn sentence(&self, error: &Error) -> String {
        let text = text_of(error, self.language);
        // The name of a parameter stays as it is written.
        let mut rest = if parameter_of(error).is_some() { "".chars() } else { text.chars() };
        match rest.next() {
            Some(first) => format!("{}{}{}", first.to_uppercase(), rest.as_str(), self.words.full_stop),
            None => text + self.words.full_stop,
        }
    }

    /// A page that says something.
    fn message(&self, status: StatusCode, title: &str, is_error: bool, text: &str, link: Option<Link<'_>>) -> Result<Answer, Error> {
        let look = &self.pages.look;
        Answer::page(status, &Message { words: self.words, look, title, is_error, text, link })
    }

    /// The value of the cookie that tells this browser from others, if it has one.
    fn before(&self) -> Option<Secret> {
        let is_whole = |value: &&str| value.len() == 43 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        caller::cookies(self.headers(), BEFORE).find(is_whole).map(Secret::new)
    }

    /// A page with a form in it: sealed, and bound to a cookie, which the browser gets where it has none yet.
    fn with_form(
        &self,
        way_back: Option<sealed::WayBack>,
        must_change: Option<String>,
        page: impl FnOnce(&str) -> Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        let (cookie, is_new) = match self.before() {
            Some(cookie) => (cookie, false),
            None => (sealed::new_browser()?, true),
        };
        let answer = page(&sealed::seal(self.pages.gate.core(), &sealed::Form::new(&cookie, way_back, must_change))?)?;
        if is_new { answer.with(header::SET_COOKIE, &self.pages.gate.cookies.of_pages(BEFORE, cookie.expose())) } else { Ok(answer) }
    }

    /// What a form that was sent proves; else the page that says why it does not.
    fn opened(&self, caller: &Caller, form: &Form) -> Result<Result<sealed::Form, Answer>, Error> {
        // A page of another site cannot know the sealed value; one on another port can set our cookie, and so have its own form taken.
        if !caller.is_from_our_page() {
            return self.of_another_site().map(Err);
        }
        let cookie = self.before();
        let is_ours = |opened: &sealed::Form| cookie.as_ref().is_some_and(|cookie| opened.is_of(cookie.expose()));
        let way_back = match sealed::open::<sealed::Form>(self.pages.gate.core(), form.get("form")) {
            sealed::Opened::Good(opened) if is_ours(&opened) => return Ok(Ok(opened)),
            sealed::Opened::Good(opened) | sealed::Opened::Expired(opened) => opened.way_back,
            sealed::Opened::Forged => None,
        };
        let target = way_back.map_or_else(|| SIGN_IN.to_owned(), |way_back| way_back.target);
        self.expired(&target).map(Err)
    }

    /// The page that says that one has waited too long.
    fn expired(&self, target: &str) -> Result<Answer, Error> {
        let link = Link { target, text: self.words.again, is_button: false };
        self.message(StatusCode::BAD_REQUEST, self.words.expired, true, self.words.expired_text, Some(link))
    }
}

/// The HTTP status of an error.
fn status_of(error: &Error) -> StatusCode {
    StatusCode::from_u16(row_of(error, Dialect::Current).http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// When to try again, where an error says so.
fn hint(answer: Answer, error: &Error) -> Result<Answer, Error> {
    match error {
        Error::TooManyTries { retry_after } | Error::Busy { retry_after } => {
            answer.with(header::RETRY_AFTER, &retry_after.as_secs().max(1).to_string())
        }
        _ => Ok(answer),
    }
}

/// A form that was sent.
struct Form(Query);

impl Form {
    async fn read(headers: &HeaderMap, body: axum::body::Body) -> Result<Self, Error> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")) {
            return Err(Error::parameter("Content-Type", Problem::NotAllowed));
        }
        let bytes = to_bytes(body, MAX_FORM).await.map_err(|_| Error::parameter("body", Problem::TooLong))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::parameter("body", Problem::Malformed))?;
        let query = Query::read(text).map_err(|_| Error::parameter("body", Problem::Malformed))?;
        Ok(Self(query))
    }

    /// A field, empty when it is not there.
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref()).unwrap_or_default()
    }
}
