//! The file of the master key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use zeroize::Zeroizing;

use super::StartError;
use crate::core::{
    seal::MasterKey,
    secret::{Secret, random_bytes},
};

/// Makes a folder that only its owner can look into, or makes one that is there such a folder.
pub(super) fn make_private_folder(path: &Path) -> Result<(), StartError> {
    let cannot = |error| format!("cannot make {}: {error}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
    let mode = fs::metadata(path).map_err(cannot)?.permissions().mode();
    if mode & 0o077 != 0 && fs::set_permissions(path, fs::Permissions::from_mode(0o700)).is_err() {
        tracing::warn!(folder = %path.display(), "others on this machine can look into the data folder, and it is not ours to close: chmod 700 it");
    }
    Ok(())
}

/// How a key is made.
const MAKE_ONE: &str = "make one with `head -c 32 /dev/urandom > FILE && chmod 600 FILE`";

/// Reads a master key: exactly 32 bytes.
pub(super) fn read(path: &Path) -> Result<MasterKey, StartError> {
    let cannot = |error| format!("cannot read the master key {}: {error}", path.display());
    let mut file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{}. Put back the one that the store was made with; for a new store: {MAKE_ONE}", cannot(error)),
        _ => cannot(error),
    })?;
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    if mode & 0o007 != 0 {
        tracing::warn!(file = %path.display(), "everybody on this machine can read the master key: chmod 600 it");
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MasterKey::LENGTH + 1));
    Read::by_ref(&mut file).take(MasterKey::LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    let bytes: [u8; MasterKey::LENGTH] = bytes.as_slice().try_into().map_err(|_| {
        format!("the master key {} has to have exactly {} bytes. For a new store: {MAKE_ONE}", path.display(), MasterKey::LENGTH)
    })?;
    Ok(MasterKey::new(bytes))
}

/// Makes a master key where there is none.
pub(super) fn make_if_missing(path: &Path) -> Result<(), StartError> {
    let key = Zeroizing::new(random_bytes::<{ MasterKey::LENGTH }>()?);
    match write_new(path, key.as_ref()) {
        Ok(()) => {
            tracing::info!(file = %path.display(), "made a master key");
            Ok(())
        }
        // Whoever made it may have been killed before its name was on disk.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            sync_folder_of(path).map_err(|error| format!("cannot sync the folder of {}: {error}", path.display()).into())
        }
        Err(error) => Err(format!("cannot make the master key {}: {error}", path.display()).into()),
    }
}

fn write_new(path: &Path, content: &[u8]) -> std::io::Result<()> {
    // It gets its name once it is whole: a kill in between leaves no half of it.
    let mut unnamed = path.as_os_str().to_owned();
    unnamed.push(".new");
    let unnamed = Path::new(&unnamed);
    match fs::remove_file(unnamed) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(unnamed)?;
    file.write_all(content)?;
    file.sync_all()?;
    let named = fs::hard_link(unnamed, path);
    fs::remove_file(unnamed)?;
    named?;
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Writes a secret where only its owner can read it, in place of what is there.
pub(super) fn write_secret(path: &Path, secret: &Secret) -> Result<(), StartError> {
    let cannot = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(error).into()),
        _ => {}
    }
    let line = Zeroizing::new(format!("{}\n", secret.expose()));
    write_new(path, line.as_bytes()).map_err(|error| cannot(error).into())
}
