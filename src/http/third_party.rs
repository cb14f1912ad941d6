//! Signing in at a third-party authority: there, and back to operation 13.

use http::{StatusCode, header};

use super::{Browser, Link, SIGN_IN, hint, page::Answer, sealed::WayBack, sign_in, status_of};
use crate::{
    core::{Error, authorities::dance::Departure},
    grpc::{convert, gate::Call, parameters::Original},
};

/// Sends the browser to an authority, whose button was clicked.
pub(super) async fn depart(browser: &Browser<'_>, call: &Call, authority: &str, way_back: Option<WayBack>) -> Result<Answer, Error> {
    let id = authority.parse().map_err(|_| Error::AuthorityOff)?;
    // What it is for stays here; the authority only carries where it goes on.
    let target = way_back.map_or_else(|| SIGN_IN.to_owned(), |way_back| way_back.target);
    let Departure { location, binding } = call.core.begin_at_authority(id, &target, call.caller.bindings()).await?;
    let answer = Answer::redirect(StatusCode::SEE_OTHER, &location)?;
    answer.with(header::SET_COOKIE, &browser.pages.gate.cookies.of_binding(binding.expose()))
}

/// Takes the browser that comes back from an authority.
pub(super) async fn come_back(browser: &Browser<'_>, original: &Original) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    let outcome = gate
        .serve_page(original.operation.rpc, browser.headers(), Some(original), async |call| {
            let arrived = convert::complete_third_party_sign_in(&call).await?;
            let way_back = WayBack { target: arrived.way_back, app: None };
            sign_in::go_on(browser, &arrived.opened, Some(way_back))
        })
        .await;
    outcome.or_else(|error| {
        let link = Link { target: SIGN_IN, text: browser.words.again, is_button: false };
        let text = browser.sentence(&error);
        hint(browser.message(status_of(&error), browser.words.cannot, true, &text, Some(link))?, &error)
    })
}
