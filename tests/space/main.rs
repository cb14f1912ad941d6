//! What the store costs, on disk and in memory, and that nothing is left of what has ended.

mod churn;
#[path = "../wire/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with tests/wire, which uses the rest")]
mod harness;
mod leftovers;
mod measure;
mod million;
mod nobody;
mod threshold;

/// Authorities to sign in at.
#[path = "../wire/authorities/stage.rs"]
#[expect(dead_code, reason = "shared with tests/wire, which uses the rest")]
mod authorities;
#[path = "../backup/stores.rs"]
#[expect(dead_code, reason = "shared with the tests of backups, which use the rest")]
mod stores;
