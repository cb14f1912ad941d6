//! Logout tokens (OpenID Connect Back-Channel Logout 1.0 section 2.4).

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Issuer, keys::Kind};
use crate::core::{Error, clock::Timestamp, logouts::OwedLogout, secret::Secret};

/// How long one is good. Each try has a new one.
const LIFETIME: Duration = Duration::from_mins(2);

#[derive(Debug, Serialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: String,
    sid: String,
    events: Value,
}

impl Issuer {
    /// The token that tells an app that a session has ended. All tokens of one call have the same `jti`.
    ///
    /// # Errors
    /// [`Error::Internal`] when no key may sign now.
    pub fn mint_logout(&self, owed: &OwedLogout, now: Timestamp) -> Result<Secret, Error> {
        let keys = self.keys();
        let key = keys.signing(now).ok_or_else(|| Error::Internal("no key may sign now".into()))?;
        let claims = Claims {
            iss: self.public_url.clone(),
            sub: owed.user.to_string(),
            aud: owed.app.to_string(),
            iat: now.seconds(),
            exp: now.after(LIFETIME).seconds(),
            jti: owed.id.to_string(),
            sid: owed.session.to_string(),
            events: json!({"http://schemas.openid.net/event/backchannel-logout": {}}),
        };
        key.sign(Kind::Logout, &claims).map(Secret::new)
    }
}
