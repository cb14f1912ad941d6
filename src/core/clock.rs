//! Time, as an argument.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

/// A moment: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The moment that is so many milliseconds after 1970 began.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970 began.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970 began.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The moment that is `duration` later.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; nothing when the clock was set back in between.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time now, by which is judged what has expired.
    fn now(&self) -> Timestamp;

    /// The time that the machine shows, which others compare theirs with.
    fn shown(&self) -> Timestamp {
        self.now()
    }
}

/// How far a clock may be set back without anything coming back to life. Beyond that it was wrong before, and waiting for it would keep
/// the service from working for longer than it is worth.
pub const MOST_SET_BACK: Duration = Duration::from_hours(2);

/// A clock that stands still when the machine's is set back, until that has caught up: what has expired stays so.
#[derive(Debug)]
pub struct SteadyClock<C> {
    machine: C,
    latest: AtomicU64,
}

impl<C: Clock> SteadyClock<C> {
    /// A clock that has shown `latest` before.
    pub fn new(machine: C, latest: Timestamp) -> Self {
        Self { machine, latest: AtomicU64::new(latest.0) }
    }
}

impl<C: Clock> Clock for SteadyClock<C> {
    fn now(&self) -> Timestamp {
        let shown = self.machine.now();
        let latest = Timestamp(self.latest.fetch_max(shown.0, Ordering::Relaxed)).max(shown);
        if latest.since(shown) <= MOST_SET_BACK {
            return latest;
        }
        self.latest.store(shown.0, Ordering::Relaxed);
        shown
    }

    fn shown(&self) -> Timestamp {
        self.machine.now()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Debug, Default)]
    struct Machine(Arc<Mutex<u64>>);

    impl Machine {
        fn shows(&self, seconds: u64) {
            *self.0.lock().unwrap() = seconds;
        }
    }

    impl Clock for Machine {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(*self.0.lock().unwrap() * 1000)
        }
    }

    #[test]
    fn a_clock_that_is_set_back_stands_still_until_it_has_caught_up_unless_it_was_far_off() {
        let machine = Machine::default();
        let clock = SteadyClock::new(machine.clone(), Timestamp::from_millis(1_000_000_000));
        for (shown, now) in
            [(1_000_001, 1_000_001), (996_401, 1_000_001), (1_000_000, 1_000_001), (1_000_002, 1_000_002), (992_801, 992_801)]
        {
            machine.shows(shown);
            assert_eq!((clock.now().seconds(), clock.shown().seconds()), (now, shown));
        }
    }
}
