//! Third-party certification authorities: who may register one, and what administrators do with them (docs/api.md, "Third-party
//! authorities"). Signing in at one is [`dance`].

pub mod calls;
pub mod dance;
mod profile;
mod uses;

use std::time::Duration;

use icu_normalizer::ComposingNormalizerBorrowed;

use super::{
    Core, Error, Problem,
    clock::Timestamp,
    ids::{AuthorityId, UserId},
    model::{Authority, Link, LinkOrigin, Pending},
    redirect,
    seal::Sealed,
    secret::Secret,
    throttle::Source,
};
use crate::store::Linked;

/// For how long an authority waits for an administrator.
const WAITS: Duration = Duration::from_hours(7 * 24);
/// The longest name and client id, in bytes.
const MAX_NAME: usize = 256;
/// The longest client secret, in bytes.
const MAX_SECRET: usize = 512;
/// The longest URI, in bytes: with four of them a record stays below its limit.
const MAX_URI: usize = 512;
/// The longest id that a user has at an authority, in bytes.
const MAX_SUBJECT: usize = 256;

/// What is said of an authority.
#[derive(Clone, Debug, Default)]
pub struct AuthoritySpec {
    /// The name that the sign-in page shows. Empty: the client id stands for it.
    pub display_name: String,
    /// The id that the authority knows this service by.
    pub client_id: String,
    /// Where the browser is sent to sign in.
    pub authorization_uri: String,
    /// Where the authority's code is swapped for its token.
    pub token_uri: String,
    /// Where it is read who has signed in.
    pub userinfo_uri: String,
    /// Where the browser is sent to sign out.
    pub logout_uri: String,
    /// Whether a user whom it names is found by his name the first time.
    pub link_by_name: bool,
    /// Whether a user whom nobody knows is made.
    pub create_users: bool,
}

/// An authority to register.
#[derive(Clone, Debug)]
pub struct NewAuthority {
    /// The secret that goes with the client id.
    pub client_secret: Secret,
    /// Whether users may sign in at it at once, if whoever registers it may say so.
    pub enabled: bool,
    /// The rest.
    pub spec: AuthoritySpec,
}

/// Who registers an authority.
#[derive(Clone, Copy, Debug)]
pub enum Registrar<'a> {
    /// Somebody who has the right to.
    Entitled,
    /// Somebody else, from there: an administrator has to enable it.
    Other(&'a Source),
}

/// A text in the one spelling that is compared (Unicode NFC).
fn composed(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}

fn check_text(field: &str, text: &str, longest: usize) -> Result<(), Error> {
    match text {
        "" => Err(Error::parameter(field, Problem::Missing)),
        text if text.len() > longest => Err(Error::parameter(field, Problem::TooLong)),
        text if text.chars().any(char::is_control) => Err(Error::parameter(field, Problem::Malformed)),
        _ => Ok(()),
    }
}

fn secret_purpose(id: AuthorityId) -> String {
    format!("authority secret {id}")
}

impl AuthoritySpec {
    /// What is said of an authority now.
    #[must_use]
    pub fn of(authority: &Authority) -> Self {
        Self {
            display_name: authority.name.clone(),
            client_id: authority.client_id.clone(),
            authorization_uri: authority.authorization_uri.clone(),
            token_uri: authority.token_uri.clone(),
            userinfo_uri: authority.userinfo_uri.clone(),
            logout_uri: authority.logout_uri.clone(),
            link_by_name: authority.link_by_name,
            create_users: authority.create_users,
        }
    }

    fn apply(self, authority: &mut Authority) {
        authority.name = self.display_name;
        authority.client_id = self.client_id;
        authority.authorization_uri = self.authorization_uri;
        authority.token_uri = self.token_uri;
        authority.userinfo_uri = self.userinfo_uri;
        authority.logout_uri = self.logout_uri;
        authority.link_by_name = self.link_by_name;
        authority.create_users = self.create_users;
    }
}

impl Core {
    /// Where authorities send browsers back to: what has to be registered there as this service's redirect URI.
    #[must_use]
    pub fn third_party_redirect_uri(&self) -> String {
        format!("{}/inter-api/auth/v1/third/authorize?protocolType=bluetron", self.settings.public_url)
    }

    /// Checks what is said of an authority, and gives it its name.
    fn check_authority(&self, mut spec: AuthoritySpec) -> Result<AuthoritySpec, Error> {
        check_text("client_id", &spec.client_id, MAX_NAME)?;
        if spec.display_name.is_empty() {
            spec.display_name.clone_from(&spec.client_id);
        }
        spec.display_name = composed(&spec.display_name);
        check_text("display_name", &spec.display_name, MAX_NAME)?;
        let uris = [
            ("authorization_uri", &spec.authorization_uri, false),
            ("token_uri", &spec.token_uri, true),
            ("userinfo_uri", &spec.userinfo_uri, true),
            ("logout_uri", &spec.logout_uri, false),
        ];
        for (field, uri, is_called) in uris {
            check_text(field, uri, MAX_URI)?;
            if !redirect::is_web(uri) || uri.contains('#') {
                return Err(Error::parameter(field, Problem::Malformed));
            }
            // Names are judged by what they lead to, at each call.
            if is_called && !self.authority_calls.may_call(uri) {
                return Err(Error::parameter(field, Problem::NotAllowed));
            }
        }
        Ok(spec)
    }

    fn seal_authority_secret(&self, id: AuthorityId, secret: &Secret) -> Result<Sealed, Error> {
        check_text("client_secret", secret.expose(), MAX_SECRET)?;
        self.vault.seal(&secret_purpose(id), secret.expose().as_bytes())
    }

    fn open_authority_secret(&self, authority: &Authority) -> Result<Secret, Error> {
        let plain = self.vault.open_sealed(&secret_purpose(authority.id), &authority.client_secret)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Error::Internal("an authority's secret is no text".into()))?;
        Ok(Secret::new(text))
    }

    /// Registers an authority. Where its registrar has no right to, it is not enabled whatever he says, and waits for an administrator.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name of the field; [`Error::AuthorityExists`]; [`Error::TooManyTries`] when too many wait.
    pub async fn register_authority(&self, new: NewAuthority, by: Registrar<'_>) -> Result<Authority, Error> {
        let NewAuthority { client_secret, enabled, spec } = new;
        let spec = self.check_authority(spec)?;
        let id = AuthorityId::random()?;
        let now = self.now();
        let pending = match by {
            Registrar::Entitled => None,
            Registrar::Other(source) => Some(Pending { expires_at: now.after(WAITS), network: source.network_name() }),
        };
        let authority = Authority {
            id,
            name: spec.display_name,
            client_id: spec.client_id,
            client_secret: self.seal_authority_secret(id, &client_secret)?,
            authorization_uri: spec.authorization_uri,
            token_uri: spec.token_uri,
            userinfo_uri: spec.userinfo_uri,
            logout_uri: spec.logout_uri,
            enabled: enabled && pending.is_none(),
            pending,
            link_by_name: spec.link_by_name,
            create_users: spec.create_users,
            created_at: now,
            updated_at: now,
        };
        self.store.register_authority(authority.clone(), now).await?;
        Ok(authority)
    }

    /// Changes what is said of an authority, and its secret where there is a new one.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Parameter`] with the name of the field; [`Error::AuthorityExists`] when another one has the name.
    pub async fn update_authority(
        &self,
        id: AuthorityId,
        secret: Option<Secret>,
        change: impl Fn(&mut AuthoritySpec) + Send,
    ) -> Result<Authority, Error> {
        let now = self.now();
        let before = self.store.authority(id, now).await?.ok_or(Error::NotFound("authority"))?;
        let mut spec = AuthoritySpec::of(&before);
        change(&mut spec);
        let spec = self.check_authority(spec)?;
        let sealed = secret.map(|secret| self.seal_authority_secret(id, &secret)).transpose()?;
        let change = move |authority: &mut Authority| {
            // What was checked is what was there a moment ago.
            if authority.updated_at != before.updated_at {
                return Err(Error::Precondition("somebody else has changed the authority at the same time: look at it and try again"));
            }
            spec.clone().apply(authority);
            if let Some(sealed) = &sealed {
                authority.client_secret = sealed.clone();
            }
            authority.updated_at = after(before.updated_at, now);
            Ok(())
        };
        self.store.update_authority(id, Box::new(change), now).await
    }

    /// Lets users sign in at an authority, or not. One that waits and is enabled waits no more.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn set_authority_enabled(&self, id: AuthorityId, enabled: bool) -> Result<Authority, Error> {
        let now = self.now();
        let change = move |authority: &mut Authority| {
            authority.enabled = enabled;
            if enabled {
                authority.pending = None;
            }
            authority.updated_at = after(authority.updated_at, now);
            Ok(())
        };
        self.store.update_authority(id, Box::new(change), now).await
    }

    /// Says who a user of an authority is here, as an administrator does.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name `subject`; [`Error::NotFound`]; [`Error::AlreadyExists`] when he is somebody else.
    pub async fn link_user(&self, authority: AuthorityId, subject: String, user: UserId) -> Result<Linked, Error> {
        check_text("subject", &subject, MAX_SUBJECT)?;
        let link = Link { user, origin: LinkOrigin::Administrator, created_at: self.now() };
        self.store.link_user(authority, subject, link).await
    }

    /// The authorities that the sign-in page offers, by name.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn offered_authorities(&self) -> Result<Vec<Authority>, Error> {
        let now = self.now();
        let mut offered = Vec::new();
        let mut after = None;
        loop {
            // Those that are off or wait, which anybody can register, keep nobody from those behind them.
            let page = self.store.authorities(after, MAX_OFFERED, now).await?;
            let next = page.last().filter(|_| page.len() == MAX_OFFERED).map(|last| last.name.clone());
            offered.extend(page.into_iter().filter(|authority| authority.enabled));
            if offered.len() >= MAX_OFFERED || next.is_none() {
                offered.truncate(MAX_OFFERED);
                return Ok(offered);
            }
            after = next;
        }
    }
}

/// The most authorities that the sign-in page offers.
const MAX_OFFERED: usize = 200;

/// When a record is changed: later than when it was before, so that every change shows.
fn after(before: Timestamp, now: Timestamp) -> Timestamp {
    now.max(before.after(Duration::from_millis(1)))
}
