//! Redeeming a code (RFC 6749 section 4.1.3; docs/api.md, "Token").

use super::{Core, Error, Tokens, ids::AppId, secret::BearerHash};
use crate::store::OneUse;

/// The longest `logoutUri` that is kept, in bytes.
const MAX_LOGOUT_URI: usize = 1024;

impl Core {
    /// Redeems a code for `app`, which has shown its credential: one that works once is used up by it.
    ///
    /// # Errors
    /// [`Error::CodeRefused`]; [`Error::CodeReplayed`] when it was used before: then what the first use gave out has been ended;
    /// [`Error::CredentialRefused`] when the credential was used before.
    pub async fn exchange(&self, app: &AppId, code: &str, mut logout_uri: String, using: Option<OneUse>) -> Result<Tokens, Error> {
        // Whatever a deployed app sends here, its exchange does not fail for it.
        if logout_uri.len() > MAX_LOGOUT_URI {
            tracing::warn!(app = %app, bytes = logout_uri.len(), "a logoutUri is too long to be kept: the app will not be told of the sign-out");
            logout_uri.clear();
        }
        self.keep_signing_keys().await?;
        let now = self.now();
        let grant = self.store.redeem_code(&BearerHash::of_code(code), app, logout_uri, using, now).await?;
        self.note_logout_uri(&grant.family, grant.session.id).await;
        self.tokens(grant, now)
    }
}
