//! One writer, and one flush for everybody who waits.
//!
//! Every step that changes something is a function that one thread runs, so that steps cannot race. A second thread brings what was
//! written to disk and only then lets the answers go; while it waits for the disk the first goes on, and all that it has done
//! meanwhile shares the next flush.
//!
//! sled's own `flush` does not reach the disk on Linux: it ends in `sync_file_range`, which neither writes the file's metadata nor
//! empties the disk's cache. So the second thread calls `fdatasync` on the same file.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc,
    },
    thread,
};

use tokio::sync::{Notify, mpsc as jobs, oneshot, watch};

use super::{snapshot::Snapshots, txn::Txn};
use crate::core::Error;

/// How many steps may wait. More are shed.
const QUEUE: usize = 4096;
/// How many steps are handed on to one flush at the most.
const GROUP: usize = 512;

/// Sends the answer of a step, given whether what it wrote is on disk.
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;
type Job = Box<dyn FnOnce(&sled::Tree) -> (Answer, Wrote) + Send>;

/// What a step has written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrote {
    Nothing,
    Something,
    /// It could not: the store takes no more writes.
    Failed(String),
}

struct Group {
    answers: Vec<Answer>,
    dirty: bool,
    failure: Option<String>,
}

/// The calls that are owed to apps.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// How many there are.
    pub(super) count: AtomicI64,
    /// Told when there are more, and they are on disk.
    pub(super) more: Notify,
}

/// Runs the steps. When it is dropped the threads end, once everything that was asked of them is done.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: jobs::Sender<Job>,
    failure: watch::Receiver<Option<String>>,
    pub(super) owed: Arc<Owed>,
    pub(super) snapshots: Arc<Snapshots>,
}

impl Writer {
    /// Starts the threads. `file` is a handle on the file that `db` writes its log to.
    pub(super) fn start(db: sled::Db, file: File, owed: Owed) -> std::io::Result<Self> {
        let (jobs, queue) = jobs::channel(QUEUE);
        let (groups, waiting) = mpsc::sync_channel(2);
        let (report, failure) = watch::channel(None);
        let failed = Arc::new(AtomicBool::new(false));
        let tree: sled::Tree = (*db).clone();
        let has_failed = Arc::clone(&failed);
        thread::Builder::new().name("store-write".into()).spawn(move || write(queue, &tree, &groups, &has_failed))?;
        thread::Builder::new().name("store-sync".into()).spawn(move || sync(&waiting, &db, &file, &failed, &report))?;
        Ok(Self { jobs, failure, owed: Arc::new(owed), snapshots: Arc::default() })
    }

    /// Runs a step and waits until what it wrote is on disk. When it gives an error nothing of it is written.
    pub(super) async fn run<T, F>(&self, step: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let (owed, snapshots) = (Arc::clone(&self.owed), Arc::clone(&self.snapshots));
        let job: Job = Box::new(move |tree| {
            let mut txn = Txn::new(tree);
            let stepped = step(&mut txn);
            let newly_owed = txn.owed;
            let (outcome, wrote) = match stepped {
                Err(error) => (Err(error), Wrote::Nothing),
                Ok(value) => match txn.apply(&snapshots) {
                    Ok(wrote) => (Ok(value), if wrote { Wrote::Something } else { Wrote::Nothing }),
                    Err(error) => (Err(error.clone()), Wrote::Failed(error.to_string())),
                },
            };
            let is_done = outcome.is_ok();
            let answer: Answer = Box::new(move |synced: Result<(), Error>| {
                if is_done && synced.is_ok() && newly_owed != 0 {
                    owed.count.fetch_add(newly_owed, Ordering::Relaxed);
                    if newly_owed > 0 {
                        owed.more.notify_one();
                    }
                }
                // Whoever asked may have gone.
                let _ = reply.send(synced.and(outcome));
            });
            (answer, wrote)
        });
        self.jobs.try_send(job).map_err(|refused| match refused {
            jobs::error::TrySendError::Full(_) => Error::Busy { retry_after: std::time::Duration::from_secs(1) },
            jobs::error::TrySendError::Closed(_) => Error::StoreUnavailable("the store is closed".into()),
        })?;
        answer.await.map_err(|_| Error::StoreUnavailable("the store's writer has stopped".into()))?
    }

    /// Resolves when the store has failed for good.
    pub(super) async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or_default(),
            Err(_) => "the store's writer has stopped".to_owned(),
        }
    }
}

fn write(mut queue: jobs::Receiver<Job>, tree: &sled::Tree, groups: &mpsc::SyncSender<Group>, failed: &AtomicBool) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = Group { answers: Vec::new(), dirty: false, failure: None };
        let mut next = Some(first);
        while let Some(job) = next {
            // sled panics on what it does not expect. The step's caller sees that nobody answers him.
            let (answer, wrote) = if failed.load(Ordering::Acquire) {
                refuse(job)
            } else {
                catch_unwind(AssertUnwindSafe(|| job(tree)))
                    .unwrap_or_else(|_| (Box::new(|_| ()), Wrote::Failed("a panic, see above".to_owned())))
            };
            group.answers.push(answer);
            match wrote {
                Wrote::Nothing => {}
                Wrote::Something => group.dirty = true,
                Wrote::Failed(cause) => group.failure = Some(cause),
            }
            next = if group.answers.len() < GROUP { queue.try_recv().ok() } else { None };
        }
        if groups.send(group).is_err() {
            return;
        }
    }
}

/// Drops a step unrun: its caller sees that the writer has gone.
fn refuse(job: Job) -> (Answer, Wrote) {
    drop(job);
    (Box::new(|_| ()), Wrote::Nothing)
}

fn sync(waiting: &mpsc::Receiver<Group>, db: &sled::Db, file: &File, failed: &AtomicBool, report: &watch::Sender<Option<String>>) {
    let give_up = |cause: String| {
        // What the kernel could not write once it may have dropped: nothing after this can be promised.
        failed.store(true, Ordering::Release);
        tracing::error!("the store could not be written to disk, and takes no more writes until the service is started anew: {cause}");
        report.send_replace(Some(cause.clone()));
        Error::StoreUnavailable(cause)
    };
    while let Ok(mut group) = waiting.recv() {
        while let Ok(mut more) = waiting.try_recv() {
            group.answers.append(&mut more.answers);
            group.dirty |= more.dirty;
            group.failure = group.failure.or(more.failure);
        }
        let synced = if failed.load(Ordering::Acquire) {
            Err(Error::StoreUnavailable("an earlier write did not reach the disk".into()))
        } else if let Some(cause) = group.failure {
            Err(give_up(cause))
        } else if group.dirty {
            let flushed = db.flush().map_err(|error| error.to_string());
            flushed.and_then(|_| file.sync_data().map_err(|error| error.to_string())).map_err(give_up)
        } else {
            Ok(())
        };
        for answer in group.answers {
            answer(synced.clone());
        }
    }
}
