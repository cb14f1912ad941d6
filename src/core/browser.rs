//! Browsers that are known to belong to a user, because he has signed in with them before: whoever guesses his password elsewhere cannot
//! keep him out of them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Core, Error,
    clock::Timestamp,
    ids::{SessionId, UserId},
    seal::{Sealed, Vault},
    secret::{Secret, random_bytes},
};

/// How long a browser stays known after the last sign-in with it.
pub const LIFETIME: Duration = Duration::from_hours(180 * 24);
/// How many users one browser is known to belong to.
const MAX_USERS: usize = 8;
const PURPOSE: &str = "known browser";
const ID: usize = 16;
const TIME: usize = 8;

/// A browser, and who has signed in with it. It keeps this itself, sealed; the service keeps nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Browser {
    id: [u8; ID],
    expires_at: Timestamp,
    /// The last first.
    users: Vec<UserId>,
}

impl Browser {
    fn new() -> Result<Self, Error> {
        Ok(Self { id: random_bytes()?, expires_at: Timestamp::default(), users: Vec::new() })
    }

    /// A user's own session is as good as a browser that he is known by.
    #[must_use]
    pub fn of_session(session: SessionId, user: UserId) -> Self {
        Self { id: *session.as_bytes(), expires_at: Timestamp::default(), users: vec![user] }
    }

    /// What tells it from other browsers.
    #[must_use]
    pub const fn id(&self) -> &[u8; ID] {
        &self.id
    }

    /// Whether the user has signed in with it.
    #[must_use]
    pub fn knows(&self, user: UserId) -> bool {
        self.users.contains(&user)
    }

    fn read(vault: &Vault, shown: &str, now: Timestamp) -> Option<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(shown).ok()?;
        let plain = vault.open_sealed(PURPOSE, &Sealed::from_bytes(sealed)).ok()?;
        let (id, rest) = plain.split_first_chunk::<ID>()?;
        let (time, users) = rest.split_first_chunk::<TIME>()?;
        let users = users.chunks_exact(16).filter_map(|user| user.try_into().ok().map(UserId::from_bytes)).collect();
        Some(Self { id: *id, expires_at: Timestamp::from_millis(u64::from_be_bytes(*time)), users })
            .filter(|browser| now < browser.expires_at)
    }

    fn sealed(&self, vault: &Vault) -> Result<Secret, Error> {
        let mut plain = self.id.to_vec();
        plain.extend_from_slice(&self.expires_at.millis().to_be_bytes());
        for user in &self.users {
            plain.extend_from_slice(user.as_bytes());
        }
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(vault.seal(PURPOSE, &plain)?.as_bytes())))
    }
}

impl Core {
    /// The browser that somebody shows, if it is known.
    #[must_use]
    pub fn browser(&self, shown: &str) -> Option<Browser> {
        Browser::read(&self.vault, shown, self.now())
    }

    /// What a browser is to show from now on, after `user` has signed in with it.
    pub(super) fn remember_browser(&self, known: Option<Browser>, user: UserId) -> Result<Secret, Error> {
        let mut browser = match known {
            Some(known) => known,
            None => Browser::new()?,
        };
        browser.users.retain(|known| *known != user);
        browser.users.insert(0, user);
        browser.users.truncate(MAX_USERS);
        browser.expires_at = self.now().after(LIFETIME);
        browser.sealed(&self.vault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::seal::MasterKey;

    #[test]
    fn a_browser_reads_back_until_it_expires_and_any_change_makes_it_unknown() {
        let (vault, _) = Vault::create(&MasterKey::new([1; 32])).unwrap();
        let (user, other) = (UserId::random().unwrap(), UserId::random().unwrap());
        let browser = Browser { users: vec![user, other], expires_at: Timestamp::from_millis(10), ..Browser::new().unwrap() };
        let shown = browser.sealed(&vault).unwrap();
        let read = Browser::read(&vault, shown.expose(), Timestamp::from_millis(9)).unwrap();
        assert_eq!(read, browser);
        assert!(read.knows(user) && read.knows(other) && !read.knows(UserId::random().unwrap()));
        assert!(Browser::read(&vault, shown.expose(), Timestamp::from_millis(10)).is_none());
        for at in 0..shown.expose().len() {
            let mut changed = shown.expose().as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(Browser::read(&vault, std::str::from_utf8(&changed).unwrap(), Timestamp::from_millis(9)).is_none(), "{at}");
        }
    }
}
