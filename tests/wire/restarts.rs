//! The service is ended and started again: what was given out and what was taken back both stay.

use crate::harness::{Call, Case, Op, Pair, Setup, Via, Who, World, authorize, exchange, refresh, tools};

async fn everything_survives(end: fn(&mut Pair)) {
    let mut world = World::own(Setup::default()).await;
    let (app, user, ticket, live) = world.family().await;
    let (unused, used) = (world.code(&app, Who::ticket(&ticket)).await, world.code(&app, Who::ticket(&ticket)).await);
    let from_the_used = world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &used)).await.tokens();
    let first = world.tokens(&app, &ticket).await;
    let second = world.call(Via::Envoy, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.tokens();
    let third = world.call(Via::Envoy, &refresh(Op::TokenV2, &second.refresh).by(app.who())).await.tokens();
    let out = world.sign_in(&user).await;
    let ended = world.tokens(&app, &out).await;
    world.call(Via::Envoy, &Call::new(Op::SignOut).by(Who::ticket(&out))).await.ok();
    let keys = world.call(Via::Envoy, &Call::new(Op::Jwks)).await.ok().clone();

    world.restart(end);

    assert_eq!(*world.call(Via::Envoy, &Call::new(Op::Jwks)).await.ok(), keys, "the same keys are published");
    assert!(world.is_valid(&app, &live.access).await, "tokens stay good");
    world.call(Via::Envoy, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
    world.call(Via::Envoy, &exchange(Op::TokenV1, &app, &unused)).await.ok();
    world.call(Via::Envoy, &refresh(Op::RefreshV281, &live.refresh).by(app.who())).await.ok();

    assert!(!world.is_valid(&app, &ended.access).await, "what was signed out stays out");
    world.call(Via::Envoy, &authorize(Op::Authorize, &app).by(Who::ticket(&out))).await.refused(Case::Caller);
    world.call(Via::Envoy, &refresh(Op::TokenV2, &ended.refresh).by(app.who())).await.refused(Case::Grant);

    assert!(world.is_valid(&app, &from_the_used.access).await);
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &used)).await.refused(Case::Grant);
    assert!(!world.is_valid(&app, &from_the_used.access).await, "a used code is known to be used, and by which family");

    assert!(world.is_valid(&app, &third.access).await);
    world.call(Via::Envoy, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.refused(Case::Grant);
    assert!(!world.is_valid(&app, &third.access).await, "a replaced token is known to be replaced");

    // And everything can be done anew.
    let ticket = world.sign_in(&user).await;
    world.tokens(&app, &ticket).await;
}

#[tokio::test]
async fn everything_survives_a_graceful_restart() {
    everything_survives(Pair::terminate).await;
}

#[tokio::test]
async fn everything_survives_a_kill() {
    everything_survives(Pair::kill).await;
}

#[tokio::test]
async fn while_the_service_is_away_envoy_says_503_and_then_goes_on() {
    let mut world = World::own(Setup::default()).await;
    let (app, _, _, tokens) = world.family().await;
    world.terminate();
    let call = exchange(Op::TokenV2, &app, "no-such-code");
    let reply = world.call(Via::Envoy, &call).await;
    assert_eq!((reply.status, reply.body["code"].as_i64()), (crate::harness::Status::Http(503), Some(100_106_503)), "{}", reply.text);
    assert!(reply.header("retry-after").is_some());
    reply.echoes_nothing_of(&call);
    world.restart(|_| {});
    assert!(world.is_valid(&app, &tokens.access).await);
}

#[tokio::test]
async fn calls_that_are_under_way_are_answered_when_the_service_is_told_to_end() {
    use std::{process::Command, sync::Arc};

    let world = Arc::new(World::own(Setup::default()).await);
    let user = world.user().await;
    // Each takes as long as a password check.
    let mut calls = tokio::task::JoinSet::new();
    let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
    for _ in 0..4 {
        let (world, sign_in) = (Arc::clone(&world), sign_in.clone());
        calls.spawn(async move { world.call(Via::Native, &sign_in).await });
    }
    let first = calls.join_next().await.expect("a call").expect("a reply");
    first.ok();
    Command::new("kill").args(["-TERM", &world.service_id().to_string()]).status().expect("kill");
    for reply in calls.join_all().await {
        reply.ok();
    }
}

#[tokio::test]
async fn a_second_service_on_the_same_data_refuses_and_harms_nobody() {
    let world = World::own(Setup::default()).await;
    let (app, _, _, tokens) = world.family().await;
    let data = world.data();
    let second = tools::that_ends()
        .args([
            "serve",
            "--dev",
            "--grpc-listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--public-url",
            "http://127.0.0.1:1",
            "--log-format",
            "json",
        ])
        .arg("--edge-listen")
        .arg(format!("unix:{}", world.data().with_extension("second.sock").display()))
        .arg("--data-dir")
        .arg(&data)
        .output()
        .expect("the binary runs");
    assert_eq!(second.status.code(), Some(1), "it ends by itself, and says so: {}", String::from_utf8_lossy(&second.stderr));
    assert!(!second.stderr.is_empty());
    assert!(!String::from_utf8_lossy(&second.stderr).contains("panicked"), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(world.is_valid(&app, &tokens.access).await);
}

#[tokio::test]
async fn a_store_made_for_demonstration_does_not_start_as_a_real_one() {
    let mut world = World::own(Setup::default()).await;
    world.terminate();
    let key = world.data().with_extension("key");
    std::fs::write(&key, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n").expect("a key file");
    let real = tools::that_ends()
        .args(["serve", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--public-url", "http://127.0.0.1:1"])
        .arg("--edge-listen")
        .arg(format!("unix:{}", world.edge().display()))
        .arg("--data-dir")
        .arg(world.data())
        .arg("--master-key-file")
        .arg(&key)
        .output()
        .expect("the binary runs");
    assert_eq!(real.status.code(), Some(1));
    assert!(!real.stderr.is_empty());
    world.restart(|_| {});
}

#[tokio::test]
async fn demonstration_data_are_served_on_loopback_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = tools::that_ends()
        .args([
            "serve",
            "--dev",
            "--grpc-listen",
            "0.0.0.0:0",
            "--ops-listen",
            "127.0.0.1:0",
            "--public-url",
            "http://127.0.0.1:1",
            "--data-dir",
        ])
        .arg(folder.path())
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty());
}
