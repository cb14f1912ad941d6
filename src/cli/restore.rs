//! `supos-auth restore`: a new store from a backup.

use std::path::PathBuf;

use clap::Args;

use super::{
    failure::Failure,
    output::{Format, Output},
    progress::Progress,
    text::count,
};
use crate::{app, config::LocalStoreArgs};

pub(crate) const HELP: &str = "\
The whole file is read and checked before anything is made. The store is there once all of it is
on disk, and not before: a restore that was broken off leaves none, and is done anew. In a
database it leaves a part, which no service starts on: drop and create the database first.

The MASTER KEY IS NOT IN THE BACKUP. Start the service with the key that the backed-up one had.

Examples:
  supos-auth restore /backups/supos-auth-2026-01-31.jsonl --data-dir /var/lib/supos-auth
  supos-auth restore /backups/supos-auth-2026-01-31.jsonl --store-file /etc/supos-auth/database";

#[derive(Debug, Args)]
#[command(mut_arg("data_dir", |arg| arg.help("The data directory to make the store in. It must not have one")))]
#[command(mut_arg("store", |arg| arg.help("The PostgreSQL database to make the store in, which must be empty: `postgres://USER:PASSWORD@HOST/DATABASE`. Processes of this machine can see each other's flags: give a URL with a password by --store-file. The environment is not looked at")))]
pub(crate) struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Where to make the store.
    #[command(flatten)]
    store: LocalStoreArgs,
}

/// Restores a backup.
pub(crate) fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let place = args.store.named().map_err(Failure::usage)?;
    let shown = place.to_string();
    let bytes =
        std::fs::metadata(&args.file).map_err(|error| Failure::from_io(format_args!("read {}", args.file.display()), &error))?.len();
    let mut progress = Progress::new(Some(bytes.saturating_mul(2)));
    let restored = app::restore(&args.file, place, |stage, records, offset| {
        let (what, before) = match stage {
            app::RestoreStage::Checking => ("checked", 0),
            app::RestoreStage::Storing => ("restored", bytes),
        };
        progress.set(format!("{} {what}", count(records, "record")), before.saturating_add(offset));
    });
    progress.clear();
    let summary = restored.map_err(|error| Failure::from_error("the backup was not restored", &*error))?;
    Output::new(Format::Table)
        .done(&format!("{shown} has {}: start the service with the master key that it had", count(summary.records, "record")))
}
