//! What the service knows: apps, users, sessions, codes, refresh token families and signing keys, as the store keeps them.
//!
//! New fields go to the end of a record and get `#[serde(default)]`, so that records that were written before them can be read. They raise the
//! formats of the store (`store::sled`) and of backups (`backup`), or add a migration of the tables: an older version is to refuse what it
//! would read without them.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    clock::Timestamp,
    ids::{AppId, AuthorityId, FamilyId, Incarnation, SecretId, SessionId, UserId},
    rights::{Right, Rights},
    seal::Sealed,
    secret::BearerHash,
};

/// An app: an OAuth client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The id, and access key.
    pub id: AppId,
    /// Which life of that id this is.
    pub incarnation: Incarnation,
    /// What people call it.
    pub display_name: String,
    /// Where codes may be sent.
    pub redirect_uris: Vec<String>,
    /// Where it may be told that a session has ended.
    pub logout_uris: Vec<String>,
    /// Whether it may take part at all.
    pub enabled: bool,
    /// Whether an access token is not enough to refresh.
    pub refresh_requires_app_credential: bool,
    /// The live secrets: one or two.
    pub secrets: Vec<AppSecret>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What it may do beyond what every app may.
    #[serde(default)]
    pub rights: Rights,
    /// Whether its signatures have to have a date, and work once.
    #[serde(default)]
    pub signature_requires_date: bool,
}

impl App {
    /// Whether one of its secrets is so short that it could be found by trying.
    #[must_use]
    pub fn is_guessable(&self) -> bool {
        self.secrets.iter().any(|secret| secret.short)
    }
}

/// One of an app's secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSecret {
    /// Its id.
    pub id: SecretId,
    /// Its value, sealed: Sign needs it back.
    pub sealed: Sealed,
    /// Whether it is so short that somebody could guess it.
    pub short: bool,
    /// When it was added.
    pub created_at: Timestamp,
}

/// A person's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The stable id.
    pub id: UserId,
    /// The name that he signs in with.
    pub name: String,
    /// The code of the person.
    pub person_code: String,
    /// The code of the company that he belongs to.
    pub company_code: String,
    /// 1 is an administrator.
    pub account_type: u8,
    /// Whether he may sign in.
    pub enabled: bool,
    /// The Argon2id hash of his password as a PHC string; none: no password is right.
    pub password_hash: Option<String>,
    /// Whether he has to change his password before he can sign in.
    pub password_change_required: bool,
    /// When the account was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// What he may do beyond what every user may; see [`User::has`].
    #[serde(default)]
    pub rights: Rights,
}

impl User {
    /// Whether he has a right. An account of type 1 has them all.
    #[must_use]
    pub fn has(&self, right: Right) -> bool {
        self.account_type == 1 || self.rights.include(right)
    }

    /// Whether he may do no more than every user may.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        self.account_type != 1 && self.rights.is_empty()
    }

    /// Whether he may administer the service.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.has(Right::Admin)
    }
}

/// A user's session: from his sign-in to his sign-out, or to one of its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// The hash of the ticket that names it.
    pub ticket: BearerHash,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// When it was last kept alive.
    pub last_used_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
    /// How long it lives with nothing to keep it alive.
    pub idle_lifetime: Duration,
    /// The number of the next refresh token family.
    pub next_family: u32,
    /// The third-party authority that the user signed in at; none: he signed in with his password.
    #[serde(default)]
    pub authority: Option<AuthorityId>,
}

impl Session {
    /// When it ends if nothing keeps it alive.
    #[must_use]
    pub fn ends_at(&self) -> Timestamp {
        self.expires_at.min(self.last_used_at.after(self.idle_lifetime))
    }

    /// Whether it is alive.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        now < self.ends_at()
    }

    /// Ends it, whatever the time is. What it leaves behind is still to be seen to.
    pub fn end(&mut self) {
        self.expires_at = Timestamp::default();
    }

    /// Whether it was ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.expires_at == Timestamp::default()
    }
}

/// An authorization code, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// The app that it is bound to.
    pub app: AppId,
    /// Which life of that app.
    pub incarnation: Incarnation,
    /// The session that it was made in.
    pub session: SessionId,
    /// The redirect URI that it went to.
    pub redirect_uri: String,
    /// The scope that was asked for.
    pub scope: String,
    /// From when on it is not good any more.
    pub expires_at: Timestamp,
    /// What its use gave out; none: it has not been used.
    pub used: Option<FamilyId>,
    /// Until when it is kept: as long again as it was good, so that a second use is known for one.
    #[serde(default)]
    pub kept_until: Timestamp,
}

/// A refresh token family. Its tokens are derived from its id and a generation, and not stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Family {
    /// The app that it was given to.
    pub app: AppId,
    /// Which life of that app.
    pub incarnation: Incarnation,
    /// The scope of its access tokens.
    pub scope: String,
    /// Where the app wants to be told that the session has ended, as it said it.
    pub logout_uri: String,
    /// The origin of the code's redirect URI, which a relative `logout_uri` is resolved against.
    pub redirect_origin: String,
    /// The generation of the newest refresh token.
    pub generation: u32,
    /// When the newest refresh token was first given out.
    pub rotated_at: Timestamp,
}

/// A key that tokens are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// The id that tokens name it by.
    pub kid: String,
    /// The private key, PKCS#8, sealed.
    pub sealed: Sealed,
    /// The x coordinate of the public key, base64url.
    pub x: String,
    /// The y coordinate of the public key, base64url.
    pub y: String,
    /// When it was made, and published.
    pub created_at: Timestamp,
    /// From when on it signs.
    pub activates_at: Timestamp,
    /// When it was retired; none: it is not.
    pub retired_at: Option<Timestamp>,
    /// When the last token that it signed has expired, and it is published no more; none: it is not retired.
    pub expires_at: Option<Timestamp>,
    /// When the last session that it signed a token in has ended, and it goes; none: it is not retired. Until then an expired token
    /// still shows who refreshes or signs out.
    #[serde(default)]
    pub forgotten_at: Option<Timestamp>,
}

/// A third-party certification authority: an identity provider that users may sign in at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// The id.
    pub id: AuthorityId,
    /// The name that the sign-in page shows; no two have the same one.
    pub name: String,
    /// The id that the authority knows this service by.
    pub client_id: String,
    /// The secret that goes with it, sealed: the token call needs it back.
    pub client_secret: Sealed,
    /// Where the browser is sent to sign in.
    pub authorization_uri: String,
    /// Where the authority's code is swapped for its token.
    pub token_uri: String,
    /// Where it is read who has signed in.
    pub userinfo_uri: String,
    /// Where the browser is sent to sign out.
    pub logout_uri: String,
    /// Whether users may sign in at it.
    pub enabled: bool,
    /// Whoever registered it had no right to: it waits for an administrator. None: it waits for nobody.
    pub pending: Option<Pending>,
    /// Whether a user whom it names is found by his name the first time.
    pub link_by_name: bool,
    /// Whether a user whom nobody knows is made.
    pub create_users: bool,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Authority {
    /// Whether it is there at all: one that no administrator has enabled in time is not.
    #[must_use]
    pub fn is_there(&self, now: Timestamp) -> bool {
        self.pending.as_ref().is_none_or(|pending| now < pending.expires_at)
    }
}

/// That an authority waits for an administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// When it goes unless somebody enables it.
    pub expires_at: Timestamp,
    /// The network that it was registered from, in words: see `Source::network_name`.
    pub network: String,
}

/// Who a user of an authority is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The user.
    pub user: UserId,
    /// How it came about.
    pub origin: LinkOrigin,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How a link came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkOrigin {
    /// The user had the name that the authority gave. Such a link is not good for a user who has rights.
    Name,
    /// The user was made for it.
    Creation,
    /// An administrator made it.
    Administrator,
}

/// What an access token stands for, as long as it does: all of it is alive and enabled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The family that the token is of.
    pub family_id: FamilyId,
    /// The family.
    pub family: Arc<Family>,
    /// Its session.
    pub session: Arc<Session>,
    /// The session's user.
    pub user: Arc<User>,
}

/// A signed-in user: a live session and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The session.
    pub session: Arc<Session>,
    /// Its user.
    pub user: Arc<User>,
}
