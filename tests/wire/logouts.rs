//! Apps are told that a session has ended.

mod addresses;
mod delivery;
mod ends;
mod operators;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use supos_auth::grpc::pb::supos::auth::admin::v1::{ListLogoutDeliveriesRequest, LogoutDelivery, LogoutDeliveryState};

use crate::harness::{
    App, Call, Op, Tokens, Via, Who, World, claims, exchange, now,
    process::PATIENCE,
    sink::{Received, Sink},
};

/// A new app whose addresses are at the sink.
async fn app_at(world: &World, sink: &Sink) -> App {
    app_with(world, &[&sink.url("/callback")], &[&sink.url("/logout")]).await
}

/// A new app that has registered these, of which it uses the first.
async fn app_with(world: &World, redirects: &[&str], logouts: &[&str]) -> App {
    let owned = |uris: &[&str]| uris.iter().map(|&uri| uri.to_owned()).collect::<Vec<String>>();
    let app = world
        .app_with(|app| {
            app.redirect_uris = owned(redirects);
            app.logout_uris = owned(logouts);
        })
        .await;
    App { redirect: redirects[0].to_owned(), logout: logouts.first().copied().unwrap_or_default().to_owned(), ..app }
}

/// The app's tokens of a new family, for which it says this `logoutUri`.
async fn tokens_with(world: &World, app: &App, ticket: &str, logout_uri: &str) -> Tokens {
    let code = world.code(app, Who::ticket(ticket)).await;
    let call = exchange(Op::TokenV2, app, &code).but("logoutUri", Some(logout_uri));
    world.call(Via::Native, &call).await.tokens()
}

async fn sign_out(world: &World, ticket: &str) {
    world.call(Via::Envoy, &Call::new(Op::SignOut).by(Who::ticket(ticket))).await.ok();
}

/// Checks a logout token as an app would: by the published keys, with a library. Gives its claims.
async fn verified(world: &World, app: &App, call: &Received) -> Value {
    let head = call.head.to_ascii_lowercase();
    assert!(head.starts_with("post ") && head.contains("\r\ncontent-type: application/x-www-form-urlencoded"), "{head}");
    assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
    let token = call.token();
    let header = decode_header(&token).expect("a JWT");
    assert_eq!((header.typ.as_deref(), header.alg), (Some("logout+jwt"), Algorithm::ES256));
    // Natively: for a moment after a restart Envoy may still take the service for unhealthy, and say 503.
    let published = world.call(Via::Native, &Call::new(Op::Jwks)).await;
    let keys = published.ok()["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"].as_str() == header.kid.as_deref()).expect("the key that signed is published");
    let key = DecodingKey::from_ec_components(key["x"].as_str().expect("x"), key["y"].as_str().expect("y")).expect("a key");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[world.public_url()]);
    validation.set_audience(&[&app.id]);
    validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
    // By the service's clock, which a test may have moved.
    validation.validate_exp = false;
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let claims: Value = decode(&token, &key, &validation).expect("a good token").claims;
    let (issued, expires) = (claims["iat"].as_i64().expect("iat"), claims["exp"].as_i64().expect("exp"));
    assert_eq!(expires - issued, 120);
    assert!((world.now() - issued).abs() <= 30, "issued when it was sent: {issued}, now {} (true: {})", world.now(), now());
    assert_eq!(claims["aud"], json!(app.id), "a text, not a list");
    assert_eq!(claims["events"], json!({"http://schemas.openid.net/event/backchannel-logout": {}}));
    assert!(claims["jti"].as_str().is_some_and(|jti| jti.len() == 32));
    let mut names: Vec<&String> = claims.as_object().expect("claims").keys().collect();
    names.sort();
    assert_eq!(names, ["aud", "events", "exp", "iat", "iss", "jti", "sid", "sub"], "and no nonce");
    claims
}

/// The next call to the sink tells the app that the session of these tokens has ended. Gives its `jti`.
#[track_caller]
fn told<'a>(world: &'a World, sink: &'a Sink, app: &'a App, tokens: &'a Tokens) -> impl Future<Output = String> + 'a {
    let call = sink.next();
    async move {
        let told = verified(world, app, &call.await).await;
        let access = claims(&tokens.access);
        assert_eq!((&told["sub"], &told["sid"]), (&access["sub"], &access["sid"]));
        assert_eq!(told["iss"], access["iss"]);
        told["jti"].as_str().expect("jti").to_owned()
    }
}

async fn deliveries(world: &World, state: LogoutDeliveryState, app: &str) -> Vec<LogoutDelivery> {
    let request = ListLogoutDeliveriesRequest { page_size: 1000, page_token: String::new(), app: app.to_owned(), state: state.into() };
    let request = world.as_admin(request).await;
    world.sessions().list_logout_deliveries(request).await.expect("a list").into_inner().logout_deliveries
}

/// What is owed to an app.
async fn owed(world: &World, app: &App) -> Vec<LogoutDelivery> {
    deliveries(world, LogoutDeliveryState::Owed, &format!("apps/{}", app.id)).await
}

/// Looks again and again until there is what is looked for.
#[track_caller]
fn until<T>(mut look: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(std::time::Instant::now() < deadline, "it does not come about ({caller})");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

/// Waits until nothing is owed to an app.
#[track_caller]
fn settled<'a>(world: &'a World, app: &'a App) -> impl Future<Output = ()> + 'a {
    until(async move || owed(world, app).await.is_empty().then_some(()))
}

/// Waits until a call to an app was tried in vain, and gives it.
#[track_caller]
fn failed<'a>(world: &'a World, app: &'a App) -> impl Future<Output = LogoutDelivery> + 'a {
    until(async move || owed(world, app).await.into_iter().find(|owed| owed.tries > 0))
}

/// Waits for a line of the service's log, and gives it.
#[track_caller]
fn logged(world: &World, mark: usize, message: &str, app: &App) -> Value {
    let found = world.service_log.wait_for(mark, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["message"].as_str()?.starts_with(message) && line["app"] == json!(app.id)).then_some(line)
    });
    found.unwrap_or_else(|| panic!("no line says: {message}"))
}
