//! What a new store begins with: one administrator with a one-time password, or the demo.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{StartError, master_key::write_secret};
use crate::{
    core::{
        Core, Error, OnPasswordChanged,
        apps::{AppSpec, NewApp},
        model::User,
        secret::Secret,
        users::{NewCredential, NewUser, UserSpec},
    },
    store::Origin,
};

/// The name of the first administrator.
const ADMINISTRATOR: &str = "admin";

/// What a store is made for.
pub(super) const fn origin(dev: bool) -> Origin {
    if dev { Origin::Demo } else { Origin::Production }
}

/// A demo stays a demo, and nothing else becomes one.
pub(super) fn check_origin(origin: Origin, dev: bool) -> Result<(), StartError> {
    match (origin, dev) {
        (Origin::Demo, true) | (Origin::Production, false) => Ok(()),
        (Origin::Demo, false) => {
            Err("this store was made by --dev and has passwords that everybody knows: give another --data-dir, or start it with --dev"
                .into())
        }
        (Origin::Production, true) => {
            Err("this store was not made by --dev, which would add passwords that everybody knows: give another --data-dir".into())
        }
    }
}

/// The file with the first administrator's one-time password. It goes when the password was changed.
#[derive(Clone, Debug)]
pub(super) struct InitialPassword(PathBuf);

impl InitialPassword {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("initial-admin-password"))
    }

    fn remove(&self) {
        match fs::remove_file(&self.0) {
            Ok(()) => tracing::info!(file = %self.0.display(), "the initial administrator's password was changed: its file is removed"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(file = %self.0.display(), "remove this file: its one-time password is not in use any more ({error})");
            }
        }
    }
}

impl OnPasswordChanged for InitialPassword {
    fn password_changed(&self, user_name: &str) {
        if user_name == ADMINISTRATOR {
            self.remove();
        }
    }
}

/// Makes what a new store begins with.
pub(super) async fn first_records(core: &Core, dev: bool, initial_password: &InitialPassword) -> Result<(), StartError> {
    if dev {
        tracing::warn!(
            "THIS IS THE DEMO: it has an app, a user and an administrator with secrets that everybody knows. Never put it where others can \
             reach it."
        );
    }
    if !core.store.users(None, 1).await?.is_empty() {
        // The password may have been changed just before the service was stopped.
        let administrator = core.store.user_named(ADMINISTRATOR).await?;
        if !administrator.is_some_and(|user| user.password_change_required) {
            initial_password.remove();
        }
        return Ok(());
    }
    if dev {
        return seed(core).await;
    }
    let password = Secret::random()?;
    write_secret(&initial_password.0, &password)?;
    let made = core.create_user(NewUser {
        name: ADMINISTRATOR.to_owned(),
        credential: NewCredential::OneTime(password),
        enabled: true,
        spec: UserSpec { account_type: 1, ..UserSpec::default() },
    });
    match made.await {
        Ok(_) => {}
        Err(Error::AlreadyExists { .. }) => {
            // Another service that begins on the same store has made it, with a password of its own.
            fs::remove_file(&initial_password.0)?;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    }
    tracing::warn!(
        user = ADMINISTRATOR,
        file = %initial_password.0.display(),
        "the store is new: it has one administrator, whose one-time password is in that file; sign in with `supos-auth login` to change it"
    );
    Ok(())
}

/// The demo (docs/api.md, "The demo").
async fn seed(core: &Core) -> Result<(), StartError> {
    let app = |id: &str, secret: &str, redirect_uris: &[&str], logout_uri: &str| {
        core.new_app(NewApp {
            id: Some(id.to_owned()),
            secret: Some(Secret::new(secret)),
            enabled: true,
            spec: AppSpec {
                display_name: id.to_owned(),
                redirect_uris: redirect_uris.iter().map(|&uri| uri.to_owned()).collect(),
                logout_uris: vec![logout_uri.to_owned()],
                ..AppSpec::default()
            },
        })
    };
    let apps = [
        app("demo-app", "demo-secret", &["http://127.0.0.1:9999/*", "http://localhost:9999/*"], "http://127.0.0.1:9999/logout")?,
        app("demo-app-2", "demo-secret-2", &["http://127.0.0.1:9998/callback"], "http://127.0.0.1:9998/logout")?,
    ];
    let users = [
        user(core, "demo", "demo-password", UserSpec { person_code: "P0001".into(), company_code: "C0001".into(), ..UserSpec::default() })
            .await?,
        user(core, ADMINISTRATOR, "admin-password", UserSpec { account_type: 1, ..UserSpec::default() }).await?,
    ];
    // A start that was killed between the two steps is made up for by the next one.
    for (app, _) in apps {
        if core.store.app(&app.id).await?.is_none() {
            made_by_anybody(core.store.create_apps(vec![app]).await)?;
        }
    }
    made_by_anybody(core.store.create_users(users.into()).await)?;
    Ok(())
}

/// Another service that begins on the same store may be quicker.
fn made_by_anybody(made: Result<(), Error>) -> Result<(), Error> {
    made.or_else(|error| if matches!(error, Error::AlreadyExists { .. }) { Ok(()) } else { Err(error) })
}

async fn user(core: &Core, name: &str, password: &str, spec: UserSpec) -> Result<User, StartError> {
    let credential = NewCredential::Hash(core.hasher.hash(Secret::new(password)).await?);
    Ok(core.new_user(NewUser { name: name.to_owned(), credential, enabled: true, spec }).await?)
}
