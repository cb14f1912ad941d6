//! Resource names: what the API calls the things that people name by their id.

use std::{convert::Infallible, str::FromStr};

use clap::Args;

/// The name of an app. An app's id may hold any printable character, so there is no other way to write it.
pub(crate) fn app(app_id: &str) -> String {
    format!("apps/{app_id}")
}

/// The name of an app's secret, given by its id or by its name.
pub(crate) fn app_secret(app_id: &str, secret: &str) -> String {
    with_prefix(&format!("{}/secrets/", app(app_id)), secret)
}

/// The name of a session, given by its id or by its name.
pub(crate) fn session(session: &str) -> String {
    with_prefix("sessions/", session)
}

/// The name of a signing key, given by its id or by its name.
pub(crate) fn signing_key(kid: &str) -> String {
    with_prefix("signingKeys/", kid)
}

/// The id in a resource name, for people to read.
pub(crate) fn id(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, id)| id)
}

fn with_prefix(prefix: &str, text: &str) -> String {
    if text.starts_with(prefix) { text.to_owned() } else { format!("{prefix}{text}") }
}

/// The app that a command is about.
#[derive(Debug, Args)]
pub(crate) struct AppArg {
    /// The app's id.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) app_id: String,
}

/// The user that a command is about.
#[derive(Debug, Args)]
pub(crate) struct UserArg {
    /// The user's name, or `users/ID` for the user with that id.
    pub(crate) user: UserName,
}

/// A user by name or id, as the API writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserName(pub(crate) String);

impl UserName {
    /// The name or the id, for people to read.
    pub(crate) fn shown(&self) -> &str {
        self.0.strip_prefix("users/~").unwrap_or(&self.0)
    }
}

impl FromStr for UserName {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        // `users/~NAME` passes through here, too: that is how to name somebody who is really called `users/…`.
        Ok(Self(if text.starts_with("users/") { text.to_owned() } else { format!("users/~{text}") }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_go_by_name_or_id() {
        let name = |text: &str| text.parse::<UserName>().unwrap().0;
        assert_eq!(name("admin"), "users/~admin");
        assert_eq!(name("~admin"), "users/~~admin");
        assert_eq!(name("a/b"), "users/~a/b");
        assert_eq!(name("users/0197"), "users/0197");
        assert_eq!(name("users/~admin"), "users/~admin");
    }

    #[test]
    fn ids_and_names_are_taken() {
        assert_eq!(app_secret("shop", "1"), "apps/shop/secrets/1");
        assert_eq!(app_secret("shop", "apps/shop/secrets/1"), "apps/shop/secrets/1");
        assert_eq!(session("sessions/s"), session("s"));
        assert_eq!(signing_key("k"), "signingKeys/k");
        assert_eq!(id("apps/shop/secrets/1"), "1");
    }
}
