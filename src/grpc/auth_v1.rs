//! `supos.auth.v1.AuthService`: operation 3.

use tonic::{Request, Response, Status, async_trait};

use super::{
    convert,
    gate::{Answer, Call, Gate},
    pb::supos::auth::v1 as pb,
};
use crate::core::{Error, Tokens};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

#[async_trait]
impl pb::auth_service_server::AuthService for Service {
    async fn token(&self, request: Request<pb::TokenRequest>) -> Result<Response<pb::TokenResponse>, Status> {
        self.0.serve_grant("/supos.auth.v1.AuthService/Token", request, token).await
    }
}

async fn token(call: Call) -> Result<Answer<pb::TokenResponse>, Error> {
    let Tokens { access_token, expires_in, refresh_token, grant } = convert::token(&call).await?;
    Ok(pb::TokenResponse {
        access_token: access_token.expose().to_owned(),
        expires_in: convert::seconds(expires_in),
        refresh_token: refresh_token.expose().to_owned(),
        username: grant.user.name.clone(),
        account_type: grant.user.account_type.into(),
    }
    .into())
}
