//! States of sign-ins at authorities that are used up. Anybody can begin a sign-in and come back with a code that he has made up, so the
//! store keeps only so many of those that nothing came of.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    core::{Error, clock::Timestamp},
    store::{OneUse, Store},
};

/// How many are kept that nothing came of. A place among those who wait for an authority is needed for each further one.
const KEPT: usize = 256;

/// Those that nothing came of, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<VecDeque<OneUse>>);

impl Uses {
    fn of_nothing(&self) -> MutexGuard<'_, VecDeque<OneUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest one, if there is no room for one more.
    fn too_many(&self, now: Timestamp) -> Option<OneUse> {
        let mut uses = self.of_nothing();
        uses.retain(|using| using.until > now);
        if uses.len() < KEPT { None } else { uses.pop_front() }
    }

    /// Uses a state up; none when it was used before. This goes on when its caller has gone, or what is stored would be counted nowhere.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub(super) async fn use_up(
        self: &Arc<Self>,
        store: Arc<dyn Store>,
        place: OwnedSemaphorePermit,
        using: OneUse,
        now: Timestamp,
    ) -> Result<Option<Used>, Error> {
        let uses = Arc::clone(self);
        let work = async move {
            while let Some(oldest) = uses.too_many(now) {
                store.forget_use(&oldest.hash).await?;
            }
            Ok(store.use_once(using).await?.then(|| Used { using, uses: Some(uses), _place: place }))
        };
        tokio::spawn(work).await.map_err(|error| Error::Internal(error.to_string()))?
    }
}

/// A state that is used up, and that nothing came of if no more is said.
#[derive(Debug)]
pub(super) struct Used {
    using: OneUse,
    uses: Option<Arc<Uses>>,
    /// Among those who wait for authorities.
    _place: OwnedSemaphorePermit,
}

impl Used {
    /// Somebody is signed in: this one is remembered for as long as it lives.
    pub(super) fn for_good(mut self) {
        self.uses = None;
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        if let Some(uses) = self.uses.take() {
            uses.of_nothing().push_back(self.using);
        }
    }
}
