//! Reading everything as it was at one moment, while steps go on writing.
//!
//! sled has no snapshots. So that there is one all the same, the writer keeps what a key held before it writes to it, for every key that
//! the scan has not come to yet. The scan reads what is there now and puts what was kept in its place. It runs beside the writer, which
//! pays one read for each such key and waits for nothing.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{keys, txn::unavailable};
use crate::core::Error;

/// The kinds of key that hold records, in the order in which they are read: what is referred to comes first.
pub(super) const KINDS: [&[u8]; 14] = [
    keys::APPS,
    keys::USAGE,
    keys::USERS,
    keys::SIGNING_KEYS,
    keys::AUTHORITIES,
    keys::LINKS,
    keys::SESSIONS,
    keys::FAMILIES,
    keys::ENDED_FAMILIES,
    keys::CODES,
    keys::USED,
    keys::OWED,
    keys::GIVEN_UP,
    keys::IDENTITY,
];
/// How much may be kept, in bytes.
const MOST_KEPT: usize = 64 * 1024 * 1024;
/// About what keeping a key costs besides its own bytes and its value's.
const OVERHEAD: usize = 100;

/// The place of a key in the order of reading; none: it holds no record.
fn rank(key: &[u8]) -> Option<usize> {
    KINDS.iter().position(|kind| key.starts_with(kind))
}

/// A key and what it held.
type Entry = (Vec<u8>, sled::IVec);
/// What a key held; none: nothing.
type Before = Option<sled::IVec>;

#[derive(Debug)]
struct Progress {
    /// Up to here everything has been read, this included: a kind's rank, and one of its keys, or nothing where the kind begins.
    position: (usize, Vec<u8>),
    /// What was there, of the keys after that which were written to.
    kept: BTreeMap<(usize, Vec<u8>), Before>,
    kept_bytes: usize,
    /// How many bytes may be kept.
    most: usize,
    /// Whether it was too much to keep.
    overflown: bool,
}

/// What keeping this costs, in bytes.
fn cost(key: &[u8], before: &Before) -> usize {
    key.len() + before.as_ref().map_or(0, |value| value.len()) + OVERHEAD
}

/// The snapshots of a store: there is one at a time at the most.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<Option<Progress>>);

/// The state of a store at one moment.
#[derive(Debug)]
pub(super) struct Snapshot(Arc<Snapshots>);

impl Drop for Snapshot {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Snapshots {
    fn lock(&self) -> MutexGuard<'_, Option<Progress>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state after the steps that were run so far. To be called between two steps.
    pub(super) fn take(self: &Arc<Self>) -> Result<Snapshot, Error> {
        self.take_keeping(MOST_KEPT)
    }

    fn take_keeping(self: &Arc<Self>, most: usize) -> Result<Snapshot, Error> {
        let mut progress = self.lock();
        if progress.is_some() {
            return Err(Error::Precondition("another backup is being taken: wait for its end"));
        }
        *progress = Some(Progress { position: (0, Vec::new()), kept: BTreeMap::new(), kept_bytes: 0, most, overflown: false });
        drop(progress);
        Ok(Snapshot(Arc::clone(self)))
    }

    /// Keeps what these keys hold, which are about to be written to.
    pub(super) fn keep<'a>(&self, tree: &sled::Tree, about_to_change: impl Iterator<Item = &'a [u8]>) -> Result<(), Error> {
        let mut guard = self.lock();
        let Some(progress) = guard.as_mut().filter(|progress| !progress.overflown) else { return Ok(()) };
        for key in about_to_change {
            let Some(rank) = rank(key) else { continue };
            let at = (rank, key.to_vec());
            if at <= progress.position || progress.kept.contains_key(&at) {
                continue;
            }
            let before = tree.get(key).map_err(unavailable)?;
            progress.kept_bytes += cost(key, &before);
            progress.kept.insert(at, before);
        }
        if progress.kept_bytes > progress.most {
            // Writing goes on. Whoever reads the snapshot is told.
            progress.overflown = true;
            progress.kept.clear();
        }
        Ok(())
    }
}

impl Snapshot {
    /// The next records as they were, about `limit` of them; none when all have been read.
    pub(super) fn read(&self, tree: &sled::Tree, limit: usize) -> Result<Option<Vec<Entry>>, Error> {
        let gone = || Error::Internal("the snapshot has gone".into());
        let (rank, after) = self.0.lock().as_ref().ok_or_else(gone)?.position.clone();
        let Some(kind) = KINDS.get(rank).copied() else { return Ok(None) };
        let begin = if after.is_empty() { Bound::Included(kind.to_vec()) } else { Bound::Excluded(after) };
        let mut found = BTreeMap::new();
        for entry in tree.range::<Vec<u8>, _>((begin, Bound::Unbounded)).take(limit) {
            let (key, value) = entry.map_err(unavailable)?;
            if !key.starts_with(kind) {
                break;
            }
            found.insert(key.to_vec(), value);
        }
        let last = found.last_key_value().map(|(key, _)| key.clone()).filter(|_| found.len() == limit);
        let end = last.map_or_else(|| (rank + 1, Vec::new()), |key| (rank, key));

        // What has changed since it was read has been kept since it was read, so this comes after the reading.
        let mut guard = self.0.lock();
        let progress = guard.as_mut().ok_or_else(gone)?;
        if progress.overflown {
            return Err(Error::Precondition(
                "more is written during the backup than can be kept apart from it: take it when less is going on, or to a faster disk",
            ));
        }
        let mut ahead = progress.kept.split_off(&end);
        let at_end = ahead.remove_entry(&end);
        for ((_, key), before) in std::mem::replace(&mut progress.kept, ahead).into_iter().chain(at_end) {
            progress.kept_bytes = progress.kept_bytes.saturating_sub(cost(&key, &before));
            match before {
                Some(value) => found.insert(key, value),
                None => found.remove(&key),
            };
        }
        progress.position = end;
        Ok(Some(found.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_is_outrun_says_so_to_whoever_takes_it_and_another_can_be_taken() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let snapshots = Arc::<Snapshots>::default();
        let key = |number: u8| [keys::SESSIONS, &[number]].concat();
        for number in 0..100 {
            db.insert(key(number), &[1; 100][..]).unwrap();
        }
        let overwrite = |numbers: std::ops::Range<u8>| {
            for key in numbers.map(key) {
                snapshots.keep(&db, [key.as_slice()].into_iter()).unwrap();
                db.insert(key, &[2; 100][..]).unwrap();
            }
        };
        let read = |snapshot: &Snapshot| -> Result<Vec<Entry>, Error> {
            let mut all = Vec::new();
            while let Some(some) = snapshot.read(&db, 10)? {
                all.extend(some);
            }
            Ok(all)
        };
        let outrun = snapshots.take_keeping(50 * 200).unwrap();
        overwrite(0..60);
        let Err(Error::Precondition(why)) = read(&outrun) else { panic!("it is not refused") };
        assert!(why.starts_with("more is written during the backup than can be kept apart from it"), "docs/backup.md has these words");
        drop(outrun);

        let next = snapshots.take_keeping(50 * 200).unwrap();
        overwrite(60..100);
        let found = read(&next).unwrap();
        let expected: Vec<u8> = (0..100).map(|number| if number < 60 { 2 } else { 1 }).collect();
        assert_eq!(found.iter().map(|(_, value)| value[0]).collect::<Vec<_>>(), expected);
    }
}
