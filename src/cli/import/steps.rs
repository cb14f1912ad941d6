//! From the reader of the file to the call: the request stream, and the memory of which line each step was.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::sync::mpsc;
use tokio_stream::Stream;

/// How many lines the reader may be ahead of the call.
const AHEAD: usize = 64;

/// What the reader hands over.
#[derive(Debug)]
pub(super) enum Step<R> {
    /// A line that is well.
    Line { place: Place, request: R },
    /// Every line of the file has been handed over.
    End,
}

/// Where a line stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) line: u64,
    /// How many bytes the file has up to the end of the line.
    pub(super) offset: u64,
}

/// What has been sent so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Sent(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    places: Vec<Place>,
    ended: bool,
}

impl Sent {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The line of a step, counted from 0.
    pub(super) fn line_of(&self, step: usize) -> Option<u64> {
        self.lock().places.get(step).map(|place| place.line)
    }

    /// How many bytes of the file the first steps are.
    pub(super) fn offset_after(&self, steps: u64) -> u64 {
        let last = usize::try_from(steps).ok().and_then(|steps| steps.checked_sub(1));
        last.and_then(|last| self.lock().places.get(last).map(|place| place.offset)).unwrap_or_default()
    }

    /// Whether the whole file has been sent.
    pub(super) fn ended(&self) -> bool {
        self.lock().ended
    }
}

/// The request stream of an import.
///
/// Its end has the service store everything. So it ends only on the reader's word: when the reader goes away without it (it found a
/// mistake, or panicked), the stream stands still until the call is dropped.
#[derive(Debug)]
pub(crate) struct Steps<R> {
    options: Option<R>,
    from_reader: mpsc::Receiver<Step<R>>,
    sent: Sent,
}

/// Makes a request stream that starts with the options, the end for the reader, and the memory of what was sent.
pub(super) fn channel<R>(options: R) -> (mpsc::Sender<Step<R>>, Steps<R>, Sent) {
    let (to_call, from_reader) = mpsc::channel(AHEAD);
    let sent = Sent::default();
    (to_call, Steps { options: Some(options), from_reader, sent: sent.clone() }, sent)
}

// Nothing in it is pinned.
impl<R> Unpin for Steps<R> {}

impl<R> Stream for Steps<R> {
    type Item = R;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        let steps = self.get_mut();
        if let Some(options) = steps.options.take() {
            return Poll::Ready(Some(options));
        }
        if steps.sent.ended() {
            return Poll::Ready(None);
        }
        match ready!(steps.from_reader.poll_recv(cx)) {
            Some(Step::Line { place, request }) => {
                steps.sent.lock().places.push(place);
                Poll::Ready(Some(request))
            }
            Some(Step::End) => {
                steps.sent.lock().ended = true;
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_stream::StreamExt as _;

    use super::*;

    fn line(line: u64) -> Step<u64> {
        Step::Line { place: Place { line, offset: line * 10 }, request: line }
    }

    #[tokio::test]
    async fn ends_on_the_readers_word() {
        let (reader, steps, sent) = channel(0);
        for step in [line(2), line(5), Step::End] {
            reader.send(step).await.unwrap();
        }
        assert_eq!(steps.collect::<Vec<_>>().await, [0, 2, 5]);
        assert_eq!((sent.line_of(0), sent.line_of(1), sent.line_of(2)), (Some(2), Some(5), None));
        assert_eq!((sent.offset_after(0), sent.offset_after(2), sent.offset_after(9)), (0, 50, 0));
        assert!(sent.ended());
    }

    #[tokio::test]
    async fn does_not_end_when_the_reader_goes_away() {
        let (reader, mut steps, sent) = channel(0);
        reader.send(line(1)).await.unwrap();
        drop(reader);
        assert_eq!((steps.next().await, steps.next().await), (Some(0), Some(1)));
        assert!(tokio::time::timeout(Duration::from_millis(20), steps.next()).await.is_err());
        assert!(!sent.ended());
    }
}
