//! How signing keys come and go.

use super::{Core, Error, model::SigningKey};
use crate::{issuer, store::newest_signing_key};

impl Core {
    /// Takes the keys that the store has now.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn load_signing_keys(&self) -> Result<(), Error> {
        self.issuer.set_keys(&self.store.signing_keys().await?, &self.vault)
    }

    /// Takes the keys that the store has now if that was not done lately: whoever was cut off from it may know nothing of the key that others
    /// sign with, and sign with one that is retired.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub(super) async fn keep_signing_keys(&self) -> Result<(), Error> {
        if self.issuer.has_old_keys() { self.load_signing_keys().await } else { Ok(()) }
    }

    /// Adds a key. It is published at once, and signs when every consumer can have fetched it. The very first signs at once.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn add_signing_key(&self) -> Result<SigningKey, Error> {
        loop {
            let keys = self.store.signing_keys().await?;
            if let Some(key) = self.add_signing_key_to(&keys).await? {
                self.load_signing_keys().await?;
                return Ok(key);
            }
        }
    }

    /// Adds a key to those that there are; none when somebody else has done so since they were read.
    async fn add_signing_key_to(&self, keys: &[SigningKey]) -> Result<Option<SigningKey>, Error> {
        let lead = if keys.is_empty() { std::time::Duration::ZERO } else { self.settings.signing_key_lead };
        let key = issuer::generate(&self.vault, self.now(), lead)?;
        let newest = newest_signing_key(keys).map(|key| key.kid.clone());
        Ok(self.store.add_signing_key(key.clone(), newest).await?.then_some(key))
    }

    /// Retires a key. It stays published until the last token that it signed has expired, and is known until the last session that it
    /// signed a token in has ended.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when no other key could sign.
    pub async fn retire_signing_key(&self, kid: &str) -> Result<SigningKey, Error> {
        let now = self.now();
        let expires_at = now.after(self.issuer.lifetime()).after(issuer::LEEWAY * 2);
        let forgotten_at = expires_at.after(self.settings.session_lifetime);
        let key = self.store.retire_signing_key(kid, now, expires_at, forgotten_at).await?;
        self.load_signing_keys().await?;
        Ok(key)
    }

    /// Adds a key when the newest one has signed for long enough, and retires those that a newer one has taken over from.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn rotate_signing_keys(&self) -> Result<(), Error> {
        let now = self.now();
        let keys = self.store.signing_keys().await?;
        let newest = keys.iter().filter(|key| key.retired_at.is_none()).map(|key| key.activates_at).max();
        if newest.is_none_or(|newest| now.since(newest) >= self.settings.signing_key_lifetime) {
            // Of several replicas that see to it at the same time, one adds a key.
            if let Some(key) = self.add_signing_key_to(&keys).await? {
                tracing::info!(kid = %key.kid, activates_at = %key.activates_at, "a new signing key is published");
            }
        }
        for key in &keys {
            let superseded = keys.iter().any(|other| {
                other.retired_at.is_none()
                    && other.activates_at <= now
                    && (other.activates_at, other.created_at) > (key.activates_at, key.created_at)
            });
            if superseded && key.retired_at.is_none() {
                self.retire_signing_key(&key.kid).await?;
                tracing::info!(kid = %key.kid, "a signing key is retired: a newer one signs");
            }
        }
        self.load_signing_keys().await
    }
}
