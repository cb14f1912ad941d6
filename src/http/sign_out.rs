//! Operation 12 by a browser: the session ends, and a page says so.

use http::{StatusCode, header};

use super::{
    Browser,
    page::{Answer, Link},
};
use crate::{
    core::Error,
    grpc::{convert, parameters::Original},
};

pub(super) async fn browse(browser: &Browser<'_>, original: &Original) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    let words = browser.words;
    gate.serve_page(original.operation.rpc, browser.headers(), Some(original), async |call| {
        // A page of another site may lead here, and not sign anybody out by it: that takes a click of his own.
        let site = browser.headers().get("sec-fetch-site").and_then(|site| site.to_str().ok());
        if site == Some("cross-site") && call.caller.showed_ticket() {
            let link = Link { target: &original.path, text: words.sign_out, is_button: true };
            return browser.message(StatusCode::OK, words.sign_out, false, words.sign_out_ask, Some(link));
        }
        // Whoever has signed in at an authority is signed out there, too.
        let answer = match convert::sign_out_of_browser(&call).await {
            Err(Error::NotAllowed) => return browser.of_another_site(),
            Err(other) => return Err(other),
            Ok(Some(further)) => Answer::redirect(StatusCode::SEE_OTHER, &further)?,
            Ok(None) => browser.message(StatusCode::OK, words.signed_out, false, words.signed_out_text, None)?,
        };
        if call.caller.may_lose_ticket() { answer.with(header::SET_COOKIE, &gate.cookies.without_ticket()) } else { Ok(answer) }
    })
    .await
}
