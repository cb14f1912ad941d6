//! From a URL to a connection: names are resolved here, and each address is judged right before it is connected to.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};
use url::{Host, Url};

use super::{CallError, address::Rules};

/// How long one of several addresses may take to answer before the next one is tried.
const ONE_OF_SEVERAL: Duration = Duration::from_millis(1500);
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 4;
/// How many names are looked up at a time. The system's resolver cannot be called off: a dead one keeps its threads for a while.
const MAX_LOOKUPS: usize = 64;

/// A connection, with TLS or without.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Who knows the addresses of names.
#[async_trait]
pub(super) trait Resolver: fmt::Debug + Send + Sync {
    /// The addresses of a name.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the system.
#[derive(Debug)]
pub(super) struct SystemResolver(Arc<Semaphore>);

impl SystemResolver {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let permit = Arc::clone(&self.0).acquire_owned().await.map_err(io::Error::other)?;
        let name = name.to_owned();
        let look_up = move || {
            // Held until the lookup has ended, also when nobody waits for it any more.
            let _permit = permit;
            (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
        };
        tokio::task::spawn_blocking(look_up).await.map_err(io::Error::other)?
    }
}

/// Whom the service believes that they are who they say.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Whom the certificate authorities vouch for that the system trusts. Reads hundreds of files, which takes a moment.
    ///
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn of_the_system() -> Result<Self, tokio_rustls::rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a trusted certificate of the system cannot be read: {error}");
        }
        let (trusted, _) = roots.add_parsable_certificates(found.certs);
        if trusted == 0 {
            tracing::warn!("the system trusts no certificate authority: https addresses cannot be called; install ca-certificates");
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(tls)))
    }
}

/// What connects.
#[derive(Debug)]
pub(super) struct Connector {
    pub(super) rules: Rules,
    pub(super) resolver: Box<dyn Resolver>,
    pub(super) trust: Trust,
}

impl Connector {
    /// Connects to where a URL points, if that may be called.
    pub(super) async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, CallError> {
        let host = check(url, &self.rules)?;
        let port = url.port_or_known_default().ok_or(CallError::NotCallable)?;
        let addresses = self.addresses(&host, port).await?;
        let stream = first_that_answers(&addresses).await?;
        // A failure costs a little speed at most.
        let _ = stream.set_nodelay(true);
        if url.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_owned()).map_err(|_| CallError::NotCallable)?,
            Host::Ipv4(ip) => ServerName::from(IpAddr::V4(ip)),
            Host::Ipv6(ip) => ServerName::from(IpAddr::V6(ip)),
        };
        let stream =
            TlsConnector::from(Arc::clone(&self.trust.0)).connect(name, stream).await.map_err(|error| CallError::Tls(words(&error)))?;
        Ok(Box::new(stream))
    }

    /// The addresses of a host that may be called.
    async fn addresses(&self, host: &Host<&str>, port: u16) -> Result<Vec<SocketAddr>, CallError> {
        let found = match host {
            Host::Ipv4(ip) => vec![IpAddr::V4(*ip)],
            Host::Ipv6(ip) => vec![IpAddr::V6(*ip)],
            Host::Domain(name) => self.resolver.resolve(name).await.map_err(|error| CallError::Name(words(&error)))?,
        };
        if found.is_empty() {
            return Err(CallError::Name("the name has no address".to_owned()));
        }
        let mut allowed: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        allowed.retain(|address| self.rules.allow(*address));
        allowed.dedup();
        allowed.truncate(MAX_ADDRESSES);
        if allowed.is_empty() { Err(CallError::Forbidden) } else { Ok(allowed) }
    }
}

/// Checks what can be told of a URL without asking anybody, and gives its host.
pub(super) fn check<'a>(url: &'a Url, rules: &Rules) -> Result<Host<&'a str>, CallError> {
    let is_plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    let (Some(host), Some(port), true) = (url.host(), url.port_or_known_default(), is_plain) else { return Err(CallError::NotCallable) };
    let literal = match host {
        Host::Domain(_) => return Ok(host),
        Host::Ipv4(ip) => IpAddr::V4(ip),
        Host::Ipv6(ip) => IpAddr::V6(ip),
    };
    if rules.allow(SocketAddr::new(literal, port)) { Ok(host) } else { Err(CallError::Forbidden) }
}

async fn first_that_answers(addresses: &[SocketAddr]) -> Result<TcpStream, CallError> {
    let mut failure = CallError::Connection("no address answers".to_owned());
    for (at, address) in addresses.iter().enumerate() {
        // The last one has all the time that is left of the call.
        let patience = if at + 1 < addresses.len() { ONE_OF_SEVERAL } else { super::client::TIMEOUT };
        match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = CallError::Connection(words(&error)),
            Err(_) => failure = CallError::Timeout,
        }
    }
    Err(failure)
}

/// An I/O error in words that have nothing of the other side's in them but what its kernel or certificate says.
pub(super) fn words(error: &io::Error) -> String {
    error.to_string().chars().filter(|char| !char.is_control()).take(160).collect()
}
