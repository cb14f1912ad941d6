//! Checking what an app has signed (docs/api.md, "Sign"). What is signed is in [`crate::sign`].

use std::time::Duration;

use aws_lc_rs::hmac;

use super::{Core, Error, apps::secret_purpose, clock::Timestamp, model::App, secret::BearerHash};

/// How far the date of a signature may be from the service's clock.
pub const DATE_WINDOW: Duration = Duration::from_mins(5);
/// How many live secrets an app may have.
pub const MAX_SECRETS: usize = 2;

/// An HMAC-SHA256.
pub type Signature = [u8; 32];

impl Core {
    /// Whether `shown` is the signature of one of the texts with one of the app's live secrets. An app that is not there takes as much work
    /// as one that is, and an app with one secret as one with two.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when a secret cannot be opened.
    pub fn signature_matches(&self, app: Option<&App>, texts: [&[u8]; 2], shown: &Signature) -> Result<bool, Error> {
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
        // As long again as it would be taken, should the clock be set back.
        let until = dated.after(DATE_WINDOW * 2);
        self.store.use_once(BearerHash::of_signature(app.id.as_str(), signature), until).await
    }
}

/// Whether a signature of this date is taken now.
#[must_use]
pub fn is_timely(dated: Timestamp, now: Timestamp) -> bool {
    dated.since(now) <= DATE_WINDOW && now.since(dated) <= DATE_WINDOW
}
