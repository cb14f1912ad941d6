//! Bringing the tables to the form that this version knows, once, however many replicas start at the same time.
//!
//! Each step of the way is a transaction that notes its number in `schema_migrations` before anything else. Of several replicas that do
//! so at the same time one goes on; the others wait for it, find the number taken, and look again at what is left to do.

use super::database::{Columns, Database, Failure, Txn, transact};
use crate::core::Error;

/// The steps, in order; the first makes version 1. One that was released is never changed.
const MIGRATIONS: [&str; 3] =
    [include_str!("migrations/001_tables.sql"), include_str!("migrations/002_counts.sql"), include_str!("migrations/003_logouts.sql")];

const MIGRATIONS_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";

/// A step takes the time that it takes (an index of a large table), and so does waiting for another replica that takes it.
const NO_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0";

/// Brings the tables up to date.
///
/// # Errors
/// [`Error::StoreUnavailable`], also when a newer version has been there.
pub(super) async fn migrate(database: &Database) -> Result<(), Error> {
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    transact!(database.patient(), async |txn| {
        txn.batch(NO_LIMITS).await?;
        txn.batch(MIGRATIONS_TABLE).await
    })
    .await?;
    let latest = version(database).await?;
    if latest > known {
        return Err(Error::StoreUnavailable(format!(
            "the database has version {latest} of the tables, and this supos-auth knows versions up to {known}: run the version that \
             migrated it, or a newer one"
        )));
    }
    for (version, sql) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > latest) {
        let applied = transact!(database.patient(), async |txn| apply(txn, version, sql).await).await?;
        if applied {
            tracing::info!(version, "the tables of the database were migrated");
        }
    }
    Ok(())
}

async fn version(database: &Database) -> Result<i64, Error> {
    let row = database.query_opt("SELECT COALESCE(MAX(version), 0) FROM schema_migrations", &[]).await?;
    row.as_ref().map_or(Ok(0), |row| Columns::of(row).next())
}

/// Takes a step, and says whether it was still to be taken.
async fn apply(txn: &Txn<'_>, version: i64, sql: &str) -> Result<bool, Failure> {
    txn.batch(NO_LIMITS).await?;
    let noted = txn.execute("INSERT INTO schema_migrations (version) VALUES ($1) ON CONFLICT (version) DO NOTHING", &[&version]).await?;
    if noted == 1 {
        txn.batch(sql).await?;
    }
    Ok(noted == 1)
}
