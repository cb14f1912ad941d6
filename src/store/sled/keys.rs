//! How records are keyed: one tree, a prefix for each kind, so that one batch can change several kinds at once.
//!
//! | key | value |
//! |---|---|
//! | `a` app id | the app |
//! | `u` user id | the user |
//! | `n` user name | his id |
//! | `w` user id | nothing: he is an enabled administrator |
//! | `s` session id | the session |
//! | `t` hash of a ticket | its session's id |
//! | `x` user id, session id | nothing: the session is his |
//! | `f` session id, number | the family |
//! | `c` hash of a code | the code |
//! | `k` kid | the signing key |
//! | `r` hash of a signature | nothing: it was used |
//! | `d` app id | what the app does that it should do no more |
//! | `e` time, key of a session, code or signature | nothing: look at it then, it may have expired |
//! | `m` name | what the store knows of itself |

use crate::core::{
    clock::Timestamp,
    ids::{AppId, FamilyId, SessionId, UserId},
    secret::BearerHash,
};

pub(super) const APPS: &[u8] = b"a";
pub(super) const USER_NAMES: &[u8] = b"n";
pub(super) const ADMINISTRATORS: &[u8] = b"w";
pub(super) const SESSIONS: &[u8] = b"s";
pub(super) const CODES: &[u8] = b"c";
pub(super) const SIGNING_KEYS: &[u8] = b"k";
pub(super) const USED: &[u8] = b"r";
pub(super) const USAGE: &[u8] = b"d";
pub(super) const EXPIRIES: &[u8] = b"e";
pub(super) const FORMAT: &[u8] = b"mformat";
pub(super) const IDENTITY: &[u8] = b"midentity";
pub(super) const PROBE: &[u8] = b"mprobe";

fn key(prefix: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(super) fn app(id: &AppId) -> Vec<u8> {
    key(APPS, &[id.as_str().as_bytes()])
}

pub(super) fn user(id: UserId) -> Vec<u8> {
    key(b"u", &[id.as_bytes()])
}

pub(super) fn user_name(name: &str) -> Vec<u8> {
    key(USER_NAMES, &[name.as_bytes()])
}

pub(super) fn administrator(id: UserId) -> Vec<u8> {
    key(ADMINISTRATORS, &[id.as_bytes()])
}

pub(super) fn session(id: SessionId) -> Vec<u8> {
    key(SESSIONS, &[id.as_bytes()])
}

pub(super) fn ticket(hash: &BearerHash) -> Vec<u8> {
    key(b"t", &[hash.as_bytes()])
}

pub(super) fn sessions_of(user: UserId) -> Vec<u8> {
    key(b"x", &[user.as_bytes()])
}

pub(super) fn session_of(user: UserId, session: SessionId) -> Vec<u8> {
    key(b"x", &[user.as_bytes(), session.as_bytes()])
}

/// The session id at the end of a key.
pub(super) fn session_at_end(key: &[u8]) -> Option<SessionId> {
    key.last_chunk::<16>().map(|bytes| SessionId::from_bytes(*bytes))
}

pub(super) fn families_of(session: SessionId) -> Vec<u8> {
    key(b"f", &[session.as_bytes()])
}

pub(super) fn family(id: FamilyId) -> Vec<u8> {
    key(b"f", &[id.session.as_bytes(), &id.number.to_be_bytes()])
}

pub(super) fn code(hash: &BearerHash) -> Vec<u8> {
    key(CODES, &[hash.as_bytes()])
}

pub(super) fn signing_key(kid: &str) -> Vec<u8> {
    key(SIGNING_KEYS, &[kid.as_bytes()])
}

pub(super) fn used(hash: &BearerHash) -> Vec<u8> {
    key(USED, &[hash.as_bytes()])
}

pub(super) fn usage(app: &AppId) -> Vec<u8> {
    key(USAGE, &[app.as_str().as_bytes()])
}

/// The app whose usage this is the key of.
pub(super) fn app_of_usage(key: &[u8]) -> Option<AppId> {
    AppId::new(std::str::from_utf8(key.get(USAGE.len()..)?).ok()?)
}

pub(super) fn expiry(at: Timestamp, of: &[u8]) -> Vec<u8> {
    key(EXPIRIES, &[&at.millis().to_be_bytes(), of])
}

/// The key of what expires, from the key of its expiry.
pub(super) fn expiring(expiry: &[u8]) -> &[u8] {
    expiry.get(EXPIRIES.len() + 8..).unwrap_or_default()
}
