//! A PostgreSQL server of the tests' own: `initdb` in a temporary folder, a free port, and nothing left of it when the tests end, however
//! they end.
//!
//! One server is shared by all tests of a process, each with a database of its own ([`PostgresServer::shared`]). A test that stops the
//! server, or needs settings, starts one for itself.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The password of the database's user. Nothing that the service writes or says may have it in it.
pub(crate) const PASSWORD: &str = "database-password-of-the-tests";
/// How long the server may take to start or stop.
const PATIENCE: Duration = Duration::from_mins(2);

/// Starts the server and waits for a line that names the signal to stop it with. The end of the input without one means that the tests
/// are gone: then nothing of the server stays, and of its folder neither.
const WATCHDOG: &str = r#"
    folder=$1; shift
    "$@" </dev/null >"$folder/log" 2>&1 &
    server=$!
    read -r signal
    kill -"${signal:-QUIT}" $server 2>/dev/null
    wait $server
    [ -n "$signal" ] || rm -rf "$folder"
"#;

/// Whether the tests with PostgreSQL are run. `POSTGRES=none` leaves them out, and says so where it is set: in scripts/test.
pub(crate) fn is_wanted() -> bool {
    std::env::var("POSTGRES").as_deref() != Ok("none")
}

/// A running server.
#[derive(Debug)]
pub(crate) struct PostgresServer {
    folder: PathBuf,
    settings: Vec<(&'static str, String)>,
    port: u16,
    watchdog: Option<Child>,
}

impl PostgresServer {
    /// The server that all tests share which need nothing special.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PostgresServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(Vec::new()))
    }

    /// A server for one test alone, with settings as in `postgresql.conf`.
    pub(crate) fn start(settings: Vec<(&'static str, String)>) -> Self {
        let folder = folder();
        let password = folder.join("password");
        fs::write(&password, PASSWORD).expect("the folder can be written to");
        let made = own(&program("initdb"))
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(format!("--pwfile={}", password.display()))
            .arg(folder.join("data"))
            .output()
            .expect("initdb can be run");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        Self::start_in(folder, settings)
    }

    /// A standby that copies what this server writes.
    pub(crate) fn standby(&self) -> Self {
        let (mut backup, folder) = self.base_backup(&["--write-recovery-conf"]);
        let made = backup.output().expect("pg_basebackup can be run");
        assert!(made.status.success(), "pg_basebackup failed: {}", String::from_utf8_lossy(&made.stderr));
        Self::start_in(folder, Vec::new())
    }

    /// What copies the whole server, and the folder that it is in then.
    pub(crate) fn base_backup(&self, arguments: &[&str]) -> (Command, PathBuf) {
        let folder = folder();
        let mut backup = own(&program("pg_basebackup"));
        backup
            .args(["--checkpoint=fast", "--no-sync", "--username=postgres"])
            .args(arguments)
            .arg("-h")
            .arg(&self.folder)
            .args(["-p", &self.port.to_string()])
            .arg("-D")
            .arg(folder.join("data"))
            .env("PGPASSWORD", PASSWORD);
        (backup, folder)
    }

    fn start_in(folder: PathBuf, settings: Vec<(&'static str, String)>) -> Self {
        let mut server = Self { folder, settings, port: 0, watchdog: None };
        // Whoever else looks for a free port may be quicker.
        let started = (0..5).any(|_| {
            server.port = free_port();
            server.try_resume()
        });
        assert!(started, "PostgreSQL does not start: {}", server.log());
        server
    }

    /// Makes an empty database, and gives its URL: by the server's Unix socket.
    pub(crate) fn database(&self) -> String {
        self.database_with("")
    }

    /// The same with what follows `CREATE DATABASE`.
    pub(crate) fn database_with(&self, options: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} TEMPLATE template0 {options}"));
        let folder = self.folder.to_string_lossy().replace('/', "%2F");
        format!("postgres://postgres:{PASSWORD}@{folder}:{}/{name}", self.port)
    }

    /// Where its Unix socket is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The port on 127.0.0.1.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// What the server answers to a statement, as unaligned rows.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        self.try_psql(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, or what it says against it.
    pub(crate) fn try_psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let output = Command::new(program("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
            .arg("-h")
            .arg(&self.folder)
            .args(["-p", &self.port.to_string()])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .expect("psql can be run");
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
    }

    /// Has the server abort, and waits until it is gone. It recovers from its log when it is started again.
    pub(crate) fn crash(&mut self) {
        self.end(b"QUIT\n");
    }

    /// Has the server end its connections and shut down well, and waits until it is gone.
    pub(crate) fn shut_down(&mut self) {
        self.end(b"INT\n");
    }

    fn end(&mut self, signal: &[u8]) {
        let mut watchdog = self.watchdog.take().expect("the server runs");
        watchdog.stdin.take().expect("its input is a pipe").write_all(signal).expect("the watchdog listens");
        watchdog.wait().expect("a child can be waited for");
    }

    /// Starts the server again after it has ended.
    pub(crate) fn resume(&mut self) {
        assert!(self.try_resume(), "PostgreSQL does not start again: {}", self.log());
    }

    #[expect(clippy::zombie_processes, reason = "whoever ends the server waits for it")]
    fn try_resume(&mut self) -> bool {
        // What the last one said says nothing about this one.
        let _ = fs::remove_file(self.folder.join("log"));
        let mut command = own(&program("postgres"));
        command.arg("-D").arg(self.folder.join("data")).arg("-k").arg(&self.folder).args(["-p", &self.port.to_string()]);
        // The tests end processes, and never the machine: what was written is there.
        let usual = [
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("listen_addresses", "127.0.0.1"),
            ("max_connections", "200"),
            ("shared_buffers", "32MB"),
            ("lc_messages", "C"),
        ];
        for (name, value) in usual.into_iter().chain(self.settings.iter().map(|(name, value)| (*name, value.as_str()))) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "sh"])
            .arg(&self.folder)
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::piped())
            // What ends the tests at a terminal is not to end the watchdog before it has cleaned up.
            .process_group(0)
            .spawn()
            .expect("a shell can be run");
        let deadline = Instant::now() + PATIENCE;
        let state = self.folder.join("data/postmaster.pid");
        loop {
            let is_ready = fs::read_to_string(&state)
                .is_ok_and(|state| state.lines().nth(7).is_some_and(|line| ["ready", "standby"].contains(&line.trim())));
            let is_gone = self.log().contains("database system is shut down");
            if is_ready {
                self.watchdog = Some(watchdog);
                return true;
            }
            if is_gone || Instant::now() > deadline {
                let _ = watchdog.stdin.take().expect("its input is a pipe").write_all(b"QUIT\n");
                let _ = watchdog.wait();
                return false;
            }
            pause();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if let Some(mut watchdog) = self.watchdog.take() {
            drop(watchdog.stdin.take());
            let _ = watchdog.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The programs of the newest PostgreSQL there is, where Debian has them.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let path =
        newest.map_or_else(PathBuf::new, |version| Path::new("/usr/lib/postgresql").join(version.to_string()).join("bin").join(name));
    assert!(
        path.exists(),
        "these tests start a PostgreSQL of their own, and there is no {name}: apt-get install --no-install-recommends postgresql (or leave \
         them out with POSTGRES=none)"
    );
    path
}

/// Whom the server runs as: PostgreSQL refuses to be root. None: whoever runs the tests.
fn owner() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd can be read");
    let find = |name: &str| {
        let fields: Vec<&str> = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("there is a user postgres or nobody"))
}

/// A program that runs as the server's owner.
pub(crate) fn own(program: &Path) -> Command {
    let Some((uid, gid)) = owner() else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]).arg(program);
    // The folder of the tests may be closed to him.
    command.current_dir("/");
    command
}

/// A new folder of the server's owner.
pub(crate) fn folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let folder =
        std::env::temp_dir().join(format!("supos-auth-postgres-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    if let Some((uid, gid)) = owner() {
        chown(&folder, Some(uid), Some(gid)).expect("root may give a folder away");
    }
    folder
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}

#[expect(clippy::disallowed_methods, reason = "only between two looks at a file, which has no event")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
