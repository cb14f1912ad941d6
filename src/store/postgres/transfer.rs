//! Moving records out of a database and into one.

use std::{
    future::ready,
    mem::discriminant,
    slice,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_postgres::Row;

use super::{
    PostgresStore, accounts, authorities,
    database::{Columns, Failure, Txn, transact},
    logouts, put_identity, put_signing_key,
    rows::{
        app_columns, authority_columns, code_columns, code_values, family_columns, family_values, link_columns, logout_columns, read_app,
        read_authority, read_code, read_family, read_identity, read_link, read_logout, read_session, read_signing_key, read_user,
        session_columns, signing_key_columns, told_by, user_columns,
    },
    sessions,
};
use crate::{
    core::Error,
    store::{TRANSFER_BATCH, Transfer, record::Record},
};

type Read = fn(&mut Columns<'_>) -> Result<Record, Error>;

/// What is exported, what is referred to first. Each row is a record.
const EXPORTS: [(&str, Read); 14] = [
    (concat!("SELECT ", app_columns!(), " FROM apps a"), |columns| read_app(columns).map(Record::App)),
    ("SELECT app, operation, times, last_at FROM app_usage ORDER BY app", read_usage),
    (concat!("SELECT ", user_columns!(), " FROM users u"), |columns| read_user(columns).map(Record::User)),
    (concat!("SELECT ", signing_key_columns!(), " FROM signing_keys k"), |columns| read_signing_key(columns).map(Record::SigningKey)),
    (concat!("SELECT ", authority_columns!(), " FROM authorities i"), |columns| read_authority(columns).map(Record::Authority)),
    (concat!("SELECT b.authority_id, b.subject, ", link_columns!(), " FROM links b"), |columns| {
        Ok(Record::Link { authority: columns.next()?, subject: columns.next()?, link: read_link(columns)? })
    }),
    (concat!("SELECT ", session_columns!(), " FROM sessions s"), |columns| read_session(columns).map(Record::Session)),
    (concat!("SELECT f.session_id, f.number, ", family_columns!(), " FROM families f"), |columns| {
        let (session, number) = (columns.next()?, columns.next::<i64>()?);
        let number = u32::try_from(number).map_err(|_| Error::StoreUnavailable("a family has a number that is too large".into()))?;
        Ok(Record::Family { session, number, family: read_family(columns)? })
    }),
    (concat!("SELECT f.session_id, ", family_columns!(), " FROM ended_families f"), |columns| {
        Ok(Record::EndedFamily { session: columns.next()?, family: read_family(columns)? })
    }),
    (concat!("SELECT c.hash, ", code_columns!(), " FROM codes c"), |columns| {
        Ok(Record::Code { hash: columns.next()?, code: read_code(columns)? })
    }),
    ("SELECT hash, kept_until FROM used_up", |columns| Ok(Record::UsedUp { hash: columns.next()?, until: columns.next()? })),
    (concat!("SELECT ", logout_columns!(), " FROM logouts l WHERE l.given_up_at IS NULL"), |columns| {
        read_logout(columns).map(Record::OwedLogout)
    }),
    (concat!("SELECT ", logout_columns!(), " FROM logouts l WHERE l.given_up_at IS NOT NULL"), |columns| {
        read_logout(columns).map(Record::GivenUpLogout)
    }),
    ("SELECT origin, root FROM identity", |columns| read_identity(columns).map(Record::Identity)),
];

/// One count of an app. Those of one app come one after the other, and are joined by [`push`].
fn read_usage(columns: &mut Columns<'_>) -> Result<Record, Error> {
    let (app, usage) = accounts::read_usage(columns)?;
    Ok(Record::AppUsage { app, usage })
}

/// Adds a record to those that were read.
fn push(records: &mut Vec<Record>, record: Record) {
    match (records.last_mut(), record) {
        (Some(Record::AppUsage { app: last, usage: known }), Record::AppUsage { app, usage }) if *last == app => known.add(usage),
        (_, record) => records.push(record),
    }
}

async fn export(txn: &Txn<'_>, records: &mpsc::Sender<Vec<Record>>) -> Result<(), Failure> {
    for (sql, read) in EXPORTS {
        txn.batch(&format!("DECLARE export CURSOR FOR {sql}")).await?;
        let mut batch = Vec::new();
        loop {
            let rows: Vec<Row> = txn.fetch(&format!("FETCH {TRANSFER_BATCH} FROM export")).await?;
            for row in &rows {
                push(&mut batch, read(&mut Columns::of(row))?);
            }
            let is_end = rows.len() < TRANSFER_BATCH;
            // The last one may be joined by more of its kind.
            let open = if is_end { None } else { batch.pop() };
            if !batch.is_empty() {
                let full = std::mem::take(&mut batch);
                records.send(full).await.map_err(|_| Error::Internal("nobody receives the records any more".into()))?;
            }
            batch.extend(open);
            if is_end {
                break;
            }
        }
        txn.batch("CLOSE export").await?;
    }
    Ok(())
}

async fn put(txn: &Txn<'_>, record: &Record) -> Result<(), Failure> {
    match record {
        Record::App(app) => accounts::put_apps(txn, slice::from_ref(app)).await,
        Record::AppUsage { app, usage } => accounts::put_usage(txn, &[(app.clone(), usage.clone())].into()).await,
        Record::User(user) => accounts::put_users(txn, slice::from_ref(user)).await,
        Record::SigningKey(key) => put_signing_key(txn, key).await,
        Record::Authority(authority) => authorities::put(txn, authority).await,
        Record::Link { authority, subject, link } => authorities::put_link(txn, *authority, subject, link).await,
        Record::Session(session) => sessions::open(txn, session).await,
        Record::Family { session, number, family } => {
            let sql = "INSERT INTO families (session_id, number, app, incarnation, scope, logout_uri, redirect_origin, generation, \
                       rotated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            txn.execute(sql, &family_values(session, i64::from(*number), family).params()).await?;
            Ok(())
        }
        Record::EndedFamily { session, family } => sessions::keep_ended(txn, *session, family).await,
        Record::Code { hash, code } => {
            let sql = "INSERT INTO codes (hash, app, incarnation, session_id, redirect_uri, scope, expires_at, used, kept_until) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
            txn.execute(sql, &code_values(hash, code).params()).await?;
            Ok(())
        }
        Record::UsedUp { hash, until } => {
            txn.execute("INSERT INTO used_up (hash, kept_until) VALUES ($1, $2)", &[hash, until]).await?;
            Ok(())
        }
        Record::OwedLogout(owed) | Record::GivenUpLogout(owed) => logouts::put(txn, owed).await,
        Record::Identity(identity) => put_identity(txn, identity).await,
    }
}

/// Puts records in their order, those of a kind without waiting for the answer to one before the next is sent: nothing in them refers to another.
async fn put_all(txn: &Txn<'_>, records: &[Record]) -> Result<(), Failure> {
    for alike in records.chunk_by(|one, next| discriminant(one) == discriminant(next)) {
        // The first has the server learn the statements.
        if let Some((first, others)) = alike.split_first() {
            put(txn, first).await?;
            let others: Vec<_> = others.iter().map(|record| put(txn, record)).collect();
            // In order: the first that fails says why, and the others only that one has.
            stream::iter(others).buffered(TRANSFER_BATCH).try_for_each(|()| ready(Ok(()))).await?;
        }
    }
    Ok(())
}

/// Removes what a record takes the place of.
async fn remove(txn: &Txn<'_>, record: &Record) -> Result<(), Failure> {
    let _: u64 = match record {
        Record::App(app) => txn.execute("DELETE FROM apps WHERE id = $1", &[&app.id.as_str()]).await?,
        Record::AppUsage { app, .. } => txn.execute("DELETE FROM app_usage WHERE app = $1", &[&app.as_str()]).await?,
        Record::User(user) => txn.execute("DELETE FROM users WHERE id = $1", &[&user.id]).await?,
        Record::SigningKey(key) => txn.execute("DELETE FROM signing_keys WHERE kid = $1", &[&key.kid]).await?,
        Record::Authority(authority) => txn.execute("DELETE FROM authorities WHERE id = $1", &[&authority.id]).await?,
        Record::Session(session) => txn.execute("DELETE FROM sessions WHERE id = $1", &[&session.id]).await?,
        Record::Family { session, number, .. } => {
            let number = i64::from(*number);
            txn.execute("DELETE FROM families WHERE session_id = $1 AND number = $2", &[session, &number]).await?
        }
        Record::EndedFamily { session, family } => {
            txn.execute("DELETE FROM ended_families WHERE session_id = $1 AND hash = $2", &[session, &told_by(family)]).await?
        }
        Record::Code { hash, .. } => txn.execute("DELETE FROM codes WHERE hash = $1", &[hash]).await?,
        Record::UsedUp { hash, .. } => txn.execute("DELETE FROM used_up WHERE hash = $1", &[hash]).await?,
        Record::OwedLogout(owed) | Record::GivenUpLogout(owed) => txn.execute("DELETE FROM logouts WHERE id = $1", &[&owed.id]).await?,
        // These are replaced as they are put.
        Record::Link { .. } | Record::Identity(_) => 0,
    };
    Ok(())
}

#[async_trait]
impl Transfer for PostgresStore {
    async fn export(&self, records: mpsc::Sender<Vec<Record>>) -> Result<(), Error> {
        let Ok(_exporting) = self.exporting.try_lock() else {
            return Err(Error::Precondition("another backup is being taken: wait for its end"));
        };
        // Whoever gets the records may take his time, so each statement has a limit, and the whole has none: how long it may be left waiting is the
        // gRPC service's to say.
        let run = self.database.runs().begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let txn = run.txn()?;
        let exported = async {
            txn.batch("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
            export(&txn, &records).await?;
            txn.batch("COMMIT").await
        };
        exported.await.map_err(Failure::into_error)?;
        run.finish();
        Ok(())
    }

    async fn is_empty(&self) -> Result<bool, Error> {
        for (sql, _) in EXPORTS {
            if self.database.query_opt(&format!("{sql} LIMIT 1"), &[]).await?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn import(&self, records: Vec<Record>) -> Result<(), Error> {
        // Nearly always nothing is there. Where something is, the first run fails for it, and the next one removes it, in an order in
        // which nothing that is removed is still referred to.
        let again = AtomicBool::new(false);
        // Each statement has its limit; how many there can be in a while is the network's to say.
        transact!(self.database.patient(), async |txn| {
            if again.swap(true, Ordering::Relaxed) {
                for record in records.iter().rev() {
                    remove(txn, record).await?;
                }
            }
            put_all(txn, &records).await
        })
        .await
    }
}
