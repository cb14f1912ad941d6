//! Imports: a stream of records that are stored all together, or not at all.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{SILENCE, apps, pb, users};
use crate::{
    caller::Caller,
    core::{
        Core, Error, Problem,
        model::{App, User},
        users::NewCredential,
    },
    dialect::{Dialect, language::Language},
    grpc::{
        gate::{self, Gate},
        status::{Reader, status},
    },
};

/// The most records of one import: they are stored in one step, and sled answers no other call meanwhile.
const MAX_RECORDS: usize = 10_000;
/// How often progress is told, in records.
const PROGRESS_EVERY: usize = 100;
/// How long all records may take to come and be checked, their passwords hashed: ten thousand of those take less.
const TIME_LIMIT: Duration = Duration::from_hours(1);

/// How far an import has come.
pub(super) type Progress<T> = ReceiverStream<Result<T, Status>>;

/// A step of an import.
pub(super) enum Step<R> {
    /// The options.
    Options(pb::ImportOptions),
    /// A record.
    Record(R),
}

/// What is imported.
#[tonic::async_trait]
pub(super) trait Import: 'static {
    type Message: Send + 'static;
    type Request: Send;
    type Record: Send + Sync;
    type Response: Send + 'static;

    /// What the outcome of a whole import is counted and logged as.
    const OUTCOME: &'static str;

    fn step(message: Self::Message) -> Option<Step<Self::Request>>;
    /// Checks a record, and makes what is stored of it.
    async fn check(core: &Core, request: Self::Request) -> Result<Self::Record, Error>;
    /// What has to be unique, its field, and whether the store has it already.
    async fn unique(core: &Core, record: &Self::Record) -> Result<(String, &'static str, bool), Error>;
    async fn store(core: &Core, records: Vec<Self::Record>) -> Result<(), Error>;
    fn response(checked: usize, stored: usize) -> Self::Response;
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Apps.
pub(super) enum Apps {}

#[tonic::async_trait]
impl Import for Apps {
    type Message = pb::ImportAppsRequest;
    type Request = pb::CreateAppRequest;
    type Record = App;
    type Response = pb::ImportAppsResponse;

    const OUTCOME: &'static str = "/supos.auth.admin.v1.AppService/ImportApps outcome";

    fn step(message: Self::Message) -> Option<Step<Self::Request>> {
        message.step.map(|step| match step {
            pb::import_apps_request::Step::Options(options) => Step::Options(options),
            pb::import_apps_request::Step::App(app) => Step::Record(app),
        })
    }

    async fn check(core: &Core, request: Self::Request) -> Result<App, Error> {
        // An id that was made here could not be told. A secret that was is as none: the app gets one that somebody knows later.
        if request.app.as_ref().is_some_and(|app| app.app_id.is_empty()) {
            return Err(Error::parameter("app.app_id", Problem::Missing));
        }
        Ok(core.new_app(apps::new_app(request)?)?.0)
    }

    async fn unique(core: &Core, app: &App) -> Result<(String, &'static str, bool), Error> {
        Ok((app.id.to_string(), "app.app_id", core.store.app(&app.id).await?.is_some()))
    }

    async fn store(core: &Core, records: Vec<App>) -> Result<(), Error> {
        core.store.create_apps(records).await
    }

    fn response(checked: usize, stored: usize) -> Self::Response {
        pb::ImportAppsResponse { checked: count(checked), stored: count(stored) }
    }
}

/// Users.
pub(super) enum Users {}

#[tonic::async_trait]
impl Import for Users {
    type Message = pb::ImportUsersRequest;
    type Request = pb::CreateUserRequest;
    type Record = User;
    type Response = pb::ImportUsersResponse;

    const OUTCOME: &'static str = "/supos.auth.admin.v1.UserService/ImportUsers outcome";

    fn step(message: Self::Message) -> Option<Step<Self::Request>> {
        message.step.map(|step| match step {
            pb::import_users_request::Step::Options(options) => Step::Options(options),
            pb::import_users_request::Step::User(user) => Step::Record(user),
        })
    }

    async fn check(core: &Core, request: Self::Request) -> Result<User, Error> {
        core.new_user(users::new_user(request, NewCredential::None)?).await
    }

    async fn unique(core: &Core, user: &User) -> Result<(String, &'static str, bool), Error> {
        Ok((user.name.clone(), "user.user_name", core.store.user_named(&user.name).await?.is_some()))
    }

    async fn store(core: &Core, records: Vec<User>) -> Result<(), Error> {
        core.store.create_users(records).await
    }

    fn response(checked: usize, stored: usize) -> Self::Response {
        pb::ImportUsersResponse { checked: count(checked), stored: count(stored) }
    }
}

/// Serves an import: answers with how far it has come.
pub(super) async fn serve<I: Import>(
    gate: &Gate,
    rpc: &'static str,
    request: Request<Streaming<I::Message>>,
) -> Result<Response<Progress<I::Response>>, Status> {
    let language =
        request.metadata().get("accept-language").and_then(|value| value.to_str().ok()).map_or(Language::English, Language::preferred);
    let work = async |core: Arc<Core>, caller: Caller, steps| {
        caller.administrator()?;
        let (who, address) = (caller.to_string(), caller.source().address);
        let (progress, answer) = mpsc::channel(16);
        tokio::spawn(async move {
            let begun = Instant::now();
            let outcome = import::<I>(&core, &caller, steps, &progress).await;
            // The call that began it was counted as done when its stream began.
            gate::note(I::OUTCOME, &who, address, outcome.as_ref().err(), begun.elapsed());
            let last = outcome
                .map(|(checked, stored)| I::response(checked, stored))
                .map_err(|error| status(&error, Dialect::Admin, Reader::Native, language));
            // Whoever asked may have gone.
            let _ = progress.send(last).await;
        });
        Ok(ReceiverStream::new(answer))
    };
    gate.serve_admin(rpc, request, work).await
}

/// What comes next; none: that was all.
async fn next<M>(steps: &mut Streaming<M>) -> Result<Option<M>, Error> {
    let message = timeout(SILENCE, steps.message()).await.map_err(|_| Error::Precondition("nothing came for 30 seconds: import again"))?;
    message.map_err(|_| Error::parameter("steps", Problem::Malformed))
}

async fn import<I: Import>(
    core: &Core,
    caller: &Caller,
    steps: Streaming<I::Message>,
    progress: &mpsc::Sender<Result<I::Response, Status>>,
) -> Result<(usize, usize), Error> {
    // Only what comes before anything is stored may be cut short: afterwards nobody could say whether it was.
    let gathered = timeout(TIME_LIMIT, gather::<I>(core, steps, progress)).await;
    let (options, records) = gathered.map_err(|_| Error::Precondition("the import took longer than an hour: split it"))??;
    let checked = records.len();
    if options.validate_only {
        return Ok((checked, 0));
    }
    caller.still_administrator(core).await?;
    I::store(core, records).await?;
    Ok((checked, checked))
}

/// Takes the options and all records, and checks them.
async fn gather<I: Import>(
    core: &Core,
    mut steps: Streaming<I::Message>,
    progress: &mpsc::Sender<Result<I::Response, Status>>,
) -> Result<(pb::ImportOptions, Vec<I::Record>), Error> {
    let options = match next(&mut steps).await?.and_then(I::step) {
        Some(Step::Options(options)) => options,
        _ => return Err(Error::parameter("options", Problem::Missing)),
    };
    let mut records = Vec::new();
    let mut seen = HashSet::new();
    while let Some(message) = next(&mut steps).await? {
        let place = format!("steps[{}]", records.len());
        let Some(Step::Record(request)) = I::step(message) else { return Err(Error::parameter(place, Problem::Malformed)) };
        if records.len() == MAX_RECORDS {
            return Err(Error::Precondition("an import has at most 10000 records: split it"));
        }
        let record = I::check(core, request).await.map_err(|error| error.within(&place))?;
        let (name, field, exists) = I::unique(core, &record).await?;
        if exists || !seen.insert(name) {
            return Err(Error::AlreadyExists { name: format!("{place}.{field}") });
        }
        records.push(record);
        if records.len() % PROGRESS_EVERY == 0 {
            // Whoever asked has gone: an import that nobody waits for is not done.
            progress.send(Ok(I::response(records.len(), 0))).await.map_err(|_| Error::Precondition("the caller has gone"))?;
        }
    }
    Ok((options, records))
}
