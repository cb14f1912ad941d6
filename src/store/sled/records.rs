//! Records that were read lately, decoded, for as long as nobody writes to them.
//!
//! Whether somebody has is told by counters: each key has one of a fixed number of them, and the writer adds to it once a step has written to
//! the key, before the step is answered. A record is kept with what its counter showed before it was read, and is good while that
//! stands. Two keys that share a counter cost a read at worst.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::sync::Cache;
use serde::de::DeserializeOwned;

use super::{SledStore, txn::get};
use crate::core::{
    Error,
    model::{App, Family, Session, User},
};

/// How many counters there are.
const COUNTERS: usize = 1 << 14;
/// How many records of each kind are kept at the most.
const MOST: usize = 1 << 15;

/// How often what is kept under a key was changed, give or take others that share the counter.
#[derive(Debug)]
pub(super) struct Changes {
    places: RandomState,
    counters: Box<[AtomicU64]>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { places: RandomState::new(), counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Changes {
    fn of(&self, key: &[u8]) -> &AtomicU64 {
        let place = usize::try_from(self.places.hash_one(key) % COUNTERS as u64).unwrap_or_default();
        &self.counters[place]
    }

    /// Notes that a key was written to. To be called after that, and before anybody is told.
    pub(super) fn note(&self, key: &[u8]) {
        self.of(key).fetch_add(1, Ordering::Release);
    }

    fn seen(&self, key: &[u8]) -> u64 {
        self.of(key).load(Ordering::Acquire)
    }
}

/// A record, and what its counter showed before it was read.
struct Kept<T> {
    record: Arc<T>,
    seen: u64,
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), seen: self.seen }
    }
}

/// Records of one kind.
pub(super) struct Lately<T>(Cache<Vec<u8>, Kept<T>>);

/// The records that calls read again and again.
pub(super) struct Records {
    apps: Lately<App>,
    users: Lately<User>,
    sessions: Lately<Session>,
    families: Lately<Family>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl Default for Records {
    fn default() -> Self {
        Self { apps: Lately::new(), users: Lately::new(), sessions: Lately::new(), families: Lately::new() }
    }
}

impl<T> Lately<T> {
    fn new() -> Self {
        Self(Cache::new(MOST))
    }
}

/// A kind of record that is kept.
pub(super) trait Recent: DeserializeOwned + Send + Sync + 'static {
    fn lately(records: &Records) -> &Lately<Self>
    where
        Self: Sized;
}

impl Recent for App {
    fn lately(records: &Records) -> &Lately<Self> {
        &records.apps
    }
}

impl Recent for User {
    fn lately(records: &Records) -> &Lately<Self> {
        &records.users
    }
}

impl Recent for Session {
    fn lately(records: &Records) -> &Lately<Self> {
        &records.sessions
    }
}

impl Recent for Family {
    fn lately(records: &Records) -> &Lately<Self> {
        &records.families
    }
}

impl SledStore {
    /// Reads a record, or gives it as it was read before if it has not changed since.
    pub(super) fn recent<T: Recent>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        let seen = self.writer.beside.changes.seen(key);
        let lately = &T::lately(&self.records).0;
        if let Some(kept) = lately.get(key).filter(|kept| kept.seen == seen) {
            return Ok(Some(kept.record));
        }
        let Some(record) = get::<T>(&self.tree(), key)?.map(Arc::new) else { return Ok(None) };
        lately.insert(key.to_vec(), Kept { record: Arc::clone(&record), seen });
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_written_to_is_known_to_have_changed_and_others_are_not() {
        let changes = Changes::default();
        let seen = |key: &[u8]| changes.seen(key);
        let before: Vec<u64> = (0..100_u8).map(|key| seen(&[key])).collect();
        changes.note(&[7]);
        let after: Vec<u64> = (0..100_u8).map(|key| seen(&[key])).collect();
        assert_ne!(before[7], after[7]);
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        // Of a hundred keys two may share a counter, but hardly ever many do.
        assert!(changed <= 5, "{changed}");
    }
}
