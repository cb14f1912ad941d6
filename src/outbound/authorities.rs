//! Calls to third-party authorities, by the same client as every other call.

use async_trait::async_trait;
use url::Url;

use super::{Answer, CallError, Client};
use crate::core::{
    authorities::calls::{AuthorityClient, Reply},
    secret::Secret,
};

/// The most bytes of an answer that are read.
const LIMIT: usize = 64 * 1024;

fn reply(answered: Result<Answer, CallError>) -> Result<Reply, String> {
    answered
        .map(|Answer { status, body, whole }| Reply { status: status.as_u16(), body: whole.then_some(body) })
        .map_err(|error| error.to_string())
}

#[async_trait]
impl AuthorityClient for Client {
    fn may_call(&self, uri: &Url) -> bool {
        self.check(uri).is_ok()
    }

    async fn post_form(&self, uri: &Url, form: &[(&str, &str)]) -> Result<Reply, String> {
        reply(Client::post_form(self, uri, form, LIMIT).await)
    }

    async fn get_with_bearer(&self, uri: &Url, token: &Secret) -> Result<Reply, String> {
        reply(Client::get_with_bearer(self, uri, token, LIMIT).await)
    }
}
