//! The command line: parses the arguments, calls the service as a gRPC client, prints what it answers.
//!
//! Owns no rule of the service. `serve`, `key rewrap` and `restore` hand over to [`crate::app`], `sign` to [`crate::sign`]; every other
//! command is a client.
//!
//! - [`failure`](Failure), `refusal`: what went wrong and what to do next, in words
//! - `connection`, `tickets`, `sign_in`, `health`: reaching the service, and as whom
//! - `apps`, `authorities`, `users`, `sessions`, `keys`, `import`: the commands of the admin API
//! - `backup`, `restore`: all that a store holds, as a file
//! - `sign`: what a client signs
//! - `output`, `progress`, `views`, `pages`, `names`, `input`, `text`: what they share

mod apps;
mod authorities;
mod backup;
mod connection;
mod failure;
mod health;
mod import;
mod input;
mod keys;
mod names;
mod output;
mod pages;
mod progress;
mod refusal;
mod restore;
mod sessions;
mod sign;
mod sign_in;
mod text;
mod tickets;
mod users;
mod views;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

pub use self::failure::Failure;
use self::{
    connection::{Admin, HEADING, ServerArgs},
    output::{Format, Output},
};
use crate::{app, config::ServeArgs, grpc::pb};

const EXAMPLES: &str = "\
Examples:
  supos-auth serve --help
  supos-auth health --server http://127.0.0.1:50051
  supos-auth login --user admin
  supos-auth app create shop --redirect-uri https://shop.example/callback
  supos-auth app list --output json
  supos-auth user import users.jsonl --dry-run
  supos-auth user reset-password zhang.san
  supos-auth authority enable plant-login
  supos-auth session end-all --user zhang.san
  supos-auth key list
  supos-auth app usage
  supos-auth backup /backups/supos-auth-$(date +%F).jsonl
  supos-auth sign --headers GET \"$URL\" | curl -H @- \"$URL\"

Environment of the client commands:
  SUPOS_AUTH_SERVER   the service's gRPC address, as --server
  SUPOS_AUTH_CA_FILE  the authorities to trust with https, as --ca-file
  SUPOS_AUTH_TICKET   the ticket to use instead of the one that `login` keeps

Tickets are kept in supos-auth/tickets.json under $XDG_CONFIG_HOME, or under ~/.config.
Passwords and secrets are read from a file, standard input or the terminal, never from an
argument: others on the machine can see those.

Exit codes: 0 it worked, 1 it failed, 2 the command was not understood or lacks something.";

/// An OAuth 2.0 authorization service, and the tool that administers it.
#[derive(Debug, Parser)]
#[command(name = "supos-auth", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(Box<ServeArgs>),
    /// Ask a running service whether it is ready; succeeds only when it is.
    Health(health::HealthArgs),
    /// Write the API's descriptor (a `FileDescriptorSet`) to standard output, for Envoy and other tools.
    Descriptor,
    /// Sign in as an administrator; the ticket is kept for the commands that follow.
    Login(sign_in::LoginArgs),
    /// Sign out and forget the ticket.
    Logout(sign_in::LogoutArgs),
    /// Manage apps (OAuth clients) and their secrets.
    App(Group<apps::AppCommand>),
    /// Manage users and their passwords.
    User(Group<users::UserCommand>),
    /// Manage third-party certification authorities that users may sign in at.
    Authority(Group<authorities::AuthorityCommand>),
    /// Show and end sessions.
    Session(Group<sessions::SessionCommand>),
    /// Manage the keys that tokens are signed with, and the master key that protects the store.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Write everything that a service stores into a file, while it runs.
    #[command(after_help = backup::HELP)]
    Backup(backup::BackupArgs),
    /// Make a new store from a backup.
    #[command(after_help = restore::HELP)]
    Restore(restore::RestoreArgs),
    /// Sign a call as an app does: for scripts, and to see why a client's signature is refused.
    #[command(override_usage = sign::USAGE, after_help = sign::EXAMPLES)]
    Sign(sign::SignArgs),
}

/// The commands about one kind of thing, and the options that all of them take.
#[derive(Debug, Args)]
struct Group<C: Subcommand> {
    #[command(flatten)]
    admin: AdminArgs,
    #[command(subcommand)]
    command: C,
}

/// The options of every command of the admin API.
#[derive(Debug, Args)]
struct AdminArgs {
    #[command(flatten)]
    server: ServerArgs,
    /// How to print the answer.
    #[arg(long, short, value_enum, default_value_t, global = true, value_name = "FORMAT", help_heading = HEADING)]
    output: Format,
}

impl AdminArgs {
    fn output(&self) -> Output {
        Output::new(self.output)
    }

    async fn sign_on(&self) -> Result<Admin, Failure> {
        Admin::open(&self.server).await
    }
}

/// Runs a command to its end.
///
/// # Errors
///
/// When the command did not do what it was asked to.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => serve(*args),
        Command::Health(args) => as_client(health::run(&args)),
        Command::Descriptor => write_descriptor(),
        Command::Login(args) => as_client(sign_in::login(&args)),
        Command::Logout(args) => as_client(sign_in::logout(&args)),
        Command::App(group) => as_client(apps::run(&group.admin, group.command)),
        Command::User(group) => as_client(users::run(&group.admin, group.command)),
        Command::Authority(group) => as_client(authorities::run(&group.admin, group.command)),
        Command::Session(group) => as_client(sessions::run(&group.admin, group.command)),
        // Rewrapping is local and has no use for a runtime.
        Command::Key(keys::KeyCommand::Rewrap(args)) => keys::rewrap(&args),
        Command::Key(keys::KeyCommand::Signing(command)) => as_client(keys::run(command)),
        Command::Backup(args) => as_client(backup::run(&args)),
        Command::Restore(args) => restore::run(&args),
        // It calls nobody.
        Command::Sign(args) => sign::run(&args),
    }
}

fn serve(args: ServeArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error("the service cannot start", &error))?;
    runtime.block_on(app::serve(args)).map_err(|error| Failure::from_error("the service has stopped", &*error))
}

/// Runs a client command. One thread is enough for one call after the other.
fn as_client(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::from_error("the command cannot start", &error))?;
    let result = runtime.block_on(command);
    // A thread may still wait for the rest of an import file that comes through a pipe; nobody wants that rest any more.
    runtime.shutdown_background();
    result
}

fn write_descriptor() -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    output::unless_closed(stdout.write_all(pb::DESCRIPTOR).and_then(|()| stdout.flush()))
}

impl Failure {
    /// The exit code that goes with the failure.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.is_usage() { 2 } else { 1 })
    }
}
