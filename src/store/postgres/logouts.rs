//! Calls that are owed to apps.
//!
//! Several replicas look for calls that are due, and one of them makes each: it takes the call by moving its turn, which only one can do.
//! When it is gone before it has said what became of the call, the turn comes and another one takes it.

use std::{
    collections::{HashMap, HashSet},
    slice,
};

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    PostgresStore,
    database::{Columns, Failure, Txn, transact},
    rows::{app_columns, column, logout_columns, logout_values, read_app, read_logout},
};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, LogoutId, SessionId},
        logouts::{Lane, Outcome, OwedLogout},
        model::{Family, Session},
    },
    store::{After, LogoutStore},
};

/// How many calls one step gives up.
const GIVE_UP_BATCH: i64 = 256;

fn read_logouts(rows: &[Row]) -> Result<Vec<OwedLogout>, Error> {
    rows.iter().map(|row| read_logout(&mut Columns::of(row))).collect()
}

/// Owes the calls that come of sessions that end, given their families. An app that has several in a session is told once at each
/// address.
pub(super) async fn owe(txn: &Txn<'_>, sessions: &[Session], families: &[(SessionId, Family)], now: Timestamp) -> Result<(), Failure> {
    let ids: HashSet<&str> =
        families.iter().filter(|(_, family)| !family.logout_uri.is_empty()).map(|(_, family)| family.app.as_str()).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut apps = HashMap::new();
    for row in txn.query(concat!("SELECT ", app_columns!(), " FROM apps a WHERE a.id = ANY($1)"), &[&ids]).await? {
        let app = read_app(&mut Columns::of(&row))?;
        apps.insert(app.id.clone(), app);
    }
    let sessions: HashMap<SessionId, &Session> = sessions.iter().map(|session| (session.id, session)).collect();
    let mut told = HashSet::new();
    let mut all = Vec::new();
    for (id, family) in families {
        let (Some(session), Some(app)) = (sessions.get(id), apps.get(&family.app)) else { continue };
        let Some(owed) = OwedLogout::new(app, family, session, now)? else { continue };
        if told.insert((*id, owed.app.clone(), owed.uri.clone())) {
            all.push(owed);
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    txn.owes();
    put_new(txn, &all).await
}

/// Keeps calls that are owed and were not tried yet, with one statement.
async fn put_new(txn: &Txn<'_>, owed: &[OwedLogout]) -> Result<(), Failure> {
    let sql = "INSERT INTO logouts (id, app, incarnation, uri, user_id, session_id, created_at, next_try_at, lane, tries, last_error) \
               SELECT n.*, 0, '' FROM unnest($1::bytea[], $2::text[], $3::bytea[], $4::text[], $5::bytea[], $6::bytea[], $7::bigint[], \
               $8::bigint[], $9::bytea[]) AS n";
    let lanes: Vec<Lane> = column(owed, OwedLogout::lane);
    txn.execute(
        sql,
        &[
            &column(owed, |owed| &owed.id),
            &column(owed, |owed| owed.app.as_str()),
            &column(owed, |owed| &owed.incarnation),
            &column(owed, |owed| owed.uri.as_str()),
            &column(owed, |owed| &owed.user),
            &column(owed, |owed| &owed.session),
            &column(owed, |owed| owed.created_at),
            &column(owed, |owed| owed.next_try_at),
            &lanes.iter().map(|lane| lane.as_bytes().as_slice()).collect::<Vec<_>>(),
        ],
    )
    .await?;
    Ok(())
}

/// Keeps a call that is owed, or was given up.
pub(super) async fn put(txn: &Txn<'_>, owed: &OwedLogout) -> Result<(), Failure> {
    let sql = "INSERT INTO logouts (id, app, incarnation, uri, user_id, session_id, created_at, next_try_at, tries, last_error, \
               given_up_at, lane) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
    txn.execute(sql, &logout_values(owed).params()).await?;
    Ok(())
}

/// Gives up calls whose rows are locked.
async fn give_up(txn: &Txn<'_>, owed: &[OwedLogout], at: Timestamp) -> Result<(), Failure> {
    let sql = "UPDATE logouts l SET given_up_at = $1, last_error = n.last_error FROM unnest($2::bytea[], $3::text[]) AS n (id, last_error) \
               WHERE l.id = n.id";
    let errors = column(owed, |owed| owed.last_error.as_str());
    txn.execute(sql, &[&at, &column(owed, |owed| &owed.id), &errors]).await?;
    Ok(())
}

#[async_trait]
impl LogoutStore for PostgresStore {
    async fn due_logouts(&self, per_lane: usize, now: Timestamp) -> Result<Vec<OwedLogout>, Error> {
        // From lane to lane, and in each no further than to what is due: a lane with very many calls costs no more than one with few.
        let sql = concat!(
            "WITH RECURSIVE lanes AS (\
                 (SELECT lane FROM logouts WHERE given_up_at IS NULL ORDER BY lane LIMIT 1) \
                 UNION ALL \
                 SELECT (SELECT l.lane FROM logouts l WHERE l.given_up_at IS NULL AND l.lane > lanes.lane ORDER BY l.lane LIMIT 1) \
                 FROM lanes WHERE lanes.lane IS NOT NULL\
             ) SELECT ",
            logout_columns!(),
            " FROM lanes CROSS JOIN LATERAL (\
                 SELECT * FROM logouts o WHERE o.given_up_at IS NULL AND o.lane = lanes.lane AND o.next_try_at <= $1 \
                 ORDER BY o.next_try_at, o.id LIMIT $2\
             ) l"
        );
        let per_lane = i64::try_from(per_lane).unwrap_or(i64::MAX);
        read_logouts(&self.database.query(sql, &[&now, &per_lane]).await?)
    }

    async fn take_logout(&self, owed: &OwedLogout, until: Timestamp) -> Result<bool, Error> {
        let sql = "UPDATE logouts SET next_try_at = $3 WHERE id = $1 AND next_try_at = $2 AND given_up_at IS NULL RETURNING 1";
        let taken = self.database.query_opt(sql, &[&owed.id, &owed.next_try_at, &until]).await?;
        Ok(taken.is_some())
    }

    async fn settle_logout(&self, id: LogoutId, outcome: Outcome) -> Result<(), Error> {
        if outcome == Outcome::Settled {
            return self.database.query("DELETE FROM logouts WHERE id = $1 AND given_up_at IS NULL", &[&id]).await.map(|_| ());
        }
        transact!(self.database, async |txn| {
            let sql = concat!("SELECT ", logout_columns!(), " FROM logouts l WHERE l.id = $1 AND l.given_up_at IS NULL FOR UPDATE");
            let Some(row) = txn.query_opt(sql, &[&id]).await? else { return Ok(()) };
            let mut owed = read_logout(&mut Columns::of(&row))?;
            match &outcome {
                Outcome::Settled => Ok(()),
                Outcome::GivenUp { error, at } => {
                    owed.note_error(error);
                    give_up(txn, slice::from_ref(&owed), *at).await
                }
                Outcome::Again { error, at } => {
                    owed.note_error(error);
                    let sql = "UPDATE logouts SET tries = $2, last_error = $3, next_try_at = $4 WHERE id = $1";
                    let tries = i64::from(owed.tries.saturating_add(1));
                    txn.execute(sql, &[&id, &tries, &owed.last_error, at]).await.map(|_| ())
                }
            }
        })
        .await
    }

    async fn give_up_logouts(&self, now: Timestamp) -> Result<Vec<OwedLogout>, Error> {
        // Nearly always there is nothing to do, which needs no transaction. The ids are in the order of time.
        let oldest = concat!("SELECT ", logout_columns!(), " FROM logouts l WHERE l.given_up_at IS NULL ORDER BY l.id LIMIT 1");
        let oldest = read_logouts(&self.database.query(oldest, &[]).await?)?;
        if !oldest.iter().any(|owed| owed.is_too_old(now)) {
            return Ok(Vec::new());
        }
        transact!(self.database, async |txn| {
            let sql = concat!(
                "SELECT ",
                logout_columns!(),
                " FROM logouts l WHERE l.given_up_at IS NULL ORDER BY l.id LIMIT $1 FOR UPDATE SKIP LOCKED"
            );
            let mut given_up = read_logouts(&txn.query(sql, &[&GIVE_UP_BATCH]).await?)?;
            given_up.retain(|owed| owed.is_too_old(now));
            give_up(txn, &given_up, now).await?;
            Ok(given_up)
        })
        .await
    }

    async fn logouts(&self, given_up: bool, app: Option<AppId>, after: After<LogoutId>, limit: usize) -> Result<Vec<OwedLogout>, Error> {
        macro_rules! list {
            ($which:literal) => {
                concat!(
                    "SELECT ",
                    logout_columns!(),
                    " FROM logouts l WHERE l.given_up_at ",
                    $which,
                    " AND ($1::text IS NULL OR l.app = $1) AND l.id > $2 ORDER BY l.id LIMIT $3"
                )
            };
        }
        // Two statements, because each has an index of its own.
        let sql = if given_up { list!("IS NOT NULL") } else { list!("IS NULL") };
        let app = app.as_ref().map(AppId::as_str);
        let begin: Vec<u8> = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        read_logouts(&self.database.query(sql, &[&app, &begin, &limit]).await?)
    }

    async fn owed_logouts(&self) -> Result<u64, Error> {
        let row = self.database.query_opt("SELECT COUNT(*) FROM logouts WHERE given_up_at IS NULL", &[]).await?;
        let count: i64 = row.as_ref().map_or(Ok(0), |row| Columns::of(row).next())?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn logouts_owed(&self) {
        // Only those of this process: who waits for this looks besides, and often enough, for what others have come to owe.
        self.database.owed.notified().await;
    }
}
