//! Stands between the store and its database, and loses an answer, hands answers on late, or lets nothing through.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A proxy in front of the test server.
pub(crate) struct Proxy {
    port: u16,
    losing: Arc<Mutex<Option<&'static [u8]>>>,
    /// How far away the database is, in milliseconds there and back.
    far: Arc<AtomicU64>,
    is_cut: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn start(server: u16) -> Self {
        Self::listening(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), server)
    }

    /// One that listens there.
    pub(crate) fn listening(listener: TcpListener, server: u16) -> Self {
        let port = listener.local_addr().expect("it is bound").port();
        let losing = Arc::<Mutex<Option<&'static [u8]>>>::default();
        let far = Arc::<AtomicU64>::default();
        let shared = (Arc::clone(&losing), Arc::clone(&far));
        let (is_cut, cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (shared, mut cut) = (shared.clone(), cut.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = cut.wait_for(|cut| *cut) => {}
                        () = relay(client, server, shared) => {}
                    }
                });
            }
        });
        Self { port, losing, far, is_cut }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Has every answer take so much longer.
    pub(crate) fn far_away(&self, millis: u64) {
        self.far.store(millis, Ordering::Relaxed);
    }

    /// Ends every connection, and takes none until it is told otherwise.
    pub(crate) fn cut(&self, cut: bool) {
        self.is_cut.send_replace(cut);
    }

    /// Cuts the connection instead of handing on the next answer that has this in it. What it answers has been done.
    pub(crate) fn lose_the_next(&self, answer: &'static [u8]) {
        *self.losing.lock().expect("no thread has panicked") = Some(answer);
    }
}

type Shared = (Arc<Mutex<Option<&'static [u8]>>>, Arc<AtomicU64>);

async fn relay(client: TcpStream, server: u16, (losing, far): Shared) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let answers = async {
        let mut answer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut answer).await {
            tokio::time::sleep(Duration::from_millis(far.load(Ordering::Relaxed))).await;
            let lost = losing
                .lock()
                .expect("no thread has panicked")
                .take_if(|part| answer[..length].windows(part.len()).any(|window| window == *part));
            if lost.is_some() || to_client.write_all(&answer[..length]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = copy(&mut from_client, &mut to_server) => {}
    }
}
