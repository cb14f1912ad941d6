//! A child process that never outlives the tests, and what it has logged.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a process may take to do what a test waits for. Generous: the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

/// Starts a watchdog and then becomes the program. The watchdog reads what was the program's standard input: its end without
/// a line before it means that the tests are gone, however they went; then nothing of the program stays, and of its folder (`$1`) neither.
/// SIGXFSZ is ignored so that a file size limit is an error of `write` and not the end of the process.
const WRAPPER: &str = r#"
    trap '' XFSZ
    folder=$1; shift
    exec 3<&0
    (read -r _ <&3 || { kill -KILL $$; rm -rf "$folder"; }) >/dev/null 2>&1 &
    exec "$@" </dev/null 3<&-
"#;

/// The lines that a process has written so far, to standard output and standard error.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Output>, Condvar)>);

#[derive(Default)]
struct Output {
    lines: Vec<String>,
    /// How many pipes may still bring more.
    open: usize,
}

impl Log {
    /// Every line from `mark` on.
    pub(crate) fn since(&self, mark: usize) -> Vec<String> {
        self.output().lines.get(mark..).unwrap_or_default().to_vec()
    }

    /// A mark for `since` and `wait_for`: what is written from now on.
    pub(crate) fn mark(&self) -> usize {
        self.output().lines.len()
    }

    fn output(&self) -> MutexGuard<'_, Output> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first value that `find` makes of a line from `mark` on, waiting for the line to be written, or for the end of the process.
    pub(crate) fn wait_for<T>(&self, mark: usize, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut output = self.output();
        let mut seen = mark;
        loop {
            if let Some(found) = output.lines.iter().skip(seen).find_map(|line| find(line)) {
                return Some(found);
            }
            if output.open == 0 {
                return None;
            }
            seen = seen.max(output.lines.len());
            let left = deadline.checked_duration_since(Instant::now())?;
            output = self.0.1.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn follow(&self, source: impl Read + Send + 'static) {
        let log = self.clone();
        log.output().open += 1;
        std::thread::spawn(move || {
            let mut reader = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                log.output().lines.push(text);
                log.0.1.notify_all();
                line.clear();
            }
            log.output().open -= 1;
            log.0.1.notify_all();
        });
    }
}

/// A running child process.
pub(crate) struct Process {
    child: Child,
    watchdog: Option<ChildStdin>,
}

impl Process {
    /// Starts `program`, whose output goes to `log` and whose files are in `folder`.
    pub(crate) fn start(program: &OsStr, folder: &Path, arguments: Vec<OsString>, environment: &[(String, OsString)], log: &Log) -> Self {
        let mut child = Command::new("/bin/sh")
            .args(["-c", WRAPPER, "sh"])
            .arg(folder)
            .arg("env")
            .args(environment.iter().map(|(name, value)| {
                let mut setting = OsString::from(format!("{name}="));
                setting.push(value);
                setting
            }))
            .arg(program)
            .args(arguments)
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        log.follow(child.stdout.take().expect("standard output is a pipe"));
        log.follow(child.stderr.take().expect("standard error is a pipe"));
        let watchdog = child.stdin.take();
        Self { child, watchdog }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM could not be sent");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process is still there {PATIENCE:?} after SIGTERM");
            pause();
        }
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// How the process has ended, or none while it runs.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child can be waited for")?;
        self.dismiss_watchdog();
        Some(status)
    }

    /// Has the watchdog go without killing anything: the process id may be somebody else's by the time it wakes.
    fn dismiss_watchdog(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            // It fails only when the watchdog is gone already.
            let _ = watchdog.write_all(b"\n");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.watchdog.is_some() {
            let _ = self.child.kill();
            self.dismiss_watchdog();
        }
        let _ = self.child.wait();
    }
}

/// A short wait between two looks at something that announces itself in no other way.
#[expect(clippy::disallowed_methods, reason = "only between two looks at a state that has no event")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
