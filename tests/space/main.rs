//! What the store costs, on disk and in memory, and that nothing is left of what has ended.

mod leftovers;
mod measure;

#[path = "../backup/stores.rs"]
#[expect(dead_code, reason = "shared with the tests of backups, which use the rest")]
mod stores;
