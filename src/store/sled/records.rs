//! Records that were read or written lately, decoded, for as long as nobody else writes to them.
//!
//! Whether somebody has is told by counters: each key has one of a fixed number of them, and the writer adds to it once a step has written to
//! the key, before the step is answered. A record is kept with what its counter showed before it was read, or after it was
//! written, and is good while that stands. Two keys that share a counter cost a read at worst. Only kinds that calls read again and again are
//! kept, and only writes to those are counted: what else is written would make them be read anew for nothing.

use std::{
    any::Any,
    borrow::Borrow,
    fmt,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::sync::Cache;

use super::{
    keys,
    txn::{Kind, Writes, get},
};
use crate::core::{Error, ids::FamilyId, model::Grant};

/// How many counters there are.
const COUNTERS: usize = 1 << 17;
/// How many records are kept at the most.
const MOST: usize = 1 << 16;
/// How many grants are kept at the most.
const MOST_GRANTS: usize = 1 << 14;

/// The kinds that are kept: what an access token stands for.
const KINDS: [&[u8]; 4] = [keys::APPS, keys::USERS, keys::SESSIONS, keys::FAMILIES];

fn is_kept(key: &[u8]) -> bool {
    KINDS.iter().any(|kind| key.starts_with(kind))
}

/// How often what is kept under a key was changed, give or take others that share the counter.
#[derive(Debug)]
struct Changes {
    places: RandomState,
    counters: Box<[AtomicU64]>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { places: RandomState::new(), counters: (0..COUNTERS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Changes {
    fn place(&self, key: &[u8]) -> usize {
        usize::try_from(self.places.hash_one(key) % COUNTERS as u64).unwrap_or_default()
    }

    /// Notes that a key was written to.
    fn note(&self, key: &[u8]) {
        self.counters[self.place(key)].fetch_add(1, Ordering::Release);
    }

    fn mark(&self, key: &[u8]) -> Mark {
        let place = self.place(key);
        Mark { place, seen: self.counters[place].load(Ordering::Acquire) }
    }

    /// Whether a counter still shows what it did.
    fn stands(&self, mark: &Mark) -> bool {
        self.counters[mark.place].load(Ordering::Acquire) == mark.seen
    }
}

/// What a counter showed before a record was read.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    place: usize,
    seen: u64,
}

/// A record, decoded. Its key says of which kind it is.
pub(super) type Record = Arc<dyn Any + Send + Sync>;

/// A record, good while its mark stands.
#[derive(Clone)]
struct Kept {
    record: Record,
    mark: Mark,
}

/// What an access token stands for, and what the counters of all records that say so have to show.
struct KeptGrant {
    grant: Grant,
    marks: Vec<Mark>,
}

/// The records that calls read again and again.
pub(super) struct Records {
    changes: Changes,
    lately: Cache<Vec<u8>, Kept>,
    grants: Cache<FamilyId, Arc<KeptGrant>>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl Default for Records {
    fn default() -> Self {
        Self { changes: Changes::default(), lately: Cache::new(MOST), grants: Cache::new(MOST_GRANTS) }
    }
}

impl Records {
    /// Reads a record, or gives it as it was read or written before if it has not changed since.
    ///
    /// Which tree is in force is asked after the counter is: of one that has made way for another, nobody would count what is written.
    pub(super) fn get<T: Kind, R: Borrow<sled::Tree>>(&self, tree: impl FnOnce() -> R, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        if !is_kept(key) {
            return Ok(get::<T>(tree().borrow(), key)?.map(Arc::new));
        }
        let kept = self.lately.get(key).filter(|kept| self.changes.stands(&kept.mark));
        if let Some(record) = kept.and_then(|kept| kept.record.downcast().ok()) {
            return Ok(Some(record));
        }
        let mark = self.changes.mark(key);
        let Some(record) = get::<T>(tree().borrow(), key)?.map(Arc::new) else { return Ok(None) };
        self.lately.insert(key.to_vec(), Kept { record: Arc::clone(&record) as Record, mark });
        Ok(Some(record))
    }

    /// What the tokens of a family stand for, as it was read before if none of what says so has changed since. `read` reads it, and gives the
    /// mark of each record, taken before that was read. How late it is stays to be looked at.
    pub(super) fn grant(
        &self,
        family: FamilyId,
        read: impl FnOnce() -> Result<Option<(Grant, Vec<Mark>)>, Error>,
    ) -> Result<Option<Grant>, Error> {
        let kept = self.grants.get(&family).filter(|kept| kept.marks.iter().all(|mark| self.changes.stands(mark)));
        if let Some(kept) = kept {
            return Ok(Some(kept.grant.clone()));
        }
        let Some((grant, marks)) = read()? else { return Ok(None) };
        self.grants.insert(family, Arc::new(KeptGrant { grant: grant.clone(), marks }));
        Ok(Some(grant))
    }

    /// The mark of a record that is about to be read.
    pub(super) fn mark(&self, key: &[u8]) -> Mark {
        debug_assert!(is_kept(key), "writes to it are not counted");
        self.changes.mark(key)
    }

    /// Notes what was written to the tree. To be called after that, and before anybody is told.
    pub(super) fn note(&self, writes: &Writes) {
        let kept = || writes.iter().filter(|(key, _)| is_kept(key));
        for (key, _) in kept() {
            self.changes.note(key);
        }
        for (key, written) in kept() {
            if let Some(record) = &written.record {
                self.lately.insert(key.to_vec(), Kept { record: Arc::clone(record), mark: self.changes.mark(key) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::txn::Written, *};

    #[test]
    fn what_is_read_from_a_tree_that_is_about_to_make_way_is_not_kept_for_what_the_next_one_has() {
        let open = || sled::Config::new().temporary(true).open().unwrap();
        let (old, new) = (open(), open());
        let records = Records::default();
        let write = |tree: &sled::Tree, value: u8| tree.insert("a key", rmp_serde::to_vec(&value).unwrap()).unwrap();
        write(&old, 1);
        write(&new, 1);
        let read = |tree: &sled::Db| records.get::<u8, _>(|| (**tree).clone(), b"a key").unwrap();
        // Whoever asks which tree is in force is held up there until the other one is, and has been written to.
        let held_up = records.get::<u8, _>(
            || {
                let in_force = (*old).clone();
                write(&new, 2);
                records.note(&vec![("a key".into(), Written { value: None, record: None })]);
                in_force
            },
            b"a key",
        );
        assert_eq!(held_up.unwrap().as_deref(), Some(&1), "as it was when he asked");
        assert_eq!(read(&new).as_deref(), Some(&2));
    }

    #[test]
    fn a_key_that_was_written_to_is_known_to_have_changed_and_others_are_not() {
        let changes = Changes::default();
        let marks: Vec<Mark> = (0..100_u8).map(|key| changes.mark(&[key])).collect();
        assert!(marks.iter().all(|mark| changes.stands(mark)));
        changes.note(&[7]);
        assert!(!changes.stands(&marks[7]));
        let changed = marks.iter().filter(|mark| !changes.stands(mark)).count();
        // Of a hundred keys two may share a counter, but hardly ever many do.
        assert!(changed <= 5, "{changed}");
    }
}
