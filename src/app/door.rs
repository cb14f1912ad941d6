//! What a call meets before it is routed, on each listener that serves gRPC.

use std::{
    convert::Infallible,
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use tonic::body::Body;
use tower::{Layer, Service};

use crate::{
    core::Error,
    dialect::{self, Dialect, language::Language, operation::Operation},
    grpc::{
        edge::{self, EdgeSecret},
        gate::Gate,
        status::{Reader, status},
    },
};

/// Stands before the routes of a listener, in the task of the connection: what it turns away has waited for nothing.
#[derive(Clone, Debug)]
pub(super) struct Door {
    gate: Gate,
    before: Before,
}

/// Whom a listener is for.
#[derive(Clone, Debug)]
enum Before {
    Native,
    Edge(EdgeSecret),
}

impl Door {
    /// Before what gRPC callers call.
    pub(super) fn native(gate: &Gate) -> Self {
        Self { gate: gate.clone(), before: Before::Native }
    }

    /// Before what Envoy alone calls, and proves itself with this.
    pub(super) fn edge(gate: &Gate, secret: EdgeSecret) -> Self {
        Self { gate: gate.clone(), before: Before::Edge(secret) }
    }

    const fn reader(&self) -> Reader {
        match self.before {
            Before::Native => Reader::Native,
            Before::Edge(_) => Reader::Envoy,
        }
    }

    /// Lets a call in, or gives its answer.
    fn open(&self, operation: Option<&'static Operation>, request: &mut Request<Body>) -> Result<(), Box<Response<Body>>> {
        match &self.before {
            Before::Native => grpc_alone(request)?,
            Before::Edge(secret) => edge::open(secret.as_deref(), operation, request)?,
        }
        match operation {
            Some(operation) => self.gate.admit(operation, self.reader(), request).map_err(|status| Box::new(status.into_http())),
            None => Ok(()),
        }
    }
}

/// Lets nothing through but what calls itself gRPC. A page of another origin on this host can have a browser send anything else here, with
/// the user's ticket, and no browser would ask first whether it may.
fn grpc_alone(request: &Request<Body>) -> Result<(), Box<Response<Body>>> {
    let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    if content_type.is_some_and(|content_type| content_type.starts_with(b"application/grpc")) {
        Ok(())
    } else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        Err(Box::new(response))
    }
}

impl<S> Layer<S> for Door {
    type Service = Behind<S>;

    fn layer(&self, routes: S) -> Behind<S> {
        Behind { door: self.clone(), routes }
    }
}

/// Routes behind a door.
#[derive(Clone, Debug)]
pub(super) struct Behind<S> {
    door: Door,
    routes: S,
}

impl<S> Service<Request<Body>> for Behind<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.routes.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let operation = Operation::of_rpc(request.uri().path());
        let routed = self.door.open(operation, &mut request).map(|()| self.routes.call(request));
        let reader = self.door.reader();
        let marks_deprecated = operation.filter(|operation| operation.deprecated && reader == Reader::Envoy);
        Box::pin(async move {
            let mut response = match routed {
                Ok(routed) => caught(routed).await.unwrap_or_else(|| Ok(panicked(reader)))?,
                Err(response) => *response,
            };
            if let Some(operation) = marks_deprecated {
                dialect::mark_deprecated(operation, response.headers_mut());
            }
            Ok(response)
        })
    }
}

/// What a future gives; none when it panics.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    // Nothing looks at it once it has panicked.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// What a caller sees of a panic. Its text is in the log.
fn panicked(reader: Reader) -> Response<Body> {
    let error = Error::Internal("a panic, see above".into());
    tracing::error!("a call has failed: {error}");
    status(&error, Dialect::Current, reader, Language::English).into_http()
}
