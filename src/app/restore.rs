//! Stores and the files of backups, where no service runs.

use std::{fs::File, io::BufReader, path::Path};

use tokio::sync::mpsc;

use super::{StartError, master_key};
use crate::{
    backup::{self, Piece, Reader, Summary},
    core::clock::{Clock as _, SystemClock},
    store::{
        Transfer as _,
        sled::{NewStore, SledStore},
    },
};

/// What a restore is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStage {
    /// The file is read and checked. Nothing has been made.
    Checking,
    /// The store is made.
    Storing,
}

/// Takes a backup of the store of a stopped service, and gives the number of its records.
///
/// # Errors
/// When there is no store, or it is in use, or cannot be read.
pub async fn backup(data_dir: &Path, pieces: mpsc::Sender<Piece>) -> Result<u64, StartError> {
    let store = SledStore::open_existing(data_dir)?;
    Ok(backup::take(&store, SystemClock.now(), pieces).await?)
}

/// Makes a new store in `data_dir` from a backup, and says what was in it. `progress` is told the stage and how many records and bytes of
/// the file it has done.
///
/// # Errors
/// When the file is no whole backup, there is a store already, or it cannot be made. There is none then.
pub fn restore(file: &Path, data_dir: &Path, mut progress: impl FnMut(RestoreStage, u64, u64)) -> Result<Summary, StartError> {
    let cannot = |error: &dyn std::fmt::Display| format!("{} cannot be restored: {error}", file.display());
    let open = || File::open(file).map(|file| BufReader::with_capacity(1 << 20, file)).map_err(|error| cannot(&error));
    NewStore::check_place(data_dir)?;
    let summary =
        backup::check(open()?, |records, bytes| progress(RestoreStage::Checking, records, bytes)).map_err(|error| cannot(&error))?;

    master_key::make_private_folder(data_dir)?;
    let new = NewStore::begin(data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut reader = Reader::open(open()?).map_err(|error| cannot(&error))?;
    while let Some(batch) = reader.next_batch().map_err(|error| cannot(&error))? {
        runtime.block_on(new.store().import(batch))?;
        progress(RestoreStage::Storing, reader.records(), reader.bytes());
    }
    new.finish()?;
    Ok(summary)
}
