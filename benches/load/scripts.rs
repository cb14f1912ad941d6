//! What callers say: the calls of each operation, made beforehand where they can be.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderName, HeaderValue, uri::PathAndQuery};
use prost::{Message as _, bytes::Bytes};
use serde::Deserialize;
use supos_auth::{
    core::{
        clock::{Clock as _, SystemClock},
        secret::Secret,
    },
    grpc::pb::supos::auth::{
        v2::{AuthorizeRequest, AuthorizeResponse, SignInRequest, TokenRequest, TokenResponse},
        v281::ValidateTokenRequest,
    },
    sign,
};

use crate::{
    Failure, ceiling,
    client::Call,
    closed::Script,
    population::{APP, APP_SECRET, PASSWORD, Population, REDIRECT_URI, ticket, user_name},
};

const VALIDATE: &str = "/supos.auth.v281.AuthService/ValidateToken";
const TOKEN: &str = "/supos.auth.v2.AuthService/Token";
const AUTHORIZE: &str = "/supos.auth.v2.AuthService/Authorize";
const SIGN_IN: &str = "/supos.auth.v2.AuthService/SignIn";
/// The V2 token operation over HTTP.
const TOKEN_PATH: &str = "/open-api/auth/v2/oauth2/token";

fn header(name: &'static str, value: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    Ok((HeaderName::from_static(name), HeaderValue::from_str(value)?))
}

fn headers<const N: usize>(headers: [(&'static str, &str); N]) -> Result<HeaderMap, Failure> {
    headers.into_iter().map(|(name, value)| header(name, value)).collect()
}

fn grpc(path: &'static str, headers: HeaderMap, message: &impl prost::Message) -> Call {
    Call { path: PathAndQuery::from_static(path), headers, body: message.encode_to_vec().into() }
}

fn valid_path(token: &str) -> String {
    format!("/open-api/supos/auth/v2/{token}/valid")
}

/// The empty method, over gRPC.
pub(crate) fn empty() -> Call {
    grpc(ceiling::METHOD, HeaderMap::new(), &())
}

/// The empty method, sent what these calls send.
pub(crate) fn empty_like(calls: &[Call]) -> Arc<[Call]> {
    calls.iter().map(|call| Call { path: PathAndQuery::from_static(ceiling::METHOD), ..call.clone() }).collect()
}

/// Whether `token` is good, asked by whoever holds `bearer`.
pub(crate) fn valid(bearer: &str, token: &str) -> Result<Call, Failure> {
    let message = ValidateTokenRequest { access_token: token.to_owned() };
    Ok(grpc(VALIDATE, headers([("authorization", &format!("Bearer {bearer}"))])?, &message))
}

/// The same over HTTP, of a token about itself.
pub(crate) fn valid_http(token: &str) -> Result<Call, Failure> {
    let headers = headers([("authorization", &format!("Bearer {token}"))])?;
    Ok(Call { path: valid_path(token).parse()?, headers, body: Bytes::new() })
}

/// The same as Envoy makes it, with a credential of its own.
fn valid_on_edge(token: &str, authorization: &str) -> Result<Call, Failure> {
    let path = valid_path(token);
    let headers = headers([("authorization", authorization), ("x-envoy-original-path", &path), ("x-envoy-original-method", "GET")])?;
    Ok(grpc(VALIDATE, headers, &ValidateTokenRequest { access_token: token.to_owned() }))
}

/// The same as Envoy makes it, of a token about itself.
pub(crate) fn valid_on_edge_by_bearer(token: &str) -> Result<Call, Failure> {
    valid_on_edge(token, &format!("Bearer {token}"))
}

/// The same as Envoy makes it, asked by the app with an undated signature.
pub(crate) fn valid_on_edge_signed(token: &str) -> Result<Call, Failure> {
    let request = sign::Request { method: "GET", target: &valid_path(token), content_type: "", headers: &[] };
    valid_on_edge(token, &sign::authorization(&request, APP, &Secret::new(APP_SECRET))?)
}

/// What an app adds to a native call: a signature that works once.
fn signed(path: &'static str) -> Result<HeaderMap, Failure> {
    let (date, nonce) = (sign::date(SystemClock.now()), Secret::random()?);
    let signed = [(sign::DATE, date.as_str()), (sign::NONCE, nonce.expose())];
    let request = sign::Request { method: "POST", target: path, content_type: sign::GRPC, headers: &signed };
    let authorization = sign::authorization(&request, APP, &Secret::new(APP_SECRET))?;
    headers([("authorization", &authorization), (sign::DATE, &date), (sign::NONCE, nonce.expose())])
}

/// Whether `token` is good, asked by the app with a dated signature.
pub(crate) fn valid_signed(token: &str) -> Result<Call, Failure> {
    Ok(grpc(VALIDATE, signed(VALIDATE)?, &ValidateTokenRequest { access_token: token.to_owned() }))
}

/// A code for tokens.
pub(crate) fn exchange(code: &str) -> Result<Call, Failure> {
    let message = TokenRequest {
        grant_type: "authorization_code".to_owned(),
        code: code.to_owned(),
        logout_uri: "http://127.0.0.1:9999/logout".to_owned(),
        ..TokenRequest::default()
    };
    Ok(grpc(TOKEN, signed(TOKEN)?, &message))
}

/// A code for the app, given to a session's user.
pub(crate) fn authorize(session: usize) -> Result<Call, Failure> {
    let message = AuthorizeRequest {
        response_type: "code".to_owned(),
        redirect_uri: REDIRECT_URI.to_owned(),
        state: "xyz".to_owned(),
        appid: APP.to_owned(),
        scope: "openid profile".to_owned(),
    };
    Ok(grpc(AUTHORIZE, headers([("cookie", &format!("suposTicket={}", ticket(session)))])?, &message))
}

/// A user signs in.
pub(crate) fn sign_in(user: usize) -> Call {
    let message = SignInRequest { user_name: user_name(user), password: PASSWORD.to_owned(), ..SignInRequest::default() };
    grpc(SIGN_IN, HeaderMap::new(), &message)
}

/// `{"valid":true}` over HTTP, in the spelling of Envoy.
pub(crate) fn says_valid_http(answer: &[u8]) -> bool {
    answer.starts_with(b"{\"valid\":true")
}

/// A `ValidateTokenResponse` that says yes.
pub(crate) fn says_valid(answer: &[u8]) -> bool {
    answer == [8, 1]
}

/// A message with nothing in it, which is a `ValidateTokenResponse` that says no, too.
pub(crate) fn is_empty(answer: &[u8]) -> bool {
    answer.is_empty()
}

/// Any answer.
pub(crate) fn is_anything(_: &[u8]) -> bool {
    true
}

/// The same calls, over and over.
struct Again {
    calls: Arc<[Call]>,
    next: usize,
    step: usize,
    is_right: fn(&[u8]) -> bool,
}

impl Script for Again {
    fn next(&mut self) -> Option<Call> {
        let call = self.calls[self.next % self.calls.len()].clone();
        self.next += self.step;
        Some(call)
    }

    fn answered(&mut self, answer: Bytes) -> bool {
        (self.is_right)(&answer)
    }
}

/// Scripts of so many callers who make the same calls in turn.
pub(crate) fn again(calls: &Arc<[Call]>, callers: usize, is_right: fn(&[u8]) -> bool) -> Vec<Box<dyn Script>> {
    let script = |first| -> Box<dyn Script> { Box::new(Again { calls: Arc::clone(calls), next: first, step: callers, is_right }) };
    (0..callers).map(script).collect()
}

/// Calls each of which is made once, by whoever comes.
pub(crate) type Once = Arc<Mutex<Vec<Call>>>;

struct EachOnce {
    calls: Once,
    is_right: fn(&[u8]) -> bool,
}

impl Script for EachOnce {
    fn next(&mut self) -> Option<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn answered(&mut self, answer: Bytes) -> bool {
        (self.is_right)(&answer)
    }
}

/// Scripts of so many callers who make each call once.
pub(crate) fn once(calls: Vec<Call>, callers: usize, is_right: fn(&[u8]) -> bool) -> Vec<Box<dyn Script>> {
    let calls = Arc::new(Mutex::new(calls));
    (0..callers).map(|_| -> Box<dyn Script> { Box::new(EachOnce { calls: Arc::clone(&calls), is_right }) }).collect()
}

/// Codes that were given out and not redeemed yet.
pub(crate) type Codes = Arc<Mutex<Vec<String>>>;

struct Authorizing {
    calls: Again,
    codes: Codes,
}

impl Script for Authorizing {
    fn next(&mut self) -> Option<Call> {
        self.calls.next()
    }

    fn answered(&mut self, answer: Bytes) -> bool {
        let Ok(answer) = AuthorizeResponse::decode(answer) else { return false };
        self.codes.lock().unwrap_or_else(PoisonError::into_inner).push(answer.code);
        true
    }
}

/// Scripts of so many callers who ask for codes, which are kept.
pub(crate) fn authorizing(calls: &Arc<[Call]>, callers: usize, codes: &Codes) -> Vec<Box<dyn Script>> {
    let script = |first| -> Box<dyn Script> {
        let calls = Again { calls: Arc::clone(calls), next: first, step: callers, is_right: is_anything };
        Box::new(Authorizing { calls, codes: Arc::clone(codes) })
    };
    (0..callers).map(script).collect()
}

/// Asks for a code, and redeems it.
struct Flowing {
    authorize: Again,
    code: Option<String>,
}

impl Script for Flowing {
    fn next(&mut self) -> Option<Call> {
        match &self.code {
            Some(code) => exchange(code).ok(),
            None => self.authorize.next(),
        }
    }

    fn answered(&mut self, answer: Bytes) -> bool {
        if self.code.take().is_some() {
            return TokenResponse::decode(answer).is_ok_and(|tokens| !tokens.refresh_token.is_empty());
        }
        self.code = AuthorizeResponse::decode(answer).ok().map(|answer| answer.code);
        self.code.is_some()
    }
}

/// Scripts of so many callers who ask for codes, each of whom redeems his before he asks for the next.
pub(crate) fn flowing(calls: &Arc<[Call]>, callers: usize) -> Vec<Box<dyn Script>> {
    let script = |first| -> Box<dyn Script> {
        let authorize = Again { calls: Arc::clone(calls), next: first, step: callers, is_right: is_anything };
        Box::new(Flowing { authorize, code: None })
    };
    (0..callers).map(script).collect()
}

/// The tokens of a family, each refresh giving the ones of the next.
#[derive(Clone, Debug)]
struct Tokens {
    access: String,
    refresh: String,
}

/// Families that are refreshed, each by one caller at a time.
pub(crate) type Families = Arc<Mutex<Vec<Chain>>>;

/// A family that is refreshed again and again.
pub(crate) struct Chain(Tokens);

impl Chain {
    /// The family of a session, whose first refresh token has not been used.
    fn new(access: String, refresh: String) -> Self {
        Self(Tokens { access, refresh })
    }

    /// The refresh of its newest token.
    pub(crate) fn call(&self, over_http: bool) -> Result<Call, Failure> {
        let authorization = format!("Bearer {}", self.0.access);
        if over_http {
            let body = format!(r#"{{"grantType":"refresh_token","refreshToken":"{}"}}"#, self.0.refresh);
            let headers = headers([("authorization", &authorization), ("content-type", "application/json")])?;
            return Ok(Call { path: PathAndQuery::from_static(TOKEN_PATH), headers, body: body.into() });
        }
        let message =
            TokenRequest { grant_type: "refresh_token".to_owned(), refresh_token: self.0.refresh.clone(), ..TokenRequest::default() };
        Ok(grpc(TOKEN, headers([("authorization", &authorization)])?, &message))
    }

    fn take(&mut self, answer: Bytes, over_http: bool) -> Result<(), Failure> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            access_token: String,
            refresh_token: String,
        }
        self.0 = if over_http {
            let answer: Answer = serde_json::from_slice(&answer)?;
            Tokens { access: answer.access_token, refresh: answer.refresh_token }
        } else {
            let answer = TokenResponse::decode(answer)?;
            Tokens { access: answer.access_token, refresh: answer.refresh_token }
        };
        Ok(())
    }
}

/// What refreshes of these families send.
pub(crate) fn refreshes(families: &Families, over_http: bool) -> Result<Vec<Call>, Failure> {
    families.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|family| family.call(over_http)).collect()
}

/// The families of these sessions.
pub(crate) fn families(population: &Population, sessions: &[usize]) -> Result<Vec<Chain>, Failure> {
    let access = population.access_tokens(sessions)?;
    sessions.iter().zip(access).map(|(&session, access)| Ok(Chain::new(access, population.refresh_token(session)?))).collect()
}

/// The first refresh of each of these sessions' families.
pub(crate) fn first_refreshes(population: &Population, sessions: &[usize]) -> Result<Vec<Call>, Failure> {
    families(population, sessions)?.iter().map(|family| family.call(false)).collect()
}

struct Refreshing {
    families: Families,
    mine: Option<Chain>,
    over_http: bool,
}

impl Script for Refreshing {
    fn next(&mut self) -> Option<Call> {
        self.mine.as_ref()?.call(self.over_http).ok()
    }

    fn answered(&mut self, answer: Bytes) -> bool {
        self.mine.as_mut().is_some_and(|family| family.take(answer, self.over_http).is_ok())
    }
}

/// Puts the family back, for whoever comes next.
impl Drop for Refreshing {
    fn drop(&mut self) {
        self.families.lock().unwrap_or_else(PoisonError::into_inner).extend(self.mine.take());
    }
}

/// Scripts of so many callers, each of whom refreshes a family of his own.
pub(crate) fn refreshing(families: &Families, callers: usize, over_http: bool) -> Vec<Box<dyn Script>> {
    let take = || families.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let script = |_| -> Box<dyn Script> { Box::new(Refreshing { families: Arc::clone(families), mine: take(), over_http }) };
    (0..callers).map(script).collect()
}
