//! `supos.auth.v281.AuthService`: operations 4 to 9.

use tonic::{Request, Response, Status, async_trait};

use super::{
    convert,
    gate::{Answer, Call, Gate},
    pb::supos::auth::v281 as pb,
};
use crate::core::{Error, Problem, rights::Right};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

#[async_trait]
impl pb::auth_service_server::AuthService for Service {
    async fn authorize(&self, request: Request<pb::AuthorizeRequest>) -> Result<Response<pb::AuthorizeResponse>, Status> {
        self.0.serve("/supos.auth.v281.AuthService/Authorize", request, authorize).await
    }

    async fn exchange_code(&self, request: Request<pb::ExchangeCodeRequest>) -> Result<Response<pb::ExchangeCodeResponse>, Status> {
        self.0.serve_grant("/supos.auth.v281.AuthService/ExchangeCode", request, exchange_code).await
    }

    async fn refresh_token(&self, request: Request<pb::RefreshTokenRequest>) -> Result<Response<pb::RefreshTokenResponse>, Status> {
        self.0.serve_grant("/supos.auth.v281.AuthService/RefreshToken", request, refresh_token).await
    }

    async fn get_username(&self, request: Request<pb::GetUsernameRequest>) -> Result<Response<pb::GetUsernameResponse>, Status> {
        self.0.serve("/supos.auth.v281.AuthService/GetUsername", request, get_username).await
    }

    async fn validate_token(&self, request: Request<pb::ValidateTokenRequest>) -> Result<Response<pb::ValidateTokenResponse>, Status> {
        self.0.serve("/supos.auth.v281.AuthService/ValidateToken", request, validate_token).await
    }

    async fn sign_out(&self, request: Request<pb::SignOutRequest>) -> Result<Response<pb::SignOutResponse>, Status> {
        self.0.serve("/supos.auth.v281.AuthService/SignOut", request, sign_out).await
    }
}

async fn authorize(call: Call) -> Result<Answer<pb::AuthorizeResponse>, Error> {
    let authorized = convert::authorize(&call, true).await?;
    let message = pb::AuthorizeResponse { code: authorized.code.expose().to_owned(), message: "OK".to_owned() };
    Ok(convert::redirect(&call, message, authorized.location))
}

async fn exchange_code(call: Call) -> Result<Answer<pb::ExchangeCodeResponse>, Error> {
    let app = call.caller.app()?;
    let parameters = call.parameters()?;
    parameters.exactly("grantType", "authorization_code")?;
    let named = parameters.required("appid")?;
    let code = parameters.required("code")?;
    if call.core.enabled_app(named).await?.is_none() {
        return Err(Error::UnknownApp);
    }
    if named != app.as_str() {
        return Err(Error::parameter("appid", Problem::NotAllowed));
    }
    let logout_uri = parameters.optional("logoutUri").unwrap_or_default().to_owned();
    let tokens = call.core.exchange(app, code, logout_uri, call.caller.take_use()).await?;
    Ok(pb::ExchangeCodeResponse {
        access_token: tokens.access_token.expose().to_owned(),
        expires_in: convert::seconds(tokens.expires_in),
        refresh_token: tokens.refresh_token.expose().to_owned(),
    }
    .into())
}

async fn refresh_token(call: Call) -> Result<Answer<pb::RefreshTokenResponse>, Error> {
    let by = call.caller.refresher()?;
    let refresh_token = call.parameters()?.required("refreshToken")?;
    let tokens = call.core.refresh(refresh_token, by, call.caller.take_use()).await?;
    Ok(pb::RefreshTokenResponse {
        access_token: tokens.access_token.expose().to_owned(),
        expires_in: convert::seconds(tokens.expires_in),
        refresh_token: tokens.refresh_token.expose().to_owned(),
    }
    .into())
}

async fn get_username(call: Call) -> Result<Answer<pb::GetUsernameResponse>, Error> {
    let asker = call.caller.asker(Right::TokensInspect)?;
    let access_token = call.parameters()?.required("accessToken")?;
    let grant = call.core.inspect_for(&asker, access_token).await?.ok_or(Error::AccessTokenRefused)?;
    Ok(pb::GetUsernameResponse { message: grant.user.name.clone(), username: grant.user.name.clone() }.into())
}

async fn validate_token(call: Call) -> Result<Answer<pb::ValidateTokenResponse>, Error> {
    // A token may ask about itself, whatever it is, so this one parameter is read before the caller is judged.
    let access_token = call.parameters().and_then(|parameters| parameters.required("accessToken"));
    let valid = match access_token {
        Ok(access_token) if call.caller.shows(access_token) => call.caller.bearer_is_good(),
        _ => {
            let asker = call.caller.asker(Right::TokensInspect)?;
            call.core.inspect_for(&asker, access_token?).await?.is_some()
        }
    };
    Ok(pb::ValidateTokenResponse { valid }.into())
}

async fn sign_out(call: Call) -> Result<Answer<pb::SignOutResponse>, Error> {
    let access_token = call.parameters().and_then(|parameters| parameters.required("accessToken"));
    let token = match access_token {
        // A token of ours may end its own session, whatever has become of it; any other is no credential.
        Ok(access_token) if call.caller.shows(access_token) => call.caller.presented().cloned().ok_or(Error::CredentialRefused)?,
        _ => {
            let asker = call.caller.ender()?;
            call.core.read_for(&asker, access_token?).await?
        }
    };
    let redirect_uri = call.core.sign_out(token.family.session).await?;
    Ok(pb::SignOutResponse { code: "100000000".to_owned(), message: "OK".to_owned(), redirect_uri }.into())
}
