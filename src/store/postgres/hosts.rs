//! Which server a connection is made to, where there may be several, and what each connection begins with.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::Connect;
use tokio::{net::lookup_host, task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, config::Host as Name};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::database::Left;

/// How long an address may take until it can be asked something: whoever takes the connection and says nothing keeps nobody from the next one.
pub(super) const ADDRESS_LIMIT: Duration = Duration::from_secs(2);
/// How long a host may take, with all the addresses that its name has.
pub(super) const HOST_LIMIT: Duration = Duration::from_secs(4);
/// After how long without an answer another one is asked first. Shorter than a probe waits (2 s), by the time that the other one needs.
const SILENT_AFTER: Duration = Duration::from_secs(1);
/// How long one statement may take on the server, locks included.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long it may wait for a lock of it. Somebody else works on the same record, or many do: whoever waits for it has a connection meanwhile that
/// others could use. Longer than the server waits before it looks for a deadlock (`deadlock_timeout`, 1 s), which it undoes and we run again.
const LOCK_TIMEOUT: Duration = Duration::from_millis(1500);

/// A connection, and the task that it works in.
type Connected = (Client, JoinHandle<()>);
type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which of several is asked first: the one that answered last.
#[derive(Debug, Default)]
struct First(AtomicUsize);

impl First {
    /// Asks one of so many after the other, each for so long, until one answers, and gives that one's place. Without an error none has said anything.
    async fn ask<T, E, F>(&self, number: usize, limit: Duration, one: impl Fn(usize) -> F) -> Result<(usize, T), Option<E>>
    where
        F: Future<Output = Result<T, Option<E>>>,
    {
        let first = self.0.load(Ordering::Relaxed);
        let mut refused = None;
        for at in (0..number).map(|at| first.wrapping_add(at) % number) {
            let asked = Asked { first: self, at, number, since: Instant::now(), silent_after: SILENT_AFTER.min(limit / 2) };
            match timeout(limit, one(at)).await {
                Ok(Ok(answer)) => {
                    drop(asked);
                    self.0.store(at, Ordering::Relaxed);
                    return Ok((at, answer));
                }
                Ok(Err(error)) => refused = error.or(refused),
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

/// One that is being asked. Where it has been silent for long enough when whoever asks gives up, the next one is asked first: else everybody who
/// has less patience than we have would ask one that is silent for ever.
struct Asked<'a> {
    first: &'a First,
    at: usize,
    number: usize,
    since: Instant,
    silent_after: Duration,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // Who gives up after a silent one was given up has asked the next one for no time at all, which says nothing of that.
        if self.since.elapsed() >= self.silent_after {
            let next = (self.at + 1) % self.number;
            // Somebody else may have had an answer meanwhile. Where names have come to have fewer addresses it is another one of them.
            let at = self.first.0.load(Ordering::Relaxed);
            if at % self.number == self.at {
                let _ = self.first.0.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

/// A host of a database's URL.
#[derive(Debug)]
struct Host {
    config: Config,
    /// Of the addresses that its name has.
    first: First,
}

/// The hosts of a database's URL, in its order.
#[derive(Debug)]
pub(super) struct Hosts {
    all: Vec<Host>,
    first: First,
    /// The one that took a connection last, counted from one; none yet: zero.
    serving: AtomicUsize,
}

impl FromIterator<Config> for Hosts {
    fn from_iter<T: IntoIterator<Item = Config>>(configs: T) -> Self {
        let all = configs.into_iter().map(|config| Host { config, first: First::default() }).collect();
        Self { all, first: First::default(), serving: AtomicUsize::new(0) }
    }
}

impl Hosts {
    /// What to connect to, one for each host.
    pub(super) fn configs(&self) -> impl Iterator<Item = &Config> {
        self.all.iter().map(|host| &host.config)
    }
}

/// Makes connections, to the first host that takes writes.
pub(super) struct Connector {
    pub(super) hosts: Arc<Hosts>,
    pub(super) tls: MakeRustlsConnect,
    pub(super) left: Left,
}

impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<Connected, tokio_postgres::Error>> {
        let hosts = &*self.hosts;
        Box::pin(async move {
            // Where none has said anything they are asked again, for as long as the pool has whoever asks wait.
            let (at, connected) = loop {
                match hosts.first.ask(hosts.all.len(), HOST_LIMIT, |at| hosts.all[at].begin(&self.tls)).await {
                    Ok(answer) => break answer,
                    Err(Some(error)) => return Err(error),
                    Err(None) => {}
                }
            };
            let before = hosts.serving.swap(at + 1, Ordering::Relaxed);
            if before != 0 && before != at + 1 {
                // What is connected to the other one may be to a machine that has gone, which says nothing of that.
                tracing::warn!("another server of the database takes connections: those to the one before it are closed");
                self.left.note();
            }
            Ok(connected)
        })
    }
}

impl Host {
    /// Begins a connection with the first address that takes one; none of them may have said anything.
    async fn begin(&self, tls: &MakeRustlsConnect) -> Result<Connected, Option<tokio_postgres::Error>> {
        let addresses = self.address_by_address().await;
        let limit = ADDRESS_LIMIT.min(HOST_LIMIT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX));
        let one = |at: usize| {
            let connecting = begin(&addresses[at], tls.clone());
            async move { connecting.await.map_err(Some) }
        };
        self.first.ask(addresses.len(), limit, one).await.map(|(_, connected)| connected)
    }

    /// The same host, once for each of the addresses that its name has now.
    async fn address_by_address(&self) -> Vec<Config> {
        let config = &self.config;
        let ([Name::Tcp(name)], [port], []) = (config.get_hosts(), config.get_ports(), config.get_hostaddrs()) else {
            return vec![config.clone()];
        };
        match timeout(ADDRESS_LIMIT, lookup_host((name.as_str(), *port))).await {
            Ok(Ok(addresses)) => addresses.map(|address| config.clone().hostaddr(address.ip()).clone()).collect(),
            // It says what is wrong by itself.
            Ok(Err(_)) => vec![config.clone()],
            Err(_) => Vec::new(),
        }
    }
}

/// Connects, and tells the server what holds for the connection.
async fn begin(config: &Config, tls: MakeRustlsConnect) -> Result<Connected, tokio_postgres::Error> {
    let (client, connection) = config.connect(tls).await?;
    let mut connection = Box::pin(async move { drop(connection.await) });
    let mut told = Box::pin(tell(&client));
    let has_ended = tokio::select! {
        told = &mut told => told.map(|()| false)?,
        // What is told learns that nobody listens any more, if it has not been answered.
        () = &mut connection => told.as_mut().await.map(|()| true)?,
    };
    drop(told);
    let rest = async move {
        if !has_ended {
            connection.await;
        }
    };
    Ok((client, tokio::spawn(rest)))
}

/// What each connection begins with.
async fn tell(client: &Client) -> Result<(), tokio_postgres::Error> {
    let limit = STATEMENT_TIMEOUT.as_millis();
    let settings = format!(
        "SET statement_timeout = {limit}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET default_transaction_isolation = 'read committed'",
        LOCK_TIMEOUT.as_millis(),
        2 * limit
    );
    client.batch_execute(&settings).await?;
    // An answer that is given before the commit is on disk, and on the standbys that were asked for, promises nothing. What is
    // stricter than `on` (`remote_apply`) stays.
    let row = client.query_one("SELECT current_setting('synchronous_commit', true)", &[]).await?;
    if matches!(row.try_get::<_, Option<&str>>(0)?, Some("off" | "local" | "remote_write")) {
        client.batch_execute("SET synchronous_commit = on").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::pending};

    use super::*;

    const LIMIT: Duration = Duration::from_millis(200);

    /// Asks one of three, of which those are silent, with so much patience; gives which one answered, and which were asked.
    async fn ask(first: &First, silent: &[usize], patience: Duration) -> (Option<usize>, Vec<usize>) {
        let asked = RefCell::new(Vec::new());
        let one = |at: usize| {
            asked.borrow_mut().push(at);
            let is_silent = silent.contains(&at);
            async move { if is_silent { pending().await } else { Ok::<(), Option<()>>(()) } }
        };
        let answer = timeout(patience, first.ask(3, LIMIT, one)).await;
        (answer.ok().map(|answer| answer.unwrap().0), asked.into_inner())
    }

    #[tokio::test]
    async fn whoever_has_less_patience_than_one_that_is_silent_may_take_finds_another_one_the_next_time() {
        let first = First::default();
        assert_eq!(ask(&first, &[0, 1], LIMIT * 3 / 4).await, (None, vec![0]));
        assert_eq!(ask(&first, &[0, 1], LIMIT * 3 / 4).await, (None, vec![1]));
        assert_eq!(ask(&first, &[0, 1], LIMIT * 3 / 4).await, (Some(2), vec![2]));
        // The one that has answered last is asked first.
        assert_eq!(ask(&first, &[0, 1], LIMIT * 3 / 4).await, (Some(2), vec![2]));
    }

    #[tokio::test]
    async fn one_that_was_asked_for_no_time_at_all_is_not_held_to_be_silent() {
        let first = First::default();
        // Time is up when the second one has just been asked.
        assert_eq!(ask(&first, &[0, 1, 2], LIMIT + LIMIT / 10).await, (None, vec![0, 1]));
        assert_eq!(ask(&first, &[0], LIMIT / 10).await, (Some(1), vec![1]));
    }
}
