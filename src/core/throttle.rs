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
//! The rules are here; what they are judged by is kept by [`Counts`]: in the memory of the one process, or where all replicas see it. Nothing
//! is kept of a failure that is refused, so one address leaves no more than its own count allows.

mod counts;
mod memory;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

pub use self::{
    counts::{Counts, Failure, Kind, Pace, Place, too_many},
    memory::Memory,
};
use super::{Error, browser::Browser, ids::UserId};

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

/// How often each kind of thing may go wrong.
struct Paces {
    address: Pace,
    good_address: Pace,
    name: Pace,
    name_in_a_day: Pace,
}

impl Paces {
    fn new(limits: Limits) -> Self {
        let pace = |every: Duration, free: NonZeroU32| Pace { every, most: every.saturating_mul(free.get()) };
        // Half of a day's comes back in the course of it, so that whoever uses it up has to go on guessing to keep it so.
        let at_once = limits.per_name.clamp(HALF_A_DAY, NAME_A_DAY);
        let come_back = NAME_A_DAY.get().saturating_sub(at_once.get()).max(1);
        Self {
            address: pace(ADDRESS_EVERY, limits.per_address),
            good_address: pace(GOOD_ADDRESS_EVERY, limits.per_good_address),
            name: pace(NAME_EVERY, limits.per_name),
            name_in_a_day: pace(DAY / come_back, at_once),
        }
    }
}

/// Counts what was wrong.
pub struct Throttle {
    /// What the numbers of places are made with.
    key: hmac::Key,
    paces: Paces,
    counts: Arc<dyn Counts>,
    /// The places of apps that sign from where they have signed before.
    signers: Cache<Vec<u8>, Signer>,
}

/// How many of those are remembered at the most.
const SIGNERS: usize = 1024;

/// The notes that there are of an app that signs well from somewhere.
#[derive(Clone, Copy, Debug)]
struct Signer {
    /// That the address is a good one.
    good: Place,
    /// That the app has signed from there.
    source: Place,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Throttle").field(&self.counts).finish()
    }
}

/// A password that somebody shows.
#[derive(Clone, Debug)]
pub struct PasswordTry {
    /// Whether he shows it with a browser that the user is known by, or at an address that is his.
    pub known: bool,
    /// What it is counted as: wrong for the name and from the address, or where he is known, for him there.
    failures: Vec<Failure>,
    /// What is taken back when it turns out right.
    not_so: Vec<(Place, Duration)>,
    /// The note that the address is a good one.
    good: Place,
    /// The note that it is his.
    his: Place,
}

/// What is left at some places.
struct Left(Vec<(Place, Duration)>);

impl Left {
    fn at(&self, place: Place) -> Duration {
        self.0.iter().find(|(other, _)| *other == place).map(|(_, left)| *left).unwrap_or_default()
    }

    fn notes(&self, place: Place) -> bool {
        !self.at(place).is_zero()
    }

    /// Refuses when one more of these would be too much.
    fn ask(&self, failures: &[Failure]) -> Result<(), Error> {
        failures.iter().try_for_each(|failure| failure.pace.after_one_more(self.at(failure.place)).map(|_| ()))
    }
}

impl Throttle {
    /// Judges by what is kept there. All replicas have the same key.
    #[must_use]
    pub fn new(limits: Limits, key: hmac::Key, counts: Arc<dyn Counts>) -> Self {
        Self { key, paces: Paces::new(limits), counts, signers: Cache::new(SIGNERS) }
    }

    fn place(&self, kind: Kind, what: &[u8]) -> Place {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[kind as u8]);
        context.update(what);
        let number = context.sign().as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Place { kind, number }
    }

    async fn left(&self, places: Vec<Place>) -> Result<Left, Error> {
        let left = self.counts.left(&places).await?;
        Ok(Left(places.into_iter().zip(left).collect()))
    }

    /// A password that is shown for `name`, which is that of `user` if he is known.
    ///
    /// # Errors
    /// [`Error::TooManyTries`] when none may be tried; [`Error::StoreUnavailable`].
    pub async fn password(&self, name: &str, user: Option<UserId>, source: &Source) -> Result<PasswordTry, Error> {
        let network = source.network();
        let place_of_his = [name.as_bytes(), &[0], &network].concat();
        let browser = source.browser.as_ref().zip(user).filter(|(browser, user)| browser.knows(*user));
        // Each of its users has a count of his own there.
        let own = browser.map_or_else(|| place_of_his.clone(), |(browser, user)| [browser.id().as_slice(), user.as_bytes()].concat());
        let (his, good) = (self.place(Kind::His, &place_of_his), self.place(Kind::GoodForPasswords, &network));
        let failure = |kind, what: &[u8], pace| Failure { place: self.place(kind, what), pace };
        let Paces { address, good_address, name: by_name, name_in_a_day } = self.paces;
        let failures = [
            failure(Kind::Known, &own, by_name),
            failure(Kind::KnownDay, &own, name_in_a_day),
            failure(Kind::Name, name.as_bytes(), by_name),
            failure(Kind::NameDay, name.as_bytes(), name_in_a_day),
            failure(Kind::PasswordAddress, &network, address),
            failure(Kind::PasswordGoodAddress, &network, good_address),
        ];
        let left = self.left([his, good].into_iter().chain(failures.iter().map(|failure| failure.place)).collect()).await?;
        let [own, own_in_a_day, name, in_a_day, address, good_address] = failures;
        let known = browser.is_some() || left.notes(his);
        let address = if left.notes(good) { good_address } else { address };
        let (account, from) = if known { ([own, own_in_a_day], None) } else { ([name, in_a_day], Some(address)) };
        let failures: Vec<Failure> = account.into_iter().chain(from).collect();
        left.ask(&failures)?;
        let of_account = account.map(|failure| (failure.place, Duration::MAX));
        let not_so = of_account.into_iter().chain(from.map(|failure| (failure.place, failure.pace.every))).collect();
        Ok(PasswordTry { known, failures, not_so, good, his })
    }

    /// Counts a password as wrong, before it is known whether it is: those that are tried at the same time count, too.
    ///
    /// # Errors
    /// As [`Throttle::password`].
    pub async fn count(&self, shown: &PasswordTry) -> Result<(), Error> {
        self.counts.count(&shown.failures).await
    }

    /// Notes that a password that was counted is right.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn was_right(&self, shown: &PasswordTry) -> Result<(), Error> {
        self.counts.take_back(&shown.not_so).await?;
        self.counts.note(shown.good, GOOD_FOR).await?;
        self.counts.note(shown.his, HIS_FOR).await?;
        Ok(())
    }

    /// Counts a sign-in at an authority as one that comes to nothing, before anything is done for it. Whose it would be is not known yet, so
    /// those who have no browser that somebody is known by share the count of their address.
    ///
    /// # Errors
    /// [`Error::TooManyTries`]; [`Error::StoreUnavailable`].
    pub async fn arrival(&self, source: &Source) -> Result<Failure, Error> {
        let from = source.browser.as_ref().map_or_else(|| source.network(), |browser| browser.id().to_vec());
        let failure = Failure { place: self.place(Kind::Arrival, &from), pace: self.paces.address };
        self.counts.count(&[failure]).await.map(|()| failure)
    }

    /// Notes that a sign-in that was counted has come to something.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn has_arrived(&self, counted: Failure) -> Result<(), Error> {
        self.counts.take_back(&[(counted.place, counted.pace.every)]).await
    }

    fn signer(&self, ak: &str, source: &Source) -> Signer {
        let network = source.network();
        let what = [ak.as_bytes(), &[0], &network].concat();
        self.signers.get(&what).unwrap_or_else(|| {
            let signer = Signer { good: self.place(Kind::GoodForSignatures, &network), source: self.place(Kind::Source, &what) };
            self.signers.insert(what, signer);
            signer
        })
    }

    /// Whether the app `ak`, which has signed well, has not signed from there for a day.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn is_new_source(&self, ak: &str, source: &Source) -> Result<bool, Error> {
        Ok(!self.counts.note(self.signer(ak, source).source, GOOD_FOR).await?)
    }

    /// Notes whether a signature of the app `ak` is right, and whether its caller is to know it. `guessable` says that the app has a secret
    /// which is so short that it could be found by trying.
    ///
    /// # Errors
    /// [`Error::TooManyTries`]; [`Error::StoreUnavailable`].
    pub async fn signature(&self, ak: &str, source: &Source, right: bool, guessable: bool) -> Result<(), Error> {
        if right && !guessable {
            return self.counts.note(self.signer(ak, source).good, GOOD_FOR).await.map(|_| ());
        }
        let network = source.network();
        let good = self.place(Kind::GoodForSignatures, &network);
        let address = Failure { place: self.place(Kind::SignatureAddress, &network), pace: self.paces.address };
        let good_address = Failure { place: self.place(Kind::SignatureGoodAddress, &network), pace: self.paces.good_address };
        let app = Failure { place: self.place(Kind::App, ak.as_bytes()), pace: self.paces.address };
        let left = self.left(vec![good, good_address.place, address.place, app.place]).await?;
        let failures: &[Failure] = if left.notes(good) { &[good_address] } else { &[address, app] };
        left.ask(failures)?;
        if right {
            return self.counts.note(good, GOOD_FOR).await.map(|_| ());
        }
        self.counts.count(failures).await
    }
}
