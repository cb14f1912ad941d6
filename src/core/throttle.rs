//! How often somebody may be wrong (NIST SP 800-63B section 5.2.2): guesses are counted per account and per address, and whoever has made
//! too many has to wait.
//!
//! - An account is a user's name or an app's id, known or not.
//! - An address is an IPv4 address or an IPv6 /64. One that a good credential came from within a day has a high ceiling: a plant sits behind
//!   one of them.
//! - A browser that a user is known by, and an address that he himself has signed in well from within a month, has a count of its own for
//!   him, and is bound by no other: nobody elsewhere can use it up.
//! - An app's right signature passes whatever was counted, unless its secret is so short that it could be guessed.
//!
//! The counts are in tables of fixed size, so that no number of names and addresses takes more memory; two that share a place share a count.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{Quota, RateLimiter, clock::Clock as _, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore};

use super::{
    Error,
    browser::Browser,
    clock::{Clock, Timestamp},
    ids::UserId,
};

/// How many places a table has.
const PLACES: usize = 1 << 15;
/// For how long a good credential makes an address a good one.
const GOOD_FOR: Duration = Duration::from_hours(24);

/// How often there is one more wrong password for a name, once the free ones are used up.
const NAME_EVERY: Duration = Duration::from_mins(5);
/// How many wrong passwords in a row one name may have in a day, whatever operators chose (NIST SP 800-63B section 5.2.2).
const NAME_A_DAY: NonZeroU32 = NonZeroU32::new(100).unwrap();
/// How often there is one more failure for an address, once the free ones are used up.
const ADDRESS_EVERY: Duration = Duration::from_secs(10);
/// The same for a good one.
const GOOD_ADDRESS_EVERY: Duration = Duration::from_secs(1);

/// For how long a user's good password makes an address his.
const HIS_FOR: Duration = Duration::from_hours(30 * 24);

/// How many failures are free.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Wrong passwords for one name.
    pub per_name: NonZeroU32,
    /// Failures from one address; signatures of one app from addresses that are not good ones.
    pub per_address: NonZeroU32,
    /// Failures from a good address.
    pub per_good_address: NonZeroU32,
}

/// Where a call comes from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The address that Envoy vouches for, or the peer's.
    pub address: Option<IpAddr>,
    /// The browser, if it is known.
    pub browser: Option<Browser>,
}

impl Source {
    /// The part of the address that one party has for itself.
    fn network(&self) -> [u8; 8] {
        let mut network = [0; 8];
        match self.address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => network[..4].copy_from_slice(&address.octets()),
            Some(IpAddr::V6(address)) => network.copy_from_slice(address.octets().first_chunk::<8>().unwrap_or(&[0xff; 8])),
            None => network = [0xff; 8],
        }
        network
    }
}

impl Source {
    /// The same, in words: `10.0.0.1`, `2001:db8::/64`.
    #[must_use]
    pub fn network_name(&self) -> String {
        match self.address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            None => "unknown".to_owned(),
        }
    }
}

/// A place in a table, and whether what is there is to change.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Cell {
    place: usize,
    changes: bool,
}

/// Numbers by place. Each counter gives them a meaning of its own.
#[derive(Clone)]
struct Table(Arc<[AtomicU64]>);

impl Table {
    fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn at(&self, place: usize) -> &AtomicU64 {
        &self.0[place % PLACES]
    }
}

impl StateStore for Table {
    type Key = Cell;

    fn measure_and_replace<T, F, E>(&self, cell: &Cell, judge: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let number = self.at(cell.place);
        let mut known = number.load(Ordering::Acquire);
        loop {
            let (outcome, next) = judge(Some(known).filter(|known| *known > 0).map(Nanos::from))?;
            if !cell.changes {
                return Ok(outcome);
            }
            match number.compare_exchange_weak(known, next.into(), Ordering::Release, Ordering::Acquire) {
                Ok(_) => return Ok(outcome),
                Err(now) => known = now,
            }
        }
    }
}

/// The service's clock, for the rate limiter.
#[derive(Clone)]
struct Wall(Arc<dyn Clock>);

impl governor::clock::Clock for Wall {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now().millis())
    }
}

/// Counts failures by place.
struct Counter {
    limiter: RateLimiter<Cell, Table, Wall, NoOpMiddleware<Duration>>,
    table: Table,
    every: Duration,
}

impl Counter {
    fn new(free: NonZeroU32, every: Duration, clock: &Wall) -> Self {
        let table = Table::new();
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(free);
        Self { limiter: RateLimiter::new(quota, table.clone(), clock.clone()), table, every }
    }

    fn check(&self, place: usize, changes: bool) -> Result<(), Error> {
        self.limiter.check_key(&Cell { place, changes }).map_err(|until| Error::TooManyTries {
            // In whole seconds, and never too early.
            retry_after: Duration::from_secs(until.wait_time_from(self.limiter.clock().now()).as_secs() + 1),
        })
    }

    /// Whether one more may be wrong.
    fn ask(&self, place: usize) -> Result<(), Error> {
        self.check(place, false)
    }

    /// Counts one.
    fn count(&self, place: usize) -> Result<(), Error> {
        self.check(place, true)
    }

    /// Takes one back that was counted and turned out right.
    fn take_back(&self, place: usize) {
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        let _ = self.table.at(place).fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| Some(known.saturating_sub(every)));
    }

    /// Forgets all.
    fn forget(&self, place: usize) {
        self.table.at(place).store(0, Ordering::Release);
    }
}

/// What is counted of one kind of credential.
struct Kind {
    addresses: Counter,
    good_addresses: Counter,
    /// Until when an address is a good one, in milliseconds since 1970.
    good_until: Table,
}

impl Kind {
    fn new(limits: Limits, clock: &Wall) -> Self {
        Self {
            addresses: Counter::new(limits.per_address, ADDRESS_EVERY, clock),
            good_addresses: Counter::new(limits.per_good_address, GOOD_ADDRESS_EVERY, clock),
            good_until: Table::new(),
        }
    }

    fn is_good(&self, network: usize, now: Timestamp) -> bool {
        now.millis() < self.good_until.at(network).load(Ordering::Acquire)
    }

    fn counter(&self, network: usize, now: Timestamp) -> &Counter {
        if self.is_good(network, now) { &self.good_addresses } else { &self.addresses }
    }

    fn found_good(&self, network: usize, now: Timestamp) {
        self.good_until.at(network).store(now.after(GOOD_FOR).millis(), Ordering::Release);
    }
}

/// Counts what was wrong.
pub struct Throttle {
    places: RandomState,
    clock: Wall,
    passwords: Kind,
    signatures: Kind,
    names: Counter,
    names_by_day: Counter,
    known: Counter,
    /// Until when an address is a user's own, in milliseconds since 1970.
    his_until: Table,
    apps: Counter,
    /// Until when an app's signature from an address is nothing new, in milliseconds since 1970.
    sources: Table,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Throttle")
    }
}

/// A password that somebody shows.
#[derive(Clone, Copy, Debug)]
pub enum PasswordTry {
    /// With a browser that the user is known by, or at an address that is his.
    Known {
        /// The place that it is counted at.
        counted: usize,
        /// The place of the name and address.
        his: usize,
    },
    /// Any other.
    Anywhere {
        /// The place of the name.
        name: usize,
        /// The place of the address.
        network: usize,
        /// The place of both.
        his: usize,
    },
}

impl Throttle {
    /// Counts from nothing.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let clock = Wall(clock);
        Self {
            places: RandomState::new(),
            passwords: Kind::new(limits, &clock),
            signatures: Kind::new(limits, &clock),
            names: Counter::new(limits.per_name, NAME_EVERY, &clock),
            names_by_day: Counter::new(NAME_A_DAY, Duration::from_hours(24), &clock),
            known: Counter::new(limits.per_name, NAME_EVERY, &clock),
            his_until: Table::new(),
            apps: Counter::new(limits.per_address, ADDRESS_EVERY, &clock),
            sources: Table::new(),
            clock,
        }
    }

    fn place(&self, what: &[u8]) -> usize {
        usize::try_from(self.places.hash_one(what)).unwrap_or_default()
    }

    /// A password that is shown for `name`, which is that of `user` if he is known.
    #[must_use]
    pub fn password(&self, name: &str, user: Option<UserId>, source: &Source) -> PasswordTry {
        let network = source.network();
        let his = self.place(&[name.as_bytes(), &[0], &network].concat());
        match (&source.browser, user) {
            (Some(browser), Some(user)) if browser.knows(user) => PasswordTry::Known { counted: self.place(browser.id()), his },
            _ if self.clock.0.now().millis() < self.his_until.at(his).load(Ordering::Acquire) => PasswordTry::Known { counted: his, his },
            _ => PasswordTry::Anywhere { name: self.place(name.as_bytes()), network: self.place(&network), his },
        }
    }

    /// Whether a password may be tried at all.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn ask(&self, shown: PasswordTry) -> Result<(), Error> {
        match shown {
            PasswordTry::Known { counted, .. } => self.known.ask(counted),
            PasswordTry::Anywhere { name, network, .. } => {
                self.names.ask(name)?;
                self.names_by_day.ask(name)?;
                self.passwords.counter(network, self.clock.0.now()).ask(network)
            }
        }
    }

    /// Counts a password as wrong, before it is known whether it is: those that are tried at the same time count, too.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn count(&self, shown: PasswordTry) -> Result<(), Error> {
        self.ask(shown)?;
        match shown {
            PasswordTry::Known { counted, .. } => self.known.count(counted),
            PasswordTry::Anywhere { name, network, .. } => {
                self.names.count(name)?;
                self.names_by_day.count(name)?;
                self.passwords.counter(network, self.clock.0.now()).count(network)
            }
        }
    }

    /// Notes that a password that was counted is right.
    pub fn was_right(&self, shown: PasswordTry) {
        let now = self.clock.0.now();
        let (PasswordTry::Known { his, .. } | PasswordTry::Anywhere { his, .. }) = shown;
        self.his_until.at(his).store(now.after(HIS_FOR).millis(), Ordering::Release);
        match shown {
            PasswordTry::Known { counted, .. } => self.known.forget(counted),
            PasswordTry::Anywhere { name, network, .. } => {
                self.names.forget(name);
                self.names_by_day.forget(name);
                self.passwords.counter(network, now).take_back(network);
                self.passwords.found_good(network, now);
            }
        }
    }

    /// Whether the app `ak` has not signed from there for a day.
    #[must_use]
    pub fn is_new_source(&self, ak: &str, source: &Source) -> bool {
        let now = self.clock.0.now();
        let place = self.place(&[ak.as_bytes(), &[0], &source.network()].concat());
        self.sources.at(place).swap(now.after(GOOD_FOR).millis(), Ordering::AcqRel) < now.millis()
    }

    /// Notes whether a signature of the app `ak` is right, and whether its caller is to know it. `guessable` says that the app has a secret
    /// which is so short that it could be found by trying.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn signature(&self, ak: &str, source: &Source, right: bool, guessable: bool) -> Result<(), Error> {
        let (app, network, now) = (self.place(ak.as_bytes()), self.place(&source.network()), self.clock.0.now());
        let counters: &[(&Counter, usize)] = if self.signatures.is_good(network, now) {
            &[(&self.signatures.good_addresses, network)]
        } else {
            &[(&self.signatures.addresses, network), (&self.apps, app)]
        };
        let may_be_wrong = counters.iter().try_for_each(|(counter, place)| counter.ask(*place));
        if right && (may_be_wrong.is_ok() || !guessable) {
            self.signatures.found_good(network, now);
            return Ok(());
        }
        may_be_wrong?;
        counters.iter().try_for_each(|(counter, place)| counter.count(*place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands until it is moved.
    #[derive(Clone, Debug, Default)]
    struct Stopped(Arc<AtomicU64>);

    impl Clock for Stopped {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_800_000_000_000 + self.0.load(Ordering::Relaxed))
        }
    }

    impl Stopped {
        fn pass(&self, time: Duration) {
            self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        }
    }

    fn throttle(per_name: u32, per_address: u32, per_good_address: u32) -> (Throttle, Stopped) {
        let clock = Stopped::default();
        let free = |number| NonZeroU32::new(number).unwrap();
        let limits = Limits { per_name: free(per_name), per_address: free(per_address), per_good_address: free(per_good_address) };
        (Throttle::new(limits, Arc::new(clock.clone())), clock)
    }

    fn from(address: &str) -> Source {
        Source { address: Some(address.parse().unwrap()), browser: None }
    }

    fn wrong(throttle: &Throttle, name: &str, source: &Source) -> bool {
        throttle.count(throttle.password(name, None, source)).is_ok()
    }

    #[test]
    fn a_name_has_its_free_tries_then_one_each_five_minutes_and_no_more_than_a_hundred_a_day() {
        let (throttle, clock) = throttle(5, 1000, 1000);
        let tries = |name: &str| (0..2000).filter(|n| wrong(&throttle, name, &from(&format!("10.0.{}.{}", n / 200, n % 200)))).count();
        assert_eq!(tries("a"), 5);
        assert_eq!(tries("b"), 5, "another name has its own");
        clock.pass(NAME_EVERY);
        assert_eq!(tries("a"), 1);
        let mut day = 6;
        for _ in 0..(24 * 60 / 5 - 2) {
            clock.pass(NAME_EVERY);
            day += tries("a");
        }
        assert!((95..=101).contains(&day), "{day} in a day");
    }

    #[test]
    fn nobody_elsewhere_keeps_a_user_from_an_address_that_is_his_or_a_browser_that_he_is_known_by() {
        let (throttle, clock) = throttle(3, 1000, 1000);
        let (home, elsewhere) = (from("10.0.0.1"), from("10.0.0.2"));
        let right = throttle.password("a", None, &home);
        throttle.count(right).unwrap();
        throttle.was_right(right);
        assert_eq!((0..10).filter(|_| wrong(&throttle, "a", &elsewhere)).count(), 3);
        assert_eq!((0..10).filter(|_| wrong(&throttle, "b", &home)).count(), 3);
        assert!(throttle.ask(throttle.password("a", None, &home)).is_ok());
        let user = UserId::from_bytes([1; 16]);
        let browser = Browser::of_session(crate::core::ids::SessionId::from_bytes([2; 16]), user);
        let with_browser = Source { browser: Some(browser), ..elsewhere.clone() };
        assert!(throttle.ask(throttle.password("a", Some(user), &with_browser)).is_ok());
        assert!(throttle.ask(throttle.password("a", None, &with_browser)).is_err(), "it is known for its own user alone");
        // There, too, only so many may be wrong.
        assert_eq!((0..10).filter(|_| wrong(&throttle, "a", &home)).count(), 3);
        assert_eq!((0..10).filter(|_| throttle.count(throttle.password("a", Some(user), &with_browser)).is_ok()).count(), 3);
        clock.pass(HIS_FOR);
        assert!(matches!(throttle.password("a", None, &home), PasswordTry::Anywhere { .. }));
    }

    #[test]
    fn a_right_password_makes_the_name_free_again_and_takes_back_its_own_count() {
        let (throttle, _) = throttle(3, 4, 100);
        let source = from("10.0.0.1");
        for _ in 0..20 {
            assert!(wrong(&throttle, "a", &source));
            let right = throttle.password("a", None, &source);
            throttle.count(right).unwrap();
            throttle.was_right(right);
        }
    }

    #[test]
    fn an_address_is_an_ipv4_address_or_a_64_of_ipv6() {
        let (throttle, _) = throttle(1000, 3, 1000);
        let tries = |address: &str| (0..10).filter(|n| wrong(&throttle, &format!("{address}{n}"), &from(address))).count();
        assert_eq!(tries("2001:db8::1"), 3);
        assert_eq!(tries("2001:db8::ffff:1"), 0, "the same /64");
        assert_eq!(tries("2001:db8:0:1::1"), 3);
        assert_eq!(tries("10.0.0.1"), 3);
        assert_eq!(tries("::ffff:10.0.0.1"), 0, "the same address");
        assert_eq!(tries("10.0.0.2"), 3);
    }

    #[test]
    fn an_address_that_somebody_signs_in_well_from_has_a_high_ceiling_for_a_day() {
        let (throttle, clock) = throttle(1000, 3, 50);
        let source = from("10.0.0.1");
        let right = throttle.password("a", None, &source);
        throttle.count(right).unwrap();
        throttle.was_right(right);
        let tries = || (0..100).filter(|n| wrong(&throttle, &format!("n{n}"), &source)).count();
        assert_eq!(tries(), 50);
        clock.pass(GOOD_FOR);
        assert_eq!(tries(), 3);
    }

    #[test]
    fn a_wait_is_told_and_is_enough() {
        let (throttle, clock) = throttle(1, 1000, 1000);
        assert!(wrong(&throttle, "a", &from("10.0.0.1")));
        let Err(Error::TooManyTries { retry_after }) = throttle.ask(throttle.password("a", None, &from("10.0.0.1"))) else {
            panic!("it is not limited")
        };
        assert!(retry_after <= NAME_EVERY + Duration::from_secs(1));
        clock.pass(retry_after);
        assert!(wrong(&throttle, "a", &from("10.0.0.1")));
    }

    #[test]
    fn a_right_signature_passes_whatever_was_counted_unless_it_could_be_guessed() {
        let (throttle, _) = throttle(1000, 3, 6);
        let (attacker, stranger) = (from("10.0.0.1"), from("10.0.0.2"));
        for n in 0..10 {
            assert_eq!(throttle.signature("shop", &attacker, false, false).is_ok(), n < 3);
        }
        assert!(throttle.signature("shop", &stranger, false, false).is_err(), "the app's own count is used up, too");
        assert!(throttle.signature("shop", &stranger, true, true).is_err(), "and a secret that could be guessed is not tried on");
        assert!(throttle.signature("shop", &stranger, true, false).is_ok());
        // From there on it is a good address, which only its own high ceiling binds.
        for n in 0..10 {
            assert_eq!(throttle.signature("shop", &stranger, false, true).is_ok(), n < 6);
        }
        assert!(throttle.signature("shop", &attacker, true, false).is_ok());
    }
}
