//! The machine that was measured on, and how far the measuring has come.

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// What the figures hold for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    /// What the processor's load was before anything was started.
    pub(crate) load: String,
    pub(crate) rust: String,
    pub(crate) envoy: String,
    pub(crate) version: &'static str,
    pub(crate) commit: String,
}

fn said(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The value of the first line `name : value` of a file in `/proc`.
fn value(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned()).unwrap_or_default()
}

impl Machine {
    pub(crate) fn describe(envoy: &Path) -> Self {
        let kib = value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0_u64);
        let changed = if said(Path::new("git"), &["status", "--porcelain"]).is_empty() { "" } else { " and changes" };
        Self {
            processor: value("/proc/cpuinfo", "model name"),
            cores: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kib / 1024,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            load: fs::read_to_string("/proc/loadavg").unwrap_or_default().split(' ').take(3).collect::<Vec<_>>().join(" "),
            rust: said(Path::new("rustc"), &["--version"]),
            envoy: said(envoy, &["--version"])
                .rsplit("version: ")
                .next()
                .and_then(|version| version.split('/').nth(1))
                .unwrap_or_default()
                .to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            commit: format!("{}{changed}", said(Path::new("git"), &["rev-parse", "--short", "HEAD"])),
        }
    }
}

impl Machine {
    /// In words.
    pub(crate) fn markdown(&self) -> String {
        format!(
            "supos-auth {} ({}) on {} cores of {}, {} MiB of memory, Linux {}, load {} before; Envoy {}; {}.",
            self.version, self.commit, self.cores, self.processor, self.memory_mib, self.kernel, self.load, self.envoy, self.rust
        )
    }
}

/// How far it has come, on standard error: a line that changes at a terminal, a line now and then elsewhere.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Option<ProgressBar>,
    last: std::cell::Cell<Option<Instant>>,
}

const BETWEEN_LINES: Duration = Duration::from_secs(5);

impl Progress {
    pub(crate) fn new() -> Self {
        let shown = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { shown, last: std::cell::Cell::default() }
    }

    /// This is being done.
    pub(crate) fn show(&self, what: &str) {
        match &self.shown {
            Some(bar) => bar.set_message(what.to_owned()),
            None => {
                if self.last.get().is_none_or(|last| last.elapsed() >= BETWEEN_LINES) {
                    self.last.set(Some(Instant::now()));
                    eprintln!("{what}");
                }
            }
        }
    }

    /// Leaves the terminal as it was.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
