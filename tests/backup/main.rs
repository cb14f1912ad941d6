//! That a backup is what the store held at one moment, and that all of it comes back: at the store's interface, and with real processes.

mod databases;
mod formats;
mod moment;
mod restore;
mod stores;

#[path = "../wire/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with tests/wire, which uses the rest")]
mod harness;

#[path = "../postgres_server/mod.rs"]
#[expect(dead_code, reason = "shared with the tests of the database, which use the rest")]
mod postgres_server;
