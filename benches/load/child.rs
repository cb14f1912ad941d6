//! A child process that ends with the generator, however that ends, and what it has used of the machine.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child as StdChild, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::Failure;

/// How long a process may take to do what is waited for.
const PATIENCE: Duration = Duration::from_mins(2);
/// The time between two looks at something that announces itself in no other way.
const PAUSE: Duration = Duration::from_millis(1);

/// Becomes the program, with a watchdog beside it that reads what was the program's standard input: its end without a line before it
/// means that the generator is gone, and then the program goes, too.
const WRAPPER: &str = r#"
    exec 3<&0
    (read -r _ <&3 || kill -KILL $$) >/dev/null 2>&1 &
    exec "$@" </dev/null 3<&-
"#;

/// A running child process.
#[derive(Debug)]
pub(crate) struct Child {
    process: StdChild,
    watchdog: Option<ChildStdin>,
    log: PathBuf,
}

impl Child {
    /// Starts a program whose output, errors included, goes to the file `log`.
    pub(crate) fn start<A: Into<OsString>>(program: &Path, arguments: impl IntoIterator<Item = A>, log: &Path) -> Result<Self, Failure> {
        let output = File::create(log)?;
        let mut process = Command::new("/bin/sh")
            .args(["-c", WRAPPER, "sh"])
            .arg(program)
            .args(arguments.into_iter().map(Into::into))
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let watchdog = process.stdin.take();
        Ok(Self { process, watchdog, log: log.to_owned() })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has written so far.
    pub(crate) fn written(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until `look` finds something, for as long as the process runs.
    pub(crate) async fn until<T>(&mut self, what: &str, look: impl AsyncFnMut(&Self) -> Option<T>) -> Result<T, Failure> {
        self.until_within(PATIENCE, what, look).await
    }

    /// The same, with another patience.
    pub(crate) async fn until_within<T>(
        &mut self,
        patience: Duration,
        what: &str,
        mut look: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(found) = look(&*self).await {
                return Ok(found);
            }
            let ended = self.exited()?;
            if ended.is_some() || Instant::now() > deadline {
                let state = ended.map_or_else(|| "runs".to_owned(), |status| format!("has ended: {status}"));
                return Err(format!("waited for {what}; the process {state}\n{}", self.written()).into());
            }
            sleep(PAUSE).await;
        }
    }

    /// Waits for its end, which has to be a success, and gives what it has written.
    pub(crate) async fn finish(mut self) -> Result<String, Failure> {
        loop {
            if let Some(status) = self.exited()? {
                return if status.success() { Ok(self.written()) } else { Err(format!("{status}\n{}", self.written()).into()) };
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks the process to end (SIGTERM), and waits until it has.
    pub(crate) async fn terminate(self) -> Result<(), Failure> {
        let sent = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status()?;
        if !sent.success() {
            return Err("SIGTERM could not be sent".into());
        }
        self.finish().await.map(drop)
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let status = self.process.try_wait()?;
        if status.is_some() {
            self.dismiss_watchdog();
        }
        Ok(status)
    }

    /// Has the watchdog go without killing anything: the process id may be somebody else's by the time it wakes.
    fn dismiss_watchdog(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            // It fails only when the watchdog is gone already.
            let _ = watchdog.write_all(b"\n");
        }
    }
}

/// Kills it.
impl Drop for Child {
    fn drop(&mut self) {
        if self.watchdog.is_some() {
            let _ = self.process.kill();
            self.dismiss_watchdog();
        }
        let _ = self.process.wait();
    }
}

/// The processor time that each thread of a process has had.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu(HashMap<OsString, Duration>);

impl Cpu {
    /// What the process has had until now.
    pub(crate) fn of(process: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        Self(threads.filter_map(|thread| Some((thread.file_name(), of_thread(process, &thread.file_name())?))).collect())
    }

    /// What it has had since `before`. What threads had that have ended meanwhile is not in it.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        self.0.iter().map(|(thread, now)| now.saturating_sub(before.0.get(thread).copied().unwrap_or_default())).sum()
    }
}

/// Nanoseconds: `stat` has ticks of a hundredth of a second, which is more than many calls take.
fn of_thread(process: u32, thread: &OsStr) -> Option<Duration> {
    let text = fs::read_to_string(Path::new("/proc").join(process.to_string()).join("task").join(thread).join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

/// The bytes of memory that a process has now.
pub(crate) fn memory(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// The bytes that the files in a folder take on the disk.
pub(crate) fn disk(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let about = entry.metadata().ok()?;
        Some(if about.is_dir() { disk(&entry.path()) } else { about.blocks() * 512 })
    });
    sizes.sum()
}
