//! Sessions, codes and refresh token families.

use std::{cell::RefCell, sync::Arc};

use async_trait::async_trait;

use super::{
    SledStore, authorities, keys,
    logouts::Owing,
    records::Mark,
    txn::{Kind, Txn},
};
use crate::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, FamilyId, SessionId, UserId},
        model::{App, Code, Family, Grant, Session, SignedIn, User},
        redirect,
        secret::BearerHash,
    },
    store::{After, ENDED_AT_ONCE, Kept, OneUse, Refresher, ReplayStore, Rotation, SessionPage, SessionStore, Turn, judge, rules::Ended},
};

/// Opens a session.
pub(super) fn open(txn: &mut Txn<'_>, session: &Session) -> Result<(), Error> {
    look_again(txn, session)?;
    txn.put(&keys::ticket(&session.ticket), &session.id)?;
    txn.put(&keys::session(session.id), session)
}

/// Notes when to look whether a session has ended, and where that is noted.
fn look_again(txn: &mut Txn<'_>, session: &Session) -> Result<(), Error> {
    look_again_at(txn, session, session.ends_at())
}

fn look_again_at(txn: &mut Txn<'_>, session: &Session, at: Timestamp) -> Result<(), Error> {
    txn.put_raw(&keys::expiry(at, &keys::session(session.id)), Vec::new());
    txn.put(&keys::session_of(session.user, session.id), &at)
}

/// Ends a session, and owes its apps that they are told. `room` is how many more families may end in this step; gives false when it has more:
/// then it is dead, and the purge goes on with it. A session that would fit into a step by itself is not cut in two, so that its apps are told
/// once.
fn end(txn: &mut Txn<'_>, session: &Session, now: Timestamp, room: &mut usize) -> Result<bool, Error> {
    let mut families = Vec::new();
    for prefix in [keys::families_of(session.id), keys::ended_families_of(session.id)] {
        for key in txn.keys(&prefix).take(*room + 1) {
            families.push(key?);
        }
    }
    let is_whole = families.len() <= *room;
    families.truncate(if is_whole || *room == ENDED_AT_ONCE { *room } else { 0 });
    *room = if is_whole { *room - families.len() } else { 0 };
    let mut owing = Owing::new(session, now);
    for key in families {
        owing.note(txn, &key)?;
        txn.remove(&key);
    }
    let (at, of_user) = (keys::session(session.id), keys::session_of(session.user, session.id));
    // One that cannot be read must not keep the session from being ended: it is found when its time comes.
    let look_at = txn.get::<Timestamp>(&of_user).unwrap_or_default();
    if let Some(look_at) = look_at {
        txn.remove(&keys::expiry(look_at, &at));
    }
    if is_whole {
        txn.remove(&of_user);
        txn.remove(&keys::ticket(&session.ticket));
        txn.remove(&at);
    } else {
        let mut dead = session.clone();
        dead.end();
        txn.put(&at, &dead)?;
        // The purge is to find it at once, and not to seem long overdue.
        let just_now = Timestamp::from_millis(now.millis().saturating_sub(1));
        look_again_at(txn, &dead, look_at.map_or(just_now, |look_at| look_at.min(just_now)))?;
    }
    Ok(is_whole)
}

/// Ends a family. Its app still hears of the session's end.
fn end_family(txn: &mut Txn<'_>, id: FamilyId) -> Result<(), Error> {
    let at = keys::family(id);
    if let Some(family) = txn.get::<Family>(&at)? {
        txn.put(&keys::ended_family(id.session, &family), &family)?;
    }
    txn.remove(&at);
    Ok(())
}

/// Ends the sessions of a user but those that are kept, as many as may end in one step.
pub(super) fn end_all(txn: &mut Txn<'_>, user: UserId, kept: Kept, now: Timestamp) -> Result<Ended, Error> {
    let mut ended = Ended::default();
    if kept == Kept::All {
        return Ok(ended);
    }
    let mut room = ENDED_AT_ONCE;
    for key in txn.keys(&keys::sessions_of(user)) {
        let id = keys::session_at_end(&key?);
        if id.map(Kept::One) == Some(kept) {
            continue;
        }
        if let Some(session) = id.map(|id| txn.get::<Session>(&keys::session(id))).transpose()?.flatten() {
            let is_new = !session.has_ended();
            if is_new && ended.number == ENDED_AT_ONCE {
                ended.has_more = true;
                break;
            }
            ended.number += usize::from(is_new);
            let is_whole = (is_new || room > 0) && end(txn, &session, now, &mut room)?;
            ended.leaves_some |= !is_whole;
        }
    }
    Ok(ended)
}

/// Keeps a new code.
pub(super) fn put_code(txn: &mut Txn<'_>, hash: &BearerHash, code: &Code) -> Result<(), Error> {
    let at = keys::code(hash);
    txn.put_raw(&keys::expiry(code.kept_until, &at), Vec::new());
    txn.put(&at, code)
}

/// Remembers that something was used.
pub(super) fn put_used(txn: &mut Txn<'_>, hash: &BearerHash, until: Timestamp) -> Result<(), Error> {
    let at = keys::used(hash);
    txn.put_raw(&keys::expiry(until, &at), Vec::new());
    txn.put(&at, &until)
}

/// Uses something up; gives false when it was before.
fn use_up(txn: &mut Txn<'_>, using: OneUse) -> Result<bool, Error> {
    let is_first = !txn.has(&keys::used(&using.hash))?;
    if is_first {
        put_used(txn, &using.hash, using.until)?;
    }
    Ok(is_first)
}

/// Looks at a record whose time may have come: removes it, or notes when to look again. `room` is as for [`end`].
pub(super) fn expire(txn: &mut Txn<'_>, key: &[u8], now: Timestamp, room: &mut usize) -> Result<(), Error> {
    if key.starts_with(keys::SESSIONS) {
        if let Some(session) = txn.get::<Session>(key)? {
            if session.is_alive(now) {
                look_again(txn, &session)?;
            } else {
                end(txn, &session, now, room)?;
            }
        }
    } else if key.starts_with(keys::AUTHORITIES) {
        authorities::expire(txn, key, now)?;
    } else if [keys::CODES, keys::USED, keys::GIVEN_UP].iter().any(|kind| key.starts_with(kind)) {
        txn.remove(key);
    }
    Ok(())
}

/// Where records are read from: the store as it is, or inside a step.
trait Read {
    fn record<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error>;

    /// A session that is alive.
    fn live_session(&self, id: SessionId, now: Timestamp) -> Result<Option<Arc<Session>>, Error> {
        Ok(self.record::<Session>(&keys::session(id))?.filter(|session| session.is_alive(now)))
    }

    /// An app that is enabled, and still the one of that incarnation.
    fn enabled_app(&self, id: &AppId) -> Result<Option<Arc<App>>, Error> {
        Ok(self.record::<App>(&keys::app(id))?.filter(|app| app.enabled))
    }

    /// The user of a session, if he is enabled.
    fn enabled_user(&self, id: UserId) -> Result<Option<Arc<User>>, Error> {
        Ok(self.record::<User>(&keys::user(id))?.filter(|user| user.enabled))
    }

    /// What the tokens of a family stand for, and the app.
    fn live_grant(&self, id: FamilyId, now: Timestamp) -> Result<Option<(Grant, Arc<App>)>, Error> {
        let Some(family) = self.record::<Family>(&keys::family(id))? else { return Ok(None) };
        let Some(session) = self.live_session(id.session, now)? else { return Ok(None) };
        let Some(app) = self.enabled_app(&family.app)?.filter(|app| app.incarnation == family.incarnation) else { return Ok(None) };
        let Some(user) = self.enabled_user(session.user)? else { return Ok(None) };
        Ok(Some((Grant { family_id: id, family, session, user }, app)))
    }
}

impl Read for SledStore {
    fn record<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        self.read(key)
    }
}

/// The store as it is, with a mark for each record that was read.
struct Marking<'a> {
    store: &'a SledStore,
    marks: RefCell<Vec<Mark>>,
}

impl Read for Marking<'_> {
    fn record<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        self.marks.borrow_mut().push(self.store.writer.beside.records.mark(key));
        self.store.read(key)
    }
}

impl Read for Txn<'_> {
    fn record<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        self.read(key)
    }
}

fn redeem(txn: &mut Txn<'_>, hash: &BearerHash, app: &AppId, logout_uri: String, now: Timestamp) -> Result<Result<Grant, Error>, Error> {
    let at = keys::code(hash);
    let Some(mut code) = txn.get::<Code>(&at)?.filter(|code| code.app == *app) else { return Ok(Err(Error::CodeRefused)) };
    let live_app = txn.enabled_app(app)?.filter(|app| app.incarnation == code.incarnation);
    let (Some(_), Some(mut session)) = (live_app, txn.live_session(code.session, now)?) else { return Ok(Err(Error::CodeRefused)) };
    if let Some(family) = code.used {
        end_family(txn, family)?;
        return Ok(Err(Error::CodeReplayed));
    }
    let user = txn.enabled_user(session.user)?;
    let (Some(user), true) = (user, now < code.expires_at) else { return Ok(Err(Error::CodeRefused)) };

    let family_id = FamilyId { session: session.id, number: session.next_family };
    let Some(next_family) = session.next_family.checked_add(1) else { return Ok(Err(Error::CodeRefused)) };
    let kept_alive = Arc::make_mut(&mut session);
    kept_alive.next_family = next_family;
    kept_alive.last_used_at = kept_alive.last_used_at.max(now);
    let family = Family {
        app: code.app.clone(),
        incarnation: code.incarnation,
        scope: code.scope.clone(),
        logout_uri,
        redirect_origin: redirect::origin(&code.redirect_uri),
        generation: 0,
        rotated_at: now,
    };
    let family = Arc::new(family);
    code.used = Some(family_id);
    txn.put(&at, &code)?;
    txn.put_record(&keys::family(family_id), &family)?;
    txn.put_record(&keys::session(session.id), &session)?;
    Ok(Ok(Grant { family_id, family, session, user }))
}

fn rotate(txn: &mut Txn<'_>, rotation: &Rotation, by: &Refresher, now: Timestamp) -> Result<Result<Grant, Error>, Error> {
    let refused = Ok(Err(Error::RefreshTokenRefused));
    let Some((mut grant, app)) = txn.live_grant(rotation.family, now)? else { return refused };
    match by {
        Refresher::App(app) if *app == grant.family.app => {}
        Refresher::Family(family) if *family == rotation.family => {
            if app.refresh_requires_app_credential {
                return Ok(Err(Error::CredentialRequired));
            }
        }
        Refresher::App(_) | Refresher::Family(_) => return refused,
    }
    let at = keys::family(rotation.family);
    match judge(&grant.family, rotation, now) {
        Turn::Unknown => return refused,
        Turn::Replay => {
            end_family(txn, rotation.family)?;
            return Ok(Err(Error::RefreshTokenReplayed));
        }
        Turn::Repeat => {}
        Turn::Rotate => {
            let Some(next) = grant.family.generation.checked_add(1) else { return refused };
            let family = Arc::make_mut(&mut grant.family);
            family.generation = next;
            family.rotated_at = now;
            txn.put_record(&at, &grant.family)?;
        }
    }
    let session = Arc::make_mut(&mut grant.session);
    session.last_used_at = session.last_used_at.max(now);
    txn.put_record(&keys::session(grant.session.id), &grant.session)?;
    Ok(Ok(grant))
}

impl SledStore {
    /// Runs a step for whoever has something that works once, which is used up in the same step. A refusal may have something to write, too.
    async fn run_using<T: Send + 'static>(
        &self,
        using: Option<OneUse>,
        step: impl FnOnce(&mut Txn<'_>) -> Result<Result<T, Error>, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let step = move |txn: &mut Txn<'_>| match using {
            Some(using) if !use_up(txn, using)? => Ok(Err(Error::CredentialRefused)),
            _ => step(txn),
        };
        self.run(step).await?
    }

    /// Ends the sessions of a user but those that are kept, in as many steps as it takes, and gives their number.
    pub(super) async fn end_all(&self, user: UserId, kept: Kept, now: Timestamp) -> Result<usize, Error> {
        let mut number = 0;
        loop {
            let ended = self.run(move |txn| end_all(txn, user, kept, now)).await?;
            number += ended.number;
            if !ended.has_more {
                return Ok(number);
            }
        }
    }
}

#[async_trait]
impl ReplayStore for SledStore {
    async fn use_once(&self, using: OneUse) -> Result<bool, Error> {
        self.run(move |txn| use_up(txn, using)).await
    }

    async fn forget_use(&self, hash: &BearerHash) -> Result<(), Error> {
        let at = keys::used(hash);
        self.run(move |txn| {
            if let Some(until) = txn.get::<Timestamp>(&at)? {
                txn.remove(&keys::expiry(until, &at));
                txn.remove(&at);
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl SessionStore for SledStore {
    async fn open_session(&self, session: Session, password_hash: String) -> Result<User, Error> {
        self.run(move |txn| {
            let user: User = txn.get(&keys::user(session.user))?.ok_or(Error::WrongPassword)?;
            if user.password_hash.as_deref() != Some(password_hash.as_str()) {
                return Err(Error::WrongPassword);
            }
            if !user.enabled {
                return Err(Error::UserDisabled);
            }
            open(txn, &session)?;
            Ok(user)
        })
        .await
    }

    async fn session_of_ticket(&self, ticket: &BearerHash, now: Timestamp) -> Result<Option<SignedIn>, Error> {
        let Some(id) = self.get::<SessionId>(&keys::ticket(ticket))? else { return Ok(None) };
        let Some(session) = self.live_session(id, now)? else { return Ok(None) };
        Ok(self.enabled_user(session.user)?.map(|user| SignedIn { session, user }))
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        Ok(self.get::<Session>(&keys::session(id))?.filter(|session| !session.has_ended()))
    }

    async fn sessions(&self, user: Option<UserId>, after: After<SessionId>, limit: usize, now: Timestamp) -> Result<SessionPage, Error> {
        let tree = self.tree();
        let scan = move || {
            let prefix = user.map_or_else(|| keys::SESSIONS.to_vec(), keys::sessions_of);
            let begin = after.map_or_else(|| prefix.clone(), |id| [prefix.as_slice(), id.as_bytes()].concat());
            let mut page = SessionPage { sessions: Vec::new(), next: None };
            let range = (std::ops::Bound::Excluded(begin), std::ops::Bound::Unbounded);
            for key in tree.range::<Vec<u8>, _>(range).keys() {
                let key = key.map_err(super::unavailable)?;
                let Some(id) = keys::session_at_end(&key).filter(|_| key.starts_with(&prefix)) else { break };
                let Some(session) = super::get::<Session>(&tree, &keys::session(id))?.filter(|session| session.is_alive(now)) else {
                    continue;
                };
                let Some(user) = super::get::<User>(&tree, &keys::user(session.user))? else { continue };
                let mut apps = Vec::new();
                for family in tree.scan_prefix(keys::families_of(id)).values() {
                    let family: Family = super::decode(&family.map_err(super::unavailable)?)?;
                    // What was given to an earlier life of the app is dead.
                    let app = super::get::<App>(&tree, &keys::app(&family.app))?;
                    if app.is_some_and(|app| app.incarnation == family.incarnation) {
                        apps.push(family.app);
                    }
                }
                apps.sort();
                apps.dedup();
                page.sessions.push((SignedIn { session: Arc::new(session), user: Arc::new(user) }, apps));
                if page.sessions.len() == limit {
                    page.next = Some(id);
                    break;
                }
            }
            Ok(page)
        };
        tokio::task::spawn_blocking(scan).await.map_err(|error| Error::Internal(error.to_string()))?
    }

    async fn end_session(&self, id: SessionId, now: Timestamp) -> Result<bool, Error> {
        self.run(move |txn| {
            let session = txn.get::<Session>(&keys::session(id))?.filter(|session| !session.has_ended());
            if let Some(session) = &session {
                let mut room = ENDED_AT_ONCE;
                end(txn, session, now, &mut room)?;
            }
            Ok(session.is_some())
        })
        .await
    }

    async fn end_sessions_of(&self, user: UserId, now: Timestamp) -> Result<usize, Error> {
        self.end_all(user, Kept::None, now).await
    }

    async fn create_code(&self, hash: BearerHash, code: Code, now: Timestamp) -> Result<(), Error> {
        self.run(move |txn| {
            let mut session = txn.live_session(code.session, now)?.ok_or(Error::CredentialRefused)?;
            txn.enabled_user(session.user)?.ok_or(Error::CredentialRefused)?;
            txn.enabled_app(&code.app)?.filter(|app| app.incarnation == code.incarnation).ok_or(Error::UnknownApp)?;
            let kept_alive = Arc::make_mut(&mut session);
            kept_alive.last_used_at = kept_alive.last_used_at.max(now);
            txn.put_record(&keys::session(session.id), &session)?;
            put_code(txn, &hash, &code)
        })
        .await
    }

    async fn redeem_code(
        &self,
        hash: &BearerHash,
        app: &AppId,
        logout_uri: String,
        using: Option<OneUse>,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let (hash, app) = (*hash, app.clone());
        self.run_using(using, move |txn| redeem(txn, &hash, &app, logout_uri, now)).await
    }

    async fn rotate_refresh_token(&self, rotation: Rotation, by: Refresher, using: Option<OneUse>, now: Timestamp) -> Result<Grant, Error> {
        self.run_using(using, move |txn| rotate(txn, &rotation, &by, now)).await
    }

    async fn grant(&self, family: FamilyId, now: Timestamp) -> Result<Option<Grant>, Error> {
        let records = &self.writer.beside.records;
        let grant = records.grant(family, || {
            let marking = Marking { store: self, marks: RefCell::default() };
            let found = marking.live_grant(family, now)?;
            Ok(found.map(|(grant, _)| (grant, marking.marks.into_inner())))
        })?;
        Ok(grant.filter(|grant| grant.session.is_alive(now)))
    }
}
