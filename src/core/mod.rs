//! The rules of the service, each once. Knows nothing of gRPC, HTTP, SQL, the environment or the machine's clock.
//!
//! One file for each operation: [`sign_in`], [`authorize`], [`exchange`], [`refresh`], [`inspect`], [`sign_out`] and, of its consequences,
//! [`logouts`]; what administrators do is in [`apps`], [`users`], [`signing_keys`] and [`authorities`], and signing in at a third-party
//! authority in [`authorities::dance`].

pub mod apps;
pub mod authorities;
pub mod authorize;
pub mod browser;
pub mod clock;
mod error;
pub mod exchange;
pub mod ids;
pub mod inspect;
pub mod logouts;
pub mod model;
pub mod password;
pub mod redirect;
pub mod refresh;
pub mod rights;
pub mod seal;
pub mod secret;
pub mod sign_in;
pub mod sign_out;
pub mod signatures;
pub mod signing_keys;
pub mod throttle;
pub mod usage;
pub mod users;

use std::{sync::Arc, time::Duration};

pub use error::{Error, Problem};

use self::{
    authorities::calls::Calls,
    clock::{Clock, Timestamp},
    logouts::CallableUris,
    model::Grant,
    password::Hasher,
    seal::Vault,
    secret::Secret,
    signatures::{OpenedSecrets, StandIns},
    throttle::Throttle,
    usage::Usage,
};
use crate::{issuer::Issuer, store::Store};

/// How long things live, and what operators may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a code lives.
    pub code_lifetime: Duration,
    /// How long a session lives in all.
    pub session_lifetime: Duration,
    /// How long a session lives with nothing to keep it alive.
    pub session_idle_lifetime: Duration,
    /// How long after the first use of a refresh token its successor is given out again.
    pub refresh_grace: Duration,
    /// How long a signing key is published before it signs.
    pub signing_key_lead: Duration,
    /// How long a signing key signs before a new one takes over.
    pub signing_key_lifetime: Duration,
    /// The fewest characters of a password that is set from now on.
    pub min_password_length: usize,
    /// The address that users and apps reach the service at, without a slash at its end.
    pub public_url: String,
    /// Whether somebody of whom nothing is known may register an authority, for an administrator to enable.
    pub anonymous_authorities: bool,
}

/// The service, without its edges.
#[derive(Debug)]
pub struct Core {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// Who makes access tokens.
    pub issuer: Issuer,
    /// What seals secrets.
    pub vault: Vault,
    /// Who hashes passwords.
    pub hasher: Hasher,
    /// Who counts what was wrong.
    pub throttle: Arc<Throttle>,
    /// Whose records are read besides the app's that signs.
    pub stand_ins: StandIns,
    /// The secrets of apps that have signed lately.
    pub opened: OpenedSecrets,
    /// What apps have left lately that may be called.
    pub callable: CallableUris,
    /// Who counts what apps should not do any more.
    pub usage: Usage,
    /// Who speaks to third-party authorities.
    pub authority_calls: Calls,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What operators chose.
    pub settings: Settings,
    /// Called with the name of the user whose one-time password was changed.
    pub on_password_changed: Box<dyn OnPasswordChanged>,
}

/// What happens besides when a user has changed his password himself.
pub trait OnPasswordChanged: Send + Sync + std::fmt::Debug {
    /// `user_name` has a password of his own now.
    fn password_changed(&self, user_name: &str);
}

/// The tokens that an app gets.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token.
    pub access_token: Secret,
    /// How long it lives, in seconds.
    pub expires_in: u64,
    /// The refresh token.
    pub refresh_token: Secret,
    /// Whom they are for, and what they stand for.
    pub grant: Grant,
}

impl Core {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The tokens of a family's newest generation.
    fn tokens(&self, grant: Grant, now: Timestamp) -> Result<Tokens, Error> {
        let access = self.issuer.mint(&grant, now)?;
        let refresh_token = self.vault.refresh_token(grant.family_id, grant.family.generation)?;
        Ok(Tokens { access_token: access.token, expires_in: access.expires_in, refresh_token, grant })
    }
}
