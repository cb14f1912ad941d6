//! A call of a documented operation, on either surface, and the reply, in one form for both.

use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use tonic::Code;

use super::sign::Signer;

/// The operations of the documented interface, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Op {
    TokenV2 = 1,
    CreateIdentityProvider = 2,
    TokenV1 = 3,
    AuthorizeV281 = 4,
    ExchangeV281 = 5,
    RefreshV281 = 6,
    Username = 7,
    Valid = 8,
    SignOutV281 = 9,
    Authorize = 10,
    SignIn = 11,
    SignOut = 12,
    ThirdParty = 13,
    Jwks = 14,
}

impl Op {
    /// The operations that redeem a code.
    pub(crate) const EXCHANGES: [Self; 3] = [Self::TokenV2, Self::TokenV1, Self::ExchangeV281];
    /// The operations that take a refresh token.
    pub(crate) const REFRESHES: [Self; 3] = [Self::TokenV2, Self::TokenV1, Self::RefreshV281];
    /// The operations that make a code.
    pub(crate) const AUTHORIZES: [Self; 2] = [Self::Authorize, Self::AuthorizeV281];
    /// The operations that take a JSON body.
    pub(crate) const WITH_BODY: [Self; 3] = [Self::TokenV2, Self::TokenV1, Self::SignIn];
    /// The operations of V2.8.1.
    pub(crate) const V281: [Self; 6] =
        [Self::AuthorizeV281, Self::ExchangeV281, Self::RefreshV281, Self::Username, Self::Valid, Self::SignOutV281];

    /// The method and the paths, the ordinary one first.
    pub(crate) fn paths(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::TokenV2 => &[("POST", "/open-api/auth/v2/oauth2/token"), ("POST", "/auth/v2/oauth2/token")],
            Self::CreateIdentityProvider => {
                &[("POST", "/open-api/auth/v2/oauth2/identity/provider/instances"), ("POST", "/auth/v2/oauth2/identity/provider/instances")]
            }
            Self::TokenV1 => &[("POST", "/open-api/auth/v1/oauth2/token"), ("POST", "/auth/v1/oauth2/token")],
            Self::AuthorizeV281 => &[("GET", "/open-api/supos/auth/v2/code/authorize")],
            Self::ExchangeV281 => &[("GET", "/open-api/supos/auth/v2/code/accessToken")],
            Self::RefreshV281 => &[("GET", "/open-api/supos/auth/v2/code/refreshToken")],
            Self::Username => &[("GET", "/open-api/supos/auth/v2/username")],
            Self::Valid => &[("GET", "/open-api/supos/auth/v2/{accessToken}/valid")],
            Self::SignOutV281 => &[("GET", "/open-api/supos/auth/v2/logout")],
            Self::Authorize => &[("GET", "/inter-api/auth/v1/oauth2/authorize")],
            Self::SignIn => &[("POST", "/inter-api/auth/login")],
            Self::SignOut => &[("POST", "/inter-api/auth/logout"), ("GET", "/inter-api/auth/logout")],
            Self::ThirdParty => &[("GET", "/inter-api/auth/v1/third/authorize")],
            Self::Jwks => &[("GET", "/oauth2/jwks")],
        }
    }

    pub(crate) fn path(self) -> &'static str {
        self.paths()[0].1
    }

    /// Whether the operation speaks the dialect of V2.8.1: operations 4 to 9.
    pub(crate) fn is_v281(self) -> bool {
        Self::V281.contains(&self)
    }

    pub(crate) fn is_deprecated(self) -> bool {
        self == Self::TokenV1 || self.is_v281()
    }

    /// What replaces a deprecated operation.
    pub(crate) fn successor(self) -> Option<Self> {
        match self {
            Self::TokenV1 | Self::ExchangeV281 | Self::RefreshV281 => Some(Self::TokenV2),
            Self::AuthorizeV281 => Some(Self::Authorize),
            Self::SignOutV281 => Some(Self::SignOut),
            _ => None,
        }
    }
}

/// The way a call takes to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// HTTP/JSON, through Envoy.
    Envoy,
    /// Native gRPC, on the service's own listener.
    Native,
}

impl Via {
    pub(crate) const BOTH: [Self; 2] = [Self::Envoy, Self::Native];
}

/// Who calls: the headers, which over gRPC are metadata of the same names, and the apps that sign the call when it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) signers: Vec<Signer>,
}

impl Who {
    pub(crate) fn nobody() -> Self {
        Self::default()
    }

    pub(crate) fn bearer(access_token: &str) -> Self {
        Self::authorization(&format!("Bearer {access_token}"))
    }

    pub(crate) fn ticket(ticket: &str) -> Self {
        Self::headers(vec![("cookie", format!("suposTicket={ticket}"))])
    }

    pub(crate) fn authorization(value: &str) -> Self {
        Self::headers(vec![("authorization", value.to_owned())])
    }

    pub(crate) fn headers(headers: Vec<(&'static str, String)>) -> Self {
        Self { headers, signers: Vec::new() }
    }

    pub(crate) fn and(mut self, other: Self) -> Self {
        self.headers.extend(other.headers);
        self.signers.extend(other.signers);
        self
    }
}

/// A call of an operation.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) op: Op,
    /// Which of the operation's paths; over gRPC they are one.
    pub(crate) path: usize,
    pub(crate) who: Who,
    pub(crate) parameters: Vec<(&'static str, String)>,
}

impl Call {
    pub(crate) fn new(op: Op) -> Self {
        Self { op, path: 0, who: Who::nobody(), parameters: Vec::new() }
    }

    pub(crate) fn by(mut self, who: Who) -> Self {
        self.who = self.who.and(who);
        self
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }

    /// The same call with another value for a parameter, or without it.
    pub(crate) fn but(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.parameters.retain(|(other, _)| *other != name);
        self.parameters.extend(value.map(|value| (name, value.to_owned())));
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.who.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn at_path(mut self, path: usize) -> Self {
        self.path = path;
        self
    }

    pub(crate) fn parameter(&self, name: &str) -> String {
        self.parameters.iter().rev().find(|(other, _)| *other == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// The parameters as a JSON object of strings, but for `enabled`, which is true or false.
    pub(crate) fn json(&self) -> Value {
        let value = |name: &str, text: &str| if name == "enabled" { (text == "true").into() } else { Value::from(text) };
        Value::Object(self.parameters.iter().map(|(name, text)| ((*name).to_owned(), value(name, text))).collect::<Map<_, _>>())
    }
}

/// How a call went, in the words of its surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Http(u16),
    Grpc(Code),
}

/// The reply to a call. What a native reply says stands in `body` as the JSON reply to the same call would have it; an error is
/// `code`, `message`, `reason`, `domain`, `fields` and `retryAfter` (seconds).
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) op: Op,
    pub(crate) status: Status,
    /// Headers, or metadata and trailers.
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
    /// The body as received, for what must not be in it.
    pub(crate) text: String,
}

/// The tokens that an app has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) refresh: String,
    pub(crate) expires_in: i64,
}

impl Reply {
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.status, Status::Http(200 | 302) | Status::Grpc(Code::Ok))
    }

    /// The body of a reply that is no error.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Value {
        assert!(self.is_ok(), "operation {:?} failed: {:?} {}", self.op, self.status, self.text);
        &self.body
    }

    /// A text field of a reply that is no error.
    #[track_caller]
    pub(crate) fn text_of(&self, field: &str) -> String {
        self.ok()[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {}", self.text)).to_owned()
    }

    #[track_caller]
    pub(crate) fn tokens(&self) -> Tokens {
        let expires_in = self.text_of("expiresIn").parse().expect("expiresIn is a number of seconds");
        Tokens { access: self.text_of("accessToken"), refresh: self.text_of("refreshToken"), expires_in }
    }

    #[track_caller]
    pub(crate) fn valid(&self) -> bool {
        self.ok()["valid"].as_bool().unwrap_or_else(|| panic!("valid is no boolean in {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn headers_of(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }
}
