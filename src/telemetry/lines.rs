//! Log lines on their way out. They are gathered for a moment and written together by a thread of their own, so that no call waits for its
//! line. Warnings and errors go out at once, with everything before them.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long lines are gathered after others were written. What a process that is killed has logged in that time is lost.
const GATHER: Duration = Duration::from_millis(20);
/// How many bytes are gathered at the most: then whoever logs writes them, and waits for whoever reads them.
const MOST: usize = 1 << 20;

/// Writes what was gathered, when it is dropped the last of it.
pub struct LogGuard(Arc<Shared>);

impl fmt::Debug for LogGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogGuard")
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.0.gathered().closed = true;
        self.0.more.notify_one();
        self.0.write_out();
    }
}

/// Where lines are gathered.
pub(super) struct Lines(Arc<Shared>);

struct Shared {
    gathered: Mutex<Gathered>,
    /// Told when there is a first line to write, and when there will be no more.
    more: Condvar,
    /// Who holds it writes, so that lines stay in their order.
    output: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Gathered {
    lines: Vec<u8>,
    closed: bool,
}

impl Shared {
    fn gathered(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_out(&self) {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.gathered().lines);
        // Nobody is left to be told.
        let _ = output.write_all(&lines).and_then(|()| output.flush());
    }

    fn keep_writing(&self) {
        loop {
            let gathered = self.more.wait_while(self.gathered(), |gathered| gathered.lines.is_empty() && !gathered.closed);
            drop(gathered.unwrap_or_else(PoisonError::into_inner));
            // A line by itself is written at once; those that follow soon after it go together.
            self.write_out();
            let more = self.more.wait_timeout_while(self.gathered(), GATHER, |gathered| !gathered.closed);
            let is_closed = more.unwrap_or_else(PoisonError::into_inner).0.closed;
            if is_closed {
                self.write_out();
                return;
            }
        }
    }
}

impl Lines {
    /// Gathers lines for `output`.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(super) fn to(output: impl Write + Send + 'static) -> io::Result<(Self, LogGuard)> {
        let shared = Shared { gathered: Mutex::default(), more: Condvar::new(), output: Mutex::new(Box::new(output)) };
        let shared = Arc::new(shared);
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("log".into()).spawn(move || of_thread.keep_writing())?;
        Ok((Self(Arc::clone(&shared)), LogGuard(shared)))
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { to: &self.0, at_once: true }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        Line { to: &self.0, at_once: *meta.level() <= Level::WARN }
    }
}

/// A line, which is written in one piece.
pub(super) struct Line<'a> {
    to: &'a Shared,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut gathered = self.to.gathered();
        let is_first = gathered.lines.is_empty();
        gathered.lines.extend_from_slice(line);
        let at_once = self.at_once || gathered.closed || gathered.lines.len() > MOST;
        drop(gathered);
        if at_once {
            self.to.write_out();
        } else if is_first {
            self.to.more.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Read(Arc<Mutex<Vec<u8>>>);

    impl Write for Read {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn a_warning_is_written_before_whoever_logs_it_goes_on_and_after_everything_before_it() {
        let read = Read::default();
        let (lines, guard) = Lines::to(read.clone()).unwrap();
        let log = tracing_subscriber::fmt::layer().with_ansi(false).without_time().with_target(false).with_writer(lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), || {
            for number in 0..1000 {
                tracing::info!(number);
            }
            tracing::warn!("now");
            let text = read.text();
            assert!(text.ends_with("number=999\n WARN now\n"), "{}", &text[text.len() - 100..]);
            assert_eq!(text.lines().count(), 1001);
            tracing::info!("last");
        });
        drop(guard);
        assert!(read.text().ends_with(" INFO last\n"));
    }

    #[test]
    fn lines_are_written_by_themselves_after_a_moment() {
        let read = Read::default();
        let (lines, _guard) = Lines::to(read.clone()).unwrap();
        lines.make_writer_for(&METADATA).write_all(b"a line\n").unwrap();
        let begun = std::time::Instant::now();
        while read.text().is_empty() && begun.elapsed() < Duration::from_secs(30) {
            thread::yield_now();
        }
        assert_eq!(read.text(), "a line\n");
    }

    static METADATA: Metadata<'static> = {
        struct Nothing;
        impl tracing::Callsite for Nothing {
            fn set_interest(&self, _: tracing::subscriber::Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                &METADATA
            }
        }
        static NOTHING: Nothing = Nothing;
        let fields = tracing::field::FieldSet::new(&[], tracing::callsite::Identifier(&NOTHING));
        Metadata::new("test", "test", Level::INFO, None, None, None, fields, tracing::metadata::Kind::EVENT)
    };
}
