//! The PostgreSQL store: what is special to it. What every store has to do is tried in `tests/store`.

#[path = "../postgres_server/mod.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod postgres_server;

use postgres_server::{PostgresServer, Stop};

#[test]
fn a_database_outlives_a_crash_of_its_server() {
    if !postgres_server::is_wanted() {
        return;
    }
    let mut server = PostgresServer::start(Vec::new());
    server.psql("postgres", "CREATE TABLE t (n int); INSERT INTO t VALUES (1)");
    server.stop(Stop::Crash);
    server.resume();
    assert_eq!(server.psql("postgres", "SELECT n FROM t"), "1");
}
