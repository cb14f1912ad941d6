//! `supos-auth backup`: everything that a service stores, as a file.

use std::{
    fs::{self, File, OpenOptions},
    future::poll_fn,
    io::{self, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
};

use clap::Args;
use serde::Serialize;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::spawn_blocking,
};

use super::{AdminArgs, failure::Failure, progress::Progress, text::count};
use crate::{
    app,
    backup::{self, Piece},
    config::{LocalPlace, LocalStoreArgs},
    core::ids,
    grpc::pb::supos::auth::admin::v1 as pb,
    store::{ROOM_LEFT, room_on_the_disk_of},
};

pub(crate) const HELP: &str = "\
The file holds everything as it was at one moment: apps, users, sessions, tokens' families,
signing keys. Secrets in it are sealed, passwords and codes hashed. It is JSON Lines, described
in docs/backup.md. Whoever has it and the master key has everything: keep the two apart.

The MASTER KEY IS NOT IN IT. Without that key no service starts on what is restored. Keep a copy
of the key file, once, in another place than the backups.

Examples:
  supos-auth backup /backups/supos-auth-$(date +%F).jsonl
  supos-auth backup --data-dir /var/lib/supos-auth /backups/before-upgrade.jsonl   # stopped service
  supos-auth backup --store-file /etc/supos-auth/database /backups/before-upgrade.jsonl   # a database";

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// The file to write. It must not be there yet.
    file: PathBuf,
    /// Read this store, and ask no service.
    #[command(flatten)]
    store: LocalStoreArgs,
}

/// The JSON of a backup that went well.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    file: String,
    /// The store or the service that it is of.
    of: String,
    records: u64,
    bytes: u64,
}

/// So many bytes, for people.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit behind the point")]
pub(crate) fn size(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}

/// A file that gets its name once it is whole. Until then it is beside it under another, and goes if it never is.
#[derive(Debug)]
struct Unfinished {
    file: File,
    path: PathBuf,
    name: PathBuf,
    bytes: u64,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it has its name there is none of this one any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl Unfinished {
    /// Begins a file that only its owner can read.
    fn create(name: &Path) -> Result<Self, Failure> {
        if name == Path::new("-") {
            return Err(Failure::usage("a backup is a file, which is read back once it is on disk: name one, and encrypt it then"));
        }
        let refuse = || Failure::new(format!("{} is there already", name.display())).hint("Name another file: a backup replaces none.");
        if fs::symlink_metadata(name).is_ok() {
            return Err(refuse());
        }
        let mut path = name.as_os_str().to_owned();
        let random = ids::random_name().map_err(|error| Failure::from_error("there is no backup", &error))?;
        path.push(format!(".unfinished-{}", &random[..8]));
        let path = PathBuf::from(path);
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = created.map_err(|error| Failure::from_io(format_args!("write {}", path.display()), &error))?;
        Ok(Self { file, path, name: name.to_owned(), bytes: 0 })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.bytes += bytes.len() as u64;
        // The service that it is of may be on the same disk, and would end with the first write that has no room.
        let room = room_on_the_disk_of(self.folder()).map_err(|error| self.cannot("write", &error))?;
        if room < ROOM_LEFT + bytes.len() as u64 {
            let words =
                format!("{} would leave its disk less than {} of room, which a service there needs", self.name.display(), size(ROOM_LEFT));
            return Err(Failure::new(words).hint("Make room, or write it to another disk."));
        }
        self.file.write_all(bytes).map_err(|error| self.cannot("write", &error))
    }

    fn folder(&self) -> &Path {
        self.name.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    fn cannot(&self, what: &str, error: &io::Error) -> Failure {
        Failure::from_io(format_args!("{what} {}", self.name.display()), error)
    }

    /// Brings the file to disk, reads it as a restore would, and gives it its name.
    fn finish(self, of: String) -> Result<Taken, Failure> {
        self.file.sync_all().map_err(|error| self.cannot("write", &error))?;
        let read = File::open(&self.path).map_err(|error| self.cannot("read", &error))?;
        let summary = backup::check(BufReader::with_capacity(1 << 20, read), |_, _| {})
            .map_err(|error| Failure::new(format!("the backup did not arrive as it was sent: {error}")).hint("Try again."))?;
        match fs::hard_link(&self.path, &self.name) {
            Ok(()) => {}
            Err(error) if fs::symlink_metadata(&self.name).is_ok() => return Err(self.cannot("write", &error)),
            // Some file systems have no links.
            Err(_) => fs::rename(&self.path, &self.name).map_err(|error| self.cannot("write", &error))?,
        }
        File::open(self.folder()).and_then(|folder| folder.sync_all()).map_err(|error| self.cannot("write", &error))?;
        Ok(Taken { file: self.name.display().to_string(), of, records: summary.records, bytes: self.bytes })
    }
}

/// Takes a backup.
pub(crate) async fn run(args: &BackupArgs) -> Result<(), Failure> {
    let place = args.store.place().map_err(Failure::usage)?;
    let of = place.as_ref().map_or_else(|| format!("the service at {}", args.admin.server.server), ToString::to_string);
    let mut stop = pin!(told_to_stop().map_err(|error| Failure::from_io("listen for signals", &error))?);
    let interrupted = || Failure::new("interrupted: there is no backup");
    let mut file = Unfinished::create(&args.file)?;
    let mut progress = Progress::new(None);
    tokio::select! {
        received = receive(args, place, &mut file, &mut progress) => received?,
        () = &mut stop => return Err(interrupted()),
    }
    let path = file.path.clone();
    let mut finishing = spawn_blocking(move || file.finish(of));
    let finished = tokio::select! {
        finished = &mut finishing => finished,
        () = &mut stop => {
            // What is gone gets no name any more. It may have it already.
            if fs::remove_file(path).is_ok() && fs::symlink_metadata(&args.file).is_err() {
                return Err(interrupted());
            }
            finishing.await
        }
    };
    let taken = finished.map_err(|error| Failure::from_error("there is no backup", &error))??;
    progress.clear();
    let sentence = format!("{}: {} ({}) of {}", taken.file, count(taken.records, "record"), size(taken.bytes), taken.of);
    args.admin.output().summary(&taken, &sentence)
}

/// Ends when the process is to end, in whichever way it is told to.
fn told_to_stop() -> io::Result<impl Future<Output = ()>> {
    // Not when its terminal hangs up: `nohup` has that ignored.
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    let mut signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<Signal>>>()?;
    Ok(poll_fn(
        move |context| if signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready()) { Poll::Ready(()) } else { Poll::Pending },
    ))
}

async fn receive(args: &BackupArgs, place: Option<LocalPlace>, file: &mut Unfinished, progress: &mut Progress) -> Result<(), Failure> {
    let mut note = |file: &mut Unfinished, bytes: &[u8], records| {
        file.write(bytes)?;
        progress.set(format!("{} ({})", count(records, "record"), size(file.bytes)), file.bytes);
        Ok::<(), Failure>(())
    };
    match place {
        Some(place) => {
            let (pieces, mut taken) = mpsc::channel::<Piece>(2);
            let take = async {
                let taken = app::backup(place, pieces).await;
                taken.map_err(|error| Failure::from_error("there is no backup", &*error))
            };
            let keep = async {
                while let Some(piece) = taken.recv().await {
                    note(file, &piece.bytes, piece.records)?;
                }
                Ok(())
            };
            tokio::try_join!(take, keep)?;
        }
        None => {
            let admin = args.admin.sign_on().await?;
            let mut pieces = admin.call(admin.backups().take_backup(pb::TakeBackupRequest {})).await?;
            while let Some(piece) = admin.connection().next(&mut pieces).await? {
                note(file, &piece.chunk, u64::try_from(piece.records).unwrap_or_default())?;
            }
        }
    }
    Ok(())
}
