//! What a store does, told as simply as can be: facts are noted and never removed, and what is alive is asked of them anew each time.
//!
//! Everything happens at even milliseconds and ends at even ones, and purges come in between, so that nothing ends at the very moment of
//! a purge, where a store may have it either way.

use std::{collections::BTreeSet, time::Duration};

use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        ids::{Incarnation, SessionId, UserId},
        model::{App, Code, Family, Session, User},
        secret::BearerHash,
    },
    store::OneUse,
};

use crate::scene::{CODE_LIFETIME, GRACE, app, at, code, session, user};

/// Where apps say that they want to be told, and where they are.
pub(crate) const PLACES: [(&str, Option<&str>); 4] = [
    ("", None),
    ("/out", Some("https://{app}.example/out")),
    ("https://out.{app}.example/bye", Some("https://out.{app}.example/bye")),
    ("https://elsewhere.example/out", None),
];

pub(crate) struct SessionFacts {
    pub(crate) record: Session,
    pub(crate) has_ended: bool,
}

pub(crate) struct CodeFacts {
    pub(crate) hash: BearerHash,
    pub(crate) record: Code,
    pub(crate) family: Option<usize>,
    pub(crate) is_forgotten: bool,
}

pub(crate) struct FamilyFacts {
    pub(crate) session: SessionId,
    pub(crate) record: Family,
    pub(crate) place: usize,
    pub(crate) was_replayed: bool,
}

/// A call that is owed: to whom, where, and for which session.
pub(crate) type Call = (String, Incarnation, String, SessionId);

/// All that has happened.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) now: Timestamp,
    pub(crate) apps: Vec<App>,
    pub(crate) users: Vec<User>,
    pub(crate) sessions: Vec<SessionFacts>,
    pub(crate) codes: Vec<CodeFacts>,
    pub(crate) families: Vec<FamilyFacts>,
    pub(crate) used: Vec<(BearerHash, Timestamp)>,
    pub(crate) owed: BTreeSet<Call>,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self { now: at(0), ..Self::default() }
    }

    // What is alive.

    pub(crate) fn app(&self, name: &str) -> Option<&App> {
        self.apps.iter().find(|app| app.id.as_str() == name)
    }

    pub(crate) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    fn is_app_live(&self, name: &str, life: Incarnation) -> bool {
        self.app(name).is_some_and(|app| app.incarnation == life && app.enabled)
    }

    fn find(&self, id: SessionId) -> &SessionFacts {
        self.sessions.iter().find(|session| session.record.id == id).unwrap()
    }

    pub(crate) fn is_session_live(&self, id: SessionId) -> bool {
        let session = self.find(id);
        let idle_end = session.record.last_used_at.after(session.record.idle_lifetime);
        !session.has_ended && self.now < idle_end && self.now < session.record.expires_at
    }

    pub(crate) fn is_family_live(&self, family: &FamilyFacts) -> bool {
        !family.was_replayed
            && self.is_session_live(family.session)
            && self.is_app_live(family.record.app.as_str(), family.record.incarnation)
    }

    /// The apps that hold tokens of a session.
    pub(crate) fn holders(&self, session: SessionId) -> BTreeSet<String> {
        let holding = self.families.iter().filter(|family| family.session == session && !family.was_replayed);
        let alive = holding.filter(|family| self.is_app_life(&family.record));
        alive.map(|family| family.record.app.as_str().to_owned()).collect()
    }

    fn is_app_life(&self, family: &Family) -> bool {
        self.app(family.app.as_str()).is_some_and(|app| app.incarnation == family.incarnation)
    }

    // What happens.

    pub(crate) fn keep_alive(&mut self, id: SessionId) {
        let now = self.now;
        let session = self.sessions.iter_mut().find(|session| session.record.id == id).unwrap();
        session.record.last_used_at = session.record.last_used_at.max(now);
    }

    /// Ends the sessions that are chosen, and says how many there were.
    pub(crate) fn end(&mut self, chosen: impl Fn(&Session) -> bool) -> usize {
        let ending: Vec<SessionId> =
            self.sessions.iter().filter(|session| !session.has_ended && chosen(&session.record)).map(|session| session.record.id).collect();
        for id in &ending {
            let told = self.families.iter().filter(|family| family.session == *id && self.is_app_life(&family.record));
            let calls = told.filter_map(|family| {
                let app = family.record.app.as_str().to_owned();
                let place = PLACES[family.place].1?.replace("{app}", &app);
                Some((app, family.record.incarnation, place, *id))
            });
            let calls: Vec<Call> = calls.collect();
            self.owed.extend(calls);
            self.sessions.iter_mut().find(|session| session.record.id == *id).unwrap().has_ended = true;
        }
        ending.len()
    }

    pub(crate) fn make_app(&mut self, name: &str) -> (App, bool) {
        let made = app(name);
        let is_new = self.app(name).is_none();
        if is_new {
            self.apps.push(made.clone());
        }
        (made, is_new)
    }

    pub(crate) fn make_user(&mut self, name: &str) -> (User, bool) {
        let made = user(name);
        let is_new = self.user(name).is_none();
        if is_new {
            self.users.push(made.clone());
        }
        (made, is_new)
    }

    /// Changes a user, or deletes him, if an administrator is left then.
    pub(crate) fn change_user(&mut self, name: &str, change: impl Fn(&mut User), delete: bool) -> Result<(), Error> {
        let is_administrator = |user: &User| user.enabled && user.account_type == 1;
        let mut users = self.users.clone();
        let Some(at) = users.iter().position(|user| user.name == name) else { return Err(Error::NotFound("user")) };
        change(&mut users[at]);
        let changed = users[at].clone();
        if delete {
            users.remove(at);
        }
        if self.users.iter().any(is_administrator) && !users.iter().any(is_administrator) {
            return Err(Error::Precondition(""));
        }
        self.users = users;
        if delete || !changed.enabled {
            self.end(|session| session.user == changed.id);
        }
        Ok(())
    }

    pub(crate) fn set_password(
        &mut self,
        name: &str,
        hash: &str,
        replaces: Option<&str>,
        keeps: impl Fn(SessionId) -> bool,
    ) -> Result<(), Error> {
        let now = self.now;
        let user = self.users.iter_mut().find(|user| user.name == name).ok_or(Error::NotFound("user"))?;
        if replaces.is_some() && replaces != user.password_hash.as_deref() {
            return Err(Error::WrongPassword);
        }
        (user.password_hash, user.password_change_required, user.updated_at) = (Some(hash.to_owned()), false, now);
        let id = user.id;
        self.end(|session| session.user == id && !keeps(session.id));
        Ok(())
    }

    /// A new session, and whether it is opened.
    pub(crate) fn open(&mut self, user: UserId, hash: &str) -> (Session, Result<(), Error>) {
        let record = session(user, self.now);
        let outcome = match self.users.iter().find(|known| known.id == user) {
            Some(known) if known.password_hash.as_deref() != Some(hash) => Err(Error::WrongPassword),
            None => Err(Error::WrongPassword),
            Some(known) if !known.enabled => Err(Error::UserDisabled),
            Some(_) => Ok(()),
        };
        if outcome.is_ok() {
            self.sessions.push(SessionFacts { record: record.clone(), has_ended: false });
        }
        (record, outcome)
    }

    /// A new code, and whether it is made.
    pub(crate) fn make_code(&mut self, hash: BearerHash, app: &App, session: SessionId) -> (Code, Result<(), Error>) {
        let record = code(app, session, self.now);
        if !self.is_session_live(session) {
            return (record, Err(Error::CredentialRefused));
        }
        if !self.is_app_live(app.id.as_str(), app.incarnation) {
            return (record, Err(Error::UnknownApp));
        }
        self.keep_alive(session);
        self.codes.push(CodeFacts { hash, record: record.clone(), family: None, is_forgotten: false });
        (record, Ok(()))
    }

    /// Redeems a code, and gives its family.
    pub(crate) fn redeem(&mut self, code: usize, app: &str, place: usize) -> Result<usize, Error> {
        let known = &self.codes[code];
        let (record, session) = (known.record.clone(), known.record.session);
        let is_its = !known.is_forgotten && record.app.as_str() == app && self.is_app_live(app, record.incarnation);
        if !is_its || !self.is_session_live(session) {
            return Err(Error::CodeRefused);
        }
        if let Some(family) = known.family {
            self.families[family].was_replayed = true;
            return Err(Error::CodeReplayed);
        }
        if self.now >= record.expires_at {
            return Err(Error::CodeRefused);
        }
        let family = Family {
            logout_uri: PLACES[place].0.replace("{app}", app),
            redirect_origin: format!("https://{app}.example"),
            app: record.app,
            incarnation: record.incarnation,
            scope: record.scope,
            generation: 0,
            rotated_at: self.now,
        };
        self.codes[code].family = Some(self.families.len());
        self.families.push(FamilyFacts { session, record: family, place, was_replayed: false });
        self.keep_alive(session);
        Ok(self.families.len() - 1)
    }

    /// Uses a refresh token, as an app or by an access token of a family.
    pub(crate) fn refresh(&mut self, family: usize, generation: u32, by: Result<&str, usize>) -> Result<(), Error> {
        let known = &self.families[family];
        let is_his = match by {
            Ok(app) => known.record.app.as_str() == app,
            Err(shown) => shown == family,
        };
        if !self.is_family_live(known) || !is_his {
            return Err(Error::RefreshTokenRefused);
        }
        let insists = self.app(known.record.app.as_str()).is_some_and(|app| app.refresh_requires_app_credential);
        if by.is_err() && insists {
            return Err(Error::CredentialRequired);
        }
        let (newest, session) = (known.record.generation, known.session);
        let grace_end = known.record.rotated_at.after(GRACE);
        if generation > newest {
            return Err(Error::RefreshTokenRefused);
        }
        if generation < newest && (generation + 1 < newest || self.now >= grace_end) {
            self.families[family].was_replayed = true;
            return Err(Error::RefreshTokenReplayed);
        }
        if generation == newest {
            self.families[family].record.generation += 1;
            self.families[family].record.rotated_at = self.now;
        }
        self.keep_alive(session);
        Ok(())
    }

    /// Does something for whoever has what works once, or nothing where it was used before.
    pub(crate) fn using<T>(&mut self, using: Option<OneUse>, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        match using {
            Some(using) if !self.use_once(using) => Err(Error::CredentialRefused),
            _ => work(self),
        }
    }

    pub(crate) fn use_once(&mut self, OneUse { hash, until }: OneUse) -> bool {
        let is_new = self.used.iter().all(|(used, _)| *used != hash);
        if is_new {
            self.used.push((hash, until));
        }
        is_new
    }

    pub(crate) fn forget_use(&mut self, hash: BearerHash) {
        self.used.retain(|(used, _)| *used != hash);
    }

    /// Purges between this moment and the next one, and gives the moment.
    pub(crate) fn purge(&mut self) -> Timestamp {
        let now = self.now;
        self.end(|session| session.ends_at() <= now);
        for code in &mut self.codes {
            code.is_forgotten |= code.record.expires_at.after(CODE_LIFETIME) <= now;
        }
        self.used.retain(|(_, until)| *until > now);
        let purged_at = now.after(Duration::from_millis(1));
        self.now = now.after(Duration::from_millis(2));
        purged_at
    }
}
