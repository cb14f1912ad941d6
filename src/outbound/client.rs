//! One request, one answer.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};
use url::{Position, Url, form_urlencoded};

use super::{
    address::Rules,
    connect::{Connector, Resolver, SystemResolver, Trust, check},
};
use crate::core::secret::Secret;

/// How long a call may take, from the lookup of the name to the last byte of the answer.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// The most bytes of headers that are read.
const MAX_HEADERS: usize = 16 * 1024;
/// The most bytes of a body that are read, whatever the caller asks for.
const MAX_BODY: usize = 64 * 1024;

/// Makes calls. Clones share what it is made of.
#[derive(Clone, Debug)]
pub struct Client(Arc<Connector>);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, or as much of it as fits the limit and came in time.
    pub body: Vec<u8>,
    /// Whether the body is whole.
    pub whole: bool,
}

/// Why there is no answer. Its words are for operators: they name the cause, and have nothing of the request in them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// It is no http or https URL, or has user-info.
    #[error("the URL cannot be called")]
    NotCallable,
    /// None of the addresses that it leads to may be called (see [`Rules`]).
    #[error("its address may not be called: see --outbound-allow")]
    Forbidden,
    /// The name has no address, or nobody says which.
    #[error("its name cannot be looked up: {0}")]
    Name(String),
    /// Nobody answers there.
    #[error("no connection: {0}")]
    Connection(String),
    /// The other side does not show that it is who it should be.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The other side does not answer in HTTP, or hangs up.
    #[error("no HTTP answer")]
    Protocol,
    /// It took too long.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
}

impl Client {
    /// A client that calls what `rules` allow.
    #[must_use]
    pub fn new(rules: Rules, trust: Trust) -> Self {
        Self::resolving(rules, Box::new(SystemResolver::new()), trust)
    }

    fn resolving(rules: Rules, resolver: Box<dyn Resolver>, trust: Trust) -> Self {
        Self(Arc::new(Connector { rules, resolver, trust }))
    }

    /// Says whether a URL could be called, as far as that can be told without asking anybody: its form, and its address where it is
    /// written out, in whatever way. A name is judged by its addresses when it is called.
    ///
    /// # Errors
    /// [`CallError::NotCallable`], [`CallError::Forbidden`].
    pub fn check(&self, url: &Url) -> Result<(), CallError> {
        check(url, &self.0.rules).map(|_| ())
    }

    /// Sends a form by POST. The answer's body is cut at `limit` bytes.
    ///
    /// # Errors
    /// [`CallError`] when no status came back.
    pub async fn post_form(&self, url: &Url, form: &[(&str, &str)], limit: usize) -> Result<Answer, CallError> {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = request(url, "POST")?
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))
            .map_err(|_| CallError::NotCallable)?;
        self.send(url, request, limit).await
    }

    /// Fetches a URL with a Bearer. The answer's body is cut at `limit` bytes.
    ///
    /// # Errors
    /// [`CallError`] when no status came back.
    pub async fn get_with_bearer(&self, url: &Url, bearer: &Secret, limit: usize) -> Result<Answer, CallError> {
        let mut shown = HeaderValue::try_from(format!("Bearer {}", bearer.expose())).map_err(|_| CallError::NotCallable)?;
        shown.set_sensitive(true);
        let request = request(url, "GET")?.header(AUTHORIZATION, shown).body(Full::default()).map_err(|_| CallError::NotCallable)?;
        self.send(url, request, limit).await
    }

    async fn send(&self, url: &Url, request: Request<Full<Bytes>>, limit: usize) -> Result<Answer, CallError> {
        let deadline = Instant::now() + TIMEOUT;
        let answered = async {
            let stream = self.0.connect(url).await?;
            let mut http = http1::Builder::new();
            let (mut sender, connection) =
                http.max_buf_size(MAX_HEADERS).handshake(TokioIo::new(stream)).await.map_err(|_| CallError::Protocol)?;
            // Ends with this call, however it ends.
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let answer = sender.send_request(request).await.map_err(|_| CallError::Protocol)?;
            Ok((answer, driver))
        };
        let (answer, _driver) = timeout_at(deadline, answered).await.map_err(|_| CallError::Timeout)??;
        let status = answer.status();
        let mut body = Vec::new();
        // A status says enough for some callers: a body that never ends does not take it back.
        let whole = timeout_at(deadline, read(answer.into_body(), limit.min(MAX_BODY), &mut body)).await.unwrap_or(false);
        Ok(Answer { status, body, whole })
    }
}

/// Reads a body up to a limit, and says whether that was all of it.
async fn read(mut from: Incoming, limit: usize, into: &mut Vec<u8>) -> bool {
    while let Some(frame) = from.frame().await {
        let Ok(frame) = frame else { return false };
        let Ok(data) = frame.into_data() else { continue };
        let room = limit - into.len();
        into.extend_from_slice(&data[..room.min(data.len())]);
        if data.len() > room {
            return false;
        }
    }
    true
}

/// What every request has. `Host` is the URL's; the path and query are as the URL has them, without the fragment.
fn request(url: &Url, method: &str) -> Result<http::request::Builder, CallError> {
    let host = &url[Position::BeforeHost..Position::AfterPort];
    if host.is_empty() {
        return Err(CallError::NotCallable);
    }
    Ok(Request::builder()
        .method(method)
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, host)
        .header(USER_AGENT, "supos-auth")
        .header(ACCEPT, "application/json, */*;q=0.5")
        .header(CONNECTION, "close"))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{IpAddr, SocketAddr},
        sync::Mutex,
    };

    use async_trait::async_trait;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::mpsc,
    };

    use super::*;

    /// Answers each lookup with the next of these.
    #[derive(Debug)]
    struct Names(Mutex<Vec<Vec<IpAddr>>>);

    #[async_trait]
    impl Resolver for Names {
        async fn resolve(&self, _: &str) -> io::Result<Vec<IpAddr>> {
            Ok(self.0.lock().unwrap().remove(0))
        }
    }

    /// A server that sends `answer` to whoever asks, and tells what it was asked.
    async fn sink(at: &str, answer: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap_or(0);
                tell.send(String::from_utf8_lossy(&request[..length]).into_owned()).unwrap();
                let _ = stream.write_all(answer).await;
            }
        });
        (address, asked)
    }

    fn client(allowed: &[&str], names: &[&[&str]]) -> Client {
        let rules = Rules { allowed: allowed.iter().map(|network| network.parse().unwrap()).collect(), ..Rules::default() };
        let names = names.iter().map(|answer| answer.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        Client::resolving(rules, Box::new(Names(Mutex::new(names))), Trust::of_the_system().unwrap())
    }

    fn url(host: &str, address: SocketAddr, path: &str) -> Url {
        format!("http://{host}:{}{path}", address.port()).parse().unwrap()
    }

    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    #[tokio::test]
    async fn a_form_is_posted_and_the_answer_read() {
        let (address, mut asked) = sink("127.0.0.1:0", OK).await;
        let client = client(&["127.0.0.0/8"], &[&["127.0.0.1"]]);
        let answer = client.post_form(&url("app.example", address, "/out?x=1#f"), &[("a", "b&c")], 100).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.whole), (StatusCode::OK, &b"ok"[..], true));
        let asked = asked.recv().await.unwrap();
        assert!(asked.starts_with("POST /out?x=1 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("\r\nhost: app.example:{}\r\n", address.port())), "{asked}");
        assert!(asked.ends_with("\r\n\r\na=b%26c"), "{asked}");
    }

    #[tokio::test]
    async fn a_bearer_goes_with_a_get() {
        let (address, mut asked) = sink("127.0.0.1:0", OK).await;
        let client = client(&["127.0.0.0/8"], &[]);
        client.get_with_bearer(&url("127.0.0.1", address, "/me"), &Secret::new("t"), 100).await.unwrap();
        let asked = asked.recv().await.unwrap();
        assert!(asked.starts_with("GET /me HTTP/1.1\r\n") && asked.contains("\r\nauthorization: Bearer t\r\n"), "{asked}");
        let injected = client.get_with_bearer(&url("127.0.0.1", address, "/me"), &Secret::new("t\r\nx: y"), 100).await;
        assert_eq!(injected.unwrap_err(), CallError::NotCallable);
    }

    #[tokio::test]
    async fn of_the_addresses_of_a_name_only_the_good_are_called() {
        let (address, mut asked) = sink("127.0.0.1:0", OK).await;
        let bad = TcpListener::bind(("::1", address.port())).await.unwrap();
        let client = client(&["127.0.0.1/32"], &[&["::1", "127.0.0.1"], &["127.0.0.1", "169.254.169.254"], &["::1"], &[]]);
        let url = url("app.example", address, "/");
        for _ in 0..2 {
            client.post_form(&url, &[], 10).await.unwrap();
            asked.recv().await.unwrap();
        }
        assert_eq!(client.post_form(&url, &[], 10).await.unwrap_err(), CallError::Forbidden);
        assert!(matches!(client.post_form(&url, &[], 10).await.unwrap_err(), CallError::Name(_)));
        let nobody_came = timeout_at(Instant::now(), bad.accept()).await;
        assert!(nobody_came.is_err());
    }

    #[tokio::test]
    async fn a_name_that_leads_elsewhere_the_second_time_is_judged_anew() {
        let (address, mut asked) = sink("127.0.0.1:0", OK).await;
        let bad = TcpListener::bind(("127.0.0.2", address.port())).await.unwrap();
        let client = client(&["127.0.0.1/32"], &[&["127.0.0.1"], &["127.0.0.2"]]);
        let url = url("rebinding.example", address, "/");
        client.post_form(&url, &[], 10).await.unwrap();
        asked.recv().await.unwrap();
        assert_eq!(client.post_form(&url, &[], 10).await.unwrap_err(), CallError::Forbidden);
        assert!(timeout_at(Instant::now(), bad.accept()).await.is_err());
    }

    #[tokio::test]
    async fn redirects_are_answers_like_others() {
        let (address, mut asked) = sink("127.0.0.1:0", b"HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n").await;
        let client = client(&["127.0.0.0/8"], &[]);
        let answer = client.post_form(&url("127.0.0.1", address, "/"), &[], 10).await.unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
        asked.recv().await.unwrap();
        assert!(asked.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_body_is_cut_and_its_status_stands() {
        let (address, _asked) = sink("127.0.0.1:0", b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n0123456789").await;
        let client = client(&["127.0.0.0/8"], &[]);
        let answer = client.post_form(&url("127.0.0.1", address, "/"), &[], 4).await.unwrap();
        assert_eq!((answer.status, answer.body.as_slice(), answer.whole), (StatusCode::OK, &b"0123"[..], false));
    }

    #[tokio::test]
    async fn what_is_no_http_is_an_error_and_so_are_headers_without_end() {
        for answer in [b"220 mail.example ESMTP\r\n".to_vec(), b"HTTP/1.1 200 OK\r\n".to_vec(), vec![b'a'; 40_000]] {
            let (address, _asked) = sink("127.0.0.1:0", answer.leak()).await;
            let failure = client(&["127.0.0.0/8"], &[]).post_form(&url("127.0.0.1", address, "/"), &[], 10).await;
            assert_eq!(failure.unwrap_err(), CallError::Protocol);
        }
    }

    #[tokio::test]
    async fn an_address_that_is_written_out_is_refused_before_anything_is_done_however_it_is_written() {
        let client = client(&[], &[]);
        for bad in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://017700000001/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://169.254.169.254/",
            "http://2852039166/",
            "http://0xa9.0xfe.0xa9.0xfe/",
            "http://0251.0376.0251.0376/",
            "http://[fd00:ec2::254]/",
            "http://１２７.０.０.１/",
            "http://93.184.215.14:25/",
        ] {
            let url: Url = bad.parse().unwrap();
            assert_eq!(client.check(&url), Err(CallError::Forbidden), "{bad}");
            assert_eq!(client.post_form(&url, &[], 10).await.unwrap_err(), CallError::Forbidden, "{bad}");
        }
        for bad in ["file:///etc/passwd", "gopher://93.184.215.14/", "unix:/run/x", "http://good@93.184.215.14/", "data:,x"] {
            assert_eq!(client.check(&bad.parse().unwrap()), Err(CallError::NotCallable), "{bad}");
        }
        assert!("http://[fe80::1%25lo]/".parse::<Url>().is_err());
        assert!(client.check(&"https://93.184.215.14/".parse().unwrap()).is_ok());
    }
}
