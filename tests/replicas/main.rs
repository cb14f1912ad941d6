//! Several services that share a PostgreSQL database, with the real Envoy balancing over them: what callers may rely on, over the wire.
//! The rows are those of docs/security.md. What the store alone promises is tried in `tests/store` and `tests/postgres`. Long forms are
//! ignored and run by `make soak`.

mod failover;
mod faults;
mod guesses;
#[path = "../wire/harness/mod.rs"]
#[expect(dead_code, reason = "shared with tests/wire, which uses the rest")]
mod harness;
mod load;
mod pgbouncer;
#[path = "../postgres_server/mod.rs"]
mod postgres_server;
#[path = "../postgres/proxy.rs"]
#[expect(dead_code, reason = "no database is far away here: see tests/postgres")]
mod proxy;
mod races;
mod rolling;
mod shared;
mod stage;
mod starts;
