//! Bringing a store of an older format to the present one.
//!
//! Each change of the format is one step from one number to the next. A step works in small batches, and does no harm when it is done
//! twice: after a kill in the middle the next start begins it anew. The number is written when all of a step is on disk.

use std::{fs::File, ops::Bound, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    FORMAT,
    batch::{Batch, apply},
    keys, sync_log,
    txn::{Txn, decode, get, unavailable},
};
use crate::core::{
    Error,
    clock::Timestamp,
    ids::{AuthorityId, SessionId, UserId},
    logouts::OwedLogout,
    model::{App, Authority, Code, Family, Link, Session, SigningKey, User},
};

/// How many keys one batch writes.
const BATCH: usize = 1000;
/// How often it is said how far it has come, in keys.
const SAY_EVERY: u64 = 100_000;

/// Brings a store to the present format, or refuses one of a newer format. `file` is the file that `db` writes its log to.
pub(super) fn migrate(db: &sled::Db, file: &File) -> Result<(), Error> {
    let Some(mut format) = get::<u32>(db, keys::FORMAT)? else { return set_format(db, file, FORMAT) };
    if format > FORMAT {
        return Err(Error::StoreUnavailable(format!(
            "the store has format {format}, and this supos-auth knows formats up to {FORMAT}: run the version that wrote it, or a newer one"
        )));
    }
    while format < FORMAT {
        tracing::info!(from = format, to = format + 1, "bringing the store to a newer format");
        match format {
            1 => from_1(db, file)?,
            _ => {
                return Err(Error::StoreUnavailable(format!(
                    "the store has format {format}, which there never was: restore it from a backup"
                )));
            }
        }
        format += 1;
        set_format(db, file, format)?;
        tracing::info!(format, "the store has the newer format");
    }
    Ok(())
}

/// Notes the format, once everything before it is on disk.
fn set_format(db: &sled::Db, file: &File, format: u32) -> Result<(), Error> {
    write(db, file, |txn| txn.put(keys::FORMAT, &format))
}

/// Writes to the tree, and to the disk: sled uses the room of what is replaced again as soon as it has flushed, which may not be on the disk.
fn write(db: &sled::Db, file: &File, step: impl FnOnce(&mut Txn<'_>) -> Result<(), Error>) -> Result<(), Error> {
    let mut batch = Batch::new((**db).clone(), Arc::default());
    let mut txn = Txn::new(&mut batch);
    step(&mut txn)?;
    apply(db, &txn.into_writes())?;
    sync_log(db, file)
}

/// Gives every key that begins with `prefix` to `change`, and writes what that puts, batch by batch.
fn each(
    db: &sled::Db,
    file: &File,
    prefix: &[u8],
    mut change: impl FnMut(&mut Txn<'_>, &[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut begin = Bound::Included(prefix.to_vec());
    let mut done = 0;
    loop {
        let range = db.range::<Vec<u8>, _>((begin, Bound::Unbounded)).take(BATCH);
        let batch = range.collect::<Result<Vec<_>, _>>().map_err(unavailable)?;
        let batch: Vec<_> = batch.into_iter().take_while(|(key, _)| key.starts_with(prefix)).collect();
        let Some((last, _)) = batch.last() else { return Ok(()) };
        begin = Bound::Excluded(last.to_vec());
        write(db, file, |txn| batch.iter().try_for_each(|(key, value)| change(txn, key, value)))?;
        let before = done;
        done += batch.len() as u64;
        if done / SAY_EVERY > before / SAY_EVERY {
            tracing::info!(keys = done, "going on");
        }
    }
}

/// Writes a value again, in the present form.
fn again<T: Serialize + DeserializeOwned>(txn: &mut Txn<'_>, key: &[u8], value: &[u8]) -> Result<(), Error> {
    txn.put(key, &decode::<T>(value)?)
}

/// Format 2: ids and hashes are bytes and not lists of numbers, a code has the time until which it is kept, what was used up has the time
/// until which it is remembered, and where it is noted whose a session is, it is noted when it is looked at next.
fn from_1(db: &sled::Db, file: &File) -> Result<(), Error> {
    each(db, file, b"", |txn, key, value| match key.split_at_checked(1).map(|(kind, _)| kind) {
        Some(keys::APPS) => again::<App>(txn, key, value),
        Some(keys::USERS) => again::<User>(txn, key, value),
        Some(keys::USER_NAMES) => again::<UserId>(txn, key, value),
        Some(keys::SESSIONS) => again::<Session>(txn, key, value),
        Some(keys::TICKETS) => again::<SessionId>(txn, key, value),
        Some(keys::FAMILIES | keys::ENDED_FAMILIES) => again::<Family>(txn, key, value),
        Some(keys::OWED | keys::GIVEN_UP) => again::<OwedLogout>(txn, key, value),
        Some(keys::SIGNING_KEYS) => again::<SigningKey>(txn, key, value),
        Some(keys::AUTHORITIES) => again::<Authority>(txn, key, value),
        Some(keys::AUTHORITY_NAMES) => again::<AuthorityId>(txn, key, value),
        Some(keys::LINKS) => again::<Link>(txn, key, value),
        // These times were in the index alone.
        Some(keys::EXPIRIES) => {
            let (at, of) = (keys::time_of_expiry(key), keys::expiring(key));
            if of.starts_with(keys::CODES)
                && let Some(code) = txn.get::<Code>(of)?
            {
                txn.put(of, &Code { kept_until: at, ..code })
            } else if of.starts_with(keys::USED) && txn.has(of)? {
                txn.put::<Timestamp>(of, &at)
            } else if of.starts_with(keys::SESSIONS)
                && let Some(session) = txn.get::<Session>(of)?
            {
                txn.put::<Timestamp>(&keys::session_of(session.user, session.id), &at)
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path};

    use super::*;

    /// A store that the last version with format 1 has written, with a record of each kind.
    const FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/store-format-1");

    fn open(path: &Path) -> (sled::Db, File) {
        let db = sled::Config::new().path(path).open().unwrap();
        (db, File::open(path.join("db")).unwrap())
    }

    fn old_store() -> (tempfile::TempDir, sled::Db, File) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["conf", "db"] {
            fs::copy(Path::new(FORMAT_1).join(name), folder.path().join(name)).unwrap();
        }
        let (db, file) = open(folder.path());
        (folder, db, file)
    }

    fn content(db: &sled::Db) -> BTreeMap<Vec<u8>, Vec<u8>> {
        db.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn a_store_that_was_migrated_in_part_is_migrated_to_the_same() {
        let (_folder, db, file) = old_store();
        let old = content(&db);
        migrate(&db, &file).unwrap();
        let new = content(&db);
        assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>());
        assert!(old.iter().filter(|(key, value)| new[*key] != **value).count() > 20, "there was something to do");
        for part in 0..32_u32 {
            for (at, (key, value)) in old.iter().enumerate() {
                let is_new = u32::try_from(at).unwrap().wrapping_mul(2_654_435_761) >> 27 < part;
                db.insert(key, if is_new && key != keys::FORMAT { &new[key] } else { value }.as_slice()).unwrap();
            }
            migrate(&db, &file).unwrap();
            assert_eq!(content(&db), new, "with {part} of 32 parts done before");
        }
    }

    #[test]
    fn a_store_of_a_newer_format_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (db, file) = open(folder.path());
        migrate(&db, &file).unwrap();
        write(&db, &file, |txn| txn.put(keys::FORMAT, &(FORMAT + 1))).unwrap();
        let before = content(&db);
        let refused = migrate(&db, &file).unwrap_err().to_string();
        assert!(refused.contains(&format!("format {}", FORMAT + 1)) && refused.contains("run the version that wrote it"), "{refused}");
        assert_eq!(content(&db), before);
    }
}
