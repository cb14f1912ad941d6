//! A clock of the service's own that a test can move while the service runs.

use std::{ffi::OsString, fs, path::PathBuf};

use super::tools;

/// Where libfaketime reads how far the service's clock is from the true one.
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

    /// What the process has to be started with. The monotonic clock stays true: timeouts and timers are not what is moved.
    pub(crate) fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), tools::faketime().into_os_string()),
            ("FAKETIME_TIMESTAMP_FILE".to_owned(), self.file.clone().into_os_string()),
            ("FAKETIME_NO_CACHE".to_owned(), "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC".to_owned(), "1".into()),
        ]
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
        fs::write(&fresh, format!("{:+}\n", self.offset)).expect("the clock can be written");
        fs::rename(&fresh, &self.file).expect("the clock can be replaced");
    }
}
