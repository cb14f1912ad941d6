//! `supos.auth.v2.AuthService`: operations 1, 2 and 10 to 14.

use tonic::{Request, Response, Status, async_trait};

use super::{
    convert,
    gate::{Answer, Call, Gate},
    pb::supos::auth::v2 as pb,
};
use crate::{
    caller::{BROWSER_COOKIE, TICKET_COOKIE},
    core::{Core, Error, Tokens, browser::LIFETIME, sign_in::Opened},
};

/// The service.
#[derive(Debug)]
pub(super) struct Service(pub(super) Gate);

const DONE: &str = "100000000";
const OK: &str = "OK";

#[async_trait]
impl pb::auth_service_server::AuthService for Service {
    async fn token(&self, request: Request<pb::TokenRequest>) -> Result<Response<pb::TokenResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/Token", request, token).await
    }

    async fn create_identity_provider(
        &self,
        request: Request<pb::CreateIdentityProviderRequest>,
    ) -> Result<Response<pb::CreateIdentityProviderResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/CreateIdentityProvider", request, not_offered).await
    }

    async fn authorize(&self, request: Request<pb::AuthorizeRequest>) -> Result<Response<pb::AuthorizeResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/Authorize", request, authorize).await
    }

    async fn sign_in(&self, request: Request<pb::SignInRequest>) -> Result<Response<pb::SignInResponse>, Status> {
        let cookie = self.0.cookie();
        self.0.serve("/supos.auth.v2.AuthService/SignIn", request, |call| sign_in(call, cookie)).await
    }

    async fn sign_out(&self, request: Request<pb::SignOutRequest>) -> Result<Response<pb::SignOutResponse>, Status> {
        let cookie = self.0.cookie();
        self.0.serve("/supos.auth.v2.AuthService/SignOut", request, |call| sign_out(call, cookie)).await
    }

    async fn complete_third_party_sign_in(
        &self,
        request: Request<pb::CompleteThirdPartySignInRequest>,
    ) -> Result<Response<pb::CompleteThirdPartySignInResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/CompleteThirdPartySignIn", request, not_offered).await
    }

    async fn get_jwks(&self, request: Request<pb::GetJwksRequest>) -> Result<Response<pb::GetJwksResponse>, Status> {
        self.0.serve("/supos.auth.v2.AuthService/GetJwks", request, jwks).await
    }
}

/// Operations that come with third-party certification authorities.
async fn not_offered<T>(_: Call) -> Result<Answer<T>, Error> {
    Err(Error::NotOffered)
}

async fn token(call: Call) -> Result<Answer<pb::TokenResponse>, Error> {
    let Tokens { access_token, expires_in, refresh_token, grant } = convert::token(&call).await?;
    Ok(pb::TokenResponse {
        access_token: access_token.expose().to_owned(),
        expires_in: convert::seconds(expires_in),
        refresh_token: refresh_token.expose().to_owned(),
        username: grant.user.name,
        person_code: grant.user.person_code,
        company_code: grant.user.company_code,
        account_type: grant.user.account_type.into(),
    }
    .into())
}

async fn authorize(call: Call) -> Result<Answer<pb::AuthorizeResponse>, Error> {
    let app = call.parameters().ok().and_then(|parameters| parameters.optional("appid"));
    let authorized = convert::authorize(&call, app).await?;
    let message = pb::AuthorizeResponse { code: authorized.code.expose().to_owned(), message: OK.to_owned() };
    Ok(convert::redirect(&call, message, authorized.location))
}

async fn sign_in(call: Call, cookie: Cookie) -> Result<Answer<pb::SignInResponse>, Error> {
    let parameters = call.parameters()?;
    let user_name = parameters.required("userName")?;
    let opened = call.core.sign_in(user_name, parameters.secret("password")?, call.caller.source().clone()).await?;
    let Opened { signed_in, ticket, browser } = opened;
    tracing::info!(user = %signed_in.user.id, session = %signed_in.session.id, "a user has signed in");
    let message = pb::SignInResponse {
        ticket: ticket.expose().to_owned(),
        username: signed_in.user.name,
        person_code: signed_in.user.person_code,
        company_code: signed_in.user.company_code,
        account_type: signed_in.user.account_type.into(),
    };
    let answer = Answer::from(message).with("set-cookie", cookie.of_ticket(ticket.expose()));
    Ok(answer.with("set-cookie", cookie.of_browser(browser.expose())))
}

async fn sign_out(call: Call, cookie: Cookie) -> Result<Answer<pb::SignOutResponse>, Error> {
    call.parameters()?;
    match call.caller.ending()? {
        Some(signed_in) => call.core.sign_out(signed_in.session.id).await?,
        // Somebody else may be ending that session right now: nobody is told that it has ended before that is on disk.
        None if call.caller.showed_ticket() => call.core.store.flush().await?,
        None => {}
    }
    let message = pb::SignOutResponse { code: DONE.to_owned(), message: OK.to_owned(), redirect_uri: None };
    Ok(Answer::from(message).with("set-cookie", cookie.cleared()))
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

/// The cookies. They have no `Domain`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cookie {
    secure: bool,
}

impl Gate {
    fn cookie(&self) -> Cookie {
        Cookie { secure: self.secure_cookies }
    }
}

impl Cookie {
    fn holding(self, name: &str, value: &str) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}")
    }

    /// Ends with the browser.
    fn of_ticket(self, ticket: &str) -> String {
        self.holding(TICKET_COOKIE, ticket)
    }

    fn cleared(self) -> String {
        format!("{}; Max-Age=0", self.of_ticket(""))
    }

    /// By which the browser is known from now on. It goes to the sign-in alone, and survives a sign-out.
    fn of_browser(self, browser: &str) -> String {
        format!("{}; Max-Age={}", self.holding(BROWSER_COOKIE, browser), LIFETIME.as_secs())
    }
}
