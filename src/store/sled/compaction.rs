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
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    STORE, SledStore,
    acknowledged::Acknowledged,
    batch::apply,
    io_error, is_there, open_files, sync, sync_log,
    txn::{Writes, unavailable},
    writer::{Files, Wrote, cause},
};
use crate::{
    core::Error,
    store::{ROOM_LEFT, Space, room_on_the_disk_of},
};

/// What is being written.
const COPY: &str = "store.copy";
/// What is whole and has not taken the place of the old files yet.
pub(super) const NEXT: &str = "store.next";
/// How many entries sled has in a leaf that is full.
const LEAF: usize = 16;
/// How many keys are copied between two steps.
const BATCH: usize = LEAF * 16;
/// How many batches are copied pass by pass before the next ones: enough that what the passes leave behind fills segments of sled's log
/// of its own, which are used again as a whole.
const WINDOW: usize = 64;
/// How many bytes are copied before they are brought to disk.
const FLUSHED_AT_ONCE: usize = 2 * 1024 * 1024;
const MIB: u64 = 1024 * 1024;
/// How many more bytes than twice what new files need are left alone: sled leaves some behind in new files, however little they hold.
const SMALL: u64 = 4 * MIB;
/// How many more keys than half of those that there were have to be written before it is looked again.
const WRITES: u64 = 100_000;
/// After how long it is looked again all the same, and no sooner where copying has failed.
const LOOK_AFTER: Duration = Duration::from_mins(10);
/// How much room there has to be besides what new files take: what is copied is written more than once, and the old log goes on.
const SPARE: u64 = 64 * MIB;
/// About how many bytes new files take for so many bytes of keys and values.
const fn needed(bytes: u64) -> u64 {
    bytes + bytes / 4
}

/// Refuses when the disk has less room than so many bytes.
fn check_room(folder: &Path, bytes: u64) -> Result<(), Error> {
    let free = room_on_the_disk_of(folder).map_err(|error| io_error("cannot see how much room there is for", folder, &error))?;
    if free >= bytes {
        return Ok(());
    }
    Err(Error::StoreUnavailable(format!(
        "the disk of {} has {} MiB of room, and copying needs {} MiB. Make room: until there is some, the store only grows",
        folder.display(),
        free / MIB,
        bytes.div_ceil(MIB)
    )))
}

/// What was found when it was looked last.
#[derive(Debug)]
struct Looked {
    at: Instant,
    /// How many keys there were.
    keys: u64,
    /// How many had been written.
    written: u64,
    /// Whether copying has failed then.
    failed: bool,
}

impl Looked {
    /// Whether so much may have changed since that it is worth it to look again.
    fn is_old(&self, written: u64) -> bool {
        let much_written = written - self.written >= self.keys / 2 + WRITES;
        (much_written && !self.failed) || self.at.elapsed() >= LOOK_AFTER
    }
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
    pub(super) fn write(&self, writes: &Writes) {
        let Some(tree) = self.get() else { return };
        if let Err(error) = apply(&tree, writes) {
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
    if is_there(&next)? {
        // Who gave it its name may have been killed before that was on disk.
        sync(folder)?;
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

/// What of a window is copied. Each writes to all its leaves, one after the other.
#[derive(Clone, Copy, Debug)]
enum Pass {
    /// The leaves: of what will be in one, as much as sled leaves in the lower half when it splits a leaf. Some of it without its value.
    Outline,
    /// All but one value of each leaf, in as many pieces as sled adds to a leaf before it writes it anew.
    Fill,
    /// What is missing. sled then writes each leaf whole.
    Complete,
}

impl Pass {
    /// What is written for an entry, given its place in its leaf; none: nothing.
    fn value(self, place: usize, value: sled::IVec) -> Option<sled::IVec> {
        // Another value than the right one, or sled would not write that one.
        let placeholder = |value: &sled::IVec| if value.is_empty() { sled::IVec::from(&[0]) } else { sled::IVec::default() };
        match (self, place) {
            (Self::Outline, 0 | 2 | 15) => Some(placeholder(&value)),
            (Self::Outline, _) => place.is_multiple_of(2).then_some(value),
            (Self::Fill, 15) => None,
            (Self::Fill | Self::Complete, _) => Some(value),
        }
    }
}

/// Copies some keys after `after`, and gives the last of them, and how many bytes were copied; none when there were none.
fn copy_some(from: &sled::Tree, to: &sled::Tree, after: &[u8], pass: Pass) -> Result<Option<(Vec<u8>, usize)>, Error> {
    let (mut last, mut bytes) = (None, 0);
    for (at, entry) in from.range::<&[u8], _>((Bound::Excluded(after), Bound::Unbounded)).take(BATCH).enumerate() {
        let (key, value) = entry.map_err(unavailable)?;
        if let Some(value) = pass.value(at % LEAF, value) {
            bytes += key.len() + value.len();
            to.insert(&key, value).map_err(unavailable)?;
        }
        last = Some(key.to_vec());
    }
    Ok(last.map(|last| (last, bytes)))
}

/// New files, and their folder.
struct Copy {
    db: sled::Db,
    /// The one that sled writes its log to, open from the beginning: what the kernel could not write it says once to each who has the file
    /// open then, and to nobody who opens it later. sled may have been told, and goes on.
    file: Arc<File>,
    /// How many bytes have been copied since it was brought to disk.
    bytes: AtomicUsize,
    path: PathBuf,
    /// There once most of it is on disk.
    acknowledged: Option<Acknowledged>,
}

impl Copy {
    fn begin(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(COPY);
        let db = open_files(&path)?;
        let log = path.join("db");
        let file = File::open(&log).map_err(|error| io_error("cannot open", &log, &error))?;
        Ok(Self { db, file: Arc::new(file), bytes: AtomicUsize::new(0), path, acknowledged: None })
    }

    /// Brings to disk what has been copied so far. What steps write goes there behind it, and is not to wait for more than a little. (sled's part of it
    /// keeps batches waiting, the sync nobody.)
    async fn write_so_far(&self) -> Result<(), Error> {
        let (db, file) = (self.db.clone(), Arc::clone(&self.file));
        blocking(move || sync_log(&db, &file)).await
    }

    /// Brings to disk what has been copied so far, and what there is besides, while steps go on.
    fn make_ready(mut self) -> Result<Self, Error> {
        sync_log(&self.db, &self.file)?;
        self.acknowledged = Some(Acknowledged::open(&self.path.join("acknowledged"), &self.db)?);
        sync(&self.path.join("conf"))?;
        sync(&self.path)?;
        Ok(self)
    }

    /// Puts the new files in force. To be called between two steps, with as few syncs as can be: to the watchdog it is one. Whether it failed
    /// before that or after makes a difference: after it, nobody knows which files the next start finds.
    fn put_in_force(mut self, folder: &Path) -> (Result<(), Error>, Wrote) {
        let mut prepare = || {
            sync_log(&self.db, &self.file)?;
            let mut acknowledged = self.acknowledged.take().ok_or_else(|| Error::Internal("the copy is not ready".into()))?;
            acknowledged.note_all_of(&self.db)?;
            let next = folder.join(NEXT);
            fs::rename(&self.path, &next).map_err(|error| io_error("cannot rename", &self.path, &error))?;
            Ok(acknowledged)
        };
        match prepare() {
            Err(error) => (Err(error), Wrote::Nothing),
            Ok(acknowledged) => match sync(folder) {
                Err(error) => (Err(error.clone()), Wrote::Failed(cause(error))),
                Ok(()) => (Ok(()), Wrote::Moved(Box::new(Files { db: self.db, file: self.file, acknowledged }))),
            },
        }
    }
}

impl SledStore {
    /// Looks whether the files are much larger than they need to be, and copies what lives into new ones if they are.
    pub(super) async fn compact(&self) -> Result<Space, Error> {
        let mut looked = self.compaction.0.lock().await;
        // Where the old files could not be removed at once the new ones do not have their name yet, and what is left of a copy is still there.
        let folder = self.folder.clone();
        blocking(move || settle(&folder)).await?;
        let bytes = size(&self.folder.join(STORE));
        let space = Space { bytes, given_back: None };
        let written = self.writer.written();
        if bytes <= SMALL || looked.as_ref().is_some_and(|looked| !looked.is_old(written)) {
            return Ok(space);
        }
        let tree = self.tree();
        let (keys, live) = blocking(move || count(&tree)).await?;
        *looked = Some(Looked { at: Instant::now(), keys, written, failed: false });
        if bytes <= 2 * needed(live) + SMALL {
            return Ok(space);
        }
        let copied = async {
            check_room(&self.folder, needed(live) + SPARE.min(ROOM_LEFT + 2 * SMALL + 3 * needed(live)))?;
            tracing::info!(bytes, live, "the store takes much more room than it needs: compacting it");
            self.copy_all().await
        }
        .await;
        if let Some(looked) = looked.as_mut() {
            looked.failed = copied.is_err();
        }
        copied?;
        let after = size(&self.folder.join(STORE));
        tracing::info!(before = bytes, after, "the store is compacted");
        Ok(Space { bytes: after, given_back: Some(bytes.saturating_sub(after)) })
    }

    /// Copies everything into new files, and puts them in force. When that fails nothing is left of them: where the disk is full, the log of
    /// the old ones needs their room at once.
    async fn copy_all(&self) -> Result<(), Error> {
        let folder = self.folder.clone();
        let copied = match blocking(move || Copy::begin(&folder)).await {
            Err(error) => Err(error),
            Ok(copy) => {
                let (beside, db) = (self.writer.beside.clone(), copy.db.clone());
                let copied = self.copy_to(copy).await;
                // sled writes once more for whoever lets go of its files last, and panics where that fails: nobody else is to be ended by it.
                let let_go = move || {
                    beside.mirror.set(None);
                    drop(db);
                    Ok(())
                };
                copied.and(blocking(let_go).await)
            }
        };
        let folder = self.folder.clone();
        if copied.is_err()
            && let Err(error) = blocking(move || remove(&folder.join(COPY))).await
        {
            tracing::warn!("a copy that is worth nothing is left, until the next start or the next copy: {error}");
        }
        copied
    }

    async fn copy_to(&self, copy: Copy) -> Result<(), Error> {
        let to: sled::Tree = (*copy.db).clone();
        let (beside, tree) = (self.writer.beside.clone(), to.clone());
        self.writer.between_steps(move |_| (beside.mirror.set(Some(tree)), Wrote::Nothing)).await?;
        let mut begin = Vec::new();
        loop {
            self.copy_window(&copy, &begin, Pass::Outline, WINDOW).await?;
            // What is outlined last is outlined again with what follows: until that has begun, sled has not split its leaf off.
            self.copy_window(&copy, &begin, Pass::Fill, WINDOW - 1).await?;
            match self.copy_window(&copy, &begin, Pass::Complete, WINDOW - 1).await? {
                Some(end) => begin = end,
                None => break,
            }
        }
        // Most of it goes to disk here, while steps go on, and what little comes after it between two of them.
        let copy = blocking(move || copy.make_ready()).await?;
        let (folder, beside) = (self.folder.clone(), self.writer.beside.clone());
        let put_in_force = move |_: &sled::Tree| match beside.mirror.get() {
            Some(_) => copy.put_in_force(&folder),
            None => (Err(Error::StoreUnavailable("a step could not be written to the copy".into())), Wrote::Nothing),
        };
        self.writer.between_steps(put_in_force).await??;
        let folder = self.folder.clone();
        blocking(move || settle(&folder)).await
    }

    /// Copies so many batches of keys after `begin`, and gives the last key; none when no keys are left.
    async fn copy_window(&self, copy: &Copy, begin: &[u8], pass: Pass, batches: usize) -> Result<Option<Vec<u8>>, Error> {
        let to: &sled::Tree = &copy.db;
        let mut end = begin.to_vec();
        for _ in 0..batches {
            let (to, beside, after, folder) = (to.clone(), self.writer.beside.clone(), end.clone(), self.folder.clone());
            let some = move |from: &sled::Tree| {
                let copied = match beside.mirror.get() {
                    Some(_) => check_room(&folder, ROOM_LEFT).and_then(|()| copy_some(from, &to, &after, pass)),
                    None => Err(Error::StoreUnavailable("a step could not be written to the copy".into())),
                };
                (copied, Wrote::Nothing)
            };
            match self.writer.between_steps(some).await?? {
                Some((last, more)) => {
                    end = last;
                    if copy.bytes.fetch_add(more, Ordering::Relaxed) + more >= FLUSHED_AT_ONCE {
                        copy.bytes.store(0, Ordering::Relaxed);
                        copy.write_so_far().await?;
                    }
                }
                None => return Ok(None),
            }
        }
        Ok(Some(end))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(error.to_string()))?
}

#[cfg(test)]
mod tests;
