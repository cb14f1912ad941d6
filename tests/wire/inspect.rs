//! Asking about tokens and ending them (operations 7, 8, 9 and 12): who may, about whose.

use serde_json::json;

use crate::harness::{App, Call, Case, Op, Setup, Tokens, User, Via, Who, World, authorize, forged, refresh, valid};

/// A token, and everybody who may or may not ask about it.
struct Scene {
    app: App,
    user: User,
    tokens: Tokens,
    insiders: Vec<(&'static str, Who)>,
    outsiders: Vec<(&'static str, Who)>,
}

impl Scene {
    async fn new(world: &World) -> Self {
        let (app, user, ticket, tokens) = world.family().await;
        let other_app = world.app().await;
        let other_app_same_session = world.tokens(&other_app, &ticket).await;
        let other_session = world.sign_in(&user).await;
        let other_session_tokens = world.tokens(&app, &other_session).await;
        let (_, strangers_ticket) = world.signed_in().await;
        let strangers_tokens = world.tokens(&app, &strangers_ticket).await;
        let insiders = vec![
            ("the app that it was given to", app.who()),
            ("the token itself", Who::bearer(&tokens.access)),
            ("the user, by his ticket", Who::ticket(&ticket)),
            ("the user, by another app's token of the session", Who::bearer(&other_app_same_session.access)),
        ];
        let outsiders = vec![
            ("another app", other_app.who()),
            ("the user, from another session, by ticket", Who::ticket(&other_session)),
            ("the user, from another session, by token", Who::bearer(&other_session_tokens.access)),
            ("another user, by ticket", Who::ticket(&strangers_ticket)),
            ("another user, by token", Who::bearer(&strangers_tokens.access)),
        ];
        Self { app, user, tokens, insiders, outsiders }
    }
}

#[tokio::test]
async fn an_app_asks_about_its_tokens_and_a_user_about_those_of_his_session() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    let access = scene.tokens.access.as_str();
    for via in Via::BOTH {
        for (what, who) in &scene.insiders {
            assert!(world.call(via, &valid(access).by(who.clone())).await.valid(), "{what}");
            let name = world.call(via, &Call::new(Op::Username).with("accessToken", access).by(who.clone())).await;
            assert_eq!(*name.ok(), json!({"message": scene.user.name, "username": scene.user.name}), "{what}");
        }
        for (what, who) in &scene.outsiders {
            assert!(!world.call(via, &valid(access).by(who.clone())).await.valid(), "{what}");
            for op in [Op::Username, Op::SignOutV281] {
                world.call(via, &Call::new(op).with("accessToken", access).by(who.clone())).await.refused(Case::Grant);
            }
        }
    }
    assert!(world.is_valid(&scene.app, access).await, "no outsider has ended it");
}

#[tokio::test]
async fn somebody_elses_live_token_looks_exactly_like_an_unknown_one() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    let unknown = scene.tokens.access.replace('.', "x");
    for via in Via::BOTH {
        for (what, who) in &scene.outsiders {
            for op in [Op::Username, Op::Valid, Op::SignOutV281] {
                let ask = |token: &str| Call::new(op).with("accessToken", token).by(who.clone());
                let (live, none) = (world.call(via, &ask(&scene.tokens.access)).await, world.call(via, &ask(&unknown)).await);
                assert_eq!((live.status, &live.body), (none.status, &none.body), "{what}, {op:?}");
            }
        }
    }
}

#[tokio::test]
async fn each_insider_can_end_the_session_and_it_ends_for_every_app() {
    let world = World::shared().await;
    let count = Scene::new(&world).await.insiders.len();
    for via in Via::BOTH {
        for index in 0..count {
            let Scene { app, tokens, insiders, .. } = Scene::new(&world).await;
            let (what, who) = &insiders[index];
            let call = Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(who.clone());
            assert_eq!(*world.call(via, &call).await.ok(), json!({"code": "100000000", "message": "OK"}), "{what}");
            assert!(!world.is_valid(&app, &tokens.access).await, "{what}");
            let (_, other_apps) = &insiders[3];
            world.call(via, &authorize(Op::Authorize, &app).by(other_apps.clone())).await.refused(Case::Caller);
            let (_, ticket) = &insiders[2];
            world.call(via, &authorize(Op::Authorize, &app).by(ticket.clone())).await.refused(Case::Caller);
            // It has ended already: the same answer.
            let by_app = Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who());
            assert_eq!(*world.call(via, &by_app).await.ok(), json!({"code": "100000000", "message": "OK"}));
        }
    }
}

#[tokio::test]
async fn a_token_is_credential_enough_to_ask_whether_it_is_good_itself_and_to_end_itself() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    let (_, _, other_ticket, ended) = world.family().await;
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&other_ticket))).await.ok();
    let forged = forged(&tokens.access);
    let itself = |op, token: &str| Call::new(op).with("accessToken", token).by(Who::bearer(token));
    for via in Via::BOTH {
        assert!(world.call(via, &itself(Op::Valid, &tokens.access)).await.valid());
        for token in [ended.access.as_str(), forged.as_str(), "no-token-at-all"] {
            assert!(!world.call(via, &itself(Op::Valid, token)).await.valid(), "{token}");
        }
        world.call(via, &itself(Op::SignOutV281, &ended.access)).await.ok();
        for token in [forged.as_str(), "no-token-at-all"] {
            world.call(via, &itself(Op::SignOutV281, token)).await.refused(Case::Caller);
        }
        // In operation 7 a token that is not good is no credential.
        world.call(via, &itself(Op::Username, &ended.access)).await.refused(Case::Caller);
        // A byte more or less, and it is not itself.
        let nearly = valid(&ended.access).by(Who::bearer(&format!("{}x", ended.access)));
        world.call(via, &nearly).await.refused(Case::Caller);
    }

    world.step(3700);
    for via in Via::BOTH {
        assert!(!world.call(via, &itself(Op::Valid, &tokens.access)).await.valid(), "expired");
        world.call(via, &itself(Op::Username, &tokens.access)).await.refused(Case::Caller);
    }
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
    world.call(Via::Envoy, &itself(Op::SignOutV281, &tokens.access)).await.ok();
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
    world.call(Via::Native, &itself(Op::SignOutV281, &tokens.access)).await.ok();
}

#[tokio::test]
async fn an_expired_token_is_unknown_to_operation_7_false_to_8_and_still_ends_its_session_by_9() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    let (other_app, (_, strangers_ticket)) = (world.app().await, world.signed_in().await);
    world.step(3700);
    for via in Via::BOTH {
        world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await.refused(Case::Grant);
        assert!(!world.call(via, &valid(&tokens.access).by(app.who())).await.valid());
        for who in [other_app.who(), Who::ticket(&strangers_ticket)] {
            world.call(via, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(who)).await.refused(Case::Grant);
        }
    }
    world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
    world.call(Via::Envoy, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who())).await.ok();
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
}

#[tokio::test]
async fn operation_12_ends_the_session_of_the_cookie_and_of_nothing_else() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let elsewhere = world.tokens(&app, &world.sign_in(&user).await).await;
    for via in Via::BOTH {
        // Neither a token nor an app signs a browser out.
        for who in [Who::bearer(&tokens.access), app.who(), Who::nobody(), Who::ticket("no-such-ticket")] {
            world.call(via, &Call::new(Op::SignOut).by(who)).await.ok();
            assert!(world.is_valid(&app, &tokens.access).await);
        }
    }
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    assert!(!world.is_valid(&app, &tokens.access).await);
    assert!(world.is_valid(&app, &elsewhere.access).await);
}

#[tokio::test]
async fn operation_8_never_fails_for_a_token_that_is_not_good() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let odd = [
        "x",
        "a.b.c",
        "..",
        "...",
        "null",
        "0",
        "valid",
        "%",
        "a b",
        "ü",
        "{}",
        "[]",
        "<x>",
        "'\"",
        "x'.y'.z'",
        &tokens.refresh,
        &"z".repeat(6000),
    ];
    for via in Via::BOTH {
        for token in odd.iter().filter(|token| via == Via::Native || !["..", "."].contains(token)) {
            let reply = world.call(via, &valid(token).by(app.who())).await;
            assert!(!reply.valid(), "{token}");
        }
    }
}
