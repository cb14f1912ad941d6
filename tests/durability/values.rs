//! What is too large to be kept is refused before anything is done.

use crate::{
    harness::{Call, Op, Status, Via, Who, World, authorize, exchange, refresh},
    kills,
};

#[tokio::test]
async fn c12_a_value_beyond_four_kibibytes_is_refused_at_the_edge() {
    let world = World::own(kills::setup()).await;
    let (app, user, ticket, _) = world.family().await;
    let long = "x".repeat(4097);
    let ask = authorize(Op::Authorize, &app).by(Who::ticket(&ticket));
    let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
    let uri = format!("https://plant.invalid/{long}");
    let authority = Call::new(Op::CreateIdentityProvider)
        .with("clientType", "internal")
        .with("protocolType", "bluetron")
        .with("clientName", "a plant")
        .with("clientId", "a")
        .with("clientSecret", "a")
        .with("authorizationUri", "https://plant.invalid/authorize")
        .with("tokenUri", "https://plant.invalid/token")
        .with("userinfoUri", "https://plant.invalid/userinfo")
        .with("logoutUri", "https://plant.invalid/logout");
    for (call, name, value) in [
        (&ask, "redirectUri", &uri),
        (&ask, "state", &long),
        (&ask, "scope", &long),
        (&ask, "appid", &long),
        (&authority, "clientName", &long),
        (&authority, "clientId", &long),
        (&authority, "clientSecret", &long),
        (&authority, "authorizationUri", &uri),
        (&authority, "tokenUri", &uri),
        (&authority, "userinfoUri", &uri),
        (&authority, "logoutUri", &uri),
    ] {
        let reply = world.call(Via::Native, &call.clone().but(name, Some(value))).await;
        assert_eq!(reply.status, Status::Grpc(tonic::Code::InvalidArgument), "{name}: {}", reply.text);
        let message = reply.body["message"].as_str().unwrap_or_default();
        assert!(message.contains(name), "{name}: {message}");
    }
    // Who shows one of these is told no more than that it is not good.
    for call in [
        exchange(Op::TokenV2, &app, &long),
        refresh(Op::TokenV2, &long).by(app.who()),
        sign_in.clone().but("userName", Some(&long)),
        sign_in.clone().but("password", Some(&long)),
    ] {
        let reply = world.call(Via::Native, &call).await;
        assert_eq!(reply.status, Status::Grpc(tonic::Code::Unauthenticated), "{:?}: {}", call.op, reply.text);
    }
    // The harness sees to it that no file of its own was made for any of them.
    for call in [&ask, &sign_in, &authority] {
        world.call(Via::Native, call).await.ok();
    }
}
