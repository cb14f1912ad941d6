//! That a backup is what the store held at one moment, and that all of it comes back: at the store's interface, and with real processes.

mod formats;
mod moment;
mod restore;
mod stores;

#[path = "../wire/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with tests/wire, which uses the rest")]
mod harness;
