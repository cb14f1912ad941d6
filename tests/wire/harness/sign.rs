//! How apps sign what the tests send: at the moment of sending, over the very request that goes out.

use reqwest::RequestBuilder;
use supos_auth::{
    core::{clock::Timestamp, secret::Secret},
    sign,
};
use tonic::{
    Extensions, GrpcMethod, Request, Status,
    metadata::{KeyAndValueRef, MetadataMap},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::world::unique;

/// An app that signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signer {
    pub(crate) ak: String,
    pub(crate) sk: String,
}

impl Signer {
    /// The `authorization` of a request.
    pub(crate) fn authorization(&self, request: &sign::Request<'_>) -> String {
        // What cannot be signed is refused whatever the signature.
        sign::authorization(request, &self.ak, &Secret::new(self.sk.as_str()))
            .unwrap_or_else(|_| format!("Sign {}-{}", self.ak, "0".repeat(64)))
    }

    /// The `authorization` of an HTTP request that is as good as sent.
    pub(crate) fn of_http(&self, request: &RequestBuilder) -> String {
        let request = request.try_clone().expect("the body is at hand").build().expect("a request");
        let url = request.url();
        let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
        let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let headers: Vec<(&str, &str)> = request.headers().keys().map(|name| (name.as_str(), text(name.as_str()))).collect();
        let method = request.method().as_str();
        self.authorization(&sign::Request { method, target: &target, content_type: text("content-type"), headers: &headers })
    }
}

/// A native connection on which each call is signed by the apps that its request names (`native::request`).
pub(crate) type Signed = InterceptedService<Channel, Signing>;

/// The signers of a request that is not sent yet.
#[derive(Clone)]
pub(super) struct Signers(pub(super) Vec<Signer>);

/// Signs native calls.
#[derive(Clone)]
pub(crate) struct Signing {
    /// The service's time, in seconds since the epoch.
    now: i64,
}

/// A connection whose calls are signed at this time, in seconds since the epoch.
pub(crate) fn signed(channel: Channel, now: i64) -> Signed {
    InterceptedService::new(channel, Signing { now })
}

impl Interceptor for Signing {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(Signers(signers)) = request.extensions_mut().remove::<Signers>() else { return Ok(request) };
        let target = target(request.extensions());
        let metadata = request.metadata_mut();
        let seconds = u64::try_from(self.now).expect("it is after 1970");
        for (name, value) in [(sign::DATE, sign::date(Timestamp::from_millis(seconds * 1000))), (sign::NONCE, unique("nonce"))] {
            // A test may say its own.
            if !metadata.contains_key(name) {
                metadata.insert(name, value.parse().expect("a header value"));
            }
        }
        for signer in signers {
            let headers = texts(metadata);
            let request = sign::Request { method: "POST", target: &target, content_type: sign::GRPC, headers: &headers };
            let authorization = signer.authorization(&request);
            metadata.append("authorization", authorization.parse().expect("a header value"));
        }
        Ok(request)
    }
}

/// `/package.Service/Method`, as tonic's generated clients say it.
fn target(extensions: &Extensions) -> String {
    let method = extensions.get::<GrpcMethod<'_>>().expect("a generated client names its method");
    format!("/{}/{}", method.service(), method.method())
}

fn texts(metadata: &MetadataMap) -> Vec<(&str, &str)> {
    let text = |pair| match pair {
        KeyAndValueRef::Ascii(name, value) => value.to_str().ok().map(|value| (name.as_str(), value)),
        KeyAndValueRef::Binary(..) => None,
    };
    metadata.iter().filter_map(text).collect()
}
