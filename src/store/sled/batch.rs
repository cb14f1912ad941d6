//! What several steps have written, on its way into the tree.
//!
//! To sled each batch is two writes to the disk of its own, however small it is. So the steps that share a flush share a batch, too. Until
//! it is in the tree they see of one another what is in it; nobody else does, and nobody is told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use super::{
    FLUSHING, keys,
    txn::{Kind, Writes, Written, decode, unavailable},
    writer::Beside,
};
use crate::core::Error;

/// How many keys a batch may write before it is put into the tree, whatever else may come: while it is, nothing can be read.
const MOST: usize = 1024;
/// How many keys a batch may write before sled is helped to free what they replace.
const MANY: usize = 256;

/// Writes to a tree, all or nothing.
pub(super) fn apply(tree: &sled::Tree, writes: &Writes) -> Result<(), Error> {
    let mut batch = sled::Batch::default();
    for (key, written) in writes {
        // sled reads as it writes. What it does not get to read in the middle of a batch ends that, and what it has written by then comes back
        // when the store is opened again, though it is not whole. So what it needs is read before, as far as that can be known.
        tree.contains_key(key).map_err(unavailable)?;
        match &written.value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    let alone = FLUSHING.write().unwrap_or_else(PoisonError::into_inner);
    tree.apply_batch(batch).map_err(unavailable)?;
    drop(alone);
    if writes.len() > MANY {
        // With each call sled frees a little of what earlier ones have replaced. Calls that replace much at once would leave more and more
        // of it: gigabytes, where a million sessions are written.
        for (key, _) in writes {
            tree.contains_key(key).map_err(unavailable)?;
        }
    }
    Ok(())
}

/// What is not in the tree yet.
pub(super) struct Batch {
    tree: sled::Tree,
    beside: Arc<Beside>,
    writes: BTreeMap<sled::IVec, Written>,
    /// Why some of what was written is not in the tree, and never will be.
    lost: Option<Error>,
}

impl Batch {
    /// An empty one.
    pub(super) fn new(tree: sled::Tree, beside: Arc<Beside>) -> Self {
        Self { tree, beside, writes: BTreeMap::new(), lost: None }
    }

    /// What a key holds.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        match self.writes.get(key) {
            Some(written) => Ok(written.value.clone()),
            None => self.tree.get(key).map_err(unavailable),
        }
    }

    /// The record that a key holds, which need not be decoded again where it was read or written lately.
    pub(super) fn read<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        let Some(written) = self.writes.get(key) else { return self.beside.records.get(|| &self.tree, key) };
        match written.record.clone().and_then(|record| record.downcast().ok()) {
            Some(record) => Ok(Some(record)),
            None => written.value.as_ref().map(|value| decode(value).map(Arc::new)).transpose(),
        }
    }

    /// The tree, with everything in it.
    pub(super) fn settled(&mut self) -> Result<&sled::Tree, Error> {
        self.settle()?;
        Ok(&self.tree)
    }

    /// From now on another tree is in force, which holds the same.
    pub(super) fn move_to(&mut self, tree: sled::Tree) {
        self.tree = tree;
    }

    /// Adds what a step writes, as one, and gives its number.
    pub(super) fn add(&mut self, writes: Writes) -> Result<u64, Error> {
        // Only the writer's thread counts.
        let number = self.beside.steps.load(Ordering::Relaxed) + 1;
        self.beside.steps.store(number, Ordering::Relaxed);
        self.writes.extend(writes);
        self.writes.insert(keys::STEP.into(), Written { value: Some(number.to_be_bytes()[..].into()), record: None });
        if self.writes.len() > MOST {
            self.settle()?;
        }
        Ok(number)
    }

    /// Puts everything into the tree, as one. Once that has failed it fails ever after, whoever asks: steps that have written, and wait to be
    /// answered, are not on their way to the disk any more.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        if self.lost.is_none() {
            self.lost = self.put_in().err();
        }
        self.lost.clone().map_or(Ok(()), Err)
    }

    fn put_in(&mut self) -> Result<(), Error> {
        let writes: Writes = std::mem::take(&mut self.writes).into_iter().collect();
        if writes.is_empty() {
            return Ok(());
        }
        self.beside.snapshots.keep(&self.tree, writes.iter().map(|(key, _)| key.as_ref()))?;
        apply(&self.tree, &writes)?;
        self.beside.records.note(&writes);
        self.beside.written.fetch_add(writes.len() as u64, Ordering::Relaxed);
        self.beside.mirror.write(&writes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::{super::txn::Txn, *};

    #[test]
    fn a_step_sees_what_the_steps_before_it_have_written_and_nobody_else_does_until_it_is_in_the_tree() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let beside = Arc::<Beside>::default();
        let mut batch = Batch::new((*db).clone(), Arc::clone(&beside));
        db.insert("gone", rmp_serde::to_vec(&0).unwrap()).unwrap();

        let mut first = Txn::new(&mut batch);
        first.put(b"made", &1).unwrap();
        first.remove(b"gone");
        assert_eq!((first.get::<u8>(b"made").unwrap(), first.has(b"gone").unwrap()), (None, true), "its own work it does not see");
        assert_eq!(first.finish(), Ok(Some(1)));

        let mut second = Txn::new(&mut batch);
        assert_eq!((second.get::<u8>(b"made").unwrap(), second.has(b"gone").unwrap()), (Some(1), false));
        second.put(b"made", &2).unwrap();
        assert_eq!(second.finish(), Ok(Some(2)));
        assert!(db.get("made").unwrap().is_none() && db.get("gone").unwrap().is_some());
        assert_eq!(Txn::new(&mut batch).finish(), Ok(None), "a step that writes nothing has no number");

        // Whoever scans finds everything, which is in the tree from then on.
        let keys: Vec<_> = Txn::new(&mut batch).keys(b"made").collect::<Result<_, _>>().unwrap();
        assert_eq!(keys, ["made"]);
        assert_eq!(db.get("made").unwrap().unwrap(), rmp_serde::to_vec(&2).unwrap());
        assert!(db.get("gone").unwrap().is_none());
        assert_eq!(db.get(keys::STEP).unwrap().unwrap(), 2_u64.to_be_bytes());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_last_whether_or_not_it_is_in_the_tree() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let beside = Arc::<Beside>::default();
        let mut batch = Batch::new((*db).clone(), Arc::clone(&beside));
        let (old, new) = (Arc::new(1_u8), Arc::new(2_u8));
        let read = || beside.records.get::<u8, _>(|| &*db, b"a record").unwrap();

        let mut first = Txn::new(&mut batch);
        first.put_record(b"a record", &old).unwrap();
        first.finish().unwrap();
        assert!(Arc::ptr_eq(&batch.read::<u8>(b"a record").unwrap().unwrap(), &old));
        assert_eq!(read(), None, "nobody else sees it yet");
        batch.settle().unwrap();
        assert!(Arc::ptr_eq(&read().unwrap(), &old), "it was decoded again");

        let mut second = Txn::new(&mut batch);
        second.put_record(b"a record", &new).unwrap();
        second.finish().unwrap();
        assert!(Arc::ptr_eq(&read().unwrap(), &old));
        // What is written without being kept takes the place of what is.
        let mut third = Txn::new(&mut batch);
        third.put(b"a record", &3_u8).unwrap();
        third.finish().unwrap();
        assert_eq!(batch.read::<u8>(b"a record").unwrap().as_deref(), Some(&3));
        batch.settle().unwrap();
        assert_eq!(read().as_deref(), Some(&3));

        let mut last = Txn::new(&mut batch);
        last.remove(b"a record");
        last.finish().unwrap();
        assert_eq!(batch.read::<u8>(b"a record").unwrap(), None);
        batch.settle().unwrap();
        assert_eq!(read(), None);
    }

    #[test]
    fn what_could_not_be_put_into_the_tree_is_never_said_to_be_there() {
        let folder = tempfile::tempdir().unwrap();
        let config = || sled::Config::new().path(folder.path().join("store"));
        let key = |number: u32| number.to_be_bytes();
        let db = config().open().unwrap();
        for number in 0..20_000 {
            db.insert(key(number), &[7; 64][..]).unwrap();
        }
        drop(db);
        let db = config().open().unwrap();
        // What is not in memory cannot be read any more, and sled takes writes all the same.
        let log = std::fs::OpenOptions::new().write(true).open(folder.path().join("store/db")).unwrap();
        let length = log.metadata().unwrap().len();
        log.write_all_at(&vec![0xff; usize::try_from(length / 2).unwrap()], length / 4).unwrap();

        let mut batch = Batch::new((*db).clone(), Arc::default());
        let mut written = Txn::new(&mut batch);
        for number in 0..200 {
            written.put_raw(&key(number * 100), &[8; 64][..]);
        }
        assert_eq!(written.finish(), Ok(Some(1)));
        // Somebody scans, and is told; whoever waits for what was written before has to be told, too.
        let mut scan = Txn::new(&mut batch);
        assert!(scan.keys(b"").any(|key| key.is_err()));
        assert_eq!(scan.finish(), Ok(None));
        assert!(batch.settle().is_err(), "nothing is left to do, and so it has gone well");
    }

    #[test]
    fn of_a_batch_that_could_not_be_written_nothing_is_there_when_the_store_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let config = || sled::Config::new().path(folder.path().join("store"));
        let log = || std::fs::OpenOptions::new().read(true).write(true).open(folder.path().join("store/db")).unwrap();
        let key = |number: u32| number.to_be_bytes();
        let db = config().open().unwrap();
        for number in 0..20_000 {
            db.insert(key(number), &[7; 64][..]).unwrap();
        }
        drop(db);
        log().lock().unwrap();
        let db = config().open().unwrap();
        let whole = std::fs::read(folder.path().join("store/db")).unwrap();
        let (begin, end) = (whole.len() / 4, whole.len() * 3 / 4);
        log().write_all_at(&vec![0xff; end - begin], begin as u64).unwrap();

        let writes: Writes = (0..200_u32)
            .map(|number| (sled::IVec::from(&key(number * 100)), Written { value: Some(sled::IVec::from(&[8; 64][..])), record: None }))
            .collect();
        apply(&db, &writes).unwrap_err();
        // sled itself writes what it has, twice a second.
        db.flush().unwrap();
        drop(db);
        let file = log();
        file.lock().unwrap();
        file.write_all_at(&whole[begin..end], begin as u64).unwrap();
        drop(file);
        let db = config().open().unwrap();
        let changed = (0..200_u32).filter(|number| db.get(key(number * 100)).unwrap().is_some_and(|value| value[0] == 8)).count();
        assert_eq!(changed, 0);
    }

    #[test]
    fn what_many_steps_have_written_does_not_wait_for_more() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        let mut batch = Batch::new((*db).clone(), Arc::default());
        for number in 0..MOST {
            let mut step = Txn::new(&mut batch);
            step.put(format!("{number}").as_bytes(), &number).unwrap();
            step.finish().unwrap();
        }
        assert_eq!(db.len(), MOST + 1);
    }
}
