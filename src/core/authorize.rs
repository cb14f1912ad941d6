//! Giving an app a code for a signed-in user (RFC 6749 section 4.1.1; docs/api.md, "Authorize").

use std::sync::Arc;

use super::{
    Core, Error, Problem,
    ids::AppId,
    model::{App, Code, Session},
    redirect,
    rights::Right,
    secret::{BearerHash, Secret},
};

/// The longest scope, in bytes.
const MAX_SCOPE: usize = 1024;
/// The longest state, in bytes.
const MAX_STATE: usize = 4096;

/// What an app asks for, by way of the user's browser.
#[derive(Debug)]
pub struct AuthorizeRequest {
    /// The app; none: the one whose redirect URIs match.
    pub app: Option<String>,
    /// Where the code goes.
    pub redirect_uri: String,
    /// What comes back with it.
    pub state: String,
    /// The scope.
    pub scope: String,
}

/// A code, and where it goes.
#[derive(Debug)]
pub struct Authorized {
    /// The code.
    pub code: Secret,
    /// The redirect URI, with the code and the state in its query.
    pub location: String,
}

impl Core {
    /// Gives a code for the user of `session`. `only_app` is the one app that the caller may make codes for, unless that app has the right
    /// to make them for all.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::UnknownApp`], [`Error::NoSingleApp`], [`Error::RedirectMismatch`], [`Error::NotAllowed`] for
    /// another app than `only_app`, [`Error::CredentialRefused`] when the session has ended meanwhile.
    pub async fn authorize(&self, session: &Session, only_app: Option<&AppId>, request: AuthorizeRequest) -> Result<Authorized, Error> {
        let app = self.check_authorize(&request).await?;
        if let Some(only) = only_app.filter(|only| **only != app.id) {
            let any = self.store.app(only).await?.is_some_and(|only| only.rights.include(Right::CodesAnyApp));
            if !any {
                return Err(Error::NotAllowed);
            }
        }
        let now = self.now();
        let code = Secret::random()?;
        let location = redirect::with_answer(&request.redirect_uri, code.expose(), &request.state);
        let record = Code {
            app: app.id.clone(),
            incarnation: app.incarnation,
            session: session.id,
            redirect_uri: request.redirect_uri,
            scope: request.scope.split([' ', ',']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
            expires_at: now.after(self.settings.code_lifetime),
            used: None,
            kept_until: now.after(self.settings.code_lifetime * 2),
        };
        self.store.create_code(BearerHash::of_code(code.expose()), record, now).await?;
        Ok(Authorized { code, location })
    }

    /// The app that asks, where what it asks for could be given to a user who is signed in.
    ///
    /// # Errors
    /// [`Error::Parameter`], [`Error::UnknownApp`], [`Error::NoSingleApp`], [`Error::RedirectMismatch`].
    pub async fn check_authorize(&self, request: &AuthorizeRequest) -> Result<Arc<App>, Error> {
        let too_long = [
            ("redirectUri", &request.redirect_uri, redirect::MAX_REDIRECT_URI),
            ("state", &request.state, MAX_STATE),
            ("scope", &request.scope, MAX_SCOPE),
        ]
        .into_iter()
        .find(|(_, value, longest)| value.len() > *longest);
        if let Some((name, ..)) = too_long {
            return Err(Error::parameter(name, Problem::TooLong));
        }
        let asked = redirect::Asked::read(&request.redirect_uri);
        let Some(id) = &request.app else { return self.app_of(asked.ok_or(Error::NoSingleApp)?).await };
        let app = self.enabled_app(id).await?.ok_or(Error::UnknownApp)?;
        if asked.is_some_and(|asked| asked.matches(&app.redirect_uris)) { Ok(app) } else { Err(Error::RedirectMismatch) }
    }

    /// The app of this id, if there is one and it is enabled.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn enabled_app(&self, id: &str) -> Result<Option<Arc<App>>, Error> {
        let Some(id) = AppId::new(id) else { return Ok(None) };
        Ok(self.store.app(&id).await?.filter(|app| app.enabled))
    }

    /// The one enabled app that has registered a redirect URI.
    async fn app_of(&self, redirect_uri: redirect::Asked<'_>) -> Result<Arc<App>, Error> {
        let mut found = None;
        let mut after = None;
        loop {
            let page = self.store.apps(after, 256).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            for app in page {
                if app.enabled && redirect_uri.matches(&app.redirect_uris) && found.replace(app).is_some() {
                    return Err(Error::NoSingleApp);
                }
            }
        }
        found.map(Arc::new).ok_or(Error::NoSingleApp)
    }
}
