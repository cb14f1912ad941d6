//! What a process spends its time on: `perf record` looks at it while it is measured.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Failure, child::Child};

/// How many samples a second: no multiple of what else happens so often.
const SAMPLES: &str = "997";

/// A `perf record` of one process.
pub(crate) struct Perf {
    recorder: Child,
    data: PathBuf,
}

impl Perf {
    /// Begins one, which goes to the file `name` with `.data` behind it.
    pub(crate) fn start(process: u32, folder: &Path, name: &str) -> Result<Self, Failure> {
        fs::create_dir_all(folder)?;
        let data = folder.join(format!("{name}.data"));
        let arguments = ["record", "-F", SAMPLES, "-g", "-p", &process.to_string(), "-o"].map(str::to_owned);
        let arguments = arguments.into_iter().chain([data.display().to_string()]);
        Ok(Self { recorder: Child::start(Path::new("perf"), arguments, &folder.join(format!("{name}.log")))?, data })
    }

    /// Ends it, once everything is written.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        // It dies of the signal that it is sent, after it has written.
        let ended = self.recorder.terminate().await;
        let is_written = fs::metadata(&self.data).is_ok_and(|about| about.len() > 0);
        if is_written { Ok(()) } else { ended.and(Err("perf record has written nothing".into())) }
    }
}
