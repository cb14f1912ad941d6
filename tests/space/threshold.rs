//! When the embedded store moves to new files: not before it is worth it, and then for certain.

use std::{path::Path, sync::Arc, time::Duration};

use supos_auth::store::{Maintenance as _, Space, UserStore as _, sled::SledStore};
use tempfile::TempDir;

use crate::stores::{self, now};

const MIB: u64 = 1 << 20;

/// A store with so many codes of about 3 KiB, opened anew, so that it is looked at whether moving is worth it.
async fn with_codes(folder: &Path, number: usize) -> Arc<SledStore> {
    let store = stores::open(folder, 1).await;
    stores::put_codes(&*store, number).await;
    reopened(folder, store).await
}

async fn reopened(folder: &Path, store: Arc<SledStore>) -> Arc<SledStore> {
    store.flush().await.expect("flushed");
    drop(Arc::into_inner(store).expect("nobody else has it"));
    Arc::new(SledStore::open(folder).expect("it opens"))
}

async fn purge(store: &SledStore) {
    while store.purge(now().after(Duration::from_hours(1))).await.expect("purged") > 0 {}
}

async fn looks(store: &SledStore) -> Space {
    store.give_space_back().await.expect("looked").expect("it sees to its space")
}

#[tokio::test]
async fn a_store_moves_to_new_files_when_most_of_what_they_take_is_gone_and_not_before() {
    let folder = TempDir::new().expect("a folder");
    // Some garbage is worth nothing, however much larger it is than what lives.
    let store = with_codes(folder.path(), 250).await;
    purge(&store).await;
    let store = reopened(folder.path(), store).await;
    let space = looks(&store).await;
    assert!(space.given_back.is_none() && space.bytes > MIB, "{space:?}");

    // A little more is worth it.
    let folder = TempDir::new().expect("a folder");
    let store = with_codes(folder.path(), 2_000).await;
    purge(&store).await;
    let store = reopened(folder.path(), store).await;
    let space = looks(&store).await;
    assert!(space.given_back.is_some_and(|bytes| bytes > 3 * MIB) && space.bytes < 2 * MIB, "{space:?}");

    // Nor is much that lives.
    let folder = TempDir::new().expect("a folder");
    let store = with_codes(folder.path(), 16_000).await;
    // Filling a store at once may leave as much again behind.
    looks(&store).await;
    let store = reopened(folder.path(), store).await;
    let space = looks(&store).await;
    assert!(space.given_back.is_none() && space.bytes > 40 * MIB, "{space:?}");

    // Much that is gone is given back.
    purge(&store).await;
    let store = reopened(folder.path(), store).await;
    let space = looks(&store).await;
    assert!(space.given_back.is_some_and(|bytes| bytes > 30 * MIB) && space.bytes < 2 * MIB, "{space:?}");
    assert_eq!(store.users(None, 2).await.expect("listed").len(), 1, "what lives is there");
}

/// What sled leaves behind in new files is much, next to little that lives.
#[tokio::test]
async fn a_store_that_has_moved_to_new_files_does_not_move_again_and_again() {
    for users in [3_000, 6_000, 9_000, 15_000] {
        let folder = TempDir::new().expect("a folder");
        let store = stores::open(folder.path(), users).await;
        stores::put_codes(&*store, 10_000).await;
        purge(&store).await;
        let store = reopened(folder.path(), store).await;
        let moved = looks(&store).await;
        assert!(moved.given_back.is_some(), "{users}: {moved:?}");
        let store = reopened(folder.path(), store).await;
        let again = looks(&store).await;
        assert!(again.given_back.is_none(), "{users}: {moved:?}, and {again:?}");
    }
}
