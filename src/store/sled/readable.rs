//! Finding out whether the disk gives sled's log before sled reads it.
//!
//! sled takes a segment that it cannot read for one that is not there, or for the end of its log: it serves what is left, and overwrites what
//! it has not read. So what it is going to read is read before it, and what the disk does not give is an error while all is still there.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::io_error;
use crate::core::Error;

/// How long a segment of sled's log is.
const SEGMENT: u64 = 512 * 1024;
/// How much of it says which one it is: a checksum, its place in the log, and one more number.
const HEADER: usize = 20;
/// Where its place in the log stands, and what that is combined with.
const PLACE: std::ops::Range<usize> = 4..12;
const MASK: u64 = 0x7FFF_FFFF_FFFF_FFFF;

/// Reads every header, and wholly what was written since the newest snapshot: that is what sled reads.
///
/// # Errors
/// [`Error::StoreUnavailable`], with what to do.
pub(super) fn check(folder: &Path) -> Result<(), Error> {
    let log = folder.join("db");
    let read = || -> io::Result<()> {
        let file = File::open(&log)?;
        let snapshot = newest_snapshot(folder)?;
        let mut segment = vec![0; usize::try_from(SEGMENT).unwrap_or(usize::MAX)];
        for at in (0..file.metadata()?.len()).step_by(segment.len()) {
            read_at(&file, &mut segment[..HEADER], at)?;
            let place = segment.get(PLACE).and_then(|bytes| bytes.try_into().ok()).map_or(MASK, |bytes| u64::from_le_bytes(bytes) ^ MASK);
            if place.saturating_add(SEGMENT) > snapshot {
                read_at(&file, &mut segment, at)?;
            }
        }
        Ok(())
    };
    read().map_err(|error| match io_error("cannot read", &log, &error) {
        Error::StoreUnavailable(what) => Error::StoreUnavailable(format!("{what}. Nothing was changed: see to the disk, and start again")),
        other => other,
    })
}

/// Up to which place in the log the newest snapshot says where everything is.
fn newest_snapshot(folder: &Path) -> io::Result<u64> {
    let mut newest = 0;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let place = name.to_str().and_then(|name| name.strip_prefix("snap.")).and_then(|place| u64::from_str_radix(place, 16).ok());
        newest = newest.max(place.unwrap_or(0));
    }
    Ok(newest)
}

/// Reads until the buffer is full, or the file at its end.
fn read_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, at) {
            Ok(0) => break,
            Ok(length) => {
                buffer = &mut buffer[length..];
                at += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
