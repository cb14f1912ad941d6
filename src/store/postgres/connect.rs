//! From a URL to a pool: where the database is, how it is known for it (TLS), and what each connection begins with.

use std::{fs, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use percent_encoding::percent_decode_str;
use tokio::sync::Notify;
use tokio_postgres::{
    Config,
    config::{Host, SslMode, TargetSessionAttrs},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{
    database::{Database, Left},
    hosts::{ADDRESS_LIMIT, Connector, HOST_LIMIT, Hosts},
};
use crate::core::{Error, secret::Secret};

/// How long a call may wait for one of the connections to be free.
const WAIT_FOR_CONNECTION: Duration = Duration::from_secs(4);
/// How long what was sent may stay without an acknowledgement, and how long nothing may be heard, before a peer is held to be gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Where a server listens that says nothing else.
const DEFAULT_PORT: u16 = 5432;

/// The words before the `://` of a database's URL.
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// Where the database is.
#[derive(Clone, Debug)]
pub struct Address {
    hosts: Arc<Hosts>,
    verified: bool,
    root_certificate: Option<PathBuf>,
}

impl Address {
    /// Whether a text is meant to be the URL of a PostgreSQL database.
    #[must_use]
    pub fn is_one(url: &str) -> bool {
        url.split_once("://").is_some_and(|(scheme, _)| SCHEMES.contains(&scheme))
    }

    /// Reads a URL, as libpq takes it: `postgres://USER:PASSWORD@HOST[:PORT]/DATABASE?PARAMETERS`.
    ///
    /// # Errors
    /// What is wrong with it, without quoting it: it holds a password.
    pub fn read(url: &Secret) -> Result<Self, String> {
        let (place, query) = url.expose().split_once('?').unwrap_or((url.expose(), ""));
        // Whatever stands after the wrong one would be taken for a host, which is logged and asked of name servers.
        if url.expose().matches('@').count() > usize::from(place.contains('@')) {
            return Err(
                "the URL of the database may have one @, before the host: in the password, and in parameters, write @ as %40, ? as %3F and % as %25".into()
            );
        }
        let (mut mode, mut root_certificate, mut rest) = (None, None, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let decoded = || percent_decode_str(value).decode_utf8().map_err(|_| format!("the parameter {name} of the URL is no UTF-8"));
            match name {
                "sslmode" => mode = Some(decoded()?.into_owned()),
                "sslrootcert" => root_certificate = Some(PathBuf::from(decoded()?.into_owned())),
                _ => rest.push(parameter),
            }
        }
        let all = parse(place, &rest)?;
        let (hosts, ports, addresses) = (all.get_hosts(), all.get_ports(), all.get_hostaddrs());
        if hosts.is_empty() {
            return Err("the URL of the database names no host".into());
        }
        let fits = |number: usize| number <= 1 || number == hosts.len();
        if !fits(ports.len()) || !(addresses.is_empty() || addresses.len() == hosts.len()) {
            return Err("the URL of the database has not as many ports, or hostaddr, as hosts".into());
        }
        rest.retain(|parameter| !["host", "hostaddr", "port"].contains(&parameter.split('=').next().unwrap_or_default()));
        let mut config = parse(without_hosts(place).expose(), &rest)?;
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err("the URL of the database names no database: postgres://HOST/DATABASE".into());
        }
        let verified = match mode.as_deref() {
            Some("verify-full") => true,
            Some("disable") => false,
            None => !hosts.iter().all(is_near) || !addresses.iter().all(IpAddr::is_loopback),
            Some(_) => {
                return Err("sslmode in the URL of the database has to be verify-full or disable: what lies between would encrypt, and \
                            not find out for whom; give the certificate authority of a private one with sslrootcert=FILE"
                    .into());
            }
        };
        config.ssl_mode(if verified { SslMode::Require } else { SslMode::Disable });
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        config.keepalives_idle(SILENCE_LIMIT).keepalives_interval(SILENCE_LIMIT / 4).keepalives_retries(3);
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(SILENCE_LIMIT);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(ADDRESS_LIMIT);
        }
        if config.get_application_name().is_none() {
            config.application_name("supos-auth");
        }
        let only = |(at, host): (usize, &Host)| {
            let mut config = config.clone();
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(folder) => config.host_path(folder),
            };
            config.port(*ports.get(at).or(ports.first()).unwrap_or(&DEFAULT_PORT));
            if let Some(address) = addresses.get(at) {
                config.hostaddr(*address);
            }
            config
        };
        Ok(Self { hosts: Arc::new(hosts.iter().enumerate().map(only).collect()), verified, root_certificate })
    }

    /// Where it is, in words without a secret.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = |config: &Config| {
            let port = config.get_ports().first().unwrap_or(&DEFAULT_PORT);
            match (config.get_hostaddrs(), config.get_hosts()) {
                ([address], _) => format!("{address}:{port}"),
                (_, [Host::Unix(folder)]) => format!("{}/.s.PGSQL.{port}", folder.display()),
                (_, [Host::Tcp(name)]) => format!("{name}:{port}"),
                _ => String::new(),
            }
        };
        let hosts: Vec<String> = self.hosts.configs().map(shown).collect();
        let database = self.hosts.configs().next().and_then(Config::get_dbname).unwrap_or_default();
        format!("{database} at {}", hosts.join(", "))
    }

    /// A pool of at most so many connections. None is made yet. Pools of one address, with the same `left`, find a server and leave it together.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when the certificates cannot be read.
    pub(super) fn pool(self, connections: usize, left: Left) -> Result<Database, Error> {
        let tls = self.tls()?;
        let config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let limit = HOST_LIMIT * u32::try_from(self.hosts.configs().count()).unwrap_or(u32::MAX) + ADDRESS_LIMIT;
        let any = self.hosts.configs().next().cloned().unwrap_or_default();
        let connector = Connector { hosts: self.hosts, tls: tls.clone(), left: left.clone() };
        let manager = Manager::from_connect(any, connector, config);
        let stays = left.clone();
        let pool = Pool::builder(manager)
            .pre_recycle(Hook::sync_fn(move |_, metrics| {
                if stays.is_after(metrics.created) {
                    return Err(HookError::message("its server takes no writes"));
                }
                Ok(())
            }))
            .max_size(connections)
            .wait_timeout(Some(WAIT_FOR_CONNECTION))
            .create_timeout(Some(limit))
            .recycle_timeout(Some(limit))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| Error::Internal(format!("the pool cannot be made: {error}")))?;
        Ok(Database { pool, left, tls, owed: Notify::new() })
    }

    fn tls(&self) -> Result<MakeRustlsConnect, Error> {
        let mut roots = RootCertStore::empty();
        if self.verified {
            match &self.root_certificate {
                Some(path) => {
                    let cannot = |error: &dyn std::fmt::Display| {
                        Error::StoreUnavailable(format!(
                            "cannot read the certificate authority of the database {}: {error}",
                            path.display()
                        ))
                    };
                    let pem = fs::read(path).map_err(|error| cannot(&error))?;
                    for certificate in CertificateDer::pem_slice_iter(&pem) {
                        roots.add(certificate.map_err(|error| cannot(&error))?).map_err(|error| cannot(&error))?;
                    }
                    if roots.is_empty() {
                        return Err(cannot(&"there is no certificate in it"));
                    }
                }
                None => {
                    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Internal(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

/// Reads what comes before the `?` of a URL, and its parameters.
fn parse(place: &str, parameters: &[&str]) -> Result<Config, String> {
    let url = Secret::new(format!("{place}?{}", parameters.join("&")));
    // The library's error names the parameter that it does not know, and never a value.
    url.expose().parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
        format!("the URL of the database cannot be read{cause}")
    })
}

/// What comes before the parameters of a URL, but for the hosts and ports.
fn without_hosts(place: &str) -> Secret {
    let (scheme, rest) = place.split_once("://").unwrap_or(("", place));
    let (user, rest) = rest.split_at(rest.find('@').map_or(0, |at| at + 1));
    let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default();
    Secret::new(format!("{scheme}://{user}{path}"))
}

/// Whether a host is this machine, where nobody can stand between.
fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address, String> {
        Address::read(&Secret::new(url))
    }

    #[test]
    fn a_database_elsewhere_is_verified_unless_told_otherwise() {
        for (url, verified) in [
            ("postgres://u:p@db.example/auth", true),
            ("postgresql://u:p@10.0.0.1:5433,10.0.0.2/auth", true),
            ("postgres://u:p@localhost,db.example/auth", true),
            ("postgres://u:p@db.example/auth?sslmode=disable", false),
            ("postgres://u:p@127.0.0.1/auth", false),
            ("postgres://u:p@localhost/auth", false),
            ("postgres://u:p@127.0.0.1/auth?sslmode=verify-full", true),
            ("postgres://u:p@%2Frun%2Fpostgresql/auth", false),
            ("postgres:///auth?host=/run/postgresql&user=u", false),
            ("postgres://u:p@localhost/auth?hostaddr=10.0.0.5", true),
            ("postgres://u:p@localhost/auth?hostaddr=127.0.0.1", false),
        ] {
            assert_eq!(read(url).map(|address| address.verified), Ok(verified), "{url}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_and_not_quoted() {
        for url in [
            "postgres://u:hunter2@h/d?sslmode=prefer",
            "postgres://u:hunter2@h/d?sslmode=require",
            "postgres://u:hunter2@h/d?nonsense=hunter2",
            "postgres://u:hunter2@h:port/d",
            "postgres://u:hunter2@h/",
            "postgres://u:hunter2@/d",
            "postgres://u:x@hunter2@h/d",
            "postgres://u:x?hunter2@h/d",
            "postgres://u:hunter2@h/d?application_name=x@y",
            "postgres://u:hunter2@h",
        ] {
            let Err(problem) = read(url) else { panic!("{url} is taken") };
            assert!(!problem.contains("hunter2"), "{url}: {problem}");
        }
        assert!(read("postgres://u:hunter2@h/d?nonsense=1").unwrap_err().contains("nonsense"));
        assert!(read("postgres://u:x@hunter2@h/d").unwrap_err().contains("%40"));
        assert!(read("postgres://u:x%40hunter2%3F%25%2F@h/d").is_ok());
    }

    #[test]
    fn neither_the_words_for_it_nor_its_debug_form_have_the_password() {
        let address = read("postgres://u:hunter2@h:1,i/d?sslrootcert=%2Fca.pem").unwrap();
        assert_eq!(address.shown(), "d at h:1, i:5432");
        assert_eq!(
            read("postgres://localhost/d?hostaddr=10.0.0.5&port=7").unwrap_err(),
            "the URL of the database has not as many ports, or hostaddr, as hosts"
        );
        assert_eq!(read("postgres://localhost/d?hostaddr=10.0.0.5").unwrap().shown(), "d at 10.0.0.5:5432");
        assert_eq!(address.root_certificate, Some(PathBuf::from("/ca.pem")));
        assert!(!format!("{address:?}").contains("hunter2"));
    }
}
