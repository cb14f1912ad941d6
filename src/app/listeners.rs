//! Where the service listens, and what it serves there.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::IntoResponse,
    routing::{any, get},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
    task::JoinSet,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    service::{Routes, RoutesBuilder},
    transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming},
};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::{StartError, connections::bounded, door::Door, health::Health};
use crate::{
    config::{EdgeAddress, ServeArgs},
    core::secret::Secret,
    grpc::{self, gate::Gate, pb},
    http::{self, Look, Pages},
};

/// The most connections of the edge, which Envoy alone opens, and of the ops listener.
const NEAR_CONNECTIONS: usize = 256;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// The fewest characters of the edge's secret.
const MIN_EDGE_SECRET: usize = 32;
/// The most bytes of headers on the edge: above Envoy's own limit, which answers in our words.
const EDGE_HEADERS: u32 = 64 * 1024;
/// The most bytes of headers elsewhere.
const HEADERS: u32 = 16 * 1024;

/// Bound, and not serving yet.
#[derive(Debug)]
pub(super) struct Listeners {
    grpc: TcpListener,
    ops: TcpListener,
    edge: Edge,
}

#[derive(Debug)]
enum Edge {
    Unix(UnixListener),
    Tcp(TcpListener, Secret),
}

impl Listeners {
    pub(super) async fn bind(args: &ServeArgs) -> Result<Self, StartError> {
        let grpc = bind("grpc", args.grpc_listen, "--grpc-listen").await?;
        let ops = bind("ops", args.ops_listen, "--ops-listen").await?;
        let edge = match args.edge() {
            EdgeAddress::Unix(path) => {
                let listener = bind_unix(&path).map_err(|error| format!("cannot listen on unix:{}: {error}", path.display()))?;
                tracing::info!(listener = "edge", address = %format!("unix:{}", path.display()), "listening");
                Edge::Unix(listener)
            }
            EdgeAddress::Tcp(address) => {
                let path = args.edge_secret_file.as_deref().ok_or("there is no edge secret")?;
                let secret = fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                let secret = Secret::new(secret.trim_end_matches(['\r', '\n']));
                if secret.expose().len() < MIN_EDGE_SECRET {
                    return Err(format!("the edge secret in {} has to have {MIN_EDGE_SECRET} characters or more", path.display()).into());
                }
                Edge::Tcp(bind("edge", address, "--edge-listen").await?, secret)
            }
        };
        Ok(Self { grpc, ops, edge })
    }

    /// The addresses that were bound.
    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let edge = match &self.edge {
            Edge::Unix(_) => None,
            Edge::Tcp(listener, _) => Some(listener),
        };
        [Some(&self.grpc), Some(&self.ops), edge].into_iter().flatten().map(TcpListener::local_addr).collect()
    }

    /// Serves on every listener, until `stopping`.
    pub(super) fn serve(
        self,
        args: &ServeArgs,
        gate: &Gate,
        health: &Health,
        metrics: PrometheusHandle,
        stopping: &watch::Receiver<bool>,
    ) -> Result<JoinSet<Result<(), StartError>>, StartError> {
        let mut servers = JoinSet::new();
        let stopped = || {
            let mut stopping = stopping.clone();
            async move {
                // An error is that nobody is left to say so.
                let _ = stopping.wait_for(|stop| *stop).await;
            }
        };

        let mut server = hardened(HEADERS);
        if let (Some(cert), Some(key)) = (&args.grpc_tls_cert, &args.grpc_tls_key) {
            let read = |path: &Path| fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()));
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(read(cert)?, read(key)?)).timeout(HANDSHAKE);
            server = server.tls_config(tls).map_err(|error| format!("--grpc-tls-cert and --grpc-tls-key cannot be used: {error}"))?;
        }
        let routes = native_routes(gate, health, !args.no_admin)?;
        let incoming = bounded(TcpIncoming::from(self.grpc).with_nodelay(Some(true)), args.grpc_connections.into());
        let stop = stopped();
        let door = Door::native(gate);
        servers.spawn(async move { Ok(server.layer(door).add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await?) });

        let incoming = bounded(TcpIncoming::from(self.ops).with_nodelay(Some(true)), NEAR_CONNECTIONS);
        let stop = stopped();
        let routes = Routes::from(ops_routes(health, metrics));
        servers.spawn(async move {
            Ok(hardened(HEADERS).accept_http1(true).add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await?)
        });

        let stop = stopped();
        let look = Look::new(&args.product_name, args.logo_file.as_deref())?;
        let pages = Pages::new(gate.clone(), look, args.settings().min_password_length);
        let routes = edge_routes(gate, health, pages);
        let server = hardened(EDGE_HEADERS).accept_http1(true);
        match self.edge {
            Edge::Unix(listener) => {
                let incoming = bounded(UnixListenerStream::new(listener), NEAR_CONNECTIONS);
                let mut server = server.layer(Door::edge(gate, None));
                servers.spawn(async move { Ok(server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await?) });
            }
            Edge::Tcp(listener, secret) => {
                let incoming = bounded(TcpIncoming::from(listener).with_nodelay(Some(true)), NEAR_CONNECTIONS);
                let mut server = server.layer(Door::edge(gate, Some(Arc::new(secret))));
                servers.spawn(async move { Ok(server.add_routes(routes).serve_with_incoming_shutdown(incoming, stop).await?) });
            }
        }
        Ok(servers)
    }
}

async fn bind(listener: &'static str, address: SocketAddr, flag: &str) -> Result<TcpListener, StartError> {
    let bound =
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}; {flag} chooses another address"))?;
    tracing::info!(listener, address = %bound.local_addr()?, "listening");
    Ok(bound)
}

/// Binds a Unix socket that only its owner can open. One that an earlier process left behind is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::FileTypeExt as _;
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else of that name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A server with limits: tonic by itself sets none on streams, and lifts the one on resets that its HTTP/2 library has.
fn hardened(headers: u32) -> Server {
    Server::builder()
        .max_concurrent_streams(200)
        .http2_max_local_error_reset_streams(Some(256))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(headers)
        .http2_keepalive_interval(Some(Duration::from_mins(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // With a grace besides, tonic says nothing at this age, and cuts what is under way off at the end of the grace.
        .max_connection_age(Duration::from_mins(30))
        .timeout(Duration::from_secs(15))
}

fn health_service(health: &Health) -> HealthServer<HealthService> {
    HealthServer::new(HealthService::from_health_reporter(health.reporter()))
}

fn native_routes(gate: &Gate, health: &Health, admin: bool) -> Result<Routes, StartError> {
    let mut routes = RoutesBuilder::default();
    grpc::add_to(&mut routes, gate);
    if admin {
        grpc::admin::add_to(&mut routes, gate);
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?).add_service(health_service(health));
    Ok(routes.routes())
}

fn edge_routes(gate: &Gate, health: &Health, pages: Pages) -> Routes {
    let mut routes = RoutesBuilder::default();
    grpc::add_to(&mut routes, gate);
    routes.add_service(health_service(health));
    Routes::from(routes.routes().into_axum_router().fallback_service(any(http::serve).with_state(Arc::new(pages))))
}

fn ops_routes(health: &Health, metrics: PrometheusHandle) -> Router {
    let render = async |State(metrics): State<PrometheusHandle>| ([("content-type", "text/plain; version=0.0.4")], metrics.render());
    let health = health.clone();
    let ready = move || {
        let ready = health.is_ready();
        async move { if ready { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }.into_response() }
    };
    Router::new()
        .route("/metrics", get(render))
        .with_state(metrics)
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
        .fallback(async || StatusCode::NOT_FOUND)
}
