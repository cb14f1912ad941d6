//! The machine's clock is set while the service is away.

use crate::{
    harness::{Call, Case, Op, Setup, Tokens, Via, Who, World, authorize, exchange, refresh, valid},
    kills,
};

/// Starts the service again with its clock set by so many seconds.
fn restart_with_a_clock_that_was_set(world: &mut World, seconds: i64) {
    let process = world.service_id();
    kills::kill(process);
    world.step(seconds);
    world.restart(crate::harness::Pair::kill);
}

async fn is_good(world: &World, app: &crate::harness::App, tokens: &Tokens) -> bool {
    world.call(Via::Native, &valid(&tokens.access).by(app.who())).await.valid()
}

fn setup() -> Setup {
    kills::setup().argument("--session-idle-lifetime", "1800").argument("--code-lifetime", "60").movable_clock()
}

#[tokio::test]
async fn c13_what_has_expired_stays_so_when_the_clock_is_set_back_an_hour() {
    let mut world = World::own(setup()).await;
    let (app, user, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    world.step(1801);
    // Not before the service has noticed how late it is: it looks every ten seconds.
    restart_with_a_clock_that_was_set(&mut world, 0);
    restart_with_a_clock_that_was_set(&mut world, -1801);
    world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
    assert!(!is_good(&world, &app, &tokens).await);
    world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
    // What is new works, and apps sign by the clock as it is.
    let ticket = world.sign_in(&user).await;
    let tokens = world.tokens(&app, &ticket).await;
    assert!(is_good(&world, &app, &tokens).await);
}

#[tokio::test]
async fn c13_an_access_token_that_has_expired_stays_so_when_the_clock_is_set_back() {
    let mut world = World::own(kills::setup().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    world.step(3610);
    restart_with_a_clock_that_was_set(&mut world, 0);
    assert!(!is_good(&world, &app, &tokens).await);
    restart_with_a_clock_that_was_set(&mut world, -3600);
    assert!(!is_good(&world, &app, &tokens).await, "it has come back to life");
    world.step(-3000);
    assert!(!is_good(&world, &app, &tokens).await, "it has come back to life while the service ran");
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
}

#[tokio::test]
async fn c13_nothing_half_expires_when_the_clock_is_set_forward_an_hour() {
    let mut world = World::own(kills::setup().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    restart_with_a_clock_that_was_set(&mut world, 3610);
    // An hour ends tokens and codes, and no session.
    assert!(!is_good(&world, &app, &tokens).await);
    world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
    let next = world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens();
    assert!(is_good(&world, &app, &next).await);
    let fresh = world.tokens(&app, &ticket).await;
    assert!(is_good(&world, &app, &fresh).await);
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    assert!(!is_good(&world, &app, &next).await && !is_good(&world, &app, &fresh).await);
}
