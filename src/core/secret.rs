//! Values that must not be seen: how they are made, held, compared and stored.

use std::fmt;

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_bytes::{ByteArray, Bytes};
use zeroize::{Zeroize as _, Zeroizing};

use super::Error;

/// Up to how many bytes are hashed in one piece.
const AT_ONCE: usize = 1024;

/// A text that is not left in memory. It is boxed, as `zeroize` overwrites that at once, and a `String` byte by byte.
pub type Wiped = Zeroizing<Box<str>>;

/// Takes a text, and leaves none of it behind.
#[must_use]
pub fn wiped(text: impl Into<String>) -> Wiped {
    let mut text = text.into();
    if text.capacity() == text.len() {
        return Wiped::new(text.into_boxed_str());
    }
    // To give back the room that it has to spare may move it.
    let boxed = Wiped::new(text.as_str().into());
    text.as_mut_str().zeroize();
    boxed
}

/// A text that is neither printed nor left in memory.
#[derive(Clone)]
pub struct Secret(Wiped);

impl Secret {
    /// Takes a secret that exists already.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(wiped(value))
    }

    /// Makes 256 random bits, as 43 base64url characters.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn random() -> Result<Self, Error> {
        Ok(Self::new(URL_SAFE_NO_PAD.encode(random_bytes::<32>()?)))
    }

    /// The value itself. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the two are equal, in a time that depends on their lengths alone.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), other).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Random bytes from the operating system's generator.
///
/// # Errors
/// [`Error::Internal`] when there are none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Error::Internal("the machine has no randomness to give".into()))?;
    Ok(bytes)
}

/// What the store keeps of a bearer value: SHA-256 over its kind and the value, so that a value of one kind can never be found as
/// another.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BearerHash([u8; 32]);

impl BearerHash {
    /// The hash of an authorization code.
    #[must_use]
    pub fn of_code(value: &str) -> Self {
        Self::of(b"code", value)
    }

    /// The hash of a ticket.
    #[must_use]
    pub fn of_ticket(value: &str) -> Self {
        Self::of(b"ticket", value)
    }

    /// The hash of an access token.
    #[must_use]
    pub fn of_access_token(value: &str) -> Self {
        Self::of(b"access-token", value)
    }

    /// The hash of an app's signature.
    #[must_use]
    pub fn of_signature(ak: &str, signature: &[u8]) -> Self {
        Self::of_parts(&[b"signature", ak.as_bytes(), signature])
    }

    /// The hash of what an app left to be told by.
    #[must_use]
    pub fn of_logout(app: &str, incarnation: &[u8; 16], origin: &str, logout_uri: &str) -> Self {
        Self::of_parts(&[b"logout", incarnation, app.as_bytes(), origin.as_bytes(), logout_uri.as_bytes()])
    }

    /// The hash of what makes a sign-in at an authority the only one of its kind.
    #[must_use]
    pub fn of_sign_in(value: &str) -> Self {
        Self::of(b"sign-in", value)
    }

    /// The hash of what a browser shows that has begun a sign-in at an authority.
    #[must_use]
    pub fn of_binding(value: &str) -> Self {
        Self::of(b"binding", value)
    }

    fn of(kind: &[u8], value: &str) -> Self {
        Self::of_parts(&[kind, value.as_bytes()])
    }

    fn of_parts(parts: &[&[u8]]) -> Self {
        // In one piece a hash takes half the time. All that is hashed at each call is short.
        let mut piece = Zeroizing::new([0; AT_ONCE]);
        let mut end = 0;
        for (at, part) in parts.iter().enumerate() {
            let begin = end + usize::from(at > 0);
            end = begin + part.len();
            match piece.get_mut(begin..end) {
                Some(place) => place.copy_from_slice(part),
                None => return Self::of_long_parts(parts),
            }
        }
        Self::of_digest(&digest::digest(&digest::SHA256, &piece[..end]))
    }

    fn of_long_parts(parts: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                context.update(&[0]);
            }
            context.update(part);
        }
        Self::of_digest(&context.finish())
    }

    fn of_digest(digest: &digest::Digest) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    /// Takes a hash from where it was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// As base64url where people may read it, else as its 32 bytes.
impl Serialize for BearerHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
        } else {
            Bytes::new(&self.0).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for BearerHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let bytes = URL_SAFE_NO_PAD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
            bytes.try_into().map(Self).map_err(|_| D::Error::custom("a hash has 32 bytes"))
        } else {
            ByteArray::deserialize(deserializer).map(|bytes| Self(bytes.into_array()))
        }
    }
}

impl fmt::Debug for BearerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BearerHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn one_value_has_another_hash_as_another_kind() {
        assert_ne!(BearerHash::of_code("v").as_bytes(), BearerHash::of_ticket("v").as_bytes());
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }

    #[test]
    fn ten_thousand_random_values_differ_and_share_no_structure() {
        let values: Vec<String> = (0..10_000).map(|_| Secret::random().unwrap().expose().to_owned()).collect();
        assert_eq!(values.iter().collect::<HashSet<_>>().len(), values.len());
        for position in 0..42 {
            let seen: HashSet<u8> = values.iter().map(|value| value.as_bytes()[position]).collect();
            assert_eq!(seen.len(), 64, "position {position} does not take every value");
        }
    }
}
