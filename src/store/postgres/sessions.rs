//! Sessions, codes and refresh token families.
//!
//! The steps that there are most of read what they judge, judge it by the same functions as every store, and then write with one
//! statement that does something only if what was judged is still so. Otherwise they begin again.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{
    PostgresStore,
    database::{Columns, Failure, Txn, transact},
    logouts::owe,
    rows::{
        code_columns, code_values, family_columns, family_values, read_code, read_family, read_session, read_user, session_columns,
        session_values, told_by, user_columns,
    },
    wait_for_what_is_there,
};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, FamilyId, SessionId, UserId},
        model::{Code, Family, Grant, Session, SignedIn, User},
        redirect,
        secret::BearerHash,
    },
    store::{After, ENDED_AT_ONCE, Kept, OneUse, Refresher, ReplayStore, Rotation, SessionPage, SessionStore, Turn, judge, rules::Ended},
};

/// How often a step begins again because what it judged has changed.
const ATTEMPTS: usize = 20;
/// Who repeats an answer does not wait to keep a session alive that was used within so long: whoever holds it mostly does the same. Shorter than
/// any commit is waited for that may be given up.
const JUST_USED: Duration = Duration::from_secs(1);

/// Opens a session. Whoever calls has locked its user's row.
pub(super) async fn open(txn: &Txn<'_>, session: &Session) -> Result<(), Failure> {
    let sql = "INSERT INTO sessions (id, user_id, ticket, created_at, last_used_at, expires_at, idle_lifetime, next_family, authority_id, \
               look_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    txn.execute(sql, &session_values(session).params()).await?;
    Ok(())
}

/// The sessions of these with whose families a step that ends them has enough, and the others. No session is cut in two that would fit into a
/// step by itself, so that its apps are told once.
async fn fit(txn: &Txn<'_>, sessions: &[Session]) -> Result<(Vec<SessionId>, Vec<SessionId>), Failure> {
    let mut ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    ids.sort_unstable();
    let most = i64::try_from(ENDED_AT_ONCE).unwrap_or(i64::MAX);
    let mut first_too_many = ids.len();
    for sql in [
        "SELECT session_id FROM families WHERE session_id = ANY($1) ORDER BY session_id, number OFFSET $2 LIMIT 1",
        "SELECT session_id FROM ended_families WHERE session_id = ANY($1) ORDER BY session_id, hash OFFSET $2 LIMIT 1",
    ] {
        if let Some(row) = txn.query_opt(sql, &[&ids, &most]).await? {
            let id: SessionId = Columns::of(&row).next()?;
            first_too_many = first_too_many.min(ids.partition_point(|other| *other < id));
        }
    }
    let others = ids.split_off(first_too_many.max(1).min(ids.len()));
    Ok((ids, others))
}

/// Ends sessions whose rows are locked, and owes their apps that they are told. Gives false when they have more families than end in one
/// step: then those are dead that have, and the purge goes on with them.
pub(super) async fn end(txn: &Txn<'_>, sessions: &[Session], now: Timestamp) -> Result<bool, Failure> {
    if sessions.is_empty() {
        return Ok(true);
    }
    let (mut ids, mut left) = fit(txn, sessions).await?;
    let most = i64::try_from(ENDED_AT_ONCE).unwrap_or(i64::MAX);
    let mut families = Vec::new();
    for sql in [
        concat!(
            "DELETE FROM families f WHERE (f.session_id, f.number) IN \
             (SELECT o.session_id, o.number FROM families o WHERE o.session_id = ANY($1) ORDER BY o.session_id, o.number LIMIT $2) \
             RETURNING f.session_id, ",
            family_columns!()
        ),
        concat!(
            "DELETE FROM ended_families f WHERE (f.session_id, f.hash) IN \
             (SELECT o.session_id, o.hash FROM ended_families o WHERE o.session_id = ANY($1) ORDER BY o.session_id, o.hash LIMIT $2) \
             RETURNING f.session_id, ",
            family_columns!()
        ),
    ] {
        for row in txn.query(sql, &[&ids, &most]).await? {
            let mut columns = Columns::of(&row);
            families.push((columns.next::<SessionId>()?, read_family(&mut columns)?));
        }
    }
    owe(txn, sessions, &families, now).await?;
    if families.len() >= ENDED_AT_ONCE {
        let has_more = "SELECT s.id FROM sessions s WHERE s.id = ANY($1) AND (EXISTS (SELECT 1 FROM families f WHERE f.session_id = s.id) \
                        OR EXISTS (SELECT 1 FROM ended_families f WHERE f.session_id = s.id))";
        for row in txn.query(has_more, &[&ids]).await? {
            left.push(Columns::of(&row).next()?);
        }
        ids.retain(|id| !left.contains(id));
    }
    if !left.is_empty() {
        // The purge is to find it at once, and not to seem long overdue.
        let sql = "UPDATE sessions SET expires_at = 0, look_at = LEAST(look_at, CAST($2 AS bigint) - 1) WHERE id = ANY($1)";
        txn.execute(sql, &[&left, &now]).await?;
    }
    txn.execute("DELETE FROM sessions WHERE id = ANY($1)", &[&ids]).await?;
    Ok(left.is_empty())
}

/// Ends the sessions of a user but those that are kept, as many as may end in one step.
pub(super) async fn end_all(txn: &Txn<'_>, user: UserId, kept: Kept, now: Timestamp) -> Result<Ended, Failure> {
    let kept = match kept {
        Kept::All => return Ok(Ended::default()),
        Kept::One(session) => Some(session),
        Kept::None => None,
    };
    // In one order, so that no two wait for one another: those that may end, the one that is kept, one more to know whether there are, and some
    // of those that something is left of.
    let new = concat!(
        "SELECT ",
        session_columns!(),
        " FROM sessions s WHERE s.user_id = $1 AND s.expires_at > 0 ORDER BY s.id LIMIT $2 FOR UPDATE"
    );
    let left = concat!(
        "SELECT ",
        session_columns!(),
        " FROM sessions s WHERE s.user_id = $1 AND s.expires_at = 0 ORDER BY s.id LIMIT $2 FOR UPDATE"
    );
    let most = i64::try_from(ENDED_AT_ONCE).unwrap_or(i64::MAX);
    let mut sessions = read_sessions(&txn.query(new, &[&user, &(most + 2)]).await?)?;
    sessions.retain(|session| Some(session.id) != kept);
    let has_more = sessions.len() > ENDED_AT_ONCE;
    sessions.truncate(ENDED_AT_ONCE);
    let number = sessions.len();
    let left = read_sessions(&txn.query(left, &[&user, &most]).await?)?;
    let may_be_more = left.len() == ENDED_AT_ONCE;
    sessions.extend(left);
    let is_whole = end(txn, &sessions, now).await?;
    Ok(Ended { number, has_more, leaves_some: !is_whole || may_be_more })
}

pub(super) fn read_sessions(rows: &[Row]) -> Result<Vec<Session>, Error> {
    rows.iter().map(|row| read_session(&mut Columns::of(row))).collect()
}

/// Ends a family, and says whether it was still there. Its app still hears of the session's end.
async fn end_family(txn: &Txn<'_>, id: FamilyId) -> Result<bool, Failure> {
    txn.query("SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", &[&id.session]).await?;
    let sql = concat!("DELETE FROM families f WHERE f.session_id = $1 AND f.number = $2 RETURNING ", family_columns!());
    let Some(row) = txn.query_opt(sql, &[&id.session, &i64::from(id.number)]).await? else {
        wait_for_what_is_there(txn).await?;
        return Ok(false);
    };
    keep_ended(txn, id.session, &read_family(&mut Columns::of(&row))?).await?;
    Ok(true)
}

/// Keeps a family that was ended by a replay.
pub(super) async fn keep_ended(txn: &Txn<'_>, session: SessionId, family: &Family) -> Result<(), Failure> {
    let sql = "INSERT INTO ended_families (session_id, hash, app, incarnation, scope, logout_uri, redirect_origin, generation, rotated_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (session_id, hash) DO NOTHING";
    txn.execute(sql, &family_values(&session, told_by(family), family).params()).await?;
    Ok(())
}

/// A code and what it hangs on.
struct CodeRead {
    code: Code,
    session: Option<Session>,
    user: Option<User>,
    /// Whether its app is enabled, and still the one of its incarnation.
    app_is_live: bool,
}

/// A family and what it hangs on. All of it is alive and enabled.
struct GrantRead {
    grant: Grant,
    requires_app_credential: bool,
}

fn contended() -> Error {
    Error::StoreUnavailable("too many change the same record at once".into())
}

impl PostgresStore {
    /// Ends the sessions of a user but those that are kept, in as many steps as it takes, and gives their number.
    pub(super) async fn end_all(&self, user: UserId, kept: Kept, now: Timestamp) -> Result<usize, Error> {
        let mut number = 0;
        loop {
            let ended = transact!(self.database, async |txn| {
                let ended = end_all(txn, user, kept, now).await?;
                if ended.number == 0 {
                    wait_for_what_is_there(txn).await?;
                }
                Ok(ended)
            })
            .await?;
            number += ended.number;
            if !ended.has_more {
                return Ok(number);
            }
        }
    }

    async fn read_code(&self, hash: &BearerHash, app: &AppId) -> Result<Option<CodeRead>, Error> {
        let sql = concat!(
            "SELECT ",
            code_columns!(),
            ", EXISTS (SELECT 1 FROM apps a WHERE a.id = c.app AND a.incarnation = c.incarnation AND a.enabled), s.id IS NOT NULL, ",
            session_columns!(),
            ", ",
            user_columns!(),
            " FROM codes c LEFT JOIN sessions s ON s.id = c.session_id LEFT JOIN users u ON u.id = s.user_id WHERE c.hash = $1 AND c.app = $2"
        );
        let Some(row) = self.database.query_opt(sql, &[hash, &app.as_str()]).await? else { return Ok(None) };
        let mut columns = Columns::of(&row);
        let (code, app_is_live) = (read_code(&mut columns)?, columns.next()?);
        let has_session: bool = columns.next()?;
        let (session, user) = if has_session { (Some(read_session(&mut columns)?), Some(read_user(&mut columns)?)) } else { (None, None) };
        Ok(Some(CodeRead { code, session, user, app_is_live }))
    }

    async fn live_grant(&self, id: FamilyId, now: Timestamp) -> Result<Option<GrantRead>, Error> {
        let sql = concat!(
            "SELECT ",
            family_columns!(),
            ", ",
            session_columns!(),
            ", ",
            user_columns!(),
            ", a.refresh_requires_app_credential FROM families f JOIN sessions s ON s.id = f.session_id \
             JOIN users u ON u.id = s.user_id AND u.enabled \
             JOIN apps a ON a.id = f.app AND a.incarnation = f.incarnation AND a.enabled \
             WHERE f.session_id = $1 AND f.number = $2"
        );
        let Some(row) = self.database.query_opt(sql, &[&id.session, &i64::from(id.number)]).await? else { return Ok(None) };
        let mut columns = Columns::of(&row);
        let (family, session) = (Arc::new(read_family(&mut columns)?), Arc::new(read_session(&mut columns)?));
        if !session.is_alive(now) {
            return Ok(None);
        }
        let user = Arc::new(read_user(&mut columns)?);
        Ok(Some(GrantRead { grant: Grant { family_id: id, family, session, user }, requires_app_credential: columns.next()? }))
    }

    /// Uses up what a step is done by: by itself, as the step may be tried again.
    async fn use_up(&self, using: Option<OneUse>) -> Result<(), Error> {
        match using {
            Some(using) if !self.use_once(using).await? => Err(Error::CredentialRefused),
            _ => Ok(()),
        }
    }

    async fn end_family(&self, id: FamilyId) -> Result<bool, Error> {
        transact!(self.database, async |txn| end_family(txn, id).await).await
    }
}

#[async_trait]
impl ReplayStore for PostgresStore {
    async fn use_once(&self, using: OneUse) -> Result<bool, Error> {
        let sql = "INSERT INTO used_up (hash, kept_until) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING RETURNING 1";
        Ok(self.database.query_opt(sql, &[&using.hash, &using.until]).await?.is_some())
    }

    async fn forget_use(&self, hash: &BearerHash) -> Result<(), Error> {
        self.database.query_opt("DELETE FROM used_up WHERE hash = $1", &[hash]).await.map(|_| ())
    }
}

#[async_trait]
impl SessionStore for PostgresStore {
    async fn open_session(&self, session: Session, password_hash: String) -> Result<User, Error> {
        transact!(self.database, async |txn| {
            // Shared, so that the user is not disabled between this and the insertion.
            let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1 FOR SHARE");
            let row = txn.query_opt(sql, &[&session.user]).await?.ok_or(Error::WrongPassword)?;
            let user = read_user(&mut Columns::of(&row))?;
            if user.password_hash.as_deref() != Some(password_hash.as_str()) {
                return Err(Error::WrongPassword.into());
            }
            if !user.enabled {
                return Err(Error::UserDisabled.into());
            }
            open(txn, &session).await?;
            Ok(user)
        })
        .await
    }

    async fn session_of_ticket(&self, ticket: &BearerHash, now: Timestamp) -> Result<Option<SignedIn>, Error> {
        let sql = concat!(
            "SELECT ",
            session_columns!(),
            ", ",
            user_columns!(),
            " FROM sessions s JOIN users u ON u.id = s.user_id AND u.enabled WHERE s.ticket = $1"
        );
        let Some(row) = self.database.query_opt(sql, &[ticket]).await? else { return Ok(None) };
        let mut columns = Columns::of(&row);
        let session = Arc::new(read_session(&mut columns)?);
        Ok(if session.is_alive(now) { Some(SignedIn { session, user: Arc::new(read_user(&mut columns)?) }) } else { None })
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let row = self.database.query_opt(concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.id = $1"), &[&id]).await?;
        let session = row.map(|row| read_session(&mut Columns::of(&row))).transpose()?;
        Ok(session.filter(|session| !session.has_ended()))
    }

    async fn sessions(&self, user: Option<UserId>, after: After<SessionId>, limit: usize, now: Timestamp) -> Result<SessionPage, Error> {
        let select = concat!(
            "SELECT ",
            session_columns!(),
            ", ",
            user_columns!(),
            ", ARRAY(SELECT DISTINCT f.app FROM families f JOIN apps a ON a.id = f.app AND a.incarnation = f.incarnation \
             WHERE f.session_id = s.id) FROM sessions s JOIN users u ON u.id = s.user_id"
        );
        // Two statements, because each has an index of its own.
        let sql = match user {
            None => format!("{select} WHERE s.id > $1 ORDER BY s.id LIMIT $2"),
            Some(_) => format!("{select} WHERE s.id > $1 AND s.user_id = $3 ORDER BY s.user_id, s.id LIMIT $2"),
        };
        let mut page = SessionPage { sessions: Vec::new(), next: None };
        let mut begin: Vec<u8> = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let batch = i64::try_from(limit).unwrap_or(i64::MAX);
        loop {
            let rows = match &user {
                None => self.database.query(&sql, &[&begin, &batch]).await?,
                Some(user) => self.database.query(&sql, &[&begin, &batch, user]).await?,
            };
            for row in &rows {
                let mut columns = Columns::of(row);
                let session = read_session(&mut columns)?;
                begin = session.id.as_bytes().to_vec();
                if !session.is_alive(now) {
                    continue;
                }
                let user = read_user(&mut columns)?;
                let mut apps: Vec<AppId> = columns.next::<Vec<&str>>()?.into_iter().filter_map(AppId::new).collect();
                apps.sort();
                let id = session.id;
                page.sessions.push((SignedIn { session: Arc::new(session), user: Arc::new(user) }, apps));
                if page.sessions.len() == limit {
                    page.next = Some(id);
                    return Ok(page);
                }
            }
            if rows.len() < limit {
                return Ok(page);
            }
        }
    }

    async fn end_session(&self, id: SessionId, now: Timestamp) -> Result<bool, Error> {
        transact!(self.database, async |txn| {
            let sql = concat!("SELECT ", session_columns!(), " FROM sessions s WHERE s.id = $1 FOR UPDATE");
            let mut sessions = read_sessions(&txn.query(sql, &[&id]).await?)?;
            sessions.retain(|session| !session.has_ended());
            if sessions.is_empty() {
                wait_for_what_is_there(txn).await?;
            }
            end(txn, &sessions, now).await?;
            Ok(!sessions.is_empty())
        })
        .await
    }

    async fn end_sessions_of(&self, user: UserId, now: Timestamp) -> Result<usize, Error> {
        self.end_all(user, Kept::None, now).await
    }

    async fn create_code(&self, hash: BearerHash, code: Code, now: Timestamp) -> Result<(), Error> {
        let read = concat!(
            "SELECT u.enabled, EXISTS (SELECT 1 FROM apps a WHERE a.id = $2 AND a.incarnation = $3 AND a.enabled), ",
            session_columns!(),
            " FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1"
        );
        let row = self.database.query_opt(read, &[&code.session, &code.app.as_str(), &code.incarnation]).await?;
        let row = row.ok_or(Error::CredentialRefused)?;
        let mut columns = Columns::of(&row);
        let (user_is_enabled, app_is_live): (bool, bool) = (columns.next()?, columns.next()?);
        if !user_is_enabled || !read_session(&mut columns)?.is_alive(now) {
            return Err(Error::CredentialRefused);
        }
        if !app_is_live {
            return Err(Error::UnknownApp);
        }
        // A session that has ended meanwhile has no row to be kept alive, or one that says so.
        let write = "WITH kept AS (UPDATE sessions SET last_used_at = GREATEST(last_used_at, $10) WHERE id = $4 AND expires_at > 0 RETURNING id) \
                     INSERT INTO codes (hash, app, incarnation, session_id, redirect_uri, scope, expires_at, used, kept_until) \
                     SELECT $1, $2, $3, kept.id, $5, $6, $7, $8, $9 FROM kept RETURNING 1";
        let values = code_values(&hash, &code);
        let written = self.database.query_opt(write, &[values.params(), vec![&now]].concat()).await?;
        written.map(|_| ()).ok_or(Error::CredentialRefused)
    }

    async fn redeem_code(
        &self,
        hash: &BearerHash,
        app: &AppId,
        logout_uri: String,
        using: Option<OneUse>,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        self.use_up(using).await?;
        // The family's number is the session's next one, and the code takes it only if it has none yet: whoever comes second waits for
        // the session's row, and then finds that it has.
        let write = "WITH kept AS (\
                         UPDATE sessions SET next_family = next_family + 1, last_used_at = GREATEST(last_used_at, $9) \
                         WHERE id = $1 AND expires_at > 0 RETURNING id, next_family - 1 AS number, last_used_at\
                     ), used AS (\
                         UPDATE codes SET used = kept.number FROM kept WHERE codes.hash = $2 AND codes.used IS NULL RETURNING codes.used\
                     ) \
                     INSERT INTO families (session_id, number, app, incarnation, scope, logout_uri, redirect_origin, generation, rotated_at) \
                     SELECT kept.id, kept.number, $3, $4, $5, $6, $7, $8, $9 FROM kept JOIN used ON used.used = kept.number \
                     RETURNING number, (SELECT last_used_at FROM kept)";
        for _ in 0..ATTEMPTS {
            let Some(CodeRead { code, session, user, app_is_live }) = self.read_code(hash, app).await? else {
                return Err(Error::CodeRefused);
            };
            let (Some(mut session), true) = (session.filter(|session| session.is_alive(now)), app_is_live) else {
                return Err(Error::CodeRefused);
            };
            if let Some(family) = code.used {
                self.end_family(family).await?;
                return Err(Error::CodeReplayed);
            }
            let (Some(user), true) = (user.filter(|user| user.enabled), now < code.expires_at) else { return Err(Error::CodeRefused) };
            let family = Family {
                redirect_origin: redirect::origin(&code.redirect_uri),
                app: code.app,
                incarnation: code.incarnation,
                scope: code.scope,
                logout_uri: logout_uri.clone(),
                generation: 0,
                rotated_at: now,
            };
            let written = self.database.query_opt(write, &family_values(&session.id, *hash, &family).params()).await?;
            if let Some(row) = written {
                let mut columns = Columns::of(&row);
                let number =
                    u32::try_from(columns.next::<i64>()?).map_err(|_| Error::Internal("a session has too many families".into()))?;
                session.last_used_at = columns.next()?;
                session.next_family = number + 1;
                let family_id = FamilyId { session: session.id, number };
                return Ok(Grant { family_id, family: Arc::new(family), session: Arc::new(session), user: Arc::new(user) });
            }
        }
        Err(contended())
    }

    async fn rotate_refresh_token(&self, rotation: Rotation, by: Refresher, using: Option<OneUse>, now: Timestamp) -> Result<Grant, Error> {
        self.use_up(using).await?;
        let id = rotation.family;
        // The session is kept alive if it is still there, and the family if it still has the generation that was judged.
        macro_rules! keep {
            ($session:literal) => {
                concat!(
                    "UPDATE sessions s SET last_used_at = GREATEST(s.last_used_at, $4) WHERE s.id = ",
                    $session,
                    " AND s.expires_at > 0 \
                     AND EXISTS (SELECT 1 FROM families f WHERE f.session_id = $1 AND f.number = $2 AND f.generation = $3) \
                     RETURNING s.last_used_at"
                )
            };
        }
        let keep = keep!("$1");
        let keep_if_free = keep!("(SELECT o.id FROM sessions o WHERE o.id = $1 FOR NO KEY UPDATE SKIP LOCKED)");
        let turn = "WITH kept AS (\
                        UPDATE sessions SET last_used_at = GREATEST(last_used_at, $4) WHERE id = $1 AND expires_at > 0 \
                        RETURNING id, last_used_at\
                    ) \
                    UPDATE families f SET generation = f.generation + 1, rotated_at = $4 FROM kept \
                    WHERE f.session_id = kept.id AND f.number = $2 AND f.generation = $3 RETURNING kept.last_used_at";
        for _ in 0..ATTEMPTS {
            let Some(GrantRead { mut grant, requires_app_credential }) = self.live_grant(id, now).await? else {
                return Err(Error::RefreshTokenRefused);
            };
            match &by {
                Refresher::App(app) if *app == grant.family.app => {}
                Refresher::Family(family) if *family == id => {
                    if requires_app_credential {
                        return Err(Error::CredentialRequired);
                    }
                }
                Refresher::App(_) | Refresher::Family(_) => return Err(Error::RefreshTokenRefused),
            }
            let judged = i64::from(grant.family.generation);
            let mut may_stay = false;
            let write = match judge(&grant.family, &rotation, now) {
                Turn::Unknown => return Err(Error::RefreshTokenRefused),
                Turn::Replay => {
                    let was_there = self.end_family(id).await?;
                    return Err(if was_there { Error::RefreshTokenReplayed } else { Error::RefreshTokenRefused });
                }
                Turn::Repeat if now.since(grant.session.last_used_at) < JUST_USED => {
                    may_stay = true;
                    keep_if_free
                }
                Turn::Repeat => keep,
                Turn::Rotate => {
                    let family = Arc::make_mut(&mut grant.family);
                    family.generation = family.generation.checked_add(1).ok_or(Error::RefreshTokenRefused)?;
                    family.rotated_at = now;
                    turn
                }
            };
            if let Some(row) = self.database.query_opt(write, &[&id.session, &i64::from(id.number), &judged, &now]).await? {
                Arc::make_mut(&mut grant.session).last_used_at = Columns::of(&row).next()?;
                return Ok(grant);
            }
            if may_stay {
                // As it was when it was read.
                return Ok(grant);
            }
        }
        Err(contended())
    }

    async fn grant(&self, family: FamilyId, now: Timestamp) -> Result<Option<Grant>, Error> {
        Ok(self.live_grant(family, now).await?.map(|read| read.grant))
    }
}
