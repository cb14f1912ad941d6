//! Reaching the service: its address, TLS, the time to wait, and who calls.

use std::{error::Error, fmt, fs, io, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use url::{Host, Url};

use super::{
    failure::Failure,
    refusal::Refusal,
    tickets::{self, Ticket},
};
use crate::grpc::pb::supos::auth::admin::v1::{
    app_service_client::AppServiceClient, backup_service_client::BackupServiceClient,
    identity_provider_service_client::IdentityProviderServiceClient, session_service_client::SessionServiceClient,
    signing_key_service_client::SigningKeyServiceClient, user_service_client::UserServiceClient,
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// An import may run for long; this notices when the service or the way to it is gone meanwhile.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// A page of apps with all the URIs that they may have is bigger than gRPC's 4 MiB.
const MAX_ANSWER_BYTES: usize = 128 * 1024 * 1024;

/// Where help lists the options of every client command, apart from those of the one command.
pub(crate) const HEADING: &str = "Service and output";

/// Which service to call.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// The service's gRPC address, as http://HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "SUPOS_AUTH_SERVER", value_name = "URL", default_value = "http://127.0.0.1:50051", global = true, help_heading = HEADING)]
    pub(crate) server: ServerUrl,
    /// With https: the authorities to trust (a PEM file), in place of the system's.
    #[arg(long, env = "SUPOS_AUTH_CA_FILE", value_name = "FILE", global = true, help_heading = HEADING)]
    ca_file: Option<PathBuf>,
    /// How long to wait for an answer [default: 30; health: 3].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400), global = true, help_heading = HEADING)]
    timeout: Option<u64>,
}

/// The address of a service, in one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    origin: String,
    is_private: bool,
}

impl ServerUrl {
    pub(crate) fn as_str(&self) -> &str {
        &self.origin
    }

    /// Whether nobody on the way can read what is sent: it is encrypted, or does not leave the machine.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    fn is_https(&self) -> bool {
        self.origin.starts_with("https:")
    }
}

impl FromStr for ServerUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "write it as http://HOST:PORT or https://HOST:PORT";
        let url = Url::parse(text).map_err(|_| SHAPE)?;
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !is_bare || !url.username().is_empty() || url.password().is_some() {
            return Err(SHAPE);
        }
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => return Err(SHAPE),
        };
        Ok(Self { origin: url.origin().ascii_serialization(), is_private: is_loopback || url.scheme() == "https" })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)
    }
}

/// An open connection to a service.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    pub(crate) server: ServerUrl,
    timeout: Duration,
}

impl Connection {
    pub(crate) async fn open(args: &ServerArgs) -> Result<Self, Failure> {
        Self::open_within(args, DEFAULT_TIMEOUT).await
    }

    /// Connects; `timeout` is for the connection, and then for each answer, unless the person gave another one.
    pub(crate) async fn open_within(args: &ServerArgs, timeout: Duration) -> Result<Self, Failure> {
        let timeout = args.timeout.map_or(timeout, Duration::from_secs);
        let channel = endpoint(args, timeout)?.connect().await.map_err(|error| unreachable(&args.server, &error))?;
        Ok(Self { channel, server: args.server.clone(), timeout })
    }

    /// Waits for the answer to a call.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refusal> {
        let answer = match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map(Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", self.timeout.as_secs()))),
        };
        answer.map_err(|status| self.refusal(status))
    }

    /// Waits for the next message of an answer that is a stream.
    pub(crate) async fn next<T>(&self, stream: &mut Streaming<T>) -> Result<Option<T>, Refusal> {
        match tokio::time::timeout(self.timeout, stream.message()).await {
            Ok(next) => next.map_err(|status| self.refusal(status)),
            Err(_) => Err(self.refusal(Status::deadline_exceeded(format!("nothing more came within {} s", self.timeout.as_secs())))),
        }
    }

    /// What the service says when it does not do what it was asked.
    pub(crate) fn refusal(&self, status: Status) -> Refusal {
        Refusal::new(status, self.server.clone())
    }
}

fn endpoint(args: &ServerArgs, timeout: Duration) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::from_shared(args.server.origin.clone())
        .map_err(|error| Failure::from_error("the server's address is of no use", &error))?
        .connect_timeout(timeout)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let mut tls = ClientTlsConfig::new();
    match (&args.ca_file, args.server.is_https()) {
        (None, false) => return Ok(endpoint),
        (Some(_), false) => {
            return Err(Failure::usage(format!("--ca-file is for https, and the server is {}", args.server)));
        }
        (None, true) => tls = tls.with_native_roots(),
        (Some(file), true) => {
            let pem = fs::read(file).map_err(|error| Failure::from_io(format_args!("read {}", file.display()), &error))?;
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
    }
    endpoint.tls_config(tls).map_err(|error| Failure::from_error("TLS cannot be set up", &error))
}

/// Says why there is no connection by the error that all the others stand around.
fn unreachable(server: &ServerUrl, error: &(dyn Error + 'static)) -> Failure {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let refused = root.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let failure = if refused {
        Failure::new(format!("the service at {server} cannot be reached: connection refused"))
    } else {
        Failure::from_error(&format!("the service at {server} cannot be reached"), root)
    };
    failure.hint(if server.is_https() {
        "Is the service running there? Is its certificate from an authority that the system or --ca-file names?"
    } else {
        "Is the service running there? Name another one with --server or SUPOS_AUTH_SERVER."
    })
}

/// A connection on which an administrator calls.
#[derive(Debug)]
pub(crate) struct Admin {
    connection: Connection,
    authorization: Authorization,
}

/// Adds the ticket to a call.
#[derive(Debug, Clone)]
pub(crate) struct Authorization(MetadataValue<Ascii>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel whose calls carry the ticket.
pub(crate) type TicketChannel = InterceptedService<Channel, Authorization>;

impl Admin {
    /// Connects as the person who has signed in.
    pub(crate) async fn open(args: &ServerArgs) -> Result<Self, Failure> {
        let ticket = tickets::current(&args.server)?.ok_or_else(|| {
            Failure::new(format!("you are not signed in at {}", args.server)).hint("Sign in: `supos-auth login`, or set SUPOS_AUTH_TICKET.")
        })?;
        Ok(Self { authorization: Authorization(secret_metadata("Ticket ", &ticket)?), connection: Connection::open(args).await? })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Waits for the answer to a call.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Refusal> {
        self.connection.call(call).await
    }

    fn channel(&self) -> TicketChannel {
        InterceptedService::new(self.connection.channel.clone(), self.authorization.clone())
    }

    pub(crate) fn apps(&self) -> AppServiceClient<TicketChannel> {
        AppServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(crate) fn users(&self) -> UserServiceClient<TicketChannel> {
        UserServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(crate) fn authorities(&self) -> IdentityProviderServiceClient<TicketChannel> {
        IdentityProviderServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(crate) fn sessions(&self) -> SessionServiceClient<TicketChannel> {
        SessionServiceClient::new(self.channel()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(crate) fn backups(&self) -> BackupServiceClient<TicketChannel> {
        BackupServiceClient::new(self.channel())
    }

    pub(crate) fn signing_keys(&self) -> SigningKeyServiceClient<TicketChannel> {
        SigningKeyServiceClient::new(self.channel())
    }
}

/// The ticket as a metadata value, kept out of any debug output.
pub(crate) fn secret_metadata(prefix: &str, ticket: &Ticket) -> Result<MetadataValue<Ascii>, Failure> {
    let mut value: MetadataValue<Ascii> =
        format!("{prefix}{}", ticket.as_str()).parse().map_err(|_| Failure::new("the ticket cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_service_has_one_spelling() {
        let url = |text: &str| text.parse::<ServerUrl>().map(|url| (url.origin, url.is_private));
        assert_eq!(url("http://127.0.0.1:50051/"), Ok(("http://127.0.0.1:50051".to_owned(), true)));
        assert_eq!(url("HTTPS://Auth.Example:443"), Ok(("https://auth.example".to_owned(), true)));
        assert_eq!(url("http://10.0.0.5:50051"), Ok(("http://10.0.0.5:50051".to_owned(), false)));
        assert_eq!(url("http://[::1]:1"), Ok(("http://[::1]:1".to_owned(), true)));
        for text in
            ["", "localhost:50051", "127.0.0.1:50051", "ftp://a", "http://a/path", "http://a/?q", "http://u@a", "http://u:p@a", "http://"]
        {
            assert!(url(text).is_err(), "{text}");
        }
    }
}
