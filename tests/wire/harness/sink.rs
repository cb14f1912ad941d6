//! An app's own server: it takes the calls that the service makes, and answers as it is told.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::process::PATIENCE;

/// How a sink answers.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// With this status, a short body, and where to go instead if that is said.
    Status(u16, Option<String>),
    /// So often with 500, and then with 200.
    Failing(usize),
    /// Never, though it takes the connection and the request.
    Never,
    /// With 200 and a body that comes one byte a second.
    Trickle,
    /// With one byte of the head a second.
    TrickledHead,
    /// With 200 and a body without end.
    Endless,
}

/// A call that was received.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    /// The one parameter of the form.
    #[track_caller]
    pub(crate) fn token(&self) -> String {
        let form: Vec<(String, String)> = url::form_urlencoded::parse(self.body.as_bytes()).into_owned().collect();
        match form.as_slice() {
            [(name, token)] if name == "logout_token" => token.clone(),
            other => panic!("a form of one logout_token: {other:?}"),
        }
    }
}

struct Shared {
    manner: Mutex<Manner>,
    connections: AtomicUsize,
}

/// A running server, on a thread of its own: tests may block theirs.
pub(crate) struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    calls: tokio::sync::Mutex<mpsc::UnboundedReceiver<Received>>,
}

impl Sink {
    /// One on a free port of loopback.
    pub(crate) fn start(manner: Manner) -> Self {
        Self::at("127.0.0.1:0", manner)
    }

    pub(crate) fn at(address: &str, manner: Manner) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { manner: Mutex::new(manner), connections: AtomicUsize::new(0) });
        let (tell, calls) = mpsc::unbounded_channel();
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    serving.connections.fetch_add(1, Ordering::SeqCst);
                    tokio::spawn(serve(stream, Arc::clone(&serving), tell.clone()));
                }
            });
        });
        Self { address, shared, calls: tokio::sync::Mutex::new(calls) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on it answers like this.
    pub(crate) fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap_or_else(PoisonError::into_inner) = manner;
    }

    /// How many connections were ever opened to it.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The next call, waiting for it.
    #[track_caller]
    pub(crate) fn next(&self) -> impl Future<Output = Received> {
        let caller = std::panic::Location::caller();
        async move {
            match timeout(PATIENCE, self.calls.lock().await.recv()).await {
                Ok(Some(call)) => call,
                _ => panic!("no call came to {} ({caller})", self.address),
            }
        }
    }

    /// The calls that have come and were not looked at.
    pub(crate) async fn rest(&self) -> Vec<Received> {
        let mut calls = self.calls.lock().await;
        std::iter::from_fn(|| calls.try_recv().ok()).collect()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>, tell: mpsc::UnboundedSender<Received>) {
    let Some(received) = read(&mut stream).await else { return };
    let manner = {
        let mut manner = shared.manner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = manner.clone();
        if let Manner::Failing(times) = &mut *manner {
            *times = times.saturating_sub(1);
        }
        now
    };
    // The test may have ended.
    let _ = tell.send(received);
    let answer = match &manner {
        Manner::Status(status, location) => {
            let location = location.as_ref().map(|location| format!("location: {location}\r\n")).unwrap_or_default();
            format!("HTTP/1.1 {status} X\r\n{location}content-length: 2\r\n\r\nok")
        }
        Manner::Failing(0) => "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        Manner::Failing(_) => "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
        Manner::Never => String::new(),
        Manner::TrickledHead => String::new(),
        Manner::Trickle | Manner::Endless => "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n".to_owned(),
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    match manner {
        Manner::Never => {
            // Until the other side hangs up.
            let _ = stream.read(&mut [0; 1]).await;
        }
        Manner::Trickle => while drip(&mut stream, b'x').await {},
        Manner::TrickledHead => {
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n" {
                if !drip(&mut stream, *byte).await {
                    break;
                }
            }
        }
        Manner::Endless => while stream.write_all(&[b'x'; 8192]).await.is_ok() {},
        Manner::Status(..) | Manner::Failing(_) => {}
    }
}

async fn drip(stream: &mut TcpStream, byte: u8) -> bool {
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.write_all(&[byte]).await.is_ok()
}

/// Reads one request, as far as its own headers say.
async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                return Some(Received { target, head: head.to_owned(), body: body.to_owned() });
            }
        }
        match stream.read(&mut buffer).await {
            Ok(length) if length > 0 => bytes.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
}
