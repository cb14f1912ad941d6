//! The storage interface: what the service asks of a store, in the words of the domain.
//!
//! Every method is one atomic step: it happens whole or not at all, whoever else calls at the same time, and once it has returned what
//! it did is on disk. (Those that end all sessions of a user, or delete an authority, take a step for each [`ENDED_AT_ONCE`], and can be
//! cut short between two.) A rule that must hold under a race (a code works once) is the store's promise and stands with the method. When a
//! method fails with [`Error::StoreUnavailable`] nothing was promised: the step may have been taken or not, and asking again is safe.
//!
//! Stores know nothing of HTTP, gRPC or JWTs. They get bearer values hashed, and secrets that have to be read back sealed.

pub mod postgres;
pub mod record;
mod rules;
pub mod sled;

use std::{fmt, io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::mpsc;

use self::record::Record;
use crate::core::{
    Error,
    clock::Timestamp,
    ids::{AppId, AuthorityId, FamilyId, LogoutId, SessionId, UserId},
    logouts::{Outcome, OwedLogout},
    model::{App, Authority, Code, Family, Grant, Link, Session, SignedIn, SigningKey, User},
    seal::Sealed,
    secret::BearerHash,
    usage::AppUsage,
};

/// A change to a record. It may be run more than once, and has to leave the record alone when it refuses.
pub type Change<T> = Box<dyn Fn(&mut T) -> Result<(), Error> + Send + Sync>;

/// How far into a listing to begin: after this key.
pub type After<K> = Option<K>;

/// How a refresh token is to be used.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The family that the token names.
    pub family: FamilyId,
    /// The generation that it names.
    pub generation: u32,
    /// How long after the first use of a token its successor is given out again.
    pub grace: Duration,
}

/// Who uses a refresh token.
#[derive(Clone, Debug)]
pub enum Refresher {
    /// The app itself.
    App(AppId),
    /// The holder of an access token of this family.
    Family(FamilyId),
}

/// What a store was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Origin {
    /// `serve --dev`: it holds the demo seed.
    Demo,
    /// `serve`.
    Production,
}

/// What a store has to know of itself before it is used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// What it was made for.
    pub origin: Origin,
    /// The root key, sealed under the master key.
    pub root: Sealed,
}

/// Why nothing can be done with a store that has no identity.
pub const NO_ROOT_KEY: &str = "the store has no root key: no service has run on it, or a restore into it was broken off";

/// A new password for a user.
#[derive(Clone, Debug)]
pub struct NewPassword {
    /// The Argon2id hash, as a PHC string.
    pub hash: String,
    /// Whether the user has to change it before he can sign in.
    pub change_required: bool,
    /// The hash that is in force, where the change holds only if it still is.
    pub replaces: Option<String>,
    /// The one session of the user that goes on; none: all end.
    pub keep: Kept,
}

/// Which sessions of a user survive a new password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// None.
    None,
    /// This one.
    One(SessionId),
    /// All.
    All,
}

/// Apps.
#[async_trait]
pub trait AppStore {
    /// Makes apps: all of them, or none.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] with the name `steps[N].app.app_id` when the Nth has an id that is taken, by an app of before or of this call.
    async fn create_apps(&self, apps: Vec<App>) -> Result<(), Error>;

    /// The app of this id.
    async fn app(&self, id: &AppId) -> Result<Option<Arc<App>>, Error>;

    /// At most `limit` apps by id.
    async fn apps(&self, after: After<AppId>, limit: usize) -> Result<Vec<App>, Error>;

    /// Changes an app, and gives it as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`], and whatever `change` refuses with.
    async fn update_app(&self, id: &AppId, change: Change<App>) -> Result<App, Error>;

    /// Deletes an app. Its codes and families are dead from then on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn delete_app(&self, id: &AppId) -> Result<(), Error>;
}

/// Users.
#[async_trait]
pub trait UserStore {
    /// Makes users: all of them, or none.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] with the name `steps[N].user.user_name` when the Nth has a name that is taken.
    async fn create_users(&self, users: Vec<User>) -> Result<(), Error>;

    /// The user of this id.
    async fn user(&self, id: UserId) -> Result<Option<User>, Error>;

    /// The user of this name.
    async fn user_named(&self, name: &str) -> Result<Option<User>, Error>;

    /// At most `limit` users by name.
    async fn users(&self, after: After<String>, limit: usize) -> Result<Vec<User>, Error>;

    /// Changes a user, and gives him as he is then. A user who is disabled then has no session left.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when no enabled administrator would be left; whatever `change` refuses with.
    async fn update_user(&self, id: UserId, change: Change<User>, now: Timestamp) -> Result<User, Error>;

    /// Deletes a user, and ends his sessions.
    ///
    /// # Errors
    /// As [`UserStore::update_user`].
    async fn delete_user(&self, id: UserId, now: Timestamp) -> Result<(), Error>;

    /// Gives a user a password, and ends the sessions that are not kept.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::WrongPassword`] when another password is in force than the one it replaces.
    async fn set_password(&self, id: UserId, password: NewPassword, now: Timestamp) -> Result<User, Error>;
}

/// How many sessions of a user end in one step, and how many families, so that nobody waits long for it. Where a user has more sessions it
/// takes several steps, after the last of which the answer is given. A session that has more families is dead from its step on, too; those that
/// are left, and the calls that come of them, are seen to by the next purges.
pub const ENDED_AT_ONCE: usize = 1000;

/// Sessions, and what is given out in them.
///
/// However a session ends, the calls that tell its apps are owed from that same step on (see [`LogoutStore`]): one for each app and
/// address, [`OwedLogout::new`] says to whom. An app that had its family ended by a replay is told, too. Of a session with more than
/// [`ENDED_AT_ONCE`] families an app may be told once for each so many.
#[async_trait]
pub trait SessionStore {
    /// Opens a session for the user whose password was found right. It is not opened when he was disabled or got another password
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::WrongPassword`], [`Error::UserDisabled`].
    async fn open_session(&self, session: Session, password_hash: String) -> Result<User, Error>;

    /// The live session that a ticket names.
    async fn session_of_ticket(&self, ticket: &BearerHash, now: Timestamp) -> Result<Option<SignedIn>, Error>;

    /// The session of this id, if it has not ended.
    async fn session(&self, id: SessionId) -> Result<Option<Session>, Error>;

    /// At most `limit` live sessions by id, of one user or of all, each with the apps that hold tokens of it. The second value is where
    /// to go on, if there may be more.
    async fn sessions(&self, user: Option<UserId>, after: After<SessionId>, limit: usize, now: Timestamp) -> Result<SessionPage, Error>;

    /// Ends a session: its codes and families are dead from then on. Gives false when there was none.
    async fn end_session(&self, id: SessionId, now: Timestamp) -> Result<bool, Error>;

    /// Ends the sessions of a user, and gives their number.
    async fn end_sessions_of(&self, user: UserId, now: Timestamp) -> Result<usize, Error>;

    /// Keeps a code, and its session alive.
    ///
    /// # Errors
    /// [`Error::CredentialRefused`] when the session has ended; [`Error::UnknownApp`] when the app is not enabled.
    async fn create_code(&self, hash: BearerHash, code: Code, now: Timestamp) -> Result<(), Error>;

    /// Uses a code: exactly one caller gets its family. It is marked as used, the family is made and the session kept alive in one step.
    /// A second use by the same app ends the family that the first one made. A try by another app changes nothing.
    ///
    /// What it is done by is used up, whatever comes of it. Where that was used before nothing is done.
    ///
    /// # Errors
    /// [`Error::CodeRefused`], [`Error::CodeReplayed`]; [`Error::CredentialRefused`] when `using` was used before.
    async fn redeem_code(
        &self,
        hash: &BearerHash,
        app: &AppId,
        logout_uri: String,
        using: Option<OneUse>,
        now: Timestamp,
    ) -> Result<Grant, Error>;

    /// Uses a refresh token, and gives the family with the generation to answer with.
    ///
    /// The newest generation makes way for the next one. The one before it, within the grace, gets the newest again: whoever did not get
    /// the answer, or asked twice at once. Any older one, or one outside the grace, ends the family. A try by somebody else changes
    /// nothing. `using` is as for a code.
    ///
    /// # Errors
    /// [`Error::RefreshTokenRefused`], [`Error::RefreshTokenReplayed`], [`Error::CredentialRequired`] when the app has to show its own
    /// credential; [`Error::CredentialRefused`] when `using` was used before.
    async fn rotate_refresh_token(&self, rotation: Rotation, by: Refresher, using: Option<OneUse>, now: Timestamp) -> Result<Grant, Error>;

    /// What the tokens of a family stand for: none when the family or its session has ended, or its app or user is not enabled.
    async fn grant(&self, family: FamilyId, now: Timestamp) -> Result<Option<Grant>, Error>;
}

/// Calls that are owed to apps: sessions have ended.
#[async_trait]
pub trait LogoutStore {
    /// The calls whose time has come: at most `per_lane` of each lane, those that are due longest.
    async fn due_logouts(&self, per_lane: usize, now: Timestamp) -> Result<Vec<OwedLogout>, Error>;

    /// Takes a call to try it: until `until` it is nobody else's turn. Gives false when it is not to be tried as it is here any more,
    /// because somebody else has taken or settled it. Who took it and is gone, has it tried again by others after `until`.
    async fn take_logout(&self, owed: &OwedLogout, until: Timestamp) -> Result<bool, Error>;

    /// Notes what became of a try. A call that is settled is gone; one that was given up is kept to be shown. One that is not owed any
    /// more is no error.
    async fn settle_logout(&self, id: LogoutId, outcome: Outcome) -> Result<(), Error>;

    /// Gives up calls that have been owed for too long, a batch of them, and gives them as they were. Empty when none is left.
    async fn give_up_logouts(&self, now: Timestamp) -> Result<Vec<OwedLogout>, Error>;

    /// At most `limit` calls, the oldest first: those that are owed, or those that were given up; of one app, or of all.
    async fn logouts(&self, given_up: bool, app: Option<AppId>, after: After<LogoutId>, limit: usize) -> Result<Vec<OwedLogout>, Error>;

    /// How many calls are owed.
    async fn owed_logouts(&self) -> Result<u64, Error>;

    /// Resolves when calls have come to be owed since it last did, and are on disk. It may also resolve for no reason.
    async fn logouts_owed(&self);
}

/// The most authorities that may wait for an administrator at a time.
pub const MAX_PENDING: usize = 20;
/// The most of them that one network may have registered.
pub const MAX_PENDING_OF_NETWORK: usize = 3;

/// Somebody whom an authority has signed in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The session to open. Whose it is, is found.
    pub session: Session,
    /// The authority.
    pub authority: AuthorityId,
    /// Who he is there.
    pub subject: String,
    /// The name that he has there, if a user may have it.
    pub name: Option<String>,
    /// The user to make where nobody has that name.
    pub newcomer: Option<User>,
}

/// A link, and between whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The authority.
    pub authority: AuthorityId,
    /// The user there.
    pub subject: String,
    /// The user here.
    pub user: User,
    /// The link.
    pub link: Link,
}

/// Whose links are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinksOf {
    /// An authority's.
    Authority(AuthorityId),
    /// A user's.
    User(UserId),
}

/// Third-party certification authorities, and who their users are here.
#[async_trait]
pub trait AuthorityStore {
    /// Registers an authority. One that waits for an administrator is bound by [`MAX_PENDING`] and [`MAX_PENDING_OF_NETWORK`]; any other
    /// takes the place of one of the same name that waits.
    ///
    /// # Errors
    /// [`Error::AuthorityExists`]; [`Error::TooManyTries`] when too many wait.
    async fn register_authority(&self, authority: Authority, now: Timestamp) -> Result<(), Error>;

    /// The authority of this id.
    async fn authority(&self, id: AuthorityId, now: Timestamp) -> Result<Option<Authority>, Error>;

    /// The authority of this name.
    async fn authority_named(&self, name: &str, now: Timestamp) -> Result<Option<Authority>, Error>;

    /// At most `limit` authorities by name.
    async fn authorities(&self, after: After<String>, limit: usize, now: Timestamp) -> Result<Vec<Authority>, Error>;

    /// Changes an authority, and gives it as it is then. Where it is off then, nobody is on his way in by it any more.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::AuthorityExists`] when another one has its new name; whatever `change` refuses with. With [`Error::Busy`] it
    /// may be off, and some may still be on their way: ask again.
    async fn update_authority(&self, id: AuthorityId, change: Change<Authority>, now: Timestamp) -> Result<Authority, Error>;

    /// Deletes an authority and its links. Where that takes several steps nobody signs in by it from the first one on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn delete_authority(&self, id: AuthorityId, now: Timestamp) -> Result<(), Error>;

    /// Says who a user of an authority is here. A link to the same user that is there already is made anew.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::AlreadyExists`] with the name `subject` when he is somebody else.
    async fn link_user(&self, authority: AuthorityId, subject: String, link: Link) -> Result<Linked, Error>;

    /// Removes a link.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn unlink_user(&self, authority: AuthorityId, subject: String) -> Result<(), Error>;

    /// At most `limit` links, by authority and subject.
    async fn links(&self, of: LinksOf, after: After<(AuthorityId, String)>, limit: usize) -> Result<Vec<Linked>, Error>;

    /// Opens a session for somebody whom an authority has signed in, if the authority is enabled at that moment. His link says who he is.
    /// Without one he is the user of his name, if the authority links by name and that user has no rights, or the newcomer, if the
    /// authority creates users and nobody has the name; the link is stored.
    ///
    /// # Errors
    /// [`Error::AuthorityOff`], [`Error::AuthorityUserUnknown`], [`Error::UserDisabled`].
    async fn open_session_of(&self, arrival: Arrival) -> Result<User, Error>;
}

/// What was used up.
#[async_trait]
pub trait ReplayStore {
    /// Uses something up: gives true to exactly one caller, and false to all others for as long as it is remembered.
    async fn use_once(&self, using: OneUse) -> Result<bool, Error>;

    /// Forgets that something was used, before its time: it works once more. What was never used is passed over.
    async fn forget_use(&self, hash: &BearerHash) -> Result<(), Error>;
}

/// What apps still do that they should do no more.
#[async_trait]
pub trait UsageStore {
    /// Adds to what is known of apps. Apps that are not there are passed over.
    async fn add_usage(&self, usage: Vec<(AppId, AppUsage)>) -> Result<(), Error>;

    /// What is known of at most `limit` apps, by id.
    async fn usage(&self, after: After<AppId>, limit: usize) -> Result<Vec<(AppId, AppUsage)>, Error>;
}

/// What works once, and until when it is remembered that it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OneUse {
    /// The hash of what it is.
    pub hash: BearerHash,
    /// Until then it works for nobody else.
    pub until: Timestamp,
}

/// A page of sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionPage {
    /// The sessions, each with its user and the apps that hold tokens of it.
    pub sessions: Vec<(SignedIn, Vec<AppId>)>,
    /// Where to go on; none when this is the end.
    pub next: Option<SessionId>,
}

/// Signing keys.
#[async_trait]
pub trait SigningKeyStore {
    /// All keys.
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, Error>;

    /// Adds a key, if `newest` is still the one that was made last of those that are there; none: there is none. Gives false, and adds
    /// nothing, when somebody else has added one since.
    async fn add_signing_key(&self, key: SigningKey, newest: Option<String>) -> Result<bool, Error>;

    /// Retires a key: it signs no more, is published until `expires_at`, and goes at `forgotten_at`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when no other key could sign from `now` on.
    async fn retire_signing_key(
        &self,
        kid: &str,
        now: Timestamp,
        expires_at: Timestamp,
        forgotten_at: Timestamp,
    ) -> Result<SigningKey, Error>;
}

/// The disk space of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// How many bytes it takes.
    pub bytes: u64,
    /// How many have just been given back; none: it was not worth it.
    pub given_back: Option<u64>,
}

/// What a store is asked about itself.
#[async_trait]
pub trait Maintenance {
    /// What the store was made for, and its root key; none when it is new.
    async fn identity(&self) -> Result<Option<Identity>, Error>;

    /// Says what a new store was made for, and gives it its root key. Gives what it has then: that is what somebody else has said who
    /// was quicker, and what it had already where it was not new.
    async fn found(&self, identity: Identity) -> Result<Identity, Error>;

    /// Says it anew: the root key was sealed under another master key.
    async fn set_identity(&self, identity: Identity) -> Result<(), Error>;

    /// Removes what expired before `now`, a batch of it, and gives the number of records that were looked at: 0 when nothing is left.
    async fn purge(&self, now: Timestamp) -> Result<usize, Error>;

    /// For how long what a purge would look at first has been due: nothing when it is not.
    async fn overdue(&self, now: Timestamp) -> Result<Duration, Error>;

    /// Gives the disk space of what is gone back, where that has become much, and says how much is used. To be called now and then. None:
    /// the store sees to it by itself.
    async fn give_space_back(&self) -> Result<Option<Space>, Error> {
        Ok(None)
    }

    /// The latest time that [`Maintenance::purge`] was told, as far as this store keeps it. A time that is more than
    /// [`MOST_SET_BACK`](crate::core::clock::MOST_SET_BACK) before it takes its place: the clock was wrong then.
    async fn latest(&self) -> Result<Timestamp, Error> {
        Ok(Timestamp::default())
    }

    /// Writes something and waits until it is on disk.
    async fn probe(&self) -> Result<(), Error>;

    /// Resolves, to the cause, when the store has failed for good and this process has to be started anew.
    async fn failed(&self) -> String;

    /// Resolves when writes take longer than they ever should, before [`Maintenance::probe`] would say so, and until they do no more.
    /// A store that has no way to know never resolves.
    async fn stalled(&self) {
        std::future::pending::<()>().await;
    }

    /// Returns once everything that was asked for before is on disk.
    async fn flush(&self) -> Result<(), Error>;
}

/// How many bytes of room on a disk are left by whatever copies a store. It is the service that needs them then: a log that cannot be written
/// ends the process.
pub const ROOM_LEFT: u64 = 16 * 1024 * 1024;

/// How many bytes of room there are on the disk that a folder is on.
///
/// # Errors
/// When the system does not say.
pub fn room_on_the_disk_of(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    // Some that are no disks do not say.
    Ok(if disk.f_blocks == 0 { u64::MAX } else { disk.f_bavail.saturating_mul(disk.f_frsize) })
}

/// The most records that an export hands over, or an import takes, at a time.
pub const TRANSFER_BATCH: usize = 1000;

/// Moving everything that a store holds into another one, of whatever kind.
#[async_trait]
pub trait Transfer {
    /// Sends all records, as they were at one moment after the call, while the store goes on being written to. They come in batches of at
    /// most [`TRANSFER_BATCH`], what is referred to before what refers to it, and the [`Record::Identity`] last. Records whose time has
    /// come may be among them. Only when this returns without an error were they all of them; when nobody receives any more it returns
    /// an error soon.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`]; [`Error::Precondition`] when another export goes on, or more is written meanwhile than can be kept apart
    /// from what was there before.
    async fn export(&self, records: mpsc::Sender<Vec<Record>>) -> Result<(), Error>;

    /// Whether the store holds no record at all.
    async fn is_empty(&self) -> Result<bool, Error>;

    /// Puts records into a store that was empty and that nobody else uses, in the order in which an export gives them, a batch of at most
    /// [`TRANSFER_BATCH`] at a time, each in one step or in several. Once it has the [`Record::Identity`] the store is whole; before, a service
    /// must not start on it. A record that is there already is replaced.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`]; [`Error::Internal`] for a record that this store cannot hold.
    async fn import(&self, records: Vec<Record>) -> Result<(), Error>;
}

/// A store.
pub trait Store:
    AppStore
    + UserStore
    + SessionStore
    + LogoutStore
    + AuthorityStore
    + ReplayStore
    + UsageStore
    + SigningKeyStore
    + Maintenance
    + Transfer
    + fmt::Debug
    + Send
    + Sync
{
}

/// The key that was made last.
#[must_use]
pub fn newest_signing_key(keys: &[SigningKey]) -> Option<&SigningKey> {
    keys.iter().max_by_key(|key| (key.created_at, &key.kid))
}

/// How a family's refresh token may be used: the rule of docs/api.md, "Refresh", which every store applies inside its atomic step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The newest token: the next generation is due.
    Rotate,
    /// The one before it, soon enough: the newest is given out again.
    Repeat,
    /// An older one, or too late.
    Replay,
    /// A generation that was never given out.
    Unknown,
}

/// Judges the use of a refresh token.
#[must_use]
pub fn judge(family: &Family, rotation: &Rotation, now: Timestamp) -> Turn {
    if rotation.generation > family.generation {
        Turn::Unknown
    } else if rotation.generation == family.generation {
        Turn::Rotate
    } else if rotation.generation + 1 == family.generation && now.since(family.rotated_at) < rotation.grace {
        Turn::Repeat
    } else {
        Turn::Replay
    }
}
