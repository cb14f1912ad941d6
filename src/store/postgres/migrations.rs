//! Bringing the tables to the form that this version knows, once, however many replicas start at the same time.
//!
//! Each step of the way is a transaction that notes its number in `schema_migrations` before anything else. Of several replicas that do
//! so at the same time one goes on; the others wait for it, find the number taken, and look again at what is left to do.
//!
//! Not every database that speaks PostgreSQL's language undoes what was made of tables together with the rest, so a step finds it good that
//! something of it is there (`IF NOT EXISTS`).

use super::database::{Columns, Database, Failure, Txn, transact};
use crate::core::Error;

/// The steps, in order; the first makes version 1. One that was released is never changed.
const MIGRATIONS: [&str; 3] =
    [include_str!("migrations/001_tables.sql"), include_str!("migrations/002_counts.sql"), include_str!("migrations/003_logouts.sql")];

const MIGRATIONS_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS schema_migrations (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";

/// How each transaction here begins. CockroachDB changes tables in no transaction of a lower level.
const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// A step takes the time that it takes (an index of a large table), and so does waiting for another replica that takes it.
const NO_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0";

/// What other servers than PostgreSQL would do here of their own accord, and have a setting for: CockroachDB commits, before it changes a table, what
/// the transaction has done so far; YugabyteDB makes indexes that nothing can be found by in order.
const LIKE_POSTGRESQL: &str = "SELECT set_config(name, 'off', true) FROM pg_settings \
                               WHERE name IN ('autocommit_before_ddl', 'yb_use_hash_splitting_by_default')";

/// How a column says that it sorts by bytes.
const BY_BYTES: &str = " COLLATE \"C\"";

/// What is done about tables that are not those of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tables {
    /// They are made, or migrated.
    Migrated,
    /// They are made where there are none, and refused else.
    AsTheyAreOrNew,
    /// They are refused.
    AsTheyAre,
}

/// Has the tables be those of this version.
///
/// # Errors
/// [`Error::StoreUnavailable`], also when a newer version has been there.
pub(super) async fn bring(database: &Database, tables: Tables) -> Result<(), Error> {
    check_encoding(database).await?;
    let found = if tables == Tables::Migrated { None } else { Some(if has_any(database).await? { version(database).await? } else { 0 }) };
    let known = known();
    match found {
        Some(found) if found == known => Ok(()),
        Some(0) if tables == Tables::AsTheyAre => Err(Error::StoreUnavailable("there is no store in it".into())),
        Some(found @ 1..) if found < known => Err(Error::StoreUnavailable(format!(
            "the database has version {found} of the tables, and this supos-auth works on version {known}. Do this with the version whose \
             services run there, or start one service of this version first, which migrates them: older ones do not start again then"
        ))),
        _ => migrate(database).await,
    }
}

/// Brings the tables up to date.
async fn migrate(database: &Database) -> Result<(), Error> {
    transact!(database.patient(), BEGIN, async |txn| {
        prepare(txn).await?;
        txn.batch(MIGRATIONS_TABLE).await
    })
    .await?;
    let latest = version(database).await?;
    let known = known();
    if latest > known {
        return Err(Error::StoreUnavailable(format!(
            "the database has version {latest} of the tables, and this supos-auth knows versions up to {known}: run the version that \
             migrated it, or a newer one"
        )));
    }
    for (version, sql) in (1..).zip(MIGRATIONS).filter(|(version, _)| *version > latest) {
        let applied = transact!(database.patient(), BEGIN, async |txn| apply(txn, version, sql).await).await?;
        if applied {
            tracing::info!(version, "the tables of the database were migrated");
        }
    }
    Ok(())
}

/// Names are in any language, and one that does not fit would fail whoever has it, or a restore in its middle.
async fn check_encoding(database: &Database) -> Result<(), Error> {
    let row = database.query_opt("SELECT current_setting('server_encoding', true)", &[]).await?;
    match row.as_ref().map_or(Ok(None), |row| Columns::of(row).next::<Option<&str>>())? {
        Some(other) if other != "UTF8" => Err(Error::StoreUnavailable(format!(
            "the database keeps text in {other}, which not every name fits in: create one with ENCODING 'UTF8' TEMPLATE template0"
        ))),
        _ => Ok(()),
    }
}

/// The version that the steps make.
fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// Whether there are tables at all.
async fn has_any(database: &Database) -> Result<bool, Error> {
    let row = database.query_opt("SELECT to_regclass('schema_migrations') IS NOT NULL", &[]).await?;
    row.as_ref().map_or(Ok(false), |row| Columns::of(row).next())
}

async fn version(database: &Database) -> Result<i64, Error> {
    let row = database.query_opt("SELECT COALESCE(MAX(version), 0) FROM schema_migrations", &[]).await?;
    row.as_ref().map_or(Ok(0), |row| Columns::of(row).next())
}

async fn is_cockroach(txn: &Txn<'_>) -> Result<bool, Failure> {
    let row = txn.query_opt("SELECT version()", &[]).await?;
    let version: &str = row.as_ref().map_or(Ok(""), |row| Columns::of(row).next())?;
    Ok(version.starts_with("CockroachDB"))
}

async fn prepare(txn: &Txn<'_>) -> Result<(), Failure> {
    txn.batch(NO_LIMITS).await?;
    txn.query(LIKE_POSTGRESQL, &[]).await.map(|_| ())
}

/// Takes a step, and says whether it was still to be taken.
async fn apply(txn: &Txn<'_>, version: i64, sql: &str) -> Result<bool, Failure> {
    prepare(txn).await?;
    let noted = txn.execute("INSERT INTO schema_migrations (version) VALUES ($1) ON CONFLICT (version) DO NOTHING", &[&version]).await?;
    if noted == 1 {
        // CockroachDB sorts every text so, and takes one that says so for a type of its own, which is equal to no text.
        let without = is_cockroach(txn).await?.then(|| sql.replace(BY_BYTES, ""));
        txn.batch(without.as_deref().unwrap_or(sql)).await?;
    }
    Ok(noted == 1)
}
