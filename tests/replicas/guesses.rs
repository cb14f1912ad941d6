//! Failures are counted by all services together.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    harness::{App, Call, Op, Reply, User, Via, is_about, unique, valid},
    postgres_server::{PostgresServer, is_wanted},
    stage::{Replicas, is_unavailable, until},
};

/// As many failures as this are free in these tests.
const NAME: usize = 10;
const ADDRESS: usize = 20;
const GOOD_ADDRESS: usize = 60;
/// How often one more is free for a name, for an address or an app, and for a good address.
const ONE_MORE_NAME: Duration = Duration::from_mins(5);
const ONE_MORE: Duration = Duration::from_secs(10);
const ONE_MORE_GOOD: Duration = Duration::from_secs(1);
/// How many call at once: with signatures, and with passwords, each of which is hashed.
const AT_ONCE: usize = 24;
const SIGN_INS_AT_ONCE: usize = 8;

/// So many services with low limits behind one proxy, so that a test can say where a call comes from; and the name of their database.
async fn low(number: usize) -> Option<(Arc<Replicas>, String)> {
    if !is_wanted() {
        return None;
    }
    let url = PostgresServer::shared().database();
    let low = |_, mut setup: crate::harness::Setup| {
        setup.trusted_hops = 1;
        setup
            .argument("--failures-per-name", &NAME.to_string())
            .argument("--failures-per-address", &ADDRESS.to_string())
            .argument("--failures-per-good-address", &GOOD_ADDRESS.to_string())
    };
    let replicas = Replicas::at(number, |_| url.clone(), low).await;
    let name = url.rsplit('/').next().expect("the name of the database").to_owned();
    Some((Arc::new(replicas), name))
}

fn sign_in(name: &str, password: &str, address: &str) -> Call {
    Call::new(Op::SignIn).with("userName", name).with("password", password).header("x-forwarded-for", address)
}

fn right(user: &User, address: &str) -> Call {
    sign_in(&user.name, &user.password, address)
}

fn is_limited(reply: &Reply) -> bool {
    reply.body["code"] == 100_106_429
}

/// How many of these calls, several at a time and by Envoy at all services, are looked at.
async fn looked_at(replicas: &Arc<Replicas>, at_once: usize, calls: impl Iterator<Item = Call>) -> usize {
    let mut callers = JoinSet::new();
    let mut calls = calls.fuse();
    let mut looked_at = 0;
    loop {
        if let Some(call) = calls.next() {
            let replicas = Arc::clone(replicas);
            callers.spawn(async move {
                loop {
                    // A row that many wait for may be busy for too long. Then nothing is counted.
                    let reply = replicas.world(0).call(Via::Envoy, &call).await;
                    if !is_unavailable(&reply) {
                        return reply;
                    }
                }
            });
            if callers.len() < at_once {
                continue;
            }
        }
        let Some(done) = callers.join_next().await else { return looked_at };
        let reply = done.expect("every call is answered");
        if !is_limited(&reply) {
            assert!(matches!(reply.body["code"].as_u64(), Some(100_106_211 | 100_106_401)), "{}", reply.text);
            looked_at += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_three_services_let_no_more_wrong_passwords_pass_than_one_and_a_lock_shows_at_each_at_once() {
    let Some((replicas, _)) = low(3).await else { return };
    let user = replicas.world(1).user().await;
    for name in [&user.name, &unique("nobody")] {
        let begun = Instant::now();
        let calls = (0..6 * NAME).map(|n| sign_in(name, "wrong password", &format!("192.0.2.{n}")));
        let looked_at = looked_at(&replicas, SIGN_INS_AT_ONCE, calls).await;
        assert!(is_about(NAME, looked_at, ONE_MORE_NAME, begun), "{looked_at} for a name");
    }
    // The right one is not looked at either, whatever service it comes to.
    for world in &replicas.worlds {
        assert!(is_limited(&world.call(Via::Native, &right(&user, "")).await));
    }
    let begun = Instant::now();
    let calls = (0..6 * ADDRESS).map(|n| sign_in(&unique(&format!("n{n}")), "wrong password", "198.51.100.1"));
    let looked_at = looked_at(&replicas, SIGN_INS_AT_ONCE, calls).await;
    assert!(is_about(ADDRESS, looked_at, ONE_MORE, begun), "{looked_at} from an address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_three_services_let_no_more_wrong_signatures_pass_than_one() {
    let Some((replicas, _)) = low(3).await else { return };
    let app = replicas.world(0).app().await;
    let wrong = |ak: &str| App { id: ak.to_owned(), secret: "wrong".into(), ..app.clone() };
    for ak in [&app.id, &unique("nobody")] {
        let begun = Instant::now();
        let calls = (0..4 * ADDRESS).map(|n| valid("x").by(wrong(ak).who()).header("x-forwarded-for", &format!("192.0.2.{n}")));
        let looked_at = looked_at(&replicas, AT_ONCE, calls).await;
        assert!(is_about(ADDRESS, looked_at, ONE_MORE, begun), "{looked_at} of an app");
    }
    let begun = Instant::now();
    let calls = (0..4 * ADDRESS).map(|n| valid("x").by(wrong(&unique(&format!("n{n}"))).who()).header("x-forwarded-for", "198.51.100.1"));
    let looked_at = looked_at(&replicas, AT_ONCE, calls).await;
    assert!(is_about(ADDRESS, looked_at, ONE_MORE, begun), "{looked_at} from an address");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_where_a_user_is_known_to_one_service_he_is_known_to_all() {
    let Some((replicas, _)) = low(3).await else { return };
    let user = replicas.world(1).user().await;
    let world = replicas.world(0);
    world.call(Via::Envoy, &right(&user, "192.0.2.1")).await.ok();
    let guesses = |from: usize| {
        let name = user.name.clone();
        (from..from + 3 * NAME).map(move |n| sign_in(&name, "wrong password", &format!("198.51.100.{n}")))
    };
    let begun = Instant::now();
    assert!(is_about(NAME, looked_at(&replicas, SIGN_INS_AT_ONCE, guesses(0)).await, ONE_MORE_NAME, begun));
    // Envoy calls one service after the other: each is met at his address, and none lets a stranger in.
    for _ in 0..2 * replicas.worlds.len() {
        world.call(Via::Envoy, &right(&user, "192.0.2.1")).await.ok();
        assert!(is_limited(&world.call(Via::Envoy, &right(&user, "203.0.113.1")).await));
    }
    // The address has a high ceiling at all of them, and one for all.
    let begun = Instant::now();
    let calls = (0..3 * GOOD_ADDRESS).map(|n| sign_in(&unique(&format!("n{n}")), "wrong password", "192.0.2.1"));
    let looked_at = looked_at(&replicas, SIGN_INS_AT_ONCE, calls).await;
    assert!(is_about(GOOD_ADDRESS, looked_at, ONE_MORE_GOOD, begun), "{looked_at}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_signature_and_a_question_about_a_token_ask_nothing_of_the_counts() {
    let Some((replicas, database)) = low(1).await else { return };
    let world = replicas.world(0);
    let (app, _, _, tokens) = world.family().await;
    let call = valid(&tokens.access).by(app.who());
    assert!(world.call(Via::Envoy, &call).await.valid());
    PostgresServer::shared().psql(&database, "ALTER TABLE counts RENAME TO counts_of_before");
    for _ in 0..20 {
        assert!(world.call(Via::Envoy, &call).await.valid());
    }
    let wrong = App { secret: "wrong".into(), ..app };
    assert!(is_unavailable(&world.call(Via::Envoy, &valid(&tokens.access).by(wrong.who())).await), "nobody guesses uncounted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_failures_leave_a_bounded_number_of_rows_for_each_address_and_none_once_their_time_is_over() {
    let Some((replicas, database)) = low(1).await else { return };
    let rows = || PostgresServer::shared().psql(&database, "SELECT COUNT(*) FROM counts").parse::<usize>().expect("a number");
    let before = rows();
    let calls = (0..10 * ADDRESS).map(|n| sign_in(&unique(&format!("n{n}")), "wrong password", "198.51.100.1"));
    let names = looked_at(&replicas, SIGN_INS_AT_ONCE, calls).await;
    let app = replicas.world(0).app().await;
    let calls = (0..10 * ADDRESS).map(|n| {
        let nobody = App { id: unique(&format!("n{n}")), secret: "wrong".into(), ..app.clone() };
        valid("x").by(nobody.who()).header("x-forwarded-for", "198.51.100.1")
    });
    let keys = looked_at(&replicas, AT_ONCE, calls).await;
    // Two for each name and one for each access key that was looked at, one each for the address, and notes of whoever made the app. Those of
    // the keys are gone after ten seconds.
    let left = rows() - before;
    assert!((2 * names..=2 * names + keys + 10).contains(&left), "{left} rows of {names} names and {keys} keys");
    PostgresServer::shared().psql(&database, "UPDATE counts SET until = 0");
    until("they are removed", async || rows() == 0).await;
}
