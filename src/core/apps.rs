//! What administrators do with apps.

use super::{
    Core, Error, Problem,
    clock::Timestamp,
    ids::{AppId, Incarnation, SecretId},
    model::{App, AppSecret},
    redirect,
    rights::Rights,
    secret::Secret,
    signatures::MAX_SECRETS,
};

/// The most URIs of each kind that an app may register.
const MAX_URIS: usize = 32;
/// The most bytes that all texts of an app may have: a record has a limit, too.
const MAX_TEXT: usize = 3072;
/// The longest display name, in bytes.
const MAX_DISPLAY_NAME: usize = 256;
/// The longest secret, in bytes.
const MAX_SECRET: usize = 128;
/// The fewest characters of a secret that nobody could guess.
const MIN_SAFE_SECRET: usize = 32;

/// What an administrator says of an app.
#[derive(Clone, Debug, Default)]
pub struct AppSpec {
    /// What people call it.
    pub display_name: String,
    /// Where codes may be sent.
    pub redirect_uris: Vec<String>,
    /// Where it may be told that a session has ended.
    pub logout_uris: Vec<String>,
    /// Whether an access token is not enough to refresh.
    pub refresh_requires_app_credential: bool,
    /// What it may do beyond what every app may.
    pub rights: Rights,
    /// Whether its signatures have to have a date, and work once.
    pub signature_requires_date: bool,
}

/// An app to make.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// The id; none: one is made.
    pub id: Option<String>,
    /// The secret; none: one is made.
    pub secret: Option<Secret>,
    /// Whether it may take part at once.
    pub enabled: bool,
    /// The rest.
    pub spec: AppSpec,
}

/// What an app's secret is sealed as.
#[must_use]
pub fn secret_purpose(id: &SecretId) -> String {
    format!("app secret {id}")
}

impl AppSpec {
    /// What is said of an app now.
    #[must_use]
    pub fn of(app: &App) -> Self {
        Self {
            display_name: app.display_name.clone(),
            redirect_uris: app.redirect_uris.clone(),
            logout_uris: app.logout_uris.clone(),
            refresh_requires_app_credential: app.refresh_requires_app_credential,
            rights: app.rights.clone(),
            signature_requires_date: app.signature_requires_date,
        }
    }

    /// Makes it so, where it passes [`AppSpec::check`].
    ///
    /// # Errors
    /// As [`AppSpec::check`].
    pub fn apply(self, app: &mut App) -> Result<(), Error> {
        self.check()?;
        app.display_name = self.display_name;
        app.redirect_uris = self.redirect_uris;
        app.logout_uris = self.logout_uris;
        app.refresh_requires_app_credential = self.refresh_requires_app_credential;
        app.rights = self.rights;
        app.signature_requires_date = self.signature_requires_date;
        Ok(())
    }

    /// Checks what an administrator said.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name of the field.
    pub fn check(&self) -> Result<(), Error> {
        if self.display_name.len() > MAX_DISPLAY_NAME {
            return Err(Error::parameter("display_name", Problem::TooLong));
        }
        if self.display_name.chars().any(char::is_control) {
            return Err(Error::parameter("display_name", Problem::Malformed));
        }
        for (field, uris) in [("redirect_uris", &self.redirect_uris), ("logout_uris", &self.logout_uris)] {
            if uris.len() > MAX_URIS {
                return Err(Error::parameter(field, Problem::TooLong));
            }
        }
        if let Some(at) = self.redirect_uris.iter().position(|uri| !redirect::may_register(uri)) {
            return Err(Error::parameter(format!("redirect_uris[{at}]"), Problem::Malformed));
        }
        let is_callable = |uri: &String| redirect::may_register(uri) && !uri.contains('*') && redirect::is_web(uri);
        if let Some(at) = self.logout_uris.iter().position(|uri| !is_callable(uri)) {
            return Err(Error::parameter(format!("logout_uris[{at}]"), Problem::Malformed));
        }
        let text = self.redirect_uris.iter().chain(&self.logout_uris).map(|uri| uri.len() + 5).sum::<usize>() + self.display_name.len();
        if text > MAX_TEXT {
            return Err(Error::parameter("redirect_uris", Problem::TooLong));
        }
        Ok(())
    }
}

impl Core {
    /// Makes an app, not stored yet, and the secret that was made for it, if one was.
    ///
    /// # Errors
    /// [`Error::Parameter`] with the name of the field, as `app.…` or `secret`.
    pub fn new_app(&self, new: NewApp) -> Result<(App, Option<Secret>), Error> {
        new.spec.check().map_err(|error| error.within("app"))?;
        let id = match new.id {
            // A comma in `Authorization` is two headers that a proxy has joined, so an app with one could never sign.
            Some(id) => {
                AppId::new(&id).filter(|id| !id.as_str().contains(',')).ok_or_else(|| Error::parameter("app.app_id", Problem::Malformed))?
            }
            None => AppId::random()?,
        };
        let now = self.now();
        let (secret, made) = self.new_secret(new.secret, now)?;
        let AppSpec { display_name, redirect_uris, logout_uris, refresh_requires_app_credential, rights, signature_requires_date } =
            new.spec;
        let app = App {
            id,
            incarnation: Incarnation::random()?,
            display_name,
            redirect_uris,
            logout_uris,
            enabled: new.enabled,
            refresh_requires_app_credential,
            secrets: vec![secret],
            created_at: now,
            updated_at: now,
            rights,
            signature_requires_date,
        };
        Ok((app, made))
    }

    /// Makes an app.
    ///
    /// # Errors
    /// As [`Core::new_app`]; [`Error::AlreadyExists`].
    pub async fn create_app(&self, new: NewApp) -> Result<(App, Option<Secret>), Error> {
        let (app, secret) = self.new_app(new)?;
        self.store.create_apps(vec![app.clone()]).await.map_err(|error| match error {
            Error::AlreadyExists { .. } => Error::AlreadyExists { name: "app.app_id".into() },
            other => other,
        })?;
        Ok((app, secret))
    }

    /// Seals a secret, or makes one.
    fn new_secret(&self, given: Option<Secret>, now: Timestamp) -> Result<(AppSecret, Option<Secret>), Error> {
        let problem = given.as_ref().map(Secret::expose).and_then(|text| match text {
            text if text.len() > MAX_SECRET => Some(Problem::TooLong),
            text if text.is_empty() || !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => Some(Problem::Malformed),
            _ => None,
        });
        if let Some(problem) = problem {
            return Err(Error::parameter("secret", problem));
        }
        let (value, made) = match given {
            Some(value) => (value, None),
            None => {
                let value = Secret::random()?;
                (value.clone(), Some(value))
            }
        };
        let id = SecretId::random()?;
        let sealed = self.vault.seal(&secret_purpose(&id), value.expose().as_bytes())?;
        Ok((AppSecret { id, sealed, short: value.expose().len() < MIN_SAFE_SECRET, created_at: now }, made))
    }

    /// Gives an app its second secret.
    ///
    /// # Errors
    /// [`Error::Parameter`]; [`Error::NotFound`]; [`Error::Precondition`] when it has two already.
    pub async fn add_app_secret(&self, id: &AppId, given: Option<Secret>) -> Result<(AppSecret, Option<Secret>), Error> {
        let now = self.now();
        let (secret, made) = self.new_secret(given, now)?;
        let added = secret.clone();
        self.store
            .update_app(
                id,
                Box::new(move |app| {
                    if app.secrets.len() >= MAX_SECRETS {
                        return Err(Error::Precondition("the app has two live secrets: remove one first"));
                    }
                    app.secrets.push(secret.clone());
                    app.updated_at = now;
                    Ok(())
                }),
            )
            .await?;
        Ok((added, made))
    }

    /// Takes a secret from an app.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when it is the last one.
    pub async fn remove_app_secret(&self, id: &AppId, secret: SecretId) -> Result<(), Error> {
        let now = self.now();
        self.store
            .update_app(
                id,
                Box::new(move |app| {
                    let at = app.secrets.iter().position(|live| live.id == secret).ok_or(Error::NotFound("secret"))?;
                    if app.secrets.len() == 1 {
                        return Err(Error::Precondition("it is the app's last secret: add another one first, or disable the app"));
                    }
                    app.secrets.remove(at);
                    app.updated_at = now;
                    Ok(())
                }),
            )
            .await?;
        Ok(())
    }

    /// Changes an app.
    ///
    /// # Errors
    /// [`Error::NotFound`], and whatever `change` refuses with.
    pub async fn update_app(
        &self,
        id: &AppId,
        change: impl Fn(&mut App) -> Result<(), Error> + Send + Sync + 'static,
    ) -> Result<App, Error> {
        let now = self.now();
        self.store
            .update_app(
                id,
                Box::new(move |app| {
                    change(app)?;
                    app.updated_at = now;
                    Ok(())
                }),
            )
            .await
    }
}
