//! Sealing: what has to be read back is kept encrypted under keys that the store does not have.
//!
//! The store holds one random root key, sealed under the master key, which is in a file that the store never sees. Everything else
//! hangs on the root key, so that a new master key costs one record.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, RandomizedNonceKey, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zeroize::{Zeroize, Zeroizing};

use super::{
    Error,
    ids::{FamilyId, SessionId},
    secret::{Secret, random_bytes},
};

/// Something sealed with AES-256-GCM: a random nonce, the ciphertext and the tag.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

/// As base64url where people may read it, else as its bytes.
impl Serialize for Sealed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
        } else {
            serializer.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Sealed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            URL_SAFE_NO_PAD.decode(String::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
        } else {
            serde_bytes::deserialize(deserializer).map(Self)
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

impl Sealed {
    /// Takes what was sealed before, from where it was kept.
    #[must_use]
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to keep.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const NONCE: usize = 12;

fn seal(key: &[u8; 32], what: &str, plain: &[u8]) -> Result<Sealed, Error> {
    let fault = |_| Error::Internal(format!("sealing {what} failed"));
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(fault)?;
    let mut text = plain.to_vec();
    let nonce = key.seal_in_place_append_tag(Aad::from(what.as_bytes()), &mut text).map_err(fault)?;
    let mut sealed = nonce.as_ref().to_vec();
    sealed.append(&mut text);
    Ok(Sealed(sealed))
}

fn open(key: &[u8; 32], what: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Error> {
    let fault = || Error::StoreUnavailable(format!("{what} cannot be opened: it was changed, or sealed under another key"));
    let key = RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| fault())?;
    let (nonce, text) = sealed.0.split_at_checked(NONCE).ok_or_else(fault)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| fault())?;
    let mut text = Zeroizing::new(text.to_vec());
    let length = key.open_in_place(nonce, Aad::from(what.as_bytes()), &mut text).map_err(|_| fault())?.len();
    text.truncate(length);
    Ok(text)
}

/// The key that seals the root key. It comes from a file of 32 bytes and is never stored.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// The length of a master key, in bytes.
    pub const LENGTH: usize = 32;

    /// Takes the key.
    #[must_use]
    pub fn new(mut bytes: [u8; 32]) -> Self {
        let key = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        key
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Seals secrets, and makes refresh tokens.
pub struct Vault {
    sealing: Zeroizing<[u8; 32]>,
    refresh_tokens: LessSafeKey,
    places: hmac::Key,
    /// Something to open where there is nothing.
    decoy: Sealed,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(…)")
    }
}

const ROOT: &str = "root key";
const DECOY: &str = "decoy";

/// Derives a key for one purpose from the root key (HKDF-SHA256, RFC 5869).
fn derive(root: &[u8], purpose: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut key = Zeroizing::new([0; 32]);
    Salt::new(HKDF_SHA256, b"supos-auth")
        .extract(root)
        .expand(&[purpose.as_bytes()], HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut()))
        .map_err(|_| Error::Internal(format!("deriving the key for {purpose} failed")))?;
    Ok(key)
}

impl Vault {
    /// Makes a root key, and gives it sealed for the store to keep.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn create(master: &MasterKey) -> Result<(Self, Sealed), Error> {
        let root = Zeroizing::new(random_bytes::<32>()?);
        let sealed = seal(&master.0, ROOT, root.as_ref())?;
        Ok((Self::of_root(root.as_ref())?, sealed))
    }

    /// Opens the root key that the store has kept.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when the master key is not the one that it was sealed under.
    pub fn open(master: &MasterKey, root: &Sealed) -> Result<Self, Error> {
        Self::of_root(&open(&master.0, ROOT, root)?)
    }

    /// Seals the root key under another master key.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn rewrap(old: &MasterKey, new: &MasterKey, root: &Sealed) -> Result<Sealed, Error> {
        seal(&new.0, ROOT, &open(&old.0, ROOT, root)?)
    }

    fn of_root(root: &[u8]) -> Result<Self, Error> {
        let refresh_tokens = derive(root, "refresh tokens")?;
        let refresh_tokens = UnboundKey::new(&AES_256_GCM_SIV, refresh_tokens.as_ref())
            .map_err(|_| Error::Internal("the key for refresh tokens is not one".into()))?;
        let sealing = derive(root, "sealing")?;
        let decoy = seal(&sealing, DECOY, &random_bytes::<32>()?)?;
        let places = hmac::Key::new(hmac::HMAC_SHA256, derive(root, "places of counts")?.as_ref());
        Ok(Self { sealing, refresh_tokens: LessSafeKey::new(refresh_tokens), places, decoy })
    }

    /// What the places are made with at which failures are counted, so that nobody can tell who shares one.
    #[must_use]
    pub fn key_of_places(&self) -> hmac::Key {
        self.places.clone()
    }

    /// Seals a secret. `what` says what it is and whose; it has to be the same when it is opened.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn seal(&self, what: &str, plain: &[u8]) -> Result<Sealed, Error> {
        seal(&self.sealing, what, plain)
    }

    /// Opens what [`Vault::seal`] sealed.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`] when it was changed, or is something else.
    pub fn open_sealed(&self, what: &str, sealed: &Sealed) -> Result<Zeroizing<Vec<u8>>, Error> {
        open(&self.sealing, what, sealed)
    }

    /// Opens a secret that nobody knows, where there is none to open, so that it takes as much work.
    ///
    /// # Errors
    /// As [`Vault::open_sealed`].
    pub fn open_decoy(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_sealed(DECOY, &self.decoy)
    }

    /// The refresh token of a family and generation: always the same one, so that it can be given out again and need not be stored.
    ///
    /// It is their AES-256-GCM-SIV encryption (RFC 8452). That scheme stands the fixed nonce: all that two tokens could show is that
    /// they are the same. To anybody else a token is 54 characters with no structure, and one that was not made here does not open.
    ///
    /// # Errors
    /// [`Error::Internal`] when encryption fails.
    pub fn refresh_token(&self, family: FamilyId, generation: u32) -> Result<Secret, Error> {
        let mut text = Vec::with_capacity(TOKEN + self.refresh_tokens.algorithm().tag_len());
        text.extend_from_slice(family.session.as_bytes());
        text.extend_from_slice(&family.number.to_be_bytes());
        text.extend_from_slice(&generation.to_be_bytes());
        self.refresh_tokens
            .seal_in_place_append_tag(Nonce::assume_unique_for_key([0; NONCE]), Aad::from(b"refresh token"), &mut text)
            .map_err(|_| Error::Internal("making a refresh token failed".into()))?;
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(text)))
    }

    /// The family and generation of a refresh token; none when it was not made here.
    #[must_use]
    pub fn read_refresh_token(&self, token: &str) -> Option<(FamilyId, u32)> {
        let mut text = URL_SAFE_NO_PAD.decode(token).ok()?;
        let plain =
            self.refresh_tokens.open_in_place(Nonce::assume_unique_for_key([0; NONCE]), Aad::from(b"refresh token"), &mut text).ok()?;
        let plain: [u8; TOKEN] = (&*plain).try_into().ok()?;
        let (session, rest) = plain.split_first_chunk::<16>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let (generation, _) = rest.split_first_chunk::<4>()?;
        let family = FamilyId { session: SessionId::from_bytes(*session), number: u32::from_be_bytes(*number) };
        Some((family, u32::from_be_bytes(*generation)))
    }
}

/// The length of a refresh token before encryption: session, number of the family, generation.
const TOKEN: usize = 16 + 4 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> MasterKey {
        MasterKey::new([byte; 32])
    }

    #[test]
    fn what_was_sealed_opens_only_as_what_it_is() {
        let (vault, _) = Vault::create(&master(1)).unwrap();
        let sealed = vault.seal("secret of a", b"value").unwrap();
        assert_eq!(vault.open_sealed("secret of a", &sealed).unwrap().as_slice(), b"value");
        assert!(vault.open_sealed("secret of b", &sealed).is_err());
        for at in 0..sealed.0.len() {
            let mut changed = sealed.clone();
            changed.0[at] ^= 1;
            assert!(vault.open_sealed("secret of a", &changed).is_err(), "byte {at}");
        }
        assert!(vault.open_sealed("secret of a", &Sealed(vec![])).is_err());
    }

    #[test]
    fn a_new_master_key_opens_what_the_old_one_did_and_the_old_one_does_not_any_more() {
        let (vault, root) = Vault::create(&master(1)).unwrap();
        let sealed = vault.seal("x", b"value").unwrap();
        let root = Vault::rewrap(&master(1), &master(2), &root).unwrap();
        assert!(Vault::open(&master(1), &root).is_err());
        let reopened = Vault::open(&master(2), &root).unwrap();
        assert_eq!(reopened.open_sealed("x", &sealed).unwrap().as_slice(), b"value");
    }

    #[test]
    fn a_refresh_token_reads_back_and_any_change_makes_it_nothing() {
        let (vault, _) = Vault::create(&master(1)).unwrap();
        let family = FamilyId { session: SessionId::random().unwrap(), number: 7 };
        let token = vault.refresh_token(family, 3).unwrap();
        assert_eq!(vault.refresh_token(family, 3).unwrap().expose(), token.expose());
        assert_eq!(vault.read_refresh_token(token.expose()), Some((family, 3)));
        for at in 0..token.expose().len() {
            let mut changed = token.expose().as_bytes().to_vec();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(vault.read_refresh_token(std::str::from_utf8(&changed).unwrap()), None, "character {at}");
        }
        for other in [format!("{}=", token.expose()), format!(" {}", token.expose()), token.expose()[1..].to_owned(), String::new()] {
            assert_eq!(vault.read_refresh_token(&other), None, "{other:?}");
        }
        let (stranger, _) = Vault::create(&master(1)).unwrap();
        assert_eq!(stranger.read_refresh_token(token.expose()), None);
    }

    #[test]
    fn refresh_tokens_of_one_family_share_nothing() {
        let (vault, _) = Vault::create(&master(1)).unwrap();
        let family = FamilyId { session: SessionId::random().unwrap(), number: 0 };
        let tokens: Vec<String> = (0..1000).map(|n| vault.refresh_token(family, n).unwrap().expose().to_owned()).collect();
        for position in 0..50 {
            let seen: std::collections::HashSet<u8> = tokens.iter().map(|token| token.as_bytes()[position]).collect();
            assert!(seen.len() > 60, "position {position} takes {} values", seen.len());
        }
    }
}
