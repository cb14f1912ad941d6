//! What apps and users may do beyond what everybody may (docs/administration.md, "Rights").

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Error, Problem};

/// Something that only those may do to whom an administrator has given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Right {
    /// Everything: each other right, and for users the admin API.
    Admin,
    /// To register third-party certification authorities that are enabled at once.
    IdentityProvidersWrite,
    /// To ask about anybody's access token.
    TokensInspect,
    /// To end anybody's session with an access token of it.
    SessionsEnd,
    /// An app's alone: an access token that was given to it makes codes for every app.
    CodesAnyApp,
}

impl Right {
    /// All rights, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Admin, Self::IdentityProvidersWrite, Self::TokensInspect, Self::SessionsEnd, Self::CodesAnyApp];

    /// The name that administrators use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::IdentityProvidersWrite => "identity_providers.write",
            Self::TokensInspect => "tokens.inspect",
            Self::SessionsEnd => "sessions.end",
            Self::CodesAnyApp => "codes.any_app",
        }
    }

    /// Whether a signature without a checked date, which is as good as a password for ever, is too weak to carry it.
    #[must_use]
    pub const fn needs_date(self) -> bool {
        matches!(self, Self::Admin | Self::IdentityProvidersWrite)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rights of an app or user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights(Vec<Right>);

impl Rights {
    /// Reads the names that an administrator gave.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name `rights[N]` for one that there is not.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let mut rights = Vec::new();
        for (at, name) in names.into_iter().enumerate() {
            let right = Right::ALL.into_iter().find(|right| right.name() == name);
            rights.push(right.ok_or_else(|| Error::parameter(format!("rights[{at}]"), Problem::NotAllowed))?);
        }
        rights.sort_unstable();
        rights.dedup();
        Ok(Self(rights))
    }

    /// Those of these names that there are here. A newer version may know more: nobody gets anything here by them.
    pub fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let is_known = |name: &&str| Right::ALL.into_iter().any(|right| right.name() == *name);
        Self::of_names(names.into_iter().filter(is_known)).unwrap_or_default()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|right| right.name())
    }

    /// Whether this right is among them, or [`Right::Admin`], which is all of them.
    #[must_use]
    pub fn include(&self, right: Right) -> bool {
        self.0.contains(&Right::Admin) || self.0.contains(&right)
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that a signature without a checked date carries.
    #[must_use]
    pub fn without_date(&self) -> Self {
        Self(self.0.iter().copied().filter(|right| !right.needs_date()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_is_every_right_and_no_undated_signature_carries_it() {
        let admin = Rights::of_names(["admin"]).unwrap();
        assert!(Right::ALL.into_iter().all(|right| admin.include(right)));
        assert!(!Right::ALL.into_iter().any(|right| admin.without_date().include(right)));
        let all = Rights::of_names(Right::ALL.map(Right::name)).unwrap().without_date();
        assert_eq!(all.names().collect::<Vec<_>>(), ["tokens.inspect", "sessions.end", "codes.any_app"]);
    }

    #[test]
    fn a_right_that_there_is_not_is_named() {
        assert_eq!(Rights::of_names(["admin", "Admin"]), Err(Error::parameter("rights[1]", Problem::NotAllowed)));
    }
}
