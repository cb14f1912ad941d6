//! The life of a token from sign-in to sign-out: on each surface, across both, and with the demo seed that the documents show.

use serde_json::json;

use crate::harness::{
    App, Call, Case, Op, Tokens, User,
    Via::{self, Envoy, Native},
    Who, World, authorize, exchange, refresh, valid,
};

/// The surface of each step of a life.
struct Route {
    sign_in: Via,
    authorize: Via,
    exchange: Via,
    ask: Via,
    refresh: Via,
    sign_out: Via,
}

impl Route {
    fn all(via: Via) -> Self {
        Self { sign_in: via, authorize: via, exchange: via, ask: via, refresh: via, sign_out: via }
    }
}

/// The operations that a generation of the interface has for the steps of a life.
struct Generation {
    authorize: Op,
    exchange: Op,
    refresh: Op,
}

const GENERATIONS: [Generation; 3] = [
    Generation { authorize: Op::Authorize, exchange: Op::TokenV2, refresh: Op::TokenV2 },
    Generation { authorize: Op::Authorize, exchange: Op::TokenV1, refresh: Op::TokenV1 },
    Generation { authorize: Op::AuthorizeV281, exchange: Op::ExchangeV281, refresh: Op::RefreshV281 },
];

async fn live(world: &World, route: &Route, generation: &Generation) {
    let (app, user) = (world.app().await, world.user().await);

    let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
    let signed_in = world.call(route.sign_in, &sign_in).await;
    assert_eq!(signed_in.ok()["username"], user.name.as_str());
    let ticket = signed_in.text_of("ticket");

    let authorized = world.call(route.authorize, &authorize(generation.authorize, &app).by(Who::ticket(&ticket))).await;
    assert_eq!(authorized.ok()["message"], "OK");
    let code = authorized.text_of("code");

    let first = world.call(route.exchange, &exchange(generation.exchange, &app, &code)).await.tokens();
    assert_eq!(first.expires_in, 3600);
    assert_good(world, route.ask, &app, &user, &first).await;

    let second = world.call(route.refresh, &refresh(generation.refresh, &first.refresh).by(app.who())).await.tokens();
    assert_ne!(second.refresh, first.refresh, "a refresh token is good for one use");
    assert_good(world, route.ask, &app, &user, &second).await;

    let signed_out = world.call(route.sign_out, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await;
    assert_eq!(*signed_out.ok(), json!({"code": "100000000", "message": "OK"}));
    assert!(!world.is_valid(&app, &second.access).await, "after sign-out no token of the session is good");
    world.call(route.refresh, &refresh(generation.refresh, &second.refresh).by(app.who())).await.refused(Case::Grant);
    world.call(route.authorize, &authorize(generation.authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
}

async fn assert_good(world: &World, via: Via, app: &App, user: &User, tokens: &Tokens) {
    for who in [app.who(), Who::bearer(&tokens.access)] {
        assert!(world.call(via, &valid(&tokens.access).by(who.clone())).await.valid());
        let asked = world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(who)).await;
        assert_eq!(*asked.ok(), json!({"message": user.name, "username": user.name}));
    }
}

#[tokio::test]
async fn a_token_lives_through_envoy_alone() {
    let world = World::shared().await;
    for generation in &GENERATIONS {
        live(&world, &Route::all(Via::Envoy), generation).await;
    }
}

#[tokio::test]
async fn a_token_lives_through_native_grpc_alone() {
    let world = World::shared().await;
    for generation in &GENERATIONS {
        live(&world, &Route::all(Via::Native), generation).await;
    }
}

#[tokio::test]
async fn what_one_surface_gives_the_other_takes() {
    let world = World::shared().await;
    let there = Route { sign_in: Envoy, authorize: Native, exchange: Envoy, ask: Native, refresh: Envoy, sign_out: Native };
    let back = Route { sign_in: Native, authorize: Envoy, exchange: Native, ask: Envoy, refresh: Native, sign_out: Envoy };
    for route in [there, back] {
        for generation in &GENERATIONS {
            live(&world, &route, generation).await;
        }
    }
}

#[tokio::test]
async fn generations_of_the_interface_share_codes_tokens_and_sessions() {
    let world = World::shared().await;
    let app = world.app().await;
    let (_, ticket) = world.signed_in().await;
    for authorize_op in Op::AUTHORIZES {
        for exchange_op in Op::EXCHANGES {
            for refresh_op in Op::REFRESHES {
                let code = world.call(Via::Envoy, &authorize(authorize_op, &app).by(Who::ticket(&ticket))).await.text_of("code");
                let first = world.call(Via::Envoy, &exchange(exchange_op, &app, &code)).await.tokens();
                let second = world.call(Via::Envoy, &refresh(refresh_op, &first.refresh).by(app.who())).await.tokens();
                assert!(world.is_valid(&app, &second.access).await);
            }
        }
    }
}

#[tokio::test]
async fn operation_9_signs_the_user_out_on_both_surfaces() {
    let world = World::shared().await;
    for via in Via::BOTH {
        let (app, _, ticket, tokens) = world.family().await;
        let signed_out = world.call(via, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who())).await;
        assert_eq!(*signed_out.ok(), json!({"code": "100000000", "message": "OK"}));
        assert!(!world.is_valid(&app, &tokens.access).await);
        world.call(via, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
    }
}

#[tokio::test]
async fn a_life_over_http2_is_the_same() {
    let mut world = World::shared().await;
    world.http = reqwest::Client::builder()
        .http2_prior_knowledge()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .expect("a client");
    live(&world, &Route::all(Via::Envoy), &GENERATIONS[0]).await;
    live(&world, &Route::all(Via::Envoy), &GENERATIONS[2]).await;
}

#[tokio::test]
async fn the_demo_seed_is_as_documented() {
    let world = World::shared().await;
    let sign_in = |name: &str, password: &str| Call::new(Op::SignIn).with("userName", name).with("password", password);

    let mut demo = world.call(Via::Envoy, &sign_in("demo", "demo-password")).await.ok().clone();
    let ticket = demo["ticket"].take();
    assert_eq!(demo, json!({"ticket": null, "username": "demo", "personCode": "P0001", "companyCode": "C0001", "accountType": 0}));
    let admin = world.call(Via::Envoy, &sign_in("admin", "admin-password")).await;
    assert_eq!((&admin.ok()["username"], &admin.ok()["accountType"]), (&json!("admin"), &json!(1)));

    let seeded = |id: &str, secret: &str, redirect: &str, logout: &str| App {
        id: id.to_owned(),
        secret: secret.to_owned(),
        redirect: redirect.to_owned(),
        logout: logout.to_owned(),
    };
    let apps = [
        seeded("demo-app", "demo-secret", "http://127.0.0.1:9999/any/path?x=1", "http://127.0.0.1:9999/logout"),
        seeded("demo-app", "demo-secret", "http://localhost:9999/", "http://127.0.0.1:9999/logout"),
        seeded("demo-app-2", "demo-secret-2", "http://127.0.0.1:9998/callback", "http://127.0.0.1:9998/logout"),
    ];
    let who = Who::ticket(ticket.as_str().expect("a ticket"));
    for app in &apps {
        let code = world.call(Via::Envoy, &authorize(Op::Authorize, app).by(who.clone())).await.text_of("code");
        let given = world.call(Via::Envoy, &exchange(Op::TokenV2, app, &code)).await;
        assert!(world.is_valid(app, &given.tokens().access).await);
    }
    world.call(Via::Envoy, &Call::new(Op::SignOut).by(who)).await.ok();
}
