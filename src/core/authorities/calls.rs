//! What the service asks authorities. How a call is made, and where it may go, is not known here.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

use super::uses::Uses;
use crate::core::{Error, secret::Secret};

/// How many sign-ins may wait for authorities at a time. A slow one must not use up what others need.
const AT_ONCE: usize = 64;

/// What came back from an authority.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; none: it was too long, or did not end in time.
    pub body: Option<Vec<u8>>,
}

/// Makes the calls. Redirects are not followed, and time and size are limited.
#[async_trait]
pub trait AuthorityClient: fmt::Debug + Send + Sync {
    /// Whether a URI could be called, as far as it says so itself: a name is judged by its addresses when it is called.
    fn may_call(&self, uri: &Url) -> bool;

    /// Sends a form by POST.
    ///
    /// # Errors
    /// Why there is no reply, in words for the log that hold nothing of the form.
    async fn post_form(&self, uri: &Url, form: &[(&str, &str)]) -> Result<Reply, String>;

    /// Fetches a URI with a Bearer token.
    ///
    /// # Errors
    /// As [`AuthorityClient::post_form`].
    async fn get_with_bearer(&self, uri: &Url, token: &Secret) -> Result<Reply, String>;
}

/// Who makes the calls, and how many at a time.
#[derive(Debug)]
pub struct Calls {
    client: OnceLock<Box<dyn AuthorityClient>>,
    places: Arc<Semaphore>,
    pub(super) uses: Arc<Uses>,
}

impl Default for Calls {
    fn default() -> Self {
        Self { client: OnceLock::new(), places: Arc::new(Semaphore::new(AT_ONCE)), uses: Arc::default() }
    }
}

impl Calls {
    /// Says who makes the calls, once: it has to know where the service listens, which is never called.
    pub fn by(&self, client: Box<dyn AuthorityClient>) {
        // A second one would change nothing.
        let _ = self.client.set(client);
    }

    pub(super) fn client(&self) -> Result<&dyn AuthorityClient, Error> {
        self.client.get().map(AsRef::as_ref).ok_or_else(|| Error::Internal("nobody makes calls to authorities".into()))
    }

    pub(super) fn may_call(&self, uri: &str) -> bool {
        Url::parse(uri).is_ok_and(|uri| self.client.get().is_some_and(|client| client.may_call(&uri)))
    }

    /// A place among those who wait for authorities.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::Busy { retry_after: Duration::from_secs(1) })
    }
}
