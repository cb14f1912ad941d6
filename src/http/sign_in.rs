//! The sign-in page, and what it sends.

use http::{StatusCode, header};

use super::{
    Browser, Form, PASSWORD, hint,
    page::{self, Answer, SignIn},
    password,
    sealed::{self, WayBack},
    status_of, third_party,
};
use crate::{
    core::{Core, Error, secret::Secret, sign_in::Opened},
    sign::Query,
};

/// The longest user name that is taken from a form, in bytes.
const MAX_NAME: usize = 1024;

pub(super) async fn show(browser: &Browser<'_>) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    gate.serve_page("/http/ShowSignIn", browser.headers(), None, async |call| {
        let query = Query::read(browser.parts.uri.query().unwrap_or_default())?;
        let shown = query.iter().find(|(name, _)| *name == "continue").map(|(_, value)| value.to_string());
        let way_back = match shown.map(|shown| sealed::open::<WayBack>(&call.core, &shown)) {
            None => None,
            Some(sealed::Opened::Good(way_back)) => Some(way_back),
            Some(sealed::Opened::Expired(way_back)) => return browser.expired(&way_back.target),
            Some(sealed::Opened::Forged) => return browser.expired(super::SIGN_IN),
        };
        if call.caller.ticket()?.is_some() {
            return match way_back {
                Some(way_back) => Answer::redirect(StatusCode::SEE_OTHER, &way_back.target),
                None => signed_in(browser),
            };
        }
        render(browser, &call.core, StatusCode::OK, None, "", way_back).await
    })
    .await
}

/// The page that says that one is signed in already.
pub(super) fn signed_in(browser: &Browser<'_>) -> Result<Answer, Error> {
    let words = browser.words;
    let link = page::Link { target: PASSWORD, text: words.change_password, is_button: false };
    browser.message(StatusCode::OK, words.signed_in, false, words.signed_in_text, Some(link))
}

async fn render(
    browser: &Browser<'_>,
    core: &Core,
    status: StatusCode,
    alert: Option<String>,
    name: &str,
    way_back: Option<WayBack>,
) -> Result<Answer, Error> {
    let offered = core.offered_authorities().await?;
    let authorities = offered.into_iter().map(|authority| page::Authority { id: authority.id.to_string(), name: authority.name }).collect();
    let app = way_back.as_ref().and_then(|way_back| way_back.app.clone()).map(|(name, host)| page::App { name, host });
    browser.with_form(way_back, None, |form| {
        let page = SignIn {
            words: browser.words,
            look: &browser.pages.look,
            title: browser.words.sign_in,
            app,
            alert,
            user_name: name,
            form,
            authorities,
        };
        Answer::page(status, &page)
    })
}

pub(super) async fn send(browser: &Browser<'_>, form: Result<Form, Error>) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    gate.serve_page("/http/SignIn", browser.headers(), None, async |call| {
        let form = form?;
        let opened = match browser.opened(&call.caller, &form)? {
            Ok(opened) => opened,
            Err(page) => return Ok(page),
        };
        let authority = form.get("authority");
        if !authority.is_empty() {
            return third_party::depart(browser, &call, authority, opened.way_back).await;
        }
        let (name, password) = (form.get("userName"), form.get("password"));
        let missing = |field: &str| Error::parameter(field, crate::core::Problem::Missing);
        let outcome = if name.is_empty() {
            Err(missing("userName"))
        } else if password.is_empty() {
            Err(missing("password"))
        } else if name.len() > MAX_NAME {
            Err(Error::WrongPassword)
        } else {
            call.core.sign_in(name, Secret::new(password), call.caller.source().clone()).await
        };
        match outcome {
            Ok(signed_in) => {
                tracing::info!(user = %signed_in.signed_in.user.id, session = %signed_in.signed_in.session.id, "a user has signed in");
                go_on(browser, &signed_in, opened.way_back)
            }
            Err(Error::PasswordChangeRequired) => password::forced(browser, StatusCode::OK, None, name, opened.way_back),
            Err(
                error @ (Error::WrongPassword
                | Error::UserDisabled
                | Error::TooManyTries { .. }
                | Error::Busy { .. }
                | Error::Parameter { .. }),
            ) => {
                let alert = alert(browser, &error);
                let answer = render(browser, &call.core, status_of(&error), Some(alert), name, opened.way_back).await?;
                hint(answer, &error)
            }
            Err(other) => Err(other),
        }
    })
    .await
}

/// The sign-in page for somebody whose password was changed, and who could not be signed in with the new one.
pub(super) async fn once_more(
    browser: &Browser<'_>,
    core: &Core,
    error: &Error,
    name: &str,
    way_back: Option<WayBack>,
) -> Result<Answer, Error> {
    let alert = format!("{} {}", browser.words.password_changed, alert(browser, error));
    hint(render(browser, core, status_of(error), Some(alert), name, way_back).await?, error)
}

/// What a form says of what went wrong with it.
pub(super) fn alert(browser: &Browser<'_>, error: &Error) -> String {
    let text = browser.sentence(error);
    match error {
        Error::TooManyTries { retry_after } => {
            let minutes = retry_after.as_secs().div_ceil(60);
            format!("{text} {}{minutes}{}", browser.words.minutes_before, browser.words.minutes_after)
        }
        _ => text,
    }
}

/// Gives the browser its cookies, and sends it on.
pub(super) fn go_on(browser: &Browser<'_>, opened: &Opened, way_back: Option<WayBack>) -> Result<Answer, Error> {
    let cookies = browser.pages.gate.cookies;
    let answer = match way_back {
        Some(way_back) => Answer::redirect(StatusCode::SEE_OTHER, &way_back.target)?,
        None => Answer::redirect(StatusCode::SEE_OTHER, super::SIGN_IN)?,
    };
    let answer = answer.with(header::SET_COOKIE, &cookies.of_ticket(opened.ticket.expose()))?;
    let answer = answer.with(header::SET_COOKIE, &cookies.of_browser(opened.browser.expose()))?;
    // What the browser was before it signed in is worth nothing any more.
    answer.with(header::SET_COOKIE, &format!("{}; Max-Age=0", cookies.of_pages(super::BEFORE, "")))
}
