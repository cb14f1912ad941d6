//! Signing keys: how they are made, which of them signs, and which are published.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use quick_cache::sync::Cache;
use serde::Serialize;

use super::{Claims, Presented};
use crate::core::{
    Error,
    clock::Timestamp,
    ids::{AppId, FamilyId, UserId, random_name},
    model::SigningKey,
    seal::Vault,
    secret::BearerHash,
};

/// What a key does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is published, and does not sign yet.
    Pending,
    /// It signs.
    Active,
    /// It signs no more; its tokens are good.
    Verifying,
    /// Its tokens have expired.
    Expired,
}

/// Makes a key that signs from `activates_in` on.
///
/// # Errors
/// [`Error::Internal`] when the machine has no randomness to give.
pub fn generate(vault: &Vault, now: Timestamp, activates_in: Duration) -> Result<SigningKey, Error> {
    let fault = |_| Error::Internal("making a signing key failed".into());
    let private = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(fault)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref())
        .map_err(|_| Error::Internal("making a signing key failed".into()))?;
    // An uncompressed point: 4, x, y (SEC 1 section 2.3.3).
    let point: [u8; 65] = pair.public_key().as_ref().try_into().map_err(|_| Error::Internal("a public key has another length".into()))?;
    let kid = random_name()?;
    Ok(SigningKey {
        sealed: vault.seal(&purpose(&kid), private.as_ref())?,
        kid,
        x: URL_SAFE_NO_PAD.encode(&point[1..33]),
        y: URL_SAFE_NO_PAD.encode(&point[33..]),
        created_at: now,
        activates_at: now.after(activates_in),
        retired_at: None,
        expires_at: None,
        forgotten_at: None,
    })
}

fn purpose(kid: &str) -> String {
    format!("signing key {kid}")
}

/// The key that signs at a moment: of those that may, the one that began last. When the clock was set back to before all of them, the
/// first one goes on.
fn signing<'a>(keys: impl Iterator<Item = &'a SigningKey> + Clone, now: Timestamp) -> Option<&'a SigningKey> {
    let live = keys.filter(|key| key.retired_at.is_none());
    let begun = live.clone().filter(|key| key.activates_at <= now).max_by_key(|key| (key.activates_at, key.created_at));
    begun.or_else(|| live.min_by_key(|key| (key.activates_at, key.created_at)))
}

/// Whether a key's tokens may still be good at a moment.
fn is_published(key: &SigningKey, now: Timestamp) -> bool {
    key.expires_at.is_none_or(|expires_at| now < expires_at)
}

/// What `key` does at a moment, among all `keys`.
#[must_use]
pub fn state(key: &SigningKey, keys: &[SigningKey], now: Timestamp) -> State {
    if signing(keys.iter(), now).is_some_and(|active| active.kid == key.kid) {
        State::Active
    } else if key.retired_at.is_none() && now < key.activates_at {
        State::Pending
    } else if is_published(key, now) {
        State::Verifying
    } else {
        State::Expired
    }
}

/// What is signed. Each has a type of its own, so that none is ever taken for another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Access tokens (RFC 9068 section 2.1).
    Access,
    /// Logout tokens.
    Logout,
}

impl Kind {
    /// The `typ` of its header.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Logout => "logout+jwt",
        }
    }
}

/// A key, ready to use.
pub(super) struct Key {
    /// The headers of what it signs, encoded, by [`Kind`].
    headers: [String; 2],
    private: EcdsaKeyPair,
    pub(super) public: DecodingKey,
    record: SigningKey,
}

/// The public half of a key, as it is published.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// The id that tokens name it by.
    pub kid: String,
    /// The x coordinate, base64url.
    pub x: String,
    /// The y coordinate, base64url.
    pub y: String,
}

/// How many bytes a signature has.
const SIGNATURE: usize = 64;
/// How many tokens are remembered at the most: some 220 bytes each.
const REMEMBERED: usize = 1 << 17;

/// All keys whose tokens say something, and the tokens that they have signed as far as that is known. A set of other keys knows nothing
/// of what this one has found, so that no token outlives its key.
pub struct KeySet {
    keys: HashMap<String, Arc<Key>>,
    tokens: Cache<BearerHash, Arc<Presented>>,
}

impl Default for KeySet {
    fn default() -> Self {
        Self { keys: HashMap::new(), tokens: Cache::new(REMEMBERED) }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

impl KeySet {
    /// Opens the keys that the store has; those that are open already are taken from `before`.
    pub(super) fn open(records: &[SigningKey], vault: &Vault, before: &Self) -> Result<Self, Error> {
        let mut keys = HashMap::new();
        for record in records {
            let key = match before.keys.get(&record.kid) {
                Some(key) if key.record == *record => Arc::clone(key),
                _ => Arc::new(Key::open(record, vault)?),
            };
            keys.insert(record.kid.clone(), key);
        }
        Ok(Self { keys, ..Self::default() })
    }

    /// Whether it has these keys, as they are now.
    pub(super) fn is(&self, records: &[SigningKey]) -> bool {
        self.keys.len() == records.len() && records.iter().all(|record| self.keys.get(&record.kid).is_some_and(|key| key.record == *record))
    }

    /// What is known of the token of this hash.
    pub(super) fn remembered(&self, hash: &BearerHash) -> Option<Arc<Presented>> {
        self.tokens.get(hash)
    }

    /// Remembers a token that one of these keys has signed.
    pub(super) fn remember(&self, hash: BearerHash, presented: &Arc<Presented>) {
        self.tokens.insert(hash, Arc::clone(presented));
    }

    pub(super) fn signing(&self, now: Timestamp) -> Option<&Key> {
        let active = signing(self.keys.values().map(|key| &key.record), now)?;
        self.keys.get(&active.kid).map(AsRef::as_ref)
    }

    /// The key of this id, also one that is published no more.
    pub(super) fn known(&self, kid: &str) -> Option<&Key> {
        self.keys.get(kid).map(AsRef::as_ref)
    }

    /// Whether a key may sign now.
    #[must_use]
    pub fn can_sign(&self, now: Timestamp) -> bool {
        self.signing(now).is_some()
    }

    /// The public halves, the oldest first.
    #[must_use]
    pub fn public(&self, now: Timestamp) -> Vec<PublicKey> {
        let mut records: Vec<&SigningKey> = self.keys.values().map(|key| &key.record).filter(|key| is_published(key, now)).collect();
        records.sort_by(|a, b| (a.created_at, &a.kid).cmp(&(b.created_at, &b.kid)));
        records.iter().map(|key| PublicKey { kid: key.kid.clone(), x: key.x.clone(), y: key.y.clone() }).collect()
    }
}

impl Key {
    /// When it was retired.
    pub(super) const fn retired_at(&self) -> Option<Timestamp> {
        self.record.retired_at
    }

    /// What a token says that it has signed. None is good for longer than its key.
    pub(super) fn presented(&self, claims: &Claims<'_>, family: FamilyId, app: AppId, user: UserId) -> Presented {
        let key_expires_at = self.record.expires_at.map_or(u64::MAX, Timestamp::seconds);
        Presented { family, app, user, issued_at: claims.iat, expires_at: claims.exp.min(key_expires_at) }
    }

    fn open(record: &SigningKey, vault: &Vault) -> Result<Self, Error> {
        let private = vault.open_sealed(&purpose(&record.kid), &record.sealed)?;
        let public = DecodingKey::from_ec_components(&record.x, &record.y)
            .map_err(|error| Error::StoreUnavailable(format!("signing key {} cannot be read: {error}", record.kid)))?;
        let private = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &private)
            .map_err(|error| Error::StoreUnavailable(format!("signing key {} cannot be read: {error}", record.kid)))?;
        let header = |kind: Kind| {
            let header = Header { typ: Some(kind.name().to_owned()), kid: Some(record.kid.clone()), ..Header::new(Algorithm::ES256) };
            serde_json::to_vec(&header).map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|error| signing_fault(&error))
        };
        Ok(Self { headers: [header(Kind::Access)?, header(Kind::Logout)?], private, public, record: record.clone() })
    }

    /// A JWT of this kind with these claims, signed (RFC 7515 section 7.1). Not by the library, which would read the key anew for each token,
    /// and that takes as long as to sign.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub(super) fn sign(&self, kind: Kind, claims: &impl Serialize) -> Result<String, Error> {
        let header = &self.headers[kind as usize];
        let claims = serde_json::to_vec(claims).map_err(|error| signing_fault(&error))?;
        let length = |bytes| base64::encoded_len(bytes, false).unwrap_or_default();
        let mut token = String::with_capacity(header.len() + length(claims.len()) + length(SIGNATURE) + 2);
        token.push_str(header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.private.sign(&SystemRandom::new(), token.as_bytes()).map_err(|error| signing_fault(&error))?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

fn signing_fault(error: &dyn fmt::Display) -> Error {
    Error::Internal(format!("signing a token failed: {error}"))
}
