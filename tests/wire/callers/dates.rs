//! Signatures with a date: not too old, not too new, and good once.

use std::sync::Arc;

use supos_auth::{core::clock::Timestamp, sign};
use tokio::task::JoinSet;

use crate::harness::{App, Call, Case, Op, Pair, Setup, Via, Who, World, raw, refresh};

async fn strict(world: &World) -> App {
    world.app_with(|app| app.signature_requires_date = true).await
}

/// The date that is so many seconds from the service's time.
fn date(world: &World, offset: i64) -> String {
    sign::date(Timestamp::from_millis(u64::try_from(world.now() + offset).expect("a time") * 1000))
}

fn ask(app: &App) -> Call {
    Call::new(Op::Username).with("accessToken", "x").by(app.who())
}

/// Whether the app was taken for itself: then what is wrong is the token that it asks about.
async fn is_taken(world: &World, via: Via, call: &Call) -> bool {
    let reply = world.call(via, call).await;
    if reply.check_refusal(Case::Grant).is_ok() {
        return true;
    }
    reply.refused(Case::Caller);
    false
}

#[tokio::test]
async fn an_app_that_has_to_date_its_signatures_is_taken_within_five_minutes_either_way() {
    let world = World::own(Setup::default().movable_clock()).await;
    let app = strict(&world).await;
    // Away from the edges, where the clock may tick in between.
    for (offset, taken) in [(0, true), (-290, true), (290, true), (-310, false), (310, false), (-86_400, false), (86_400 * 3650, false)] {
        let call = ask(&app).header("x-mc-date", &date(&world, offset));
        assert_eq!(is_taken(&world, Via::Envoy, &call).await, taken, "{offset} s over HTTP");
        let call = call.header("x-mc-nonce", &offset.to_string());
        assert_eq!(is_taken(&world, Via::Native, &call).await, taken, "{offset} s over gRPC");
    }
    assert!(!is_taken(&world, Via::Envoy, &ask(&app)).await, "without a date");
    let now = date(&world, 0);
    let iso = format!("{}-{}-{}T{}:{}:{}Z", &now[..4], &now[4..6], &now[6..8], &now[9..11], &now[11..13], &now[13..15]);
    for wrong in ["", "now", &now[..15], &now.to_lowercase(), &iso, &format!("{}+0800", &now[..15]), &world.now().to_string()] {
        assert!(!is_taken(&world, Via::Envoy, &ask(&app).header("x-mc-date", wrong)).await, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_dated_signature_works_once_and_a_nonce_makes_another_one_of_it() {
    let world = World::shared().await;
    let app = strict(&world).await;
    let call = ask(&app).header("x-mc-date", &date(&world, 0));
    assert!(is_taken(&world, Via::Envoy, &call).await);
    assert!(!is_taken(&world, Via::Envoy, &call).await, "the same again");
    for nonce in ["1", "2"] {
        let call = call.clone().header("x-mc-nonce", nonce);
        assert!(is_taken(&world, Via::Envoy, &call).await, "{nonce}");
        assert!(!is_taken(&world, Via::Envoy, &call).await, "{nonce} again");
    }
    // Native: for every app.
    for app in [&app, &world.app().await] {
        let call = ask(app).header("x-mc-date", &date(&world, 0)).header("x-mc-nonce", "n");
        assert!(is_taken(&world, Via::Native, &call).await);
        assert!(!is_taken(&world, Via::Native, &call).await, "the same again");
    }
}

#[tokio::test]
async fn where_no_date_is_required_it_is_not_looked_at() {
    let world = World::shared().await;
    let app = world.app().await;
    for date in ["19700101T000000Z", "yesterday", "2026/11/22 03:04"] {
        let call = ask(&app).header("x-mc-date", date);
        assert!(is_taken(&world, Via::Envoy, &call).await && is_taken(&world, Via::Envoy, &call).await, "{date}");
    }
}

#[tokio::test]
async fn a_dated_signature_stays_used_when_the_service_is_killed_or_restarted() {
    let mut world = World::own(Setup::default()).await;
    let app = strict(&world).await;
    let call = ask(&app).header("x-mc-date", &date(&world, 240));
    assert!(is_taken(&world, Via::Envoy, &call).await);
    for end in [Pair::kill, Pair::terminate] {
        world.restart(end);
        assert!(!is_taken(&world, Via::Envoy, &call).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dated_signature_raced_by_64_callers_is_taken_once() {
    let world = Arc::new(World::own(Setup::default()).await);
    let app = strict(&world).await;
    for (round, via) in (0..10).zip([Via::Envoy, Via::Native].into_iter().cycle()) {
        let call = ask(&app).header("x-mc-date", &date(&world, 0)).header("x-mc-nonce", &round.to_string());
        let mut callers = JoinSet::new();
        for _ in 0..64 {
            let (world, call) = (Arc::clone(&world), call.clone());
            callers.spawn(async move { is_taken(&world, via, &call).await });
        }
        assert_eq!(callers.join_all().await.into_iter().filter(|taken| *taken).count(), 1, "{via:?}");
    }
}

#[tokio::test]
async fn operators_read_why_a_dated_signature_was_refused() {
    let world = World::own(Setup::default()).await;
    let mark = world.service_log.mark();
    let reason = async |call: Call| {
        assert!(!is_taken(&world, Via::Envoy, &call).await);
        let id = call.who.signers[0].ak.clone();
        let line = world.service_log.wait_for(mark, |line| {
            let json: serde_json::Value = serde_json::from_str(line).ok()?;
            (json["ak"] == id.as_str()).then(|| json["reason"].as_str().unwrap_or_default().to_owned())
        });
        line.expect("a line in the log")
    };
    // One app each, because there is one line a minute for each.
    assert_eq!(reason(ask(&strict(&world).await)).await, "no_date");
    assert_eq!(reason(ask(&strict(&world).await).header("x-mc-date", "today")).await, "bad_date");
    assert_eq!(reason(ask(&strict(&world).await).header("x-mc-date", &date(&world, -400))).await, "date_off");
    let call = ask(&strict(&world).await).header("x-mc-date", &date(&world, 0));
    assert!(is_taken(&world, Via::Envoy, &call).await);
    assert_eq!(reason(call).await, "used_before");
}

#[tokio::test]
async fn a_signature_that_is_refused_for_what_is_beside_it_is_used_up_and_not_said_to_have_been_used_before() {
    let world = World::own(Setup::default()).await;
    let (app, _, _, tokens) = world.family().await;
    let refresh = |nonce: &str| {
        let dated = Who::headers(vec![("x-mc-nonce", nonce.to_owned()), ("x-mc-date", date(&world, 0))]);
        refresh(Op::TokenV2, &tokens.refresh).by(dated).by(app.who())
    };
    let is_counted = || raw::request(world.ops(), "GET", "/metrics", &[], b"").text().contains("\"used_before\"");
    let call = refresh("once");
    world.call(Via::Native, &call.clone().header("token", "made-up")).await.refused(Case::Caller);
    assert!(!is_counted());
    // The token is not signed, so this is the same signature.
    world.call(Via::Native, &call).await.refused(Case::Caller);
    assert!(is_counted());
    world.call(Via::Native, &refresh("another")).await.ok();
}
