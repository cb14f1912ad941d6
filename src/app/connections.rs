//! How many connections a listener takes, and how long one may say nothing at first: whoever only connects takes nothing from others.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::Connected;

/// How long a connection may take to say hello, and what the shortest hello has: that of HTTP/2.
const GREETING: Duration = Duration::from_secs(5);
const HELLO: usize = 24;
/// How long to wait after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Takes at most `most` connections at a time; more wait to be accepted. Goes on after an error, such as that too many files are open.
pub(super) fn bounded<IO>(incoming: impl Stream<Item = io::Result<IO>>, most: usize) -> impl Stream<Item = io::Result<Connection<IO>>> {
    let places = Arc::new(Semaphore::new(most));
    incoming
        .then(move |accepted| {
            let places = Arc::clone(&places);
            async move {
                match accepted {
                    Ok(io) => {
                        let place = places.acquire_owned().await.map_err(io::Error::other)?;
                        Ok(Connection { io, greeting: Some((Box::pin(sleep(GREETING)), HELLO)), _place: place })
                    }
                    Err(error) => {
                        tracing::warn!("a connection could not be accepted: {error}");
                        sleep(ACCEPT_AGAIN).await;
                        Err(error)
                    }
                }
            }
        })
        .filter(Result::is_ok)
}

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Connection<IO> {
    io: IO,
    /// When it has to have said hello, and how many bytes of that are missing; none: it has.
    greeting: Option<(Pin<Box<Sleep>>, usize)>,
    _place: OwnedSemaphorePermit,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some((greeting, missing)) = &mut self.greeting else { return read };
        if read.is_ready() {
            *missing = missing.saturating_sub(buf.filled().len() - before);
            if *missing == 0 {
                self.greeting = None;
            }
        } else if greeting.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO: Connected> Connected for Connection<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> IO::ConnectInfo {
        self.io.connect_info()
    }
}
