//! A store that is being made from a backup: it is nowhere until it is whole.

use std::{fs, io, path::Path};

use super::{Folder, STORE, SledStore, compaction, io_error, is_there, lock_folder, sync, sync_names};
use crate::core::Error;

/// Where the store is until it is whole, in the data folder.
const UNFINISHED: &str = "restore.unfinished";

/// A store that is being made. It goes when it is not finished, and leaves an empty folder, so that no service begins with nothing where somebody
/// is in the middle of a restore.
#[derive(Debug)]
pub struct NewStore {
    /// The store has one of its own until then.
    folder: Folder,
    store: SledStore,
    is_finished: bool,
}

impl NewStore {
    /// Whether a store could be made in `folder`.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when there is one already.
    pub fn check_place(folder: &Path) -> Result<(), Error> {
        match fs::symlink_metadata(folder.join(STORE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io_error("cannot look into", folder, &error)),
            Ok(_) => Err(Error::StoreUnavailable(format!(
                "there is a store in {} already, and none is replaced: name another folder, or move that one away",
                folder.display()
            ))),
        }
    }

    /// Begins a store in `folder`, which is there. What an earlier one has left there that was broken off is removed.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when there is a store already, or it cannot be made.
    pub fn begin(folder: &Path) -> Result<Self, Error> {
        let lock = lock_folder(folder)?;
        compaction::settle(folder)?;
        Self::check_place(folder)?;
        let unfinished = folder.join(UNFINISHED);
        fs::create_dir_all(&unfinished).map_err(|error| io_error("cannot make", &unfinished, &error))?;
        empty(&unfinished)?;
        let store = SledStore::open(&unfinished)?;
        Ok(Self { folder: Folder { path: folder.to_owned(), _lock: lock }, store, is_finished: false })
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &SledStore {
        &self.store
    }

    /// Puts the store where it is looked for, once all of it is on disk.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub fn finish(mut self) -> Result<(), Error> {
        let made = self.folder.join(UNFINISHED).join(STORE);
        for entry in fs::read_dir(&made).map_err(|error| io_error("cannot read", &made, &error))? {
            sync(&entry.map_err(|error| io_error("cannot read", &made, &error))?.path())?;
        }
        sync(&made)?;
        let store = self.folder.join(STORE);
        fs::rename(&made, &store).map_err(|error| io_error("cannot make", &store, &error))?;
        self.is_finished = true;
        sync_names(&self.folder)
    }
}

/// Refuses where a restore failed or was broken off, and there is nothing but what it has left.
pub(super) fn check_none_is_unfinished(folder: &Path) -> Result<(), Error> {
    let unfinished = folder.join(UNFINISHED);
    if !is_there(&unfinished)? {
        return Ok(());
    }
    Err(Error::StoreUnavailable(format!(
        "a restore into {} was broken off or failed: give it again, or, to begin with an empty store, remove {}",
        folder.display(),
        unfinished.display()
    )))
}

/// Removes what a restore has left that was killed. To be called by who has the folder for himself.
pub(super) fn remove_unfinished(folder: &Path) -> Result<(), Error> {
    let unfinished = folder.join(UNFINISHED);
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("cannot remove", &unfinished, &error)),
        _ => Ok(()),
    }
}

/// Removes what is in a folder that stays.
fn empty(folder: &Path) -> Result<(), Error> {
    let empty = || -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
        Ok(())
    };
    empty().map_err(|error| io_error("cannot empty", folder, &error))
}

impl Drop for NewStore {
    fn drop(&mut self) {
        let gone = if self.is_finished { remove_unfinished(&self.folder) } else { empty(&self.folder.join(UNFINISHED)) };
        if let Err(error) = gone {
            tracing::warn!("what was not restored is left behind: {error}");
        }
    }
}
