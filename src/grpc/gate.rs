//! What every call goes through: who calls, with what, how long it may take, one line in the log, one count in the metrics.

use std::{borrow::Cow, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use tokio::time::{Instant, timeout};
use tonic::{
    Request as Incoming, Response, Status,
    body::Body,
    metadata::{AsciiMetadataKey, MetadataMap},
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};

use super::{
    load::Load,
    parameters::{Original, Parameters, Request},
    status::{Reader, status},
};
use crate::{
    caller::{self, Caller, Cookies, NOBODY, OriginalCall, Refusals, Schemes},
    core::{Core, Error, ids::AppId},
    dialect::{Dialect, error::row_of, language::Language, operation::Operation},
    telemetry,
};

/// How long a call may take: less than Envoy waits, so that Envoy never gives up on a call that then succeeds.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What the adapters of all services share.
#[derive(Clone, Debug)]
pub struct Gate {
    core: Arc<Core>,
    refusals: Refusals,
    /// The deprecated operations that the operator has switched off.
    switched_off: Arc<[&'static str]>,
    /// Scheme, host and port of the public URL, as a browser writes them.
    public_origin: Arc<str>,
    load: Load,
    /// Who makes cookies.
    pub cookies: Cookies,
}

/// A call of one of the interface's operations.
#[derive(Debug)]
pub struct Call {
    /// The service.
    pub core: Arc<Core>,
    /// Who is calling.
    pub caller: Caller,
    /// Whether Envoy made the call of an HTTP request.
    pub over_http: bool,
    parameters: Result<Parameters, Error>,
}

impl Call {
    /// The parameters. They are judged after the caller is.
    ///
    /// # Errors
    /// [`Error::Parameter`] when they are ambiguous.
    pub fn parameters(&self) -> Result<&Parameters, Error> {
        self.parameters.as_ref().map_err(Clone::clone)
    }
}

/// When a signature that works once is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spending {
    /// Before anything is done, in a step of its own.
    Before,
    /// By the step that does what it was signed for: one write instead of two, each of which waits for the disk.
    Within,
}

/// A message, and the headers that go with it.
#[derive(Debug)]
pub struct Answer<T> {
    message: T,
    headers: Vec<(&'static str, String)>,
}

impl<T> From<T> for Answer<T> {
    fn from(message: T) -> Self {
        Self { message, headers: Vec::new() }
    }
}

impl<T> Answer<T> {
    /// The answer with a header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn into_response(self) -> Result<Response<T>, Error> {
        let mut response = Response::new(self.message);
        let mut headers = HeaderMap::new();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.metadata_mut() = MetadataMap::from_headers(headers);
        let metadata = response.metadata_mut();
        for (name, value) in self.headers {
            let name = AsciiMetadataKey::from_static(name);
            let value = value.parse().map_err(|_| Error::Internal(format!("{name} is no header value")))?;
            // `cache-control` takes the place of the usual one; cookies stand beside one another.
            if name == "set-cookie" {
                metadata.append(name, value);
            } else {
                metadata.insert(name, value);
            }
        }
        Ok(response)
    }
}

impl Gate {
    /// A gate to `core`, for pages of `public_url`, which offers all operations but those. To be called in the runtime that serves.
    #[must_use]
    pub fn new(core: Arc<Core>, refusals: Refusals, public_url: &url::Url, switched_off: Vec<&'static str>) -> Self {
        let public_origin = public_url.origin().ascii_serialization().into();
        Self {
            core,
            refusals,
            switched_off: switched_off.into(),
            public_origin,
            load: Load::here(),
            cookies: Cookies { secure: public_url.scheme() == "https" },
        }
    }

    /// The service behind it.
    #[must_use]
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Turns a call away when more have come than can be served. To be asked as it comes, before it takes anything.
    ///
    /// # Errors
    /// [`Error::Busy`], as the caller's kind of status.
    pub fn admit(&self, operation: &Operation, reader: Reader, request: &http::Request<Body>) -> Result<(), Status> {
        let Err(error) = self.load.admit() else { return Ok(()) };
        let address = match reader {
            Reader::Envoy => super::edge::address(request.headers()),
            Reader::Native => peer(request.extensions()),
        };
        note(operation.rpc, NOBODY, address, Some(&error), Duration::ZERO);
        Err(status(&error, Dialect::of_rpc(operation.rpc), reader, Language::of_headers(request.headers())))
    }

    /// Serves a call of the operation `rpc`.
    ///
    /// # Errors
    /// Whatever `operation` ends in, as the caller's kind of status.
    pub async fn serve<R, T, F, Fut>(&self, rpc: &'static str, request: Incoming<R>, operation: F) -> Result<Response<T>, Status>
    where
        R: Request,
        F: FnOnce(Call) -> Fut,
        Fut: Future<Output = Result<Answer<T>, Error>>,
    {
        self.serve_spending(Spending::Before, rpc, request, operation).await
    }

    /// The same for an operation whose one step uses up a signature that works once: [`Caller::take_use`].
    ///
    /// # Errors
    /// As [`Gate::serve`].
    pub async fn serve_grant<R, T, F, Fut>(&self, rpc: &'static str, request: Incoming<R>, operation: F) -> Result<Response<T>, Status>
    where
        R: Request,
        F: FnOnce(Call) -> Fut,
        Fut: Future<Output = Result<Answer<T>, Error>>,
    {
        self.serve_spending(Spending::Within, rpc, request, operation).await
    }

    async fn serve_spending<R, T, F, Fut>(
        &self,
        spending: Spending,
        rpc: &'static str,
        request: Incoming<R>,
        operation: F,
    ) -> Result<Response<T>, Status>
    where
        R: Request,
        F: FnOnce(Call) -> Fut,
        Fut: Future<Output = Result<Answer<T>, Error>>,
    {
        let peer = peer(request.extensions());
        let (metadata, mut extensions, message) = request.into_parts();
        let original = extensions.remove::<Original>();
        let over_http = original.is_some();
        let reader = if over_http { Reader::Envoy } else { Reader::Native };
        let call = caller::Call {
            rpc,
            headers: metadata.as_ref(),
            original: original.as_ref().map(original_call),
            address: original.as_ref().map_or(peer, |original| original.address),
            schemes: Schemes::Interface,
            public_origin: &self.public_origin,
        };
        let work = async |caller: Caller| {
            let parameters = match &original {
                Some(original) => Parameters::of_http(original, &message),
                None => Ok(Parameters::of_message(message)),
            };
            let call = Call { core: Arc::clone(&self.core), caller, over_http, parameters };
            self.operate(rpc, call, async |call| operation(call).await).await?.into_response()
        };
        self.run(&call, reader, spending, work).await
    }

    /// Does what a call is for, and notes which app it was where the operation is deprecated.
    async fn operate<T>(&self, rpc: &'static str, call: Call, work: impl AsyncFnOnce(Call) -> Result<T, Error>) -> Result<T, Error> {
        let Some(deprecated) = Operation::of_rpc(rpc).filter(|operation| operation.deprecated) else { return work(call).await };
        let behind = call.caller.behind().cloned();
        let named = call.parameters().ok().and_then(|parameters| parameters.optional("appid")).and_then(AppId::new);
        let outcome = work(call).await;
        // Where nobody but the user's ticket speaks, and it went well, the app is the one that is named.
        self.note_deprecated(deprecated, behind.or_else(|| named.filter(|_| outcome.is_ok())));
        outcome
    }

    /// Notes which app calls a deprecated operation.
    fn note_deprecated(&self, operation: &'static Operation, app: Option<AppId>) {
        let Some(app) = app else { return };
        self.core.usage.note_deprecated(&app, operation.name, self.core.now());
        telemetry::count_deprecated(operation.name, &app);
    }

    /// Serves a call of the admin API, for administrators.
    ///
    /// # Errors
    /// Whatever `work` ends in.
    pub async fn administer<R, T, F, Fut>(&self, rpc: &'static str, request: Incoming<R>, work: F) -> Result<Response<T>, Status>
    where
        F: FnOnce(Arc<Core>, R) -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        self.serve_admin(rpc, request, async |core, caller, message| {
            caller.administrator()?;
            work(core, message).await
        })
        .await
    }

    /// Serves a call of the admin API, for whoever `work` lets.
    ///
    /// # Errors
    /// Whatever `work` ends in.
    pub async fn serve_admin<R, T>(
        &self,
        rpc: &'static str,
        request: Incoming<R>,
        work: impl AsyncFnOnce(Arc<Core>, Caller, R) -> Result<T, Error>,
    ) -> Result<Response<T>, Status> {
        let address = peer(request.extensions());
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.as_ref();
        let call = caller::Call { rpc, headers, original: None, address, schemes: Schemes::Admin, public_origin: &self.public_origin };
        let work = async |caller| {
            let outcome = work(Arc::clone(&self.core), caller, message).await;
            if let Err(Error::NotFound(_)) = outcome {
                // It may have been deleted a moment ago, by somebody who was told nothing. Who is told that it has gone is told so for good.
                self.core.store.flush().await?;
            }
            Answer::from(outcome?).into_response()
        };
        self.run(&call, Reader::Native, Spending::Before, work).await
    }

    /// Serves an HTTP call that is answered with a page or a redirect. `name` is the gRPC method of its operation, or names a page that is
    /// none. `headers` are those that Envoy has passed on.
    ///
    /// # Errors
    /// Whatever `work` ends in.
    pub async fn serve_page<T>(
        &self,
        name: &'static str,
        headers: &http::HeaderMap,
        original: Option<&Original>,
        work: impl AsyncFnOnce(Call) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let call = caller::Call {
            rpc: name,
            headers,
            original: original.map(original_call),
            address: original.map_or_else(|| super::edge::address(headers), |original| original.address),
            schemes: Schemes::Interface,
            public_origin: &self.public_origin,
        };
        let work = async |caller: Caller| {
            let parameters = original.map_or_else(|| Ok(Parameters::default()), Parameters::of_query);
            self.operate(name, Call { core: Arc::clone(&self.core), caller, over_http: true, parameters }, work).await
        };
        self.judge(&call, self.load.admit(), Spending::Before, work).await
    }

    async fn run<T>(
        &self,
        call: &caller::Call<'_>,
        reader: Reader,
        spending: Spending,
        work: impl AsyncFnOnce(Caller) -> Result<T, Error>,
    ) -> Result<T, Status> {
        let status = |error| status(&error, Dialect::of_rpc(call.rpc), reader, Language::of_headers(call.headers));
        self.judge(call, Ok(()), spending, work).await.map_err(status)
    }

    /// Finds out who calls, does the work within the time limit, and takes note of how it went. Nothing is done for a call that was not
    /// admitted.
    async fn judge<T>(
        &self,
        call: &caller::Call<'_>,
        admitted: Result<(), Error>,
        spending: Spending,
        work: impl AsyncFnOnce(Caller) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let rpc = call.rpc;
        let begun = Instant::now();
        let mut who = Cow::Borrowed(NOBODY);
        let outcome = {
            // Where it is, so that it is not moved about.
            let judged = pin!(async {
                admitted?;
                if self.switched_off.contains(&rpc) {
                    return Err(Error::NotOffered);
                }
                let (mut caller, unspent) = Caller::identify(&self.core, &self.refusals, call).await?;
                if let (Some(unspent), Spending::Before) = (&unspent, spending)
                    && !unspent.spend(&self.core, &self.refusals, call.address).await?
                {
                    caller.refuse_signature();
                }
                who = Cow::Owned(caller.to_string());
                let outcome = work(caller).await;
                match unspent {
                    Some(unspent) if spending == Spending::Within => {
                        unspent.settle(outcome, &self.core, &self.refusals, call.address).await
                    }
                    _ => outcome,
                }
            });
            timeout(TIME_LIMIT, judged).await.unwrap_or(Err(Error::Timeout))
        };
        note(rpc, &who, call.address, outcome.as_ref().err(), begun.elapsed());
        outcome
    }
}

fn original_call(original: &Original) -> OriginalCall<'_> {
    OriginalCall { operation: original.operation, method: &original.method, path: &original.path, query: &original.query }
}

/// The address of the other end of the connection that a call came by.
fn peer(extensions: &http::Extensions) -> Option<IpAddr> {
    let by_tls = || extensions.get::<TlsConnectInfo<TcpConnectInfo>>().map(TlsConnectInfo::get_ref);
    extensions.get::<TcpConnectInfo>().or_else(by_tls)?.remote_addr().map(|address| address.ip())
}

/// Counts a call, and writes its line.
pub(super) fn note(rpc: &'static str, who: &str, address: Option<IpAddr>, error: Option<&Error>, took: Duration) {
    let address = address.map(tracing::field::display);
    let operation = rpc.trim_start_matches('/');
    let row = error.map(|error| row_of(error, Dialect::of_rpc(rpc)));
    let outcome = row.map_or("OK", |row| row.reason);
    telemetry::count_call(operation, outcome, took);
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    match error {
        Some(error @ (Error::Internal(_) | Error::StoreUnavailable(_) | Error::Timeout)) => {
            tracing::error!(operation, caller = who, address, outcome, error = %error, duration_us = micros, "{operation} failed: {error}");
        }
        Some(error) => {
            let number = row.map_or(0, |row| row.number);
            tracing::info!(operation, caller = who, address, outcome, number, duration_us = micros, "{operation} refused: {error}");
        }
        None => tracing::info!(operation, caller = who, address, outcome, duration_us = micros, "{operation} done"),
    }
}
