//! Stores and the files of backups, where no service runs.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tokio::sync::mpsc;

use super::{Opened, StartError, master_key, open_folder, opened_database};
use crate::{
    backup::{self, Piece, Reader, Summary},
    config::LocalPlace,
    store::{
        Store, Transfer as _,
        postgres::PostgresStore,
        record::Record,
        sled::{NewStore, SledStore},
    },
};

/// How many connections to a database a command may have.
const CONNECTIONS: usize = 4;

/// Opens a store that is there, of a stopped service.
pub(super) async fn open_existing(place: LocalPlace) -> Result<Opened, StartError> {
    match place {
        LocalPlace::Folder(folder) => {
            check_owner(&folder)?;
            open_folder(move || SledStore::open_existing(&folder)).await
        }
        LocalPlace::Database(address) => Ok(opened_database(PostgresStore::open_existing(*address, CONNECTIONS).await?)),
    }
}

/// Refuses to leave files in somebody's folder that he cannot read: who may do everything makes files of his own. Whose it is says the store,
/// or else the folder, or where that would be made.
fn check_owner(folder: &Path) -> Result<(), StartError> {
    let stores = SledStore::places(folder);
    for path in stores.iter().map(PathBuf::as_path).chain(folder.ancestors()) {
        // The last one of a relative path.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match fs::metadata(path) {
            Ok(found) if rustix::process::geteuid().is_root() && found.uid() != 0 => {
                let (path, owner) = (path.display(), found.uid());
                return Err(format!(
                    "{path} belongs to user {owner}, whose service could not read the files that root makes: run this as that user (sudo -u \
                     '#{owner}' supos-auth ...)"
                )
                .into());
            }
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("cannot look into {}: {error}", path.display()).into()),
        }
    }
    Ok(())
}

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
pub async fn backup(place: LocalPlace, pieces: mpsc::Sender<Piece>) -> Result<u64, StartError> {
    let Opened { store, clock, .. } = open_existing(place).await?;
    Ok(backup::take(&*store, clock.now(), pieces).await?)
}

/// Makes a new store from a backup, and says what was in the backup. `progress` is told the stage and how many records and bytes of the file
/// it has done.
///
/// # Errors
/// When the file is no whole backup, there is a store already, or it cannot be made. No service starts on what was begun then.
pub fn restore(file: &Path, place: LocalPlace, mut progress: impl FnMut(RestoreStage, u64, u64)) -> Result<Summary, StartError> {
    let cannot = |error: &dyn std::fmt::Display| format!("{} cannot be restored: {error}", file.display());
    if !fs::metadata(file).map_err(|error| cannot(&error))?.is_file() {
        return Err(cannot(&"it is no file, and is read twice: save what comes there in one").into());
    }
    let open = || File::open(file).map(|file| BufReader::with_capacity(1 << 20, file)).map_err(|error| cannot(&error));
    if let LocalPlace::Folder(folder) = &place {
        check_owner(folder)?;
        NewStore::check_place(folder)?;
    }
    let summary =
        backup::check(open()?, |records, bytes| progress(RestoreStage::Checking, records, bytes)).map_err(|error| cannot(&error))?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut put = |into: &dyn Store| -> Result<(), StartError> {
        let mut reader = Reader::open(open()?).map_err(|error| cannot(&error))?;
        while let Some(mut batch) = reader.next_batch().map_err(|error| cannot(&error))? {
            backup::pass_over_families(&mut batch)?;
            // The last record, which makes a store of them. A service may have made one of its own there meanwhile, whose root key is in use.
            let identity = batch.pop_if(|record| matches!(record, Record::Identity(_)));
            runtime.block_on(into.import(batch))?;
            if let Some(Record::Identity(identity)) = identity
                && runtime.block_on(into.found(identity.clone()))? != identity
            {
                return Err("a service has begun a store there meanwhile: stop it first".into());
            }
            progress(RestoreStage::Storing, reader.records(), reader.bytes());
        }
        Ok(())
    };
    match place {
        LocalPlace::Folder(folder) => {
            master_key::make_private_folder(&folder)?;
            let new = NewStore::begin(&folder)?;
            put(new.store())
                .map_err(|error| format!("{error}. Nothing is left of it: make room if the disk is full, and give it again"))?;
            new.finish()?;
        }
        LocalPlace::Database(address) => {
            let into = runtime.block_on(PostgresStore::open_new(*address, CONNECTIONS))?;
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
