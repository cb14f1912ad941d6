//! Running statements: on a connection of the pool, with time limits, and again where the database asks for it.
//!
//! What may be run again, and what not:
//!
//! - A step that the database says it has undone (a serialization failure, a deadlock, a row that somebody else has inserted meanwhile) is
//!   run again, so many times, after a random wait.
//! - A step that never reached the database is refused, and the next call finds another connection.
//! - A step whose outcome is not known, because the connection went while it ran or committed, is never run again: the caller is told
//!   that the store was not available, and gets nothing that the step may have promised.

use std::{
    error::Error as _,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use deadpool_postgres::{Object, Pool, PoolError, TimeoutType};
use tokio::{
    runtime::Handle,
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_postgres::{
    Row,
    error::SqlState,
    types::{FromSql, ToSql},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::core::{Error, secret::random_bytes};

/// How often a step is run that the database undoes.
const ATTEMPTS: u32 = 20;
/// The longest wait before the first further run. It doubles each time, up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(4);
const MAX_WAIT: Duration = Duration::from_millis(128);
/// How long one run of a step may take that somebody waits for. The database itself gives up a statement before that (see `hosts`).
const RUN_LIMIT: Duration = Duration::from_secs(6);
/// How long it may take to call off what took too long.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// How a step begins. What a step finds after it has waited for a lock has to be what is there then, whatever the database does by itself.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// The values of a statement's parameters.
pub(super) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Why a run of a step has ended without its value.
#[derive(Debug)]
pub(super) enum Failure {
    /// The step refuses: nothing of it is kept.
    Refused(Error),
    /// The database could not.
    Database(tokio_postgres::Error),
    /// It did not answer in time.
    Slow,
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused(error) => error,
            Self::Database(error) => unavailable(&error),
            Self::Slow => Error::StoreUnavailable(format!("the database did not answer in {} s", RUN_LIMIT.as_secs())),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

/// What an error of the database says of the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It was undone, and may go well when it is run again.
    Undone,
    /// It was undone, and this server takes no writes: others may.
    ReadOnly,
    /// It was undone: somebody else holds what it needs, and others may wait for that, too.
    Contended,
    /// It did not go well, or nobody knows.
    Unavailable,
}

fn judge(error: &tokio_postgres::Error) -> Verdict {
    match error.code() {
        // A row, a table or the type of its rows that somebody else has made, or deleted, since the step looked: it finds that, the next time.
        Some(
            &(SqlState::T_R_SERIALIZATION_FAILURE
            | SqlState::T_R_DEADLOCK_DETECTED
            | SqlState::UNIQUE_VIOLATION
            | SqlState::FOREIGN_KEY_VIOLATION
            | SqlState::DUPLICATE_TABLE
            | SqlState::DUPLICATE_OBJECT),
        ) => Verdict::Undone,
        Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Verdict::ReadOnly,
        Some(&SqlState::LOCK_NOT_AVAILABLE) => Verdict::Contended,
        _ => Verdict::Unavailable,
    }
}

/// An error in words: what the database says, and nothing of the values that were sent to it.
pub(super) fn unavailable(error: &tokio_postgres::Error) -> Error {
    let words = match error.as_db_error() {
        Some(said) => format!("the database says {}: {}", said.code().code(), said.message()),
        None => match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    };
    Error::StoreUnavailable(words)
}

/// A transaction, or a connection outside of any.
pub(super) struct Txn<'a> {
    object: &'a Object,
    owes: &'a AtomicBool,
}

impl Txn<'_> {
    /// The rows of a statement.
    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Failure> {
        let statement = self.object.prepare_cached(sql).await?;
        Ok(self.object.query(&statement, params).await?)
    }

    /// The row of a statement that has one at most.
    pub(super) async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, Failure> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// Runs a statement, and gives the number of rows that it changed.
    pub(super) async fn execute(&self, sql: &str, params: Params<'_>) -> Result<u64, Failure> {
        let statement = self.object.prepare_cached(sql).await?;
        Ok(self.object.execute(&statement, params).await?)
    }

    /// Notes that calls are owed to apps once this is done.
    pub(super) fn owes(&self) {
        self.owes.store(true, Ordering::Relaxed);
    }

    /// The rows of a statement that is not the same each time, or does not have the same columns.
    pub(super) async fn fetch(&self, sql: &str) -> Result<Vec<Row>, Failure> {
        Ok(self.object.query(sql, &[]).await?)
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Failure> {
        Ok(self.object.batch_execute(sql).await?)
    }
}

/// When it was last found out that a server takes no writes. Whatever was connected by then is not used again, also what was in use then.
#[derive(Clone, Debug, Default)]
pub(super) struct Left(Arc<Mutex<Option<Instant>>>);

impl Left {
    pub(super) fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether a connection is to be left that was made then.
    pub(super) fn is_after(&self, made: Instant) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|left| made <= left)
    }
}

/// The pool.
pub(super) struct Database {
    pub(super) pool: Pool,
    pub(super) left: Left,
    /// For calling off what takes too long.
    pub(super) tls: MakeRustlsConnect,
    /// Told when a step of this process has come to owe calls to apps.
    pub(super) owed: Notify,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Database {
    /// Runs one statement, which is a step by itself.
    pub(super) async fn query(&self, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let mut runs = self.runs();
        loop {
            let run = runs.begin("").await?;
            let outcome = run.limited(run.txn()?.query(sql, params)).await;
            if let Some(done) = runs.end(run, outcome).await {
                return done;
            }
        }
    }

    /// As [`Database::query`], for one row at most.
    pub(super) async fn query_opt(&self, sql: &str, params: Params<'_>) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, params).await?.into_iter().next())
    }

    /// The runs of a step.
    pub(super) fn runs(&self) -> Runs<'_> {
        Runs { database: self, undone: 0, limit: Some(RUN_LIMIT) }
    }

    /// The same for steps that may take as long as they take.
    pub(super) const fn patient(&self) -> Patient<'_> {
        Patient(self)
    }
}

/// A database whose steps nobody waits for.
pub(super) struct Patient<'a>(&'a Database);

impl<'a> Patient<'a> {
    /// The runs of a step, which itself has to tell the server that it has no limits.
    pub(super) fn runs(&self) -> Runs<'a> {
        Runs { limit: None, ..self.0.runs() }
    }
}

/// Runs a step of several statements in a transaction: all of it is kept, or nothing. The step may be run several times. It begins with [`BEGIN`],
/// or with what is given.
macro_rules! transact {
    ($database:expr, async |$txn:ident| $step:expr) => {
        transact!($database, $crate::store::postgres::database::BEGIN, async |$txn| $step)
    };
    ($database:expr, $begin:expr, async |$txn:ident| $step:expr) => {
        async {
            let mut runs = $database.runs();
            loop {
                let run = runs.begin($begin).await?;
                let $txn = &run.txn()?;
                let outcome = run.limited(async { $crate::store::postgres::database::commit($txn, async { $step }.await).await }).await;
                if let Some(done) = runs.end(run, outcome).await {
                    break done;
                }
            }
        }
    };
}
pub(super) use transact;

/// Commits what a step has done, or undoes it.
pub(super) async fn commit<T>(txn: &Txn<'_>, outcome: Result<T, Failure>) -> Result<T, Failure> {
    match outcome {
        Ok(value) => {
            txn.batch("COMMIT").await?;
            Ok(value)
        }
        Err(failure) => {
            // When it fails the connection is closed, which does the same.
            let _ = txn.batch("ROLLBACK").await;
            Err(failure)
        }
    }
}

/// The runs of a step, one after the other.
pub(super) struct Runs<'a> {
    database: &'a Database,
    /// How many the database has undone.
    undone: u32,
    /// How long each may take.
    limit: Option<Duration>,
}

impl Runs<'_> {
    /// Begins a run: takes a connection, and begins with a statement.
    pub(super) async fn begin(&mut self, begin: &str) -> Result<Run, Error> {
        let object = self.database.pool.get().await.map_err(|error| no_connection(&error))?;
        let tls = self.database.tls.clone();
        let run = Run { object: Some(object), tls, patience: RUN_LIMIT, limit: self.limit, owes: AtomicBool::new(false) };
        if !begin.is_empty() {
            let begun = run.limited(run.txn()?.batch(begin)).await;
            begun.map_err(Failure::into_error)?;
        }
        Ok(run)
    }

    /// Ends a run, and gives what came of the step; none: it is to be run again.
    pub(super) async fn end<T>(&mut self, mut run: Run, outcome: Result<T, Failure>) -> Option<Result<T, Error>> {
        if matches!(outcome, Err(Failure::Slow)) {
            run.patience = CANCEL_LIMIT;
        } else {
            // A connection that is closed by now is not taken from the pool again.
            drop(run.object.take());
        }
        let error = match outcome {
            Ok(value) => {
                if run.owes.load(Ordering::Relaxed) {
                    self.database.owed.notify_one();
                }
                return Some(Ok(value));
            }
            Err(Failure::Database(error)) => error,
            Err(other) => return Some(Err(other.into_error())),
        };
        self.undone += 1;
        match judge(&error) {
            Verdict::Unavailable => return Some(Err(unavailable(&error))),
            Verdict::Contended => {
                metrics::counter!("supos_auth_database_lock_timeouts_total").increment(1);
                return Some(Err(busy()));
            }
            _ if self.undone == ATTEMPTS => {
                tracing::warn!("a step was undone by the database {ATTEMPTS} times, and is given up: {}", unavailable(&error));
                return Some(Err(unavailable(&error)));
            }
            Verdict::Undone => {}
            Verdict::ReadOnly => {
                // A server that was the primary and is not any more: no connection to it is good.
                tracing::warn!("the database takes no writes: its connections are closed, and another server is looked for");
                self.database.left.note();
                self.database.pool.retain(|_, _| false);
            }
        }
        let code = error.code().map_or("", SqlState::code).to_owned();
        metrics::counter!("supos_auth_database_retries_total", "code" => code).increment(1);
        match wait_before(self.undone) {
            Ok(wait) => sleep(wait).await,
            Err(error) => return Some(Err(error)),
        }
        None
    }
}

/// Up to twice as long each time.
fn wait_before(attempt: u32) -> Result<Duration, Error> {
    let most = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(MAX_WAIT);
    Ok(most.mul_f64(f64::from(u16::from_be_bytes(random_bytes()?)) / f64::from(u16::MAX)))
}

/// One run of a step, on one connection. A run that is broken off, because it took too long or nobody waits for it any more, leaves a
/// connection on which something may be under way: that is seen to before somebody else gets it.
pub(super) struct Run {
    object: Option<Object>,
    tls: MakeRustlsConnect,
    patience: Duration,
    limit: Option<Duration>,
    owes: AtomicBool,
}

impl Drop for Run {
    fn drop(&mut self) {
        if let (Some(object), Ok(runtime)) = (self.object.take(), Handle::try_current()) {
            runtime.spawn(recover(object, self.tls.clone(), self.patience));
        }
    }
}

/// Gives a connection back once what was under way on it has ended, and closes it when that takes too long.
async fn recover(object: Object, tls: MakeRustlsConnect, patience: Duration) {
    if let Ok(Ok(())) = timeout(patience, object.batch_execute("ROLLBACK")).await {
        return;
    }
    // Without this the server could go on waiting, for a standby or a lock, on behalf of somebody who has gone.
    let _ = timeout(CANCEL_LIMIT, object.cancel_token().cancel_query(tls)).await;
    drop(Object::take(object));
}

impl Run {
    /// What statements are run on.
    pub(super) fn txn(&self) -> Result<Txn<'_>, Error> {
        self.object.as_ref().map(|object| Txn { object, owes: &self.owes }).ok_or_else(|| Error::Internal("a run has no connection".into()))
    }

    /// Bounds how long it takes.
    pub(super) async fn limited<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        match self.limit {
            Some(limit) => timeout(limit, step).await.unwrap_or(Err(Failure::Slow)),
            None => step.await,
        }
    }

    /// Gives the connection back: nothing is under way on it.
    pub(super) fn finish(mut self) {
        drop(self.object.take());
    }
}

const fn busy() -> Error {
    Error::Busy { retry_after: Duration::from_secs(1) }
}

fn no_connection(error: &PoolError) -> Error {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => {
            metrics::counter!("supos_auth_database_pool_exhausted_total").increment(1);
            busy()
        }
        PoolError::Timeout(_) => Error::StoreUnavailable("the database does not take the connection in time".into()),
        PoolError::Backend(error) => unavailable(error),
        error => Error::StoreUnavailable(format!("no connection to the database: {error}")),
    }
}

/// Reads the columns of a row one after the other.
pub(super) struct Columns<'a> {
    row: &'a Row,
    at: usize,
}

impl<'a> Columns<'a> {
    pub(super) const fn of(row: &'a Row) -> Self {
        Self { row, at: 0 }
    }

    /// The next column.
    pub(super) fn next<T: FromSql<'a>>(&mut self) -> Result<T, Error> {
        let value = self.row.try_get(self.at).map_err(|error| Error::StoreUnavailable(format!("a record cannot be read: {error}")))?;
        self.at += 1;
        Ok(value)
    }
}
