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
    let authority = ["protocolType", "clientName", "clientId", "clientSecret", "authorizationUri", "tokenUri"]
        .into_iter()
        .fold(Call::new(Op::CreateIdentityProvider).with("clientType", "oauth2"), |call, name| call.with(name, "a"));
    let mut calls = vec![exchange(Op::TokenV2, &app, &long), refresh(Op::TokenV2, &long).by(app.who())];
    for (call, names) in [
        (&ask, &["redirectUri", "state", "scope", "appid"][..]),
        (&sign_in, &["userName", "password"]),
        (&authority, &["clientName", "clientId", "clientSecret", "authorizationUri", "tokenUri"]),
    ] {
        calls.extend(names.iter().map(|name| call.clone().but(name, Some(&long))));
    }
    for call in calls {
        let reply = world.call(Via::Native, &call).await;
        let refused = [tonic::Code::InvalidArgument, tonic::Code::Unauthenticated].map(Status::Grpc);
        assert!(refused.contains(&reply.status), "{:?}: {}", call.op, reply.text);
    }
    // The harness sees to it that no file of its own was made for any of them.
    world.call(Via::Native, &ask).await.ok();
}
