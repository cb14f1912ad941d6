//! What an access token stands for, and who may know (docs/api.md, "Asking about a token").

use std::sync::Arc;

use super::{
    Core, Error,
    ids::{AppId, SessionId},
    model::Grant,
};
use crate::issuer::Presented;

/// Who asks about a token, or wants to end it.
#[derive(Clone, Debug)]
pub struct Asker {
    /// An app may ask about tokens that were given to it.
    pub app: Option<AppId>,
    /// A user may ask about tokens of his session.
    pub session: Option<SessionId>,
    /// And whoever has the right to about all.
    pub any: bool,
}

impl Asker {
    fn may_ask(&self, token: &Presented) -> bool {
        self.any || self.app.as_ref() == Some(&token.app) || self.session == Some(token.family.session)
    }
}

impl Core {
    /// Reads an access token that one of our keys has signed; none when none has.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when that is not known: somebody else may have a new key.
    pub async fn read_token(&self, access_token: &str) -> Result<Option<Arc<Presented>>, Error> {
        let read = self.issuer.read(access_token);
        if read.is_none() && self.issuer.has_old_keys() {
            self.keep_signing_keys().await?;
            return Ok(self.issuer.read(access_token));
        }
        Ok(read)
    }

    /// What an access token stands for, if it is good: we signed it, its times are right, and everything that it hangs on is alive. The
    /// one rule for every operation that takes one.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn inspect(&self, token: &Presented) -> Result<Option<Grant>, Error> {
        let now = self.now();
        if !token.is_current(now) {
            return Ok(None);
        }
        let grant = self.store.grant(token.family, now).await?;
        Ok(grant.filter(|grant| grant.family.app == token.app && grant.user.id == token.user))
    }

    /// The same for a token that somebody asks about; one that he may not ask about is as unknown.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn inspect_for(&self, asker: &Asker, access_token: &str) -> Result<Option<Grant>, Error> {
        match self.read_token(access_token).await?.filter(|token| asker.may_ask(token)) {
            Some(token) => self.inspect(&token).await,
            None => Ok(None),
        }
    }

    /// Reads a token that somebody wants to end the session of: it may have expired, and its session may have ended.
    ///
    /// # Errors
    /// [`Error::AccessTokenRefused`] when we did not sign it, or he may not end it; [`Error::StoreUnavailable`].
    pub async fn read_for(&self, asker: &Asker, access_token: &str) -> Result<Arc<Presented>, Error> {
        self.read_token(access_token).await?.filter(|token| asker.may_ask(token)).ok_or(Error::AccessTokenRefused)
    }
}
