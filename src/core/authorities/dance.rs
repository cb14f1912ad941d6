//! Signing in at a third-party authority (RFC 6749 section 4.1, RFC 7636, OpenID Connect Core 1.0).
//!
//! [`Core::begin_at_authority`] says where the browser goes, and what it keeps meanwhile in a short-lived `HttpOnly` cookie
//! ([`STATE_LIFETIME`], `SameSite=Lax`: it comes back from another site). The authority sends it back with `state`;
//! [`Core::complete_at_authority`] takes that and the cookie, and opens the session. Nothing is stored in between: the state is sealed and
//! holds all that is needed, and only that it was used is remembered.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use url::Url;

use super::profile::{self, Profile};
use crate::{
    core::{
        Core, Error, Problem,
        clock::Timestamp,
        ids::{AuthorityId, UserId},
        model::{Authority, Session, SignedIn, User},
        rights::Rights,
        seal::{Sealed, Vault},
        secret::{BearerHash, Secret},
        sign_in::Opened,
        throttle::Source,
    },
    store::{Arrival, OneUse},
};

/// How long a sign-in at an authority may take, and how long the browser keeps its cookie.
pub const STATE_LIFETIME: Duration = Duration::from_mins(10);
/// The longest way back, in bytes: what a `state` and a `redirectUri` of the longest may be once they are encoded. Sealed, it is what Envoy takes
/// in the URL that a browser comes back by, and nothing is stored of it.
const MAX_WAY_BACK: usize = 16 * 1024;
const PURPOSE: &str = "sign-in at an authority";

/// A browser that goes to an authority.
#[derive(Debug)]
pub struct Departure {
    /// Where it goes.
    pub location: String,
    /// What it shows when it comes back, by which it is known as the one that went.
    pub binding: Secret,
}

/// What a browser comes back with.
#[derive(Clone, Debug)]
pub struct Callback<'a> {
    /// The state that it was sent away with.
    pub state: &'a str,
    /// The authority's code.
    pub code: Option<&'a str>,
    /// Why there is none.
    pub error: Option<&'a str>,
    /// What the browser shows of what [`Departure::binding`] may have been.
    pub bindings: &'a [Secret],
    /// Where it comes from.
    pub source: Source,
}

/// A user who has signed in at an authority.
#[derive(Debug)]
pub struct Arrived {
    /// His session.
    pub opened: Opened,
    /// Where he wanted to go, as it was said when he began.
    pub way_back: String,
}

/// What travels through the browser and the authority, sealed.
#[derive(Serialize, Deserialize)]
struct State {
    authority: AuthorityId,
    /// The PKCE verifier. It is random, so it is also what makes this state the only one of its kind.
    verifier: String,
    way_back: String,
    binding: BearerHash,
    expires_at: Timestamp,
}

impl State {
    fn sealed(&self, vault: &Vault) -> Result<String, Error> {
        let plain = rmp_serde::to_vec(self).map_err(|error| Error::Internal(format!("a state cannot be written: {error}")))?;
        Ok(URL_SAFE_NO_PAD.encode(vault.seal(PURPOSE, &plain)?.as_bytes()))
    }

    fn read(vault: &Vault, shown: &str) -> Option<Self> {
        let sealed = URL_SAFE_NO_PAD.decode(shown).ok()?;
        rmp_serde::from_slice(&vault.open_sealed(PURPOSE, &Sealed::from_bytes(sealed)).ok()?).ok()
    }
}

/// The PKCE challenge of a verifier (RFC 7636 section 4.2, `S256`).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// Whether a text is what [`Departure::binding`] can be.
fn is_binding(shown: &str) -> bool {
    shown.len() == 43 && URL_SAFE_NO_PAD.decode(shown).is_ok()
}

/// Sends a browser to an authority that was found enabled. `redirect_uri` is where it comes back to, and `browser` what it was given to show
/// before.
///
/// # Errors
/// As [`Core::begin_at_authority`].
pub fn depart(
    vault: &Vault,
    authority: &Authority,
    redirect_uri: &str,
    way_back: &str,
    browser: Option<&str>,
    now: Timestamp,
) -> Result<Departure, Error> {
    if way_back.len() > MAX_WAY_BACK {
        return Err(Error::parameter("way_back", Problem::TooLong));
    }
    // Two tabs of one browser share what it shows: the second must not make the first one's state another browser's.
    let binding = match browser {
        Some(shown) => Secret::new(shown),
        None => Secret::random()?,
    };
    let verifier = Secret::random()?;
    let state = State {
        authority: authority.id,
        verifier: verifier.expose().to_owned(),
        way_back: way_back.to_owned(),
        binding: BearerHash::of_binding(binding.expose()),
        expires_at: now.after(STATE_LIFETIME),
    };
    let mut location = Url::parse(&authority.authorization_uri).map_err(|_| Error::Internal("an authority's URI is no URL".into()))?;
    location
        .query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &authority.client_id)
        .append_pair("redirect_uri", redirect_uri)
        .append_pair("scope", "openid profile")
        .append_pair("state", &state.sealed(vault)?)
        .append_pair("code_challenge", &challenge(verifier.expose()))
        .append_pair("code_challenge_method", "S256");
    Ok(Departure { location: location.into(), binding })
}

impl Core {
    /// Begins a sign-in at an authority. `way_back` is given back by [`Core::complete_at_authority`] as it is; `shown` is what the browser
    /// shows of what may be the [`Departure::binding`] of an earlier time.
    ///
    /// # Errors
    /// [`Error::AuthorityOff`]; [`Error::Parameter`] with the name `way_back` when it is longer than 16 KiB.
    pub async fn begin_at_authority(&self, authority: AuthorityId, way_back: &str, shown: &[Secret]) -> Result<Departure, Error> {
        let authority = self.enabled_authority(authority).await?;
        let browser = shown.iter().map(Secret::expose).find(|shown| is_binding(shown));
        depart(&self.vault, &authority, &self.third_party_redirect_uri(), way_back, browser, self.now())
    }

    async fn enabled_authority(&self, id: AuthorityId) -> Result<Authority, Error> {
        self.store.authority(id, self.now()).await?.filter(|authority| authority.enabled).ok_or(Error::AuthorityOff)
    }

    /// Completes a sign-in at an authority: swaps its code, asks who has signed in, and opens a session for the user that he is here.
    ///
    /// # Errors
    /// [`Error::Parameter`] when there is neither code nor error; [`Error::StateRefused`]; [`Error::AuthorityOff`];
    /// [`Error::AuthorityDenied`]; [`Error::AuthorityTokenFailed`], [`Error::AuthorityUserFailed`]; [`Error::AuthorityUserUnknown`];
    /// [`Error::UserDisabled`]; [`Error::TooManyTries`]; [`Error::Busy`]. The state is used up once the authority is asked.
    pub async fn complete_at_authority(&self, callback: Callback<'_>) -> Result<Arrived, Error> {
        if callback.code.is_none() && callback.error.is_none() {
            return Err(Error::parameter("code", Problem::Missing));
        }
        let state = State::read(&self.vault, callback.state).ok_or(Error::StateRefused)?;
        let is_his = callback.bindings.iter().any(|shown| BearerHash::of_binding(shown.expose()) == state.binding);
        if !is_his || self.now() >= state.expires_at {
            return Err(Error::StateRefused);
        }
        let authority = self.enabled_authority(state.authority).await?;
        let code = match (callback.error, callback.code) {
            (None, Some(code)) => code,
            (error, _) => return Err(refused(error.unwrap_or_default())),
        };
        let place = self.authority_calls.place()?;
        // Anybody can begin, and come back with a code that he has made up: each would leave a record, and a call to the authority.
        let counted = self.throttle.arrival(&callback.source).await?;
        let using = OneUse { hash: BearerHash::of_sign_in(&state.verifier), until: state.expires_at };
        let used = self.authority_calls.uses.use_up(Arc::clone(&self.store), place, using, self.now()).await?.ok_or(Error::StateRefused)?;
        let profile = self.ask_authority(&authority, code, &state.verifier).await?;
        let opened = self.open_for(&authority, profile, callback.source).await?;
        used.for_good();
        // The session is there: he must not be told that it is not.
        if let Err(error) = self.throttle.has_arrived(counted).await {
            tracing::warn!("a sign-in at an authority stays counted as one that came to nothing: {error}");
        }
        Ok(Arrived { opened, way_back: state.way_back })
    }

    /// Asks an authority who it is that has come back with its code.
    async fn ask_authority(&self, authority: &Authority, code: &str, verifier: &str) -> Result<Profile, Error> {
        let uri = |uri: &str| Url::parse(uri).map_err(|_| Error::Internal("an authority's URI is no URL".into()));
        let (token_uri, userinfo_uri) = (uri(&authority.token_uri)?, uri(&authority.userinfo_uri)?);
        let secret = self.open_authority_secret(authority)?;
        let redirect_uri = self.third_party_redirect_uri();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri.as_str()),
            ("client_id", authority.client_id.as_str()),
            ("client_secret", secret.expose()),
            ("code_verifier", verifier),
        ];
        let client = self.authority_calls.client()?;
        let reply = client.post_form(&token_uri, &form).await.map_err(Error::AuthorityTokenFailed)?;
        let token = profile::token(&reply, &authority.client_id).map_err(Error::AuthorityTokenFailed)?;
        let reply = client.get_with_bearer(&userinfo_uri, &token.access_token).await.map_err(Error::AuthorityUserFailed)?;
        profile::profile(&reply, token.id_token_subject.as_deref()).map_err(Error::AuthorityUserFailed)
    }

    /// Opens a session for whoever an authority has signed in.
    async fn open_for(&self, authority: &Authority, profile: Profile, source: Source) -> Result<Opened, Error> {
        // Whose it is, the store finds in the same step.
        let (session, ticket) = self.new_session(UserId::from_bytes([0; 16]))?;
        let now = session.created_at;
        let newcomer = match &profile.name {
            Some(name) if authority.create_users => Some(User {
                id: UserId::random()?,
                name: name.clone(),
                person_code: String::new(),
                company_code: String::new(),
                account_type: 0,
                enabled: true,
                password_hash: None,
                password_change_required: false,
                created_at: now,
                updated_at: now,
                rights: Rights::default(),
            }),
            _ => None,
        };
        let arrival = Arrival { session: session.clone(), authority: authority.id, subject: profile.subject, name: profile.name, newcomer };
        let user = self.store.open_session_of(arrival).await?;
        let session = Arc::new(Session { user: user.id, authority: Some(authority.id), ..session });
        let browser = self.remember_browser(source.browser, user.id)?;
        Ok(Opened { signed_in: SignedIn { session, user: Arc::new(user) }, ticket, browser })
    }

    /// Where to send a browser so that its user is signed out at the authority that a session came from, too. None: it came from none, or
    /// from one that is off.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn sign_out_uri(&self, session: &Session) -> Result<Option<String>, Error> {
        let Some(id) = session.authority else { return Ok(None) };
        match self.enabled_authority(id).await {
            Ok(authority) => Ok(Some(authority.logout_uri)),
            Err(Error::AuthorityOff) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// What an authority means by the error that it sends the browser back with (RFC 6749 section 4.1.2.1; OpenID Connect Core 1.0 section
/// 3.1.2.6).
fn refused(error: &str) -> Error {
    match error {
        "access_denied" | "login_required" | "consent_required" | "interaction_required" | "account_selection_required" => {
            Error::AuthorityDenied
        }
        "invalid_request"
        | "unauthorized_client"
        | "unsupported_response_type"
        | "invalid_scope"
        | "server_error"
        | "temporarily_unavailable" => Error::AuthorityTokenFailed(format!("it gave no code: {error}")),
        _ => Error::AuthorityTokenFailed("it gave no code".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::seal::MasterKey;

    #[test]
    fn the_challenge_is_that_of_rfc_7636() {
        assert_eq!(challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn a_state_reads_back_shows_nothing_and_is_nothing_once_it_was_changed() {
        let (vault, _) = Vault::create(&MasterKey::new([1; 32])).unwrap();
        let state = State {
            authority: AuthorityId::random().unwrap(),
            verifier: "the verifier".to_owned(),
            way_back: "/the/way/back".to_owned(),
            binding: BearerHash::of_binding("x"),
            expires_at: Timestamp::from_millis(7),
        };
        let shown = state.sealed(&vault).unwrap();
        let read = State::read(&vault, &shown).unwrap();
        assert_eq!((read.authority, read.verifier.as_str(), read.way_back.as_str()), (state.authority, "the verifier", "/the/way/back"));
        assert!(!String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(&shown).unwrap()).contains("way"));
        for at in 0..shown.len() {
            let mut changed = shown.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(State::read(&vault, std::str::from_utf8(&changed).unwrap()).is_none(), "{at}");
        }
        let (stranger, _) = Vault::create(&MasterKey::new([1; 32])).unwrap();
        assert!(State::read(&stranger, &shown).is_none());
    }
}
