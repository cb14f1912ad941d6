//! Who has signed a call.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Call,
    refusals::{Reason, Refusals},
};
use crate::{
    core::{
        Core, Error,
        model::App,
        signatures::{Signature, is_timely},
        throttle::Source,
    },
    sign::{Canonical, DATE, Form, GRPC, NONCE, Query, read_date},
    store::OneUse,
    telemetry,
};

/// What follows the scheme: an access key and a signature.
#[derive(Debug)]
pub(super) struct Credential {
    ak: String,
    /// None: what is there cannot be one.
    signature: Option<Signature>,
}

/// An app that has signed.
#[derive(Debug)]
pub(super) struct SignedBy {
    pub(super) app: Arc<App>,
    /// Whether the signature has a date that was checked, and works once.
    pub(super) dated: bool,
    /// That one time.
    pub(super) once: Once,
}

/// The one time that a signature works, until somebody takes it to use it up.
#[derive(Clone, Debug, Default)]
pub(super) struct Once(Arc<Mutex<Option<OneUse>>>);

impl Once {
    pub(super) fn take(&self) -> Option<OneUse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A signature that works once and was right. It has to be used up before anybody is told of anything that rests on it.
#[must_use]
#[derive(Debug)]
pub struct Unspent {
    once: Once,
    ak: String,
    canonical: Canonical,
}

impl Unspent {
    /// Uses it up before anything is done that rests on it, and gives false when it was used before.
    ///
    /// # Errors
    /// [`Error::StoreUnavailable`].
    pub async fn spend(&self, core: &Core, refusals: &Refusals, address: Option<IpAddr>) -> Result<bool, Error> {
        match self.once.take() {
            Some(using) => self.use_up(using, core, refusals, address).await,
            None => Ok(true),
        }
    }

    /// What a call has come to whose step was to use it up. Where there was nothing to do, that is still to be done.
    ///
    /// # Errors
    /// Those of the call; [`Error::CredentialRefused`] when it was used before; [`Error::StoreUnavailable`].
    pub async fn settle<T>(
        &self,
        outcome: Result<T, Error>,
        core: &Core,
        refusals: &Refusals,
        address: Option<IpAddr>,
    ) -> Result<T, Error> {
        match self.once.take() {
            Some(using) if !self.use_up(using, core, refusals, address).await? => return Err(Error::CredentialRefused),
            Some(_) => {}
            // This is how the step says so.
            None if matches!(outcome, Err(Error::CredentialRefused)) => self.was_used_before(refusals, address),
            None => {}
        }
        outcome
    }

    async fn use_up(&self, using: OneUse, core: &Core, refusals: &Refusals, address: Option<IpAddr>) -> Result<bool, Error> {
        let is_first = core.store.use_once(using).await?;
        if !is_first {
            self.was_used_before(refusals, address);
        }
        Ok(is_first)
    }

    fn was_used_before(&self, refusals: &Refusals, address: Option<IpAddr>) {
        refusals.note(&self.ak, address, Reason::UsedBefore, self.canonical.clone());
    }
}

/// Reads `{ak}-{signature}`. An access key may hold a hyphen, a signature holds none.
pub(super) fn read(credential: &str) -> Credential {
    let (ak, signature) = credential.rsplit_once('-').unwrap_or((credential, ""));
    Credential { ak: ak.to_owned(), signature: read_signature(signature) }
}

fn read_signature(text: &str) -> Option<Signature> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut signature = Signature::default();
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != signature.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in signature.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(signature)
}

/// What a call has to be signed as.
pub(super) fn canonical(call: &Call<'_>) -> Result<Canonical, Error> {
    let headers = call.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    match call.original {
        Some(original) => {
            let content_type = call.headers.get("x-original-content-type").map(http::HeaderValue::as_bytes).unwrap_or_default();
            let content_type =
                std::str::from_utf8(content_type).map_err(|_| Error::parameter("Content-Type", crate::core::Problem::Malformed))?;
            Canonical::new(Some(original.operation), original.method, original.path, content_type, original.query, headers)
        }
        None => Canonical::new(None, "POST", call.rpc, GRPC, &Query::default(), headers),
    }
}

/// The app that has signed a call, and its signature where that works once; none when none has that may. Whatever is wrong, it takes as much
/// work.
///
/// # Errors
/// [`Error::TooManyTries`]; [`Error::StoreUnavailable`].
pub(super) async fn verify(
    core: &Core,
    refusals: &Refusals,
    credential: &Credential,
    call: &Call<'_>,
    source: &Source,
) -> Result<Option<(SignedBy, Option<Unspent>)>, Error> {
    let canonical = canonical(call)?;
    // The usual form is this and a line feed.
    let text = canonical.text(Form::App);
    let shown = credential.signature.unwrap_or_default();
    let (app, matches) = core.check_signature(&credential.ak, text.as_bytes(), &shown).await?;
    let right = matches & credential.signature.is_some() & app.as_ref().is_some_and(|app| app.enabled);
    let refuse = |reason| {
        refusals.note(&credential.ak, source.address, reason, canonical.clone());
        Ok(None)
    };
    let guessable = app.as_ref().is_none_or(|app| app.is_guessable());
    core.throttle.signature(&credential.ak, source, right, guessable).await?;
    let app = match app {
        Some(app) if right => app,
        Some(_) if matches => return refuse(Reason::AppDisabled),
        Some(_) => return refuse(Reason::WrongSignature),
        None => return refuse(Reason::UnknownApp),
    };

    let native = call.original.is_none();
    if !native && !app.signature_requires_date {
        core.usage.note_undated(&app.id, core.now());
        telemetry::count_undated(&app.id);
        if core.throttle.is_new_source(app.id.as_str(), source).await? {
            // Such a header is as good as a password, so whoever has found one shows here.
            let address = source.address.map(|address| address.to_string()).unwrap_or_default();
            tracing::warn!(app = %app.id, address, "an app signs without a date from an address that it did not sign from since yesterday");
        }
        return Ok(Some((SignedBy { app, dated: false, once: Once::default() }, None)));
    }
    if native && canonical.header(NONCE).is_none_or(str::is_empty) {
        return refuse(Reason::NoNonce);
    }
    let Some(date) = canonical.header(DATE) else { return refuse(Reason::NoDate) };
    let Some(dated) = read_date(date) else { return refuse(Reason::BadDate) };
    if !is_timely(dated, core.clock.shown()) {
        return refuse(Reason::DateOff);
    }
    let once = Once(Arc::new(Mutex::new(Some(core.use_of_signature(&app, &shown, dated)))));
    let unspent = Unspent { once: once.clone(), ak: credential.ak.clone(), canonical };
    Ok(Some((SignedBy { app, dated: true, once }, Some(unspent))))
}
