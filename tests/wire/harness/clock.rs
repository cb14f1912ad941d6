//! A clock of the service's own that a test can move while the service runs.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::tools;

/// The library that gives a process such a clock (clock.c), compiled once.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| tools::preloaded("wire/harness/clock.c"))
}

/// How far a service's clock is from the true one.
pub(crate) struct Clock {
    file: PathBuf,
    offset: i64,
}

impl Clock {
    /// A clock that shows the true time.
    pub(crate) fn new(file: PathBuf) -> Self {
        let clock = Self { file, offset: 0 };
        clock.write();
        clock
    }

    /// What the process has to be started with.
    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        vec![("LD_PRELOAD".to_owned(), library().into()), ("CLOCK_OFFSET".to_owned(), self.file.clone().into_os_string())]
    }

    /// Moves the clock, forward or back.
    pub(crate) fn step(&mut self, seconds: i64) {
        self.offset += seconds;
        self.write();
    }

    /// The service's time, in seconds since the epoch.
    pub(crate) fn now(&self) -> i64 {
        super::now() + self.offset
    }

    /// The file is replaced and never written to, so that no reader sees half of it.
    fn write(&self) {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, self.offset.to_string()).expect("the clock can be written");
        fs::rename(&fresh, &self.file).expect("the clock can be replaced");
    }
}
