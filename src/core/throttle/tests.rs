use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

use super::*;
use crate::core::clock::{Clock, Timestamp};

/// What comes of something that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

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

fn shown(throttle: &Throttle, name: &str, user: Option<UserId>, source: &Source) -> Result<PasswordTry, Error> {
    now(throttle.password(name, user, source))
}

fn count(throttle: &Throttle, shown: Result<PasswordTry, Error>) -> Result<(), Error> {
    now(throttle.count(&shown?))
}

fn sign_in(throttle: &Throttle, name: &str, source: &Source) {
    let right = shown(throttle, name, None, source).unwrap();
    now(throttle.count(&right)).unwrap();
    now(throttle.was_right(&right)).unwrap();
}

fn signature(throttle: &Throttle, ak: &str, source: &Source, right: bool, guessable: bool) -> Result<(), Error> {
    now(throttle.signature(ak, source, right, guessable))
}

fn throttle(per_name: u32, per_address: u32, per_good_address: u32) -> (Throttle, Stopped) {
    let clock = Stopped::default();
    let free = |number| NonZeroU32::new(number).unwrap();
    let limits = Limits { per_name: free(per_name), per_address: free(per_address), per_good_address: free(per_good_address) };
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
    (Throttle::new(limits, key, Arc::new(Memory::new(Arc::new(clock.clone())))), clock)
}

fn from(address: &str) -> Source {
    Source { address: Some(address.parse().unwrap()), browser: None }
}

fn wrong(throttle: &Throttle, name: &str, source: &Source) -> bool {
    count(throttle, shown(throttle, name, None, source)).is_ok()
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
    sign_in(&throttle, "a", &home);
    assert_eq!((0..10).filter(|_| wrong(&throttle, "a", &elsewhere)).count(), 3);
    assert_eq!((0..10).filter(|_| wrong(&throttle, "b", &home)).count(), 3);
    assert!(shown(&throttle, "a", None, &home).is_ok());
    let user = UserId::from_bytes([1; 16]);
    let browser = Browser::of_session(crate::core::ids::SessionId::from_bytes([2; 16]), user);
    let with_browser = Source { browser: Some(browser), ..elsewhere.clone() };
    assert!(shown(&throttle, "a", Some(user), &with_browser).is_ok());
    assert!(shown(&throttle, "a", None, &with_browser).is_err(), "it is known for its own user alone");
    // There, too, only so many may be wrong.
    assert_eq!((0..10).filter(|_| wrong(&throttle, "a", &home)).count(), 3);
    assert_eq!((0..10).filter(|_| count(&throttle, shown(&throttle, "a", Some(user), &with_browser)).is_ok()).count(), 3);
    clock.pass(HIS_FOR);
    assert!(!shown(&throttle, "a", None, &home).unwrap().known);
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
        shown(&throttle, "a", Some(user), &Source { browser: Some(browser), ..from("10.0.0.1") })
    };
    assert_eq!((0..10).filter(|_| count(&throttle, shown_by(one)).is_ok()).count(), 3);
    assert!(shown_by(other).is_ok());
}

#[test]
fn no_number_of_sign_ins_makes_a_strangers_address_a_users_own_or_a_good_one() {
    let (throttle, _) = throttle(3, 3, 100);
    let address = |n: u32| Source { address: Some(std::net::Ipv4Addr::from(n).into()), browser: None };
    // Every place of the tables is taken several times over.
    for n in 0..10 * u32::try_from(counts::SLOTS).unwrap() {
        let (here, n) = (address(n), n.to_string());
        now(throttle.was_right(&shown(&throttle, "insider", None, &here).unwrap())).unwrap();
        assert!(signature(&throttle, &n, &here, true, false).is_ok());
        assert!(now(throttle.is_new_source(&n, &here)).unwrap());
    }
    for n in 0..1000 {
        let stranger = address(u32::MAX - n);
        assert!(!shown(&throttle, "victim", None, &stranger).unwrap().known);
        for kind in [Kind::GoodForPasswords, Kind::GoodForSignatures] {
            let place = throttle.place(kind, &stranger.network());
            assert!(!now(throttle.left(vec![place])).unwrap().notes(place));
        }
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
        sign_in(&throttle, "a", &source);
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
    sign_in(&throttle, "a", &source);
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
    let Err(Error::TooManyTries { retry_after }) = shown(&throttle, "a", None, &from("10.0.0.1")) else { panic!("it is not limited") };
    assert!(retry_after <= NAME_EVERY + Duration::from_secs(1));
    clock.pass(retry_after);
    assert!(wrong(&throttle, "a", &from("10.0.0.1")));
}

#[test]
fn a_right_signature_passes_whatever_was_counted_unless_it_could_be_guessed() {
    let (throttle, _) = throttle(1000, 3, 6);
    let (attacker, stranger) = (from("10.0.0.1"), from("10.0.0.2"));
    for n in 0..10 {
        assert_eq!(signature(&throttle, "shop", &attacker, false, false).is_ok(), n < 3);
    }
    assert!(signature(&throttle, "shop", &stranger, false, false).is_err(), "the app's own count is used up, too");
    assert!(signature(&throttle, "shop", &stranger, true, true).is_err(), "and a secret that could be guessed is not tried on");
    assert!(signature(&throttle, "shop", &stranger, true, false).is_ok());
    // From there on it is a good address, which only its own high ceiling binds.
    for n in 0..10 {
        assert_eq!(signature(&throttle, "shop", &stranger, false, true).is_ok(), n < 6);
    }
    assert!(signature(&throttle, "shop", &attacker, true, false).is_ok());
}
