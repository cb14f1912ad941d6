//! What the service is compared with, each in a process of its own: an empty method on a plain tonic server, and Argon2id and nothing else.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    path::{Path, PathBuf},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
    transport::{Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::Failure;

/// The empty method.
pub(crate) const METHOD: &str = "/supos.auth.bench.Ceiling/Empty";
/// Where it is over HTTP, for one: it has the paths of validity and of tokens, and so the very routes and filters that these have.
pub(crate) const PATH: &str = "/open-api/supos/auth/v2/empty/valid";
/// The service that it is in.
pub(crate) const SERVICE: &str = "supos.auth.bench.Ceiling";
const PROTO: &str = r#"
    syntax = "proto3";
    package supos.auth.bench;
    import "google/api/annotations.proto";
    import "google/api/httpbody.proto";
    message Asked {
        string access_token = 1;
        google.api.HttpBody json = 15;
    }
    message Nothing {}
    service Ceiling {
        rpc Empty(Asked) returns (Nothing) {
            option (google.api.http) = {
                get: "/open-api/supos/auth/v2/{access_token}/valid"
                additional_bindings { post: "/open-api/auth/v2/oauth2/token" body: "json" }
            };
        }
    }
"#;
/// What its process says before the address.
pub(crate) const LISTENING: &str = "listening on ";

/// The descriptor that Envoy reads, made in `folder`.
pub(crate) fn descriptor(folder: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::write(folder.join("ceiling.proto"), PROTO)?;
    let protos = concat!(env!("CARGO_MANIFEST_DIR"), "/proto");
    let mut compiler = protox::Compiler::new([folder, Path::new(protos)])?;
    compiler.include_imports(true).open_file("ceiling.proto")?;
    Ok(compiler.encode_file_descriptor_set())
}

#[derive(Clone, Copy, Debug)]
struct Ceiling;

#[derive(Clone, Copy, Debug)]
struct Empty;

impl NamedService for Ceiling {
    const NAME: &'static str = SERVICE;
}

impl UnaryService<()> for Empty {
    type Response = ();
    type Future = Ready<Result<Response<()>, Status>>;

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(Response::new(())))
    }
}

impl Service<http::Request<Body>> for Ceiling {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(ProstCodec::<(), ()>::default()).unary(Empty, request).await) })
    }
}

/// A server with the settings of the service's own listeners (src/app/listeners.rs).
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(200)
        .http2_max_local_error_reset_streams(Some(256))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(Duration::from_mins(1)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .max_connection_age(Duration::from_mins(30))
        .timeout(Duration::from_secs(15))
}

/// Serves the empty method, on a port that it says and on a Unix socket, until it is killed.
pub(crate) async fn serve(socket: PathBuf) -> Result<(), Failure> {
    let tcp = TcpListener::bind("127.0.0.1:0").await?;
    let unix = UnixListener::bind(socket)?;
    let (_, health) = tonic_health::server::health_reporter();
    println!("{LISTENING}{}", tcp.local_addr()?);
    let on_tcp = server().add_service(Ceiling).serve_with_incoming(TcpIncoming::from(tcp).with_nodelay(Some(true)));
    let on_unix = server().add_service(Ceiling).add_service(health).serve_with_incoming(UnixListenerStream::new(unix));
    tokio::try_join!(on_tcp, on_unix)?;
    Ok(())
}

/// What a process that only hashes has done.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hashed {
    /// Checks of a password.
    pub(crate) checks: u64,
    /// The time that it took, in seconds.
    pub(crate) seconds: f64,
}

/// Argon2id as the service has it (src/core/password.rs).
fn argon2() -> Result<Argon2<'static>, Failure> {
    let params = Params::new(19 * 1024, 2, 1, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash of a password, as a PHC string.
pub(crate) fn hash(password: &str) -> Result<String, Failure> {
    let hash: PasswordHash = argon2()?.hash_password(password.as_bytes()).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

/// Checks a password over and over on every core, and prints how often.
pub(crate) fn check_passwords(duration: Duration) -> Result<(), Failure> {
    let cores = thread::available_parallelism()?.get();
    let hash = hash("correct horse battery")?;
    let began = Instant::now();
    let check_until_the_end = || -> Result<u64, Failure> {
        let parsed = PasswordHash::new(&hash).map_err(|error| error.to_string())?;
        let argon2 = argon2()?;
        let mut checks = 0;
        while began.elapsed() < duration {
            argon2.verify_password(b"correct horse battery", &parsed).map_err(|error| error.to_string())?;
            checks += 1;
        }
        Ok(checks)
    };
    let checks = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(check_until_the_end)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread has panicked".into()))).sum::<Result<u64, _>>()
    })?;
    println!("{}", serde_json::to_string(&Hashed { checks, seconds: began.elapsed().as_secs_f64() })?);
    Ok(())
}
