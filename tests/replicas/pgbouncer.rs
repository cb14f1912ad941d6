//! PgBouncer between the services and the database, in transaction mode: a client gets another connection for each transaction.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::AtomicUsize},
};

use tokio::task::JoinSet;

use crate::{
    harness::{
        Case, Op, Via, Who, exchange,
        process::{Log, Process},
    },
    load::{self, Told},
    postgres_server::{PASSWORD, PostgresServer, folder, free_port, is_wanted, own},
    stage::{Replicas, by_port},
};

/// How many connections it has to the database, for twice as many callers of each service.
const CONNECTIONS: usize = 4;
const CALLERS: usize = 6;
const LIVES: usize = 6;

/// The program, where there is one that keeps prepared statements apart in transaction mode: from 1.21 on.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("PGBOUNCER").map_or_else(|| PathBuf::from("/usr/sbin/pgbouncer"), PathBuf::from);
    let said = Command::new(&program).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let mut numbers = said.lines().next()?.strip_prefix("PgBouncer ")?.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    ((numbers.next()?, numbers.next()?) >= (1, 21)).then_some(program)
}

/// A running PgBouncer. Its folder goes with it.
struct PgBouncer {
    _process: Process,
    folder: PathBuf,
    port: u16,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl PgBouncer {
    fn start(program: &Path, server: &PostgresServer) -> Self {
        let (folder, port) = (folder(), free_port());
        let (settings, users) = (folder.join("pgbouncer.ini"), folder.join("users"));
        fs::write(&users, format!("\"postgres\" \"{PASSWORD}\"\n")).expect("the folder can be written to");
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\nmax_prepared_statements = 200\n\
             default_pool_size = {CONNECTIONS}\nmax_client_conn = 200\n",
            server.folder().display(),
            server.port(),
            users.display()
        );
        fs::write(&settings, text).expect("the folder can be written to");
        let command = own(program);
        let arguments: Vec<OsString> = command.get_args().map(OsString::from).chain([settings.into_os_string()]).collect();
        let log = Log::default();
        let process = Process::start(command.get_program(), &folder, arguments, &[], &log);
        let is_up = log.wait_for(0, |line| line.contains("process up").then_some(()));
        assert!(is_up.is_some(), "PgBouncer does not start:\n{}", log.since(0).join("\n"));
        Self { _process: process, folder, port }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p14_services_share_a_database_by_pgbouncer_in_transaction_mode() {
    if !is_wanted() {
        return;
    }
    let Some(program) = program() else {
        println!("left out: there is no PgBouncer of 1.21 or newer");
        return;
    };
    let server = PostgresServer::shared();
    let direct = server.database();
    let bouncer = PgBouncer::start(&program, server);
    let replicas = Arc::new(Replicas::at(2, |_| by_port(&direct, bouncer.port), |_, setup| setup).await);
    let app = replicas.world(0).app().await;
    let retries = Arc::new(AtomicUsize::new(0));
    let callers = load::start(&replicas, &app, CALLERS, LIVES, &retries);
    let told: Vec<Told> = callers.join_all().await;
    assert_eq!(retries.load(std::sync::atomic::Ordering::Relaxed), 0, "every call goes well at once");
    for told in &told {
        for world in &replicas.worlds {
            told.check(world, &app).await;
        }
        told.check_codes(replicas.world(1), &app).await;
    }
    // What is decided by one statement is decided once.
    let (_, ticket) = replicas.world(0).signed_in().await;
    let code = replicas.world(1).code(&app, Who::ticket(&ticket)).await;
    let mut racers = JoinSet::new();
    for racer in 0..20 {
        let (replicas, call) = (Arc::clone(&replicas), exchange(Op::TokenV2, &app, &code));
        racers.spawn(async move { replicas.world(racer).call(Via::Native, &call).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = racers.join_all().await.into_iter().partition(crate::harness::Reply::is_ok);
    assert_eq!(won.len(), 1);
    for reply in lost {
        reply.refused(Case::Grant);
    }
    let name = direct.rsplit('/').next().expect("the name of the database");
    let connections = server.psql("postgres", &format!("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}'"));
    assert!(connections.parse::<usize>().expect("a number") <= CONNECTIONS, "{connections} connections");
}
