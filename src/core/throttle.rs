//! How often somebody may be wrong (NIST SP 800-63B section 5.2.2): guesses are counted per account and per address, and whoever has made
//! too many has to wait.
//!
//! - An account is a user's name or an app's id, known or not.
//! - An address is an IPv4 address or an IPv6 /64. One that a good credential came from within a day has a high ceiling: a plant sits behind
//!   one of them.
//! - A browser that a user is known by, and an address that he himself has signed in well from within a month, has a count of its own for
//!   him, and is bound by no other: nobody elsewhere can use it up, nor can another user of the same browser.
//! - An app's right signature passes whatever was counted, unless its secret is so short that it could be guessed.
//!
//! All of it is in tables of fixed size, so that no number of names and addresses takes more memory. Two that share a place share a count,
//! which costs a wait at worst; what makes a count milder (a good address, a user's own) is never taken for another's.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, PoisonError,
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
const PLACES: u64 = 1 << 15;
/// For how long a good credential makes an address a good one.
const GOOD_FOR: Duration = Duration::from_hours(24);

/// How often there is one more wrong password for a name, once the free ones are used up.
const NAME_EVERY: Duration = Duration::from_mins(5);
/// How many wrong passwords in a row one name may have in any day, whatever operators chose (NIST SP 800-63B section 5.2.2).
const NAME_A_DAY: NonZeroU32 = NonZeroU32::new(100).unwrap();
const HALF_A_DAY: NonZeroU32 = NonZeroU32::new(50).unwrap();
const DAY: Duration = Duration::from_hours(24);
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
    fn network(&self) -> Vec<u8> {
        // Four bytes or eight, so that no address is taken for one of the other kind.
        match self.address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => address.octets().to_vec(),
            Some(IpAddr::V6(address)) => address.octets()[..8].to_vec(),
            None => Vec::new(),
        }
    }

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
    place: u64,
    changes: bool,
}

/// Numbers by place. Each counter gives them a meaning of its own.
#[derive(Clone)]
struct Table(Arc<[AtomicU64]>);

impl Table {
    fn new() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    fn at(&self, place: u64) -> &AtomicU64 {
        &self.0[usize::try_from(place % PLACES).unwrap_or_default()]
    }
}

/// What is known for a while, by place. A place holds one note: the next one takes it over, and is never taken for it.
struct Notes(Table);

impl Notes {
    /// The part of a place that tells it from others which share its number in the table. The rest holds the time, until the year 2097.
    const TAG: u64 = !0 << 26;

    fn minutes(at: Timestamp) -> u64 {
        at.seconds() / 60
    }

    fn is(note: u64, place: u64, now: Timestamp) -> bool {
        note & Self::TAG == place & Self::TAG && Self::minutes(now) < note & !Self::TAG
    }

    fn has(&self, place: u64, now: Timestamp) -> bool {
        Self::is(self.0.at(place).load(Ordering::Acquire), place, now)
    }

    /// Notes it, and says whether it was noted before.
    fn renew(&self, place: u64, now: Timestamp, lifetime: Duration) -> bool {
        let note = place & Self::TAG | Self::minutes(now.after(lifetime)) & !Self::TAG;
        Self::is(self.0.at(place).swap(note, Ordering::AcqRel), place, now)
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

/// The service's clock, but that it never goes back: everybody who has made a mistake would wait until it is again where it was.
#[derive(Clone)]
struct Steady {
    clock: Arc<dyn Clock>,
    /// What it showed last, and by how much it was set back so far.
    seen: Arc<Mutex<(Timestamp, Duration)>>,
}

impl Steady {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, seen: Arc::default() }
    }

    fn time(&self) -> Timestamp {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, set_back) = &mut *seen;
        let now = self.clock.now();
        *set_back += last.since(now);
        *last = now;
        now.after(*set_back)
    }
}

impl governor::clock::Clock for Steady {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.time().millis())
    }
}

/// Counts failures by place.
struct Counter {
    limiter: RateLimiter<Cell, Table, Steady, NoOpMiddleware<Duration>>,
    table: Table,
    every: Duration,
}

impl Counter {
    fn new(free: NonZeroU32, every: Duration, clock: &Steady) -> Self {
        let table = Table::new();
        let quota = Quota::with_period(every).unwrap_or(Quota::per_second(NonZeroU32::MIN)).allow_burst(free);
        Self { limiter: RateLimiter::new(quota, table.clone(), clock.clone()), table, every }
    }

    fn check(&self, place: u64, changes: bool) -> Result<(), Error> {
        self.limiter.check_key(&Cell { place, changes }).map_err(|until| Error::TooManyTries {
            // In whole seconds, and never too early.
            retry_after: Duration::from_secs(until.wait_time_from(self.limiter.clock().now()).as_secs() + 1),
        })
    }

    /// Whether one more may be wrong.
    fn ask(&self, place: u64) -> Result<(), Error> {
        self.check(place, false)
    }

    /// Counts one.
    fn count(&self, place: u64) -> Result<(), Error> {
        self.check(place, true)
    }

    /// Takes one back that was counted and turned out right.
    fn take_back(&self, place: u64) {
        let every = u64::try_from(self.every.as_nanos()).unwrap_or(u64::MAX);
        let _ = self.table.at(place).fetch_update(Ordering::AcqRel, Ordering::Acquire, |known| Some(known.saturating_sub(every)));
    }

    /// Forgets all.
    fn forget(&self, place: u64) {
        self.table.at(place).store(0, Ordering::Release);
    }
}

/// What is counted of one kind of credential.
struct Kind {
    addresses: Counter,
    good_addresses: Counter,
    /// The good addresses.
    good: Notes,
}

impl Kind {
    fn new(limits: Limits, clock: &Steady) -> Self {
        Self {
            addresses: Counter::new(limits.per_address, ADDRESS_EVERY, clock),
            good_addresses: Counter::new(limits.per_good_address, GOOD_ADDRESS_EVERY, clock),
            good: Notes(Table::new()),
        }
    }

    fn is_good(&self, network: u64, now: Timestamp) -> bool {
        self.good.has(network, now)
    }

    fn counter(&self, network: u64, now: Timestamp) -> &Counter {
        if self.is_good(network, now) { &self.good_addresses } else { &self.addresses }
    }

    fn found_good(&self, network: u64, now: Timestamp) {
        self.good.renew(network, now, GOOD_FOR);
    }
}

/// The wrong passwords of accounts.
struct Accounts {
    spaced: Counter,
    by_day: Counter,
}

impl Accounts {
    fn new(limits: Limits, clock: &Steady) -> Self {
        // Half of a day's comes back in the course of it, so that whoever uses it up has to go on guessing to keep it so.
        let at_once = limits.per_name.clamp(HALF_A_DAY, NAME_A_DAY);
        let come_back = NAME_A_DAY.get().saturating_sub(at_once.get()).max(1);
        Self { spaced: Counter::new(limits.per_name, NAME_EVERY, clock), by_day: Counter::new(at_once, DAY / come_back, clock) }
    }

    fn ask(&self, place: u64) -> Result<(), Error> {
        self.spaced.ask(place)?;
        self.by_day.ask(place)
    }

    fn count(&self, place: u64) -> Result<(), Error> {
        self.spaced.count(place)?;
        self.by_day.count(place)
    }

    fn forget(&self, place: u64) {
        self.spaced.forget(place);
        self.by_day.forget(place);
    }
}

/// Counts what was wrong.
pub struct Throttle {
    places: RandomState,
    clock: Steady,
    passwords: Kind,
    signatures: Kind,
    names: Accounts,
    /// The same where the user is known.
    known: Accounts,
    /// The names and addresses of users who have signed in well from there.
    his: Notes,
    apps: Counter,
    /// The apps and addresses that a signature was right from.
    sources: Notes,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Throttle")
    }
}

/// A password that somebody shows.
#[derive(Clone, Copy, Debug)]
pub struct PasswordTry {
    /// Whether he shows it with a browser that the user is known by, or at an address that is his.
    pub known: bool,
    /// The place that it is counted at: that of the name, or where he is known, that of him there.
    account: u64,
    /// The place of the address.
    network: u64,
    /// The place of the name and address.
    his: u64,
}

impl Throttle {
    /// Counts from nothing.
    #[must_use]
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let clock = Steady::new(clock);
        Self {
            places: RandomState::new(),
            passwords: Kind::new(limits, &clock),
            signatures: Kind::new(limits, &clock),
            names: Accounts::new(limits, &clock),
            known: Accounts::new(limits, &clock),
            his: Notes(Table::new()),
            apps: Counter::new(limits.per_address, ADDRESS_EVERY, &clock),
            sources: Notes(Table::new()),
            clock,
        }
    }

    fn place(&self, what: &[u8]) -> u64 {
        self.places.hash_one(what)
    }

    /// A password that is shown for `name`, which is that of `user` if he is known.
    #[must_use]
    pub fn password(&self, name: &str, user: Option<UserId>, source: &Source) -> PasswordTry {
        let network = source.network();
        let his = self.place(&[name.as_bytes(), &[0], &network].concat());
        let browser = source.browser.as_ref().zip(user).filter(|(browser, user)| browser.knows(*user));
        let known = match browser {
            // Each of its users has a count of his own there.
            Some((browser, user)) => Some(self.place(&[browser.id().as_slice(), user.as_bytes()].concat())),
            None => Some(his).filter(|his| self.his.has(*his, self.clock.time())),
        };
        let account = known.unwrap_or_else(|| self.place(name.as_bytes()));
        PasswordTry { known: known.is_some(), account, network: self.place(&network), his }
    }

    const fn accounts(&self, shown: PasswordTry) -> &Accounts {
        if shown.known { &self.known } else { &self.names }
    }

    /// Whether a password may be tried at all.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn ask(&self, shown: PasswordTry) -> Result<(), Error> {
        self.accounts(shown).ask(shown.account)?;
        if shown.known { Ok(()) } else { self.passwords.counter(shown.network, self.clock.time()).ask(shown.network) }
    }

    /// Counts a password as wrong, before it is known whether it is: those that are tried at the same time count, too.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn count(&self, shown: PasswordTry) -> Result<(), Error> {
        self.ask(shown)?;
        self.accounts(shown).count(shown.account)?;
        if shown.known { Ok(()) } else { self.passwords.counter(shown.network, self.clock.time()).count(shown.network) }
    }

    /// Notes that a password that was counted is right.
    pub fn was_right(&self, shown: PasswordTry) {
        let now = self.clock.time();
        self.accounts(shown).forget(shown.account);
        if !shown.known {
            self.passwords.counter(shown.network, now).take_back(shown.network);
        }
        self.passwords.found_good(shown.network, now);
        self.his.renew(shown.his, now, HIS_FOR);
    }

    /// Whether the app `ak` has not signed from there for a day.
    #[must_use]
    pub fn is_new_source(&self, ak: &str, source: &Source) -> bool {
        let place = self.place(&[ak.as_bytes(), &[0], &source.network()].concat());
        !self.sources.renew(place, self.clock.time(), GOOD_FOR)
    }

    /// Notes whether a signature of the app `ak` is right, and whether its caller is to know it. `guessable` says that the app has a secret
    /// which is so short that it could be found by trying.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn signature(&self, ak: &str, source: &Source, right: bool, guessable: bool) -> Result<(), Error> {
        let (app, network, now) = (self.place(ak.as_bytes()), self.place(&source.network()), self.clock.time());
        let counters: &[(&Counter, u64)] = if self.signatures.is_good(network, now) {
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

        fn set_back(&self, time: Duration) {
            self.0.fetch_sub(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        }
    }

    fn sign_in(throttle: &Throttle, name: &str, source: &Source) {
        let right = throttle.password(name, None, source);
        throttle.count(right).unwrap();
        throttle.was_right(right);
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
        assert!(!throttle.password("a", None, &home).known);
    }

    #[test]
    fn where_a_user_is_known_there_are_no_more_than_a_hundred_wrong_passwords_a_day_either() {
        let (throttle, clock) = throttle(5, 1000, 1000);
        let home = from("10.0.0.1");
        sign_in(&throttle, "a", &home);
        for _ in 0..3 {
            let mut day = 0;
            for _ in 0..24 * 60 / 5 {
                clock.pass(NAME_EVERY);
                day += (0..10).filter(|_| wrong(&throttle, "a", &home)).count();
            }
            assert!((45..=101).contains(&day), "{day} in a day");
        }
    }

    #[test]
    fn a_user_of_a_shared_browser_does_not_pay_for_another_ones_mistakes() {
        let (throttle, _) = throttle(3, 1000, 1000);
        let (one, other) = (UserId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let shown_by = |user| {
            let browser = Browser::of_session(crate::core::ids::SessionId::from_bytes([3; 16]), user);
            throttle.password("a", Some(user), &Source { browser: Some(browser), ..from("10.0.0.1") })
        };
        assert_eq!((0..10).filter(|_| throttle.count(shown_by(one)).is_ok()).count(), 3);
        assert!(throttle.ask(shown_by(other)).is_ok());
    }

    #[test]
    fn no_number_of_sign_ins_makes_a_strangers_address_a_users_own_or_a_good_one() {
        let (throttle, _) = throttle(3, 3, 100);
        let address = |n: u32| Source { address: Some(std::net::Ipv4Addr::from(n).into()), browser: None };
        // Every place of the tables is taken several times over.
        for n in 0..10 * u32::try_from(PLACES).unwrap() {
            let (here, n) = (address(n), n.to_string());
            throttle.was_right(throttle.password("insider", None, &here));
            assert!(throttle.signature(&n, &here, true, false).is_ok());
            assert!(throttle.is_new_source(&n, &here));
        }
        for n in 0..1000 {
            let stranger = address(u32::MAX - n);
            assert!(!throttle.password("victim", None, &stranger).known);
            let (network, now) = (throttle.place(&stranger.network()), throttle.clock.time());
            assert!(!throttle.passwords.is_good(network, now) && !throttle.signatures.is_good(network, now));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nobody_wait_longer() {
        let (throttle, clock) = throttle(1, 1000, 1000);
        clock.pass(Duration::from_hours(48));
        assert!(wrong(&throttle, "a", &from("10.0.0.1")));
        // To before the service has started.
        clock.set_back(Duration::from_hours(48));
        assert!(!wrong(&throttle, "a", &from("10.0.0.1")));
        assert!(wrong(&throttle, "b", &from("10.0.0.1")));
        for _ in 0..3 {
            clock.pass(NAME_EVERY);
            assert!(wrong(&throttle, "a", &from("10.0.0.1")));
            assert!(wrong(&throttle, "b", &from("10.0.0.1")));
        }
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
        assert_eq!(tries("a00:2::1"), 3, "not the IPv4 address of the same bytes");
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
        clock.pass(GOOD_FOR / 2);
        // It stays one as long as people sign in well from it, those who are known there, too.
        sign_in(&throttle, "a", &source);
        clock.pass(GOOD_FOR / 2 + GOOD_FOR / 4);
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
