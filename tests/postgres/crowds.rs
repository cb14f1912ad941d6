//! More callers than connections, and rows that others hold.

use std::{
    sync::Arc,
    thread::{JoinHandle, spawn},
    time::{Duration, Instant},
};

use supos_auth::{
    core::{
        Error,
        throttle::{Counts, Failure, Kind, Pace, Place},
    },
    store::postgres::PostgresStore,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    address, name,
    postgres_server::{PostgresServer, is_wanted},
    scene::{GRACE, Scene, at},
};

/// A statement that ends once somebody waits for a lock.
const UNTIL_SOMEBODY_WAITS: &str = "DO $$ BEGIN \
    WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock') LOOP \
    PERFORM pg_sleep(0.1); PERFORM pg_stat_clear_snapshot(); END LOOP; END $$";

/// Has somebody else hold what a statement locks while another one goes on, which sleeps, and returns once he does.
pub(crate) async fn hold(server: &'static PostgresServer, url: &str, lock: &str, meanwhile: &str, end: &str) -> JoinHandle<()> {
    let name = name(url).to_owned();
    let sql = format!("BEGIN; {lock}; {meanwhile}; {end}");
    let holder = spawn({
        let name = name.clone();
        move || drop(server.psql(&name, &sql))
    });
    let sleeps = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while server.psql(&name, sleeps) == "0" {
        assert!(!holder.is_finished(), "nobody has seen him hold it");
        sleep(Duration::from_millis(20)).await;
    }
    holder
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_whose_callers_take_all_connections_is_well() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Arc::new(Scene::new(&address(&url)).await);
    let family = scene.family(at(1)).await;
    let holder = hold(server, &url, "SELECT 1 FROM sessions FOR UPDATE", "SELECT pg_sleep(4)", "COMMIT").await;
    let mut callers = JoinSet::new();
    for _ in 0..60 {
        let scene = Arc::clone(&scene);
        callers.spawn(async move { scene.rotate(family, 0, at(2)).await });
    }
    sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        timeout(Duration::from_secs(2), scene.store.probe()).await.expect("the probe waits for the callers").unwrap();
        sleep(Duration::from_millis(500)).await;
    }
    callers.join_all().await;
    holder.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_long_for_a_row_that_somebody_else_holds_nor_for_one_that_he_need_not_write() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    let family = scene.family(at(1)).await;
    scene.rotate(family, 0, at(2)).await.unwrap();
    let holder = hold(server, &url, "SELECT 1 FROM sessions FOR UPDATE", "SELECT pg_sleep(6)", "COMMIT").await;
    // Who asks twice at once is told the same again, and the session was kept alive just now.
    assert_eq!(scene.rotate(family, 0, at(2)).await.unwrap().family.generation, 1);
    let began = Instant::now();
    for refused in [scene.rotate(family, 1, at(2)).await, scene.rotate(family, 0, at(2).after(GRACE / 2)).await] {
        assert!(matches!(refused, Err(Error::Busy { .. })), "{refused:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    holder.join().unwrap();
    assert_eq!(scene.rotate(family, 1, at(3)).await.unwrap().family.generation, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_waits_in_a_circle_is_undone_and_run_again() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let counts: Arc<dyn Counts> = Arc::new(PostgresStore::open(address(&url), 2).await.unwrap());
    let every = Duration::from_hours(1);
    let failures = [1, 2].map(|number| Failure { place: Place { kind: Kind::Name, number }, pace: Pace { every, most: every * 9 } });
    counts.count(&failures).await.unwrap();
    // Each has one of them and wants the other's. It is the service that has waited longer, and is undone.
    let locked = |which: &str| format!("UPDATE counts SET until = until WHERE place = (SELECT {which}(place) FROM counts)");
    let holder = hold(server, &url, &locked("MAX"), UNTIL_SOMEBODY_WAITS, &format!("{}; COMMIT", locked("MIN"))).await;
    assert_eq!(counts.count(&failures).await, Ok(()));
    holder.join().unwrap();
    let left = counts.left(&[failures[0].place, failures[1].place]).await.unwrap();
    assert!(left.iter().all(|left| (every..=2 * every).contains(left)), "it is counted once more: {left:?}");
}

/// The time of a statement is that of its beginning: by it, what others have counted while it waited is more than there can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_counts_a_failure_after_waiting_for_others_does_not_make_the_count_free_again() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let counts = PostgresStore::open(address(&url), 2).await.unwrap();
    let every = Duration::from_mins(1);
    let failure = Failure { place: Place { kind: Kind::Name, number: 1 }, pace: Pace { every, most: every * 9 } };
    counts.count(&[failure]).await.unwrap();
    // Others count up to the limit once this one waits for them.
    let limit = format!("UPDATE counts SET until = EXTRACT(EPOCH FROM clock_timestamp()) * 1000 + {}", failure.pace.most.as_millis());
    let holder = hold(server, &url, "SELECT 1 FROM counts FOR UPDATE", &format!("SELECT pg_sleep(1); {limit}"), "COMMIT").await;
    assert!(matches!(counts.count(&[failure]).await, Err(Error::TooManyTries { .. })));
    holder.join().unwrap();
    assert!(matches!(counts.count(&[failure]).await, Err(Error::TooManyTries { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_export_goes_on_at_a_time() {
    if !is_wanted() {
        return;
    }
    let scene = Arc::new(Scene::new(&address(&PostgresServer::shared().database())).await);
    scene.family(at(1)).await;
    let export = || {
        let (records, received) = mpsc::channel(1);
        let scene = Arc::clone(&scene);
        (tokio::spawn(async move { scene.store.export(records).await }), received)
    };
    let (first, mut received) = export();
    received.recv().await.unwrap();
    let (second, _received) = export();
    assert!(matches!(second.await.unwrap(), Err(Error::Precondition(_))));
    // Whoever goes away keeps nobody from the next one.
    drop(received);
    assert!(first.await.unwrap().is_err());
    let (third, mut received) = export();
    while received.recv().await.is_some() {}
    third.await.unwrap().unwrap();
}
