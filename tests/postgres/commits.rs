//! What a commit waits for, and what it does not see.

use std::{sync::Arc, time::Duration};

use supos_auth::{
    core::{Error, model::User},
    store::OneUse,
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    address, database, is_unavailable, name,
    postgres_server::{PostgresServer, is_wanted},
    scene::{Scene, administrator, at, change, new_hash},
    until_it_goes_well,
};

/// Changes a setting of a server while it runs.
fn set(server: &PostgresServer, setting: &str) {
    server.psql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    server.psql("postgres", "SELECT pg_reload_conf()");
}

/// Asks again for as long as it is somebody else's turn: who was given up may hold what he has locked for a second more.
async fn insist<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    loop {
        match attempt().await {
            Err(Error::Busy { .. }) => {}
            outcome => return outcome,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_twice_what_no_standby_has_been_told_once() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::start(Vec::new());
    let scene = Scene::new(&address(&server.database())).await;
    let bob = scene.user("bob").await;
    scene.session_of(&bob, at(0)).await;
    let lost = scene.session_of(&scene.user, at(0)).await;
    let code = scene.code_of(&lost, &scene.app, at(1)).await;
    scene.redeem(&code, at(1)).await.unwrap();
    set(&server, "synchronous_standby_names = 'nobody'");
    while timeout(Duration::from_millis(200), scene.store.use_once(OneUse { hash: new_hash(), until: at(9) })).await.is_ok() {
        sleep(Duration::from_millis(50)).await;
    }
    // The first time the commit stands where it was made, though the call has failed.
    for _ in 0..2 {
        let ends = tokio::join!(
            insist(async || scene.store.end_session(scene.session.id, at(2)).await),
            insist(async || scene.store.end_sessions_of(bob.id, at(2)).await),
            insist(async || scene.redeem(&code, at(2)).await),
            insist(async || scene.other.flush().await),
        );
        assert!(is_unavailable(&ends.0) && is_unavailable(&ends.1) && is_unavailable(&ends.2) && is_unavailable(&ends.3), "{ends:?}");
    }
    set(&server, "synchronous_standby_names = ''");
    until_it_goes_well(async || scene.store.flush().await).await;
    assert_eq!(scene.store.end_session(scene.session.id, at(3)).await, Ok(false));
    assert_eq!(scene.store.end_sessions_of(bob.id, at(3)).await, Ok(0));
    assert_eq!(scene.redeem(&code, at(3)).await, Err(Error::CodeReplayed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_administrator_is_left_whatever_isolation_the_database_has_by_itself() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    server.psql("postgres", &format!("ALTER DATABASE {} SET default_transaction_isolation = 'repeatable read'", name(&url)));
    let stores = database::open_two(&address(&url)).await;
    for round in 0..30 {
        let both = [administrator(&format!("a{round}")), administrator(&format!("b{round}"))];
        stores[0].create_users(both.to_vec()).await.unwrap();
        let mut ends = JoinSet::new();
        for user in stores[0].users(None, 10).await.unwrap() {
            let store = Arc::clone(&stores[usize::from(user.id == both[1].id)]);
            ends.spawn(async move { store.update_user(user.id, change(|user: &mut User| user.enabled = false), at(1)).await });
        }
        ends.join_all().await;
        let users = stores[0].users(None, 100).await.unwrap();
        let left: Vec<_> = users.iter().filter(|user| user.enabled).collect();
        assert_eq!(left.len(), 1, "round {round}");
        for user in users.iter().filter(|user| !user.enabled) {
            stores[0].delete_user(user.id, at(1)).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_that_was_there_when_a_server_took_no_writes_is_used_again() {
    if !is_wanted() {
        return;
    }
    let server = Arc::new(PostgresServer::start(Vec::new()));
    let url = server.database();
    let scene = Arc::new(Scene::new(&address(&url)).await);
    let family = scene.family(at(1)).await;
    let holder = std::thread::spawn({
        let (server, name) = (Arc::clone(&server), name(&url).to_owned());
        move || {
            server.try_psql(&name, "BEGIN; LOCK TABLE families IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)").expect_err("it was ended")
        }
    });
    // Somebody who only reads has a connection in use while the others are closed.
    let reader = tokio::spawn({
        let (scene, sleeps) = (Arc::clone(&scene), "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        let server = Arc::clone(&server);
        async move {
            while server.psql("postgres", sleeps) == "0" {}
            scene.store.grant(family, at(2)).await
        }
    });
    let waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let its = loop {
        let its = server.psql(name(&url), waiting);
        if !its.is_empty() {
            break its;
        }
        assert!(!holder.is_finished(), "nobody waits");
        sleep(Duration::from_millis(10)).await;
    };
    set(&server, "default_transaction_read_only = on");
    while !is_unavailable(&scene.store.probe().await) {}
    // He may have had to wait too long for what he reads.
    drop(reader.await.unwrap());
    server.psql("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    holder.join().unwrap();
    set(&server, "default_transaction_read_only = off");
    until_it_goes_well(async || scene.store.use_once(OneUse { hash: new_hash(), until: at(9) }).await).await;
    for _ in 0..8 {
        assert!(scene.store.grant(family, at(2)).await.unwrap().is_some());
    }
    assert_eq!(server.psql(name(&url), &format!("SELECT COUNT(*) FROM pg_stat_activity WHERE pid = {its}")), "0");
}
