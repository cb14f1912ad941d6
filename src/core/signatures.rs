//! Checking what an app has signed (docs/api.md, "Sign"). What is signed is in [`crate::sign`].

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use aws_lc_rs::{constant_time, hmac};
use quick_cache::sync::Cache;

use super::{
    Core, Error,
    apps::secret_purpose,
    clock::Timestamp,
    ids::AppId,
    model::{App, AppSecret},
    secret::BearerHash,
};
use crate::store::OneUse;

/// How far the date of a signature may be from the service's clock.
pub const DATE_WINDOW: Duration = Duration::from_mins(5);
/// How many live secrets an app may have.
pub const MAX_SECRETS: usize = 2;

/// An HMAC-SHA256.
pub type Signature = [u8; 32];

/// Whose records are read besides the app's that signs, so that a refusal takes as much work whoever is refused: an app that is there may be
/// read from memory, and one that is not cannot, so each refusal waits for one of each.
#[derive(Debug)]
pub struct StandIns {
    /// An app that there is, for those who name none.
    somebody: RwLock<Option<AppId>>,
    /// An app that there is none of, for those who name one.
    nobody: AppId,
}

impl StandIns {
    /// Those of a process.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { somebody: RwLock::default(), nobody: AppId::random()? })
    }

    fn somebody(&self) -> Option<AppId> {
        self.somebody.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_somebody(&self, app: Option<AppId>) {
        *self.somebody.write().unwrap_or_else(PoisonError::into_inner) = app;
    }
}

/// How many apps' secrets are kept open.
const OPENED: usize = 1024;

/// The secrets of an app as they are stored, and what they sign with.
struct SigningSecrets {
    sealed: Vec<AppSecret>,
    keys: [hmac::Key; MAX_SECRETS],
}

impl SigningSecrets {
    /// Whether one of the live secrets has signed the text, or the text and a line feed. Takes as long whatever is the case.
    fn match_one(&self, text: &[u8], shown: &Signature) -> bool {
        let mut matches = false;
        for (slot, key) in self.keys.iter().enumerate() {
            let mut without = hmac::Context::with_key(key);
            without.update(text);
            let mut with = without.clone();
            with.update(b"\n");
            for signature in [without.sign(), with.sign()] {
                matches |= constant_time::verify_slices_are_equal(signature.as_ref(), shown).is_ok() & (slot < self.sealed.len());
            }
        }
        matches
    }
}

/// Secrets of apps that have signed lately, opened: to open them at each call takes longer than to check what they sign.
pub struct OpenedSecrets(Cache<AppId, Arc<SigningSecrets>>);

impl Default for OpenedSecrets {
    fn default() -> Self {
        Self(Cache::new(OPENED))
    }
}

impl fmt::Debug for OpenedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenedSecrets(…)")
    }
}

impl Core {
    /// The app of this id, and whether `shown` is the signature of the text, or of the text and a line feed, with one of its live secrets. An
    /// app that is not there takes as much work as one that is, and an app with one secret as one with two.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`], also when a secret cannot be opened.
    pub async fn check_signature(&self, ak: &str, text: &[u8], shown: &Signature) -> Result<(Option<Arc<App>>, bool), Error> {
        let app = match AppId::new(ak) {
            Some(id) => self.store.app(&id).await?,
            None => None,
        };
        if let Some(app) = app {
            let matches = self.signing_secrets(Some(&app))?.match_one(text, shown);
            if !matches {
                self.store.app(&self.stand_ins.nobody).await?;
            }
            return Ok((Some(app), matches));
        }
        let stand_in = match self.stand_ins.somebody() {
            Some(id) => self.store.app(&id).await?,
            None => None,
        };
        let stand_in = match stand_in {
            Some(app) => Some(app),
            None => {
                let first = self.store.apps(None, 1).await?.pop().map(Arc::new);
                self.stand_ins.set_somebody(first.as_ref().map(|app| app.id.clone()));
                first
            }
        };
        self.signing_secrets(stand_in.as_deref())?.match_one(text, shown);
        Ok((None, false))
    }

    /// The secrets of an app, opened; where it has fewer than it may, another one that nobody knows.
    fn signing_secrets(&self, app: Option<&App>) -> Result<Arc<SigningSecrets>, Error> {
        let sealed = app.map(|app| app.secrets.as_slice()).unwrap_or_default();
        let known = app.and_then(|app| self.opened.0.get(&app.id));
        if let Some(known) = known.filter(|known| known.sealed == sealed) {
            return Ok(known);
        }
        let open = |slot: usize| {
            let secret = match sealed.get(slot) {
                Some(live) => self.vault.open_sealed(&secret_purpose(&live.id), &live.sealed)?,
                None => self.vault.open_decoy()?,
            };
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
        };
        let secrets = Arc::new(SigningSecrets { sealed: sealed.to_vec(), keys: [open(0)?, open(1)?] });
        if let Some(app) = app {
            self.opened.0.insert(app.id.clone(), Arc::clone(&secrets));
        }
        Ok(secrets)
    }

    /// What a signature of `app` is used up by: it works once, and is remembered for as long as its date would be taken.
    #[must_use]
    pub fn use_of_signature(&self, app: &App, signature: &Signature, dated: Timestamp) -> OneUse {
        // As long again as it would be taken, should the clock be set back; and no less where it was, and stands still.
        let until = dated.max(self.now()).after(DATE_WINDOW * 2);
        OneUse { hash: BearerHash::of_signature(app.id.as_str(), signature), until }
    }
}

/// Whether a signature of this date is taken now.
#[must_use]
pub fn is_timely(dated: Timestamp, now: Timestamp) -> bool {
    dated.since(now) <= DATE_WINDOW && now.since(dated) <= DATE_WINDOW
}
