//! The life of a token over gRPC, against the demo data of `make run`.
//!
//! ```sh
//! cargo run --example rust_client -- [URL]
//! ```
//!
//! `URL` is the service's gRPC listener, as `http://127.0.0.1:50051`. Without it, it comes from `SUPOS_AUTH_GRPC`, else it is that.
//!
//! Says what it does, and ends with a non-zero status at the first thing that is not as expected.

use std::{env, error::Error};

use supos_auth::{
    core::{
        clock::{Clock as _, SystemClock},
        secret::Secret,
    },
    grpc::pb::supos::auth::{
        v2::{AuthorizeRequest, SignInRequest, SignOutRequest, TokenRequest, auth_service_client::AuthServiceClient},
        v281::{GetUsernameRequest, ValidateTokenRequest, auth_service_client::AuthServiceClient as V281Client},
    },
    sign,
};
use tonic::{GrpcMethod, Request, Status, metadata::AsciiMetadataValue, transport::Channel};
use tonic_types::StatusExt as _;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const APP: &str = "demo-app";
const SECRET: &str = "demo-secret";
const USER: &str = "demo";
const PASSWORD: &str = "demo-password";

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::args().nth(1).or_else(|| env::var("SUPOS_AUTH_GRPC").ok()).unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let channel = Channel::from_shared(url)?.timeout(std::time::Duration::from_secs(10)).connect().await?;
    walk(channel).await?;
    println!("done");
    Ok(())
}

#[expect(deprecated, reason = "nothing replaces operations 7 and 8")]
pub(crate) async fn walk(channel: Channel) -> Result<()> {
    let mut auth = AuthServiceClient::new(channel.clone());
    // The same service, called by the app: every call is signed.
    let mut auth_by_app = AuthServiceClient::with_interceptor(channel.clone(), signed);
    let mut v281 = V281Client::with_interceptor(channel, signed);

    println!("signing in as {USER} (operation 11)");
    let credentials = SignInRequest { user_name: USER.into(), password: PASSWORD.into(), ..Default::default() };
    let session = auth.sign_in(credentials).await?.into_inner();
    expect(session.username == USER, "signed in as somebody else")?;
    let ticket: AsciiMetadataValue = format!("suposTicket={}", session.ticket).parse()?;

    println!("letting {APP} in (10)");
    let wish = AuthorizeRequest {
        response_type: "code".into(),
        appid: APP.into(),
        redirect_uri: "http://127.0.0.1:9999/callback".into(),
        state: "xyz".into(),
        scope: "profile".into(),
    };
    let code = auth.authorize(with("cookie", &ticket, wish)).await?.into_inner().code;

    println!("swapping the code for tokens (1)");
    let redeem = TokenRequest {
        grant_type: "authorization_code".into(),
        code,
        logout_uri: "http://127.0.0.1:9999/logout".into(),
        ..Default::default()
    };
    let tokens = auth_by_app.token(redeem).await?.into_inner();
    expect(tokens.username == USER && tokens.expires_in > 0, "the tokens are not the user's")?;
    println!("  an access token for {}, good for {} s", tokens.username, tokens.expires_in);

    println!("refreshing them (1)");
    let fresh = auth_by_app.token(refresh(&tokens.refresh_token)).await?.into_inner();
    expect(fresh.refresh_token != tokens.refresh_token, "the refresh token was not rotated")?;

    println!("asking whether the access token is good (8), and whose it is (7)");
    let question = ValidateTokenRequest { access_token: fresh.access_token.clone() };
    let valid = v281.validate_token(question.clone()).await?.into_inner().valid;
    expect(valid, "the token is not good")?;
    // With the token beside the signature, the caller is the app and its user.
    let token: AsciiMetadataValue = fresh.access_token.parse()?;
    let whose = GetUsernameRequest { access_token: fresh.access_token };
    let username = v281.get_username(with("token", &token, whose)).await?.into_inner().username;
    expect(username == USER, "it is somebody else's")?;

    println!("signing out (12)");
    auth.sign_out(with("cookie", &ticket, SignOutRequest::default())).await?;

    println!("trying the tokens after that");
    let valid = v281.validate_token(question).await?.into_inner().valid;
    expect(!valid, "the access token is still good")?;
    println!("  the access token is good no more");
    let Err(refusal) = auth_by_app.token(refresh(&fresh.refresh_token)).await else {
        return Err("unexpected: the refresh token is still good".into());
    };
    // What a program matches on is the reason. Texts may change.
    let reason = refusal.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    expect(reason == "REFRESH_TOKEN_REFUSED", &format!("refused with {:?} {reason}", refusal.code()))?;
    println!("  refused, as it should be: {} ({:?}, {reason})", refusal.message(), refusal.code());
    Ok(())
}

fn refresh(refresh_token: &str) -> TokenRequest {
    TokenRequest { grant_type: "refresh_token".into(), refresh_token: refresh_token.to_owned(), ..Default::default() }
}

/// Signs a call for the app: its method, and a date and a nonce, so that the signature works once.
fn signed(mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
    let called = request.extensions().get::<GrpcMethod<'static>>().ok_or_else(|| Status::internal("a call without a method"))?;
    let path = format!("/{}/{}", called.service(), called.method());
    let failed = |error: &dyn Error| Status::internal(format!("cannot sign: {error}"));
    let (date, nonce) = (sign::date(SystemClock.now()), Secret::random().map_err(|error| failed(&error))?);
    let headers = [(sign::DATE, date.as_str()), (sign::NONCE, nonce.expose())];
    let to_sign = sign::Request { method: "POST", target: &path, content_type: sign::GRPC, headers: &headers };
    let authorization = sign::authorization(&to_sign, APP, &Secret::new(SECRET)).map_err(|error| failed(&error))?;
    for (name, value) in [("authorization", authorization.as_str())].into_iter().chain(headers) {
        request.metadata_mut().insert(name, value.parse().map_err(|error| failed(&error))?);
    }
    Ok(request)
}

/// A request that says who is calling.
fn with<T>(name: &'static str, credential: &AsciiMetadataValue, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(name, credential.clone());
    request
}

fn expect(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(format!("unexpected: {otherwise}").into()) }
}
