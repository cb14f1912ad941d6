//! What a test works with: a running pair, clients for both surfaces, and parties that are nobody else's.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use reqwest::{Client, RequestBuilder, header::HeaderMap, redirect::Policy};
use serde_json::Value;
use supos_auth::sign;
use tonic::transport::{Channel, Endpoint};

use super::{
    call::{Call, Op, Reply, Status, Tokens, Via, Who},
    native,
    pair::{Pair, Setup},
    process::PATIENCE,
    sign::{Signed, Signer, signed},
};

/// An app that was made for one test.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) secret: String,
    /// A redirect URI that is registered as it stands.
    pub(crate) redirect: String,
    /// A logout URI that is registered.
    pub(crate) logout: String,
}

impl App {
    /// The app's own credential.
    pub(crate) fn who(&self) -> Who {
        Self::signing(&self.id, &self.secret)
    }

    pub(crate) fn signing(id: &str, secret: &str) -> Who {
        Who { headers: Vec::new(), signers: vec![Signer { ak: id.to_owned(), sk: secret.to_owned() }] }
    }

    /// What the app puts into the `authorization` of an HTTP request that is sent by hand.
    pub(crate) fn signature(&self, method: &str, target: &str, content_type: &str) -> String {
        let signer = Signer { ak: self.id.clone(), sk: self.secret.clone() };
        signer.authorization(&sign::Request { method, target, content_type, headers: &[] })
    }
}

/// A user who was made for one test.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) password: String,
}

enum Processes {
    Shared(&'static Pair),
    Own(Box<Pair>),
}

/// A running pair and clients for it. Every secret that is handed out on the way is remembered.
pub(crate) struct World {
    processes: Processes,
    marks: (usize, usize),
    pub(crate) http: Client,
    pub(crate) channel: Channel,
    secrets: Mutex<Vec<(&'static str, String)>>,
}

impl World {
    /// The pair that all tests share which need nothing special.
    #[expect(clippy::unused_async, reason = "a channel can only be made inside a runtime, which this says")]
    pub(crate) async fn shared() -> Self {
        static SHARED: OnceLock<Result<Pair, String>> = OnceLock::new();
        match SHARED.get_or_init(|| Pair::start(Setup::default().argument("--failures-per-address", "1000"))) {
            Ok(pair) => Self::new(Processes::Shared(pair)),
            Err(error) => panic!("{error}"),
        }
    }

    /// A pair for one test alone.
    #[expect(clippy::unused_async, reason = "a channel can only be made inside a runtime, which this says")]
    pub(crate) async fn own(setup: Setup) -> Self {
        Self::of(Pair::start(setup).unwrap_or_else(|error| panic!("{error}")))
    }

    /// The world of this pair.
    pub(crate) fn of(pair: Pair) -> Self {
        Self::new(Processes::Own(Box::new(pair)))
    }

    fn new(processes: Processes) -> Self {
        let pair = match &processes {
            Processes::Shared(pair) => pair,
            Processes::Own(pair) => pair.as_ref(),
        };
        let marks = (pair.service_log.mark(), pair.envoy_log.mark());
        let http = Client::builder().redirect(Policy::none()).no_proxy().timeout(PATIENCE).build().expect("a client can be made");
        let channel = channel(pair);
        Self { processes, marks, http, channel, secrets: Mutex::default() }
    }

    /// Ends the service as `end` does it, and starts it again on the same data.
    pub(crate) fn restart(&mut self, end: impl FnOnce(&mut Pair)) {
        self.restart_with(end, |_| {});
    }

    /// As `restart`, with other settings.
    pub(crate) fn restart_with(&mut self, end: impl FnOnce(&mut Pair), change: impl FnOnce(&mut Setup)) {
        self.try_to_restart_with(end, change).unwrap_or_else(|error| panic!("{error}"));
    }

    /// As `restart_with`, giving what the service has logged where it does not start.
    pub(crate) fn try_to_restart_with(&mut self, end: impl FnOnce(&mut Pair), change: impl FnOnce(&mut Setup)) -> Result<(), String> {
        end(self);
        self.start_again(change)?;
        self.channel = channel(self);
        Ok(())
    }

    /// Moves the service's clock by so many seconds.
    pub(crate) fn step(&mut self, seconds: i64) {
        self.clock.as_mut().expect("the pair has a clock that can be moved").step(seconds);
        // The administrator's session may not live that long.
        self.admin.take();
    }

    /// Moves the service's clock to a time.
    pub(crate) fn go_to(&mut self, time: i64) {
        self.step(time - self.now());
    }

    /// The service's time, in seconds since the epoch.
    pub(crate) fn now(&self) -> i64 {
        self.clock.as_ref().map_or_else(super::now, super::clock::Clock::now)
    }

    /// Sends a call. What it carries and what it gives out is remembered as secret.
    pub(crate) async fn call(&self, via: Via, call: &Call) -> Reply {
        let reply = match via {
            Via::Envoy => self.call_http(call).await,
            Via::Native => native::call(self.signed(), call).await,
        };
        let given =
            ["accessToken", "refreshToken", "ticket"].into_iter().filter_map(|name| Some((name, reply.body[name].as_str()?.to_owned())));
        self.remember(given);
        if Op::AUTHORIZES.contains(&call.op) && reply.is_ok() {
            self.remember([("code", reply.text_of("code"))]);
        }
        let browsers =
            reply.headers_of("set-cookie").into_iter().filter_map(|cookie| cookie.strip_prefix("suposBrowser=")?.split(';').next());
        self.remember(browsers.map(|browser| ("browser", browser.to_owned())));
        reply
    }

    async fn call_http(&self, call: &Call) -> Reply {
        let (method, path) = call.op.paths()[call.path];
        let target =
            if call.op == Op::Valid { path.replace("{accessToken}", &encode(&call.parameter("accessToken"))) } else { path.to_owned() };
        let mut request = match method {
            "POST" => self.http.post(self.url(&target)),
            _ => self.http.get(self.url(&target)),
        };
        if Op::WITH_BODY.contains(&call.op) || call.op == Op::CreateIdentityProvider {
            request = request.json(&call.json());
        } else if call.op != Op::Valid && !call.parameters.is_empty() {
            request = self.http.get(self.url(&format!("{target}?{}", query(&call.parameters))));
        }
        self.receive(call.op, self.with(request, &call.who)).await
    }

    /// Sends an HTTP request as it stands.
    pub(crate) async fn receive(&self, op: Op, request: RequestBuilder) -> Reply {
        let response = request.send().await.unwrap_or_else(|error| panic!("operation {op:?}: no answer: {error:?}"));
        let status = Status::Http(response.status().as_u16());
        let headers: HeaderMap = response.headers().clone();
        let text = response.text().await.unwrap_or_else(|error| panic!("operation {op:?}: no body: {error:?}"));
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply { op, status, headers, body, text }
    }

    /// Sends a GET through Envoy whose path and query are given as they stand.
    pub(crate) async fn get(&self, op: Op, target: &str, who: &Who) -> Reply {
        self.receive(op, self.with(self.http.get(self.url(target)), who)).await
    }

    /// Sends a POST through Envoy whose JSON body is given as it stands.
    pub(crate) async fn post(&self, op: Op, target: &str, body: impl Into<reqwest::Body>, who: &Who) -> Reply {
        let request = self.http.post(self.url(target)).header("content-type", "application/json").body(body);
        self.receive(op, self.with(request, who)).await
    }

    /// The request as the caller sends it. What he signs without a date is as good as a password, and so is remembered as secret.
    fn with(&self, request: RequestBuilder, who: &Who) -> RequestBuilder {
        let request = who.headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        let authorizations: Vec<String> = who.signers.iter().map(|signer| signer.of_http(&request)).collect();
        self.remember(authorizations.iter().filter_map(|shown| Some(("signature", shown.rsplit_once('-')?.1.to_owned()))));
        authorizations.into_iter().fold(request, |request, shown| request.header("authorization", shown))
    }

    /// A URL at Envoy.
    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.pair().http())
    }

    pub(crate) fn remember(&self, secrets: impl IntoIterator<Item = (&'static str, String)>) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).extend(secrets);
    }

    /// Every secret that the service has given or been given in this world, with what it is.
    pub(crate) fn secrets(&self) -> Vec<(&'static str, String)> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The native connection, on which apps sign by the service's clock.
    pub(crate) fn signed(&self) -> Signed {
        signed(self.channel.clone(), self.now())
    }

    /// A native connection of its own.
    pub(crate) fn connection(&self) -> Signed {
        signed(channel(self), self.now())
    }

    fn pair(&self) -> &Pair {
        self
    }

    // --- the steps that most tests begin with

    /// The ticket of a new session of the user.
    pub(crate) async fn sign_in(&self, user: &User) -> String {
        let call = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
        self.call(Via::Native, &call).await.text_of("ticket")
    }

    /// A new user and the ticket of his session.
    pub(crate) async fn signed_in(&self) -> (User, String) {
        let user = self.user().await;
        let ticket = self.sign_in(&user).await;
        (user, ticket)
    }

    /// A code for the app.
    pub(crate) async fn code(&self, app: &App, who: Who) -> String {
        self.call(Via::Native, &authorize(Op::Authorize, app).by(who)).await.text_of("code")
    }

    /// The tokens of a new family of the session that the ticket names.
    pub(crate) async fn tokens(&self, app: &App, ticket: &str) -> Tokens {
        let code = self.code(app, Who::ticket(ticket)).await;
        self.call(Via::Native, &exchange(Op::TokenV2, app, &code)).await.tokens()
    }

    /// A new app, a new user, the ticket of his session, and the app's tokens for it.
    pub(crate) async fn family(&self) -> (App, User, String, Tokens) {
        let app = self.app().await;
        let (user, ticket) = self.signed_in().await;
        let tokens = self.tokens(&app, &ticket).await;
        (app, user, ticket, tokens)
    }

    /// Whether operation 8 calls the token good when the app asks, on both surfaces alike.
    pub(crate) async fn is_valid(&self, app: &App, access_token: &str) -> bool {
        let call = valid(access_token).by(app.who());
        let answers = [self.call(Via::Envoy, &call).await.valid(), self.call(Via::Native, &call).await.valid()];
        assert_eq!(answers[0], answers[1], "operation 8 says different things on its two surfaces");
        answers[0]
    }
}

impl Deref for World {
    type Target = Pair;

    fn deref(&self) -> &Pair {
        match &self.processes {
            Processes::Shared(pair) => pair,
            Processes::Own(pair) => pair,
        }
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Pair {
        match &mut self.processes {
            Processes::Shared(_) => panic!("the pair is everybody's: a test that changes it needs one of its own"),
            Processes::Own(pair) => pair,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Captured by the test runner, and shown because the test has failed.
            eprintln!("{}", self.logs(self.marks.0, self.marks.1));
            return;
        }
        let panics: Vec<String> = self.service_log.since(self.marks.0).into_iter().filter(|line| line.contains("panicked at")).collect();
        assert!(panics.is_empty(), "a thread of the service has panicked: {panics:#?}");
        // What sled keeps in a file of its own it never syncs.
        let blobs = self.data().join("store/blobs");
        let blobs = blobs.read_dir().map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>());
        assert!(blobs.as_ref().is_ok_and(Vec::is_empty) || blobs.is_err(), "records that are too large: {blobs:?}");
    }
}

fn channel(pair: &Pair) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", pair.grpc())).expect("an address makes a URL");
    endpoint.timeout(PATIENCE).connect_lazy()
}

/// A word that no other test has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A query of these parameters, encoded as a form is.
pub(crate) fn query<'a, N: AsRef<str> + 'a>(parameters: impl IntoIterator<Item = &'a (N, String)>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    query.finish()
}

/// The same text, but for its last character.
pub(crate) fn with_another_end(text: &str) -> String {
    let mut text = text.to_owned();
    let last = if text.pop() == Some('A') { 'B' } else { 'A' };
    text.push(last);
    text
}

/// A value as one piece of a path.
pub(crate) fn encode(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Asks for a code; who asks is not said yet.
pub(crate) fn authorize(op: Op, app: &App) -> Call {
    Call::new(op).with("responseType", "code").with("appid", &app.id).with("redirectUri", &app.redirect).with("state", "state-of-the-app")
}

/// Redeems a code as the app.
pub(crate) fn exchange(op: Op, app: &App, code: &str) -> Call {
    let call = Call::new(op).by(app.who()).with("grantType", "authorization_code").with("code", code).with("logoutUri", &app.logout);
    if op == Op::ExchangeV281 { call.with("appid", &app.id) } else { call }
}

/// Rotates a refresh token; who asks is not said yet.
pub(crate) fn refresh(op: Op, refresh_token: &str) -> Call {
    let call = Call::new(op).with("refreshToken", refresh_token);
    if op == Op::RefreshV281 { call } else { call.with("grantType", "refresh_token") }
}

/// Operation 8; who asks is not said yet.
pub(crate) fn valid(access_token: &str) -> Call {
    Call::new(Op::Valid).with("accessToken", access_token)
}
