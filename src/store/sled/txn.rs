//! Reading and writing records, inside one step.

use std::{io, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{batch::Batch, records::Record};
use crate::core::Error;

/// The longest record: longer ones could make sled keep a whole leaf in a file of its own, which it never syncs.
pub(super) const MAX_RECORD: usize = 4096;

/// What can be read, and kept in memory as it was read.
pub(super) trait Kind: DeserializeOwned + Send + Sync + 'static {}

impl<T: DeserializeOwned + Send + Sync + 'static> Kind for T {}

/// What a key holds from now on.
#[derive(Clone)]
pub(super) struct Written {
    /// Its value; none: it is removed.
    pub(super) value: Option<sled::IVec>,
    /// The record that the value says, where it is one that will be read soon.
    pub(super) record: Option<Record>,
}

/// What is put, and what is removed.
pub(super) type Writes = Vec<(sled::IVec, Written)>;

/// What a step reads from and writes to. What it writes is seen once the whole step is done.
pub(super) struct Txn<'a> {
    batch: &'a mut Batch,
    writes: Writes,
    /// How many more calls are owed to apps once this is done.
    pub(super) owed: i64,
}

impl<'a> Txn<'a> {
    pub(super) fn new(batch: &'a mut Batch) -> Self {
        Self { batch, writes: Vec::new(), owed: 0 }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        self.batch.get(key)?.map(|value| decode(&value)).transpose()
    }

    pub(super) fn has(&self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.batch.get(key)?.is_some())
    }

    /// Reads a record that other calls read, too.
    pub(super) fn read<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        self.batch.read(key)
    }

    pub(super) fn put<T: Serialize>(&mut self, key: &[u8], value: &T) -> Result<(), Error> {
        self.put_encoded(key, value, None)
    }

    /// Puts a record that other calls will read.
    pub(super) fn put_record<T: Serialize + Kind>(&mut self, key: &[u8], record: &Arc<T>) -> Result<(), Error> {
        self.put_encoded(key, record.as_ref(), Some(Arc::clone(record) as Record))
    }

    fn put_encoded<T: Serialize>(&mut self, key: &[u8], value: &T, record: Option<Record>) -> Result<(), Error> {
        let value = rmp_serde::to_vec(value).map_err(|error| Error::Internal(format!("a record cannot be written: {error}")))?;
        if value.len() > MAX_RECORD {
            return Err(Error::Internal(format!("a record has {} bytes, more than {MAX_RECORD}", value.len())));
        }
        self.writes.push((key.into(), Written { value: Some(value.into()), record }));
        Ok(())
    }

    pub(super) fn put_raw(&mut self, key: &[u8], value: impl Into<sled::IVec>) {
        self.writes.push((key.into(), Written { value: Some(value.into()), record: None }));
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        self.writes.push((key.into(), Written { value: None, record: None }));
    }

    pub(super) fn keys(&mut self, prefix: &[u8]) -> Keys {
        Keys::of(self.batch.settled().map(|tree| tree.scan_prefix(prefix)))
    }

    pub(super) fn keys_until(&mut self, from: &[u8], until: &[u8]) -> Keys {
        Keys::of(self.batch.settled().map(|tree| tree.range(from.to_vec()..until.to_vec())))
    }

    /// What the step has put and removed.
    pub(super) fn into_writes(self) -> Writes {
        self.writes
    }

    /// Adds what the step has put and removed to what others have, as one, and gives its number; none when it writes nothing.
    pub(super) fn finish(self) -> Result<Option<u64>, Error> {
        if self.writes.is_empty() { Ok(None) } else { self.batch.add(self.writes).map(Some) }
    }
}

/// Keys of the tree, which has got what the steps before have written.
pub(super) enum Keys {
    Found(Box<sled::Iter>),
    /// It could not get that.
    Failed(Option<Error>),
}

impl Keys {
    fn of(found: Result<sled::Iter, Error>) -> Self {
        found.map_or_else(|error| Self::Failed(Some(error)), |found| Self::Found(Box::new(found)))
    }
}

impl Iterator for Keys {
    type Item = Result<sled::IVec, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Found(found) => Some(found.next()?.map(|(key, _)| key).map_err(unavailable)),
            Self::Failed(error) => error.take().map(Err),
        }
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
        // It looks for something behind the end of a file.
        sled::Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::StoreUnavailable(format!("its files are damaged ({}). Restore it from a backup", words(&error)))
        }
        // Without the words that sled puts before it.
        sled::Error::Io(error) => Error::StoreUnavailable(words(&error)),
        error => Error::StoreUnavailable(error.to_string()),
    }
}

/// What an error of the disk says to people. sled keeps one that it has had, and gives it to whoever comes later as programs write it down.
pub(super) fn words(error: &io::Error) -> String {
    let said = error.to_string();
    let quote = ['"', '\\'];
    let message = said.split_once("message: ").and_then(|(_, rest)| rest.trim_start_matches(quote).split(quote).next());
    message.map_or_else(|| said.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_because_files_are_damaged_says_what_to_do() {
        let damaged = [sled::Error::Corruption { at: None, bt: () }, sled::Error::Io(io::ErrorKind::UnexpectedEof.into())];
        for error in damaged {
            assert!(unavailable(error).to_string().contains("Restore it from a backup"));
        }
        // Words for people, and not what a program calls it.
        let full = sled::Error::Io(io::Error::from_raw_os_error(28));
        for error in [full.clone(), full.clone().clone(), full] {
            let said = unavailable(error).to_string();
            assert!(said.starts_with("store: No space left on device"), "{said}");
            assert!(!said.contains("Os {") && !said.contains("IO error"), "{said}");
        }
        // What the disk cannot do now it may do later.
        assert!(!unavailable(sled::Error::Io(io::ErrorKind::StorageFull.into())).to_string().contains("backup"));
    }
}
