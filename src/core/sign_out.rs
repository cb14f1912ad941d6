//! Ending a session (docs/api.md, "Sign-out").

use super::{Core, Error, ids::SessionId};

impl Core {
    /// Ends a session: its codes, access tokens and refresh tokens, for every app, are dead once this returns. One that has ended already
    /// is no error. Gives where to send the browser to sign out at the authority that the session came from, too, if it came from one.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`]: then it may go on.
    pub async fn sign_out(&self, session: SessionId) -> Result<Option<String>, Error> {
        let further = match self.store.session(session).await? {
            Some(session) => self.sign_out_uri(&session).await?,
            None => None,
        };
        self.store.end_session(session, self.now()).await?;
        Ok(further)
    }
}
