//! A backup is the way from one kind of store to another.

use std::process::{Command, Stdio};

use supos_auth::{
    backup,
    core::secret::Secret,
    store::{
        postgres::{Address, PostgresStore},
        record::Record,
    },
};
use tempfile::TempDir;

use crate::{
    formats::{lines, store_of_format_1},
    harness::tools,
    postgres_server::{self, PostgresServer},
    stores,
};

/// Gives a file to `supos-auth restore`.
fn restore(file: &[u8], to: &[&str]) -> (bool, String) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("backup.jsonl");
    std::fs::write(&path, file).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_supos-auth"));
    let output = command.arg("restore").arg(&path).args(to).stdin(Stdio::null()).output().expect("the command runs");
    (output.status.success(), String::from_utf8(output.stderr).expect("text"))
}

/// The records but for the numbers of the next families, which a restore passes over.
fn without_numbers(mut records: Vec<Record>) -> Vec<Record> {
    for record in &mut records {
        if let Record::Session(session) = record {
            session.next_family = 0;
        }
    }
    records
}

/// Whether there is something in a database, which may not have tables yet.
fn is_there(server: &PostgresServer, url: &str, what: &str) -> bool {
    let name = url.rsplit('/').next().expect("the name of the database");
    server.try_psql(name, &format!("SELECT COUNT(*) > 0 FROM {what}")) == Ok("t".to_owned())
}

#[tokio::test]
async fn a_restore_does_not_take_the_place_of_a_store_that_a_service_has_begun_there_meanwhile() {
    if !postgres_server::is_wanted() {
        return;
    }
    let server = tokio::task::spawn_blocking(PostgresServer::shared).await.expect("a server");
    let folder = TempDir::new().expect("a folder");
    let store = stores::open(&folder.path().join("large"), 20_000).await;
    let path = folder.path().join("file");
    std::fs::write(&path, stores::take(&*store).await).expect("written");
    let url = server.database();
    let name = url.rsplit('/').next().expect("the name of the database");
    let mut command = Command::new(env!("CARGO_BIN_EXE_supos-auth"));
    let command =
        command.arg("restore").arg(&path).args(["--store", &url]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("it runs");
    while !is_there(server, &url, "users") && running.try_wait().expect("a child").is_none() {}
    let begun = server.try_psql(name, "INSERT INTO identity (origin, root) VALUES ('production', 'a root key')");
    assert!(begun.is_ok(), "the restore was quicker");
    let output = running.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("a service has begun a store there meanwhile"), "{said}");
    assert_eq!(server.psql(name, "SELECT root = 'a root key'::bytea FROM identity"), "t");
}

#[tokio::test]
async fn a_part_that_a_killed_restore_has_left_in_a_database_is_nothing_that_a_service_or_a_command_takes_for_a_store() {
    if !postgres_server::is_wanted() {
        return;
    }
    let server = tokio::task::spawn_blocking(PostgresServer::shared).await.expect("a server");
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let store = stores::open(&folder.path().join("large"), 20_000).await;
    let file = stores::take(&*store).await;
    std::fs::write(path("file"), &file).expect("written");
    std::fs::write(path("key"), [7; 32]).expect("written");
    // One that was quicker than whoever kills it is no matter.
    let url = std::iter::repeat_with(|| server.database()).take(20).find(|url| {
        let is_there = |what: &str| is_there(server, url, what);
        let mut command = Command::new(env!("CARGO_BIN_EXE_supos-auth"));
        let command = command.args(["restore", &path("file"), "--store", url]).stdin(Stdio::null()).stderr(Stdio::null());
        let mut killed = command.spawn().expect("it runs");
        while !is_there("users") && killed.try_wait().expect("a child").is_none() {}
        killed.kill().expect("a child");
        killed.wait().expect("it ends");
        !is_there("identity")
    });
    let url = url.expect("a restore that was killed");
    for command in [
        vec!["serve", "--data-dir", &path("data"), "--master-key-file", &path("key"), "--store", &url],
        vec!["backup", &path("other"), "--store", &url],
        vec!["restore", &path("file"), "--store", &url],
    ] {
        let mut refused = tools::that_ends();
        refused.args(&command).env("SUPOS_AUTH_GRPC_LISTEN", "127.0.0.1:0").env("SUPOS_AUTH_OPS_LISTEN", "127.0.0.1:0");
        let output = refused.stdin(Stdio::null()).output().expect("the command runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(1) && (said.contains("broken off") || said.contains("has records already")),
            "{command:?}: {said}"
        );
    }
    // In a database that is made anew it goes well.
    let (done, said) = restore(&file, &["--store", &server.database()]);
    assert!(done, "{said}");
}

/// Services of an older version may be at work there, and could not start again.
#[tokio::test]
async fn no_command_migrates_a_database() {
    if !postgres_server::is_wanted() {
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let server = tokio::task::spawn_blocking(PostgresServer::shared).await.expect("a server");
    let (url, new) = (server.database(), server.database());
    let file = stores::take(&store_of_format_1(folder.path())).await;
    std::fs::write(path("file"), &file).expect("written");
    let (done, said) = restore(&file, &["--store", &url]);
    assert!(done, "{said}");
    let database = url.rsplit('/').next().expect("its name");
    server.psql(database, "DELETE FROM schema_migrations WHERE version = (SELECT MAX(version) FROM schema_migrations)");
    let version = || server.psql(database, "SELECT MAX(version) FROM schema_migrations");
    let before = version();
    std::fs::write(path("key"), [1; 32]).expect("written");
    for command in [
        vec!["backup", &path("other"), "--store", &url],
        vec!["restore", &path("file"), "--store", &url],
        vec!["key", "rewrap", "--store", &url, "--master-key-file", &path("key"), "--new-master-key-file", &path("key")],
    ] {
        let output = tools::that_ends().args(&command).stdin(Stdio::null()).output().expect("the command runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("start one service of this version first"), "{command:?}: {said}");
        assert_eq!(version(), before, "{command:?}");
    }
    // Nor does one make tables where a store should be.
    let output = tools::that_ends().args(["backup", &path("other"), "--store", &new]).stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("there is no store in it"), "{said}");
    assert!(!is_there(server, &new, "schema_migrations"));
}

#[tokio::test]
async fn everything_goes_to_a_database_and_back_record_for_record() {
    if !postgres_server::is_wanted() {
        return;
    }
    let url = tokio::task::spawn_blocking(|| PostgresServer::shared().database()).await.expect("a database");
    let (first, last) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let store = store_of_format_1(first.path());
    let before = lines(&without_numbers(stores::export(&store).await));
    let file = stores::take(&store).await;

    let (done, said) = restore(&file, &["--store", &url]);
    assert!(done, "{said}");
    let (done, said) = restore(&file, &["--store", &url]);
    assert!(!done && said.contains("the database has records already"), "{said}");
    let address = Address::read(&Secret::new(url)).expect("an address");
    let database = PostgresStore::open(address, 4).await.expect("it opens");
    let mut in_database: Vec<_> = lines(&without_numbers(stores::export(&database).await)).lines().map(str::to_owned).collect();
    in_database.sort();
    let mut expected: Vec<_> = before.lines().map(str::to_owned).collect();
    expected.sort();
    assert_eq!(in_database, expected);

    let file = stores::take(&database).await;
    assert_eq!(backup::check(file.as_slice(), |_, _| {}).expect("a backup").kinds.len(), 14);
    let (done, said) = restore(&file, &["--data-dir", &last.path().display().to_string()]);
    assert!(done, "{said}");
    let back = supos_auth::store::sled::SledStore::open(last.path()).expect("it opens");
    assert_eq!(lines(&without_numbers(stores::export(&back).await)), before);
}
