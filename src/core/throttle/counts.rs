//! What is kept of failures and of good credentials: at each place a time that runs out.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::core::Error;

/// What is kept at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Wrong passwords from an address.
    PasswordAddress,
    /// The same from a good one.
    PasswordGoodAddress,
    /// Wrong passwords for a name.
    Name,
    /// The same, in a day.
    NameDay,
    /// Wrong passwords for a user where he is known.
    Known,
    /// The same, in a day.
    KnownDay,
    /// Wrong signatures from an address.
    SignatureAddress,
    /// The same from a good one.
    SignatureGoodAddress,
    /// Wrong signatures of an app.
    App,
    /// Sign-ins at authorities that came to nothing, from an address or a browser that somebody is known by.
    Arrival,
    /// A note that an address is a good one for passwords.
    GoodForPasswords,
    /// A note that an address is a good one for signatures.
    GoodForSignatures,
    /// A note that a user has signed in well from an address.
    His,
    /// A note that an app has signed well from an address.
    Source,
}

/// How many slots there are for each kind.
pub(super) const SLOTS: usize = 1 << 15;

impl Kind {
    /// How many there are.
    pub const NUMBER: usize = Self::Source as usize + 1;

    /// Whether it makes a count milder, or speaks of one party alone: a place of this kind must never be taken for another one.
    #[must_use]
    pub const fn is_note(self) -> bool {
        matches!(self, Self::GoodForPasswords | Self::GoodForSignatures | Self::His | Self::Source)
    }
}

/// Where something is kept. The same at all replicas, and found by nobody who does not have the root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What is kept there.
    pub kind: Kind,
    /// Which one of this kind it is; another kind's is never the same.
    pub number: u64,
}

impl Place {
    /// Where it is among all the slots that there are, of which two places may share one: no number of names and addresses takes more room.
    /// Two that share one share a count; a note must never be taken for another.
    #[must_use]
    pub fn slot(self) -> usize {
        self.kind as usize * SLOTS + usize::try_from(self.number % SLOTS as u64).unwrap_or_default()
    }
}

/// How often something may go wrong: so many times at once, and then once in a while. This is the generic cell rate algorithm: what is kept
/// is how long it takes until all is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How often there is one more.
    pub every: Duration,
    /// The most that may be left: so many times that.
    pub most: Duration,
}

impl Pace {
    /// What is left once one more has gone wrong.
    ///
    /// # Errors
    /// [`Error::TooManyTries`].
    pub fn after_one_more(self, left: Duration) -> Result<Duration, Error> {
        // More than there can be is left by a clock that was set back since, and forgiven.
        let left = if left > self.most { Duration::ZERO } else { left } + self.every;
        if left <= self.most { Ok(left) } else { Err(too_many(left.saturating_sub(self.most))) }
    }
}

/// In whole seconds, and never too early.
#[must_use]
pub fn too_many(wait: Duration) -> Error {
    Error::TooManyTries { retry_after: Duration::from_secs(wait.as_secs() + 1) }
}

/// Something that may go wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it is counted.
    pub place: Place,
    /// How often it may be.
    pub pace: Pace,
}

/// Keeps the times. Each method is one atomic step. Nothing of it is promised to anybody: when it is lost, all is free again.
#[async_trait]
pub trait Counts: fmt::Debug + Send + Sync {
    /// How long is left at each of these places.
    async fn left(&self, places: &[Place]) -> Result<Vec<Duration>, Error>;

    /// Counts one more failure at each of these places.
    ///
    /// # Errors
    /// [`Error::TooManyTries`] when it would be too much at one of them: then none is counted.
    async fn count(&self, failures: &[Failure]) -> Result<(), Error>;

    /// Takes so much from what is left at these places, or all that there is.
    async fn take_back(&self, what: &[(Place, Duration)]) -> Result<(), Error>;

    /// Has a note stand from now on for so long, or a little less, and says whether it stood before.
    async fn note(&self, place: Place, lifetime: Duration) -> Result<bool, Error>;
}
