//! What our pages give a browser to bring back: sealed, so that it can neither be read, changed nor made up, and good for half an hour.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::core::{
    Core, Error,
    clock::Timestamp,
    seal::Sealed,
    secret::{Secret, random_bytes},
};

/// How long somebody may take to sign in.
const LIFETIME: Duration = Duration::from_mins(30);

/// Where a browser goes once somebody has signed in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WayBack {
    /// A path and query of this service.
    pub(super) target: String,
    /// The name of the app that asks, and the host that it is at; none: it is a page of ours.
    pub(super) app: Option<(String, String)>,
}

/// What a form proves: that a page of ours was given to the very browser that sends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Form {
    /// SHA-256 of the browser's cookie.
    browser: [u8; 32],
    /// Where it goes on.
    pub(super) way_back: Option<WayBack>,
    /// Who has to change his password before he can sign in.
    pub(super) must_change: Option<String>,
}

/// A kind of thing that is sealed here.
pub(super) trait Kind: Serialize + DeserializeOwned {
    const PURPOSE: &'static str;
}

impl Kind for WayBack {
    const PURPOSE: &'static str = "way back";
}

impl Kind for Form {
    const PURPOSE: &'static str = "form";
}

/// What somebody brought back.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened<T> {
    /// It is good.
    Good(T),
    /// It was given out too long ago.
    Expired(T),
    /// We have not made it.
    Forged,
}

/// Seals something for a browser to bring back.
pub(super) fn seal<T: Kind>(core: &Core, value: &T) -> Result<String, Error> {
    let expires_at = core.now().after(LIFETIME);
    let plain = rmp_serde::to_vec(&(expires_at, value)).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(core.vault.seal(T::PURPOSE, &plain)?.as_bytes()))
}

/// Opens what [`seal`] has sealed.
pub(super) fn open<T: Kind>(core: &Core, shown: &str) -> Opened<T> {
    let read = || -> Option<(Timestamp, T)> {
        let sealed = URL_SAFE_NO_PAD.decode(shown).ok()?;
        let plain = core.vault.open_sealed(T::PURPOSE, &Sealed::from_bytes(sealed)).ok()?;
        rmp_serde::from_slice(&plain).ok()
    };
    match read() {
        Some((expires_at, value)) if core.now() < expires_at => Opened::Good(value),
        Some((_, value)) => Opened::Expired(value),
        None => Opened::Forged,
    }
}

/// The cookie that tells browsers apart before anybody has signed in.
pub(super) fn new_browser() -> Result<Secret, Error> {
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(random_bytes::<32>()?)))
}

impl Form {
    /// A form for the browser with this cookie.
    pub(super) fn new(cookie: &Secret, way_back: Option<WayBack>, must_change: Option<String>) -> Self {
        Self { browser: fingerprint(cookie.expose()), way_back, must_change }
    }

    /// Whether the browser with this cookie was given the form. Only a hash is compared, so that the time tells nothing of use.
    pub(super) fn is_of(&self, cookie: &str) -> bool {
        self.browser == fingerprint(cookie)
    }
}

fn fingerprint(cookie: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, cookie.as_bytes()).as_ref());
    hash
}
