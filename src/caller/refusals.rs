//! What operators are told of signatures that were refused, and callers are not: why, and what the service took the request for.
//!
//! A task of its own writes it, so that neither what is written nor whether it is takes a caller any time.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    time::Duration,
};

use ::metrics::counter;
use tokio::{sync::mpsc, time::Instant};

use crate::sign::{Canonical, fingerprint};

/// How many may wait to be written. More are counted, and not written.
const QUEUE: usize = 256;
/// How long nothing more is written of an access key and address.
const EACH: Duration = Duration::from_mins(1);
/// How many lines are written in that time at the most, whatever access keys somebody makes up.
const LINES: usize = 600;
/// The most characters of an access key that are written.
const MAX_AK: usize = 128;

/// Why a signature is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    UnknownApp,
    WrongSignature,
    AppDisabled,
    NoDate,
    BadDate,
    DateOff,
    NoNonce,
    UsedBefore,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::UnknownApp => "unknown_app",
            Self::WrongSignature => "wrong_signature",
            Self::AppDisabled => "app_disabled",
            Self::NoDate => "no_date",
            Self::BadDate => "bad_date",
            Self::DateOff => "date_off",
            Self::NoNonce => "no_nonce",
            Self::UsedBefore => "used_before",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::UnknownApp => "no app has this access key, of which the SHA-256 stands here, for it may be a secret in the wrong place",
            Self::WrongSignature => {
                "compare the string with what `supos-auth sign --masked` makes of the client's request; where they are equal, the secret is another"
            }
            Self::AppDisabled => "the signature is right, and the app is disabled",
            Self::NoDate => "the signature is right; X-MC-Date is required and is not there",
            Self::BadDate => "the signature is right; X-MC-Date is not of the form yyyyMMddTHHmmssZ",
            Self::DateOff => "the signature is right; X-MC-Date is more than 5 minutes off: set the client's clock",
            Self::NoNonce => "the signature is right; over gRPC X-MC-Nonce is required and is not there",
            Self::UsedBefore => "the signature was used before: a client that makes two equal calls in one second has to add X-MC-Nonce",
        }
    }
}

/// A signature that was refused.
#[derive(Debug)]
struct Refusal {
    ak: String,
    address: Option<IpAddr>,
    reason: Reason,
    canonical: Canonical,
}

/// Takes notes of signatures that were refused.
#[derive(Clone, Debug)]
pub struct Refusals(mpsc::Sender<Refusal>);

impl Refusals {
    /// Takes notes, and starts the task that writes them. It ends with the last one who takes notes.
    #[must_use]
    pub fn start() -> Self {
        let (notes, queue) = mpsc::channel(QUEUE);
        tokio::spawn(write(queue));
        Self(notes)
    }

    pub(super) fn note(&self, ak: &str, address: Option<IpAddr>, reason: Reason, canonical: Canonical) {
        counter!("supos_auth_refused_signatures_total", "reason" => reason.name()).increment(1);
        let ak = ak.chars().take(MAX_AK).collect();
        // When there are too many at once, the count has to do.
        let _ = self.0.try_send(Refusal { ak, address, reason, canonical });
    }
}

async fn write(mut queue: mpsc::Receiver<Refusal>) {
    let keys = RandomState::new();
    // When a line was last written for an access key and address.
    let mut written: HashMap<u64, Instant> = HashMap::new();
    while let Some(Refusal { ak, address, reason, canonical }) = queue.recv().await {
        let key = keys.hash_one((&ak, address));
        written.retain(|_, at| at.elapsed() < EACH);
        if written.len() >= LINES || written.contains_key(&key) {
            continue;
        }
        written.insert(key, Instant::now());
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        // What is no app's may be anything: a secret, a password or a token of a client that has mixed them up.
        let ak = if reason == Reason::UnknownApp { fingerprint(&ak) } else { ak.escape_default().to_string() };
        // The canonical text has no control character, so it is written as it is, to be compared.
        let canonical = tracing::field::display(canonical.masked());
        tracing::warn!(ak, address, reason = reason.name(), canonical, "a signature is refused: {}", reason.advice());
    }
}
