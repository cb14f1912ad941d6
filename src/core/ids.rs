//! The names of things.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_bytes::{ByteArray, Bytes};

use super::{Error, clock::Timestamp, secret::random_bytes};

/// Writes 16 bytes as lower-case hexadecimal digits.
struct Hex<'a>(&'a [u8; 16]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(*self.0))
    }
}

/// Reads 16 bytes from 32 lower-case hexadecimal digits.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

/// A new random name: 32 lower-case hexadecimal digits, which no command line takes for an option.
///
/// # Errors
/// [`Error::Internal`] when the machine has no randomness to give.
pub fn random_name() -> Result<String, Error> {
    Ok(Hex(&random_bytes::<16>()?).to_string())
}

/// An app's id, which is its access key on the wire: 1 to 128 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppId(String);

impl AppId {
    /// Takes an id as a caller sent it.
    ///
    /// Ids that read like a user's are not taken, so that the `client_id` and the `sub` of a token never name the same
    /// (RFC 9700 section 4.15).
    #[must_use]
    pub fn new(id: &str) -> Option<Self> {
        let printable = !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| (0x21..0x7f).contains(&b));
        (printable && UserId::from_str(id).is_err()).then(|| Self(id.to_owned()))
    }

    /// Makes a new id: 32 hexadecimal digits.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn random() -> Result<Self, Error> {
        random_name().map(Self)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// That a text names nothing of the kind that was asked for.
#[derive(Clone, Copy, Debug)]
pub struct NotAnId;

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes a new id.
            ///
            /// # Errors
            /// [`Error::Internal`] when the machine has no randomness to give.
            pub fn random() -> Result<Self, Error> {
                random_bytes().map(Self)
            }

            /// The id of these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 16 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), Hex(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                text.strip_prefix($prefix).and_then(parse_hex).map(Self).ok_or(NotAnId)
            }
        }

        /// As text where people may read it, else as its 16 bytes.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() { serializer.collect_str(self) } else { Bytes::new(&self.0).serialize(serializer) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(|_| D::Error::custom(concat!("this is no ", stringify!($name))))
                } else {
                    ByteArray::deserialize(deserializer).map(|bytes| Self(bytes.into_array()))
                }
            }
        }
    };
}

random_id! {
    /// A user's stable id, the `sub` of his tokens: `usr_` and 32 hexadecimal digits.
    UserId, "usr_"
}

random_id! {
    /// A session's id, the `sid` of its tokens: 32 hexadecimal digits.
    SessionId, ""
}

random_id! {
    /// The id of one of an app's secrets: 32 hexadecimal digits.
    SecretId, ""
}

random_id! {
    /// One life of an app: an app that is deleted and made again under the same id does not get the old one's tokens.
    Incarnation, ""
}

random_id! {
    /// The id of a call that tells an app of a sign-out: 32 hexadecimal digits.
    LogoutId, ""
}

impl LogoutId {
    /// Makes the id of a call that is owed from `now` on: later ones come after earlier ones.
    ///
    /// # Errors
    /// [`Error::Internal`] when the machine has no randomness to give.
    pub fn at(now: Timestamp) -> Result<Self, Error> {
        let mut id = random_bytes::<16>()?;
        id[..8].copy_from_slice(&now.millis().to_be_bytes());
        Ok(Self(id))
    }
}

random_id! {
    /// The id of a third-party certification authority: 32 hexadecimal digits.
    AuthorityId, ""
}

/// A refresh token family: what one redeemed code gave out, and all that came of it by refreshing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FamilyId {
    /// The session that the family belongs to.
    pub session: SessionId,
    /// Families of one session are numbered from 0.
    pub number: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_cannot_be_named_like_a_user() {
        assert!(AppId::new(&UserId::random().unwrap().to_string()).is_none());
        assert!(AppId::new("usr_1").is_some());
    }

    #[test]
    fn an_app_id_is_printable_ascii() {
        for bad in ["", "a b", "é", "a\n", &"x".repeat(129)] {
            assert!(AppId::new(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_id_reads_back_and_has_one_spelling() {
        let id = SessionId::random().unwrap();
        assert_eq!(id.to_string().parse::<SessionId>().unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<SessionId>().is_err() || id.to_string().bytes().all(|b| b.is_ascii_digit()));
        assert!("+0000000000000000000000000000001".parse::<SessionId>().is_err());
    }
}
