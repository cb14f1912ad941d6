//! The store for one machine: embedded, in sled 0.34.

mod accounts;
mod acknowledged;
mod authorities;
mod batch;
mod compaction;
mod keys;
mod logouts;
mod migration;
mod new;
mod readable;
mod records;
mod sessions;
mod snapshot;
mod transfer;
mod txn;
mod writer;

use std::{
    fs::{self, File, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::MetadataExt as _,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;

pub use self::new::NewStore;
use self::{
    acknowledged::Acknowledged,
    compaction::Compaction,
    txn::{Kind, Txn, decode, get, unavailable, words},
    writer::{Current, Files, Writer, in_force},
};
use super::{ENDED_AT_ONCE, Identity, Maintenance, SigningKeyStore, Space, Store, newest_signing_key};
use crate::core::{
    Error,
    clock::{MOST_SET_BACK, Timestamp},
    model::SigningKey,
};

/// The format of the records. A store of an older one is brought to it, one of a newer one is refused.
const FORMAT: u32 = 2;
/// How much of the store sled keeps in memory, in bytes. It uses several times as much.
const CACHE: u64 = 64 * 1024 * 1024;
/// The store, in the data folder.
const STORE: &str = "store";
/// Which process uses the data folder.
const LOCK: &str = "lock";
/// How long another process may take to let go of the folder.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How many expiries one purge looks at.
const PURGE_BATCH: usize = 256;
/// When a record that could not be read, and whose time has come, is looked at again.
const UNREADABLE_AGAIN: Duration = Duration::from_hours(1);

/// A store in a folder of this machine.
#[derive(Debug)]
pub struct SledStore {
    folder: Arc<Folder>,
    current: Current,
    writer: Writer,
    compaction: Compaction,
}

/// The data folder, which this process has for itself as long as anybody here holds this: also whoever makes, names or removes files in it while
/// the store is dropped.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

fn io_error(what: &str, path: &Path, error: &io::Error) -> Error {
    Error::StoreUnavailable(format!("{what} {}: {error}", path.display()))
}

/// Whether something is there. What the disk does not say is an error: the answer decides which files are in force.
fn is_there(path: &Path) -> Result<bool, Error> {
    path.try_exists().map_err(|error| io_error("cannot look for", path, &error))
}

/// Brings a file, or the names in a folder, to disk.
fn sync(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|error| io_error("cannot sync", path, &error))
}

impl SledStore {
    /// Opens the store in `folder`, or makes a new one.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], with what to do, when another process has it open, it is damaged, of a newer format, or cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(|error| io_error("cannot make", folder, &error))?;
        let lock = lock_folder(folder)?;
        compaction::settle(folder)?;
        let path = folder.join(STORE);
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Whoever is in the middle of a restore does not want a service that begins with nothing.
                new::check_none_is_unfinished(folder)?;
                make(folder, &path)?;
            }
            Err(error) => return Err(io_error("cannot look for", &path, &error)),
            Ok(found) => {
                new::remove_unfinished(folder)?;
                check_can_be_replaced(folder, &path, &found)?;
            }
        }
        // Who made it may have been killed before its name was on disk.
        sync_names(folder)?;
        Self::open_at(Folder { path: folder.to_owned(), _lock: lock }, &path)
    }

    /// Where a store is in `folder`, if there is one.
    #[must_use]
    pub fn places(folder: &Path) -> [PathBuf; 2] {
        [STORE, compaction::NEXT].map(|store| folder.join(store))
    }

    /// Opens the store in `folder`, if there is one.
    ///
    /// # Errors
    /// As [`SledStore::open`], and when there is none.
    pub fn open_existing(folder: &Path) -> Result<Self, Error> {
        for store in Self::places(folder) {
            if is_there(&store)? {
                return Self::open(folder);
            }
        }
        Err(Error::StoreUnavailable(format!("there is no store in {}", folder.display())))
    }

    /// Has sled note where everything is in the store in `folder`, which nobody has open any more. It does so only when it opens one, and
    /// reads all that was written since it did so last.
    ///
    /// # Errors
    /// As [`SledStore::open_existing`].
    pub fn prepare_to_open(folder: &Path) -> Result<(), Error> {
        Self::open_existing(folder).map(drop)
    }

    /// Opens the store at `path`.
    fn open_at(folder: Folder, path: &Path) -> Result<Self, Error> {
        remove_half_written_snapshots(path)?;
        let (db, file) = open_what_is_there(path)?;
        let acknowledged = Acknowledged::open(&path.join("acknowledged"), &db)?;
        sync(path)?;
        migration::migrate(&db, &file)?;
        let tree: sled::Tree = (*db).clone();
        let owed = logouts::count(&tree)?;
        let current = Current::new(RwLock::new(tree));
        let writer = Writer::start(Files { db, file: Arc::new(file), acknowledged }, Current::clone(&current), owed)
            .map_err(|error| io_error("cannot start the writer of", path, &error))?;
        Ok(Self { folder: Arc::new(folder), current, writer, compaction: Compaction::default() })
    }

    /// Has this process end when the disk does not answer for so long: what hangs gives no error, and callers would wait for ever.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when there can be no watchdog.
    pub fn watch(&self, limit: Duration) -> Result<(), Error> {
        self.writer.watch(limit).map_err(|error| Error::StoreUnavailable(format!("cannot start the watchdog of the store: {error}")))
    }

    /// What is read from.
    fn tree(&self) -> sled::Tree {
        in_force(&self.current)
    }

    async fn run<T, F>(&self, step: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.writer.run(step).await
    }

    /// Reads a record that calls read again and again.
    fn read<T: Kind>(&self, key: &[u8]) -> Result<Option<Arc<T>>, Error> {
        self.writer.beside.records.get(|| self.tree(), key)
    }

    fn get<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, Error> {
        get(&self.tree(), key)
    }

    /// At most `limit` records whose keys begin with `prefix` and come after `after`.
    async fn list<T>(&self, prefix: &'static [u8], after: Option<Vec<u8>>, limit: usize) -> Result<Vec<(Vec<u8>, T)>, Error>
    where
        T: serde::de::DeserializeOwned + Send + 'static,
    {
        let tree = self.tree();
        let scan = move || {
            let after = after.unwrap_or_else(|| prefix.to_vec());
            let begin = std::ops::Bound::Excluded(after);
            tree.range::<Vec<u8>, _>((begin, std::ops::Bound::Unbounded))
                .take_while(|entry| entry.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
                .take(limit)
                .map(|entry| entry.map_err(unavailable).and_then(|(key, value)| Ok((key.to_vec(), decode(&value)?))))
                .collect()
        };
        tokio::task::spawn_blocking(scan).await.map_err(|error| Error::Internal(error.to_string()))?
    }
}

/// Refuses a store that new files could not take the place of: it has to be a folder, and on the same disk as the one that it is in.
fn check_can_be_replaced(folder: &Path, path: &Path, found: &fs::Metadata) -> Result<(), Error> {
    let around = fs::metadata(folder).map_err(|error| io_error("cannot look into", folder, &error))?;
    if found.is_dir() && found.dev() == around.dev() {
        return Ok(());
    }
    Err(Error::StoreUnavailable(format!(
        "{} is a mount, a link or a file: the store moves to new files beside it, so mount {} in its place, or have --data-dir name a folder \
         on that disk",
        path.display(),
        folder.display()
    )))
}

/// Makes a new store. It gets its name once it is whole, so that a start that was cut short leaves nothing that cannot be opened.
fn make(folder: &Path, path: &Path) -> Result<(), Error> {
    let fresh = folder.join("store.new");
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("cannot remove", &fresh, &error)),
        _ => {}
    }
    drop(open_files(&fresh)?);
    // sled syncs neither its settings nor the names of the files that it makes.
    for made in [fresh.join("conf"), fresh.join("db"), fresh.clone()] {
        sync(&made)?;
    }
    fs::rename(&fresh, path).map_err(|error| io_error("cannot rename", &fresh, &error))
}

/// Brings to disk what is in a folder, and that the folder is there: it may be new, too, and what it is in. Where something else is mounted it
/// was there before.
fn sync_names(folder: &Path) -> Result<(), Error> {
    sync(folder)?;
    let cannot = |error: io::Error| io_error("cannot look into", folder, &error);
    let (path, disk) = (folder.canonicalize().map_err(cannot)?, fs::metadata(folder).map_err(cannot)?.dev());
    for around in path.ancestors().skip(1).take_while(|around| fs::metadata(around).is_ok_and(|around| around.dev() == disk)) {
        // Who may not read it has not made it.
        let _ = sync(around);
    }
    Ok(())
}

/// Opens sled's files that are there, and its log besides.
fn open_what_is_there(path: &Path) -> Result<(sled::Db, File), Error> {
    let log = path.join("db");
    // Open before sled has it: what the kernel could not write it says once to each who has the file open then.
    let file = File::open(&log).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => damaged(path, "its log, the file db, is not there"),
        _ => io_error("cannot open", &log, &error),
    })?;
    // What this process had open here before may still be on its way to the disk. Only then does sled let go of its own lock, and it
    // does not wait for it.
    drop(lock(&log)?);
    readable::check(path)?;
    // A process that was killed leaves to the kernel what it had written and not synced. sled takes all that it reads for safe: it may
    // sync its notes of where everything is alone, and does not open again when the power goes before the log follows.
    file.sync_all().inspect_err(|_| forget_what_was_read(&file)).map_err(|error| io_error("cannot sync", &log, &error))?;
    Ok((open_files(path)?, file))
}

/// Opens sled's files, or makes them.
fn open_files(path: &Path) -> Result<sled::Db, Error> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE);
    // sled panics where it finds something that it did not expect in its files.
    match std::panic::catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) => Err(Error::StoreUnavailable(format!(
            "cannot open {}: {}. Make room if the disk is full, see to the disk if it has errors, and start again",
            path.display(),
            words(&error)
        ))),
        Ok(Err(error)) => Err(damaged(path, &error.to_string())),
        Err(_) => Err(damaged(path, "see above")),
    }
}

/// Held together by all who wait for the disk in sled, and alone by whoever writes a batch. sled has those wait for one another itself, but lets
/// nobody read who comes after a batch that waits: callers who only ask something, and health, would wait for the disk with it. One for all
/// stores, as sled's is.
static FLUSHING: RwLock<()> = RwLock::new(());

/// Runs what waits for the disk in sled.
fn flushing<T>(work: impl FnOnce() -> T) -> T {
    let _flushing = FLUSHING.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Brings to disk what was written to sled's log. sled's own flush does not go so far.
fn sync_log(db: &sled::Db, log: &File) -> Result<(), Error> {
    let synced = flushing(|| db.flush()).map_err(unavailable).map(drop);
    let synced =
        synced.and_then(|()| log.sync_data().map_err(|error| Error::StoreUnavailable(format!("the log cannot be synced: {error}"))));
    synced.inspect_err(|_| forget_what_was_read(log))
}

/// Has the kernel read a file from the disk again. What it could not write it takes for written, and gives to whoever reads it next: a start
/// would go on from what is not there.
fn forget_what_was_read(file: &File) {
    // Where it cannot, nothing is worse than it was.
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::StoreUnavailable(format!("{} is damaged: {what}. Restore it from a backup", path.display()))
}

/// Takes a data folder for this process alone, for as long as the file is open. A service whose store is elsewhere keeps its own things there,
/// too.
///
/// # Errors
/// [`Error::StoreUnavailable`] when another process has it.
pub fn lock_folder(folder: &Path) -> Result<File, Error> {
    lock(&folder.join(LOCK))
}

fn lock(path: &PathBuf) -> Result<File, Error> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).map_err(|error| io_error("cannot open", path, &error))?;
    let begun = Instant::now();
    let mut waiting = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // A process that was killed lets go a moment after it is gone.
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_WAIT => {
                if !std::mem::replace(&mut waiting, true) {
                    tracing::info!(file = %path.display(), "waiting for another process to let go of the data folder");
                }
                wait_a_moment();
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::StoreUnavailable(format!(
                    "another supos-auth has {} open: stop that one first, or give this one another --data-dir",
                    path.parent().unwrap_or(path).display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(io_error("cannot lock", path, &error)),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a file lock gives no event to wait for")]
fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Removes snapshots that a process did not get to finish: sled takes one for the newest snapshot and never opens again. Nothing is
/// lost, a snapshot only saves reading the log.
fn remove_half_written_snapshots(path: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("cannot read", path, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| io_error("cannot read", path, &error))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            tracing::warn!(file = %entry.path().display(), "removing a snapshot that was not finished");
            fs::remove_file(entry.path()).map_err(|error| io_error("cannot remove", &entry.path(), &error))?;
        }
    }
    Ok(())
}

impl Store for SledStore {}

#[async_trait]
impl SigningKeyStore for SledStore {
    async fn signing_keys(&self) -> Result<Vec<SigningKey>, Error> {
        let keys = self.list(keys::SIGNING_KEYS, None, usize::MAX).await?;
        Ok(keys.into_iter().map(|(_, key)| key).collect())
    }

    async fn add_signing_key(&self, key: SigningKey, newest: Option<String>) -> Result<bool, Error> {
        self.run(move |txn| {
            let keys: Result<Vec<_>, Error> = txn.keys(keys::SIGNING_KEYS).map(|key| txn.get::<SigningKey>(&key?)).collect();
            let keys: Vec<SigningKey> = keys?.into_iter().flatten().collect();
            let is_newest = newest_signing_key(&keys).map(|key| &key.kid) == newest.as_ref();
            if is_newest {
                txn.put(&keys::signing_key(&key.kid), &key)?;
            }
            Ok(is_newest)
        })
        .await
    }

    async fn retire_signing_key(
        &self,
        kid: &str,
        now: Timestamp,
        expires_at: Timestamp,
        forgotten_at: Timestamp,
    ) -> Result<SigningKey, Error> {
        let kid = kid.to_owned();
        self.run(move |txn| {
            let at = keys::signing_key(&kid);
            let mut key: SigningKey = txn.get(&at)?.ok_or(Error::NotFound("signing key"))?;
            if key.retired_at.is_some() {
                return Ok(key);
            }
            let mut another_signs = false;
            for other in txn.keys(keys::SIGNING_KEYS) {
                let other: Option<SigningKey> = txn.get(&other?)?;
                another_signs |= other.is_some_and(|other| other.kid != kid && other.retired_at.is_none() && other.activates_at <= now);
            }
            if !another_signs {
                return Err(Error::Precondition("no other key could sign: add one, and retire this one when the new one is active"));
            }
            key.retired_at = Some(now);
            key.expires_at = Some(expires_at);
            key.forgotten_at = Some(forgotten_at);
            txn.put(&at, &key)?;
            Ok(key)
        })
        .await
    }
}

#[async_trait]
impl Maintenance for SledStore {
    async fn identity(&self) -> Result<Option<Identity>, Error> {
        self.get(keys::IDENTITY)
    }

    async fn found(&self, identity: Identity) -> Result<Identity, Error> {
        self.run(move |txn| match txn.get(keys::IDENTITY)? {
            Some(known) => Ok(known),
            None => txn.put(keys::IDENTITY, &identity).map(|()| identity),
        })
        .await
    }

    async fn set_identity(&self, identity: Identity) -> Result<(), Error> {
        self.run(move |txn| txn.put(keys::IDENTITY, &identity)).await
    }

    async fn purge(&self, now: Timestamp) -> Result<usize, Error> {
        self.writer
            .run_in_turn(move |txn| {
                let until = keys::expiry(now, &[]);
                let due: Vec<_> = txn.keys_until(keys::EXPIRIES, &until).take(PURGE_BATCH).collect::<Result<_, _>>()?;
                let mut room = ENDED_AT_ONCE;
                let mut looked_at = 0;
                for expiry in &due {
                    if room == 0 {
                        break;
                    }
                    looked_at += 1;
                    txn.remove(expiry);
                    // One that cannot be read must not keep all others from being purged.
                    if let Err(error) = sessions::expire(txn, keys::expiring(expiry), now, &mut room) {
                        tracing::error!("a record whose time has come is left where it is, and looked at again in an hour: {error}");
                        txn.put_raw(&keys::expiry(now.after(UNREADABLE_AGAIN), keys::expiring(expiry)), Vec::new());
                    }
                }
                for key in txn.keys(keys::SIGNING_KEYS) {
                    let at = key?;
                    match txn.get::<SigningKey>(&at) {
                        Ok(Some(key)) if key.forgotten_at.is_some_and(|forgotten_at| forgotten_at <= now) => txn.remove(&at),
                        Ok(_) => {}
                        Err(error) => tracing::error!("a signing key is left where it is: {error}"),
                    }
                }
                let latest = txn.get::<Timestamp>(keys::LATEST).unwrap_or_else(|error| {
                    tracing::error!("the time when the service last ran is noted anew: {error}");
                    None
                });
                // A clock that was far ahead and was set right is not waited for when it comes near what it showed then.
                if latest.is_none_or(|latest| latest < now || latest.since(now) > MOST_SET_BACK) {
                    txn.put(keys::LATEST, &now)?;
                }
                Ok(looked_at)
            })
            .await
    }

    async fn overdue(&self, now: Timestamp) -> Result<Duration, Error> {
        let first = self.tree().scan_prefix(keys::EXPIRIES).keys().next().transpose().map_err(unavailable)?;
        Ok(first.map_or(Duration::ZERO, |expiry| now.since(keys::time_of_expiry(&expiry))))
    }

    async fn give_space_back(&self) -> Result<Option<Space>, Error> {
        self.compact().await.map(Some)
    }

    async fn latest(&self) -> Result<Timestamp, Error> {
        Ok(self.get(keys::LATEST)?.unwrap_or_default())
    }

    async fn probe(&self) -> Result<(), Error> {
        self.writer
            .run_in_turn(|txn| {
                txn.put_raw(keys::PROBE, &[0_u8; 1][..]);
                Ok(())
            })
            .await
    }

    async fn failed(&self) -> String {
        self.writer.failed().await
    }

    async fn stalled(&self) {
        self.writer.stalled().await;
    }

    async fn flush(&self) -> Result<(), Error> {
        // A step that writes nothing is answered after everything before it is on disk.
        self.writer.run_in_turn(|_| Ok(())).await
    }
}

#[cfg(test)]
mod tests;
