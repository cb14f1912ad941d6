//! Native gRPC: every documented operation through the generated clients.
#![expect(deprecated, reason = "the older generations are deprecated, and served")]

use prost::Message as _;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use supos_auth::grpc::pb::supos::auth::{v1, v2, v281};
use tonic::{
    Code, Request, Response,
    metadata::{MetadataKey, MetadataValue},
};
use tonic_types::StatusExt;

use super::{
    call::{Call, Op, Reply, Status, Who},
    sign::{Signed, Signers},
};

/// A request that carries the caller's headers as metadata, and is signed when it is sent.
pub(crate) fn request<T>(message: T, who: &Who) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in &who.headers {
        let key = MetadataKey::from_bytes(name.as_bytes()).expect("a header name is a metadata key");
        let value = MetadataValue::try_from(value.as_bytes()).expect("a header value is a metadata value");
        request.metadata_mut().append(key, value);
    }
    if !who.signers.is_empty() {
        request.extensions_mut().insert(Signers(who.signers.clone()));
    }
    request
}

/// Sends the call as native gRPC.
pub(crate) async fn call(channel: Signed, call: &Call) -> Reply {
    match send(channel, call).await {
        Ok((headers, body)) => Reply { op: call.op, status: Status::Grpc(Code::Ok), headers, text: body.to_string(), body },
        Err(status) => refusal(call.op, status.as_ref()),
    }
}

type Sent = Result<(HeaderMap, Value), Box<tonic::Status>>;

fn received<T>(reply: Result<Response<T>, tonic::Status>, json: impl FnOnce(T) -> Value) -> Sent {
    let (metadata, message, _) = reply?.into_parts();
    Ok((metadata.into_headers(), json(message)))
}

async fn send(channel: Signed, call: &Call) -> Sent {
    let who = &call.who;
    let text = |name: &str| call.parameter(name);
    match call.op {
        Op::TokenV1 => {
            let message = v1::TokenRequest {
                grant_type: text("grantType"),
                code: text("code"),
                logout_uri: text("logoutUri"),
                refresh_token: text("refreshToken"),
                json: None,
            };
            let mut client = v1::auth_service_client::AuthServiceClient::new(channel);
            received(client.token(request(message, who)).await, |reply| {
                let mut json = tokens(&reply.access_token, reply.expires_in, &reply.refresh_token);
                json["username"] = reply.username.into();
                json["accountType"] = reply.account_type.into();
                json
            })
        }
        Op::TokenV2 | Op::CreateIdentityProvider | Op::Authorize | Op::SignIn | Op::SignOut | Op::ThirdParty | Op::Jwks => {
            send_v2(channel, call).await
        }
        Op::AuthorizeV281 | Op::ExchangeV281 | Op::RefreshV281 | Op::Username | Op::Valid | Op::SignOutV281 => {
            send_v281(channel, call).await
        }
    }
}

async fn send_v2(channel: Signed, call: &Call) -> Sent {
    let who = &call.who;
    let text = |name: &str| call.parameter(name);
    let mut client = v2::auth_service_client::AuthServiceClient::new(channel);
    match call.op {
        Op::TokenV2 => {
            let message = v2::TokenRequest {
                grant_type: text("grantType"),
                code: text("code"),
                logout_uri: text("logoutUri"),
                refresh_token: text("refreshToken"),
                json: None,
            };
            received(client.token(request(message, who)).await, |reply| {
                let mut json = tokens(&reply.access_token, reply.expires_in, &reply.refresh_token);
                json["username"] = reply.username.into();
                json["personCode"] = reply.person_code.into();
                json["companyCode"] = reply.company_code.into();
                json["accountType"] = reply.account_type.into();
                json
            })
        }
        Op::CreateIdentityProvider => {
            let message = v2::CreateIdentityProviderRequest {
                client_type: text("clientType"),
                protocol_type: text("protocolType"),
                client_name: text("clientName"),
                enabled: text("enabled") == "true",
                client_id: text("clientId"),
                client_secret: text("clientSecret"),
                authorization_uri: text("authorizationUri"),
                token_uri: text("tokenUri"),
                userinfo_uri: text("userinfoUri"),
                logout_uri: text("logoutUri"),
                json: None,
            };
            let reply = client.create_identity_provider(request(message, who)).await;
            received(reply, |reply| json!({"redirectUri": reply.redirect_uri, "enabled": reply.enabled}))
        }
        Op::Authorize => {
            let message = v2::AuthorizeRequest {
                response_type: text("responseType"),
                redirect_uri: text("redirectUri"),
                state: text("state"),
                appid: text("appid"),
                scope: text("scope"),
            };
            received(client.authorize(request(message, who)).await, |reply| json!({"code": reply.code, "message": reply.message}))
        }
        Op::SignIn => {
            let message = v2::SignInRequest { user_name: text("userName"), password: text("password"), json: None };
            received(client.sign_in(request(message, who)).await, |reply| {
                json!({
                    "ticket": reply.ticket,
                    "username": reply.username,
                    "personCode": reply.person_code,
                    "companyCode": reply.company_code,
                    "accountType": reply.account_type,
                })
            })
        }
        Op::SignOut => received(client.sign_out(request(v2::SignOutRequest::default(), who)).await, |reply| {
            signed_out(&reply.code, &reply.message, reply.redirect_uri)
        }),
        Op::ThirdParty => {
            let message = v2::CompleteThirdPartySignInRequest {
                protocol_type: text("protocolType"),
                code: text("code"),
                state: text("state"),
                error: text("error"),
            };
            let reply = client.complete_third_party_sign_in(request(message, who)).await;
            received(reply, |reply| json!({"code": reply.code, "message": reply.message}))
        }
        _ => received(client.get_jwks(request(v2::GetJwksRequest {}, who)).await, |reply| {
            let key = |key: v2::Jwk| json!({"kty": key.kty, "use": key.r#use, "alg": key.alg, "kid": key.kid, "crv": key.crv, "x": key.x, "y": key.y});
            json!({"keys": reply.keys.into_iter().map(key).collect::<Vec<_>>()})
        }),
    }
}

async fn send_v281(channel: Signed, call: &Call) -> Sent {
    let who = &call.who;
    let text = |name: &str| call.parameter(name);
    let mut client = v281::auth_service_client::AuthServiceClient::new(channel);
    match call.op {
        Op::AuthorizeV281 => {
            let message = v281::AuthorizeRequest {
                response_type: text("responseType"),
                appid: text("appid"),
                redirect_uri: text("redirectUri"),
                state: text("state"),
                scope: text("scope"),
            };
            received(client.authorize(request(message, who)).await, |reply| json!({"code": reply.code, "message": reply.message}))
        }
        Op::ExchangeV281 => {
            let message = v281::ExchangeCodeRequest {
                grant_type: text("grantType"),
                appid: text("appid"),
                code: text("code"),
                logout_uri: text("logoutUri"),
            };
            received(client.exchange_code(request(message, who)).await, |reply| {
                tokens(&reply.access_token, reply.expires_in, &reply.refresh_token)
            })
        }
        Op::RefreshV281 => {
            let message = v281::RefreshTokenRequest { refresh_token: text("refreshToken") };
            received(client.refresh_token(request(message, who)).await, |reply| {
                tokens(&reply.access_token, reply.expires_in, &reply.refresh_token)
            })
        }
        Op::Username => {
            let message = v281::GetUsernameRequest { access_token: text("accessToken") };
            let reply = client.get_username(request(message, who)).await;
            received(reply, |reply| json!({"message": reply.message, "username": reply.username}))
        }
        Op::Valid => {
            let message = v281::ValidateTokenRequest { access_token: text("accessToken") };
            received(client.validate_token(request(message, who)).await, |reply| json!({"valid": reply.valid}))
        }
        _ => {
            let message = v281::SignOutRequest { access_token: text("accessToken") };
            received(client.sign_out(request(message, who)).await, |reply| signed_out(&reply.code, &reply.message, reply.redirect_uri))
        }
    }
}

/// What is not there is not printed either.
fn signed_out(code: &str, message: &str, redirect_uri: Option<String>) -> Value {
    let mut body = json!({"code": code, "message": message});
    if let Some(redirect_uri) = redirect_uri {
        body["redirectUri"] = redirect_uri.into();
    }
    body
}

fn tokens(access: &str, expires_in: i64, refresh: &str) -> Value {
    json!({"accessToken": access, "expiresIn": expires_in.to_string(), "refreshToken": refresh})
}

/// A gRPC status as the reply that it is.
pub(crate) fn refusal(op: Op, status: &tonic::Status) -> Reply {
    let mut body = json!({"message": status.message()});
    if let Ok(details) = tonic_types::pb::Status::decode(status.details()) {
        body["conforms"] = (details.code == i32::from(status.code()) && details.message == status.message()).into();
    }
    if let Some(info) = status.get_details_error_info() {
        body["reason"] = info.reason.into();
        body["domain"] = info.domain.into();
        if let Some(number) = info.metadata.values().find_map(|value| value.parse::<i64>().ok()) {
            body["code"] = number.into();
        }
    }
    if let Some(request) = status.get_details_bad_request() {
        body["fields"] = request.field_violations.into_iter().map(|violation| violation.field).collect();
    }
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        body["retryAfter"] = delay.as_secs().into();
    }
    let text = format!("{:?}: {} {body}", status.code(), status.message());
    Reply { op, status: Status::Grpc(status.code()), headers: status.metadata().clone().into_headers(), body, text }
}
