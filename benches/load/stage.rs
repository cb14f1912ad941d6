//! The processes that are measured: the service as it is shipped, the ceiling, and Envoys in front of both.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{Failure, ceiling, child::Child};

/// Transcoder and router, and nothing else: what Envoy's other filters are compared with.
const BARE: &str = r#"
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: $PORT } }
    filter_chains:
    - filters:
      - name: public
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: public
          route_config:
            virtual_hosts:
            - { name: public, domains: [ "*" ], routes: [ { match: { prefix: / }, route: { cluster: edge, timeout: 15s } } ] }
          http_filters:
          - name: transcoder
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder
              proto_descriptor: "$DESCRIPTOR"
              services: [ $SERVICE ]
              match_incoming_request_route: true
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: edge
    type: STATIC
    load_assignment:
      cluster_name: edge
      endpoints: [ { lb_endpoints: [ { endpoint: { address: { pipe: { path: "$SOCKET" } } } } ] } ]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
"#;
/// The services that the shipped configuration transcodes.
const SERVICES: &str = "              - supos.auth.v1.AuthService
              - supos.auth.v2.AuthService
              - supos.auth.v281.AuthService
";

/// How long a large store may take to move to new files.
const MOVING: Duration = Duration::from_mins(15);

/// The service.
pub(crate) struct Service {
    child: Child,
    pub(crate) grpc: SocketAddr,
    /// Where Envoy connects.
    pub(crate) edge: PathBuf,
    ops: SocketAddr,
    /// How long it took from its start until it said that it is ready.
    pub(crate) ready_after: Duration,
}

impl Service {
    /// Starts it on the data in `folder/data`, with its settings as they are shipped and its log in a file.
    pub(crate) async fn start(server: &Path, folder: &Path, master_key: &Path, further: &[&str]) -> Result<Self, Failure> {
        // A Unix socket's path has room for 107 bytes.
        let edge = folder.join("edge.sock");
        let mut arguments: Vec<OsString> = ["serve", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"].map(Into::into).into();
        arguments.extend(["--data-dir".into(), folder.join("data").into(), "--master-key-file".into(), master_key.into()]);
        arguments.extend(["--edge-listen".into(), format!("unix:{}", edge.display()).into()]);
        arguments.extend(further.iter().map(Into::into));
        let began = Instant::now();
        let mut child = Child::start(server, arguments, &folder.join("service.log"))?;
        let (grpc, ops) = (said(&mut child, "grpc").await?, said(&mut child, "ops").await?);
        child.until("readiness", async |_| answers(ops, "/readyz").await.then_some(())).await?;
        Ok(Self { child, grpc, edge, ops, ready_after: began.elapsed() })
    }

    /// Waits until the store has been looked at, and has moved to new files where it took more room than it needs.
    pub(crate) async fn at_rest(&mut self) -> Result<(), Failure> {
        let ops = self.ops;
        let looked = async |_: &Child| get(ops, "/metrics").await?.contains("supos_auth_store_bytes ").then_some(());
        self.child.until_within(MOVING, "the store to be at rest", looked).await
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Stops it in good order.
    pub(crate) async fn terminate(self) -> Result<(), Failure> {
        self.child.terminate().await
    }

    /// Kills it.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

async fn said(child: &mut Child, listener: &str) -> Result<SocketAddr, Failure> {
    let begins = format!("listener=\"{listener}\" address=");
    let what = format!("the address of the listener {listener}");
    child
        .until(&what, async |child| {
            let log = child.written();
            let rest = log.split_once(&begins)?.1;
            // The line may be half written.
            rest.split_once('\n')?.0.parse().ok()
        })
        .await
}

/// Whether a GET is answered with 200.
async fn answers(address: SocketAddr, path: &str) -> bool {
    get(address, path).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    ask.await.ok()
}

/// The empty method, in a process of its own.
pub(crate) struct Ceiling {
    child: Child,
    pub(crate) grpc: SocketAddr,
    pub(crate) socket: PathBuf,
}

impl Ceiling {
    pub(crate) async fn start(folder: &Path) -> Result<Self, Failure> {
        let socket = folder.join("ceiling.sock");
        let arguments: [OsString; 3] = ["serve-ceiling".into(), "--socket".into(), socket.clone().into()];
        let mut child = Child::start(&env::current_exe()?, arguments, &folder.join("ceiling.log"))?;
        let grpc = child
            .until("the ceiling's address", async |child| {
                let log = child.written();
                log.split_once(ceiling::LISTENING)?.1.split_once('\n')?.0.parse().ok()
            })
            .await?;
        Ok(Self { child, grpc, socket })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

/// Checks passwords, and does nothing else, on every core for so long.
pub(crate) async fn hash_alone(folder: &Path, duration: Duration) -> Result<ceiling::Hashed, Failure> {
    let arguments = ["check-passwords".to_owned(), "--seconds".to_owned(), duration.as_secs_f64().to_string()];
    let child = Child::start(&env::current_exe()?, arguments, &folder.join("argon2.log"))?;
    Ok(serde_json::from_str(&child.finish().await?)?)
}

/// Where Envoy is: `ENVOY`, else the one that `make tools` fetched.
pub(crate) fn envoy() -> Result<PathBuf, Failure> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/envoy");
    let envoy = env::var_os("ENVOY").filter(|name| !name.is_empty()).map_or(fetched, PathBuf::from);
    if envoy.is_file() { Ok(envoy) } else { Err("Envoy is not there: run `make tools`, or name one in ENVOY".into()) }
}

/// An Envoy.
pub(crate) struct Envoy {
    child: Child,
    // Keeps the port ours: Envoy shares it by `SO_REUSEPORT`, nobody else may.
    _reservation: TcpSocket,
    pub(crate) http: SocketAddr,
}

impl Envoy {
    /// In front of the service, as it is shipped.
    pub(crate) async fn before_service(folder: &Path, service: &Service) -> Result<Self, Failure> {
        let descriptor = Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/descriptor.pb");
        let render = |port| render(port, &service.edge, &descriptor);
        Self::start(folder, "service", render, "/oauth2/jwks").await
    }

    /// In front of the empty method, as it is shipped but for the service that it transcodes.
    pub(crate) async fn before_ceiling(folder: &Path, ceiling: &Ceiling) -> Result<Self, Failure> {
        let descriptor = folder.join("ceiling.pb");
        fs::write(&descriptor, ceiling::descriptor(folder)?)?;
        let render = |port| {
            let shipped = render(port, &ceiling.socket, &descriptor)?;
            let changed = shipped.replace(SERVICES, &format!("              - {}\n", ceiling::SERVICE));
            if changed == shipped { Err("envoy.yaml lists other services than it did".into()) } else { Ok(changed) }
        };
        Self::start(folder, "ceiling", render, ceiling::PATH).await
    }

    /// In front of the empty method, with transcoder and router alone.
    pub(crate) async fn bare(folder: &Path, ceiling: &Ceiling) -> Result<Self, Failure> {
        let descriptor = folder.join("ceiling.pb");
        let render = |port: u16| {
            let bare = BARE.replace("$PORT", &port.to_string()).replace("$SERVICE", ceiling::SERVICE);
            Ok(bare.replace("$DESCRIPTOR", &descriptor.display().to_string()).replace("$SOCKET", &ceiling.socket.display().to_string()))
        };
        Self::start(folder, "bare", render, ceiling::PATH).await
    }

    async fn start(folder: &Path, name: &str, render: impl Fn(u16) -> Result<String, Failure>, path: &str) -> Result<Self, Failure> {
        let reservation = TcpSocket::new_v4()?;
        reservation.set_reuseport(true)?;
        reservation.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let http = reservation.local_addr()?;
        let file = folder.join(format!("envoy-{name}.yaml"));
        fs::write(&file, render(http.port())?)?;
        // As `make run` starts it.
        let mut arguments: Vec<OsString> = ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"].map(Into::into).into();
        arguments.extend(["-c".into(), file.into()]);
        let mut child = Child::start(&envoy()?, arguments, &folder.join(format!("envoy-{name}.log")))?;
        child.until("Envoy", async |_| answers(http, path).await.then_some(())).await?;
        Ok(Self { child, _reservation: reservation, http })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

fn render(port: u16, socket: &Path, descriptor: &Path) -> Result<String, Failure> {
    let rendered = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("envoy/render"))
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("HTTP_PORT", port.to_string())
        .env("EDGE_SOCKET", socket)
        .env("DESCRIPTOR", descriptor)
        .output()?;
    if !rendered.status.success() {
        return Err(format!("envoy/render: {}", String::from_utf8_lossy(&rendered.stderr)).into());
    }
    Ok(String::from_utf8(rendered.stdout)?)
}
