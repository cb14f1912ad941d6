//! How a check gets at a store, whatever kind it is.

use std::sync::Arc;

use async_trait::async_trait;
use supos_auth::store::{Store, sled::SledStore};
use tempfile::TempDir;

/// A store, as the service has it.
pub(crate) type Handle = Arc<dyn Store>;

/// A database of a check's own, empty at first.
pub(crate) type Db = Arc<dyn Database>;

/// Where a store keeps its records.
#[async_trait]
pub(crate) trait Database: Send + Sync {
    /// Another empty database of this kind.
    async fn another(&self) -> Db;

    /// Opens the store.
    async fn open(&self) -> Handle;

    /// Whether it may be opened several times at once.
    fn is_shared(&self) -> bool;
}

/// Opens as many handles as replicas would have: where the database takes but one, it is that one twice.
pub(crate) async fn open_two(db: &Db) -> [Handle; 2] {
    let first = db.open().await;
    let second = if db.is_shared() { db.open().await } else { Arc::clone(&first) };
    [first, second]
}

/// A folder for sled.
struct Sled(TempDir);

pub(crate) fn sled() -> Db {
    Arc::new(Sled(TempDir::new().unwrap()))
}

#[async_trait]
impl Database for Sled {
    async fn another(&self) -> Db {
        sled()
    }

    async fn open(&self) -> Handle {
        Arc::new(SledStore::open(self.0.path()).unwrap())
    }

    fn is_shared(&self) -> bool {
        false
    }
}
