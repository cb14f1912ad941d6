//! Which server a connection is made to, where there may be several, and what each connection begins with.

use std::{
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

/// What is known of several that can be asked: hosts, or the addresses of one.
#[derive(Debug)]
struct Known<K> {
    /// The one that answered last.
    latest: Option<K>,
    /// When each answered last.
    answered: Vec<(K, Instant)>,
    /// Those that were silent when they were asked last, and since when that is known.
    silent: Vec<(K, Instant)>,
}

/// In which order several are asked.
#[derive(Debug)]
struct Order<K>(Mutex<Known<K>>);

impl<K> Default for Order<K> {
    fn default() -> Self {
        Self(Mutex::new(Known { latest: None, answered: Vec::new(), silent: Vec::new() }))
    }
}

impl<K: Copy + PartialEq> Order<K> {
    fn known(&self) -> MutexGuard<'_, Known<K>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// First the one that answered last, and last of all those that were silent, beginning with the one of which that is known longest.
    fn sort(&self, mut keys: Vec<K>) -> Vec<K> {
        let mut known = self.known();
        known.answered.retain(|(key, _)| keys.contains(key));
        keys.sort_by_key(|key| (known.silent_since(*key), known.latest != Some(*key)));
        keys
    }

    fn is_silent(&self, key: K) -> bool {
        self.known().silent_since(key).is_some()
    }

    /// Asks one after the other, each for so long, until one answers, and gives that one. Without an error none has said anything.
    async fn ask<T, E, F>(&self, keys: Vec<K>, limit: Duration, one: impl Fn(K) -> F) -> Result<(K, T), Option<E>>
    where
        F: Future<Output = Result<T, Option<E>>>,
    {
        let mut refused = None;
        for key in self.sort(keys) {
            let mut asked = Asked { order: self, key, since: Instant::now(), silent_after: SILENT_AFTER.min(limit / 2) };
            let answer = timeout(limit, one(key)).await;
            if matches!(answer, Ok(Ok(_) | Err(Some(_)))) && asked.since.elapsed() < limit * 9 / 10 {
                // Slow as it may have been: it has said something. (What the library says when its own time is up is nothing that the other one said.)
                asked.silent_after = Duration::MAX;
            }
            drop(asked);
            match answer {
                Ok(Ok(answer)) => {
                    self.known().has_answered(key);
                    return Ok((key, answer));
                }
                Ok(Err(error)) => refused = error.or(refused),
                Err(_) => {}
            }
        }
        Err(refused)
    }
}

impl<K: Copy + PartialEq> Known<K> {
    fn has_answered(&mut self, key: K) {
        self.silent.retain(|(other, _)| *other != key);
        self.answered.retain(|(other, _)| *other != key);
        self.answered.push((key, Instant::now()));
        self.latest = Some(key);
    }

    fn is_silent_from(&mut self, key: K, since: Instant) {
        // It may have answered somebody else meanwhile.
        if !self.answered.iter().any(|(other, at)| *other == key && *at >= since) {
            self.silent.retain(|(other, _)| *other != key);
            self.silent.push((key, Instant::now()));
        }
    }

    fn silent_since(&self, key: K) -> Option<Instant> {
        self.silent.iter().find(|(other, _)| *other == key).map(|(_, since)| *since)
    }
}

/// One that is being asked. Where it has been silent for long enough when whoever asks gives up, the others are asked before it: else everybody
/// who has less patience than we have would ask one that is silent for ever.
struct Asked<'a, K: Copy + PartialEq> {
    order: &'a Order<K>,
    key: K,
    since: Instant,
    silent_after: Duration,
}

impl<K: Copy + PartialEq> Drop for Asked<'_, K> {
    fn drop(&mut self) {
        // Who gives up after a silent one was given up has asked the next one for no time at all, which says nothing of that.
        if self.since.elapsed() >= self.silent_after {
            self.order.known().is_silent_from(self.key, self.since);
        }
    }
}

/// An address of a host; none: it needs none, or has none.
type Place = Option<IpAddr>;

/// A host of a database's URL.
#[derive(Debug)]
struct Host {
    config: Config,
    addresses: Order<Place>,
}

/// The hosts of a database's URL, in its order.
#[derive(Debug)]
pub(super) struct Hosts {
    all: Vec<Host>,
    order: Order<usize>,
    /// Where the last connection was made to.
    serving: Mutex<Option<(usize, Place)>>,
}

impl FromIterator<Config> for Hosts {
    fn from_iter<T: IntoIterator<Item = Config>>(configs: T) -> Self {
        let all = configs.into_iter().map(|config| Host { config, addresses: Order::default() }).collect();
        Self { all, order: Order::default(), serving: Mutex::default() }
    }
}

impl Hosts {
    /// What to connect to, one for each host.
    pub(super) fn configs(&self) -> impl Iterator<Item = &Config> {
        self.all.iter().map(|host| &host.config)
    }

    /// Notes where a connection was made to, and says whether where the last one was made to is silent. One that refuses is alive, and what is
    /// connected to it may go on.
    fn serves(&self, at: (usize, Place)) -> bool {
        let before = self.serving.lock().unwrap_or_else(PoisonError::into_inner).replace(at);
        before.filter(|before| *before != at).is_some_and(|(host, address)| {
            self.order.is_silent(host) || self.all.get(host).is_some_and(|host| host.addresses.is_silent(address))
        })
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
            let (host, (address, connected)) = loop {
                match hosts.order.ask((0..hosts.all.len()).collect(), HOST_LIMIT, |at| hosts.all[at].begin(&self.tls)).await {
                    Ok(answer) => break answer,
                    Err(Some(error)) => return Err(error),
                    Err(None) => {}
                }
            };
            if hosts.serves((host, address)) {
                tracing::warn!("the database server before this one says nothing any more: what is connected to it is closed");
                self.left.note();
            }
            Ok(connected)
        })
    }
}

impl Host {
    /// Begins a connection with the first address that takes one, and gives that; none of them may have said anything.
    async fn begin(&self, tls: &MakeRustlsConnect) -> Result<(Place, Connected), Option<tokio_postgres::Error>> {
        let places = self.places().await;
        let limit = ADDRESS_LIMIT.min(HOST_LIMIT / u32::try_from(places.len().max(1)).unwrap_or(u32::MAX));
        let one = |place: Place| {
            let mut config = self.config.clone();
            if let Some(address) = place {
                config.hostaddr(address);
            }
            let tls = tls.clone();
            async move { begin(&config, tls).await.map_err(Some) }
        };
        self.addresses.ask(places, limit, one).await
    }

    /// The addresses that its name has now, in an order that does not change.
    async fn places(&self) -> Vec<Place> {
        let config = &self.config;
        let ([Name::Tcp(name)], [port], []) = (config.get_hosts(), config.get_ports(), config.get_hostaddrs()) else {
            return vec![None];
        };
        match timeout(ADDRESS_LIMIT, lookup_host((name.as_str(), *port))).await {
            Ok(Ok(addresses)) => {
                let mut places: Vec<Place> = addresses.map(|address| Some(address.ip())).collect();
                places.sort_unstable();
                places.dedup();
                places
            }
            // It says what is wrong by itself.
            Ok(Err(_)) => vec![None],
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

    /// Asks three, of which those are silent, with so much patience; gives which one answered, and which were asked.
    async fn ask(order: &Order<usize>, silent: &[usize], patience: Duration) -> (Option<usize>, Vec<usize>) {
        let asked = RefCell::new(Vec::new());
        let one = |at: usize| {
            asked.borrow_mut().push(at);
            let is_silent = silent.contains(&at);
            async move { if is_silent { pending().await } else { Ok::<(), Option<()>>(()) } }
        };
        let answer = timeout(patience, order.ask(vec![0, 1, 2], LIMIT, one)).await;
        (answer.ok().map(|answer| answer.unwrap().0), asked.into_inner())
    }

    #[tokio::test]
    async fn whoever_has_less_patience_than_one_that_is_silent_may_take_finds_another_one_the_next_time() {
        let order = Order::default();
        let patience = LIMIT * 3 / 4;
        assert_eq!(ask(&order, &[0, 1], patience).await, (None, vec![0]));
        assert_eq!(ask(&order, &[0, 1], patience).await, (None, vec![1]));
        assert_eq!(ask(&order, &[0, 1], patience).await, (Some(2), vec![2]));
        // The one that has answered last is asked first, until it is silent; then the one of which that is known longest.
        assert_eq!(ask(&order, &[0, 1], patience).await, (Some(2), vec![2]));
        assert_eq!(ask(&order, &[1, 2], patience).await, (None, vec![2]));
        assert_eq!(ask(&order, &[1, 2], patience).await, (Some(0), vec![0]));
    }

    #[tokio::test]
    async fn one_that_was_asked_for_no_time_at_all_is_not_held_to_be_silent() {
        let order = Order::default();
        // Time is up when the second one has just been asked.
        assert_eq!(ask(&order, &[0, 1, 2], LIMIT + LIMIT / 10).await, (None, vec![0, 1]));
        assert_eq!(ask(&order, &[0], LIMIT / 10).await, (Some(1), vec![1]));
    }

    #[tokio::test]
    async fn one_that_is_slow_and_answers_is_not_held_to_be_silent() {
        let order = Order::default();
        let slow = |answer: Result<(), Option<()>>| {
            move |_: usize| async move {
                tokio::time::sleep(LIMIT * 6 / 10).await;
                answer
            }
        };
        assert_eq!(order.ask(vec![0], LIMIT, slow(Err(Some(())))).await, Err(Some(())));
        assert!(!order.is_silent(0), "it has refused");
        // Whoever gives up says nothing of one that has answered somebody else since he asked.
        let (gives_up, answered) = tokio::join!(
            timeout(LIMIT * 8 / 10, order.ask(vec![0], LIMIT, |_: usize| pending::<Result<(), Option<()>>>())),
            order.ask(vec![0], LIMIT, slow(Ok(()))),
        );
        assert!(gives_up.is_err() && answered.is_ok());
        assert!(!order.is_silent(0), "it has answered");
    }

    #[test]
    fn what_is_connected_to_a_server_is_left_once_that_is_silent_and_not_because_it_refuses() {
        let hosts: Hosts = [Config::new(), Config::new()].into_iter().collect();
        let address = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let fall_silent = |order: &Order<Place>, place: Place| order.known().silent.push((place, Instant::now()));
        assert!(!hosts.serves((0, address(1))), "there was none before it");
        assert!(!hosts.serves((1, None)), "the one before it is alive");
        assert!(!hosts.serves((0, address(1))));
        fall_silent(&hosts.all[0].addresses, address(1));
        assert!(!hosts.serves((0, address(1))), "it is the same");
        assert!(hosts.serves((0, address(2))));
        hosts.order.known().silent.push((0, Instant::now()));
        assert!(hosts.serves((1, None)));
    }
}
