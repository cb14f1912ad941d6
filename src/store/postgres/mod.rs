//! The store for many replicas: PostgreSQL, and what speaks its language (docs/storage.md).
//!
//! Tables and keys are in `migrations/`. What is judged is judged by the same functions as in every store; what makes a step atomic is a
//! statement that does something only if what was judged is still so, or a transaction that has locked the rows that it judged. Nothing
//! is kept in memory that another replica may change.

mod accounts;
mod authorities;
mod clock;
mod connect;
mod counts;
mod database;
mod hosts;
mod logouts;
mod migrations;
mod rows;
mod sessions;
mod standbys;
mod transfer;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::Mutex;

pub use self::connect::Address;
use self::{
    clock::DatabaseClock,
    database::{Columns, Database, Failure, Left, Txn, transact},
    migrations::Tables,
    rows::{origin, read_identity, read_signing_key, session_columns, signing_key_columns, signing_key_values},
    standbys::Standbys,
};
use super::{Identity, Maintenance, SigningKeyStore, Store, newest_signing_key};
use crate::core::{
    Error,
    clock::{Clock, Timestamp},
    logouts::SHOWN_FOR,
    model::SigningKey,
    throttle::Memory,
};

/// How many rows of a kind one purge removes.
const PURGE_BATCH: i64 = 256;

/// How many connections there are to find out with whether the database is well: one, and one while the last one is being called off.
const PROBING: usize = 2;

/// Has its commit wait for the disk, and for the standbys that commits wait for: the lock is noted in the log. It changes nothing, keeps nobody
/// else from the same, nor from changing the row, and is refused where nothing may be written.
const COMMITTED: &str = "SELECT 1 FROM probes FOR KEY SHARE";

/// A store in a database.
#[derive(Debug)]
pub struct PostgresStore {
    database: Database,
    /// The same, on connections that no call can take: that those are all in use says nothing against the database.
    probing: Database,
    clock: Arc<DatabaseClock>,
    /// Which notes this replica has written lately.
    noted: Memory,
    standbys: Standbys,
    /// Held by an export: each keeps a connection, and the database from clearing up.
    exporting: Mutex<()>,
}

impl PostgresStore {
    /// Connects to a database with at most so many connections at a time, and makes or migrates its tables.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when it cannot be reached, or is of a newer version.
    pub async fn open(address: Address, connections: usize) -> Result<Self, Error> {
        Self::open_with(address, connections, Tables::Migrated).await
    }

    /// The same for a command, which migrates nothing: services of an older version may be at work there, and could not start again.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when it cannot be reached, or its tables are not there, or of another version.
    pub async fn open_existing(address: Address, connections: usize) -> Result<Self, Error> {
        Self::open_with(address, connections, Tables::AsTheyAre).await
    }

    /// The same for a command that begins a store: the tables are made where there are none.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when it cannot be reached, or has tables of another version.
    pub async fn open_new(address: Address, connections: usize) -> Result<Self, Error> {
        Self::open_with(address, connections, Tables::AsTheyAreOrNew).await
    }

    async fn open_with(address: Address, connections: usize, tables: Tables) -> Result<Self, Error> {
        let shown = address.shown();
        let clock = Arc::new(DatabaseClock::new());
        let noted = Memory::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let left = Left::default();
        let (probing, database) = (address.clone().pool(PROBING, left.clone())?, address.pool(connections, left)?);
        let store = Self { database, probing, clock, noted, standbys: Standbys::default(), exporting: Mutex::default() };
        let opened = async {
            migrations::bring(&store.database, tables).await?;
            store.try_database().await
        };
        opened.await.map_err(|error| match error {
            Error::StoreUnavailable(cause) => Error::StoreUnavailable(format!("the database {shown} cannot be used: {cause}")),
            other => other,
        })?;
        tracing::info!(database = shown, connections, "the store is a database");
        Ok(store)
    }

    /// What all replicas go by.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    /// Asks what time it is and how the standbys are, and writes something: all of it in one trip, once the statements are known to the server.
    async fn try_database(&self) -> Result<(), Error> {
        let mut runs = self.probing.runs();
        loop {
            let run = runs.begin("").await?;
            let txn = &run.txn()?;
            let tries = async {
                // The clock first: a commit may have to wait.
                let (set, (), committed) = tokio::join!(self.clock.set(txn), self.standbys.look(txn), txn.query(COMMITTED, &[]));
                set.and(committed.map(|_| ()))
            };
            let outcome = run.limited(tries).await;
            if let Some(done) = runs.end(run, outcome).await {
                return done;
            }
        }
    }
}

impl Store for PostgresStore {}

/// Has a transaction wait for others that have locked this, and others for it.
async fn lock(txn: &Txn<'_>, guard: &str) -> Result<(), Failure> {
    // Written, so that whoever waits for it does not go on with what he has seen before, at any level of isolation.
    match txn.execute("UPDATE guards SET name = name WHERE name = $1", &[&guard]).await? {
        0 => Err(Error::StoreUnavailable(format!("the row {guard} of the table guards is missing")).into()),
        _ => Ok(()),
    }
}

/// Has a step that found nothing to do wait for what it found: somebody else may have done it and given up waiting for a standby. Whoever is told
/// that something has ended is told so only once no failover can bring it back.
async fn wait_for_what_is_there(txn: &Txn<'_>) -> Result<(), Failure> {
    txn.query(COMMITTED, &[]).await.map(|_| ())
}

const SIGNING_KEYS: &str = concat!("SELECT ", signing_key_columns!(), " FROM signing_keys k ORDER BY k.kid");

async fn read_signing_keys(txn: &Txn<'_>) -> Result<Vec<SigningKey>, Failure> {
    let rows = txn.query(SIGNING_KEYS, &[]).await?;
    Ok(rows.iter().map(|row| read_signing_key(&mut Columns::of(row))).collect::<Result<_, _>>()?)
}

async fn put_signing_key(txn: &Txn<'_>, key: &SigningKey) -> Result<(), Failure> {
    let sql = "INSERT INTO signing_keys (kid, sealed, x, y, created_at, activates_at, retired_at, expires_at, forgotten_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    txn.execute(sql, &signing_key_values(key).params()).await?;
    Ok(())
}

async fn put_identity(txn: &Txn<'_>, identity: &Identity) -> Result<(), Failure> {
    let sql = "INSERT INTO identity (origin, root) VALUES ($1, $2) ON CONFLICT (one) DO UPDATE SET origin = $1, root = $2";
    txn.execute(sql, &[&origin(identity.origin), &identity.root]).await?;
    Ok(())
}

#[async_trait]
impl SigningKeyStore for PostgresStore {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, Error> {
        let rows = self.database.query(SIGNING_KEYS, &[]).await?;
        rows.iter().map(|row| read_signing_key(&mut Columns::of(row))).collect()
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<String>) -> Result<bool, Error> {
        transact!(self.database, async |txn| {
            lock(txn, "signing_keys").await?;
            let keys = read_signing_keys(txn).await?;
            let is_newest = newest_signing_key(&keys).map(|key| &key.kid) == newest.as_ref();
            if is_newest {
                put_signing_key(txn, &key).await?;
            }
            Ok(is_newest)
        })
        .await
    }

    async fn retire_signing_key(
        &self,
        kid: &str,
        now: Timestamp,
        expires_at: Timestamp,
        forgotten_at: Timestamp,
    ) -> Result<SigningKey, Error> {
        transact!(self.database, async |txn| {
            lock(txn, "signing_keys").await?;
            let keys = read_signing_keys(txn).await?;
            let mut key = keys.iter().find(|key| key.kid == kid).cloned().ok_or(Error::NotFound("signing key"))?;
            if key.retired_at.is_some() {
                return Ok(key);
            }
            if !keys.iter().any(|other| other.kid != kid && other.retired_at.is_none() && other.activates_at <= now) {
                let advice = "no other key could sign: add one, and retire this one when the new one is active";
                return Err(Error::Precondition(advice).into());
            }
            key.retired_at = Some(now);
            key.expires_at = Some(expires_at);
            key.forgotten_at = Some(forgotten_at);
            let sql = "UPDATE signing_keys SET retired_at = $2, expires_at = $3, forgotten_at = $4 WHERE kid = $1";
            txn.execute(sql, &[&kid, &now, &expires_at, &forgotten_at]).await?;
            Ok(key)
        })
        .await
    }
}

/// Removes sessions that have ended, a batch of them, and gives the number that was looked at. Those that another replica looks at are
/// passed over.
async fn purge_sessions(txn: &Txn<'_>, now: Timestamp) -> Result<usize, Failure> {
    let sql =
        concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.look_at < $1 ORDER BY s.look_at LIMIT $2 FOR UPDATE SKIP LOCKED");
    let due = sessions::read_sessions(&txn.query(sql, &[&now, &PURGE_BATCH]).await?)?;
    let (alive, ended): (Vec<_>, Vec<_>) = due.iter().cloned().partition(|session| session.is_alive(now));
    if !alive.is_empty() {
        let sql = "UPDATE sessions s SET look_at = n.look_at FROM unnest($1::bytea[], $2::bigint[]) AS n (id, look_at) WHERE s.id = n.id";
        let (ids, ends): (Vec<_>, Vec<_>) = alive.iter().map(|session| (session.id, session.ends_at())).unzip();
        txn.execute(sql, &[&ids, &ends]).await?;
    }
    sessions::end(txn, &ended, now).await?;
    Ok(due.len())
}

#[async_trait]
impl Maintenance for PostgresStore {
    async fn identity(&self) -> Result<Option<Identity>, Error> {
        let row = self.database.query_opt("SELECT origin, root FROM identity", &[]).await?;
        row.map(|row| read_identity(&mut Columns::of(&row))).transpose()
    }

    async fn found(&self, identity: Identity) -> Result<Identity, Error> {
        let sql = "INSERT INTO identity (origin, root) VALUES ($1, $2) ON CONFLICT (one) DO NOTHING";
        self.database.query(sql, &[&origin(identity.origin), &identity.root]).await?;
        self.identity().await?.ok_or_else(|| Error::StoreUnavailable("the store's identity has gone".into()))
    }

    async fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        transact!(self.database, async |txn| put_identity(txn, &identity).await).await
    }

    async fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        // What keeps sessions from being purged keeps nothing else.
        let sessions = transact!(self.database, async |txn| purge_sessions(txn, now).await).await;
        let mut looked_at = 0;
        for sql in [
            "DELETE FROM codes WHERE hash IN (SELECT hash FROM codes WHERE kept_until < $1 ORDER BY kept_until LIMIT $2 FOR UPDATE SKIP LOCKED) \
             RETURNING 1",
            "DELETE FROM used_up WHERE hash IN (SELECT hash FROM used_up WHERE kept_until < $1 ORDER BY kept_until LIMIT $2 \
             FOR UPDATE SKIP LOCKED) RETURNING 1",
            "DELETE FROM counts WHERE place IN (SELECT place FROM counts WHERE until < $1 ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED) \
             RETURNING 1",
            "DELETE FROM authorities WHERE id IN (SELECT id FROM authorities WHERE pending_until < $1 LIMIT $2 FOR UPDATE SKIP LOCKED) \
             RETURNING 1",
        ] {
            looked_at += self.database.query(sql, &[&now, &PURGE_BATCH]).await?.len();
        }
        let shown_since = Timestamp::from_millis(now.since(Timestamp::default().after(SHOWN_FOR)).as_millis().try_into().unwrap_or(0));
        let sql =
            "DELETE FROM logouts WHERE id IN (SELECT id FROM logouts WHERE given_up_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING 1";
        looked_at += self.database.query(sql, &[&shown_since, &PURGE_BATCH]).await?.len();
        self.database.query("DELETE FROM signing_keys WHERE forgotten_at <= $1", &[&now]).await?;
        match sessions {
            Ok(number) => Ok(looked_at + number),
            Err(error) if looked_at > 0 => {
                tracing::warn!("sessions that have ended could not be removed, and are tried again: {error}");
                Ok(looked_at)
            }
            Err(error) => Err(error),
        }
    }

    async fn overdue(&self, now: Timestamp) -> Result<Duration, Error> {
        let sql = "SELECT LEAST((SELECT MIN(look_at) FROM sessions), (SELECT MIN(kept_until) FROM codes), \
                   (SELECT MIN(kept_until) FROM used_up), (SELECT MIN(until) FROM counts))";
        let row = self.database.query_opt(sql, &[]).await?;
        let first: Option<Timestamp> = row.as_ref().map_or(Ok(None), |row| Columns::of(row).next())?;
        Ok(first.map_or(Duration::ZERO, |first| now.since(first)))
    }

    async fn probe(&self) -> Result<(), Error> {
        let status = self.database.pool.status();
        #[expect(clippy::cast_precision_loss, reason = "nobody has 2^53 connections")]
        for (state, number) in [("idle", status.available), ("in_use", status.size.saturating_sub(status.available))] {
            metrics::gauge!("supos_auth_database_connections", "state" => state).set(number as f64);
        }
        #[expect(clippy::cast_precision_loss, reason = "nor as many callers")]
        metrics::gauge!("supos_auth_database_waiting").set(status.waiting as f64);
        self.try_database().await
    }

    async fn failed(&self) -> String {
        // It comes back without this process being started anew.
        std::future::pending().await
    }

    async fn flush(&self) -> Result<(), Error> {
        // Every step is on disk when it returns. One whose caller was not told so may still be waiting for a standby.
        self.database.query(COMMITTED, &[]).await.map(|_| ())
    }
}
