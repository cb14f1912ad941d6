//! The power goes: of what was written only that is there which a sync has made safe.

use std::{
    ffi::OsString,
    fs::{self, File},
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use supos_auth::{
    core::{
        clock::{Clock as _, SystemClock},
        ids::{AppId, Incarnation, SessionId},
        model::Code,
        secret::{BearerHash, random_bytes},
    },
    store::{Maintenance as _, Transfer as _, record::Record, sled::SledStore},
};
use tempfile::TempDir;

use crate::{
    dice::{Dice, rounds},
    harness::{Setup, World, process::Log},
    kills, opening,
    record::{self, Writer},
    shim::{Disk, Operations, Shim, Unsynced},
};

/// What has happened on a machine until its power went.
struct Past {
    /// The folder that the service had, with all that was ever written.
    folder: TempDir,
    operations: Operations,
    /// Where in the operations the clients began.
    begin: u64,
    writers: Vec<Writer>,
}

impl Past {
    /// A moment within these, for a cut. Half of the cuts are where files get their names, if any do.
    fn moment(&self, cut: u64, within: &Range<u64>, dice: &mut Dice) -> u64 {
        let mut moments = if cut % 4 < 2 { self.operations.moments_of_folders() } else { Vec::new() };
        moments.retain(|moment| within.contains(moment));
        if moments.is_empty() {
            moments = self.operations.moments();
            moments.retain(|moment| within.contains(moment));
        }
        *dice.pick(&moments).expect("something was written")
    }
}

/// A service on an empty folder that is killed, and started again, as often as there are numbers: of answers that its clients have by then.
async fn past(answers: &[usize], dice: &mut Dice) -> Past {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let own = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let shim = Shim::new(folder.path(), own.path()).recording();
    let log = shim.log.clone().expect("it is recording");
    let setup = Setup { data: Some(folder.path().join("data")), environment: shim.environment(), ..kills::setup() };
    let mut world = World::own(setup).await;
    let (mut begin, mut writers) = (None, Vec::new());
    for answers in answers {
        if begin.is_some() {
            world.restart(|_| ());
        }
        let mut fresh = record::writers(&world, 4, dice).await;
        for writer in &mut fresh {
            writer.remember(log.clone());
        }
        begin.get_or_insert_with(|| fs::metadata(&log).expect("the log").len());
        let shared = Arc::new(world);
        writers.extend(record::work_and_kill(&shared, fresh, *answers).await);
        world = Arc::into_inner(shared).expect("the writers are done");
        world.kill();
        Operations::complete(&log, &Disk::default(), folder.path());
    }
    let begin = begin.expect("it has lived");
    let operations = Operations::read(&log, Disk::default());
    Past { folder, operations, begin, writers }
}

/// A service that moves its store to new files while clients work, and is killed when they have had so many more answers. Before, it was
/// killed so often in the middle of that, or once it was done.
async fn past_with_a_move(kills: u64, answers: usize, dice: &mut Dice) -> Past {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let own = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let shim = Shim::new(folder.path(), own.path()).recording();
    let log = shim.log.clone().expect("it is recording");
    let data = folder.path().join("data");
    let mut world = World::own(Setup { data: Some(data.clone()), ..kills::setup() }).await;
    let mut writers = record::writers(&world, 4, dice).await;
    world.terminate();
    fill_with_what_is_gone(&data).await;
    let before = at_rest(folder.path(), &data);
    for writer in &mut writers {
        writer.remember(log.clone());
    }
    let is_to_move = || !data.join("store.next").exists() && fs::metadata(log_of(&data)).expect("the log").len() > 32 << 20;
    for _ in 0..kills {
        if !is_to_move() {
            break;
        }
        let lines = Log::default();
        let service = opening::start(&world, &shim.environment(), &lines);
        let begun = tokio::task::spawn_blocking(move || lines.wait_for(0, |line| line.contains("compacting it").then_some(())));
        begun.await.expect("it waits").expect("the store moves");
        tokio::time::sleep(Duration::from_micros(dice.roll(100_000))).await;
        service.kill();
        Operations::complete(&log, &before, folder.path());
    }
    let is_to_move = is_to_move();
    world.restart_with(|_| (), |setup| setup.environment = shim.environment());
    let world = Arc::new(world);
    let (process, service_log) = (world.service_id(), world.service_log.clone());
    let writers = record::work(&world, writers, async move |mut heard| {
        if is_to_move {
            let moved = move || service_log.wait_for(0, |line| line.contains("the store is compacted").then_some(()));
            tokio::task::spawn_blocking(moved).await.expect("it waits").expect("the store moves");
        }
        while heard.try_recv().is_ok() {}
        for _ in 0..answers {
            heard.recv().await.expect("an answer");
        }
        kills::kill(process);
    })
    .await;
    Past { folder, operations: Operations::read(&log, before), begin: 0, writers }
}

/// All that there is in a folder once nobody has the store in it open any more: sled writes for a moment after it was dropped.
fn at_rest(folder: &Path, data: &Path) -> Disk {
    File::open(log_of(data)).and_then(|log| log.lock()).expect("sled lets go of its log");
    Disk::of(folder)
}

/// sled's log.
fn log_of(data: &Path) -> PathBuf {
    data.join("store/db")
}

/// Leaves so much behind in the files of a store that moving to new ones is worth it.
pub(crate) async fn fill_with_what_is_gone(data: &Path) {
    let store = SledStore::open(data).expect("a store");
    put_codes(&store, 28).await;
    while store.purge(SystemClock.now().after(Duration::from_secs(1))).await.expect("purged") > 0 {}
    store.flush().await.expect("flushed");
}

/// Puts so many times 500 codes of about 3 KiB into a store, which have expired.
pub(crate) async fn put_codes(store: &SledStore, times: usize) {
    for _ in 0..times {
        let codes = (0..500).map(|_| {
            let code = Code {
                app: AppId::new("nobody").expect("an id"),
                incarnation: Incarnation::from_bytes([1; 16]),
                session: SessionId::from_bytes([1; 16]),
                redirect_uri: format!("https://app.example/{}", "x".repeat(2000)),
                scope: "y".repeat(1000),
                expires_at: SystemClock.now(),
                used: None,
                kept_until: SystemClock.now(),
            };
            Record::Code { hash: BearerHash::from_bytes(random_bytes().expect("randomness")), code }
        });
        store.import(codes.collect()).await.expect("stored");
    }
}

/// Whether what clients had been told at this moment holds once the power is back.
async fn holds(past: &Past, moment: u64, unsynced: Unsynced, ignored: Option<&str>, dice: &mut Dice) -> Result<(), String> {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    past.operations.rebuild(moment, past.folder.path(), folder.path(), unsynced, ignored, dice);
    let writers: Vec<_> = past.writers.iter().filter_map(|writer| writer.at(moment)).collect();
    let data: PathBuf = folder.path().join("data");
    let check = tokio::spawn(async move {
        let world = Arc::new(World::own(Setup { data: Some(data), ..kills::setup() }).await);
        record::check(&world, writers, true).await;
    });
    check.await.map_err(|error| format!("the power was cut at {moment}, {unsynced:?}: {error}"))
}

/// Every other cut tears what was not synced.
const fn unsynced(cut: u64) -> Unsynced {
    if cut.is_multiple_of(2) { Unsynced::Lost } else { Unsynced::Torn }
}

/// Whether what was recorded then can be held against a store no more: a refresh that was not answered is tried again, which a service lets
/// for five minutes.
fn is_too_old(recorded: Instant, cuts: u64) -> bool {
    let is_too_old = recorded.elapsed() > Duration::from_mins(4);
    if is_too_old {
        println!("this machine is too slow for more than {cuts} power cuts of one past");
    }
    is_too_old
}

async fn nothing_is_lost(past: Past, cuts: u64, dice: &mut Dice) {
    let recorded = Instant::now();
    for cut in 0..cuts {
        if is_too_old(recorded, cut) {
            break;
        }
        let moment = past.moment(cut, &(past.begin..u64::MAX), dice);
        holds(&past, moment, unsynced(cut), None, dice).await.unwrap_or_else(|error| panic!("{error}"));
    }
}

async fn nothing_is_lost_while_clients_work(answers: &[usize], cuts: u64) {
    let mut dice = Dice::new();
    nothing_is_lost(past(answers, &mut dice).await, cuts, &mut dice).await;
}

async fn nothing_is_lost_by_a_move(kills: u64, answers: usize, cuts: u64) {
    let mut dice = Dice::new();
    nothing_is_lost(past_with_a_move(kills, answers, &mut dice).await, cuts, &mut dice).await;
}

async fn a_first_start_can_be_cut_short(cuts: u64) {
    let mut dice = Dice::new();
    let past = past(&[1], &mut dice).await;
    for cut in 0..cuts {
        let moment = past.moment(cut, &(0..past.begin), &mut dice);
        let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
        past.operations.rebuild(moment, past.folder.path(), folder.path(), unsynced(cut), None, &mut dice);
        let data = Some(folder.path().join("data"));
        let starts = tokio::spawn(async { World::own(Setup { data, ..kills::setup() }).await.family().await });
        starts.await.unwrap_or_else(|error| panic!("the power was cut at {moment}, {:?}: {error}", unsynced(cut)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h17_c3_nothing_that_was_answered_is_lost_when_the_power_goes() {
    nothing_is_lost_while_clients_work(&[150], 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h17_c3_nothing_that_was_answered_is_lost_when_the_power_goes_after_kills() {
    nothing_is_lost_while_clients_work(&[50; 3], 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: 500 cuts"]
async fn h17_c3_nothing_is_lost_at_hundreds_of_power_cuts() {
    for _ in 0..rounds(10) {
        nothing_is_lost_while_clients_work(&[500], 25).await;
        nothing_is_lost_while_clients_work(&[50; 10], 25).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h17_c3_nothing_that_was_answered_is_lost_when_the_power_goes_while_the_store_moves_to_new_files() {
    nothing_is_lost_by_a_move(0, 50, 12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h17_c3_nothing_is_lost_when_the_power_goes_after_kills_while_the_store_moves_to_new_files() {
    nothing_is_lost_by_a_move(2, 50, 8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: 100 cuts"]
async fn h17_c3_nothing_is_lost_at_a_hundred_power_cuts_while_the_store_moves_to_new_files() {
    for kills in 0..rounds(4) {
        nothing_is_lost_by_a_move(kills, 100, 25).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h24_c15_a_first_start_can_be_cut_short_by_the_power_at_any_moment() {
    a_first_start_can_be_cut_short(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: 100 cuts"]
async fn h24_c15_a_hundred_first_starts_can_be_cut_short_by_the_power() {
    a_first_start_can_be_cut_short(rounds(100)).await;
}

/// sled takes what it reads for safe: it notes where everything is, and what callers are told next rests on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h17_c3_what_a_killed_service_left_to_the_kernel_is_on_disk_before_the_next_one_writes_anything() {
    let (folder, own) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let data = folder.path().join("data");
    let mut world = World::own(Setup { data: Some(data.clone()), ..kills::setup() }).await;
    world.family().await;
    world.kill();
    let shim = Shim::new(folder.path(), own.path()).recording();
    let log = shim.log.clone().expect("it is recording");
    world.restart_with(|_| (), |setup| setup.environment = shim.environment());
    let operations = Operations::read(&log, Disk::of(folder.path()));
    for path in [log_of(&data), data] {
        assert!(operations.begin_with_a_sync_of(&path), "something was written before {} was synced", path.display());
    }
}

/// The records of a stopped service's store, which is brought to the present format.
fn records(data: &Path, environment: &[(String, OsString)]) -> Vec<String> {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let file = folder.path().join("backup.jsonl");
    let mut command = Command::new(env!("CARGO_BIN_EXE_supos-auth"));
    command.arg("backup").arg("--data-dir").arg(data).arg(&file).envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.stdin(Stdio::null()).output().expect("the command runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<String> = fs::read_to_string(&file).expect("text").lines().map(str::to_owned).collect();
    // The first line has the time, and the last one a checksum with it.
    lines[1..lines.len() - 1].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c14_a_store_of_an_older_format_is_whole_wherever_the_power_goes_while_it_is_brought_to_the_present_one() {
    let (folder, own) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let data = folder.path().join("data");
    fs::create_dir_all(data.join("store")).expect("made");
    for name in ["conf", "db"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store-format-1").join(name);
        fs::copy(from, data.join("store").join(name)).expect("copied");
    }
    let before = Disk::of(folder.path());
    let shim = Shim::new(folder.path(), own.path()).recording();
    let log = shim.log.clone().expect("it is recording");
    let whole = records(&data, &shim.environment());
    assert!(whole.len() > 13, "a record of each kind");
    let operations = Operations::read(&log, before);
    let (moments, mut dice) = (operations.moments(), Dice::new());
    assert!(moments.len() > 10, "it was recorded");
    for (cut, moment) in (0..).zip(&moments) {
        let again = TempDir::new().expect("a folder");
        operations.rebuild(*moment, folder.path(), again.path(), unsynced(cut), None, &mut dice);
        assert_eq!(records(&again.path().join("data"), &[]), whole, "the power was cut at {moment}, {:?}", unsynced(cut));
    }
    println!("{} moments", moments.len());
}

/// If this failed the first test would see nothing. sled itself syncs every 500 ms, so some cuts find everything safe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h17_c3_without_our_own_sync_the_same_power_cuts_lose_what_was_answered() {
    let mut dice = Dice::new();
    let past = past(&[150], &mut dice).await;
    assert!(past.operations.syncs("fdatasync") > 10, "the service syncs by fdatasync");
    for cut in 0..20 {
        let moment = past.moment(cut, &(past.begin..u64::MAX), &mut dice);
        if holds(&past, moment, Unsynced::Lost, Some("fdatasync"), &mut dice).await.is_err() {
            return;
        }
    }
    panic!("nothing was lost although nothing was synced: the test is blind");
}
