//! Services that start at the same time, with clocks that differ.

use supos_auth::grpc::pb::supos::auth::admin::v1::{ListSigningKeysRequest, ListUsersRequest};
use tokio::task::JoinSet;

use crate::{
    harness::{
        Case, Op, Setup, Via, Who, World, authorize, claims,
        clock::Clock,
        exchange, now,
        process::{Log, Process},
        refresh, valid,
    },
    postgres_server::{PostgresServer, is_wanted},
    stage::{Replicas, setup, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p15_services_that_start_at_once_on_an_empty_database_make_one_store_of_it() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let folder = tempfile::TempDir::with_prefix("supos-auth-replicas-").expect("a temporary folder");
    let mut starts = JoinSet::new();
    for _ in 0..3 {
        let public_url = Some("http://127.0.0.1:1".to_owned());
        starts.spawn(World::own(Setup { alone: true, public_url, ..setup(folder.path(), &url) }));
    }
    let worlds = starts.join_all().await;
    let name = url.rsplit('/').next().expect("the name of the database");
    for (what, count) in [("identity", 1), ("signing_keys", 1), ("apps", 2), ("users WHERE account_type = 1", 1), ("users", 2)] {
        assert_eq!(server.psql(name, &format!("SELECT COUNT(*) FROM {what}")), count.to_string(), "{what}");
    }
    // One root key: what one has sealed the others open, and one key signs.
    let (app, _, _, mut tokens) = worlds[0].family().await;
    for world in &worlds {
        assert!(world.call(Via::Native, &valid(&tokens.access).by(app.who())).await.valid());
        tokens = world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens();
        let request = world.as_admin(ListUsersRequest::default()).await;
        assert_eq!(world.users().list_users(request).await.expect("users can be listed").into_inner().users.len(), 3);
        let request = world.as_admin(ListSigningKeysRequest::default()).await;
        let keys = world.signing_keys().list_signing_keys(request).await.expect("keys can be listed").into_inner().signing_keys;
        assert_eq!(keys.len(), 1);
    }
}

/// They would take each other's first administrator's password and edge socket away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_on_one_database_do_not_share_a_data_folder() {
    if !is_wanted() {
        return;
    }
    let url = PostgresServer::shared().database();
    let folder = tempfile::TempDir::with_prefix("supos-auth-replicas-").expect("a temporary folder");
    let data = folder.path().join("data");
    let public_url = Some("http://127.0.0.1:1".to_owned());
    let world = World::own(Setup { alone: true, public_url, data: Some(data.clone()), ..setup(folder.path(), &url) }).await;
    let (log, edge) = (Log::default(), format!("unix:{}", folder.path().join("second.sock").display()));
    let arguments = ["serve", "--dev", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--edge-listen", &edge, "--data-dir"];
    let arguments = arguments.into_iter().map(Into::into).chain([data.into_os_string()]).collect();
    let environment = [("SUPOS_AUTH_STORE".to_owned(), url.into())];
    let _second = Process::start(env!("CARGO_BIN_EXE_supos-auth").as_ref(), folder.path(), arguments, &environment, &log);
    assert!(log.wait_for(0, |line| line.contains("another supos-auth has").then_some(())).is_some(), "{}", log.since(0).join("\n"));
    world.family().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_waits_for_anothers_migration_ends_when_it_is_told_to() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let name = url.rsplit('/').next().expect("the name of the database");
    server.psql(name, "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())");
    let migrates = "BEGIN; INSERT INTO schema_migrations (version) VALUES (1); SELECT pg_sleep(600)";
    let other = std::thread::spawn({
        let name = name.to_owned();
        move || server.try_psql(&name, migrates)
    });
    let in_state = |state: &str| format!("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}' AND {state}");
    until("the other one migrates", async || server.psql("postgres", &in_state("wait_event = 'PgSleep'")) == "1").await;
    let folder = tempfile::TempDir::with_prefix("supos-auth-replicas-").expect("a temporary folder");
    let text = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (data, edge) = (text("data"), format!("unix:{}", text("edge.sock")));
    let arguments =
        ["serve", "--dev", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir", &data, "--edge-listen", &edge];
    let environment = [("SUPOS_AUTH_STORE".to_owned(), url.clone().into())];
    let program = env!("CARGO_BIN_EXE_supos-auth").as_ref();
    let service = Process::start(program, folder.path(), arguments.map(Into::into).into(), &environment, &Log::default());
    until("the service waits", async || server.psql("postgres", &in_state("wait_event_type = 'Lock'")) == "1").await;
    assert!(tokio::task::block_in_place(|| service.terminate()).success());
    assert_eq!(server.psql("postgres", &in_state("wait_event = 'PgSleep'")), "1", "it has waited for the migration");
    server.psql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    other.join().expect("psql was run").expect_err("it was ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_service_whose_clock_is_five_minutes_off_keeps_the_databases_time() {
    if !is_wanted() {
        return;
    }
    let folder = tempfile::TempDir::with_prefix("supos-auth-replicas-").expect("a temporary folder");
    for offset in [300, -300] {
        let url = PostgresServer::shared().database();
        let mut clock = Clock::new(folder.path().join("clock"));
        clock.step(offset);
        let replicas = Replicas::at(
            2,
            |_| url.clone(),
            |replica, mut setup| {
                if replica == 1 {
                    setup.environment.extend(clock.environment());
                }
                setup.argument("--code-lifetime", "60")
            },
        )
        .await;
        let [right, wrong] = [replicas.world(0), replicas.world(1)];
        let app = right.app().await;
        let (_, ticket) = right.signed_in().await;
        for (maker, user) in [(right, wrong), (wrong, right)] {
            // A code of the one is neither dead at the other nor does a token of it come from the future or the past. The calls are
            // signed by the true time, which the wrong service takes, too.
            let code = maker.code(&app, Who::ticket(&ticket)).await;
            let tokens = user.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens();
            let issued = claims(&tokens.access)["iat"].as_i64().expect("a time");
            assert!((issued - now()).abs() <= 30, "{offset}: {issued} at {}", now());
            assert!(replicas.is_good(&app, &tokens.access).await, "{offset}");
            let tokens = maker.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(Who::bearer(&tokens.access))).await.tokens();
            assert!(replicas.is_good(&app, &tokens.access).await, "{offset}");
            maker.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
        }
        // A code that the database's clock says has expired is dead at both.
        let [at_right, at_wrong] = [right.code(&app, Who::ticket(&ticket)).await, right.code(&app, Who::ticket(&ticket)).await];
        let name = url.rsplit('/').next().expect("the name of the database");
        PostgresServer::shared().psql(name, "UPDATE codes SET expires_at = expires_at - 61000");
        right.call(Via::Native, &exchange(Op::TokenV2, &app, &at_right)).await.refused(Case::Grant);
        wrong.call(Via::Native, &exchange(Op::TokenV2, &app, &at_wrong)).await.refused(Case::Grant);
        right.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
    }
}
