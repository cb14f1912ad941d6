//! Reading and writing records, inside one step.

use serde::{Serialize, de::DeserializeOwned};

use crate::core::Error;

/// The longest record: longer ones could make sled keep a whole leaf in a file of its own, which it never syncs.
pub(super) const MAX_RECORD: usize = 4096;

/// How many keys a step may write before sled is helped to free what they replace.
const MANY: usize = 256;

/// What is put, and what is removed.
pub(super) type Writes = Vec<(sled::IVec, Option<sled::IVec>)>;

/// What a step reads from and writes to. What it writes is seen once the whole step is done.
pub(super) struct Txn<'a> {
    tree: &'a sled::Tree,
    writes: Writes,
    /// How many more calls are owed to apps once this is done.
    pub(super) owed: i64,
}

impl<'a> Txn<'a> {
    pub(super) fn new(tree: &'a sled::Tree) -> Self {
        Self { tree, writes: Vec::new(), owed: 0 }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        get(self.tree, key)
    }

    pub(super) fn has(&self, key: &[u8]) -> Result<bool, Error> {
        self.tree.contains_key(key).map_err(unavailable)
    }

    pub(super) fn put<T: Serialize>(&mut self, key: &[u8], value: &T) -> Result<(), Error> {
        let value = rmp_serde::to_vec(value).map_err(|error| Error::Internal(format!("a record cannot be written: {error}")))?;
        if value.len() > MAX_RECORD {
            return Err(Error::Internal(format!("a record has {} bytes, more than {MAX_RECORD}", value.len())));
        }
        self.put_raw(key, value);
        Ok(())
    }

    pub(super) fn put_raw(&mut self, key: &[u8], value: impl Into<sled::IVec>) {
        self.writes.push((key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.writes.push((key.into(), None));
    }

    pub(super) fn keys(&self, prefix: &[u8]) -> impl Iterator<Item = Result<sled::IVec, Error>> + use<> {
        self.tree.scan_prefix(prefix).keys().map(|key| key.map_err(unavailable))
    }

    pub(super) fn keys_until(&self, from: &[u8], until: &[u8]) -> impl Iterator<Item = Result<sled::IVec, Error>> + use<> {
        self.tree.range(from.to_vec()..until.to_vec()).keys().map(|key| key.map_err(unavailable))
    }

    /// Whether the step writes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn tree(&self) -> &sled::Tree {
        self.tree
    }

    /// The keys that the step writes to.
    pub(super) fn writes(&self) -> impl Iterator<Item = &[u8]> {
        self.writes.iter().map(|(key, _)| key.as_ref())
    }

    /// Writes what the step has put and removed, as one, and gives it.
    pub(super) fn apply(self) -> Result<Writes, Error> {
        let mut batch = sled::Batch::default();
        for (key, value) in &self.writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.tree.apply_batch(batch).map_err(unavailable)?;
        if self.writes.len() > MANY {
            // With each call sled frees a little of what earlier ones have replaced. Calls that replace much at once would leave more and
            // more of it: gigabytes, in the restore of a million sessions.
            for (key, _) in &self.writes {
                self.tree.contains_key(key).map_err(unavailable)?;
            }
        }
        Ok(self.writes)
    }
}

/// Reads one record.
pub(super) fn get<T: DeserializeOwned>(tree: &sled::Tree, key: &[u8]) -> Result<Option<T>, Error> {
    tree.get(key).map_err(unavailable)?.map(|value| decode(&value)).transpose()
}

/// Reads a record's bytes.
pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(value).map_err(|error| Error::StoreUnavailable(format!("a record cannot be read: {error}")))
}

pub(super) fn unavailable(error: sled::Error) -> Error {
    match error {
        sled::Error::Corruption { .. } => Error::StoreUnavailable("its files are damaged. Restore it from a backup".into()),
        error => Error::StoreUnavailable(error.to_string()),
    }
}
