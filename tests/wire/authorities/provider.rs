//! A sign-in at an OpenID provider that is not ours.

use serde_json::{Value, json};

use super::stage::{Browser, of_message, redirect_uri, ticket};
use crate::harness::{Call, Op, Via, World, provider::Provider, unique};
use supos_auth::grpc::pb::supos::auth::admin::v1::{CreateIdentityProviderRequest, IdentityProvider};

#[tokio::test]
async fn a_user_signs_in_at_a_real_openid_provider() {
    let world = World::shared().await;
    let user = world.user().await;
    let running = Provider::start();
    let provider = &running.url;

    // What the provider says of itself, a client that it registers, and a user that it knows.
    let get = async |path: &str| world.http.get(format!("{provider}{path}")).send().await.expect("the provider answers");
    let says: Value = get("/.well-known/openid-configuration").await.json().await.expect("JSON");
    let uri = |name: &str| says[name].as_str().expect("the provider says so").to_owned();
    let asked = json!({"redirect_uris": [redirect_uri(&world)], "token_endpoint_auth_method": "client_secret_post"});
    let client = world.http.post(uri("registration_endpoint")).json(&asked).send().await.expect("the provider answers");
    let client: Value = client.json().await.expect("JSON");
    let (subject, text) = (unique("subject"), |name: &str| client[name].as_str().expect("a text").to_owned());
    let claims = json!({"preferred_username": user.name, "name": "Zhang San"});
    world.http.put(format!("{provider}/users/{subject}")).json(&claims).send().await.expect("the provider answers");

    let message = CreateIdentityProviderRequest {
        identity_provider: Some(IdentityProvider {
            display_name: unique("provider"),
            client_id: text("client_id"),
            authorization_uri: uri("authorization_endpoint"),
            token_uri: uri("token_endpoint"),
            userinfo_uri: uri("userinfo_endpoint"),
            logout_uri: uri("end_session_endpoint"),
            ..Default::default()
        }),
        client_secret: text("client_secret"),
    };
    let made = world.authorities().create_identity_provider(world.as_admin(message).await).await.expect("it can be registered");
    let authority = of_message(made.into_inner().identity_provider.expect("the authority"));

    // The browser goes there, the user says who he is, and the provider sends it back.
    let browser = Browser::of(&world).await;
    for _ in 0..2 {
        let away = browser.begins(&world, &authority);
        let page = world.http.get(&away.location).send().await.expect("the provider answers");
        assert_eq!(page.status(), 200);
        let sent = world.http.post(&away.location).header("content-type", "application/x-www-form-urlencoded");
        let sent = sent.body(format!("sub={subject}")).send().await.expect("the provider answers");
        let location = sent.headers()["location"].to_str().expect("a URL").to_owned();
        assert!(location.starts_with(&redirect_uri(&world)), "{location}");
        let back = world.http.get(&location).header("cookie", format!("suposThird={}", away.binding));
        let reply = world.receive(Op::ThirdParty, back).await;
        let ticket = ticket(&world, &reply);
        assert_eq!(reply.header("location"), Some("/where/he/was?a=b"));
        let app = world.app().await;
        let tokens = world.tokens(&app, &ticket).await;
        let name = world.call(Via::Native, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await;
        assert_eq!(name.text_of("username"), user.name);
        let out = world.call(Via::Envoy, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who())).await;
        assert_eq!(out.text_of("redirectUri"), uri("end_session_endpoint"));
    }
}
