//! A standby takes over.

use std::sync::{Arc, atomic::AtomicUsize};

use supos_auth::grpc::pb::supos::auth::admin::v1::{DeleteAppRequest, DeleteUserRequest, EndUserSessionsRequest};
use tonic::Code;

use crate::{
    harness::{Call, Case, Op, Pair, Via, Who, World, raw, refresh, valid},
    load,
    postgres_server::{PASSWORD, PostgresServer, is_wanted},
    stage::{Replicas, finds_out, is_ready, until},
};

const CALLERS: usize = 6;
/// How often each of them signs in, gets tokens and goes on.
const LIVES: usize = 12;

/// A primary, its standby, two services that know both, and the name of their database.
async fn pair() -> (PostgresServer, PostgresServer, Replicas, String) {
    let primary = PostgresServer::start(Vec::new());
    let name = primary.database().rsplit('/').next().expect("the name of the database").to_owned();
    let standby = primary.standby();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", primary.port(), standby.port());
    let url = format!("postgres://postgres:{PASSWORD}@{hosts}/{name}?sslmode=disable");
    // A call may have to be asked again for as long as a failover takes.
    let replicas = Replicas::at(2, |_| url.clone(), |_, setup| setup).await;
    (primary, standby, replicas, name)
}

/// Has a server's settings changed while it runs.
fn set(server: &PostgresServer, setting: &str) {
    server.psql("postgres", &format!("ALTER SYSTEM SET {setting}"));
    server.psql("postgres", "SELECT pg_reload_conf()");
}

fn promote(standby: &PostgresServer) {
    assert_eq!(standby.psql("postgres", "SELECT pg_promote(true, 30)"), "t");
}

/// Whether a service says that a failover would lose something.
fn says_that_it_would_lose(pair: &Pair) -> Option<bool> {
    let metrics = raw::request(pair.ops(), "GET", "/metrics", &[], b"").text();
    metrics.lines().find_map(|line| line.strip_prefix("supos_auth_database_failover_loses ")).map(|value| value == "1")
}

async fn all_ready(replicas: &Replicas) {
    for world in &replicas.worlds {
        finds_out("the service is ready again", async || is_ready(world)).await;
    }
}

/// Fails over while callers are at it, and holds what they were told against what is so afterwards.
async fn under_load(fence: fn(&mut PostgresServer)) {
    if !is_wanted() {
        return;
    }
    let (mut primary, standby, replicas, name) = pair().await;
    set(&primary, "synchronous_standby_names = '*'");
    let waits = || primary.psql("postgres", "SELECT sync_state FROM pg_stat_replication") == "sync";
    until("commits wait for the standby", async || waits()).await;
    for world in &replicas.worlds {
        finds_out("the service sees that", async || says_that_it_would_lose(world) == Some(false)).await;
    }
    let replicas = Arc::new(replicas);
    let app = replicas.world(0).app().await;
    let retries = Arc::new(AtomicUsize::new(0));
    let callers = load::start(&replicas, &app, CALLERS, LIVES, &retries);
    let used = || primary.psql(&name, "SELECT COUNT(*) FROM codes WHERE used IS NOT NULL").parse::<usize>().expect("a number");
    until("every caller is at it", async || used() >= 2 * CALLERS).await;
    tokio::task::block_in_place(|| {
        fence(&mut primary);
        promote(&standby);
    });
    let told = callers.join_all().await;
    all_ready(&replicas).await;
    println!("{retries:?} retries");
    for told in told {
        for world in &replicas.worlds {
            told.check(world, &app).await;
        }
        told.check_codes(replicas.world(1), &app).await;
    }
    let counted = standby.psql(&name, "SELECT COUNT(*) FROM codes WHERE used IS NOT NULL").parse::<usize>().expect("a number");
    assert!(counted > CALLERS * LIVES / 2, "the new primary has what came after: {counted} codes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_a_failover_to_a_standby_that_commits_waited_for_loses_nothing_that_was_answered() {
    under_load(PostgresServer::crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p6_a_primary_that_became_read_only_is_left_and_nothing_that_was_answered_is_lost() {
    under_load(|primary| set(primary, "default_transaction_read_only = on")).await;
}

async fn is_good(world: &World, token: &str) -> bool {
    world.call(Via::Native, &valid(token).by(Who::bearer(token))).await.valid()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_nobody_is_told_that_something_was_deleted_before_a_standby_has_been_told() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::start(Vec::new());
    let url = server.database();
    let replicas = Replicas::at(1, |_| url.clone(), |_, setup| setup).await;
    let world = replicas.world(0);
    let (app, user) = (world.app().await, world.user().await);
    set(&server, "synchronous_standby_names = 'nobody'");
    until("commits wait for a standby", async || !is_ready(world)).await;
    let delete = async || {
        let request = world.as_admin(DeleteUserRequest { name: format!("users/{}", user.id) }).await;
        let of_user = world.users().delete_user(request).await.map(|_| ()).map_err(|status| status.code());
        let request = world.as_admin(DeleteAppRequest { name: format!("apps/{}", app.id) }).await;
        (of_user, world.apps().delete_app(request).await.map(|_| ()).map_err(|status| status.code()))
    };
    // The first time the commit stands where it was made, though the call has failed.
    for _ in 0..2 {
        assert_eq!(delete().await, (Err(Code::Unavailable), Err(Code::Unavailable)));
    }
    set(&server, "synchronous_standby_names = ''");
    all_ready(&replicas).await;
    assert_eq!(delete().await, (Err(Code::NotFound), Err(Code::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_of_the_whole_server_is_no_standby() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::start(Vec::new());
    let url = server.database();
    let replicas = Replicas::at(1, |_| url.clone(), |_, setup| setup).await;
    let (mut backup, folder) = server.base_backup(&["--max-rate=200", "--wal-method=none"]);
    let mut backup = backup.spawn().expect("pg_basebackup can be run");
    until("the backup is being taken", async || server.psql("postgres", "SELECT COUNT(*) > 0 FROM pg_stat_replication") == "t").await;
    let now = server.psql("postgres", "SELECT clock_timestamp()");
    until("the service has looked", async || server.psql("postgres", &looked(&now)) == "1").await;
    assert_eq!(says_that_it_would_lose(replicas.world(0)), Some(false));
    assert_eq!(server.psql("postgres", "SELECT COUNT(*) > 0 FROM pg_stat_replication"), "t", "it is still being taken");
    backup.kill().and_then(|()| backup.wait()).expect("it can be ended");
    std::fs::remove_dir_all(folder).expect("it can be removed");
}

/// How many services have looked at the database since then.
fn looked(since: &str) -> String {
    format!(
        "SELECT COUNT(*) FROM pg_stat_activity WHERE query = 'SELECT 1 FROM probes FOR KEY SHARE' AND state = 'idle' AND query_start > '{since}'"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p5_where_no_commit_waits_for_the_standby_the_service_says_that_a_failover_would_lose_and_what_helps_then_does() {
    if !is_wanted() {
        return;
    }
    let (mut primary, standby, replicas, _) = pair().await;
    let [here, there] = [replicas.world(0), replicas.world(1)];
    for world in &replicas.worlds {
        finds_out("the service says so", async || says_that_it_would_lose(world) == Some(true)).await;
        let log = world.service_log.since(0);
        assert_eq!(log.iter().filter(|line| line.contains("synchronous_standby_names")).count(), 1, "once: {log:?}");
    }
    let (app, user, ticket, tokens) = here.family().await;
    let caught_up = "SELECT COUNT(*) FROM pg_stat_replication WHERE replay_lsn >= pg_current_wal_lsn()";
    until("the standby has it", async || primary.psql("postgres", caught_up) == "1").await;
    // From here on it lags behind.
    set(&standby, "primary_conninfo = ''");
    until("it copies nothing more", async || primary.psql("postgres", "SELECT COUNT(*) FROM pg_stat_replication") == "0").await;
    let now = primary.psql("postgres", "SELECT clock_timestamp()");
    until("both services have looked again", async || primary.psql("postgres", &looked(&now)) == "2").await;
    for world in &replicas.worlds {
        assert_eq!(says_that_it_would_lose(world), Some(true), "a standby that is not connected is the one that falls behind");
    }
    here.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    assert!(!is_good(here, &tokens.access).await && !is_good(there, &tokens.access).await);
    tokio::task::block_in_place(|| {
        primary.crash();
        promote(&standby);
    });
    all_ready(&replicas).await;
    // This is what the service warned of, and docs/storage.md says what to do then.
    assert!(is_good(there, &tokens.access).await, "the failover lost nothing, so it is not tried what helps");
    let request = here.as_admin(EndUserSessionsRequest { user: format!("users/{}", user.id) }).await;
    here.sessions().end_user_sessions(request).await.expect("his sessions can be ended");
    for world in &replicas.worlds {
        assert!(!is_good(world, &tokens.access).await);
        let refused = world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await;
        refused.refused(Case::Grant);
    }
}
