//! Giving disk space back (docs/adr/015-compaction.md).
//!
//! sled reuses the space of what is gone only in part, and gives none of it back. So when the files have become much larger than what lives
//! needs, everything is copied into new files while the store goes on: the writer copies a little at a time between steps, and every step
//! is written to both. Once all is there and on disk, the new files take the place of the old ones.
//!
//! - `store` are the files that are in force;
//! - `store.copy` is being written, and worth nothing: it is removed when the store is opened;
//! - `store.next` is whole, and in force from the moment it has that name, whether `store` is still there or not.

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    STORE, SledStore,
    acknowledged::Acknowledged,
    io_error, open_files, sync,
    txn::unavailable,
    writer::{Files, Wrote},
};
use crate::{core::Error, store::Space};

/// What is being written.
const COPY: &str = "store.copy";
/// What is whole and has not taken the place of the old files yet.
pub(super) const NEXT: &str = "store.next";
/// How many keys are copied between two steps.
const BATCH: usize = 256;
/// How much larger than that the files may be in any case, in bytes.
const SLACK: u64 = 32 * 1024 * 1024;
/// How many more keys than there were before have to be written before it is looked again.
const WRITES: u64 = 100_000;

/// About how many bytes new files take for so many bytes of keys and values.
const fn needed(bytes: u64) -> u64 {
    bytes * 2
}

/// The most bytes that files may have for so many bytes of keys and values.
const fn allowed(bytes: u64) -> u64 {
    2 * needed(bytes) + SLACK
}

/// What was found when it was looked last.
#[derive(Debug, Default)]
struct Looked {
    /// How many keys there were.
    keys: u64,
    /// How many had been written.
    written: u64,
}

/// When a store was looked at. Held while it is compacted.
#[derive(Debug, Default)]
pub(super) struct Compaction(tokio::sync::Mutex<Option<Looked>>);

/// The files that everything is written to besides, while it is copied to them.
#[derive(Debug, Default)]
pub(super) struct Mirror(Mutex<Option<sled::Tree>>);

impl Mirror {
    fn set(&self, tree: Option<sled::Tree>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tree;
    }

    fn get(&self) -> Option<sled::Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes a step to the copy, too. When that fails there is no copy any more, and nothing else is lost.
    pub(super) fn write(&self, writes: &[(sled::IVec, Option<sled::IVec>)]) {
        let Some(tree) = self.get() else { return };
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        if let Err(error) = tree.apply_batch(batch) {
            tracing::warn!("the store cannot be compacted now: {error}");
            self.set(None);
        }
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", path, &error)),
        _ => Ok(()),
    }
}

/// Ends what was begun before: files that are whole take the place of the old ones, others go.
pub(super) fn settle(folder: &Path) -> Result<(), Error> {
    let (store, next) = (folder.join(STORE), folder.join(NEXT));
    remove(&folder.join(COPY))?;
    if next.exists() {
        remove(&store)?;
        fs::rename(&next, &store).map_err(|error| io_error("cannot rename", &next, &error))?;
        sync(folder)?;
    }
    Ok(())
}

/// The bytes that the files in a folder take.
fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.blocks() * 512).sum()
}

/// How many keys there are, and how many bytes they and their values have.
fn count(tree: &sled::Tree) -> Result<(u64, u64), Error> {
    tree.iter().try_fold((0, 0), |(keys, bytes), entry| {
        let (key, value) = entry.map_err(unavailable)?;
        Ok((keys + 1, bytes + (key.len() + value.len()) as u64))
    })
}

/// Which keys are copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Every other one. sled halves a leaf that has become too large, and never fills it again when keys come in their order.
    First,
    /// Those that are not there yet: they fill the leaves.
    Second,
}

/// Copies some keys after `after`, and gives the last of them; none when that was all.
fn copy_some(from: &sled::Tree, to: &sled::Tree, after: &[u8], pass: Pass) -> Result<Option<Vec<u8>>, Error> {
    let mut batch = sled::Batch::default();
    let mut last = None;
    for (at, entry) in from.range::<&[u8], _>((Bound::Excluded(after), Bound::Unbounded)).take(BATCH).enumerate() {
        let (key, value) = entry.map_err(unavailable)?;
        last = Some(key.to_vec());
        let wanted = match pass {
            Pass::First => at % 2 == 0,
            Pass::Second => !to.contains_key(&key).map_err(unavailable)?,
        };
        if wanted {
            batch.insert(key, value);
        }
    }
    to.apply_batch(batch).map_err(unavailable)?;
    Ok(last)
}

/// New files, and their folder.
struct Copy {
    db: sled::Db,
    path: PathBuf,
}

impl Copy {
    fn begin(folder: &Path) -> Result<Self, Error> {
        settle(folder)?;
        let path = folder.join(COPY);
        Ok(Self { db: open_files(&path)?, path })
    }

    /// Brings to disk what has been copied.
    fn sync(&self) -> Result<File, Error> {
        self.db.flush().map_err(unavailable)?;
        let log = self.path.join("db");
        let file = File::open(&log).map_err(|error| io_error("cannot open", &log, &error))?;
        file.sync_all().map_err(|error| io_error("cannot sync", &log, &error))?;
        Ok(file)
    }

    /// Puts the new files in force. To be called between two steps. Whether it failed before that or after makes a difference: after it,
    /// nobody knows which files the next start finds.
    fn put_in_force(self, folder: &Path) -> (Result<(), Error>, Wrote) {
        let prepare = || {
            let file = self.sync()?;
            let acknowledged = Acknowledged::open(&self.path.join("acknowledged"), &self.db)?;
            sync(&self.path.join("conf"))?;
            sync(&self.path)?;
            let next = folder.join(NEXT);
            fs::rename(&self.path, &next).map_err(|error| io_error("cannot rename", &self.path, &error))?;
            Ok((file, acknowledged))
        };
        match prepare() {
            Err(error) => (Err(error), Wrote::Nothing),
            Ok((file, acknowledged)) => match sync(folder) {
                Err(error) => (Err(error.clone()), Wrote::Failed(error.to_string())),
                Ok(()) => (Ok(()), Wrote::Moved(Box::new(Files { db: self.db, file, acknowledged }))),
            },
        }
    }
}

impl SledStore {
    /// Looks whether the files are much larger than they need to be, and copies what lives into new ones if they are.
    pub(super) async fn compact(&self) -> Result<Space, Error> {
        let mut looked = self.compaction.0.lock().await;
        let bytes = size(&self.folder.join(STORE));
        let space = Space { bytes, given_back: None };
        let written = self.writer.written();
        let enough = looked.as_ref().is_none_or(|looked| written - looked.written >= looked.keys / 2 + WRITES);
        if bytes <= SLACK || !enough {
            return Ok(space);
        }
        let tree = self.tree();
        let (keys, live) = blocking(move || count(&tree)).await?;
        *looked = Some(Looked { keys, written });
        if bytes <= allowed(live) {
            return Ok(space);
        }
        tracing::info!(bytes, live, "the store takes much more room than it needs: compacting it");
        let copied = self.copy_all().await;
        self.writer.beside.mirror.set(None);
        copied?;
        let after = size(&self.folder.join(STORE));
        tracing::info!(before = bytes, after, "the store is compacted");
        Ok(Space { bytes: after, given_back: Some(bytes.saturating_sub(after)) })
    }

    async fn copy_all(&self) -> Result<(), Error> {
        let folder = self.folder.clone();
        let copy = blocking(move || Copy::begin(&folder)).await?;
        let to: sled::Tree = (*copy.db).clone();
        let (beside, tree) = (self.writer.beside.clone(), to.clone());
        self.writer.between_steps(move |_| (beside.mirror.set(Some(tree)), Wrote::Nothing)).await?;
        for pass in [Pass::First, Pass::Second] {
            let mut after = Vec::new();
            loop {
                let (to, beside) = (to.clone(), self.writer.beside.clone());
                let some = move |from: &sled::Tree| {
                    let copied = match beside.mirror.get() {
                        Some(_) => copy_some(from, &to, &after, pass),
                        None => Err(Error::StoreUnavailable("a step could not be written to the copy".into())),
                    };
                    (copied, Wrote::Nothing)
                };
                match self.writer.between_steps(some).await?? {
                    Some(last) => after = last,
                    None => break,
                }
            }
        }
        // Most of it goes to disk here, while steps go on, and what little comes after it between two of them.
        let copy = blocking(move || copy.sync().map(|_| copy)).await?;
        let (folder, beside) = (self.folder.clone(), self.writer.beside.clone());
        let put_in_force = move |_: &sled::Tree| match beside.mirror.get() {
            Some(_) => copy.put_in_force(&folder),
            None => (Err(Error::StoreUnavailable("a step could not be written to the copy".into())), Wrote::Nothing),
        };
        self.writer.between_steps(put_in_force).await??;
        let folder = self.folder.clone();
        blocking(move || settle(&folder)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

#[cfg(test)]
mod tests;
