//! The settings: flags of `serve`, or environment variables of the same names. All mistakes are reported at once, before anything is
//! touched.

use std::{
    convert::Infallible,
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgAction, Args, ValueEnum, builder::PossibleValuesParser};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::{
    core::{Settings, secret::Secret, throttle::Limits},
    dialect::operation::{OPERATIONS, Operation},
    outbound::address::Rules,
    store::postgres::Address,
};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which store is used.
#[derive(Clone, Debug, Args)]
pub struct StoreArgs {
    /// Where everything is kept: `sled` (the default) is in the data folder, for one service; `postgres://USER:PASSWORD@HOST/DATABASE` in a
    /// PostgreSQL database, for any number of them. Processes of this machine can see each other's flags: give a URL with a password by
    /// the environment, or by --store-file.
    #[arg(long, env = "SUPOS_AUTH_STORE", value_name = "STORE", hide_env_values = true, value_parser = secret, conflicts_with = "store_file")]
    store: Option<Secret>,

    /// A file with what --store would say.
    #[arg(long, env = "SUPOS_AUTH_STORE_FILE", value_name = "FILE")]
    store_file: Option<PathBuf>,

    /// How many connections to the database this service may have at a time, besides two for its health.
    #[arg(long, env = "SUPOS_AUTH_STORE_CONNECTIONS", value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub store_connections: u16,
}

/// Where a store is.
#[derive(Clone, Debug)]
pub enum StorePlace {
    /// In the data folder.
    Sled,
    /// In a database.
    Postgres(Box<Address>),
}

#[expect(clippy::unnecessary_wraps, reason = "clap would quote a value that it refuses")]
fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

impl StoreArgs {
    /// Where the store is.
    ///
    /// # Errors
    /// What is wrong with what was said, without quoting it.
    pub fn place(&self) -> Result<StorePlace, String> {
        match said(self.store.as_ref(), self.store_file.as_deref())? {
            Some(said) if said.expose() != "sled" => database(&said).map(StorePlace::Postgres),
            _ => Ok(StorePlace::Sled),
        }
    }
}

/// What was said of the store, by itself or in a file.
fn said(store: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, String> {
    let Some(path) = file.filter(|_| store.is_none()) else { return Ok(store.cloned()) };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| format!("cannot read --store-file {}: {error}", path.display()))?);
    Ok(Some(Secret::new(text.trim())))
}

fn database(said: &Secret) -> Result<Box<Address>, String> {
    if !Address::is_one(said.expose()) {
        return Err("--store has to be sled or postgres://USER:PASSWORD@HOST/DATABASE".to_owned());
    }
    Address::read(said).map(Box::new)
}

/// The store that a command works on by itself, asking no service. It is named on the command line: what the environment says is a service's,
/// and might be another one.
#[derive(Clone, Debug, Args)]
pub struct LocalStoreArgs {
    /// The data directory with the store, of a stopped service.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["store", "store_file"])]
    data_dir: Option<PathBuf>,

    /// The PostgreSQL database with the store: `postgres://USER:PASSWORD@HOST/DATABASE`. Processes of this machine can see each other's flags:
    /// give a URL with a password by --store-file. The environment is not looked at.
    #[arg(long, value_name = "URL", value_parser = secret, conflicts_with = "store_file")]
    store: Option<Secret>,

    /// A file with what --store would say.
    #[arg(long, value_name = "FILE")]
    store_file: Option<PathBuf>,
}

/// Where a store is that a command works on by itself.
#[derive(Clone, Debug)]
pub enum LocalPlace {
    /// In a data folder.
    Folder(PathBuf),
    /// In a database.
    Database(Box<Address>),
}

impl fmt::Display for LocalPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => write!(f, "{}", folder.display()),
            Self::Database(address) => write!(f, "the database {}", address.shown()),
        }
    }
}

impl LocalStoreArgs {
    /// Where the store is; none when nothing was said.
    ///
    /// # Errors
    /// What is wrong with what was said, without quoting it.
    pub fn place(&self) -> Result<Option<LocalPlace>, String> {
        if let Some(folder) = &self.data_dir {
            return Ok(Some(LocalPlace::Folder(folder.clone())));
        }
        match said(self.store.as_ref(), self.store_file.as_deref())? {
            Some(said) if said.expose() == "sled" => Err("a store of sled is named by its folder: --data-dir DIR".to_owned()),
            Some(said) => database(&said).map(|address| Some(LocalPlace::Database(address))),
            None => Ok(None),
        }
    }

    /// Where the store is, for a command that asks no service in any case.
    ///
    /// # Errors
    /// As [`LocalStoreArgs::place`], and when nothing was said.
    pub fn named(&self) -> Result<LocalPlace, String> {
        self.place()?.ok_or_else(|| "say which store: --data-dir DIR, or --store-file FILE for a database".to_owned())
    }
}

/// What `supos-auth serve` takes.
#[derive(Clone, Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct ServeArgs {
    /// The folder that everything is kept in. Made when it is not there.
    #[arg(long, env = "SUPOS_AUTH_DATA_DIR", value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,

    /// Which store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// A file of 32 random bytes, under which the store's secrets are sealed. Keep it, and keep it elsewhere than the data and its
    /// backups: without it the store cannot be read. Make one with: head -c 32 /dev/urandom > FILE && chmod 600 FILE
    #[arg(long, env = "SUPOS_AUTH_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,

    /// For trying out and for tests: a known app, user and administrator with known passwords, and a master key made beside the data
    /// folder. On loopback, and on a store of its own, alone.
    #[arg(long)]
    pub dev: bool,

    /// The address that users and apps reach the service at, through Envoy: it is the `iss` and `aud` of access tokens. Never taken from
    /// a request.
    #[arg(long, env = "SUPOS_AUTH_PUBLIC_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub public_url: Url,

    /// Where gRPC callers connect: the documented services, the admin API, health and reflection.
    #[arg(long, env = "SUPOS_AUTH_GRPC_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    pub grpc_listen: SocketAddr,

    /// How many connections the gRPC listener takes at a time; more wait. Leave room for it in the limit of open files (ulimit -n), where
    /// the edge, the ops listener and outgoing calls need 576 besides.
    #[arg(long, env = "SUPOS_AUTH_GRPC_CONNECTIONS", value_name = "NUMBER", default_value_t = 400, value_parser = clap::value_parser!(u16).range(1..))]
    pub grpc_connections: u16,

    /// The certificate chain of the gRPC listener, PEM. With --grpc-tls-key it speaks TLS.
    #[arg(long, env = "SUPOS_AUTH_GRPC_TLS_CERT", value_name = "FILE", requires = "grpc_tls_key")]
    pub grpc_tls_cert: Option<PathBuf>,

    /// The private key that goes with --grpc-tls-cert, PEM.
    #[arg(long, env = "SUPOS_AUTH_GRPC_TLS_KEY", value_name = "FILE", requires = "grpc_tls_cert")]
    pub grpc_tls_key: Option<PathBuf>,

    /// Leave out the admin API.
    #[arg(long, env = "SUPOS_AUTH_NO_ADMIN", action = ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new(), conflicts_with = "admin_without_tls")]
    pub no_admin: bool,

    /// Serve the admin API without TLS where --grpc-listen is not a loopback address. Passwords and tickets cross that network in the
    /// clear.
    #[arg(long, env = "SUPOS_AUTH_ADMIN_WITHOUT_TLS", action = ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new())]
    pub admin_without_tls: bool,

    /// Where Envoy, and nobody else, connects: `unix:PATH`, or an address, which needs --edge-secret-file. [default: `unix:DATA_DIR/edge.sock`]
    #[arg(long, env = "SUPOS_AUTH_EDGE_LISTEN", value_name = "ADDRESS")]
    pub edge_listen: Option<EdgeAddress>,

    /// A file with the secret that Envoy shows in the header x-edge-secret, where the edge is no Unix socket: 32 characters or more.
    #[arg(long, env = "SUPOS_AUTH_EDGE_SECRET_FILE", value_name = "FILE")]
    pub edge_secret_file: Option<PathBuf>,

    /// Where /metrics, /livez and /readyz are.
    #[arg(long, env = "SUPOS_AUTH_OPS_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub ops_listen: SocketAddr,

    /// How long an access token lives, in seconds.
    #[arg(long, env = "SUPOS_AUTH_ACCESS_TOKEN_LIFETIME", value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub access_token_lifetime: u64,

    /// How long an authorization code lives, in seconds.
    #[arg(long, env = "SUPOS_AUTH_CODE_LIFETIME", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub code_lifetime: u64,

    /// How long a session lives in all, in seconds.
    #[arg(long, env = "SUPOS_AUTH_SESSION_LIFETIME", value_name = "SECONDS", default_value_t = 30 * 86_400, value_parser = clap::value_parser!(u64).range(1..=366 * 86_400))]
    pub session_lifetime: u64,

    /// How long a session lives with nothing to keep it alive, in seconds.
    #[arg(long, env = "SUPOS_AUTH_SESSION_IDLE_LIFETIME", value_name = "SECONDS", default_value_t = 7 * 86_400, value_parser = clap::value_parser!(u64).range(1..=366 * 86_400))]
    pub session_idle_lifetime: u64,

    /// How long after the first use of a refresh token its successor is given out again, in seconds.
    #[arg(long, env = "SUPOS_AUTH_REFRESH_GRACE", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub refresh_grace: u64,

    /// How long a signing key is published before it signs, in seconds: twice as long as consumers may keep a fetched key set.
    #[arg(long, env = "SUPOS_AUTH_SIGNING_KEY_LEAD", value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    pub signing_key_lead: u64,

    /// How long a signing key signs before a new one takes over, in seconds.
    #[arg(long, env = "SUPOS_AUTH_SIGNING_KEY_LIFETIME", value_name = "SECONDS", default_value_t = 90 * 86_400, value_parser = clap::value_parser!(u64).range(3600..=3660 * 86_400))]
    pub signing_key_lifetime: u64,

    /// The fewest characters of a password that is set from now on.
    #[arg(long, env = "SUPOS_AUTH_MIN_PASSWORD_LENGTH", value_name = "CHARACTERS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(8..=64))]
    pub min_password_length: u64,

    /// How many wrong passwords one user name may have before whoever comes next has to wait. A browser that the user has signed in with
    /// before is not bound by it. Whatever this says, it is no more than 100 in a day.
    #[arg(long, env = "SUPOS_AUTH_FAILURES_PER_NAME", value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub failures_per_name: u32,

    /// How many wrong passwords, and how many wrong signatures, one address may have before it has to wait. A /64 of IPv6 is one address.
    #[arg(long, env = "SUPOS_AUTH_FAILURES_PER_ADDRESS", value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub failures_per_address: u32,

    /// The same for an address from which somebody has signed in, or an app has signed, well within a day: many may share it.
    #[arg(long, env = "SUPOS_AUTH_FAILURES_PER_GOOD_ADDRESS", value_name = "NUMBER", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    pub failures_per_good_address: u32,

    /// A deprecated operation that is not offered any more, as v281.SignOut: its callers get 404. Give it again for each further one, or
    /// separate them by commas. `supos-auth app usage` shows who still calls which.
    #[arg(long, env = "SUPOS_AUTH_SWITCH_OFF", value_name = "OPERATION", value_delimiter = ',', value_parser = deprecated_operations())]
    pub switch_off: Vec<String>,

    /// What the sign-in page calls this service.
    #[arg(long, env = "SUPOS_AUTH_PRODUCT_NAME", value_name = "NAME", default_value = "supOS")]
    pub product_name: String,

    /// A picture for the sign-in page, square, at most 256 KiB: .svg, .png, .jpg or .webp.
    #[arg(long, env = "SUPOS_AUTH_LOGO_FILE", value_name = "FILE")]
    pub logo_file: Option<PathBuf>,

    /// A network that the service may call although it would not by itself, as 127.0.0.0/8: loopback, link-local and metadata addresses are
    /// not called otherwise. Give it again for each further one, or separate them by commas. --dev without it allows loopback.
    #[arg(long, env = "SUPOS_AUTH_OUTBOUND_ALLOW", value_name = "CIDR", value_delimiter = ',')]
    pub outbound_allow: Vec<IpNet>,

    /// Do not call private networks either (10.0.0.0/8 and its like), but those that --outbound-allow names.
    #[arg(long, env = "SUPOS_AUTH_OUTBOUND_DENY_PRIVATE", action = ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new())]
    pub outbound_deny_private: bool,

    /// Refuse those who show no credential when they register a third-party authority (operation 2). Without it what they register waits
    /// for an administrator to enable it.
    #[arg(long, env = "SUPOS_AUTH_NO_ANONYMOUS_AUTHORITIES", action = ArgAction::SetTrue, value_parser = clap::builder::FalseyValueParser::new())]
    pub no_anonymous_authorities: bool,

    /// How long one write may take to reach the disk before the service ends itself, in seconds: a supervisor starts it again, and nobody
    /// waits for ever. More than the default is for disks that are that slow, such as memory cards.
    #[arg(long, env = "SUPOS_AUTH_DISK_TIMEOUT", value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub disk_timeout: u64,

    /// How the log is written, to standard error.
    #[arg(long, env = "SUPOS_AUTH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as `info,supos_auth::store=debug`.
    #[arg(long, env = "SUPOS_AUTH_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,
}

/// The deprecated operations, by the names that operators know them by.
fn deprecated_operations() -> PossibleValuesParser {
    OPERATIONS.iter().filter(|operation| operation.deprecated).map(|operation| operation.name).collect::<Vec<_>>().into()
}

/// Where the edge listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdgeAddress {
    /// A Unix socket, which only its owner can open.
    Unix(PathBuf),
    /// An address, where Envoy shows a secret.
    Tcp(SocketAddr),
}

impl std::str::FromStr for EdgeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| "is neither unix:PATH nor an address such as 10.0.0.1:50052".to_owned()),
        }
    }
}

impl fmt::Display for EdgeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// Everything that is wrong with the settings, each with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings cannot be used:")?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  - {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// What the demo may call: this machine, where whoever tries things out has his apps.
const LOOPBACK: (Ipv4Net, Ipv6Net) = (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128));

/// The shortest time, in seconds, that a signing key is published before it signs, where several services sign: each looks for new ones
/// every two seconds.
const MIN_SHARED_LEAD: u64 = 10;

/// The longest path of a Unix socket, in bytes.
const MAX_SOCKET_PATH: usize = 107;

impl ServeArgs {
    /// Where the edge listens.
    #[must_use]
    pub fn edge(&self) -> EdgeAddress {
        self.edge_listen.clone().unwrap_or_else(|| EdgeAddress::Unix(self.data_dir.join("edge.sock")))
    }

    /// The file of the master key: with --dev it stands beside the data folder.
    #[must_use]
    pub fn master_key_path(&self) -> Option<PathBuf> {
        self.master_key_file.clone().or_else(|| {
            let mut beside = self.data_dir.clone().into_os_string();
            beside.push(".master-key");
            self.dev.then(|| beside.into())
        })
    }

    /// The public URL as the `iss` of tokens: without a slash at its end.
    #[must_use]
    pub fn issuer(&self) -> String {
        self.public_url.as_str().trim_end_matches('/').to_owned()
    }

    /// What the core has to know.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            code_lifetime: Duration::from_secs(self.code_lifetime),
            session_lifetime: Duration::from_secs(self.session_lifetime),
            session_idle_lifetime: Duration::from_secs(self.session_idle_lifetime),
            refresh_grace: Duration::from_secs(self.refresh_grace),
            signing_key_lead: Duration::from_secs(self.signing_key_lead),
            signing_key_lifetime: Duration::from_secs(self.signing_key_lifetime),
            min_password_length: usize::try_from(self.min_password_length).unwrap_or(64),
            public_url: self.issuer(),
            anonymous_authorities: !self.no_anonymous_authorities,
        }
    }

    /// How often somebody may be wrong.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let free = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Limits {
            per_name: free(self.failures_per_name),
            per_address: free(self.failures_per_address),
            per_good_address: free(self.failures_per_good_address),
        }
    }

    /// Which addresses the service may call, given where it listens itself.
    #[must_use]
    pub fn outbound_rules(&self, mut own: Vec<SocketAddr>) -> Rules {
        // Where the public URL is an address, that is the service, too, by way of Envoy.
        let public = match self.public_url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            Some(Host::Domain(_)) | None => None,
        };
        own.extend(public.zip(self.public_url.port_or_known_default()).map(SocketAddr::from));
        let mut allowed = self.outbound_allow.clone();
        if self.dev && allowed.is_empty() {
            allowed = vec![LOOPBACK.0.into(), LOOPBACK.1.into()];
        }
        Rules { allowed, deny_private: self.outbound_deny_private, own }
    }

    /// The gRPC methods of the operations that are switched off.
    #[must_use]
    pub fn switched_off(&self) -> Vec<&'static str> {
        let off = |operation: &&Operation| self.switch_off.iter().any(|name| name == operation.name);
        OPERATIONS.iter().filter(off).map(|operation| operation.rpc).collect()
    }

    /// Checks what the settings say together.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn validate(&self) -> Result<(), Mistakes> {
        let mut mistakes = Vec::new();
        let mut unless = |holds: bool, mistake: &str| {
            if !holds {
                mistakes.push(mistake.to_owned());
            }
        };
        let edge = self.edge();
        unless(
            self.master_key_path().is_some(),
            "there is no master key: make one with `head -c 32 /dev/urandom > FILE && chmod 600 FILE`, keep it safe and away from the data, \
             and give it with --master-key-file FILE (to try things out, --dev makes one)",
        );
        match self.store.place() {
            Ok(StorePlace::Sled) => {}
            Ok(StorePlace::Postgres(_)) => unless(
                self.signing_key_lead >= MIN_SHARED_LEAD,
                "--signing-key-lead has to be 10 or more with --store postgres://…: every service has to have a new key before one signs with it",
            ),
            Err(problem) => unless(false, &problem),
        }
        let url = &self.public_url;
        unless(
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none(),
            "--public-url has to be http://HOST[:PORT] or https://HOST[:PORT]",
        );
        match &edge {
            EdgeAddress::Unix(path) => unless(
                path.as_os_str().len() <= MAX_SOCKET_PATH,
                "the path of the edge's Unix socket is too long: give a shorter one with --edge-listen unix:PATH",
            ),
            EdgeAddress::Tcp(_) => unless(
                self.edge_secret_file.is_some(),
                "--edge-listen with an address needs --edge-secret-file: being able to connect is no proof of being Envoy",
            ),
        }
        if self.dev {
            let on_loopback = |address: &SocketAddr| address.ip().is_loopback();
            let edge_is_near = match &edge {
                EdgeAddress::Unix(_) => true,
                EdgeAddress::Tcp(address) => on_loopback(address),
            };
            let loopback = on_loopback(&self.grpc_listen) && on_loopback(&self.ops_listen) && edge_is_near;
            unless(loopback, "--dev has passwords that everybody knows: it listens on loopback addresses alone");
        } else {
            let shielded = self.no_admin || self.admin_without_tls || self.grpc_tls_cert.is_some() || self.grpc_listen.ip().is_loopback();
            unless(
                shielded,
                "the admin API is not served without TLS on an address that is not loopback: give --grpc-tls-cert and --grpc-tls-key, or \
                 leave it out with --no-admin, or, on a network that is closed, allow it with --admin-without-tls",
            );
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn mistakes(args: &[&str]) -> Vec<String> {
        let cli = Cli::try_parse_from(std::iter::once(&"serve").chain(args)).unwrap();
        cli.args.validate().err().map(|mistakes| mistakes.0).unwrap_or_default()
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let found = mistakes(&["--public-url", "ftp://x", "--edge-listen", "127.0.0.1:1", "--grpc-listen", "0.0.0.0:1"]);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[0].contains("head -c 32 /dev/urandom"));
    }

    #[test]
    fn the_admin_api_is_not_served_in_the_clear_beyond_loopback_unless_told_to() {
        let key = ["--master-key-file", "k", "--grpc-listen"];
        let with = |more: &[&str]| mistakes(&[&key, more].concat());
        assert_eq!(with(&["0.0.0.0:1"]).len(), 1);
        assert_eq!(with(&["[::1]:1"]).len(), 0);
        assert_eq!(with(&["0.0.0.0:1", "--no-admin"]).len(), 0);
        assert_eq!(with(&["0.0.0.0:1", "--admin-without-tls"]).len(), 0);
        assert_eq!(with(&["0.0.0.0:1", "--grpc-tls-cert", "c", "--grpc-tls-key", "k"]).len(), 0);
    }

    #[test]
    fn the_demo_listens_on_loopback_alone() {
        assert_eq!(mistakes(&["--dev"]).len(), 0);
        assert_eq!(mistakes(&["--dev", "--ops-listen", "0.0.0.0:1"]).len(), 1);
        assert_eq!(mistakes(&["--dev", "--grpc-listen", "10.0.0.1:1"]).len(), 1);
        assert_eq!(mistakes(&["--dev", "--edge-listen", "10.0.0.1:1", "--edge-secret-file", "f"]).len(), 1);
    }

    #[test]
    fn the_demo_calls_this_machine_unless_told_otherwise_and_nobody_calls_the_service_itself() {
        let rules = |args: &[&str]| {
            let cli = Cli::try_parse_from(std::iter::once(&"serve").chain(args)).unwrap();
            cli.args.outbound_rules(vec!["127.0.0.1:50051".parse().unwrap()])
        };
        let allows = |args: &[&str], address: &str| rules(args).allow(address.parse().unwrap());
        assert!(allows(&["--dev"], "127.0.0.1:9999") && allows(&["--dev"], "[::1]:9999"));
        assert!(!allows(&["--dev"], "127.0.0.1:50051"));
        assert!(!allows(&["--dev"], "127.0.0.1:8080"), "Envoy, by the public URL");
        assert!(!allows(&["--dev", "--outbound-allow", "192.0.2.0/24"], "127.0.0.1:9999"));
        assert!(!allows(&[], "127.0.0.1:9999"));
        assert!(allows(&["--outbound-allow", "127.0.0.1/32,169.254.0.0/16"], "169.254.1.1:80"));
        assert!(allows(&[], "10.0.0.1:80") && !allows(&["--outbound-deny-private"], "10.0.0.1:80"));
    }

    #[test]
    fn every_setting_is_in_docs_configuration() {
        let mut made = String::from("\n| flag | environment | default | |\n|---|---|---|---|\n");
        for arg in Cli::command().get_arguments().filter(|arg| arg.get_id() != "help") {
            let flag = arg.get_long().unwrap();
            let takes_value = arg.get_action().takes_values();
            let values: Vec<String> =
                if takes_value { arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect() } else { Vec::new() };
            let value = match arg.get_value_names() {
                Some(_) if !values.is_empty() => format!(" {}", values.join("\\|")),
                Some([name]) if takes_value => format!(" {name}"),
                _ => String::new(),
            };
            let code = |text: &str| if text.is_empty() { String::new() } else { format!("`{text}`") };
            let env = arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let default =
                if takes_value { arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect() } else { String::new() };
            let help = arg.get_long_help().or(arg.get_help()).unwrap().to_string();
            writeln!(made, "| `--{flag}{value}` | {} | {} | {}. |", code(&env), code(&default), help.replace('\n', " ")).unwrap();
        }
        made.push('\n');
        crate::documents::check("docs/configuration.md", &made);
    }
}
