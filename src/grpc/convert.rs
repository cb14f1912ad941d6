//! From a call to an operation of the core, for operations that several generations have.

use std::time::{Duration, UNIX_EPOCH};

use super::gate::{Answer, Call};
use crate::core::{
    Error, Problem, Tokens,
    authorities::dance::{Arrived, Callback},
    authorize::{AuthorizeRequest, Authorized},
    clock::Timestamp,
};

/// A number of seconds on the wire.
pub(super) fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A moment on the wire.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    (UNIX_EPOCH + Duration::from_millis(at.millis())).into()
}

/// Operations 1 and 3.
pub(super) async fn token(call: &Call) -> Result<Tokens, Error> {
    // Whoever shows nothing is asked for a credential before anything else is said.
    let by = call.caller.refresher()?;
    let parameters = call.parameters()?;
    match parameters.required("grantType")? {
        "authorization_code" => {
            let app = call.caller.app()?;
            let code = parameters.required("code")?;
            let logout_uri = parameters.required("logoutUri")?.to_owned();
            call.core.exchange(app, code, logout_uri, call.caller.take_use()).await
        }
        "refresh_token" => call.core.refresh(parameters.required("refreshToken")?, by, call.caller.take_use()).await,
        _ => Err(Error::parameter("grantType", Problem::NotAllowed)),
    }
}

/// What operations 4 and 10 are asked for. In 4 the app has to be named.
pub(crate) fn authorize_request(call: &Call, names_app: bool) -> Result<AuthorizeRequest, Error> {
    let parameters = call.parameters()?;
    let app = if names_app { Some(parameters.required("appid")?) } else { parameters.optional("appid") };
    parameters.exactly("responseType", "code")?;
    Ok(AuthorizeRequest {
        app: app.map(str::to_owned),
        redirect_uri: parameters.required("redirectUri")?.to_owned(),
        state: parameters.required("state")?.to_owned(),
        scope: parameters.optional("scope").unwrap_or_default().to_owned(),
    })
}

/// Operations 4 and 10.
pub(crate) async fn authorize(call: &Call, names_app: bool) -> Result<Authorized, Error> {
    let user = call.caller.user()?;
    let request = authorize_request(call, names_app)?;
    call.core.authorize(&user.signed_in.session, user.by_token_of, request).await
}

/// Operation 12. Gives where the authority that the user had signed in at signs him out, if he had.
pub(crate) async fn sign_out_of_browser(call: &Call) -> Result<Option<String>, Error> {
    match call.caller.ending()? {
        Some(signed_in) => call.core.sign_out(signed_in.session.id).await,
        // Somebody else may be ending that session right now: nobody is told that it has ended before that is on disk.
        None if call.caller.showed_ticket() => call.core.store.flush().await.map(|()| None),
        None => Ok(None),
    }
}

/// Operation 13.
pub(crate) async fn complete_third_party_sign_in(call: &Call) -> Result<Arrived, Error> {
    let parameters = call.parameters()?;
    if parameters.optional("protocolType").is_some_and(|word| word != "bluetron") {
        return Err(Error::parameter("protocolType", Problem::NotAllowed));
    }
    let callback = Callback {
        state: parameters.required("state")?,
        code: parameters.optional("code"),
        error: parameters.optional("error"),
        bindings: call.caller.bindings(),
        source: call.caller.source().clone(),
    };
    let arrived = call.core.complete_at_authority(callback).await?;
    let signed_in = &arrived.opened.signed_in;
    let authority = signed_in.session.authority.map(tracing::field::display);
    tracing::info!(user = %signed_in.user.id, session = %signed_in.session.id, authority, "a user has signed in at an authority");
    Ok(arrived)
}

/// An answer that sends a browser on, and that an API client reads.
pub(super) fn redirect<T>(call: &Call, message: T, location: String) -> Answer<T> {
    let answer = Answer::from(message);
    if call.over_http { answer.with("x-http-status", "302").with("location", location) } else { answer }
}
