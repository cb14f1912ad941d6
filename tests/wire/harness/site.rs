//! A web site of a test's own: answers every request with one page, and remembers what it was asked.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, body::to_bytes, extract::Request, response::Html};
use tokio::{net::TcpListener, sync::watch};

/// What a site was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: String,
}

/// The site.
pub(crate) struct Site {
    pub(crate) origin: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    changed: watch::Receiver<usize>,
}

impl Site {
    /// A site on a free port of `host`, which shows `page` wherever one goes.
    pub(crate) async fn open(host: &str, page: &'static str) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let origin = format!("http://{host}:{}", listener.local_addr().expect("an address").port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (change, changed) = watch::channel(0);
        let notes = Arc::clone(&asked);
        let answer = move |request: Request| {
            let (notes, change) = (Arc::clone(&notes), change.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
                let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                notes.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { method: parts.method.to_string(), target, body });
                change.send_modify(|count| *count += 1);
                Html(page)
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { origin, asked, changed }
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first question that fits, waiting for it.
    pub(crate) async fn await_asked(&self, fits: impl Fn(&Asked) -> bool) -> Asked {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.asked().into_iter().find(&fits) {
                    return found;
                }
                changed.changed().await.expect("the site is open");
            }
        };
        tokio::time::timeout(super::process::PATIENCE, wait).await.expect("it is asked")
    }
}
