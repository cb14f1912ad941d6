//! Signing in with a password.

use super::{
    Core, Error,
    ids::SessionId,
    model::{Session, SignedIn, User},
    secret::{BearerHash, Secret},
};

impl Core {
    /// Finds the user whose name and password these are. Unknown, disabled and known users take as long.
    ///
    /// # Errors
    /// [`Error::WrongPassword`]; [`Error::UserDisabled`] when the password was right.
    pub async fn check_password(&self, user_name: &str, password: Secret) -> Result<User, Error> {
        let user = self.store.user_named(user_name).await?;
        let hash = user.as_ref().and_then(|user| user.password_hash.clone());
        let right = self.hasher.verify(password, hash).await?;
        let user = user.filter(|_| right).ok_or(Error::WrongPassword)?;
        if user.enabled { Ok(user) } else { Err(Error::UserDisabled) }
    }

    /// Opens a session for the user whose name and password these are, and gives the ticket that names it.
    ///
    /// # Errors
    /// As [`Core::check_password`]; [`Error::PasswordChangeRequired`].
    pub async fn sign_in(&self, user_name: &str, password: Secret) -> Result<(SignedIn, Secret), Error> {
        let user = self.check_password(user_name, password).await?;
        if user.password_change_required {
            return Err(Error::PasswordChangeRequired);
        }
        let ticket = Secret::random()?;
        let now = self.now();
        let session = Session {
            id: SessionId::random()?,
            user: user.id,
            ticket: BearerHash::of_ticket(ticket.expose()),
            created_at: now,
            last_used_at: now,
            expires_at: now.after(self.settings.session_lifetime),
            idle_lifetime: self.settings.session_idle_lifetime,
            next_family: 0,
        };
        let user = self.store.open_session(session.clone(), user.password_hash.unwrap_or_default()).await?;
        Ok((SignedIn { session, user }, ticket))
    }

    /// The live session that a ticket names.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn session_of_ticket(&self, ticket: &str) -> Result<Option<SignedIn>, Error> {
        self.store.session_of_ticket(&BearerHash::of_ticket(ticket), self.now()).await
    }
}
