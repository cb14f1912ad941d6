//! `supos.auth.admin.v1.SigningKeyService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{administered, page_size, page_token, pb, read_page_token, resource};
use crate::{
    core::{Core, Error, Problem, clock::Timestamp, model::SigningKey},
    grpc::{convert::timestamp, gate::Gate},
    issuer::{State, state},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

fn message(key: &SigningKey, all: &[SigningKey], now: Timestamp) -> pb::SigningKey {
    let state = match state(key, all, now) {
        State::Pending => pb::SigningKeyState::Pending,
        State::Active => pb::SigningKeyState::Active,
        State::Verifying => pb::SigningKeyState::Verifying,
        State::Expired => pb::SigningKeyState::Expired,
    };
    pb::SigningKey {
        name: format!("signingKeys/{}", key.kid),
        kid: key.kid.clone(),
        algorithm: "ES256".to_owned(),
        state: state.into(),
        create_time: Some(timestamp(key.created_at)),
        activate_time: Some(timestamp(key.activates_at)),
        retire_time: key.retired_at.map(timestamp),
        expire_time: key.expires_at.map(timestamp),
    }
}

async fn list_signing_keys(core: Arc<Core>, request: pb::ListSigningKeysRequest) -> Result<pb::ListSigningKeysResponse, Error> {
    let size = page_size(request.page_size)?;
    let after = read_page_token(&request.page_token)?;
    let mut keys = core.store.signing_keys().await?;
    keys.sort_by(|a, b| (a.created_at, &a.kid).cmp(&(b.created_at, &b.kid)));
    let begin = match after {
        // A key that has gone meanwhile cannot be gone on from.
        Some(kid) => keys.iter().position(|key| key.kid == kid).ok_or_else(|| Error::parameter("page_token", Problem::Malformed))? + 1,
        None => 0,
    };
    let page = &keys[begin..keys.len().min(begin + size)];
    let more = begin + page.len() < keys.len();
    let now = core.now();
    Ok(pb::ListSigningKeysResponse {
        signing_keys: page.iter().map(|key| message(key, &keys, now)).collect(),
        next_page_token: page.last().filter(|_| more).map(|key| page_token(&key.kid)).unwrap_or_default(),
    })
}

async fn shown(core: &Core, key: &SigningKey) -> Result<Option<pb::SigningKey>, Error> {
    Ok(Some(message(key, &core.store.signing_keys().await?, core.now())))
}

async fn add_signing_key(core: Arc<Core>, _: pb::AddSigningKeyRequest) -> Result<pb::AddSigningKeyResponse, Error> {
    let key = core.add_signing_key().await?;
    Ok(pb::AddSigningKeyResponse { signing_key: shown(&core, &key).await? })
}

async fn retire_signing_key(core: Arc<Core>, request: pb::RetireSigningKeyRequest) -> Result<pb::RetireSigningKeyResponse, Error> {
    let key = core.retire_signing_key(resource("name", "signingKeys", &request.name)?).await?;
    Ok(pb::RetireSigningKeyResponse { signing_key: shown(&core, &key).await? })
}

administered! {
    pb::signing_key_service_server::SigningKeyService, "/supos.auth.admin.v1.SigningKeyService/", {
        list_signing_keys(ListSigningKeysRequest) -> ListSigningKeysResponse = "ListSigningKeys";
        add_signing_key(AddSigningKeyRequest) -> AddSigningKeyResponse = "AddSigningKey";
        retire_signing_key(RetireSigningKeyRequest) -> RetireSigningKeyResponse = "RetireSigningKey";
    }
}
