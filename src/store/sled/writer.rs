//! One writer, and one flush for everybody who waits.
//!
//! Every step that changes something is a function that one thread runs, so that steps cannot race. A second thread brings what was
//! written to disk and only then lets the answers go; while it waits for the disk the first goes on, and all that it has done
//! meanwhile shares the next flush.
//!
//! sled's own `flush` does not reach the disk on Linux: it ends in `sync_file_range`, which neither writes the file's metadata nor
//! empties the disk's cache. So the second thread calls `fdatasync` on the same file.
//!
//! A third thread ends the process when one of the two hangs: a disk that does not answer gives no error.

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc as jobs, oneshot, watch};

use super::{
    acknowledged::Acknowledged, batch::Batch, compaction::Mirror, flushing, forget_what_was_read, keys, records::Records,
    snapshot::Snapshots, sync_log, txn::Txn,
};
use crate::core::Error;

/// How many steps may wait. More are shed.
const QUEUE: usize = 4096;
/// How many steps are handed on to one flush at the most.
const GROUP: usize = 512;
/// How often the watchdog looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After how many looks at a store that has nothing to do it is tried.
const IDLE_LOOKS: u32 = 8;
/// How long a step or a flush may take before the store is said to be stalled.
const STALLED_AFTER: Duration = Duration::from_millis(1750);
/// How long the process has to end by itself once the watchdog has given it up.
const LAST_CHANCE: Duration = Duration::from_secs(1);
/// How often what has been acknowledged is synced.
const SYNC_ACKNOWLEDGED_EVERY: Duration = Duration::from_secs(1);

/// Sends the answer of a step, given whether what it wrote is on disk.
type Answer = Box<dyn FnOnce(Result<(), Error>) + Send>;
type Job = Box<dyn FnOnce(&mut Batch) -> (Answer, Wrote) + Send>;

/// What the writer's thread is told.
enum Told {
    /// To run a step.
    Run(Job),
    /// That the other thread waits for what comes next.
    Ready,
}

/// What a step has written.
#[derive(Debug)]
pub(super) enum Wrote {
    /// Nothing.
    Nothing,
    /// Something, as the step of this number.
    Step(u64),
    /// Nothing, but from now on other files are in force, which hold everything so far and have it on disk.
    Moved(Box<Files>),
    /// It could not: the store takes no more writes.
    Failed(String),
}

/// The files that a store is in.
#[derive(Debug)]
pub(super) struct Files {
    /// sled's.
    pub(super) db: sled::Db,
    /// The one that sled writes its log to.
    pub(super) file: Arc<File>,
    /// The one that says what was answered.
    pub(super) acknowledged: Acknowledged,
}

impl Files {
    fn tree(&self) -> sled::Tree {
        (*self.db).clone()
    }

    /// Brings to disk what was written up to a step.
    fn flush(&mut self, last: u64) -> Result<(), String> {
        sync_log(&self.db, &self.file).map_err(cause)?;
        self.acknowledged.note(last).map_err(|error| error.to_string())
    }
}

/// What happens beside the writing of steps.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The number of the last step that wrote something.
    pub(super) steps: AtomicU64,
    /// How many keys have been written.
    pub(super) written: AtomicU64,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) mirror: Mirror,
    pub(super) records: Records,
}

/// The tree that is in force.
pub(super) type Current = Arc<RwLock<sled::Tree>>;

/// The tree that is in force now.
pub(super) fn in_force(current: &RwLock<sled::Tree>) -> sled::Tree {
    current.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Steps that share a flush.
#[derive(Default)]
struct Group {
    answers: Vec<Answer>,
    /// The last step that wrote something.
    last: Option<u64>,
    /// The files that have come into force meanwhile.
    moved: Option<Box<Files>>,
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

/// Whether the store can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Well,
    /// The disk has not answered for a while.
    Stalled,
    /// For good, and why.
    Failed(String),
}

/// What a thread is at, for the watchdog: odd while it does something that may hang. Waiting for work is no such thing, however
/// long, and so a long queue is none.
#[derive(Debug, Default)]
struct Progress(AtomicU64);

impl Progress {
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.fetch_add(1, Ordering::AcqRel);
        let done = work();
        self.0.fetch_add(1, Ordering::AcqRel);
        done
    }
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    failed: AtomicBool,
    condition: watch::Sender<Condition>,
    /// Whether the thread that syncs waits for what comes next.
    ready: AtomicBool,
    writing: Progress,
    syncing: Progress,
}

impl Shared {
    fn fail(&self, cause: &str) {
        // What the kernel could not write once it may have dropped: nothing after this can be promised.
        self.failed.store(true, Ordering::Release);
        tracing::error!(
            "the store takes no more writes: {cause}. Make room if the disk is full, see to the disk if it has errors or does not answer, \
             and start the service anew; nothing that was answered is lost"
        );
        self.condition.send_replace(Condition::Failed(cause.to_owned()));
    }

    /// Resolves when the store has failed for good, with the cause.
    async fn failure(&self) -> String {
        let mut condition = self.condition.subscribe();
        match condition.wait_for(|condition| matches!(condition, Condition::Failed(_))).await.as_deref() {
            Ok(Condition::Failed(cause)) => cause.clone(),
            Ok(_) | Err(_) => "the store's writer has stopped".to_owned(),
        }
    }

    /// Waits for what one of the threads says.
    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| Error::StoreUnavailable("the store's writer has stopped".into())),
            // What hangs lets no answer go.
            cause = self.failure() => Err(Error::StoreUnavailable(cause)),
        }
    }
}

/// Runs the steps. When it is dropped the threads end, once everything that was asked of them is done.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: jobs::Sender<Told>,
    shared: Arc<Shared>,
    pub(super) owed: Arc<Owed>,
    pub(super) beside: Arc<Beside>,
}

impl Writer {
    /// Starts the threads. Which tree is in force then stands in `current`.
    pub(super) fn start(files: Files, current: Current, owed: Owed) -> std::io::Result<Self> {
        let (jobs, queue) = jobs::channel(QUEUE);
        let (groups, waiting) = mpsc::sync_channel(2);
        let (condition, _) = watch::channel(Condition::Well);
        let shared = Arc::new(Shared {
            failed: AtomicBool::default(),
            condition,
            ready: AtomicBool::new(true),
            writing: Progress::default(),
            syncing: Progress::default(),
        });
        let beside = Arc::new(Beside { steps: AtomicU64::new(files.acknowledged.step()), ..Beside::default() });
        let (of_writer, batch) = (Arc::clone(&shared), Batch::new(in_force(&current), Arc::clone(&beside)));
        thread::Builder::new().name("store-write".into()).spawn(move || write(queue, batch, &current, &groups, &of_writer))?;
        let (of_sync, writer) = (Arc::clone(&shared), jobs.downgrade());
        thread::Builder::new().name("store-sync".into()).spawn(move || sync(&waiting, files, &of_sync, &writer))?;
        Ok(Self { jobs, shared, owed: Arc::new(owed), beside })
    }

    /// Ends the process when a step or a flush takes longer than `limit`.
    pub(super) fn watch(&self, limit: Duration) -> std::io::Result<()> {
        let (shared, jobs) = (Arc::downgrade(&self.shared), self.jobs.downgrade());
        thread::Builder::new().name("store-watch".into()).spawn(move || {
            let mut watchdog = Watchdog::default();
            loop {
                look_again_later();
                let (Some(shared), Some(jobs)) = (shared.upgrade(), jobs.upgrade()) else { return };
                if watchdog.look(&shared, limit) {
                    // Nothing has been written for a while: whether that still can be is found out by trying.
                    let _ = jobs.try_send(Told::Run(Box::new(move |batch| {
                        let mut txn = Txn::new(batch);
                        txn.put_raw(keys::PROBE, &[0_u8; 1][..]);
                        (Box::new(|_| ()), Wrote::of(txn.finish()))
                    })));
                }
            }
        })?;
        Ok(())
    }

    /// Runs a step and waits until what it wrote is on disk. When it gives an error nothing of it is written.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many steps wait already.
    pub(super) async fn run<T, F>(&self, step: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (job, answer) = self.job(step);
        self.jobs.try_send(Told::Run(job)).map_err(|refused| match refused {
            jobs::error::TrySendError::Full(_) => Error::Busy { retry_after: Duration::from_secs(1) },
            jobs::error::TrySendError::Closed(_) => closed(),
        })?;
        self.shared.answer(answer).await?
    }

    /// The same for a step of the service's own, which waits for a place, however many callers do.
    pub(super) async fn run_in_turn<T, F>(&self, step: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (job, answer) = self.job(step);
        self.submit(job).await?;
        self.shared.answer(answer).await?
    }

    /// What the thread has to do for a step, and where its answer comes.
    fn job<T, F>(&self, step: F) -> (Job, oneshot::Receiver<Result<T, Error>>)
    where
        T: Send + 'static,
        F: FnOnce(&mut Txn<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let owed = Arc::clone(&self.owed);
        let job: Job = Box::new(move |batch| {
            let mut txn = Txn::new(batch);
            let stepped = step(&mut txn);
            // How many more calls are owed to apps.
            let newly_owed = txn.owed;
            let (outcome, wrote) = match stepped {
                Err(error) => (Err(error), Wrote::Nothing),
                Ok(value) => match txn.finish() {
                    Err(error) => (Err(error.clone()), Wrote::Failed(cause(error))),
                    done => (Ok(value), Wrote::of(done)),
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
        (job, answer)
    }

    /// Runs something between two steps that is none, and waits for its turn and until what came before it is on disk.
    pub(super) async fn between_steps<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&sled::Tree) -> (T, Wrote) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |batch| {
            let tree = match batch.settled() {
                Ok(tree) => tree,
                // Whoever asked sees that nobody answers him.
                Err(error) => return (Box::new(|_| ()), Wrote::Failed(cause(error))),
            };
            let (outcome, wrote) = work(tree);
            // Whoever asked may have gone.
            let answer: Answer = Box::new(move |synced| drop(reply.send(synced.map(|()| outcome))));
            (answer, wrote)
        });
        self.submit(job).await?;
        self.shared.answer(answer).await?
    }

    /// How many keys have been written since the store was opened.
    pub(super) fn written(&self) -> u64 {
        self.beside.written.load(Ordering::Relaxed)
    }

    /// Waits for a place.
    async fn submit(&self, job: Job) -> Result<(), Error> {
        tokio::select! {
            biased;
            sent = self.jobs.send(Told::Run(job)) => sent.map_err(|_| closed()),
            // Behind what hangs there is no place any more.
            cause = self.shared.failure() => Err(Error::StoreUnavailable(cause)),
        }
    }

    /// Resolves when the store has failed for good.
    pub(super) async fn failed(&self) -> String {
        self.shared.failure().await
    }

    /// Resolves when the disk does not answer.
    pub(super) async fn stalled(&self) {
        // It cannot fail: this holds the sender.
        let _ = self.shared.condition.subscribe().wait_for(|condition| *condition != Condition::Well).await;
    }
}

/// Why, in the words that [`Error::StoreUnavailable`] is made of again.
pub(super) fn cause(error: Error) -> String {
    match error {
        Error::StoreUnavailable(cause) => cause,
        other => other.to_string(),
    }
}

fn closed() -> Error {
    Error::StoreUnavailable("the store is closed".into())
}

impl Wrote {
    /// What a step that was finished has written.
    fn of(finished: Result<Option<u64>, Error>) -> Self {
        match finished {
            Ok(None) => Self::Nothing,
            Ok(Some(number)) => Self::Step(number),
            Err(error) => Self::Failed(cause(error)),
        }
    }
}

fn write(
    mut queue: jobs::Receiver<Told>,
    mut batch: Batch,
    current: &RwLock<sled::Tree>,
    groups: &mpsc::SyncSender<Group>,
    shared: &Shared,
) {
    let mut group = Group::default();
    loop {
        let is_full = group.answers.len() >= GROUP;
        let told = match if is_full { None } else { queue.try_recv().ok() } {
            Some(told) => told,
            // While the disk is at work more may come that shares the next flush.
            None if is_full || (!group.answers.is_empty() && shared.ready.load(Ordering::Acquire)) => {
                if hand_on(&mut batch, std::mem::take(&mut group), groups, shared).is_err() {
                    return;
                }
                continue;
            }
            None => match queue.blocking_recv() {
                Some(told) => told,
                None => {
                    let _ = hand_on(&mut batch, group, groups, shared);
                    return;
                }
            },
        };
        let Told::Run(job) = told else { continue };
        // sled panics on what it does not expect. The step's caller sees that nobody answers him.
        let (answer, wrote) = if shared.failed.load(Ordering::Acquire) {
            refuse(job)
        } else {
            let run = || catch_unwind(AssertUnwindSafe(|| job(&mut batch)));
            shared.writing.during(run).unwrap_or_else(|_| (Box::new(|_| ()), Wrote::Failed("a panic, see above".to_owned())))
        };
        group.answers.push(answer);
        match wrote {
            Wrote::Nothing => {}
            Wrote::Step(number) => group.last = Some(number),
            Wrote::Moved(files) => {
                batch.move_to(files.tree());
                *current.write().unwrap_or_else(PoisonError::into_inner) = files.tree();
                group.moved = Some(files);
            }
            Wrote::Failed(cause) => group.failure = Some(cause),
        }
    }
}

/// Puts what a group has written into the tree, and hands the group on to be brought to disk.
fn hand_on(batch: &mut Batch, mut group: Group, groups: &mpsc::SyncSender<Group>, shared: &Shared) -> Result<(), mpsc::SendError<Group>> {
    if !shared.failed.load(Ordering::Acquire) {
        let settle = || catch_unwind(AssertUnwindSafe(|| batch.settle()));
        match shared.writing.during(settle) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => group.failure = group.failure.or(Some(cause(error))),
            Err(_) => group.failure = group.failure.or(Some("a panic, see above".to_owned())),
        }
    }
    shared.ready.store(false, Ordering::Release);
    groups.send(group)
}

/// Drops a step unrun: its caller sees that the writer has gone.
fn refuse(job: Job) -> (Answer, Wrote) {
    drop(job);
    (Box::new(|_| ()), Wrote::Nothing)
}

fn sync(waiting: &mpsc::Receiver<Group>, mut files: Files, shared: &Shared, writer: &jobs::WeakSender<Told>) {
    let give_up = |cause: String| {
        shared.fail(&cause);
        Error::StoreUnavailable(cause)
    };
    let mut acknowledged_at = Instant::now();
    let next = || {
        waiting.try_recv().or_else(|_| {
            shared.ready.store(true, Ordering::Release);
            // Where the queue is full, the writer is about to see it without being told.
            let _ = writer.upgrade().map(|writer| writer.try_send(Told::Ready));
            waiting.recv()
        })
    };
    while let Ok(mut group) = next() {
        while let Ok(mut more) = waiting.try_recv() {
            group.answers.append(&mut more.answers);
            group.last = more.last.or(group.last);
            group.moved = more.moved.or(group.moved);
            group.failure = group.failure.or(more.failure);
        }
        if let Some(moved) = group.moved {
            let old = std::mem::replace(&mut files, *moved);
            // sled writes once more when it is closed, to files that nobody needs any more. Most of that is done here: nobody who reads waits for it.
            thread::spawn(move || {
                let _ = flushing(|| old.db.flush());
                drop(old);
            });
        }
        let synced = if shared.failed.load(Ordering::Acquire) {
            Err(Error::StoreUnavailable("an earlier write did not reach the disk".into()))
        } else if let Some(cause) = group.failure {
            // It may be that sled was told what the kernel could not write.
            forget_what_was_read(&files.file);
            Err(give_up(cause))
        } else if let Some(last) = group.last {
            shared.syncing.during(|| files.flush(last)).map_err(give_up)
        } else {
            Ok(())
        };
        // The watchdog may have given up meanwhile, and told the callers that it is not known.
        let synced =
            if shared.failed.load(Ordering::Acquire) { synced.and(Err(Error::StoreUnavailable("too late".into()))) } else { synced };
        for answer in group.answers {
            answer(synced.clone());
        }
        if synced.is_ok() && acknowledged_at.elapsed() >= SYNC_ACKNOWLEDGED_EVERY {
            acknowledged_at = Instant::now();
            if let Err(error) = shared.syncing.during(|| files.acknowledged.sync()) {
                give_up(error.to_string());
            }
        }
    }
    if let Err(error) = files.acknowledged.sync() {
        tracing::warn!("what was acknowledged last could not be synced: {error}");
    }
    if shared.failed.load(Ordering::Acquire) {
        // sled writes and syncs once more when it is closed, and panics where that fails. What was promised is on disk, and the process ends.
        std::mem::forget(files);
    }
}

/// Tells a disk that hangs from one that is busy: it looks at how long one step or one flush takes, never at how long a call waits for its
/// turn. Time is counted in looks, so that a machine that sleeps or a process that was stopped counts for nothing.
#[derive(Debug, Default)]
struct Watchdog {
    seen: [u64; 2],
    /// How often that has been seen in a row.
    looks: [u32; 2],
}

impl Watchdog {
    /// Looks, and says whether nothing has moved for a while because there was nothing to do.
    fn look(&mut self, shared: &Shared, limit: Duration) -> bool {
        for (index, progress) in [&shared.writing, &shared.syncing].into_iter().enumerate() {
            let now = progress.0.load(Ordering::Acquire);
            self.looks[index] = if self.seen[index] == now { self.looks[index] + 1 } else { 0 };
            self.seen[index] = now;
        }
        let busy = [0, 1].map(|index| if self.seen[index] % 2 == 1 { LOOK_EVERY * self.looks[index] } else { Duration::ZERO });
        let longest = busy[0].max(busy[1]);
        if longest >= limit + LAST_CHANCE {
            // Not abort: a core dump has secrets in it.
            std::process::exit(1);
        }
        if longest >= limit {
            if !shared.failed.load(Ordering::Acquire) {
                shared.fail(&format!("the disk has not answered for {} s", limit.as_secs()));
            }
        } else {
            let stalled = longest >= STALLED_AFTER;
            shared.condition.send_if_modified(|condition| match (&*condition, stalled) {
                (Condition::Well, true) => {
                    *condition = Condition::Stalled;
                    true
                }
                (Condition::Stalled, false) => {
                    *condition = Condition::Well;
                    true
                }
                _ => false,
            });
        }
        let idle = self.looks.into_iter().min().unwrap_or(0);
        longest.is_zero() && idle % IDLE_LOOKS == IDLE_LOOKS - 1
    }
}

#[expect(clippy::disallowed_methods, reason = "a watchdog looks at times, and what it looks for is no event")]
fn look_again_later() {
    thread::sleep(LOOK_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_nobody_writes_to_is_tried_however_its_threads_came_to_rest() {
        let (condition, _) = watch::channel(Condition::Well);
        let (ready, failed) = (AtomicBool::new(true), AtomicBool::default());
        let shared = Shared { failed, condition, ready, writing: Progress::default(), syncing: Progress::default() };
        for apart in 0..2 * IDLE_LOOKS {
            let mut watchdog = Watchdog::default();
            shared.writing.during(|| ());
            for _ in 0..apart {
                watchdog.look(&shared, Duration::from_secs(4));
            }
            shared.syncing.during(|| ());
            let tried = (0..4 * IDLE_LOOKS).filter(|_| watchdog.look(&shared, Duration::from_secs(4))).count();
            assert!((3..=4).contains(&tried), "{tried} times, where one has rested for {apart} looks more");
        }
    }
}
