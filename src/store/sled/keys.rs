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
//! | `x` user id, session id | when the session is looked at next: it is his |
//! | `f` session id, number | the family |
//! | `h` session id, hash | a family that was ended by a replay: its app is told when the session ends |
//! | `l` logout id | a call that is owed to an app |
//! | `q` lane, time, logout id | nothing: that call is tried then |
//! | `g` logout id | a call that was given up |
//! | `c` hash of a code | the code |
//! | `k` kid | the signing key |
//! | `r` hash of a signature | until when it is remembered: it was used |
//! | `d` app id | what the app does that it should do no more |
//! | `i` authority id | the authority |
//! | `j` authority name | its id |
//! | `p` authority id | nothing: it waits for an administrator |
//! | `b` authority id, subject | who that is here |
//! | `y` user id, authority id, subject | nothing: that is he |
//! | `e` time, key of a session, code, signature, authority or call that was given up | nothing: look at it then, it may have expired |
//! | `m` name | what the store knows of itself |

use crate::core::{
    clock::Timestamp,
    ids::{AppId, AuthorityId, FamilyId, LogoutId, SessionId, UserId},
    logouts::{Lane, OwedLogout},
    model::Family,
    secret::BearerHash,
};

pub(super) const APPS: &[u8] = b"a";
pub(super) const USERS: &[u8] = b"u";
pub(super) const USER_NAMES: &[u8] = b"n";
pub(super) const ADMINISTRATORS: &[u8] = b"w";
pub(super) const SESSIONS: &[u8] = b"s";
pub(super) const TICKETS: &[u8] = b"t";
pub(super) const FAMILIES: &[u8] = b"f";
pub(super) const ENDED_FAMILIES: &[u8] = b"h";
pub(super) const CODES: &[u8] = b"c";
pub(super) const OWED: &[u8] = b"l";
pub(super) const QUEUE: &[u8] = b"q";
pub(super) const GIVEN_UP: &[u8] = b"g";
pub(super) const SIGNING_KEYS: &[u8] = b"k";
pub(super) const USED: &[u8] = b"r";
pub(super) const USAGE: &[u8] = b"d";
pub(super) const AUTHORITIES: &[u8] = b"i";
pub(super) const AUTHORITY_NAMES: &[u8] = b"j";
pub(super) const PENDING: &[u8] = b"p";
pub(super) const LINKS: &[u8] = b"b";
pub(super) const EXPIRIES: &[u8] = b"e";
pub(super) const FORMAT: &[u8] = b"mformat";
pub(super) const IDENTITY: &[u8] = b"midentity";
pub(super) const PROBE: &[u8] = b"mprobe";
/// The latest time that is known.
pub(super) const LATEST: &[u8] = b"mlatest";
/// The number of the last step, as eight bytes.
pub(super) const STEP: &[u8] = b"mstep";

fn key(prefix: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + parts.iter().map(|part| part.len()).sum::<usize>());
    key.extend_from_slice(prefix);
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

pub(super) fn app(id: &AppId) -> Vec<u8> {
    key(APPS, &[id.as_str().as_bytes()])
}

pub(super) fn user(id: UserId) -> Vec<u8> {
    key(USERS, &[id.as_bytes()])
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
    key(TICKETS, &[hash.as_bytes()])
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
    key(FAMILIES, &[session.as_bytes()])
}

pub(super) fn family(id: FamilyId) -> Vec<u8> {
    key(FAMILIES, &[id.session.as_bytes(), &id.number.to_be_bytes()])
}

/// The session and the number of a family, from its key.
pub(super) fn read_family(key: &[u8]) -> Option<FamilyId> {
    let (session, number) = key.get(FAMILIES.len()..)?.split_first_chunk::<16>()?;
    Some(FamilyId { session: SessionId::from_bytes(*session), number: u32::from_be_bytes(number.try_into().ok()?) })
}

pub(super) fn ended_families_of(session: SessionId) -> Vec<u8> {
    key(ENDED_FAMILIES, &[session.as_bytes()])
}

/// Families that would be told alike share a key.
pub(super) fn ended_family(session: SessionId, family: &Family) -> Vec<u8> {
    let hash = BearerHash::of_logout(family.app.as_str(), family.incarnation.as_bytes(), &family.redirect_origin, &family.logout_uri);
    key(ENDED_FAMILIES, &[session.as_bytes(), hash.as_bytes()])
}

/// The session of an ended family, from its key.
pub(super) fn session_of_ended_family(key: &[u8]) -> Option<SessionId> {
    key.get(ENDED_FAMILIES.len()..)?.first_chunk::<16>().map(|bytes| SessionId::from_bytes(*bytes))
}

pub(super) fn owed(id: LogoutId) -> Vec<u8> {
    key(OWED, &[id.as_bytes()])
}

pub(super) fn given_up(id: LogoutId) -> Vec<u8> {
    key(GIVEN_UP, &[id.as_bytes()])
}

/// When a call is tried next.
pub(super) fn turn(owed: &OwedLogout) -> Vec<u8> {
    key(QUEUE, &[owed.lane().as_bytes(), &owed.next_try_at.millis().to_be_bytes(), owed.id.as_bytes()])
}

/// Where the turns of a lane begin that come after `now`.
pub(super) fn turns_after(lane: &[u8], now: Timestamp) -> Vec<u8> {
    key(QUEUE, &[lane, &now.millis().saturating_add(1).to_be_bytes()])
}

/// Where the turns of the next lane begin.
pub(super) fn lane_after(lane: &[u8]) -> Vec<u8> {
    // Longer than any turn's key, and so after all of the lane's.
    key(QUEUE, &[lane, &[0xff; 25]])
}

/// The lane and the call of a turn.
pub(super) fn read_turn(key: &[u8]) -> Option<(&[u8], LogoutId)> {
    let lane = key.get(QUEUE.len()..QUEUE.len() + size_of::<Lane>())?;
    key.last_chunk::<16>().map(|id| (lane, LogoutId::from_bytes(*id)))
}

pub(super) fn code(hash: &BearerHash) -> Vec<u8> {
    key(CODES, &[hash.as_bytes()])
}

/// The hash at the end of a key.
pub(super) fn hash_at_end(key: &[u8]) -> Option<BearerHash> {
    key.last_chunk::<32>().map(|bytes| BearerHash::from_bytes(*bytes))
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

pub(super) fn authority(id: AuthorityId) -> Vec<u8> {
    key(AUTHORITIES, &[id.as_bytes()])
}

pub(super) fn authority_name(name: &str) -> Vec<u8> {
    key(AUTHORITY_NAMES, &[name.as_bytes()])
}

pub(super) fn pending(id: AuthorityId) -> Vec<u8> {
    key(PENDING, &[id.as_bytes()])
}

/// The authority id at the end of a key.
pub(super) fn authority_at_end(key: &[u8]) -> Option<AuthorityId> {
    key.last_chunk::<16>().map(|bytes| AuthorityId::from_bytes(*bytes))
}

pub(super) fn links_of_authority(authority: AuthorityId) -> Vec<u8> {
    key(LINKS, &[authority.as_bytes()])
}

pub(super) fn link(authority: AuthorityId, subject: &str) -> Vec<u8> {
    key(LINKS, &[authority.as_bytes(), subject.as_bytes()])
}

pub(super) fn links_of_user(user: UserId) -> Vec<u8> {
    key(b"y", &[user.as_bytes()])
}

pub(super) fn link_of_user(user: UserId, authority: AuthorityId, subject: &str) -> Vec<u8> {
    key(b"y", &[user.as_bytes(), authority.as_bytes(), subject.as_bytes()])
}

/// The authority and the subject at the end of a key that has them behind `prefix`.
pub(super) fn linked_at_end(key: &[u8], prefix: usize) -> Option<(AuthorityId, String)> {
    let (authority, subject) = key.get(prefix..)?.split_first_chunk::<16>()?;
    Some((AuthorityId::from_bytes(*authority), String::from_utf8(subject.to_vec()).ok()?))
}

pub(super) fn expiry(at: Timestamp, of: &[u8]) -> Vec<u8> {
    key(EXPIRIES, &[&at.millis().to_be_bytes(), of])
}

/// When to look at what expires, from the key of its expiry.
pub(super) fn time_of_expiry(expiry: &[u8]) -> Timestamp {
    let time = expiry.get(EXPIRIES.len()..).and_then(<[u8]>::first_chunk::<8>);
    Timestamp::from_millis(time.map_or(0, |bytes| u64::from_be_bytes(*bytes)))
}

/// The key of what expires, from the key of its expiry.
pub(super) fn expiring(expiry: &[u8]) -> &[u8] {
    expiry.get(EXPIRIES.len() + 8..).unwrap_or_default()
}
