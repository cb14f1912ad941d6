//! Where an authority's token and user calls may go: the same rule as for apps that are told of a sign-out.

use supos_auth::grpc::pb::supos::auth::admin::v1::{CreateIdentityProviderRequest, IdentityProvider};
use tonic::Code;

use crate::harness::{
    Setup, World,
    sink::{Manner, Sink},
    unique,
    visitor::Visitor,
    world::encode,
};

async fn register(world: &World, token_uri: &str, userinfo_uri: &str) -> Result<IdentityProvider, tonic::Status> {
    let message = CreateIdentityProviderRequest {
        identity_provider: Some(IdentityProvider {
            display_name: unique("authority"),
            client_id: "us".into(),
            authorization_uri: "https://authority.invalid/authorize".into(),
            token_uri: token_uri.into(),
            userinfo_uri: userinfo_uri.into(),
            logout_uri: "https://authority.invalid/logout".into(),
            ..Default::default()
        }),
        client_secret: "secret".into(),
    };
    let made = world.authorities().create_identity_provider(world.as_admin(message).await).await?;
    Ok(made.into_inner().identity_provider.expect("the authority"))
}

#[tokio::test]
async fn g9_no_way_to_write_an_authoritys_address_leads_to_a_forbidden_one() {
    // The demo's allowance is replaced by one of a network that nobody is on: loopback is forbidden, as it is in production.
    let world = World::own(Setup::default().argument("--outbound-allow", "192.0.2.0/24")).await;
    let bad = Sink::start(Manner::Status(200, None));
    let port = bad.address().port();
    let fine = "https://authority.invalid/x";
    let written: Vec<String> = [
        format!("http://127.0.0.1:{port}/"),
        format!("http://127.1:{port}/"),
        format!("http://2130706433:{port}/"),
        format!("http://0x7f.1:{port}/"),
        format!("http://017700000001:{port}/"),
        format!("http://0.0.0.0:{port}/"),
        format!("http://[::]:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        format!("http://[::ffff:7f00:1]:{port}/"),
        format!("http://[64:ff9b::7f00:1]:{port}/"),
        "http://169.254.169.254/".into(),
        "http://2852039166/".into(),
        "http://0xa9.0xfe.0xa9.0xfe/".into(),
        "http://0251.0376.0251.0376/".into(),
        "http://[fd00:ec2::254]/".into(),
        format!("http://[fe80::1%25lo]:{port}/"),
        format!("http://authority.invalid@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}#authority.invalid"),
        format!("http://authority.invalid\\@127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}/\r\nx: y"),
        "http://93.184.215.14:22/".into(),
        "http://93.184.215.14:25/".into(),
        "http://93.184.215.14:6379/".into(),
        "file:///etc/passwd".into(),
        format!("gopher://127.0.0.1:{port}/"),
        format!("unix:{}", world.edge().display()),
        format!("http://{}/", world.grpc()),
        format!("http://{}/", world.ops()),
        format!("http://{}/", world.http()),
        format!("https://authority.invalid/{}", "x".repeat(64 * 1024)),
    ]
    .into();
    for uri in &written {
        for (token_uri, userinfo_uri) in [(uri.as_str(), fine), (fine, uri.as_str())] {
            let status = register(&world, token_uri, userinfo_uri).await.expect_err(uri);
            assert_eq!(status.code(), Code::InvalidArgument, "{uri}: {}", status.message());
        }
    }
    // What a name stands for is seen once it is called.
    for name in ["localhost", "LOCALHOST", "localhost."] {
        let made = register(&world, &format!("http://{name}:{port}/token"), fine).await.expect("a name may be anything");
        let id = made.name.rsplit('/').next().expect("an id");
        let mut visitor = Visitor::default();
        let page = visitor.get(&world, "/inter-api/auth/sign-in").await;
        let away = visitor.post(&world, "/inter-api/auth/sign-in", &[("form", &page.form()), ("authority", id)]).await;
        let location = url::Url::parse(away.location()).expect("a URL");
        let state = location.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned();
        let back = visitor.get(&world, &format!("/inter-api/auth/v1/third/authorize?code=x&state={}", encode(&state))).await;
        assert_eq!(back.status, 502, "{name}: {}", back.text);
    }
    assert_eq!(bad.connections(), 0, "somebody was called");
}
