//! Ending a session (docs/api.md, "Sign-out").

use super::{Core, Error, ids::SessionId};

impl Core {
    /// Ends a session: its codes, access tokens and refresh tokens, for every app, are dead once this returns. One that has ended already
    /// is no error.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`]: then it may go on.
    pub async fn sign_out(&self, session: SessionId) -> Result<(), Error> {
        self.store.end_session(session, self.now()).await?;
        Ok(())
    }
}
