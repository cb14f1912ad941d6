//! Stores that break one promise each, made of a good one. The suite has to catch every one of them.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, AuthorityId, FamilyId, Incarnation, LogoutId, SessionId, UserId},
        logouts::{Outcome, OwedLogout},
        model::{App, Authority, Code, Grant, Link, Session, SignedIn, SigningKey, User},
        secret::BearerHash,
        usage::AppUsage,
    },
    store::{
        After, AppStore, Arrival, AuthorityStore, Change, Identity, Kept, Linked, LinksOf, LogoutStore, Maintenance, NewPassword, OneUse,
        Refresher, ReplayStore, Rotation, SessionPage, SessionStore, SigningKeyStore, Store, Transfer, Turn, UsageStore, UserStore, judge,
        record::Record,
    },
};
use tokio::sync::mpsc;

use crate::{
    database::{Database, Db, Handle},
    scene::{administrator, change},
};

/// Makes the list of faults.
macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $fault:ident caught by $check:ident,)+) => {
        /// What is wrong with a store.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Fault {
            $($(#[doc = $doc])+ $fault,)+
        }

        /// Every fault, and a check that has to catch it.
        pub(crate) const FAULTS: &[(Fault, &str)] = &[$((Fault::$fault, stringify!($check)),)+];
    };
}

faults! {
    /// A second use of a code gets what the first one got.
    CodeWorksTwice caught by a_code_works_once_and_its_second_use_ends_what_the_first_gave_out,
    /// A code works for everybody who asks before the first is answered.
    CodeIsRaced caught by a_code_redeemed_by_many_at_once_has_one_winner,
    /// A second use of a code is refused, and that is all.
    ReplayedCodeEndsNothing caught by a_code_works_once_and_its_second_use_ends_what_the_first_gave_out,
    /// A try by another app uses the code up.
    AnotherAppUsesCodeUp caught by a_try_by_another_app_changes_nothing,
    /// A code works for a millisecond too long.
    CodeIsLate caught by a_code_expires_to_the_millisecond_and_a_used_one_is_known_as_long_again,
    /// A purge takes a used code as soon as it expires.
    UsedCodeIsForgotten caught by a_code_expires_to_the_millisecond_and_a_used_one_is_known_as_long_again,
    /// The grace never ends.
    GraceIgnoresTime caught by the_token_before_gets_the_same_successor_within_the_grace,
    /// The grace ends a millisecond late.
    GraceIsLate caught by the_token_before_gets_the_same_successor_within_the_grace,
    /// There is no grace.
    NoGrace caught by a_refresh_token_used_by_many_at_once_has_one_successor,
    /// Whoever asks again gets a new successor.
    RepeatRotates caught by the_token_before_gets_the_same_successor_within_the_grace,
    /// An older refresh token is refused, and that is all.
    ReplayedRefreshEndsNothing caught by an_older_token_ends_the_family_and_no_other,
    /// Whoever holds a refresh token may use it.
    AnybodyRefreshes caught by a_refresh_by_somebody_else_is_refused_and_ends_nothing,
    /// A sign-out leaves the families alive.
    SignOutForgetsFamilies caught by the_end_of_a_session_is_the_end_of_its_codes_and_families,
    /// A sign-out owes nobody a call.
    SignOutTellsNobody caught by whatever_ends_a_session_owes_its_apps_a_call_each,
    /// Sessions that have ended by themselves are listed.
    EndedSessionsAreListed caught by a_session_ends_at_its_limits_to_the_millisecond,
    /// The ticket of a session that has ended by itself is good.
    TicketOutlivesSession caught by a_session_ends_at_its_limits_to_the_millisecond,
    /// A session is opened with whatever password.
    OldPasswordOpens caught by who_is_disabled_or_gets_another_password_while_he_signs_in_is_not_in,
    /// Disabling a user keeps his sessions.
    DisabledUserStaysIn caught by a_disabled_user_has_no_session_left_and_gets_none_back,
    /// A new password ends the session that was to go on.
    KeptSessionEnds caught by a_new_password_ends_the_sessions_that_are_not_kept,
    /// A password is replaced whichever is in force.
    AnyPasswordIsReplaced caught by a_password_replaced_by_many_at_once_is_replaced_by_one,
    /// The last administrator can go.
    LastAdministratorGoes caught by the_last_enabled_administrator_stays_one,
    /// A change is written over one that was made at the same time.
    UpdateIsLost caught by no_change_is_lost_to_another_at_the_same_time,
    /// Of a batch that is refused the beginning is kept.
    BatchIsHalfDone caught by apps_are_made_all_or_none,
    /// A page begins with what the last one ended with.
    PagesOverlap caught by apps_are_listed_by_id_page_by_page,
    /// An app that is made anew has what the old one had.
    DeletedAppComesBack caught by a_deleted_app_takes_its_codes_and_families_with_it,
    /// What was used is not used up.
    UsedTwice caught by what_was_used_stays_used_for_as_long_as_was_said,
    /// What is forgotten stays used up.
    UseIsKept caught by what_was_used_works_again_once_that_is_forgotten,
    /// What was used is used up once the first is answered.
    UseIsRaced caught by something_used_up_by_many_at_once_is_given_to_one,
    /// A step is done by what was used before, and uses nothing up.
    StepUsesNothingUp caught by what_a_step_is_done_by_is_used_up_whatever_comes_of_it,
    /// What was counted is counted again.
    UsageIsDoubled caught by usage_is_added_up_and_listed_by_app,
    /// A purge takes what ends in the next minutes.
    PurgeTakesTheLiving caught by a_purge_takes_what_has_ended_in_small_batches_and_nothing_that_lives,
    /// A purge takes nothing.
    PurgeDoesNothing caught by a_purge_takes_what_has_ended_in_small_batches_and_nothing_that_lives,
    /// A call that was settled is owed still.
    SettledCallComesBack caught by what_became_of_a_try_is_noted,
    /// A user of an authority becomes somebody else.
    LinkIsOverwritten caught by a_user_of_an_authority_is_one_user_here,
    /// One who waits too many is let in.
    AnyNumberWaits caught by a_race_for_the_last_places_is_won_by_as_many_as_there_are,
    /// The last key that signs can be retired.
    LastKeyRetires caught by a_signing_key_is_retired_and_forgotten,
    /// A second service that begins makes the store its own.
    SecondFounderWins caught by a_store_knows_what_it_was_made_for,
    /// Nothing is ever overdue.
    NothingIsOverdue caught by how_long_a_purge_is_overdue_is_known,
    /// A store that is opened again has nothing in it.
    OpenedAgainItIsEmpty caught by everything_is_there_when_the_store_is_opened_again,
    /// An export leaves the families out.
    ExportIsNotWhole caught by what_is_exported_makes_the_same_store_elsewhere,
    /// What an export has read last is of a later moment than what it has read first.
    ExportIsOfTwoMoments caught by an_export_is_of_one_moment_whatever_is_written_meanwhile,
    /// What is imported is not looked at by a purge.
    ImportedStaysForEver caught by what_is_exported_makes_the_same_store_elsewhere,
}

/// A database whose stores have a fault.
struct Broken {
    good: Db,
    fault: Fault,
    was_open: AtomicBool,
}

/// Breaks a good database.
pub(crate) fn broken(good: Db, fault: Fault) -> Db {
    Arc::new(Broken { good, fault, was_open: AtomicBool::new(false) })
}

#[async_trait]
impl Database for Broken {
    async fn another(&self) -> Db {
        broken(self.good.another().await, self.fault)
    }

    async fn of_another_kind(&self) -> Option<Db> {
        Some(broken(self.good.of_another_kind().await?, self.fault))
    }

    async fn open(&self) -> Handle {
        let was_open = self.was_open.swap(true, Ordering::Relaxed);
        let good = if was_open && self.fault == Fault::OpenedAgainItIsEmpty { self.good.another().await } else { Arc::clone(&self.good) };
        Arc::new(BrokenStore { good: good.open().await, fault: self.fault, seen: Mutex::default() })
    }

    fn is_shared(&self) -> bool {
        self.good.is_shared()
    }
}

/// What a broken store remembers.
#[derive(Default)]
struct Seen {
    grants: HashMap<BearerHash, Grant>,
    burnt: HashSet<BearerHash>,
    disabled: HashSet<UserId>,
    ended: HashSet<SessionId>,
    lives: HashMap<AppId, Incarnation>,
    has_spare_administrator: bool,
    has_imported: bool,
}

struct BrokenStore {
    good: Handle,
    fault: Fault,
    seen: Mutex<Seen>,
}

impl fmt::Debug for BrokenStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.fault)
    }
}

/// Sorts after every name that a check gives.
const SPARE: &str = "\u{10ffff}";

fn millisecond_before(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis().saturating_sub(1))
}

impl BrokenStore {
    /// Some of the records, as they are now.
    async fn read(&self, which: impl Fn(&Record) -> bool) -> Result<Vec<Record>, Error> {
        let (send, mut receive) = mpsc::channel::<Vec<Record>>(1);
        let mut found = Vec::new();
        let collect = async {
            while let Some(batch) = receive.recv().await {
                found.extend(batch.into_iter().filter(|record| which(record)));
            }
        };
        tokio::join!(self.good.export(send), collect).0?;
        Ok(found)
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    /// Reads, lets others go on, and writes what it has read.
    async fn write_late<T, R>(&self, read: R, change: Change<T>) -> Result<Change<T>, Error>
    where
        T: Clone + Send + Sync + 'static,
        R: Future<Output = Result<Option<T>, Error>> + Send,
    {
        let Some(mut record) = read.await? else { return Ok(change) };
        change(&mut record)?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(crate::scene::change(move |known: &mut T| *known = record.clone()))
    }
}

#[async_trait]
impl AppStore for BrokenStore {
    async fn create_apps(&self, mut apps: Vec<App>) -> Result<(), Error> {
        if self.has(Fault::BatchIsHalfDone) {
            for app in apps {
                self.good.create_apps(vec![app]).await?;
            }
            return Ok(());
        }
        if self.has(Fault::DeletedAppComesBack) {
            for app in &mut apps {
                app.incarnation = self.seen(|seen| *seen.lives.entry(app.id.clone()).or_insert(app.incarnation));
            }
        }
        self.good.create_apps(apps).await
    }

    async fn app(&self, id: &AppId) -> Result<Option<Arc<App>>, Error> {
        self.good.app(id).await
    }

    async fn apps(&self, after: After<AppId>, limit: usize) -> Result<Vec<App>, Error> {
        let first = match &after {
            Some(after) if self.has(Fault::PagesOverlap) => self.good.app(after).await?.map(Arc::unwrap_or_clone),
            _ => None,
        };
        let rest = self.good.apps(after, limit).await?;
        Ok(first.into_iter().chain(rest).take(limit).collect())
    }

    async fn update_app(&self, id: &AppId, change: Change<App>) -> Result<App, Error> {
        let change = if self.has(Fault::UpdateIsLost) {
            self.write_late(async { Ok(self.good.app(id).await?.map(Arc::unwrap_or_clone)) }, change).await?
        } else {
            change
        };
        self.good.update_app(id, change).await
    }

    async fn delete_app(&self, id: &AppId) -> Result<(), Error> {
        self.good.delete_app(id).await
    }
}

#[async_trait]
impl UserStore for BrokenStore {
    async fn create_users(&self, users: Vec<User>) -> Result<(), Error> {
        if self.has(Fault::LastAdministratorGoes) && !self.seen(|seen| std::mem::replace(&mut seen.has_spare_administrator, true)) {
            self.good.create_users(vec![administrator(SPARE)]).await?;
        }
        self.good.create_users(users).await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>, Error> {
        self.good.user(id).await
    }

    async fn user_named(&self, name: &str) -> Result<Option<User>, Error> {
        self.good.user_named(name).await
    }

    async fn users(&self, after: After<String>, limit: usize) -> Result<Vec<User>, Error> {
        let users = self.good.users(after, limit).await?;
        Ok(users.into_iter().filter(|user| user.name != SPARE).collect())
    }

    async fn update_user(&self, id: UserId, change: Change<User>, now: Timestamp) -> Result<User, Error> {
        if self.has(Fault::DisabledUserStaysIn)
            && let Some(mut user) = self.good.user(id).await?
        {
            let was_enabled = !self.seen(|seen| seen.disabled.contains(&id));
            user.enabled = was_enabled;
            change(&mut user)?;
            self.seen(|seen| if user.enabled { seen.disabled.remove(&id) } else { seen.disabled.insert(id) });
            return Ok(user);
        }
        self.good.update_user(id, change, now).await
    }

    async fn delete_user(&self, id: UserId, now: Timestamp) -> Result<(), Error> {
        self.good.delete_user(id, now).await
    }

    async fn set_password(&self, id: UserId, mut password: NewPassword, now: Timestamp) -> Result<User, Error> {
        if self.has(Fault::AnyPasswordIsReplaced) {
            password.replaces = None;
        }
        if self.has(Fault::KeptSessionEnds) && matches!(password.keep, Kept::One(_)) {
            password.keep = Kept::None;
        }
        self.good.set_password(id, password, now).await
    }
}

#[async_trait]
impl SessionStore for BrokenStore {
    async fn open_session(&self, session: Session, password_hash: String) -> Result<User, Error> {
        if self.seen(|seen| seen.disabled.contains(&session.user)) {
            return Err(Error::UserDisabled);
        }
        let in_force = match self.good.user(session.user).await? {
            Some(user) if self.has(Fault::OldPasswordOpens) => user.password_hash,
            _ => None,
        };
        self.good.open_session(session, in_force.unwrap_or(password_hash)).await
    }

    async fn session_of_ticket(&self, ticket: &BearerHash, now: Timestamp) -> Result<Option<SignedIn>, Error> {
        let now = if self.has(Fault::TicketOutlivesSession) { Timestamp::default() } else { now };
        let signed_in = self.good.session_of_ticket(ticket, now).await?;
        Ok(signed_in.filter(|signed_in| !self.seen(|seen| seen.ended.contains(&signed_in.session.id))))
    }

    async fn session(&self, id: SessionId) -> Result<Option<Session>, Error> {
        if self.seen(|seen| seen.ended.contains(&id)) { Ok(None) } else { self.good.session(id).await }
    }

    async fn sessions(&self, user: Option<UserId>, after: After<SessionId>, limit: usize, now: Timestamp) -> Result<SessionPage, Error> {
        let now = if self.has(Fault::EndedSessionsAreListed) { Timestamp::default() } else { now };
        let mut page = self.good.sessions(user, after, limit, now).await?;
        page.sessions.retain(|(signed_in, _)| !self.seen(|seen| seen.ended.contains(&signed_in.session.id)));
        Ok(page)
    }

    async fn end_session(&self, id: SessionId, now: Timestamp) -> Result<bool, Error> {
        if self.has(Fault::SignOutForgetsFamilies) {
            return Ok(self.good.session(id).await?.is_some() && self.seen(|seen| seen.ended.insert(id)));
        }
        let ended = self.good.end_session(id, now).await?;
        if self.has(Fault::SignOutTellsNobody) {
            for owed in self.good.logouts(false, None, None, usize::MAX).await? {
                self.good.settle_logout(owed.id, Outcome::Settled).await?;
            }
        }
        Ok(ended)
    }

    async fn end_sessions_of(&self, user: UserId, now: Timestamp) -> Result<usize, Error> {
        self.good.end_sessions_of(user, now).await
    }

    async fn create_code(&self, hash: BearerHash, mut code: Code, now: Timestamp) -> Result<(), Error> {
        if self.has(Fault::UsedCodeIsForgotten) {
            code.kept_until = code.expires_at;
        }
        self.good.create_code(hash, code, now).await
    }

    async fn redeem_code(
        &self,
        hash: &BearerHash,
        app: &AppId,
        logout_uri: String,
        using: Option<OneUse>,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let using = using.filter(|_| !self.has(Fault::StepUsesNothingUp));
        if self.seen(|seen| seen.burnt.contains(hash)) {
            return Err(Error::CodeRefused);
        }
        let first = self.seen(|seen| seen.grants.get(hash).cloned());
        let is_first = first.is_none();
        if let Some(first) = first.filter(|first| first.family.app == *app) {
            match self.fault {
                Fault::CodeWorksTwice => return Ok(first),
                Fault::ReplayedCodeEndsNothing => return Err(Error::CodeReplayed),
                _ => {}
            }
        }
        let asked_at = if self.has(Fault::CodeIsLate) { millisecond_before(now) } else { now };
        let outcome = self.good.redeem_code(hash, app, logout_uri, using, asked_at).await;
        if let Ok(granted) = &outcome {
            self.seen(|seen| seen.grants.insert(*hash, granted.clone()));
        } else if self.has(Fault::AnotherAppUsesCodeUp) {
            self.seen(|seen| seen.burnt.insert(*hash));
        } else if self.has(Fault::CodeIsRaced) && is_first && outcome == Err(Error::CodeReplayed) {
            loop {
                match self.seen(|seen| seen.grants.get(hash).cloned()) {
                    Some(first) => return Ok(first),
                    None => tokio::task::yield_now().await,
                }
            }
        }
        outcome
    }

    async fn rotate_refresh_token(
        &self,
        mut rotation: Rotation,
        mut by: Refresher,
        using: Option<OneUse>,
        now: Timestamp,
    ) -> Result<Grant, Error> {
        let known = self.good.grant(rotation.family, now).await?;
        match self.fault {
            Fault::GraceIgnoresTime => rotation.grace = Duration::MAX,
            Fault::GraceIsLate => rotation.grace += Duration::from_millis(1),
            Fault::NoGrace => rotation.grace = Duration::ZERO,
            Fault::AnybodyRefreshes => by = Refresher::Family(rotation.family),
            Fault::RepeatRotates | Fault::ReplayedRefreshEndsNothing => match known.map(|known| judge(&known.family, &rotation, now)) {
                Some(Turn::Repeat) if self.has(Fault::RepeatRotates) => rotation.generation += 1,
                Some(Turn::Replay) if self.has(Fault::ReplayedRefreshEndsNothing) => return Err(Error::RefreshTokenReplayed),
                _ => {}
            },
            _ => {}
        }
        self.good.rotate_refresh_token(rotation, by, using, now).await
    }

    async fn grant(&self, family: FamilyId, now: Timestamp) -> Result<Option<Grant>, Error> {
        self.good.grant(family, now).await
    }
}

#[async_trait]
impl LogoutStore for BrokenStore {
    async fn due_logouts(&self, per_lane: usize, now: Timestamp) -> Result<Vec<OwedLogout>, Error> {
        self.good.due_logouts(per_lane, now).await
    }

    async fn take_logout(&self, owed: &OwedLogout, until: Timestamp) -> Result<bool, Error> {
        self.good.take_logout(owed, until).await
    }

    async fn settle_logout(&self, id: LogoutId, outcome: Outcome) -> Result<(), Error> {
        if self.has(Fault::SettledCallComesBack) && outcome == Outcome::Settled {
            return Ok(());
        }
        self.good.settle_logout(id, outcome).await
    }

    async fn give_up_logouts(&self, now: Timestamp) -> Result<Vec<OwedLogout>, Error> {
        self.good.give_up_logouts(now).await
    }

    async fn logouts(&self, given_up: bool, app: Option<AppId>, after: After<LogoutId>, limit: usize) -> Result<Vec<OwedLogout>, Error> {
        self.good.logouts(given_up, app, after, limit).await
    }

    async fn owed_logouts(&self) -> Result<u64, Error> {
        self.good.owed_logouts().await
    }

    async fn logouts_owed(&self) {
        self.good.logouts_owed().await;
    }
}

#[async_trait]
impl AuthorityStore for BrokenStore {
    async fn register_authority(&self, mut authority: Authority, now: Timestamp) -> Result<(), Error> {
        if self.has(Fault::AnyNumberWaits)
            && let Some(pending) = authority.pending.take()
        {
            let id = authority.id;
            self.good.register_authority(authority, now).await?;
            let wait = change(move |authority: &mut Authority| authority.pending = Some(pending.clone()));
            return self.good.update_authority(id, wait, now).await.map(drop);
        }
        self.good.register_authority(authority, now).await
    }

    async fn authority(&self, id: AuthorityId, now: Timestamp) -> Result<Option<Authority>, Error> {
        self.good.authority(id, now).await
    }

    async fn authority_named(&self, name: &str, now: Timestamp) -> Result<Option<Authority>, Error> {
        self.good.authority_named(name, now).await
    }

    async fn authorities(&self, after: After<String>, limit: usize, now: Timestamp) -> Result<Vec<Authority>, Error> {
        self.good.authorities(after, limit, now).await
    }

    async fn update_authority(&self, id: AuthorityId, change: Change<Authority>, now: Timestamp) -> Result<Authority, Error> {
        self.good.update_authority(id, change, now).await
    }

    async fn delete_authority(&self, id: AuthorityId, now: Timestamp) -> Result<(), Error> {
        self.good.delete_authority(id, now).await
    }

    async fn link_user(&self, authority: AuthorityId, subject: String, link: Link) -> Result<Linked, Error> {
        match self.good.link_user(authority, subject.clone(), link.clone()).await {
            Err(Error::AlreadyExists { .. }) if self.has(Fault::LinkIsOverwritten) => {
                self.good.unlink_user(authority, subject.clone()).await?;
                self.good.link_user(authority, subject, link).await
            }
            outcome => outcome,
        }
    }

    async fn unlink_user(&self, authority: AuthorityId, subject: String) -> Result<(), Error> {
        self.good.unlink_user(authority, subject).await
    }

    async fn links(&self, of: LinksOf, after: After<(AuthorityId, String)>, limit: usize) -> Result<Vec<Linked>, Error> {
        self.good.links(of, after, limit).await
    }

    async fn open_session_of(&self, arrival: Arrival) -> Result<User, Error> {
        self.good.open_session_of(arrival).await
    }
}

#[async_trait]
impl ReplayStore for BrokenStore {
    async fn use_once(&self, using: OneUse) -> Result<bool, Error> {
        let was_used = self.seen(|seen| seen.burnt.contains(&using.hash));
        let first = self.good.use_once(using).await?;
        self.seen(|seen| seen.burnt.insert(using.hash));
        Ok(first || self.has(Fault::UsedTwice) || (self.has(Fault::UseIsRaced) && !was_used))
    }

    async fn forget_use(&self, hash: &BearerHash) -> Result<(), Error> {
        if self.has(Fault::UseIsKept) { Ok(()) } else { self.good.forget_use(hash).await }
    }
}

#[async_trait]
impl UsageStore for BrokenStore {
    async fn add_usage(&self, usage: Vec<(AppId, AppUsage)>) -> Result<(), Error> {
        if self.has(Fault::UsageIsDoubled) {
            self.good.add_usage(usage.clone()).await?;
        }
        self.good.add_usage(usage).await
    }

    async fn usage(&self, after: After<AppId>, limit: usize) -> Result<Vec<(AppId, AppUsage)>, Error> {
        self.good.usage(after, limit).await
    }
}

#[async_trait]
impl SigningKeyStore for BrokenStore {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, Error> {
        self.good.signing_keys().await
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<String>) -> Result<bool, Error> {
        self.good.add_signing_key(key, newest).await
    }

    async fn retire_signing_key(
        &self,
        kid: &str,
        now: Timestamp,
        expires_at: Timestamp,
        forgotten_at: Timestamp,
    ) -> Result<SigningKey, Error> {
        match self.good.retire_signing_key(kid, now, expires_at, forgotten_at).await {
            Err(Error::Precondition(_)) if self.has(Fault::LastKeyRetires) => {
                let key = self.good.signing_keys().await?.into_iter().find(|key| key.kid == kid);
                key.ok_or(Error::NotFound("signing key"))
            }
            outcome => outcome,
        }
    }
}

#[async_trait]
impl Maintenance for BrokenStore {
    async fn identity(&self) -> Result<Option<Identity>, Error> {
        self.good.identity().await
    }

    async fn found(&self, identity: Identity) -> Result<Identity, Error> {
        if self.has(Fault::SecondFounderWins) {
            self.good.set_identity(identity.clone()).await?;
        }
        self.good.found(identity).await
    }

    async fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        self.good.set_identity(identity).await
    }

    async fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        match self.fault {
            Fault::PurgeDoesNothing => Ok(0),
            Fault::ImportedStaysForEver if self.seen.lock().unwrap().has_imported => Ok(0),
            Fault::PurgeTakesTheLiving => self.good.purge(now.after(Duration::from_mins(30))).await,
            _ => self.good.purge(now).await,
        }
    }

    async fn overdue(&self, now: Timestamp) -> Result<Duration, Error> {
        if self.has(Fault::NothingIsOverdue) { Ok(Duration::ZERO) } else { self.good.overdue(now).await }
    }

    async fn probe(&self) -> Result<(), Error> {
        self.good.probe().await
    }

    async fn failed(&self) -> String {
        self.good.failed().await
    }

    async fn flush(&self) -> Result<(), Error> {
        self.good.flush().await
    }
}

#[async_trait]
impl Transfer for BrokenStore {
    async fn export(&self, records: mpsc::Sender<Vec<Record>>) -> Result<(), Error> {
        if self.has(Fault::ExportIsOfTwoMoments) {
            let _ = records.send(self.read(|record| matches!(record, Record::App(_))).await?).await;
            let _ = records.send(self.read(|record| !matches!(record, Record::App(_))).await?).await;
            return Ok(());
        }
        if !self.has(Fault::ExportIsNotWhole) {
            return self.good.export(records).await;
        }
        let (send, mut receive) = mpsc::channel::<Vec<Record>>(1);
        let forward = async move {
            while let Some(mut batch) = receive.recv().await {
                batch.retain(|record| !matches!(record, Record::Family { .. }));
                let _ = records.send(batch).await;
            }
        };
        tokio::join!(self.good.export(send), forward).0
    }

    async fn is_empty(&self) -> Result<bool, Error> {
        self.good.is_empty().await
    }

    async fn import(&self, records: Vec<Record>) -> Result<(), Error> {
        self.seen.lock().unwrap().has_imported = true;
        self.good.import(records).await
    }
}

impl Store for BrokenStore {}
