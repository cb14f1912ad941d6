//! What apps still do that they should do no more: deprecated operations, and signatures without a date. So that operators know whom to
//! talk to before they switch something off.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{Core, Error, clock::Timestamp, ids::AppId};

/// How often something was done, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// So many times.
    pub times: u64,
    /// The last time; 1970 when never.
    pub last_at: Timestamp,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.times = self.times.saturating_add(other.times);
        self.last_at = self.last_at.max(other.last_at);
    }
}

/// What one app does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppUsage {
    /// Its calls of deprecated operations, by the operation's short name.
    pub deprecated: BTreeMap<String, Count>,
    /// Its signatures without a date that was checked.
    pub undated: Count,
}

impl AppUsage {
    /// Adds what was counted besides.
    pub fn add(&mut self, other: Self) {
        for (operation, count) in other.deprecated {
            self.deprecated.entry(operation).or_default().add(count);
        }
        self.undated.add(other.undated);
    }
}

/// What was counted and is not stored yet.
#[derive(Debug, Default)]
pub struct Usage(Mutex<HashMap<AppId, AppUsage>>);

impl Usage {
    fn note(&self, app: &AppId, add: impl FnOnce(&mut AppUsage)) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !counted.contains_key(app) {
            counted.insert(app.clone(), AppUsage::default());
        }
        if let Some(usage) = counted.get_mut(app) {
            add(usage);
        }
    }

    /// Notes that an app has called a deprecated operation.
    pub fn note_deprecated(&self, app: &AppId, operation: &str, now: Timestamp) {
        self.note(app, |usage| {
            let count = Count { times: 1, last_at: now };
            match usage.deprecated.get_mut(operation) {
                Some(counted) => counted.add(count),
                None => drop(usage.deprecated.insert(operation.to_owned(), count)),
            }
        });
    }

    /// Notes that an app has signed without a date.
    pub fn note_undated(&self, app: &AppId, now: Timestamp) {
        self.note(app, |usage| usage.undated.add(Count { times: 1, last_at: now }));
    }
}

impl Core {
    /// Stores what was counted. What cannot be stored now is kept for the next time.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn store_usage(&self) -> Result<(), Error> {
        let counted = std::mem::take(&mut *self.usage.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counted.is_empty() {
            return Ok(());
        }
        let mut taken = Taken { usage: &self.usage, counted };
        self.store.add_usage(taken.counted.clone().into_iter().collect()).await?;
        taken.counted.clear();
        Ok(())
    }
}

/// What was taken to be stored. It goes back when it was not, also when nobody waits for it any more.
struct Taken<'a> {
    usage: &'a Usage,
    counted: HashMap<AppId, AppUsage>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        for (app, usage) in self.counted.drain() {
            self.usage.note(&app, |counted| counted.add(usage));
        }
    }
}
