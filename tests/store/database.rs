//! How a check gets at a store, whatever kind it is.

use std::sync::Arc;

use async_trait::async_trait;
use supos_auth::{
    core::secret::Secret,
    store::{
        Store,
        postgres::{Address, PostgresStore},
        sled::SledStore,
    },
};
use tempfile::TempDir;

use crate::postgres_server::{self, PostgresServer};

/// A store, as the service has it.
pub(crate) type Handle = Arc<dyn Store>;

/// A database of a check's own, empty at first.
pub(crate) type Db = Arc<dyn Database>;

/// Where a store keeps its records.
#[async_trait]
pub(crate) trait Database: Send + Sync {
    /// Another empty database of this kind.
    async fn another(&self) -> Db;

    /// An empty database of another kind; none where the tests do without one.
    async fn of_another_kind(&self) -> Option<Db>;

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

    async fn of_another_kind(&self) -> Option<Db> {
        postgres()
    }

    async fn open(&self) -> Handle {
        Arc::new(SledStore::open(self.0.path()).unwrap())
    }

    fn is_shared(&self) -> bool {
        false
    }
}

/// A database of the server that all tests of the process share.
struct Postgres(Address);

/// None when the tests with PostgreSQL are left out.
pub(crate) fn postgres() -> Option<Db> {
    if !postgres_server::is_wanted() {
        return None;
    }
    Some(Arc::new(Postgres::new()))
}

impl Postgres {
    fn new() -> Self {
        let url = PostgresServer::shared().database();
        Self(Address::read(&Secret::new(url)).unwrap())
    }
}

#[async_trait]
impl Database for Postgres {
    async fn another(&self) -> Db {
        Arc::new(Self::new())
    }

    async fn of_another_kind(&self) -> Option<Db> {
        Some(sled())
    }

    async fn open(&self) -> Handle {
        Arc::new(PostgresStore::open(self.0.clone(), 8).await.unwrap())
    }

    fn is_shared(&self) -> bool {
        true
    }
}
