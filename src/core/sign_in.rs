//! Signing in with a password.

use std::sync::Arc;

use super::{
    Core, Error,
    ids::{SessionId, UserId},
    model::{Session, SignedIn, User},
    password::Lane,
    secret::{BearerHash, Secret},
    throttle::Source,
};

/// A session that was just opened.
#[derive(Debug)]
pub struct Opened {
    /// The session, and whose it is.
    pub signed_in: SignedIn,
    /// The ticket that names it.
    pub ticket: Secret,
    /// What the browser shows from now on, to be known as the user's.
    pub browser: Secret,
}

impl Core {
    /// Finds the user whose name and password these are: the one door that every password goes through. Unknown, disabled and known users
    /// take as long.
    ///
    /// # Errors
    /// [`Error::WrongPassword`]; [`Error::UserDisabled`] when the password was right; [`Error::TooManyTries`]; [`Error::Busy`].
    pub async fn check_password(&self, user_name: &str, password: Secret, source: &Source) -> Result<User, Error> {
        let user = self.store.user_named(user_name).await?;
        // Before it takes a place in the queue, and again when its turn has come: others may have been wrong meanwhile.
        let shown = self.throttle.password(user_name, user.as_ref().map(|user| user.id), source).await?;
        let lane = if shown.known { Lane::Known } else { Lane::Anybody };
        let hash = user.as_ref().and_then(|user| user.password_hash.clone());
        let (throttle, counted) = (Arc::clone(&self.throttle), shown.clone());
        let was_right = async move {
            if let Err(error) = throttle.was_right(&counted).await {
                tracing::warn!("a right password stays counted as a wrong one: {error}");
            }
        };
        let right = self.hasher.verify(password, hash, lane, self.throttle.count(&shown), was_right).await?;
        let user = user.filter(|_| right).ok_or(Error::WrongPassword)?;
        if user.enabled { Ok(user) } else { Err(Error::UserDisabled) }
    }

    /// Opens a session for the user whose name and password these are.
    ///
    /// # Errors
    /// As [`Core::check_password`]; [`Error::PasswordChangeRequired`].
    pub async fn sign_in(&self, user_name: &str, password: Secret, source: Source) -> Result<Opened, Error> {
        let user = self.check_password(user_name, password, &source).await?;
        if user.password_change_required {
            return Err(Error::PasswordChangeRequired);
        }
        let (session, ticket) = self.new_session(user.id)?;
        let user = self.store.open_session(session.clone(), user.password_hash.unwrap_or_default()).await?;
        let browser = self.remember_browser(source.browser, user.id)?;
        Ok(Opened { signed_in: SignedIn { session: Arc::new(session), user: Arc::new(user) }, ticket, browser })
    }

    /// A session, not stored yet, and the ticket that names it. Both are new, whatever the browser has shown (session fixation).
    pub(super) fn new_session(&self, user: UserId) -> Result<(Session, Secret), Error> {
        let ticket = Secret::random()?;
        let now = self.now();
        let session = Session {
            id: SessionId::random()?,
            user,
            ticket: BearerHash::of_ticket(ticket.expose()),
            created_at: now,
            last_used_at: now,
            expires_at: now.after(self.settings.session_lifetime),
            idle_lifetime: self.settings.session_idle_lifetime,
            next_family: 0,
            authority: None,
        };
        Ok((session, ticket))
    }

    /// The live session that a ticket names.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn session_of_ticket(&self, ticket: &str) -> Result<Option<SignedIn>, Error> {
        self.store.session_of_ticket(&BearerHash::of_ticket(ticket), self.now()).await
    }
}
