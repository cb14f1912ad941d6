//! What a store holds, in the words of the domain and not of any kind of store: what a backup is made of (docs/backup.md), and the way
//! from one kind of store to another.
//!
//! What a store has besides, indexes and counters, it makes anew from these.

use serde::{Deserialize, Serialize};

use super::Identity;
use crate::core::{
    clock::Timestamp,
    ids::{AppId, AuthorityId, FamilyId, SessionId},
    logouts::OwedLogout,
    model::{App, Authority, Code, Family, Link, Session, SigningKey, User},
    secret::BearerHash,
    usage::AppUsage,
};

/// One record. As JSON it is an object whose `kind` says which, with ids and hashes as text, times as milliseconds since 1970, and
/// secrets only sealed.
///
/// Variants stand in the order in which an export gives them: what is referred to comes first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// An app.
    App(App),
    /// What an app still does that it should do no more.
    AppUsage {
        /// The app.
        app: AppId,
        /// What it does.
        usage: AppUsage,
    },
    /// A person's account.
    User(User),
    /// A key that tokens are signed with, its private half sealed.
    SigningKey(SigningKey),
    /// A third-party certification authority, its secret sealed.
    Authority(Authority),
    /// Who a user of an authority is here.
    Link {
        /// The authority.
        authority: AuthorityId,
        /// The user there.
        subject: String,
        /// Who that is here, and since when.
        #[serde(flatten)]
        link: Link,
    },
    /// A session.
    Session(Session),
    /// A refresh token family.
    Family {
        /// Its session.
        session: SessionId,
        /// Its number in the session.
        number: u32,
        /// The family.
        #[serde(flatten)]
        family: Family,
    },
    /// A family that was ended by a replay: its app is told when the session ends. A session has no two whose apps would be told alike.
    EndedFamily {
        /// Its session.
        session: SessionId,
        /// The family, as it was.
        #[serde(flatten)]
        family: Family,
    },
    /// An authorization code.
    Code {
        /// Its hash.
        hash: BearerHash,
        /// The code.
        #[serde(flatten)]
        code: Code,
    },
    /// Something that works once, and was used.
    UsedUp {
        /// Its hash.
        hash: BearerHash,
        /// Until when it is remembered.
        until: Timestamp,
    },
    /// A call that is owed to an app.
    OwedLogout(OwedLogout),
    /// A call that was given up, and is kept to be shown.
    GivenUpLogout(OwedLogout),
    /// What the store was made for, and its root key, sealed under the master key.
    Identity(Identity),
}

impl Record {
    /// A family and its id.
    #[must_use]
    pub const fn family(id: FamilyId, family: Family) -> Self {
        Self::Family { session: id.session, number: id.number, family }
    }

    /// The record's `kind` in JSON.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::App(_) => "app",
            Self::AppUsage { .. } => "app_usage",
            Self::User(_) => "user",
            Self::SigningKey(_) => "signing_key",
            Self::Authority(_) => "authority",
            Self::Link { .. } => "link",
            Self::Session(_) => "session",
            Self::Family { .. } => "family",
            Self::EndedFamily { .. } => "ended_family",
            Self::Code { .. } => "code",
            Self::UsedUp { .. } => "used_up",
            Self::OwedLogout(_) => "owed_logout",
            Self::GivenUpLogout(_) => "given_up_logout",
            Self::Identity(_) => "identity",
        }
    }
}
