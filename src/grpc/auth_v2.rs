//! `supos.auth.v2.AuthService`: operations 1, 2 and 10 to 14.

use tonic::{Request, Response, Status, async_trait};

use super::{
    convert,
    gate::{Answer, Call, Gate},
    pb::supos::auth::v2 as pb,
};
use crate::{
    caller::Cookies,
    core::{
        Core, Error, Tokens,
        authorities::{AuthoritySpec, NewAuthority, dance::Arrived},
        sign_in::Opened,
    },
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

const DONE: &str = "100000000";
const OK: &str = "OK";

#[async_trait]
impl pb::auth_service_server::AuthService for Service {
    async fn token(&self, request: Request<pb::TokenRequest>) -> Result<Response<pb::TokenResponse>, Status> {
        self.0.serve_grant("/supos.auth.v2.AuthService/Token", request, token).await
    }

    async fn create_identity_provider(
        &self,
        request: Request<pb::CreateIdentityProviderRequest>,
    ) -> Result<Response<pb::CreateIdentityProviderResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/CreateIdentityProvider", request, create_identity_provider).await
    }

    async fn authorize(&self, request: Request<pb::AuthorizeRequest>) -> Result<Response<pb::AuthorizeResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/Authorize", request, authorize).await
    }

    async fn sign_in(&self, request: Request<pb::SignInRequest>) -> Result<Response<pb::SignInResponse>, Status> {
        let cookies = self.0.cookies;
        self.0.serve("/supos.auth.v2.AuthService/SignIn", request, |call| sign_in(call, cookies)).await
    }

    async fn sign_out(&self, request: Request<pb::SignOutRequest>) -> Result<Response<pb::SignOutResponse>, Status> {
        let cookies = self.0.cookies;
        self.0.serve("/supos.auth.v2.AuthService/SignOut", request, |call| sign_out(call, cookies)).await
    }

    async fn complete_third_party_sign_in(
        &self,
        request: Request<pb::CompleteThirdPartySignInRequest>,
    ) -> Result<Response<pb::CompleteThirdPartySignInResponse>, Status> {
        let cookies = self.0.cookies;
        let rpc = "/supos.auth.v2.AuthService/CompleteThirdPartySignIn";
        self.0.serve(rpc, request, |call| complete_third_party_sign_in(call, cookies)).await
    }

    async fn get_jwks(&self, request: Request<pb::GetJwksRequest>) -> Result<Response<pb::GetJwksResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/GetJwks", request, jwks).await
    }
}

/// The name of a field of an authority as this operation has it.
fn field_of_authority(error: Error) -> Error {
    let of = |name: &str| match name {
        "display_name" => "clientName",
        "client_id" => "clientId",
        "client_secret" => "clientSecret",
        "authorization_uri" => "authorizationUri",
        "token_uri" => "tokenUri",
        "userinfo_uri" => "userinfoUri",
        _ => "logoutUri",
    };
    match error {
        Error::Parameter { name, problem } => Error::parameter(of(&name), problem),
        other => other,
    }
}

async fn create_identity_provider(call: Call) -> Result<Answer<pb::CreateIdentityProviderResponse>, Error> {
    let registrar = call.caller.registrar(call.core.settings.anonymous_authorities)?;
    let parameters = call.parameters()?;
    parameters.exactly("clientType", "internal")?;
    parameters.exactly("protocolType", "bluetron")?;
    let text = |name| parameters.required(name).map(str::to_owned);
    let new = NewAuthority {
        enabled: parameters.flag("enabled")?,
        client_secret: parameters.secret("clientSecret")?,
        spec: AuthoritySpec {
            display_name: parameters.optional("clientName").unwrap_or_default().to_owned(),
            client_id: text("clientId")?,
            authorization_uri: text("authorizationUri")?,
            token_uri: text("tokenUri")?,
            userinfo_uri: text("userinfoUri")?,
            logout_uri: text("logoutUri")?,
            link_by_name: true,
            create_users: false,
        },
    };
    let authority = call.core.register_authority(new, registrar).await.map_err(field_of_authority)?;
    let waits = authority.pending.is_some();
    tracing::info!(authority = %authority.id, waits, "an authority was registered: {}", authority.name.escape_default());
    let redirect_uri = call.core.third_party_redirect_uri();
    Ok(pb::CreateIdentityProviderResponse { redirect_uri, enabled: authority.enabled }.into())
}

async fn complete_third_party_sign_in(call: Call, cookies: Cookies) -> Result<Answer<pb::CompleteThirdPartySignInResponse>, Error> {
    let Arrived { opened, way_back } = convert::complete_third_party_sign_in(&call).await?;
    let Opened { ticket, browser, .. } = opened;
    let message = pb::CompleteThirdPartySignInResponse { code: DONE.to_owned(), message: OK.to_owned() };
    let answer = convert::redirect(&call, message, way_back);
    Ok(answer.with("set-cookie", cookies.of_ticket(ticket.expose())).with("set-cookie", cookies.of_browser(browser.expose())))
}

async fn token(call: Call) -> Result<Answer<pb::TokenResponse>, Error> {
    let Tokens { access_token, expires_in, refresh_token, grant } = convert::token(&call).await?;
    Ok(pb::TokenResponse {
        access_token: access_token.expose().to_owned(),
        expires_in: convert::seconds(expires_in),
        refresh_token: refresh_token.expose().to_owned(),
        username: grant.user.name.clone(),
        person_code: grant.user.person_code.clone(),
        company_code: grant.user.company_code.clone(),
        account_type: grant.user.account_type.into(),
    }
    .into())
}

async fn authorize(call: Call) -> Result<Answer<pb::AuthorizeResponse>, Error> {
    let authorized = convert::authorize(&call, false).await?;
    let message = pb::AuthorizeResponse { code: authorized.code.expose().to_owned(), message: OK.to_owned() };
    Ok(convert::redirect(&call, message, authorized.location))
}

async fn sign_in(call: Call, cookies: Cookies) -> Result<Answer<pb::SignInResponse>, Error> {
    let parameters = call.parameters()?;
    let user_name = parameters.required("userName")?;
    let opened = call.core.sign_in(user_name, parameters.secret("password")?, call.caller.source().clone()).await?;
    let Opened { signed_in, ticket, browser } = opened;
    tracing::info!(user = %signed_in.user.id, session = %signed_in.session.id, "a user has signed in");
    let message = pb::SignInResponse {
        ticket: ticket.expose().to_owned(),
        username: signed_in.user.name.clone(),
        person_code: signed_in.user.person_code.clone(),
        company_code: signed_in.user.company_code.clone(),
        account_type: signed_in.user.account_type.into(),
    };
    let answer = Answer::from(message).with("set-cookie", cookies.of_ticket(ticket.expose()));
    Ok(answer.with("set-cookie", cookies.of_browser(browser.expose())))
}

async fn sign_out(call: Call, cookies: Cookies) -> Result<Answer<pb::SignOutResponse>, Error> {
    call.parameters()?;
    let redirect_uri = convert::sign_out_of_browser(&call).await?;
    let message = pb::SignOutResponse { code: DONE.to_owned(), message: OK.to_owned(), redirect_uri };
    let answer = Answer::from(message);
    Ok(if call.caller.may_lose_ticket() { answer.with("set-cookie", cookies.without_ticket()) } else { answer })
}

async fn jwks(call: Call) -> Result<Answer<pb::GetJwksResponse>, Error> {
    let keys = published(&call.core);
    // Half of how long a key is published before it signs.
    let max_age = call.core.settings.signing_key_lead.as_secs() / 2;
    Ok(Answer::from(pb::GetJwksResponse { keys }).with("cache-control", format!("public, max-age={max_age}")))
}

fn published(core: &Core) -> Vec<pb::Jwk> {
    core.issuer
        .keys()
        .public(core.now())
        .into_iter()
        .map(|key| pb::Jwk {
            kty: "EC".to_owned(),
            r#use: "sig".to_owned(),
            alg: "ES256".to_owned(),
            kid: key.kid,
            crv: "P-256".to_owned(),
            x: key.x,
            y: key.y,
        })
        .collect()
}
