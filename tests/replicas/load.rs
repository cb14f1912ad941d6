//! Services that are killed while callers are at it. What callers were told is noted, and held against what is so afterwards.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::RwLock, task::JoinSet};

use crate::{
    harness::{
        App, Call, Case, Op, Reply, Tokens, Via, Who, World, authorize, claims, exchange,
        process::PATIENCE,
        refresh,
        sink::{Manner, Sink},
    },
    stage::Replicas,
};

/// How many are at it.
const CALLERS: usize = 8;

/// Asks by Envoy, again and again while nobody who could answer is reached. That is all that a caller has to do.
async fn ask(world: &World, call: &Call, retries: &AtomicUsize) -> Reply {
    for _ in 0..400 {
        let reply = world.call(Via::Envoy, call).await;
        if !matches!(reply.status, crate::harness::Status::Http(502..=504)) {
            return reply;
        }
        retries.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody answers {call:?}");
}

/// What one caller was told.
#[derive(Default)]
pub(crate) struct Told {
    /// Families that go on, by their newest tokens.
    alive: Vec<Tokens>,
    /// Tokens of sessions that were ended.
    dead: Vec<Tokens>,
    /// Codes that were used.
    used: Vec<String>,
}

impl Told {
    /// Holds it against what is so at a service.
    pub(crate) async fn check(&self, world: &World, app: &App) {
        for tokens in &self.alive {
            let next = world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await;
            assert!(next.is_ok(), "a refresh token that was given out is dead: {}", next.text);
        }
        for tokens in &self.dead {
            world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
        }
    }

    /// The codes that were used stay so. That ends what they gave out, so it comes last.
    pub(crate) async fn check_codes(&self, world: &World, app: &App) {
        for code in &self.used {
            world.call(Via::Native, &exchange(Op::TokenV2, app, code)).await.refused(Case::Grant);
        }
    }
}

/// Starts so many callers, who all call through the first service of these.
pub(crate) fn start(replicas: &Arc<Replicas>, app: &App, callers: usize, lives: usize, retries: &Arc<AtomicUsize>) -> JoinSet<Told> {
    let mut living = JoinSet::new();
    for caller in 0..callers {
        let (replicas, app, retries) = (Arc::clone(replicas), app.clone(), Arc::clone(retries));
        living.spawn(async move { live(replicas.world(0), &app, caller, lives, &retries).await });
    }
    living
}

/// One caller's life: sign in, get tokens, refresh, sign out, and again.
pub(crate) async fn live(world: &World, app: &App, caller: usize, lives: usize, retries: &AtomicUsize) -> Told {
    let mut told = Told::default();
    let user = world.user().await;
    let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
    let ticket = ask(world, &sign_in, retries).await.text_of("ticket");
    for life in 0..lives {
        let ticket = if life % 3 == 2 { ask(world, &sign_in, retries).await.text_of("ticket") } else { ticket.clone() };
        let code = ask(world, &authorize(Op::Authorize, app).by(Who::ticket(&ticket)), retries).await.text_of("code");
        let reply = ask(world, &exchange(Op::EXCHANGES[caller % 3], app, &code), retries).await;
        told.used.push(code);
        if !reply.is_ok() {
            // The answer to the first try was lost: asking again was a second use. That costs one more code, and gives nothing twice.
            reply.refused(Case::Grant);
            continue;
        }
        let mut tokens = reply.tokens();
        for _ in 0..6 {
            let next = ask(world, &refresh(Op::REFRESHES[caller % 3], &tokens.refresh).by(app.who()), retries).await.tokens();
            assert_eq!(claims(&next.access)["sid"], claims(&tokens.access)["sid"]);
            tokens = next;
        }
        if life % 3 == 2 {
            let reply = ask(world, &Call::new(Op::SignOut).by(Who::ticket(&ticket)), retries).await;
            reply.ok();
            told.dead.push(tokens);
        } else {
            told.alive.push(tokens);
        }
    }
    told
}

async fn kills(lives: usize, at_least: usize) {
    let Some(mut replicas) = Replicas::start(2).await else { return };
    let victim = replicas.worlds.pop().expect("there are two");
    let first = Arc::new(replicas.worlds.remove(0));
    let app = first.app().await;
    let retries = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (first, app, retries) = (Arc::clone(&first), app.clone(), Arc::clone(&retries));
        callers.spawn(async move {
            let mut told = vec![live(&first, &app, caller, lives, &retries).await];
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while KILLS.load(Ordering::Relaxed) < at_least && tokio::time::Instant::now() < deadline {
                told.push(live(&first, &app, caller, 1, &retries).await);
            }
            told
        });
    }
    let victim = Arc::new(RwLock::new(victim));
    let killer = tokio::spawn({
        let victim = Arc::clone(&victim);
        async move {
            for kill in 1.. {
                // Some time between two moments of its work.
                tokio::time::sleep(Duration::from_millis(50 + kill * 37 % 200)).await;
                let mut victim = victim.write().await;
                tokio::task::block_in_place(|| victim.restart(crate::harness::Pair::kill));
                KILLS.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let told = callers.join_all().await;
    killer.abort();
    let _ = killer.await;
    let (kills, retries) = (KILLS.load(Ordering::Relaxed), retries.load(Ordering::Relaxed));
    println!("{kills} kills, {retries} retries");
    assert!(kills >= at_least, "{kills} kills");
    let victim = victim.read().await;
    for told in told.into_iter().flatten() {
        for world in [&first, &*victim] {
            told.check(world, &app).await;
        }
        told.check_codes(&victim, &app).await;
    }
}

/// How many services were killed.
static KILLS: AtomicUsize = AtomicUsize::new(0);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p2_a_service_that_is_killed_costs_callers_a_retry_and_nothing_that_they_were_told() {
    kills(4, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "long: hundreds of kills"]
async fn p2_hundreds_of_kills_cost_callers_retries_and_nothing_that_they_were_told() {
    kills(400, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p12_calls_that_are_owed_are_made_though_the_service_that_makes_them_is_killed() {
    let Some(mut replicas) = Replicas::start(2).await else { return };
    let (first, second) = (&replicas.worlds[0], &replicas.worlds[1]);
    let sink = Sink::start(Manner::Never);
    let app = first
        .app_with(|app| {
            app.redirect_uris = vec![sink.url("/callback")];
            app.logout_uris = vec![sink.url("/logout")];
        })
        .await;
    let app = App { redirect: sink.url("/callback"), logout: sink.url("/logout"), ..app };
    let mut owed = std::collections::BTreeSet::new();
    for turn in 0..20 {
        let (_, ticket) = first.signed_in().await;
        let tokens = first.tokens(&app, &ticket).await;
        owed.insert(claims(&tokens.access)["sid"].to_string());
        let world = if turn % 2 == 0 { first } else { second };
        world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    }
    // Somebody is at it, and is killed; whoever it was, the other one is left.
    sink.next().await;
    let mut victim = replicas.worlds.remove(1);
    victim.kill();
    sink.behave(Manner::Status(200, None));
    let mut ids = std::collections::HashMap::<String, String>::new();
    let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
    while !owed.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "{} calls were never made", owed.len());
        for call in sink.rest().await {
            let claims = claims(&call.token());
            let (session, id) = (claims["sid"].to_string(), claims["jti"].to_string());
            let known = ids.entry(session.clone()).or_insert_with(|| id.clone());
            assert_eq!(*known, id, "a repeat has another jti");
            owed.remove(&session);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    victim.start_again(|_| {}).unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "long: ten thousand calls, and a kill after each five hundred"]
async fn p12_of_ten_thousand_calls_that_are_owed_none_is_lost_though_services_are_killed() {
    const SESSIONS: usize = 10;
    const EACH: usize = 1000;
    let Some(mut replicas) = Replicas::start(2).await else { return };
    let mut victim = replicas.worlds.pop().expect("there are two");
    let first = Arc::new(replicas.worlds.remove(0));
    let sink = Sink::start(Manner::Status(200, None));
    let app = first
        .app_with(|app| {
            app.redirect_uris = vec![sink.url("/callback")];
            app.logout_uris = vec![sink.url("/logout")];
        })
        .await;
    let mut makers = JoinSet::new();
    for session in 0..SESSIONS {
        let (first, redirect, logout) = (Arc::clone(&first), sink.url("/callback"), sink.url("/logout"));
        let app = App { redirect, ..app.clone() };
        makers.spawn(async move {
            let (_, ticket) = first.signed_in().await;
            for number in 0..EACH {
                // Families that would be told alike are told once.
                let app = App { logout: format!("{logout}?{session}-{number}"), ..app.clone() };
                first.tokens(&app, &ticket).await;
            }
            ticket
        });
    }
    for ticket in makers.join_all().await {
        first.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    }
    let mut told = std::collections::HashMap::<String, String>::new();
    let (mut calls, mut kills) = (0, 0);
    while told.len() < SESSIONS * EACH {
        let call = sink.next().await;
        let id = claims(&call.token())["jti"].to_string();
        let known = told.entry(call.target).or_insert_with(|| id.clone());
        assert_eq!(*known, id, "a repeat has another jti");
        calls += 1;
        if calls / 500 > kills {
            kills += 1;
            tokio::task::block_in_place(|| victim.restart(crate::harness::Pair::kill));
        }
    }
    println!("{calls} calls to {} addresses, {kills} kills", told.len());
    let ids: std::collections::HashSet<_> = told.values().collect();
    assert_eq!(ids.len(), told.len(), "two calls have one jti");
}
