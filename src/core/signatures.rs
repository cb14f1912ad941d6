//! Checking what an app has signed (docs/api.md, "Sign"). What is signed is in [`crate::sign`].

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::hmac;

use super::{Core, Error, apps::secret_purpose, clock::Timestamp, ids::AppId, model::App, secret::BearerHash};

/// How far the date of a signature may be from the service's clock.
pub const DATE_WINDOW: Duration = Duration::from_mins(5);
/// How many live secrets an app may have.
pub const MAX_SECRETS: usize = 2;

/// An HMAC-SHA256.
pub type Signature = [u8; 32];

/// The app that stands in where there is none of the name that somebody shows, so that it takes as much work: one that there is.
#[derive(Debug, Default)]
pub struct StandIn(RwLock<Option<AppId>>);

impl StandIn {
    fn get(&self) -> Option<AppId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, app: Option<AppId>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = app;
    }
}

impl Core {
    /// The app of this id, and whether `shown` is the signature of one of the texts with one of its live secrets. An app that is not there
    /// takes as much work as one that is, and an app with one secret as one with two.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], also when a secret cannot be opened.
    pub async fn check_signature(&self, ak: &str, texts: [&[u8]; 2], shown: &Signature) -> Result<(Option<Arc<App>>, bool), Error> {
        let app = match AppId::new(ak) {
            Some(id) => self.store.app(&id).await?,
            None => None,
        };
        if let Some(app) = app {
            let matches = self.signature_matches(Some(app.as_ref()), texts, shown)?;
            return Ok((Some(app), matches));
        }
        let stand_in = match self.stand_in.get() {
            Some(id) => self.store.app(&id).await?,
            None => None,
        };
        let stand_in = match stand_in {
            Some(app) => Some(app),
            None => {
                let first = self.store.apps(None, 1).await?.pop().map(Arc::new);
                self.stand_in.set(first.as_ref().map(|app| app.id.clone()));
                first
            }
        };
        self.signature_matches(stand_in.as_deref(), texts, shown)?;
        Ok((None, false))
    }

    fn signature_matches(&self, app: Option<&App>, texts: [&[u8]; 2], shown: &Signature) -> Result<bool, Error> {
        let secrets = app.map(|app| app.secrets.as_slice()).unwrap_or_default();
        let mut matches = false;
        for slot in 0..MAX_SECRETS {
            let live = secrets.get(slot);
            let secret = match live {
                Some(live) => self.vault.open_sealed(&secret_purpose(&live.id), &live.sealed)?,
                None => self.vault.open_decoy()?,
            };
            let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
            for text in texts {
                // In constant time.
                matches |= hmac::verify(&key, text, shown).is_ok() & live.is_some();
            }
        }
        Ok(matches)
    }

    /// Uses up a signature: gives true once, to one caller, and false ever after, for as long as its date would be taken.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn use_signature(&self, app: &App, signature: &Signature, dated: Timestamp) -> Result<bool, Error> {
        // As long again as it would be taken, should the clock be set back; and no less where it was, and stands still.
        let until = dated.max(self.now()).after(DATE_WINDOW * 2);
        self.store.use_once(BearerHash::of_signature(app.id.as_str(), signature), until).await
    }
}

/// Whether a signature of this date is taken now.
#[must_use]
pub fn is_timely(dated: Timestamp, now: Timestamp) -> bool {
    dated.since(now) <= DATE_WINDOW && now.since(dated) <= DATE_WINDOW
}
