//! Authorization codes: once, for one app, for ten minutes.

use crate::harness::{App, Call, Case, Op, Setup, Tokens, Via, Who, World, authorize, exchange, refresh};

/// Every way to redeem a code.
fn ways() -> impl Iterator<Item = (Op, Via)> {
    Op::EXCHANGES.into_iter().flat_map(|op| Via::BOTH.map(|via| (op, via)))
}

async fn assert_ended(world: &World, app: &App, tokens: &Tokens) {
    assert!(!world.is_valid(app, &tokens.access).await, "the access token is still good");
    world.call(Via::Native, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await.refused(Case::Grant);
    world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
    world.call(Via::Native, &authorize(Op::Authorize, app).by(Who::bearer(&tokens.access))).await.refused(Case::Caller);
}

#[tokio::test]
async fn a3_a_code_used_twice_is_refused_and_what_it_gave_ends() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let bystander = world.tokens(&app, &ticket).await;
    for (first_op, first_via) in ways() {
        for (second_op, second_via) in ways() {
            let code = world.code(&app, Who::ticket(&ticket)).await;
            let given = world.call(first_via, &exchange(first_op, &app, &code)).await.tokens();
            let renewed = world.call(first_via, &refresh(Op::TokenV2, &given.refresh).by(app.who())).await.tokens();
            world.call(second_via, &exchange(second_op, &app, &code)).await.refused(Case::Grant);
            assert_ended(&world, &app, &given).await;
            assert_ended(&world, &app, &renewed).await;
            world.call(second_via, &exchange(second_op, &app, &code)).await.refused(Case::Grant);
        }
    }
    assert!(world.is_valid(&app, &bystander.access).await, "another family of the same session goes on");
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
}

#[tokio::test]
async fn a3_a_code_used_again_as_long_as_it_would_live_ends_what_it_gave() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for seconds in [30, 590] {
        let code = world.code(&app, Who::ticket(&ticket)).await;
        let given = world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.tokens();
        world.step(seconds);
        assert!(world.is_valid(&app, &given.access).await);
        world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
        assert_ended(&world, &app, &given).await;
    }
}

#[tokio::test]
async fn a4_a_used_code_shown_by_anybody_else_ends_nothing() {
    let world = World::shared().await;
    let (app, _, ticket, _) = world.family().await;
    let other = world.app().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let given = world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.tokens();
    for (op, via) in ways() {
        let replay = |who: Who| Call { who, ..exchange(op, &app, &code) };
        for who in [Who::nobody(), App::signing(&app.id, "not-the-secret"), App::signing("no-such-app", &app.secret)] {
            world.call(via, &replay(who)).await.refused(Case::Caller);
        }
        world.call(via, &replay(other.who()).but("appid", (op == Op::ExchangeV281).then_some(&other.id))).await.refused(Case::Grant);
        for who in [Who::bearer(&given.access), Who::ticket(&ticket)] {
            world.call(via, &replay(who)).await.refused_as_one_of(&[Case::Caller, Case::Forbidden]);
        }
        // A call that is not complete is no second use either.
        world.call(via, &replay(app.who()).but("grantType", None)).await.refused(Case::Parameter);
    }
    assert!(world.is_valid(&app, &given.access).await);
    world.call(Via::Native, &refresh(Op::TokenV2, &given.refresh).by(app.who())).await.ok();
}

#[tokio::test]
async fn a5_a_code_is_bound_to_its_app_and_a_try_by_another_does_not_use_it_up() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let other = world.app().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    for (op, via) in ways() {
        world.call(via, &exchange(op, &other, &code)).await.refused(Case::Grant);
        let with_its_logout = exchange(op, &other, &code).but("logoutUri", Some(&app.logout));
        world.call(via, &with_its_logout).await.refused(Case::Grant);
    }
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.ok();
}

#[tokio::test]
async fn b2_a_code_cannot_be_turned_to_another_app_by_any_parameter() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let other = world.app().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    for via in Via::BOTH {
        // Operation 5 names the app beside the credential: neither alone is enough.
        let named = exchange(Op::ExchangeV281, &other, &code).but("appid", Some(&app.id));
        world.call(via, &named).await.refused(Case::Parameter);
        let named = exchange(Op::ExchangeV281, &app, &code).but("appid", Some(&other.id));
        world.call(via, &named).await.refused(Case::Parameter);
    }
    for op in [Op::TokenV2, Op::TokenV1] {
        let mut body = exchange(op, &other, &code).json();
        for name in ["appid", "appId", "client_id", "clientId", "ak"] {
            body[name] = app.id.as_str().into();
        }
        world.post(op, op.path(), body.to_string(), &other.who()).await.refused(Case::Grant);
    }
    let given = world.call(Via::Envoy, &exchange(Op::ExchangeV281, &app, &code)).await.tokens();
    assert_eq!(crate::harness::claims(&given.access)["client_id"], app.id.as_str());
}

#[tokio::test]
async fn a6_a_code_lives_ten_minutes() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for (op, via) in ways() {
        // On a machine that stands still for a moment it may be asked too late.
        let reply = loop {
            let begun = world.now();
            let code = world.code(&app, Who::ticket(&ticket)).await;
            world.go_to(begun + 598);
            let reply = world.call(via, &exchange(op, &app, &code)).await;
            if reply.is_ok() || world.now() < begun + 600 {
                break reply;
            }
        };
        reply.ok();
        let code = world.code(&app, Who::ticket(&ticket)).await;
        world.step(601);
        world.call(via, &exchange(op, &app, &code)).await.refused(Case::Grant);
    }
}
