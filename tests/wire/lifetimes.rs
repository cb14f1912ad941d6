//! How long things live: to the second, by moving the service's clock.

use crate::harness::{App, Call, Case, Op, Setup, Tokens, Via, Who, World, authorize, claims, exchange, refresh, valid};

const DAY: i64 = 24 * 3600;

async fn knows(world: &World, app: &App, ticket: &str) -> bool {
    let reply = world.call(Via::Native, &authorize(Op::Authorize, app).by(Who::ticket(ticket))).await;
    if !reply.is_ok() {
        reply.refused(Case::Caller);
    }
    reply.is_ok()
}

async fn rotate(world: &World, app: &App, tokens: &Tokens) -> Tokens {
    world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens()
}

fn expiry(tokens: &Tokens) -> i64 {
    claims(&tokens.access)["exp"].as_i64().expect("exp is a number")
}

#[tokio::test]
async fn an_access_token_is_good_until_it_expires_and_five_seconds_more_for_clocks_that_differ() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let before = world.now();
    let (app, _, _, tokens) = world.family().await;
    assert_eq!(tokens.expires_in, 3600);
    let end = expiry(&tokens);
    assert!((before + 3600..=world.now() + 3600).contains(&end), "{before}, {end}, {}", world.now());
    for (offset, good) in [(-60, true), (2, true), (7, false), (600, false)] {
        world.go_to(end + offset);
        assert_eq!(world.is_valid(&app, &tokens.access).await, good, "{offset} s after it has expired");
        for via in Via::BOTH {
            world.go_to(end + offset);
            let by_bearer = world.call(via, &authorize(Op::Authorize, &app).by(Who::bearer(&tokens.access))).await;
            assert_eq!(by_bearer.is_ok(), good, "{offset} s: {}", by_bearer.text);
        }
    }
    assert!(world.is_valid(&app, &rotate(&world, &app, &tokens).await.access).await, "the refresh token outlives it");
}

#[tokio::test]
async fn a_session_that_nothing_keeps_alive_ends_after_seven_days() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let app = world.app().await;
    let (user, idle) = world.signed_in().await;
    let idle_tokens = world.tokens(&app, &idle).await;
    let last_use = world.now();
    let busy = world.sign_in(&user).await;
    let busy_tokens = world.tokens(&app, &busy).await;

    world.go_to(last_use + 7 * DAY - 60);
    // Asking about a token or its user keeps nothing alive: these are the calls of machines.
    world.call(Via::Envoy, &valid(&idle_tokens.access).by(app.who())).await.ok();
    world.call(Via::Envoy, &valid(&idle_tokens.access).by(Who::ticket(&idle))).await.ok();
    world
        .call(Via::Envoy, &Call::new(Op::Username).with("accessToken", &idle_tokens.access).by(Who::ticket(&idle)))
        .await
        .refused(Case::Grant);
    rotate(&world, &app, &busy_tokens).await;
    world.go_to(last_use + 7 * DAY + 60);
    assert!(!knows(&world, &app, &idle).await);
    world.call(Via::Envoy, &refresh(Op::TokenV2, &idle_tokens.refresh).by(app.who())).await.refused(Case::Grant);
    assert!(knows(&world, &app, &busy).await, "a refresh keeps the session alive");
}

#[tokio::test]
async fn an_exchange_keeps_the_session_alive_from_then_on() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let code = world.code(&app, Who::ticket(&ticket)).await;
    world.step(550);
    let tokens = world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.tokens();
    let last_use = world.now();
    world.go_to(last_use + 7 * DAY - 60);
    let tokens = rotate(&world, &app, &tokens).await;
    world.step(7 * DAY + 60);
    world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
}

#[tokio::test]
async fn authorize_keeps_a_session_alive_and_thirty_days_are_the_end() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let app = world.app().await;
    let (_, ticket) = world.signed_in().await;
    let begin = world.now();
    for days in [6, 12, 18, 24] {
        world.go_to(begin + days * DAY);
        assert!(knows(&world, &app, &ticket).await, "day {days}");
    }
    world.go_to(begin + 30 * DAY - 120);
    let late = world.tokens(&app, &ticket).await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let end = begin + 30 * DAY;
    // Nothing that the session gives outlives it, and what is said about it is true.
    assert!(late.expires_in <= 121, "{}", late.expires_in);
    assert!(expiry(&late) <= end + 2);
    let renewed = rotate(&world, &app, &late).await;
    assert!(renewed.expires_in <= 121 && expiry(&renewed) <= end + 2);

    world.go_to(end + 10);
    assert!(!knows(&world, &app, &ticket).await);
    for tokens in [&late, &renewed] {
        assert!(!world.is_valid(&app, &tokens.access).await);
        world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
        world
            .call(Via::Native, &refresh(Op::RefreshV281, &tokens.refresh).by(Who::bearer(&tokens.access)))
            .await
            .refused_as_one_of(&[Case::Grant, Case::Caller]);
    }
    for op in Op::EXCHANGES {
        world.call(Via::Envoy, &exchange(op, &app, &code)).await.refused(Case::Grant);
    }
}

#[tokio::test]
async fn lifetimes_are_settings() {
    let setup = Setup::default()
        .movable_clock()
        .argument("--access-token-lifetime", "100")
        .argument("--code-lifetime", "30")
        .argument("--session-lifetime", "1000")
        .argument("--session-idle-lifetime", "200");
    let mut world = World::own(setup).await;
    let app = world.app().await;
    let (_, ticket) = world.signed_in().await;
    let begin = world.now();
    let tokens = world.tokens(&app, &ticket).await;
    assert_eq!(tokens.expires_in, 100);
    assert_eq!(expiry(&tokens) - claims(&tokens.access)["iat"].as_i64().expect("iat"), 100);
    let code = world.code(&app, Who::ticket(&ticket)).await;
    world.step(33);
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
    for after in [180, 340, 500, 660, 820, 980] {
        world.go_to(begin + after);
        assert!(knows(&world, &app, &ticket).await, "{after}");
    }
    world.go_to(begin + 1010);
    assert!(!knows(&world, &app, &ticket).await);
    let (_, idle) = world.signed_in().await;
    world.step(210);
    assert!(!knows(&world, &app, &idle).await);
}

#[tokio::test]
async fn a_clock_that_is_set_back_brings_nothing_back() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    world.step(-3600);
    assert!(!world.is_valid(&app, &tokens.access).await);
    assert!(!knows(&world, &app, &ticket).await);
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
    let (app, _, _, tokens) = world.family().await;
    assert!(world.is_valid(&app, &tokens.access).await, "and what is new works");
}
