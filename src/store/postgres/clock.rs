//! The database's clock: what all replicas go by, so that nothing dies earlier or lives longer at one of them whose own clock is wrong.
//!
//! It is asked every few seconds; between two answers the time since is added, by a clock of the machine that nobody sets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::database::{Columns, Failure, Txn};
use crate::core::clock::{Clock, Timestamp};

/// An answer that took longer says too little.
const MAX_TRIP: Duration = Duration::from_secs(1);

/// The database's clock.
#[derive(Debug)]
pub(super) struct DatabaseClock {
    begun: Instant,
    /// What the database's clock showed when this began, in milliseconds.
    at_begin: AtomicU64,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl DatabaseClock {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), at_begin: AtomicU64::new(0) }
    }

    /// Asks the database what time it is.
    pub(super) async fn set(&self, database: &Txn<'_>) -> Result<(), Failure> {
        let sent = self.begun.elapsed();
        let row = database.query_opt("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS bigint)", &[]).await?;
        let received = self.begun.elapsed();
        let shown: Timestamp = row.as_ref().map_or(Ok(Timestamp::default()), |row| Columns::of(row).next())?;
        let trip = received.saturating_sub(sent);
        let known = self.at_begin.load(Ordering::Acquire);
        if trip > MAX_TRIP && known != 0 {
            return Ok(());
        }
        // It was read half-way, as far as one knows: what differs by less is no news.
        let at_begin = shown.millis().saturating_sub(millis(sent + trip / 2));
        if at_begin.abs_diff(known) > millis(trip / 2) {
            self.at_begin.store(at_begin, Ordering::Release);
        }
        Ok(())
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.at_begin.load(Ordering::Acquire).saturating_add(millis(self.begun.elapsed())))
    }
}
