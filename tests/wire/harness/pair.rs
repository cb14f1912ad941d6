//! The service and Envoy in front of it, as real processes.

use std::{
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Instant,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpSocket, sync::OnceCell};

use super::{
    clock::Clock,
    process::{Log, PATIENCE, Process, pause},
    raw, tools,
};

/// How a pair differs from the ordinary one.
#[derive(Default)]
pub(crate) struct Setup {
    /// Further arguments of `supos-auth serve`.
    pub(crate) arguments: Vec<String>,
    /// Whether the service gets a clock that the test can move.
    pub(crate) movable_clock: bool,
    /// Another public URL than Envoy's address.
    pub(crate) public_url: Option<String>,
    /// How many proxies stand in front of Envoy, whose word on the client's address it takes.
    pub(crate) trusted_hops: u8,
    /// Whether there is no Envoy.
    pub(crate) alone: bool,
    /// Further environment of the service.
    pub(crate) environment: Vec<(String, OsString)>,
    /// The program, with its arguments, that the service is started by.
    pub(crate) under: Vec<OsString>,
    /// Where the service keeps its data, if not in the pair's own folder.
    pub(crate) data: Option<PathBuf>,
    /// The socket between Envoy and the service, if not in the pair's own folder.
    pub(crate) edge: Option<PathBuf>,
    /// The sockets of further services that Envoy calls in turn with this one.
    pub(crate) beside: Vec<PathBuf>,
}

impl Setup {
    pub(crate) fn argument(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    pub(crate) fn movable_clock(mut self) -> Self {
        self.movable_clock = true;
        self
    }
}

/// The addresses that a running service has said it listens on.
#[derive(Clone, Copy)]
struct Listening {
    grpc: SocketAddr,
    ops: SocketAddr,
}

/// A service with the demo seed, and Envoy in front of it.
pub(crate) struct Pair {
    folder: TempDir,
    setup: Setup,
    service: Option<Process>,
    listening: Listening,
    // Keeps the port ours: Envoy shares it by `SO_REUSEPORT`, nobody else may.
    _reservation: TcpSocket,
    http: SocketAddr,
    envoy: Option<Process>,
    pub(crate) clock: Option<Clock>,
    pub(crate) service_log: Log,
    pub(crate) envoy_log: Log,
    pub(super) admin: OnceCell<String>,
}

impl Pair {
    pub(crate) fn start(setup: Setup) -> Result<Self, String> {
        let folder = TempDir::with_prefix("supos-auth-").map_err(|error| format!("no temporary folder: {error}"))?;
        let (reservation, http) = reserve_port().map_err(|error| format!("no free port: {error}"))?;
        let clock = setup.movable_clock.then(|| Clock::new(folder.path().join("clock")));
        let (service_log, envoy_log) = (Log::default(), Log::default());
        let (service, listening) = start_service(&setup, folder.path(), http, clock.as_ref(), &service_log)?;
        let envoy = if setup.alone { None } else { Some(start_envoy(&setup, folder.path(), http, &envoy_log)?) };
        let mut pair = Self {
            folder,
            setup,
            service: Some(service),
            listening,
            _reservation: reservation,
            http,
            envoy,
            clock,
            service_log,
            envoy_log,
            admin: OnceCell::new(),
        };
        pair.await_readiness()?;
        Ok(pair)
    }

    /// Envoy's address.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// The address of the native gRPC listener.
    pub(crate) fn grpc(&self) -> SocketAddr {
        self.listening.grpc
    }

    /// The address of the operators' listener.
    pub(crate) fn ops(&self) -> SocketAddr {
        self.listening.ops
    }

    /// The socket between Envoy and the service.
    pub(crate) fn edge(&self) -> PathBuf {
        edge(&self.setup, self.folder.path())
    }

    /// Where the service keeps its data.
    pub(crate) fn data(&self) -> PathBuf {
        data(&self.setup, self.folder.path())
    }

    pub(crate) fn public_url(&self) -> String {
        self.setup.public_url.clone().unwrap_or_else(|| format!("http://{}", self.http))
    }

    pub(crate) fn service_id(&self) -> u32 {
        self.service.as_ref().expect("the service runs").id()
    }

    /// Ends the service with SIGTERM.
    pub(crate) fn terminate(&mut self) {
        let status = self.service.take().expect("the service runs").terminate();
        assert!(status.success(), "after SIGTERM the service ended with {status}");
    }

    /// Ends the service with SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.service.take().expect("the service runs").kill();
    }

    /// Waits until the service has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.service.as_mut().expect("the service was started").exited() {
                self.service = None;
                return status;
            }
            assert!(Instant::now() < deadline, "the service does not end\n{}", self.logs(0, 0));
            pause();
        }
    }

    /// Starts the service again on the same data, as `change` has set it up, or gives what it has logged where it does not start.
    pub(crate) fn start_again(&mut self, change: impl FnOnce(&mut Setup)) -> Result<(), String> {
        change(&mut self.setup);
        let (service, listening) = start_service(&self.setup, self.folder.path(), self.http, self.clock.as_ref(), &self.service_log)?;
        self.service = Some(service);
        self.listening = listening;
        self.await_readiness()
    }

    /// Waits until the service is ready, and a call gets through to it.
    fn await_readiness(&mut self) -> Result<(), String> {
        self.await_ok(self.listening.ops, "/readyz")?;
        // In this order: Envoy may have asked it a moment before, and sends it nothing until it has asked again.
        if self.setup.alone { Ok(()) } else { self.await_ok(self.http, "/oauth2/jwks") }
    }

    fn await_ok(&mut self, address: SocketAddr, target: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match raw::status_of(address, target) {
                Some(200) => return Ok(()),
                status if Instant::now() > deadline => return Err(format!("{target}: {status:?}\n{}", self.logs(0, 0))),
                _ => {}
            }
            if let Some(status) = self.envoy.as_mut().and_then(Process::exited) {
                return Err(format!("Envoy has ended: {status}\n{}", self.logs(0, 0)));
            }
            if let Some(status) = self.service.as_mut().and_then(Process::exited) {
                return Err(format!("the service has ended: {status}\n{}", self.logs(0, 0)));
            }
            pause();
        }
    }

    /// What both processes have logged since the marks.
    pub(crate) fn logs(&self, service: usize, envoy: usize) -> String {
        let service = self.service_log.since(service).join("\n");
        let envoy = self.envoy_log.since(envoy).join("\n");
        format!("--- service\n{service}\n--- Envoy\n{envoy}\n---")
    }
}

fn edge(setup: &Setup, folder: &Path) -> PathBuf {
    setup.edge.clone().unwrap_or_else(|| folder.join("edge.sock"))
}

fn data(setup: &Setup, folder: &Path) -> PathBuf {
    setup.data.clone().unwrap_or_else(|| folder.join("data"))
}

/// A port that nobody else can bind, except by `SO_REUSEPORT` as Envoy does.
fn reserve_port() -> std::io::Result<(TcpSocket, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn start_service(setup: &Setup, folder: &Path, http: SocketAddr, clock: Option<&Clock>, log: &Log) -> Result<(Process, Listening), String> {
    let public_url = setup.public_url.clone().unwrap_or_else(|| format!("http://{http}"));
    let edge_listen = format!("unix:{}", edge(setup, folder).display());
    let mut arguments: Vec<OsString> =
        ["serve", "--dev", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"].map(OsString::from).into();
    arguments
        .extend(["--log-format", "json", "--public-url", &public_url, "--edge-listen", &edge_listen, "--data-dir"].map(OsString::from));
    arguments.push(data(setup, folder).into_os_string());
    arguments.extend(setup.arguments.iter().map(OsString::from));
    let mut environment = clock.map(Clock::environment).unwrap_or_default();
    environment.extend(setup.environment.iter().cloned());
    // All tests come from one address. A test of its own limits gives them as arguments, which go first.
    for setting in ["SUPOS_AUTH_FAILURES_PER_ADDRESS", "SUPOS_AUTH_FAILURES_PER_GOOD_ADDRESS"] {
        environment.push((setting.to_owned(), "1000000".into()));
    }
    // A disk that is busy with whatever else runs is not what they are about. Those that are say how long it may take.
    environment.push(("SUPOS_AUTH_DISK_TIMEOUT".to_owned(), "60".into()));

    let mark = log.mark();
    let mut command = setup.under.clone();
    command.push(env!("CARGO_BIN_EXE_supos-auth").into());
    command.extend(arguments);
    let service = Process::start(&command[0], folder, command[1..].to_vec(), &environment, log);
    let all = || log.since(mark).join("\n");
    let address = |listener: &str| {
        let found = log.wait_for(mark, |line| listening(line, listener));
        found.ok_or_else(|| format!("the service does not say that it listens ({listener}):\n{}", all()))
    };
    let parse = |address: String| address.parse().map_err(|error| format!("{address} is no address: {error}"));
    let grpc = address("grpc").and_then(parse)?;
    let ops = address("ops").and_then(parse)?;
    address("edge")?;
    Ok((service, Listening { grpc, ops }))
}

/// The address in the log line that says that `listener` is bound.
fn listening(line: &str, listener: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).ok()?;
    // Fields stand at the top of the line or beneath "fields", as the log's format has it.
    let fields = line.get("fields").unwrap_or(&line);
    let is = |name: &str, value: &str| fields.get(name).and_then(Value::as_str) == Some(value);
    (is("message", "listening") && is("listener", listener)).then(|| fields["address"].as_str().map(str::to_owned))?
}

fn start_envoy(setup: &Setup, folder: &Path, http: SocketAddr, log: &Log) -> Result<Process, String> {
    let envoy = tools::envoy();
    let sockets: Vec<String> =
        std::iter::once(&edge(setup, folder)).chain(&setup.beside).map(|socket| socket.display().to_string()).collect();
    let rendered = Command::new(tools::root().join("envoy/render"))
        .env("HTTP_PORT", http.port().to_string())
        .env("EDGE_SOCKET", sockets.join(";"))
        .env("TRUSTED_HOPS", setup.trusted_hops.to_string())
        .env("DESCRIPTOR", tools::root().join("envoy/descriptor.pb"))
        .output()
        .map_err(|error| format!("envoy/render does not run: {error}"))?;
    if !rendered.status.success() {
        return Err(format!("envoy/render: {}", String::from_utf8_lossy(&rendered.stderr)));
    }
    let file = folder.join("envoy.yaml");
    fs::write(&file, rendered.stdout).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    let mut arguments: Vec<OsString> = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "info"].map(OsString::from).into();
    arguments.extend(["--file-flush-interval-msec", "50", "-c"].map(OsString::from));
    arguments.push(file.into_os_string());
    Ok(Process::start(envoy.as_os_str(), folder, arguments, &[], log))
}
