//! How an app proves itself until it signs its calls: HTTP Basic (RFC 7617), over gRPC as the same metadata. This file is the only place.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::core::{Core, Error, ids::AppId, model::App, secret::Secret};

/// An app's id and secret.
#[derive(Debug)]
pub(super) struct Credential {
    id: String,
    secret: Secret,
}

/// Reads what follows the scheme.
pub(super) fn read(credential: &str) -> Option<Credential> {
    let text = String::from_utf8(STANDARD.decode(credential).ok()?).ok().map(Zeroizing::new)?;
    let (id, secret) = text.split_once(':')?;
    Some(Credential { id: id.to_owned(), secret: Secret::new(secret) })
}

/// The app, if the secret is one of its own and it is enabled.
pub(super) async fn verify(core: &Core, credential: &Credential) -> Result<Option<App>, Error> {
    let app = match AppId::new(&credential.id) {
        Some(id) => core.store.app(&id).await?,
        None => None,
    };
    let right = core.secret_matches(app.as_ref(), credential.secret.expose().as_bytes())?;
    Ok(app.filter(|_| right))
}
