//! The only place that builds the parts and joins them.

mod bootstrap;
mod connections;
mod door;
mod health;
mod listeners;
mod logouts;
mod master_key;
mod restore;

use std::{
    error::Error,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval, timeout},
};

pub use self::restore::{RestoreStage, backup, restore};
use self::{bootstrap::InitialPassword, listeners::Listeners};
use crate::{
    caller::Refusals,
    config::{LocalPlace, ServeArgs, StorePlace},
    core::{
        self, Core,
        authorities::calls::Calls,
        clock::{Clock, SteadyClock, SystemClock},
        logouts::CallableUris,
        password::Hasher,
        seal::Vault,
        signatures::{OpenedSecrets, StandIns},
        throttle::{Counts, Memory, Throttle},
        usage::Usage,
    },
    grpc::gate::Gate,
    issuer::Issuer,
    outbound,
    store::{
        Identity, NO_ROOT_KEY, Space, Store,
        postgres::PostgresStore,
        sled::{SledStore, lock_folder},
    },
    telemetry,
};

/// An error of the start, in words for an operator.
pub type StartError = Box<dyn Error + Send + Sync>;

/// How long calls in flight may take once the service was told to stop: longer than any call, and less than supervisors wait.
const DRAIN: Duration = Duration::from_secs(11);
/// How long they may take once the store has failed: they have been told so, but for those that wait for a disk that does not answer.
const DRAIN_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// How often what has expired is looked for.
const PURGE_EVERY: Duration = Duration::from_secs(10);
/// How often it is seen to that the store takes no more disk space than it needs.
const SPACE_EVERY: Duration = Duration::from_mins(1);
/// How often what apps still use is stored. What a process that is killed has counted since is lost.
const USAGE_EVERY: Duration = Duration::from_secs(30);
/// How often it is seen to that there is a key to sign with, and for keys that other services have made or retired: soon enough that a
/// token is good which was signed meanwhile (see `issuer::LEEWAY`).
const KEYS_EVERY: Duration = Duration::from_secs(2);

/// Runs the service until it is told to stop, or cannot go on.
///
/// # Errors
/// What kept it from starting or going on, and what to do about it.
pub async fn serve(args: ServeArgs) -> Result<(), StartError> {
    args.validate()?;
    let (metrics, _log) = telemetry::begin(args.log_format, &args.log)?;
    // Both may be compiled in one day, and then the first use of either would panic.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut told_to_stop = Box::pin(async {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    });

    // It takes tens of milliseconds, and needs nothing of the store: it goes on while that is opened.
    let trust = spawn_blocking(outbound::Trust::of_the_system);
    let (core, _folder) = tokio::select! {
        built = build(&args) => {
            let (core, folder) = built?;
            (Arc::new(core), folder)
        }
        // Another service may be at the tables of the database for a long time. Nothing has been promised to anybody yet.
        signal = &mut told_to_stop => {
            tracing::info!(signal, "stopping before the store is open");
            return Ok(());
        }
    };
    let listeners = Listeners::bind(&args).await?;
    let outbound = outbound::Client::new(args.outbound_rules(listeners.addresses()?), trust.await??);
    core.authority_calls.by(Box::new(outbound.clone()));
    let gate = Gate::new(Arc::clone(&core), Refusals::start(), &args.public_url, args.switched_off());
    let (stop, stopping) = watch::channel(false);
    let mut health = health::Health::new(!args.no_admin).await;
    let mut servers = listeners.serve(&args, &gate, &health, metrics.clone(), &stopping)?;
    let mut background = JoinSet::new();
    background.spawn(telemetry::keep_up(metrics));
    background.spawn(health.clone().watch(Arc::clone(&core)));
    background.spawn(purge(Arc::clone(&core)));
    background.spawn(keep_space(Arc::clone(&core)));
    background.spawn(logouts::deliver(Arc::clone(&core), outbound));
    background.spawn(keep_keys(Arc::clone(&core)));
    background.spawn(keep_usage(Arc::clone(&core)));
    tracing::info!(public_url = %args.public_url, "supos-auth {} is running", env!("CARGO_PKG_VERSION"));

    let mut drain = DRAIN;
    let outcome = tokio::select! {
        signal = &mut told_to_stop => {
            tracing::info!(signal, "stopping: no new calls are taken, calls in flight end");
            Ok(())
        }
        cause = core.store.failed() => {
            drain = DRAIN_AFTER_FAILURE;
            Err(format!("the store has failed: {cause}; see to it and start the service anew").into())
        }
        Some(ended) = servers.join_next() => Err(match ended {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => "a listener has ended by itself".into(),
        }),
        // None of it ever ends. Without it the service would seem well, and remove nothing, tell nobody, or sign with a key that is too old.
        Some(_) = background.join_next() => {
            Err("what the service does in the background has ended by itself, see above; start the service anew, and report it".into())
        }
    };
    background.shutdown().await;
    health.stop().await;
    stop.send_replace(true);
    let drained = timeout(drain, async { while servers.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some calls did not end in {drain:?} and are cut off");
        servers.shutdown().await;
    }
    outcome?;
    if let Ok(Err(error)) = timeout(DRAIN, core.store_usage()).await {
        tracing::warn!("what apps still use could not be stored: {error}");
    }
    // A database has on disk what was answered, and may be away by now.
    let is_own = matches!(args.store.place()?, StorePlace::Sled);
    if is_own {
        match timeout(DRAIN, core.store.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("the last writes may not be on disk: {error}").into()),
            Err(_) => return Err("the last writes may not be on disk: the disk does not answer".into()),
        }
    }
    drop((gate, core));
    if is_own {
        prepare_next_start(args.data_dir).await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Has the next start find the embedded store quick to open. Everything is on disk by then, so that there is nothing to lose.
async fn prepare_next_start(data_dir: PathBuf) {
    let prepare = spawn_blocking(move || SledStore::prepare_to_open(&data_dir));
    match timeout(DRAIN, prepare).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!("the next start may take longer: {error}"),
        Ok(Err(_)) | Err(_) => tracing::warn!("the next start may take longer"),
    }
}

/// Opens the store and builds the core on it. A new store gets its root key, its first users and its first signing key. With the core comes
/// what keeps others from the data folder, where the store does not.
async fn build(args: &ServeArgs) -> Result<(Core, Option<File>), StartError> {
    let key_path = args.master_key_path().ok_or("there is no master key")?;
    master_key::make_private_folder(&args.data_dir)?;
    let data_dir = args.data_dir.clone();
    let disk_timeout = Duration::from_secs(args.disk_timeout);
    let open_sled = move || {
        let store = SledStore::open(&data_dir)?;
        store.watch(disk_timeout)?;
        Ok(store)
    };
    let (Opened { store, clock, counts }, folder) = match args.store.place()? {
        StorePlace::Sled => (open_folder(open_sled).await?, None),
        StorePlace::Postgres(address) => {
            let data_dir = args.data_dir.clone();
            let folder = spawn_blocking(move || lock_folder(&data_dir)).await??;
            (opened_database(PostgresStore::open(*address, args.store.store_connections.into()).await?), Some(folder))
        }
    };
    let origin = bootstrap::origin(args.dev);
    let identity = store.identity().await?;
    if let Some(identity) = &identity {
        bootstrap::check_origin(identity.origin, args.dev)?;
    } else if args.dev && args.master_key_file.is_none() {
        master_key::make_if_missing(&key_path)?;
    }
    let master = master_key::read(&key_path)?;
    let identity = match identity {
        Some(identity) => identity,
        None => {
            if !store.is_empty().await? && store.identity().await?.is_none() {
                return Err("the store has records and no root key: a restore into it was broken off. Restore into an empty one".into());
            }
            let (_, root) = Vault::create(&master)?;
            // Of several services that begin on one new store, one makes its root key.
            let identity = store.found(Identity { origin, root }).await?;
            bootstrap::check_origin(identity.origin, args.dev)?;
            identity
        }
    };
    let vault = Vault::open(&master, &identity.root)
        .map_err(|_| format!("the master key in {} is not the one that this store is sealed under", key_path.display()))?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let initial_password = InitialPassword::new(&args.data_dir);
    let core = Core {
        store,
        issuer: Issuer::new(args.issuer(), Duration::from_secs(args.access_token_lifetime)),
        throttle: Arc::new(Throttle::new(args.limits(), vault.key_of_places(), counts)),
        vault,
        hasher: Hasher::new(cores)?,
        stand_ins: StandIns::new()?,
        opened: OpenedSecrets::default(),
        callable: CallableUris::default(),
        usage: Usage::default(),
        authority_calls: Calls::default(),
        clock,
        settings: args.settings(),
        on_password_changed: Box::new(initial_password.clone()),
    };
    bootstrap::first_records(&core, args.dev, &initial_password).await?;
    core.rotate_signing_keys().await?;
    Ok((core, folder))
}

/// The machine's clock, or one that stands still for a while where that was set back since the store was last used.
async fn steady_clock(store: &dyn Store) -> Result<SteadyClock<SystemClock>, StartError> {
    let (seen, now) = (store.latest().await?, SystemClock.now());
    if seen <= now {
        return Ok(SteadyClock::new(SystemClock, now));
    }
    tracing::warn!(
        seconds = seen.since(now).as_secs(),
        "the clock shows an earlier time than when the service last ran: nothing expires until it has caught up, but for two hours at the most"
    );
    // The service may have run on for as long after it noted the time.
    Ok(SteadyClock::new(SystemClock, seen.after(PURGE_EVERY)))
}

/// A store, and what goes with it.
struct Opened {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    counts: Arc<dyn Counts>,
}

async fn open_folder(open: impl FnOnce() -> Result<SledStore, core::Error> + Send + 'static) -> Result<Opened, StartError> {
    let store = spawn_blocking(open).await??;
    let clock = steady_clock(&store).await?;
    Ok(Opened { store: Arc::new(store), clock: Arc::new(clock), counts: Arc::new(Memory::new(Arc::new(SystemClock))) })
}

fn opened_database(store: PostgresStore) -> Opened {
    let (clock, store) = (store.clock(), Arc::new(store));
    Opened { clock, counts: Arc::clone(&store) as Arc<dyn Counts>, store }
}

async fn purge(core: Arc<Core>) {
    let mut tick = interval(PURGE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        loop {
            if let Ok(overdue) = core.store.overdue(core.now()).await {
                metrics::gauge!("supos_auth_purge_overdue_seconds").set(overdue.as_secs_f64());
            }
            match core.store.purge(core.now()).await {
                Ok(0) => break,
                Ok(looked_at) => metrics::counter!("supos_auth_purged_records_total").increment(looked_at as u64),
                Err(error) => {
                    tracing::warn!("expired records could not be removed, and are tried again: {error}");
                    break;
                }
            }
        }
    }
}

async fn keep_space(core: Arc<Core>) {
    let mut tick = interval(SPACE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match core.store.give_space_back().await {
            Ok(Some(Space { bytes, given_back })) => {
                #[expect(clippy::cast_precision_loss, reason = "a gauge, and exact up to 8 PiB")]
                metrics::gauge!("supos_auth_store_bytes").set(bytes as f64);
                if let Some(given_back) = given_back {
                    metrics::counter!("supos_auth_store_compactions_total").increment(1);
                    metrics::counter!("supos_auth_store_given_back_bytes_total").increment(given_back);
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("the store could not be compacted, and is looked at again: {error}"),
        }
    }
}

async fn keep_usage(core: Arc<Core>) {
    let mut tick = interval(USAGE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = core.store_usage().await {
            tracing::warn!("what apps still use could not be stored, and is tried again: {error}");
        }
    }
}

async fn keep_keys(core: Arc<Core>) {
    let mut tick = interval(KEYS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = core.rotate_signing_keys().await {
            tracing::warn!("signing keys could not be seen to, and are tried again: {error}");
        }
    }
}

/// Seals the store of a stopped service under another master key.
///
/// # Errors
/// When a key or the store cannot be read or written; the store is then as it was.
pub fn rewrap_master_key(place: LocalPlace, old: &Path, new: &Path) -> Result<(), StartError> {
    let (old, new) = (master_key::read(old)?, master_key::read(new)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Opened { store, .. } = restore::open_existing(place).await?;
        let identity = store.identity().await?.ok_or(NO_ROOT_KEY)?;
        let root =
            Vault::rewrap(&old, &new, &identity.root).map_err(|_| "the old master key is not the one that this store is sealed under")?;
        store.set_identity(Identity { root, ..identity }).await?;
        Ok(())
    })
}
