//! Rotating a refresh token (RFC 9700 section 4.14.2; docs/api.md, "Refresh").

use super::{Core, Error, Tokens};
use crate::store::{OneUse, Refresher, Rotation};

impl Core {
    /// Uses a refresh token. A credential that works once is used up by it.
    ///
    /// # Errors
    /// [`Error::RefreshTokenRefused`]; [`Error::RefreshTokenReplayed`] when it was used before, too long ago for a retry: then its family
    /// has been ended; [`Error::CredentialRequired`] when the app has to show its own credential;
    /// [`Error::CredentialRefused`] when the credential was used before.
    pub async fn refresh(&self, refresh_token: &str, by: Refresher, using: Option<OneUse>) -> Result<Tokens, Error> {
        let (family, generation) = self.vault.read_refresh_token(refresh_token).ok_or(Error::RefreshTokenRefused)?;
        self.keep_signing_keys().await?;
        let now = self.now();
        let rotation = Rotation { family, generation, grace: self.settings.refresh_grace };
        let grant = self.store.rotate_refresh_token(rotation, by, using, now).await?;
        self.tokens(grant, now)
    }
}
