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
        match self.issuer.read(access_token).filter(|token| asker.may_ask(token)) {
            Some(token) => self.inspect(&token).await,
            None => Ok(None),
        }
    }

    /// Reads a token that somebody wants to end the session of: it may have expired, and its session may have ended.
    ///
    /// # Errors
    /// [`Error::AccessTokenRefused`] when we did not sign it, or he may not end it.
    pub fn read_for(&self, asker: &Asker, access_token: &str) -> Result<Arc<Presented>, Error> {
        self.issuer.read(access_token).filter(|token| asker.may_ask(token)).ok_or(Error::AccessTokenRefused)
    }
}
