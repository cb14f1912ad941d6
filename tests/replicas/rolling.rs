//! Services are replaced one after the other while callers are at it.

use std::sync::{Arc, atomic::AtomicUsize};

use tokio::{sync::watch, task::JoinSet};

use crate::{
    harness::{Pair, Via, World, valid},
    load::{Told, live},
    postgres_server::{PostgresServer, is_wanted},
    stage::{Replicas, finds_out, is_ready, until},
};

const CALLERS: usize = 6;
/// How often each of them signs in and gets tokens before he looks whether he may stop.
const LIVES: usize = 3;

/// What a newer version may do to the tables while older ones run: it adds, and changes nothing that is there.
const ADDITIVE: &str = "BEGIN; INSERT INTO schema_migrations (version) VALUES (1000); \
    ALTER TABLE sessions ADD COLUMN later text NOT NULL DEFAULT ''; ALTER TABLE families ADD COLUMN later bigint; \
    ALTER TABLE users ADD COLUMN later boolean NOT NULL DEFAULT false; ALTER TABLE codes ADD COLUMN later bytea; \
    CREATE TABLE later (id bytea PRIMARY KEY, session_id bytea NOT NULL REFERENCES sessions (id) ON DELETE CASCADE); COMMIT";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p13_services_are_replaced_and_the_tables_migrated_under_load_at_the_cost_of_a_retry() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let name = url.rsplit('/').next().expect("the name of the database").to_owned();
    let mut replicas = Replicas::at(4, |_| url.clone(), |_, setup| setup).await;
    // The first one has Envoy, and stays: it goes on as it began, on tables that become newer.
    let mut replaced = replicas.worlds.split_off(1);
    let first = Arc::new(replicas.worlds.remove(0));
    let app = first.app().await;
    let retries = Arc::new(AtomicUsize::new(0));
    let (stop, _) = watch::channel(false);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (first, app, retries, stop) = (Arc::clone(&first), app.clone(), Arc::clone(&retries), stop.subscribe());
        callers.spawn(async move {
            let mut told = Vec::new();
            while !*stop.borrow() {
                told.push(live(&first, &app, caller, LIVES, &retries).await);
            }
            told
        });
    }
    let used = || server.psql(&name, "SELECT COUNT(*) FROM codes WHERE used IS NOT NULL").parse::<usize>().expect("a number");
    until("every caller is at it", async || used() >= CALLERS).await;
    // As a migration is run: again, if the database undoes it for the sake of the calls that it meets.
    while let Err(error) = server.try_psql(&name, ADDITIVE) {
        assert!(error.contains("deadlock detected"), "{error}");
    }
    let before = used();
    until("all go on", async || used() >= before + CALLERS).await;
    // No newer version is there to start, so this one stands in for it: it has to take the tables for its own.
    server.psql(&name, "DELETE FROM schema_migrations WHERE version = 1000");
    for world in &mut replaced {
        tokio::task::block_in_place(|| world.restart(Pair::terminate));
        finds_out("the new one is ready", async || is_ready(world)).await;
        let is_answered = world.call(Via::Native, &valid("nothing").by(app.who())).await;
        assert!(!is_answered.valid(), "it answers at its first call");
    }
    stop.send_replace(true);
    let told: Vec<Told> = callers.join_all().await.into_iter().flatten().collect();
    println!("{retries:?} retries of {} lives", told.len() * LIVES);
    for told in told {
        for world in replaced.iter().chain([first.as_ref() as &World]) {
            told.check(world, &app).await;
        }
        told.check_codes(&replaced[0], &app).await;
    }
}
