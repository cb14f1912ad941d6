//! Operations 4 and 10 by a browser: to the app with a code, or to the sign-in page and back here.

use axum::response::IntoResponse as _;
use http::{StatusCode, header};
use serde_json::json;

use super::{Browser, SIGN_IN, page::Answer, sealed};
use crate::{
    core::{Error, authorize::AuthorizeRequest, model::App},
    grpc::{convert, parameters::Original},
};

pub(super) async fn browse(browser: &Browser<'_>, original: &Original, target: &str, names_app: bool) -> Result<Answer, Error> {
    let gate = &browser.pages.gate;
    gate.serve_page(original.operation.rpc, browser.headers(), Some(original), async |call| {
        match call.caller.user() {
            Ok(_) => {
                let authorized = convert::authorize(&call, names_app).await?;
                // A browser follows it; a client that reads like one finds the code here, too.
                let body = json!({"code": authorized.code.expose(), "message": "OK"}).to_string();
                let kind = [(header::CONTENT_TYPE, "application/json")];
                let answer = Answer((StatusCode::FOUND, kind, body).into_response()).with(header::LOCATION, &authorized.location)?;
                answer.with(header::CACHE_CONTROL, "no-store")?.with(header::REFERRER_POLICY, "no-referrer")
            }
            Err(Error::CredentialRequired | Error::CredentialRefused) => {
                // What could never be given is said at once, and not after somebody has signed in for it.
                let request = convert::authorize_request(&call, names_app)?;
                let app = call.core.check_authorize(&request).await?;
                let way_back = sealed::WayBack { target: target.to_owned(), app: Some(described(&app, &request)) };
                let sealed = sealed::seal(&call.core, &way_back)?;
                Answer::redirect(StatusCode::FOUND, &format!("{SIGN_IN}?continue={sealed}"))
            }
            Err(other) => Err(other),
        }
    })
    .await
}

/// The name of the app, and where the browser goes to.
fn described(app: &App, request: &AuthorizeRequest) -> (String, String) {
    let name = if app.display_name.is_empty() { app.id.to_string() } else { app.display_name.clone() };
    let place = url::Url::parse(&request.redirect_uri).ok().map(|url| match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => format!("{}:", url.scheme()),
    });
    (name, place.unwrap_or_default())
}
