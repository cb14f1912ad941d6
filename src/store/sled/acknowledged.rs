//! What was answered, in a file beside sled's log.
//!
//! sled opens a log that was cut short as if what is missing had never been. So each step that writes has a number, which it writes with
//! the rest, and once it is on disk and before it is answered its number is put into this file. A store whose last step is before that has
//! lost something that somebody was told, and is not opened.
//!
//! The file is not synced with every step, which would take as long again as the step itself: a kill leaves what was written to it, and
//! after a power cut it may be a second behind, which is no reason to refuse anything.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::{io_error, keys, txn::unavailable};
use crate::core::Error;

/// The number of a step, and the same with every bit turned round.
const LENGTH: usize = 16;

/// The file, open.
#[derive(Debug)]
pub(super) struct Acknowledged {
    file: File,
    step: u64,
}

impl Acknowledged {
    /// Compares the file with what the store holds, and makes it where there is none.
    pub(super) fn open(path: &Path, tree: &sled::Tree) -> Result<Self, Error> {
        let cannot = |error: &io::Error| io_error("cannot use", path, error);
        let step = last_step(tree)?;
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(|error| cannot(&error))?;
        let mut bytes = [0; LENGTH];
        match file.read_exact(&mut bytes) {
            Ok(()) => match read(bytes) {
                Some(acknowledged) if acknowledged > step => return Err(Error::StoreUnavailable(lost(path, step, acknowledged))),
                Some(_) => {}
                None => tracing::warn!(file = %path.display(), "cannot be read: whether the store has lost something is not known"),
            },
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(cannot(&error)),
        }
        let mut acknowledged = Self { file, step };
        acknowledged.note(step).and_then(|()| acknowledged.file.sync_all()).map_err(|error| cannot(&error))?;
        Ok(acknowledged)
    }

    /// Notes that all that is in `tree` is on disk.
    pub(super) fn note_all_of(&mut self, tree: &sled::Tree) -> Result<(), Error> {
        self.note(last_step(tree)?).map_err(|error| Error::StoreUnavailable(format!("cannot note what is on disk: {error}")))
    }

    /// The number of the last step that was noted.
    pub(super) fn step(&self) -> u64 {
        self.step
    }

    /// Notes that this step is on disk.
    pub(super) fn note(&mut self, step: u64) -> io::Result<()> {
        self.step = step;
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(&step.to_be_bytes());
        bytes[8..].copy_from_slice(&(!step).to_be_bytes());
        self.file.write_all_at(&bytes, 0)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The number of the last step that a store holds.
fn last_step(tree: &sled::Tree) -> Result<u64, Error> {
    let step = tree.get(keys::STEP).map_err(unavailable)?;
    Ok(step.and_then(|bytes| Some(u64::from_be_bytes(bytes.as_ref().try_into().ok()?))).unwrap_or_default())
}

fn read(bytes: [u8; LENGTH]) -> Option<u64> {
    let (step, check) = bytes.split_at(8);
    let (step, check) = (u64::from_be_bytes(step.try_into().ok()?), u64::from_be_bytes(check.try_into().ok()?));
    (step == !check).then_some(step)
}

fn lost(path: &Path, step: u64, acknowledged: u64) -> String {
    format!(
        "the store has lost what was answered: it ends with step {step}, and step {acknowledged} was answered. Its files were cut short, \
         damaged or replaced: restore it from a backup. To go on all the same with what is left, where sign-outs and used codes may be \
         undone, remove {}",
        path.display()
    )
}
