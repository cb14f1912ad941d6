//! The page to change one's password: one's own will, or because an administrator has set it.

use http::StatusCode;

use super::{
    Browser, Form, PASSWORD, SIGN_IN, hint,
    page::{Answer, Password},
    sealed::{self, WayBack},
    sign_in, status_of,
};
use crate::core::{Error, Problem, secret::Secret, users::PasswordOwner};

pub(super) async fn show(browser: &Browser<'_>) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    gate.serve_page("/http/ShowPassword", browser.headers(), None, async |call| match call.caller.ticket()? {
        Some(signed_in) => render(browser, StatusCode::OK, None, &signed_in.user.name, None, false),
        None => {
            let way_back = WayBack { target: PASSWORD.to_owned(), app: None };
            Answer::redirect(StatusCode::SEE_OTHER, &format!("{SIGN_IN}?continue={}", sealed::seal(&call.core, &way_back)?))
        }
    })
    .await
}

/// The page that has to be passed before one is signed in.
pub(super) fn forced(
    browser: &Browser<'_>,
    status: StatusCode,
    alert: Option<String>,
    name: &str,
    way_back: Option<WayBack>,
) -> Result<Answer, Error> {
    render(browser, status, alert, name, way_back, true)
}

fn render(
    browser: &Browser<'_>,
    status: StatusCode,
    alert: Option<String>,
    name: &str,
    way_back: Option<WayBack>,
    forced: bool,
) -> Result<Answer, Error> {
    browser.with_form(way_back, forced.then(|| name.to_owned()), |form| {
        let page = Password {
            words: browser.words,
            look: &browser.pages.look,
            title: browser.words.change_password,
            forced,
            alert,
            user_name: name,
            form,
            min_length: browser.pages.min_password_length,
        };
        Answer::page(status, &page)
    })
}

pub(super) async fn send(browser: &Browser<'_>, form: Result<Form, Error>) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    gate.serve_page("/http/ChangePassword", browser.headers(), None, async |call| {
        let form = form?;
        let opened = match browser.opened(&call.caller, &form)? {
            Ok(opened) => opened,
            Err(page) => return Ok(page),
        };
        let (name, owner) = match (&opened.must_change, call.caller.ticket()?) {
            (Some(name), _) => (name.clone(), PasswordOwner::Named(name.clone())),
            (None, Some(signed_in)) => (signed_in.user.name.clone(), PasswordOwner::InSession(signed_in.user.id, signed_in.session.id)),
            (None, None) => return browser.expired(PASSWORD),
        };
        let (current, new) = (form.get("currentPassword"), form.get("newPassword"));
        let source = call.caller.source().clone();
        let changed = if new == form.get("repeatedPassword") {
            let keep_others = opened.must_change.is_none() && form.get("endOthers").is_empty();
            call.core.change_password(owner, Secret::new(current), Secret::new(new), keep_others, &source).await.map_err(Some)
        } else {
            Err(None)
        };
        match changed {
            Ok(()) if opened.must_change.is_some() => {
                match call.core.sign_in(&name, Secret::new(new), source).await {
                    Ok(signed_in) => sign_in::go_on(browser, &signed_in, opened.way_back),
                    // The old password is gone: he has to know that it is the new one that he signs in with.
                    Err(error) => sign_in::once_more(browser, &call.core, &error, &name, opened.way_back).await,
                }
            }
            Ok(()) => browser.message(StatusCode::OK, browser.words.change_password, false, browser.words.password_changed, None),
            Err(error) => {
                let (status, text) = match &error {
                    None => (StatusCode::BAD_REQUEST, browser.words.they_differ.to_owned()),
                    Some(error) => (status_of(error), explain(browser, error)),
                };
                let forced = opened.must_change.is_some();
                let answer = render(browser, status, Some(text), &name, opened.way_back, forced)?;
                match &error {
                    Some(error) => hint(answer, error),
                    None => Ok(answer),
                }
            }
        }
    })
    .await
}

fn explain(browser: &Browser<'_>, error: &Error) -> String {
    match error {
        Error::Parameter { name, problem: Problem::NotAllowed } if name == "new_password" => browser.words.not_the_same.to_owned(),
        Error::Parameter { problem: Problem::TooCommon, .. } => browser.words.too_common.to_owned(),
        Error::Parameter { .. } => browser.words.too_short.to_owned(),
        other => sign_in::alert(browser, other),
    }
}
