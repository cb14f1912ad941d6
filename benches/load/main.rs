//! The load generator: what an operation costs, next to what it could cost at the least (docs/performance.md).
//!
//! [`rounds`] is the main run, [`growth`] the one with more and more sessions, [`overload`] the one with more calls than can be served.
//! What is measured is set up in [`stage`] and filled by [`population`]; [`closed`] and [`client`] make the calls that [`scripts`] has,
//! and [`ceiling`] has what they are compared with; [`perf`] has it recorded what the time goes to. [`report`], [`targets`] and [`chart`] say
//! what was found.

mod ceiling;
mod chart;
mod child;
mod client;
mod closed;
mod growth;
mod machine;
mod overload;
mod perf;
mod population;
mod report;
mod rounds;
mod scripts;
mod stage;
mod targets;

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use self::{
    closed::Window,
    machine::{Machine, Progress},
    population::Population,
};

/// That of the service: what it is compared with is to have no slower one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What went wrong, in words.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// Measures the service: each operation next to its ceiling.
#[derive(Debug, Parser)]
#[command(name = "load")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    run: RunArguments,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Args)]
struct Common {
    /// The service; what cargo has built unless it is named.
    #[arg(long, value_name = "FILE", global = true, default_value = env!("CARGO_BIN_EXE_supos-auth"))]
    server: PathBuf,
    /// Where stores are made, on the disk that is to be measured.
    #[arg(long, value_name = "DIR", global = true, default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/../bench"))]
    folder: PathBuf,
    /// Where the figures go, as JSON, if not into the folder.
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
    /// Where the tables go, as Markdown, if not into the folder.
    #[arg(long, value_name = "FILE", global = true)]
    markdown: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArguments {
    /// How many live sessions the store has.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..))]
    sessions: u32,
    /// How many rounds there are.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// For how long each operation, and each ceiling, is measured in a round.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.7)]
    seconds: f64,
    /// Only operations with this in their name.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Where to put what `perf record` sees of the service in the first round, a file for each operation.
    #[arg(long, value_name = "DIR")]
    perf: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures with more and more sessions.
    Growth {
        /// How many sessions there are, one run after the other.
        #[arg(long, value_delimiter = ',', default_values_t = growth::SIZES)]
        sizes: Vec<usize>,
        /// How many rounds there are with each.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
        /// For how long each kind of call is measured in a round.
        #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
        seconds: f64,
        /// Where the plot goes.
        #[arg(long, value_name = "FILE")]
        svg: Option<PathBuf>,
    },
    /// Offers four times what can be served, and does not wait for answers.
    Overload {
        /// How many live sessions the store has.
        #[arg(long, default_value_t = 300_000)]
        sessions: usize,
        /// For how long it is overloaded.
        #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
        seconds: f64,
    },
    /// Serves the empty method.
    #[command(hide = true)]
    ServeCeiling {
        #[arg(long)]
        socket: PathBuf,
    },
    /// Checks a password over and over.
    #[command(hide = true)]
    CheckPasswords {
        #[arg(long)]
        seconds: f64,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command {
        Some(Command::ServeCeiling { socket }) => return ceiling::serve(socket).await,
        Some(Command::CheckPasswords { seconds }) => return ceiling::check_passwords(Duration::from_secs_f64(seconds)),
        _ => {}
    }
    // What signs the tokens; the service does the same.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let machine = Machine::describe(&stage::envoy()?);
    fs::create_dir_all(&arguments.common.folder)?;
    let folder = arguments.common.folder.canonicalize()?;
    let running = folder.join("run");
    // What a run that was killed has left.
    if running.exists() {
        fs::remove_dir_all(&running)?;
    }
    fs::create_dir_all(&running)?;
    measure(arguments, machine, &folder, &running).await?;
    // What has failed may be looked at.
    Ok(fs::remove_dir_all(&running)?)
}

async fn measure(arguments: Arguments, machine: Machine, folder: &Path, running: &Path) -> Result<(), Failure> {
    let Arguments { common, run, command, .. } = arguments;
    let progress = Progress::new();
    let (server, stores) = (&common.server, folder.join("stores"));
    let window = |seconds| Window { warm: Duration::from_millis(150), measured: Duration::from_secs_f64(seconds) };
    match command {
        Some(Command::Growth { sizes, rounds, seconds, svg }) => {
            let rounds = (rounds.into(), window(seconds));
            let growth = growth::run(server, &stores, running, machine, rounds, &sizes, &progress).await?;
            progress.clear();
            if let Some(svg) = svg {
                fs::write(svg, growth.svg())?;
            }
            publish(&common, folder, "growth", &growth, &growth.markdown())
        }
        Some(Command::Overload { sessions, seconds }) => {
            let population = Population::prepare(server, &stores, sessions, &progress).await?;
            let duration = Duration::from_secs_f64(seconds);
            let overload = overload::run(server, running, &population, machine, duration, &progress).await?;
            progress.clear();
            publish(&common, folder, "overload", &overload, &overload.markdown())
        }
        _ => {
            let sessions = usize::try_from(run.sessions)?;
            let population = Population::prepare(server, &stores, sessions, &progress).await?;
            let rounds = (run.rounds.into(), window(run.seconds));
            let found = rounds::run(server, running, &population, rounds, run.only.as_deref(), run.perf.as_deref(), &progress).await?;
            progress.clear();
            let report = report::Report::of(machine, sessions, run.seconds, &found);
            publish(&common, folder, "result", &report, &report.markdown())
        }
    }
}

/// Prints what was found, and writes it.
fn publish(common: &Common, folder: &Path, name: &str, report: &impl serde::Serialize, markdown: &str) -> Result<(), Failure> {
    let json = common.json.clone().unwrap_or_else(|| folder.join(format!("{name}.json")));
    fs::write(&json, serde_json::to_vec_pretty(report)?)?;
    let tables = common.markdown.clone().unwrap_or_else(|| folder.join(format!("{name}.md")));
    fs::write(&tables, format!("{markdown}\n"))?;
    println!("{markdown}\n\nAll figures: {}; the tables: {}", json.display(), tables.display());
    Ok(())
}
