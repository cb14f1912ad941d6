//! The file of a backup (docs/backup.md): what a store holds, as lines of JSON.
//!
//! The first line says what the file is, each further one is a [`Record`], and the last one has their number and the SHA-256 of everything
//! before it. A file that was cut off or changed is known by that.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    io::{self, BufRead},
};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use thiserror::Error as ThisError;
use tokio::sync::mpsc;

use crate::{
    core::{Error, clock::Timestamp, secret::random_bytes},
    store::{Identity, NO_ROOT_KEY, Origin, Store, TRANSFER_BATCH, record::Record},
};

/// The format of the file. One of a newer format is refused.
pub const FORMAT: u32 = 1;
/// The longest line, in bytes: far more than any record.
const MAX_LINE: u64 = 1024 * 1024;
/// What the first line says of what is not in the file.
const NOTE: &str = "the master key is not in this file: keep it apart, no service starts on what is restored from this without it";

/// How many numbers of families a restored session passes over at the least.
const PASSED_OVER: u32 = 1 << 16;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename = "backup")]
pub struct Header {
    /// The format of the file.
    pub format: u32,
    /// The version of the service that wrote it.
    pub version: String,
    /// When it was begun.
    pub taken_at: Timestamp,
    /// What the store was made for.
    pub origin: Origin,
    /// What is not in the file.
    pub note: String,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename = "end")]
struct Trailer {
    /// How many records there are.
    records: u64,
    /// The SHA-256 of everything before this line, in hexadecimal digits.
    sha256: String,
}

/// What is read of a first line before its format is known.
#[derive(Deserialize)]
struct AnyHeader {
    kind: String,
    format: u32,
    version: String,
}

/// Why a file is no backup that can be restored.
#[derive(Debug, ThisError)]
pub enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("it is no backup of supos-auth")]
    NoBackup,
    /// It is of a format that this version does not know.
    #[error(
        "it has format {format}, written by supos-auth {version}, and this one knows formats up to {FORMAT}: restore it with that version or a newer one"
    )]
    Newer {
        /// Its format.
        format: u32,
        /// The version that wrote it.
        version: String,
    },
    /// Its end is missing.
    #[error("it was cut off after line {0}: its end is missing")]
    Cut(u64),
    /// A line cannot be read.
    #[error("it is damaged: line {line}: {problem}")]
    Damaged {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// It is not as it was written.
    #[error("it is damaged: its checksum is not the one that it was written with")]
    Checksum,
}

fn hex(digest: &[u8]) -> String {
    let mut text = String::with_capacity(digest.len() * 2);
    for byte in digest {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn write_line(bytes: &mut Vec<u8>, line: &impl Serialize) -> Result<(), Error> {
    serde_json::to_writer(&mut *bytes, line).map_err(|error| Error::Internal(format!("a record cannot be written: {error}")))?;
    bytes.push(b'\n');
    Ok(())
}

/// Writes a backup.
pub struct Encoder {
    digest: Context,
    records: u64,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("records", &self.records).finish_non_exhaustive()
    }
}

impl Encoder {
    /// Begins a backup of a store: gives its first line, too.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn begin(identity: &Identity, now: Timestamp) -> Result<(Self, Vec<u8>), Error> {
        let header = Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at: now,
            origin: identity.origin,
            note: NOTE.to_owned(),
        };
        let mut encoder = Self { digest: Context::new(&SHA256), records: 0 };
        let mut bytes = Vec::new();
        write_line(&mut bytes, &header)?;
        encoder.digest.update(&bytes);
        Ok((encoder, bytes))
    }

    /// The lines of these records.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn add(&mut self, records: &[Record]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::with_capacity(records.len() * 384);
        for record in records {
            write_line(&mut bytes, record)?;
        }
        self.digest.update(&bytes);
        self.records += records.len() as u64;
        Ok(bytes)
    }

    /// How many records have been added.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The last line.
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn end(self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let trailer = Trailer { records: self.records, sha256: hex(self.digest.finish().as_ref()) };
        write_line(&mut bytes, &trailer)?;
        Ok(bytes)
    }
}

/// A piece of a backup.
#[derive(Debug)]
pub struct Piece {
    /// Its bytes, at most [`MAX_PIECE`] of them.
    pub bytes: Vec<u8>,
    /// How many records the backup has up to about here.
    pub records: u64,
}

/// The most bytes of a piece.
pub const MAX_PIECE: usize = 1024 * 1024;

/// Takes a backup of a store that may be in use: sends it in pieces, and gives the number of its records. The last line is sent only
/// when all that belongs before it was.
///
/// # Errors
/// As [`crate::store::Transfer::export`]; [`Error::Precondition`] when the store is new.
pub async fn take(store: &dyn Store, now: Timestamp, pieces: mpsc::Sender<Piece>) -> Result<u64, Error> {
    let identity = store.identity().await?.ok_or(Error::Precondition(NO_ROOT_KEY))?;
    let gone = || Error::Internal("nobody receives the backup any more".into());
    let (to_encoder, mut batches) = mpsc::channel::<Vec<Record>>(2);
    // It is too much work for a thread that others wait for.
    let encode = tokio::task::spawn_blocking(move || {
        let (mut encoder, header) = Encoder::begin(&identity, now)?;
        let mut bytes = header;
        loop {
            for piece in bytes.chunks(MAX_PIECE) {
                pieces.blocking_send(Piece { bytes: piece.to_vec(), records: encoder.records() }).map_err(|_| gone())?;
            }
            let Some(batch) = batches.blocking_recv() else { return Ok((encoder, pieces)) };
            bytes = encoder.add(&batch)?;
        }
    });
    let encode = async { encode.await.map_err(|error| Error::Internal(error.to_string()))? };
    let ((), (encoder, pieces)) = tokio::try_join!(store.export(to_encoder), encode)?;
    let records = encoder.records();
    pieces.send(Piece { bytes: encoder.end()?, records }).await.map_err(|_| gone())?;
    Ok(records)
}

/// Reads a backup.
pub struct Reader<R> {
    source: R,
    digest: Context,
    header: Header,
    line: u64,
    bytes: u64,
    records: u64,
    ended: bool,
}

impl<R> fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("header", &self.header).field("line", &self.line).finish_non_exhaustive()
    }
}

fn read_line(source: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::Read::take(source, MAX_LINE).read_until(b'\n', &mut line)?;
    Ok(line)
}

impl<R: BufRead> Reader<R> {
    /// Reads the first line.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn open(mut source: R) -> Result<Self, Unusable> {
        let line = read_line(&mut source)?;
        let any: AnyHeader = serde_json::from_slice(&line).map_err(|_| Unusable::NoBackup)?;
        if any.kind != "backup" {
            return Err(Unusable::NoBackup);
        }
        if any.format != FORMAT {
            return Err(Unusable::Newer { format: any.format, version: any.version });
        }
        let header = serde_json::from_slice(&line).map_err(|error| Unusable::Damaged { line: 1, problem: error.to_string() })?;
        let mut digest = Context::new(&SHA256);
        digest.update(&line);
        Ok(Self { source, digest, header, line: 1, bytes: line.len() as u64, records: 0, ended: false })
    }

    /// What the first line says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes have been read.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many records have been read.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The next records, at most [`TRANSFER_BATCH`]. Only when there are none left is it known that the file is as it was written.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn next_batch(&mut self) -> Result<Option<Vec<Record>>, Unusable> {
        let mut batch = Vec::new();
        while batch.len() < TRANSFER_BATCH && !self.ended {
            let line = read_line(&mut self.source)?;
            if line.last() != Some(&b'\n') {
                return Err(Unusable::Cut(self.line));
            }
            self.line += 1;
            self.bytes += line.len() as u64;
            match serde_json::from_slice::<Record>(&line) {
                Ok(record) => {
                    self.digest.update(&line);
                    self.records += 1;
                    batch.push(record);
                }
                Err(error) => match serde_json::from_slice::<Trailer>(&line) {
                    Ok(trailer) => self.end(&trailer)?,
                    Err(_) => return Err(Unusable::Damaged { line: self.line, problem: error.to_string() }),
                },
            }
        }
        Ok(Some(batch).filter(|batch| !batch.is_empty()))
    }

    fn end(&mut self, trailer: &Trailer) -> Result<(), Unusable> {
        self.ended = true;
        if trailer.sha256 != hex(self.digest.clone().finish().as_ref()) || trailer.records != self.records {
            return Err(Unusable::Checksum);
        }
        if !self.source.fill_buf()?.is_empty() {
            return Err(Unusable::Damaged { line: self.line + 1, problem: "there is something behind the end".into() });
        }
        Ok(())
    }
}

/// Has restored sessions go on with other numbers for their refresh token families than they did after the backup. Tokens are made of their
/// family's number: those that were given out since would be good, ended or not, once another family had their number. How many numbers are
/// passed over is left to chance, since a backup may be restored twice.
///
/// # Errors
/// [`Error::Internal`] when the machine has no randomness to give.
pub fn pass_over_families(records: &mut [Record]) -> Result<(), Error> {
    for record in records {
        if let Record::Session(session) = record {
            let more = u32::from_be_bytes(random_bytes()?) >> 8;
            match session.next_family.checked_add(PASSED_OVER + more) {
                Some(next) => session.next_family = next,
                // Its user signs in anew.
                None => session.end(),
            }
        }
    }
    Ok(())
}

/// What is in a backup.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What its first line says.
    pub header: Header,
    /// How many records it has.
    pub records: u64,
    /// How many it has of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
}

/// Reads a whole backup, and says what is in it. `progress` is told how many records and bytes have been read.
///
/// # Errors
/// [`Unusable`].
pub fn check(source: impl BufRead, mut progress: impl FnMut(u64, u64)) -> Result<Summary, Unusable> {
    let mut reader = Reader::open(source)?;
    let mut kinds = BTreeMap::new();
    let mut last = None;
    while let Some(batch) = reader.next_batch()? {
        for record in &batch {
            *kinds.entry(record.kind()).or_default() += 1;
        }
        last = batch.into_iter().next_back();
        progress(reader.records(), reader.bytes());
    }
    if !matches!(last, Some(Record::Identity(_))) {
        return Err(Unusable::Damaged { line: reader.line, problem: "the store that it was taken of was not whole".into() });
    }
    Ok(Summary { header: reader.header, records: reader.records, kinds })
}
