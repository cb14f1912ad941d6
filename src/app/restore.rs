//! Stores and the files of backups, where no service runs.

use std::{fs::File, io::BufReader, path::Path};

use tokio::sync::mpsc;

use super::{Opened, StartError, master_key, open_store};
use crate::{
    backup::{self, Piece, Reader, Summary},
    config::{StoreArgs, StorePlace},
    store::{
        Store, Transfer as _,
        postgres::PostgresStore,
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
pub async fn backup(data_dir: &Path, store: &StoreArgs, pieces: mpsc::Sender<Piece>) -> Result<u64, StartError> {
    let data_dir = data_dir.to_owned();
    let Opened { store, clock, .. } = open_store(store, move || SledStore::open_existing(&data_dir)).await?;
    Ok(backup::take(&*store, clock.now(), pieces).await?)
}

/// Makes a new store from a backup, in `data_dir` unless `store` says elsewhere, and says what was in the backup. `progress` is told the
/// stage and how many records and bytes of the file it has done.
///
/// # Errors
/// When the file is no whole backup, there is a store already, or it cannot be made. No service starts on what was begun then.
pub fn restore(
    file: &Path,
    data_dir: Option<&Path>,
    store: &StoreArgs,
    mut progress: impl FnMut(RestoreStage, u64, u64),
) -> Result<Summary, StartError> {
    let cannot = |error: &dyn std::fmt::Display| format!("{} cannot be restored: {error}", file.display());
    let open = || File::open(file).map(|file| BufReader::with_capacity(1 << 20, file)).map_err(|error| cannot(&error));
    let place = store.place()?;
    if let (StorePlace::Sled, Some(data_dir)) = (&place, data_dir) {
        NewStore::check_place(data_dir)?;
    }
    let summary =
        backup::check(open()?, |records, bytes| progress(RestoreStage::Checking, records, bytes)).map_err(|error| cannot(&error))?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut put = |into: &dyn Store| -> Result<(), StartError> {
        let mut reader = Reader::open(open()?).map_err(|error| cannot(&error))?;
        while let Some(mut batch) = reader.next_batch().map_err(|error| cannot(&error))? {
            backup::pass_over_families(&mut batch)?;
            runtime.block_on(into.import(batch))?;
            progress(RestoreStage::Storing, reader.records(), reader.bytes());
        }
        Ok(())
    };
    match place {
        StorePlace::Sled => {
            let data_dir = data_dir.ok_or("say where: --data-dir DIR, or --store")?;
            master_key::make_private_folder(data_dir)?;
            let new = NewStore::begin(data_dir)?;
            put(new.store())?;
            new.finish()?;
        }
        StorePlace::Postgres(address) => {
            let into = runtime.block_on(PostgresStore::open(*address, store.store_connections.into()))?;
            if !runtime.block_on(into.is_empty())? {
                return Err("the database has records already, and none are replaced: name an empty one".into());
            }
            put(&into).map_err(|error| {
                format!(
                    "{error}. A part of it may be in the database, and no service starts on that: drop the database and create it anew, \
                     then restore again"
                )
            })?;
        }
    }
    Ok(summary)
}
