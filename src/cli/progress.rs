//! How far a long command has come, on standard error: a bar at a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Shows progress. The share is that of the file's bytes, as nobody knows its lines beforehand; none where nobody knows these either.
pub(super) struct Progress {
    bytes: Option<u64>,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    pub(super) fn new(bytes: Option<u64>) -> Self {
        let shown = if io::stderr().is_terminal() { Shown::Bar(bar(bytes)) } else { Shown::Lines { last: Instant::now() } };
        Self { bytes, shown }
    }

    /// So much has been done, which is so many bytes.
    pub(super) fn set(&mut self, text: String, offset: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(offset);
                bar.set_message(text);
            }
            Shown::Lines { last } if last.elapsed() >= BETWEEN_LINES => {
                *last = Instant::now();
                match self.bytes.filter(|bytes| *bytes > 0) {
                    Some(bytes) => eprintln!("{text} ({} %)", offset.saturating_mul(100) / bytes),
                    None => eprintln!("{text}"),
                }
            }
            Shown::Lines { .. } => (),
        }
    }

    /// Leaves the terminal as it was.
    pub(super) fn clear(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    /// An error must not be printed into the bar.
    fn drop(&mut self) {
        self.clear();
    }
}

fn bar(bytes: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{bar:40} {percent:>3} % {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
