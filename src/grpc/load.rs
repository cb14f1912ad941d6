//! Whether more calls have come than can be served (docs/adr/017).

use std::time::Duration;

use tokio::runtime::{Handle, RuntimeMetrics};

use crate::core::Error;

/// How much may be ready to go on and wait for a thread, before calls are told to come back: some 50 ms of work. What waits for a disk, a
/// database or a client takes no thread, and does not count.
const MOST_READY: usize = 1024;
/// When to come back.
const COME_BACK: Duration = Duration::from_secs(1);

/// How much waits in a runtime.
#[derive(Clone, Debug)]
pub(super) struct Load(RuntimeMetrics);

impl Load {
    /// Of the runtime that this is called in.
    pub(super) fn here() -> Self {
        Self(Handle::current().metrics())
    }

    /// Whether one more call may be served.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub(super) fn admit(&self) -> Result<(), Error> {
        if self.0.global_queue_depth() > MOST_READY { Err(Error::Busy { retry_after: COME_BACK }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn calls_are_turned_away_while_too_much_waits_for_a_thread_and_taken_again_once_it_is_done() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let load = runtime.block_on(async { Load::here() });
        let ((go_on, wait), (began, begun)) = (mpsc::channel::<()>(), mpsc::channel());
        // It keeps the one thread, as work does.
        let busy = runtime.spawn(async move {
            began.send(()).unwrap();
            let _ = wait.recv();
        });
        begun.recv().unwrap();
        let waiting = |number| (0..number).map(|_| runtime.spawn(async {})).collect::<Vec<_>>();
        let mut all = waiting(MOST_READY);
        assert_eq!(load.admit(), Ok(()));
        all.extend(waiting(1));
        assert_eq!(load.admit(), Err(Error::Busy { retry_after: COME_BACK }));
        drop(go_on);
        runtime.block_on(async {
            busy.await.unwrap();
            for task in all {
                task.await.unwrap();
            }
        });
        assert_eq!(load.admit(), Ok(()));
    }
}
