//! `supos-auth app import` and `supos-auth user import`: many objects from a file, all of them or none.
//!
//! - `line`: what a line may hold, and where it is wrong
//! - `kinds`: the lines of apps and of users, as the requests that they become
//! - `reader`: reads the file line by line, on a thread of its own
//! - `steps`: hands the lines to the call; a file that is not read well to its end never looks like one that is
//!
//! The service stores nothing before the request stream has ended, so that it is enough to drop the call when a line turns out wrong.

mod kinds;
mod line;
mod reader;
mod steps;

use std::{fmt::Write as _, path::PathBuf};

use clap::Args;
use serde::Serialize;
use tokio::task::JoinHandle;
use tonic::{Code, Status};

pub(crate) use self::kinds::{Apps, Users};
use self::{
    kinds::{Checked, Kind},
    reader::{Source, Summary},
    steps::{Sent, Steps},
};
use super::{
    AdminArgs,
    connection::Admin,
    failure::Failure,
    progress::Progress,
    refusal::{Refusal, Violation},
    text::count,
};

/// The help on the lines of apps.
pub(crate) const APP_FORMAT: &str = "\
FILE is JSON Lines: one object a line, blank lines do not count, unknown fields are refused.
  {\"appId\": \"shop\", \"secret\": \"…\", \"redirectUris\": [\"https://shop.example/*\"]}
Needed: appId, redirectUris.
If wanted: secret, displayName, logoutUris, refreshRequiresAppCredential (false), enabled (true),
rights (none), signatureRequiresDate (false).";

/// The help on the lines of users.
pub(crate) const USER_FORMAT: &str = "\
FILE is JSON Lines: one object a line, blank lines do not count, unknown fields are refused.
  {\"userName\": \"zhang.san\", \"passwordHash\": \"$argon2id$v=19$…\", \"personCode\": \"P0001\"}
Needed: userName.
If wanted: password or passwordHash, personCode, companyCode, accountType (0), enabled (true),
rights (none).";

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The file to read, or - for standard input.
    file: PathBuf,
    /// Check everything, and store nothing.
    #[arg(long)]
    dry_run: bool,
}

/// The JSON of an import that went well.
#[derive(Serialize)]
struct Imported {
    checked: u64,
    stored: u64,
}

/// Imports a file.
pub(crate) async fn run<K: Kind>(args: &AdminArgs, import: &ImportArgs) -> Result<(), Failure> {
    let source = Source::open(&import.file)?;
    let admin = args.sign_on().await?;
    let (mut import, steps) = Import::start::<K>(source, &admin, import.dry_run);
    let (summary, checked) = import.finish::<K>(steps).await?;
    import.progress.clear();

    let Import { file, dry_run, .. } = &import;
    let (lines, things) = (summary.lines, count(summary.lines, K::ONE));
    let counted = if *dry_run { checked.checked } else { checked.stored };
    if counted != lines {
        return Err(Failure::new(format!("{file} has {things}, and the service says {counted}")).hint("Look at what is there: `list`."));
    }
    if summary.without_secret > 0 {
        eprintln!("note: {} {}", count(summary.without_secret, K::ONE), K::WITHOUT_SECRET);
    }
    if summary.with_rights_out_of_reach > 0 {
        let apps = count(summary.with_rights_out_of_reach, K::ONE);
        eprintln!("note: {apps} in the file had rights that a signature without a date does not carry: see signatureRequiresDate");
    }
    let sentence = if *dry_run { format!("{file} is good: {things} would be imported") } else { format!("imported {things}") };
    args.output().summary(&Imported { checked: checked.checked, stored: checked.stored }, &sentence)
}

/// An import that is under way.
struct Import<'a> {
    file: String,
    admin: &'a Admin,
    dry_run: bool,
    reader: JoinHandle<Result<Summary, Failure>>,
    sent: Sent,
    progress: Progress,
}

impl<'a> Import<'a> {
    /// Starts to read; the steps are for the call.
    fn start<K: Kind>(source: Source, admin: &'a Admin, dry_run: bool) -> (Self, Steps<K::Request>) {
        let file = source.name().to_owned();
        let progress = Progress::new(source.bytes());
        let (to_call, steps, sent) = steps::channel(K::options(dry_run));
        let reader = tokio::task::spawn_blocking(move || reader::read::<K>(source, &to_call));
        (Self { file, admin, dry_run, reader, sent, progress }, steps)
    }

    /// Sends the file and waits until the service has it all; gives up on the first mistake of either side.
    async fn finish<K: Kind>(&mut self, steps: Steps<K::Request>) -> Result<(Summary, Checked), Failure> {
        let mut read = None;
        let mut ended_early = None;
        let answer = {
            let mut upload = std::pin::pin!(upload::<K>(self.admin, steps, &self.sent, &mut self.progress));
            loop {
                tokio::select! {
                    // What is wrong with the file itself is the better news.
                    biased;
                    summary = &mut self.reader, if read.is_none() && ended_early.is_none() => match joined(summary) {
                        Ok(summary) => read = Some(summary),
                        // The service knows better why.
                        Err(failure) if failure.to_string() == reader::ENDED_EARLY => ended_early = Some(failure),
                        Err(failure) => return Err(failure),
                    },
                    answer = &mut upload => break answer,
                }
            }
        };
        let checked = answer.map_err(|status| self.explain(self.admin.connection().refusal(status)))?;
        // The call went well; a reader that is not done then learns that nobody takes its lines, and says so.
        let summary = match (read, ended_early) {
            (Some(summary), _) => summary,
            (None, Some(failure)) => return Err(failure),
            (None, None) => joined((&mut self.reader).await)?,
        };
        Ok((summary, checked))
    }

    /// Says which lines the service does not take, and why.
    fn explain(&self, refusal: Refusal) -> Failure {
        self.progress.clear();
        let mut wrong_lines = String::new();
        let mut number = 0;
        for violation in refusal.violations() {
            if let Some((line, field)) = self.place_of(&violation) {
                number += 1;
                // Writing to a string cannot fail.
                let _ = write!(wrong_lines, "\n{}:{line}: {field}: {}", self.file, violation.description);
            }
        }
        if number > 0 {
            return Failure::new(format!("nothing was imported: the service found {}{wrong_lines}", count(number, "mistake")));
        }
        let is_unclear = self.sent.ended()
            && matches!(refusal.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded);
        let failure = Failure::from(refusal);
        if is_unclear && !self.dry_run {
            return failure.hint("The whole file had been sent: look whether it was stored (`list`) before you try again.");
        }
        failure
    }

    /// The line and the field that `steps[N].…` speaks of, as the file writes them.
    fn place_of(&self, violation: &Violation) -> Option<(u64, String)> {
        let (step, path) = line::step_of(&violation.field)?;
        Some((self.sent.line_of(step)?, path))
    }
}

async fn upload<K: Kind>(admin: &Admin, steps: Steps<K::Request>, sent: &Sent, progress: &mut Progress) -> Result<Checked, Status> {
    let mut answers = K::call(admin, steps).await?.into_inner();
    let mut last = Checked::default();
    while let Some(answer) = answers.message().await? {
        last = answer.into();
        progress.set(format!("{} checked", count(last.checked, K::ONE)), sent.offset_after(last.checked));
    }
    Ok(last)
}

fn joined(reader: Result<Result<Summary, Failure>, tokio::task::JoinError>) -> Result<Summary, Failure> {
    reader.unwrap_or_else(|error| Err(Failure::from_error("the file could not be read", &error)))
}
