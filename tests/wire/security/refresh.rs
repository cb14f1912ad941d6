//! Refresh tokens: rotated at each use, given again for a moment to who lost the answer, and a theft ends the family.

use serde_json::Value;

use crate::harness::{App, Call, Case, Op, Pair, Setup, Tokens, Via, Who, World, authorize, claims, exchange, refresh, valid};

/// Every way to refresh.
fn ways() -> impl Iterator<Item = (Op, Via)> {
    Op::REFRESHES.into_iter().flat_map(|op| Via::BOTH.map(|via| (op, via)))
}

async fn rotate(world: &World, app: &App, tokens: &Tokens) -> Tokens {
    world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens()
}

/// Checks that no token of the family is good, and that asking again changes nothing.
async fn assert_ended(world: &World, app: &App, family: &[&Tokens]) {
    for tokens in family {
        assert!(!world.is_valid(app, &tokens.access).await, "an access token of the family is still good");
        for (op, via) in ways() {
            world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
        }
    }
}

/// What an access token of the same generation has to have in common.
fn generation(tokens: &Tokens) -> Value {
    let mut claims = claims(&tokens.access);
    for own in ["jti", "iat"] {
        claims.as_object_mut().expect("claims").remove(own);
    }
    claims
}

#[tokio::test]
async fn a27_each_use_gives_the_next_token_and_an_older_one_ends_the_family() {
    let world = World::shared().await;
    let (app, _, ticket, _) = world.family().await;
    let same_app = world.tokens(&app, &ticket).await;
    for (op, via) in ways() {
        let first = world.tokens(&app, &ticket).await;
        let second = world.call(via, &refresh(op, &first.refresh).by(app.who())).await.tokens();
        let third = world.call(via, &refresh(op, &second.refresh).by(app.who())).await.tokens();
        assert!(first.refresh != second.refresh && second.refresh != third.refresh && first.refresh != third.refresh);
        for tokens in [&first, &second, &third] {
            assert!(world.is_valid(&app, &tokens.access).await, "rotation does not end access tokens");
        }
        world.call(via, &refresh(op, &first.refresh).by(app.who())).await.refused(Case::Grant);
        assert_ended(&world, &app, &[&first, &second, &third]).await;
    }
    assert!(world.is_valid(&app, &same_app.access).await, "another family of the same session and app goes on");
    rotate(&world, &app, &same_app).await;
}

#[tokio::test]
async fn a27_a_theft_ends_that_family_and_no_other_sign_in_of_the_user() {
    let world = World::shared().await;
    let (app, user, _, stolen) = world.family().await;
    let other_ticket = world.sign_in(&user).await;
    let elsewhere = world.tokens(&app, &other_ticket).await;
    let second = rotate(&world, &app, &stolen).await;
    rotate(&world, &app, &second).await;
    world.call(Via::Envoy, &refresh(Op::TokenV2, &stolen.refresh).by(app.who())).await.refused(Case::Grant);
    assert_ended(&world, &app, &[&stolen, &second]).await;
    assert!(world.is_valid(&app, &elsewhere.access).await);
    rotate(&world, &app, &elsewhere).await;
}

#[tokio::test]
async fn a29_who_lost_the_answer_gets_the_same_successor_again() {
    // Each is asked for some sixty times within the grace.
    let world = World::own(Setup::default().argument("--refresh-grace", "300")).await;
    let (app, _, ticket, _) = world.family().await;
    for (op, via) in ways() {
        let first = world.tokens(&app, &ticket).await;
        let second = world.call(via, &refresh(op, &first.refresh).by(app.who())).await.tokens();
        // The use of the successor's access token is no use of the successor.
        assert!(world.is_valid(&app, &second.access).await);
        for (again_op, again_via) in ways() {
            for who in [app.who(), Who::bearer(&first.access), Who::bearer(&second.access)] {
                let again = world.call(again_via, &refresh(again_op, &first.refresh).by(who)).await.tokens();
                assert_eq!(again.refresh, second.refresh, "the successor, byte for byte");
                assert_eq!(generation(&again), generation(&second), "the same session, scope and end");
                assert!(world.is_valid(&app, &again.access).await);
            }
        }
        let third = rotate(&world, &app, &second).await;
        assert_ne!(third.refresh, second.refresh);
    }
}

#[tokio::test]
async fn a29_once_the_successor_is_used_the_older_token_ends_the_family_even_within_the_grace() {
    let world = World::shared().await;
    let (app, _, ticket, _) = world.family().await;
    for (op, via) in ways() {
        let first = world.tokens(&app, &ticket).await;
        let second = world.call(via, &refresh(op, &first.refresh).by(app.who())).await.tokens();
        let third = world.call(via, &refresh(op, &second.refresh).by(app.who())).await.tokens();
        world.call(via, &refresh(op, &first.refresh).by(app.who())).await.refused(Case::Grant);
        assert_ended(&world, &app, &[&second, &third]).await;
    }
}

#[tokio::test]
async fn a29_the_grace_is_counted_from_the_first_rotation_and_after_it_the_family_ends() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, _) = world.family().await;
    let first = world.tokens(&app, &ticket).await;
    let second = rotate(&world, &app, &first).await;
    world.step(5);
    assert_eq!(rotate(&world, &app, &first).await.refresh, second.refresh);
    // A repeat does not prolong the grace.
    world.step(6);
    world.call(Via::Envoy, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.refused(Case::Grant);
    assert_ended(&world, &app, &[&first, &second]).await;
}

#[tokio::test]
async fn a29_the_grace_is_a_setting_and_may_be_none() {
    for grace in [0, 300] {
        let mut world = World::own(Setup::default().movable_clock().argument("--refresh-grace", &grace.to_string())).await;
        let (app, _, _, first) = world.family().await;
        let second = rotate(&world, &app, &first).await;
        if grace > 0 {
            world.step(grace - 3);
            assert_eq!(rotate(&world, &app, &first).await.refresh, second.refresh);
            world.step(4);
        }
        world.call(Via::Envoy, &refresh(Op::RefreshV281, &first.refresh).by(app.who())).await.refused(Case::Grant);
        assert_ended(&world, &app, &[&first, &second]).await;
    }
}

#[tokio::test]
async fn a29_the_successor_is_the_same_after_the_service_was_killed_or_restarted() {
    let mut world = World::own(Setup::default().argument("--refresh-grace", "300")).await;
    for end in [Pair::kill as fn(&mut Pair), Pair::terminate] {
        let (app, _, _, first) = world.family().await;
        let by_app = refresh(Op::TokenV2, &first.refresh).by(app.who());
        let second = world.call(Via::Envoy, &by_app).await.tokens();
        world.restart(end);
        for via in Via::BOTH {
            let again = world.call(via, &by_app).await.tokens();
            assert_eq!(again.refresh, second.refresh);
            assert!(world.is_valid(&app, &again.access).await && world.is_valid(&app, &second.access).await);
        }
        let third = world.call(Via::Envoy, &refresh(Op::TokenV2, &second.refresh).by(app.who())).await.tokens();
        world.restart(end);
        // That the successor was used is remembered, too.
        world.call(Via::Envoy, &by_app).await.refused(Case::Grant);
        assert!(!world.is_valid(&app, &third.access).await);
    }
}

#[tokio::test]
async fn a30_a_refresh_token_is_bound_to_its_app_and_another_ends_nothing() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let other = world.app().await;
    let other_app_same_session = world.tokens(&other, &ticket).await;
    let same_app_same_session = world.tokens(&app, &ticket).await;
    let same_app_other_session = world.tokens(&app, &world.sign_in(&user).await).await;
    let other_app_other_session = world.tokens(&other, &world.sign_in(&user).await).await;
    let rotated = rotate(&world, &app, &same_app_same_session).await;
    for (op, via) in ways() {
        let refused = [
            other.who(),
            Who::bearer(&other_app_same_session.access),
            Who::bearer(&other_app_other_session.access),
            Who::bearer(&same_app_same_session.access),
            Who::bearer(&same_app_other_session.access),
        ];
        for who in refused {
            world.call(via, &refresh(op, &tokens.refresh).by(who.clone())).await.refused(Case::Grant);
            // Nor does showing somebody a replaced token end its family.
            if who != Who::bearer(&same_app_same_session.access) {
                world.call(via, &refresh(op, &same_app_same_session.refresh).by(who)).await.refused(Case::Grant);
            }
        }
    }
    for tokens in [&tokens, &rotated, &same_app_other_session] {
        assert!(world.is_valid(&app, &tokens.access).await);
        rotate(&world, &app, tokens).await;
    }
    rotate(&world, &other, &other_app_same_session).await;
}

#[tokio::test]
async fn a30_the_scope_stays_as_it_was_granted() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let call = authorize(Op::Authorize, &app).with("scope", "read write").by(Who::ticket(&ticket));
    let code = world.call(Via::Envoy, &call).await.text_of("code");
    let mut tokens = world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.tokens();
    let granted = claims(&tokens.access);
    for (op, via) in ways() {
        tokens = world.call(via, &refresh(op, &tokens.refresh).with("scope", "admin").by(app.who())).await.tokens();
        let now = claims(&tokens.access);
        for claim in ["scope", "sid", "sub", "client_id", "aud", "iss"] {
            assert_eq!(now[claim], granted[claim], "{claim}");
        }
        assert_ne!(now["jti"], granted["jti"]);
    }
}

#[tokio::test]
async fn h11_an_expired_token_of_the_family_refreshes_and_opens_nothing_else() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    let other_family = world.tokens(&app, &ticket).await;
    world.step(3700);
    let expired = Who::bearer(&tokens.access);
    for via in Via::BOTH {
        for op in Op::AUTHORIZES {
            world.call(via, &authorize(op, &app).by(expired.clone())).await.refused(Case::Caller);
        }
        world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(expired.clone())).await.refused(Case::Caller);
        world.call(via, &valid(&other_family.access).by(expired.clone())).await.refused(Case::Caller);
        world
            .call(via, &Call::new(Op::SignOutV281).with("accessToken", &other_family.access).by(expired.clone()))
            .await
            .refused(Case::Caller);
        world.call(via, &refresh(Op::TokenV2, &other_family.refresh).by(expired.clone())).await.refused(Case::Grant);
    }
    let mut latest = tokens.refresh.clone();
    for (op, via) in ways() {
        latest = world.call(via, &refresh(op, &latest).by(expired.clone())).await.tokens().refresh;
    }
    rotate(&world, &app, &other_family).await;
}

#[tokio::test]
async fn a18_a_ticket_or_nobody_never_refreshes() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    for (op, via) in ways() {
        world.call(via, &refresh(op, &tokens.refresh)).await.refused(Case::Caller);
        world.call(via, &refresh(op, &tokens.refresh).by(Who::ticket(&ticket))).await.refused_as_one_of(&[Case::Caller, Case::Forbidden]);
    }
    rotate(&world, &app, &tokens).await;
}

#[tokio::test]
async fn a18_an_app_can_insist_on_its_own_credential_to_refresh() {
    let world = World::shared().await;
    let app = world.app_with(|app| app.refresh_requires_app_credential = true).await;
    let (_, ticket) = world.signed_in().await;
    let mut tokens = world.tokens(&app, &ticket).await;
    for (op, via) in ways() {
        let by_bearer = refresh(op, &tokens.refresh).by(Who::bearer(&tokens.access));
        world.call(via, &by_bearer).await.refused_as_one_of(&[Case::Caller, Case::Forbidden, Case::Grant]);
        tokens = world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.tokens();
    }
}

#[tokio::test]
async fn a32_generations_are_counted_and_no_step_of_the_clock_matters() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, mut tokens) = world.family().await;
    // Many generations in one second.
    for _ in 0..20 {
        tokens = rotate(&world, &app, &tokens).await;
    }
    let before_the_step = tokens.clone();
    world.step(-3600);
    for _ in 0..3 {
        tokens = rotate(&world, &app, &tokens).await;
    }
    world.call(Via::Envoy, &refresh(Op::TokenV2, &before_the_step.refresh).by(app.who())).await.refused(Case::Grant);
    assert_ended(&world, &app, &[&tokens]).await;
    // And the session goes on.
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
}

#[tokio::test]
async fn b24_refreshing_at_one_app_leaves_the_other_apps_tokens_alone() {
    let world = World::shared().await;
    let (app, _, ticket, mut tokens) = world.family().await;
    let other = world.app().await;
    let others = world.tokens(&other, &ticket).await;
    for (op, via) in ways() {
        tokens = world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.tokens();
        assert!(world.is_valid(&other, &others.access).await);
    }
    let replaced = tokens.clone();
    let next = rotate(&world, &app, &tokens).await;
    rotate(&world, &app, &next).await;
    world.call(Via::Envoy, &refresh(Op::TokenV2, &replaced.refresh).by(app.who())).await.refused(Case::Grant);
    assert!(world.is_valid(&other, &others.access).await, "the end of one app's family is not the end of another's");
    rotate(&world, &other, &others).await;
}
