//! Access tokens and logout tokens: what is in them, the keys that sign them, and when one is good. The only place that touches a JWT.

mod keys;
mod logout;

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation};
use serde::{Deserialize, Serialize};

use self::keys::Kind;
pub use self::keys::{KeySet, PublicKey, State, generate, state};
use crate::core::{
    Error,
    clock::Timestamp,
    ids::{AppId, FamilyId, SessionId, UserId},
    model::{Family, Grant, Session, SigningKey},
    seal::Vault,
    secret::{BearerHash, Secret, random_bytes},
};

/// For how long keys are good without another look at the store: shorter than any new key is published before it signs where several
/// services share one ([`crate::config`]), and longer than it is between two looks.
const OLD: Duration = Duration::from_secs(6);
/// How far the clocks of two machines may be apart.
pub const LEEWAY: Duration = Duration::from_secs(5);

/// The claims of an access token (RFC 9068 section 2.2).
#[derive(Debug, Serialize, Deserialize)]
struct Claims<'a> {
    iss: Cow<'a, str>,
    sub: Cow<'a, str>,
    aud: [Cow<'a, str>; 1],
    client_id: Cow<'a, str>,
    sid: Cow<'a, str>,
    jti: Cow<'a, str>,
    iat: u64,
    exp: u64,
    username: Cow<'a, str>,
    scope: Cow<'a, str>,
}

/// An access token that was just made.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// The token.
    pub token: Secret,
    /// How long it lives, in seconds.
    pub expires_in: u64,
}

/// What an access token says whose signature was found to be ours. It may have expired, and what it was given for may have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented {
    /// The family that it was given out in.
    pub family: FamilyId,
    /// The app that it was given to.
    pub app: AppId,
    /// The user that it is for.
    pub user: UserId,
    issued_at: u64,
    expires_at: u64,
}

impl Presented {
    /// Whether its times are right, give or take the leeway.
    #[must_use]
    pub fn is_current(&self, now: Timestamp) -> bool {
        let leeway = LEEWAY.as_secs();
        now.seconds() < self.expires_at.saturating_add(leeway) && self.issued_at <= now.seconds().saturating_add(leeway)
    }
}

/// Makes and checks access tokens.
pub struct Issuer {
    public_url: String,
    lifetime: Duration,
    validation: Validation,
    keys: RwLock<Arc<KeySet>>,
    /// When they were last those of the store.
    kept_since: Mutex<Option<Instant>>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("public_url", &self.public_url).field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

impl Issuer {
    /// An issuer with no keys yet. `public_url` is both who issues the tokens and whom they are for.
    #[must_use]
    pub fn new(public_url: String, lifetime: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&public_url]);
        validation.set_audience(&[&public_url]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // The times are judged in `Presented::is_current`, by the clock that everything else goes by.
        validation.validate_exp = false;
        Self { public_url, lifetime, validation, keys: RwLock::default(), kept_since: Mutex::default() }
    }

    /// How long an access token lives.
    #[must_use]
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Takes the keys that the store has now.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when one cannot be opened.
    pub fn set_keys(&self, keys: &[SigningKey], vault: &Vault) -> Result<(), Error> {
        let before = self.keys();
        if !before.is(keys) {
            let keys = KeySet::open(keys, vault, &before)?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
        }
        *self.kept_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// Whether they were not compared with the store's for so long that others may sign by now with a key that is not among them.
    #[must_use]
    pub fn has_old_keys(&self) -> bool {
        self.kept_since.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|since| since.elapsed() > OLD)
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// When the access tokens of a family's newest generation end: never after the session.
    fn end(&self, family: &Family, session: &Session) -> Timestamp {
        family.rotated_at.after(self.lifetime).min(family.rotated_at.after(session.idle_lifetime)).min(session.expires_at)
    }

    /// An access token of a family's newest generation. All tokens of one generation end at the same time.
    ///
    /// # Errors
    /// [`Error::Internal`] when no key may sign now.
    pub fn mint(&self, grant: &Grant, now: Timestamp) -> Result<AccessToken, Error> {
        let keys = self.keys();
        let key = keys.signing(now).ok_or_else(|| Error::Internal("no key may sign now".into()))?;
        let end = self.end(&grant.family, &grant.session);
        let mut jti = [0; 16];
        let (number, random) = jti.split_at_mut(4);
        number.copy_from_slice(&grant.family_id.number.to_be_bytes());
        random.copy_from_slice(&random_bytes::<12>()?);
        let claims = Claims {
            iss: self.public_url.as_str().into(),
            sub: grant.user.id.to_string().into(),
            aud: [self.public_url.as_str().into()],
            client_id: grant.family.app.as_str().into(),
            sid: grant.session.id.to_string().into(),
            jti: URL_SAFE_NO_PAD.encode(jti).into(),
            iat: grant.family.rotated_at.seconds(),
            exp: end.seconds(),
            username: grant.user.name.as_str().into(),
            scope: grant.family.scope.as_str().into(),
        };
        let token = key.sign(Kind::Access, &claims)?;
        // Whoever refreshes shows it soon, and what was signed here needs no check.
        let presented = key.presented(&claims, grant.family_id, grant.family.app.clone(), grant.user.id);
        keys.remember(BearerHash::of_access_token(&token), &Arc::new(presented));
        Ok(AccessToken { token: Secret::new(token), expires_in: end.seconds().saturating_sub(now.seconds()) })
    }

    /// Reads an access token that one of our keys has signed; none when none has. The caller judges whether it is still good.
    #[must_use]
    pub fn read(&self, token: &str) -> Option<Arc<Presented>> {
        let keys = self.keys();
        let hash = BearerHash::of_access_token(token);
        if let Some(presented) = keys.remembered(&hash) {
            return Some(presented);
        }
        let presented = Arc::new(self.check(&keys, token)?);
        keys.remember(hash, &presented);
        Some(presented)
    }

    fn check(&self, keys: &KeySet, token: &str) -> Option<Presented> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.typ.as_deref() != Some(Kind::Access.name()) {
            return None;
        }
        let key = keys.known(&header.kid?)?;
        // The algorithm is the key's: `validation` takes no other.
        let claims = jsonwebtoken::decode::<Claims<'_>>(token, &key.public, &self.validation).ok()?.claims;
        let jti = URL_SAFE_NO_PAD.decode(claims.jti.as_ref()).ok()?;
        let session: SessionId = claims.sid.parse().ok()?;
        let number = u32::from_be_bytes(*jti.first_chunk::<4>()?);
        // What a retired key seems to have signed later, somebody else has signed with it.
        if key.retired_at().is_some_and(|retired_at| claims.iat > retired_at.after(LEEWAY).seconds()) {
            return None;
        }
        Some(key.presented(&claims, FamilyId { session, number }, AppId::new(&claims.client_id)?, claims.sub.parse().ok()?))
    }
}

#[cfg(test)]
mod tests;
