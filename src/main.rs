//! `supos-auth`: parses the arguments, runs the command, prints the error, chooses the exit code. See [`supos_auth::cli`].

use std::process::ExitCode;

use clap::Parser as _;
use supos_auth::cli::{self, Cli};

/// Makes and frees in half the time of the C library's allocator what a call needs (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}
