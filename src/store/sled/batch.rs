//! What several steps have written, on its way into the tree.
//!
//! To sled each batch is two writes to the disk of its own, however small it is. So the steps that share a flush share a batch, too. Until
//! it is in the tree they see of one another what is in it; nobody else does, and nobody is told of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use super::{
    keys,
    txn::{Writes, unavailable},
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
    for (key, value) in writes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    tree.apply_batch(batch).map_err(unavailable)?;
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
    writes: BTreeMap<sled::IVec, Option<sled::IVec>>,
}

impl Batch {
    /// An empty one.
    pub(super) fn new(tree: sled::Tree, beside: Arc<Beside>) -> Self {
        Self { tree, beside, writes: BTreeMap::new() }
    }

    /// What a key holds.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Error> {
        match self.writes.get(key) {
            Some(written) => Ok(written.clone()),
            None => self.tree.get(key).map_err(unavailable),
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
        self.writes.insert(keys::STEP.into(), Some(number.to_be_bytes()[..].into()));
        if self.writes.len() > MOST {
            self.settle()?;
        }
        Ok(number)
    }

    /// Puts everything into the tree, as one.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let writes: Writes = std::mem::take(&mut self.writes).into_iter().collect();
        if writes.is_empty() {
            return Ok(());
        }
        self.beside.snapshots.keep(&self.tree, writes.iter().map(|(key, _)| key.as_ref()))?;
        apply(&self.tree, &writes)?;
        for (key, _) in &writes {
            self.beside.changes.note(key);
        }
        self.beside.written.fetch_add(writes.len() as u64, Ordering::Relaxed);
        self.beside.mirror.write(&writes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
