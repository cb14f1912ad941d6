//! A person at a real browser.

use serde_json::{Value, json};
use supos_auth::grpc::pb::supos::auth::admin::v1::{CreateIdentityProviderRequest, IdentityProvider};

use crate::harness::{
    App, Op, Setup, Via, World,
    browser::{Browser, is_there},
    exchange,
    provider::Provider,
    site::Site,
    world::encode,
};

const PHONE: (u32, u32) = (500, 900);
const DESKTOP: (u32, u32) = (1280, 800);

/// An app that is really there, and the site where it is.
async fn app(world: &World) -> (App, Site) {
    let site = Site::open("127.0.0.1", "<!doctype html><title>the app</title><h1>the app</h1>").await;
    let (redirect, logout) = (format!("{}/*", site.origin), format!("{}/logout", site.origin));
    let app = world
        .app_with(|app| {
            app.redirect_uris = vec![redirect];
            app.logout_uris = vec![logout.clone()];
        })
        .await;
    (App { redirect: format!("{}/home?tab=2#part", site.origin), logout, ..app }, site)
}

fn start(world: &World, app: &App) -> String {
    let target =
        format!("/inter-api/auth/v1/oauth2/authorize?responseType=code&appid={}&redirectUri={}&state=s", app.id, encode(&app.redirect));
    world.url(&target)
}

async fn sign_in(browser: &Browser, name: &str, password: &str) {
    browser.fill("#userName", name).await;
    browser.fill("#password", password).await;
    browser.click("button[type=submit]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_with_and_without_scripts_and_the_next_app_asks_for_no_password() {
    if !is_there() {
        return;
    }
    let world = World::shared().await;
    let user = world.user().await;
    for (scripts, (width, height)) in [(true, DESKTOP), (false, PHONE)] {
        let ((first, site), (second, other)) = (app(&world).await, app(&world).await);
        let browser = Browser::open(width, height, scripts).await;
        browser.go(&start(&world, &first)).await;
        assert_eq!(browser.text("h1").await, "Sign in");
        assert!(browser.text("main").await.contains(&first.id), "it says what app asks");
        // What a screen reader says of the fields.
        assert_eq!((browser.spoken("#userName").await, browser.spoken("#password").await), ("User name".into(), "Password".into()));
        sign_in(&browser, &user.name, "not the password").await;
        assert_eq!(browser.text("[role=alert]").await, "The user name or the password is wrong.");
        sign_in(&browser, &user.name, &user.password).await;
        let url = browser.await_url(&site.origin).await;
        assert!(url.starts_with(&format!("{}/home?tab=2&code=", site.origin)) && url.ends_with("&state=s#part"), "{url}");
        assert_eq!(browser.text("h1").await, "the app");
        assert!(site.asked().iter().any(|asked| asked.method == "GET" && asked.target.starts_with("/home?tab=2&code=")));

        browser.go(&start(&world, &second)).await;
        browser.await_url(&other.origin).await;

        browser.go(&world.url("/inter-api/auth/logout")).await;
        assert_eq!(browser.text("h1").await, "You are signed out");
        assert!(browser.cookie("suposTicket").await.is_none());
        browser.go(&start(&world, &first)).await;
        assert_eq!(browser.text("h1").await, "Sign in");
    }
}

/// There browsers send no `Sec-Fetch-Site`: the form is known for ours by its `Origin`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_and_changes_his_password_over_plain_http_on_a_host_of_the_plant() {
    if !is_there() {
        return;
    }
    let world = World::own(Setup { public_url: Some("http://auth.plant.test".into()), ..Setup::default() }).await;
    let user = world.user().await;
    let argument = format!("--host-resolver-rules=MAP auth.plant.test {}", world.http());
    let browser = Browser::open_with(DESKTOP.0, DESKTOP.1, true, &argument).await;
    browser.go("http://auth.plant.test/inter-api/auth/password").await;
    sign_in(&browser, &user.name, &user.password).await;
    browser.await_url("http://auth.plant.test/inter-api/auth/password").await;
    for (field, text) in [
        ("#currentPassword", user.password.as_str()),
        ("#newPassword", "another long password"),
        ("#repeatedPassword", "another long password"),
    ] {
        browser.fill(field, text).await;
    }
    browser.click("button[type=submit]").await;
    assert_eq!(browser.text("main > p").await, "Your password was changed.");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a57_the_pages_show_in_nobodys_frame_load_nothing_from_elsewhere_and_run_no_script() {
    if !is_there() {
        return;
    }
    let world = World::shared().await;
    let browser = Browser::open(DESKTOP.0, DESKTOP.1, true).await;
    let app = world.app_with(|app| app.display_name = "<script>alert(1)</script><img src=x onerror=alert(1)>".into()).await;
    browser.go(&start(&world, &app)).await;
    assert_eq!(browser.text("h1").await, "Sign in");
    assert!(!browser.has_dialog().await);
    let loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)").await;
    let origin = world.url("");
    let loaded: Vec<&str> = loaded.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert!(!loaded.is_empty() && loaded.iter().all(|name| name.starts_with(&origin)), "{loaded:?}");
    let cookie = browser.cookie("suposSignIn").await.expect("a cookie");
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&true.into(), &"Lax".into()));
    assert_eq!(browser.run("return document.cookie").await, "");

    let site = Site::open("127.0.0.1", "<!doctype html><iframe></iframe>").await;
    browser.go(&site.origin).await;
    browser.run(&format!("document.querySelector('iframe').src = '{}'", world.url("/inter-api/auth/sign-in"))).await;
    // The frame has something else in it once the browser has refused to show the page.
    let refused = "return document.querySelector('iframe').contentDocument === null";
    let deadline = std::time::Instant::now() + crate::harness::process::PATIENCE;
    while browser.run(refused).await != true && std::time::Instant::now() < deadline {
        crate::harness::process::pause();
    }
    browser.enter_frame().await;
    assert!(!browser.has("#userName").await, "the sign-in page shows in a frame");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_out_at_one_app_and_the_other_apps_back_end_is_told_so_in_a_way_that_it_can_verify() {
    if !is_there() {
        return;
    }
    let world = World::shared().await;
    let user = world.user().await;
    let ((first, _first_site), (second, second_site)) = (app(&world).await, app(&world).await);
    let browser = Browser::open(DESKTOP.0, DESKTOP.1, true).await;
    let mut tokens = Vec::new();
    for (app, signed_in) in [(&first, false), (&second, true)] {
        browser.go(&start(&world, app)).await;
        if !signed_in {
            sign_in(&browser, &user.name, &user.password).await;
        }
        let origin = url::Url::parse(&app.redirect).expect("a URL").origin().ascii_serialization();
        let url = url::Url::parse(&browser.await_url(&origin).await).expect("a URL");
        let code = url.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
        tokens.push(world.call(Via::Envoy, &exchange(Op::TokenV2, app, &code)).await.tokens());
    }
    let claims = crate::harness::claims(&tokens[1].access);

    browser.go(&world.url("/inter-api/auth/logout")).await;
    assert_eq!(browser.text("h1").await, "You are signed out");
    assert!(!world.is_valid(&second, &tokens[1].access).await);
    let told = second_site.await_asked(|asked| asked.method == "POST" && asked.target == "/logout").await;
    let token = url::form_urlencoded::parse(told.body.as_bytes()).find(|(name, _)| name == "logout_token").expect("a token").1.into_owned();

    // As an app verifies it: by the published keys, with a library.
    let keys: jsonwebtoken::jwk::JwkSet =
        world.http.get(world.url("/oauth2/jwks")).send().await.expect("keys").json().await.expect("a key set");
    let header = jsonwebtoken::decode_header(&token).expect("a JWT");
    assert_eq!(header.typ.as_deref(), Some("logout+jwt"));
    let key = keys.find(header.kid.as_deref().expect("a key id")).expect("a published key");
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&[&second.id]);
    validation.set_issuer(&[world.public_url()]);
    let key = jsonwebtoken::DecodingKey::from_jwk(key).expect("a key");
    let verified = jsonwebtoken::decode::<Value>(&token, &key, &validation).expect("the token is good").claims;
    assert_eq!((&verified["sub"], &verified["sid"]), (&claims["sub"], &claims["sid"]));
    assert!(verified["events"]["http://schemas.openid.net/event/backchannel-logout"].is_object() && verified.get("nonce").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_at_a_third_party_provider_and_is_told_when_it_does_not_work() {
    if !is_there() {
        return;
    }
    let world = World::own(Setup::default()).await;
    let user = world.user().await;
    let (app, site) = app(&world).await;
    let provider = Provider::start();
    let at = &provider.url;
    let says: Value =
        world.http.get(format!("{at}/.well-known/openid-configuration")).send().await.expect("an answer").json().await.expect("JSON");
    let uri = |name: &str| says[name].as_str().expect("the provider says so").to_owned();
    let redirect_uri = format!("{}/inter-api/auth/v1/third/authorize?protocolType=bluetron", world.public_url());
    let asked = json!({"redirect_uris": [redirect_uri], "token_endpoint_auth_method": "client_secret_post"});
    let client: Value =
        world.http.post(uri("registration_endpoint")).json(&asked).send().await.expect("an answer").json().await.expect("JSON");
    let profile = json!({"preferred_username": user.name});
    world.http.put(format!("{at}/users/somebody")).json(&profile).send().await.expect("the provider answers");
    world.http.put(format!("{at}/users/stranger")).json(&json!({"preferred_username": "a stranger"})).send().await.expect("it answers");
    let message = CreateIdentityProviderRequest {
        identity_provider: Some(IdentityProvider {
            display_name: "The plant's own login".into(),
            client_id: client["client_id"].as_str().expect("an id").into(),
            authorization_uri: uri("authorization_endpoint"),
            token_uri: uri("token_endpoint"),
            userinfo_uri: uri("userinfo_endpoint"),
            logout_uri: format!("{}/signed-out", site.origin),
            ..Default::default()
        }),
        client_secret: client["client_secret"].as_str().expect("a secret").into(),
    };
    world.authorities().create_identity_provider(world.as_admin(message).await).await.expect("it can be registered");

    let browser = Browser::open(DESKTOP.0, DESKTOP.1, true).await;
    let go_there = async || {
        browser.go(&start(&world, &app)).await;
        assert_eq!(browser.text("button.other").await, "Sign in with The plant's own login");
        browser.click("button.other").await;
        browser.await_url(at).await;
    };
    go_there().await;
    browser.fill("input[name=sub]", "stranger").await;
    browser.click("button[type=submit]").await;
    browser.await_url(&world.url("/inter-api/auth/v1/third/authorize")).await;
    assert_eq!(browser.text("[role=alert]").await, "The authority's user is not known here.");
    browser.click("main a").await;
    assert_eq!(browser.text("h1").await, "Sign in");

    go_there().await;
    browser.fill("input[name=sub]", "somebody").await;
    browser.click("button[type=submit]").await;
    let url = browser.await_url(&site.origin).await;
    assert!(url.contains("/home?tab=2&code=") && url.ends_with("#part"), "{url}");
    // Signing out here signs out there, too.
    browser.go(&world.url("/inter-api/auth/logout")).await;
    browser.await_url(&format!("{}/signed-out", site.origin)).await;

    drop(provider);
    browser.go(&start(&world, &app)).await;
    assert_eq!(browser.text("h1").await, "Sign in", "signed out");
}
