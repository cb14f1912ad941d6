//! Counts of one process, in a table of fixed size: no number of names and addresses takes more memory.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use super::counts::{Counts, Failure, Kind, Place, SLOTS};
use crate::core::{
    Error,
    clock::{Clock, Timestamp},
};

/// The number of a place, and when its time runs out, in milliseconds.
type Slot = (u64, u64);

/// The table.
pub struct Memory {
    clock: Arc<dyn Clock>,
    table: Mutex<Table>,
}

struct Table {
    slots: Vec<Slot>,
    /// What the clock showed last, and by how much it was set back so far.
    seen: (Timestamp, Duration),
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl Table {
    fn slot(&mut self, place: Place) -> &mut Slot {
        &mut self.slots[place.slot()]
    }

    fn left(&mut self, place: Place, now: Timestamp) -> Duration {
        let (number, until) = *self.slot(place);
        if place.kind.is_note() && number != place.number { Duration::ZERO } else { Timestamp::from_millis(until).since(now) }
    }

    fn set(&mut self, place: Place, now: Timestamp, left: Duration) {
        *self.slot(place) = (place.number, now.after(left).millis());
    }
}

impl Memory {
    /// Begins with nothing.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let table = Table { slots: vec![(0, 0); Kind::NUMBER * SLOTS], seen: (Timestamp::default(), Duration::ZERO) };
        Self { clock, table: Mutex::new(table) }
    }

    /// The table, and the time: the clock's, but that it never goes back. Everybody who has made a mistake would wait until it is again where
    /// it was.
    fn open(&self) -> (MutexGuard<'_, Table>, Timestamp) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        let (last, set_back) = table.seen;
        let set_back = set_back + last.since(now);
        table.seen = (now, set_back);
        (table, now.after(set_back))
    }

    /// How long is left at a place.
    #[must_use]
    pub fn left_at(&self, place: Place) -> Duration {
        let (mut table, now) = self.open();
        table.left(place, now)
    }

    /// Has a note stand for so long.
    pub fn set(&self, place: Place, lifetime: Duration) {
        let (mut table, now) = self.open();
        table.set(place, now, lifetime);
    }
}

#[async_trait]
impl Counts for Memory {
    async fn left(&self, places: &[Place]) -> Result<Vec<Duration>, Error> {
        let (mut table, now) = self.open();
        Ok(places.iter().map(|place| table.left(*place, now)).collect())
    }

    async fn count(&self, failures: &[Failure]) -> Result<(), Error> {
        let (mut table, now) = self.open();
        let next = failures.iter().map(|failure| failure.pace.after_one_more(table.left(failure.place, now)));
        let next = next.collect::<Result<Vec<Duration>, Error>>()?;
        for (failure, left) in failures.iter().zip(next) {
            table.set(failure.place, now, left);
        }
        Ok(())
    }

    async fn take_back(&self, what: &[(Place, Duration)]) -> Result<(), Error> {
        let (mut table, now) = self.open();
        for (place, less) in what {
            let left = table.left(*place, now).saturating_sub(*less);
            table.set(*place, now, left);
        }
        Ok(())
    }

    async fn note(&self, place: Place, lifetime: Duration) -> Result<bool, Error> {
        let (mut table, now) = self.open();
        let stood = !table.left(place, now).is_zero();
        table.set(place, now, lifetime);
        Ok(stood)
    }
}
