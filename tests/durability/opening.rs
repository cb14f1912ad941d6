//! The process is killed while it opens its store, finds what such a kill has left, or is not the only one.

use std::{ffi::OsString, fs, sync::Arc, time::Duration};

use tempfile::TempDir;

use crate::{
    dice::{Dice, rounds},
    harness::{
        Pair, Setup, World,
        process::{Log, PATIENCE, Process},
    },
    kills, record,
};

/// A world whose clients have worked for a while, and what they were told.
async fn worked_in(answers: usize, dice: &mut Dice) -> (World, Vec<record::Writer>) {
    let world = Arc::new(World::own(kills::setup()).await);
    let writers = record::writers(&world, 8, dice).await;
    let writers = record::work_and_kill(&world, writers, answers).await;
    let mut world = Arc::into_inner(world).expect("the writers are done");
    world.kill();
    (world, writers)
}

/// Starts a service on the world's store.
pub(crate) fn start(world: &World, environment: &[(String, OsString)], log: &Log) -> Process {
    let mut arguments: Vec<_> =
        ["serve", "--dev", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"].map(Into::into).into();
    arguments.push(world.data().into());
    arguments.extend(["--edge-listen".into(), format!("unix:{}", world.edge().with_extension("second").display()).into()]);
    let folder = world.data().parent().expect("a folder").to_owned();
    Process::start(env!("CARGO_BIN_EXE_supos-auth").as_ref(), &folder, arguments, environment, log)
}

async fn a_kill_while_it_opens_loses_nothing(answers: usize, kills: u64) {
    let mut dice = Dice::new();
    let (mut world, writers) = worked_in(answers, &mut dice).await;
    for _ in 0..kills {
        let service = start(&world, &[], &Log::default());
        tokio::time::sleep(Duration::from_micros(dice.roll(400_000))).await;
        service.kill();
    }
    world.restart(|_| ());
    record::check(&Arc::new(world), writers, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h18_c2_a_kill_while_the_store_opens_loses_nothing() {
    a_kill_while_it_opens_loses_nothing(600, 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: 300 kills"]
async fn h18_c2_hundreds_of_kills_while_the_store_opens_lose_nothing() {
    a_kill_while_it_opens_loses_nothing(30_000, rounds(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h18_c2_a_snapshot_that_was_not_finished_keeps_nobody_from_opening() {
    let mut dice = Dice::new();
    let (mut world, mut writers) = worked_in(200, &mut dice).await;
    let store = world.data().join("store");
    for content in [&b""[..], b"eleven byte", &vec![0xa5; 70_000]] {
        for name in ["snap.FFFFFFFFFFFFFFFF.generating", "snap.0000000000000000.generating"] {
            fs::write(store.join(name), content).expect("a file in the store's folder");
        }
        world.restart(|_| ());
        let shared = Arc::new(world);
        writers = record::check(&shared, writers, true).await;
        world = Arc::into_inner(shared).expect("the writers are done");
        world.terminate();
    }
    world.restart(|_| ());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_second_service_on_the_same_folder_says_so_and_harms_nobody() {
    let mut dice = Dice::new();
    let world = Arc::new(World::own(kills::setup()).await);
    let writers = record::writers(&world, 2, &mut dice).await;
    let log = Log::default();
    let mut second = start(&world, &[], &log);
    let process = world.service_id();
    let writers = record::work(&world, writers, async move |mut heard| {
        let refused = tokio::task::spawn_blocking(move || {
            let refused = log.wait_for(0, |line| line.contains("another supos-auth has").then(|| line.to_owned()));
            (refused.unwrap_or_else(|| panic!("{}", log.since(0).join("\n"))), log)
        });
        // Work goes on meanwhile.
        let (refused, log) = refused.await.expect("it says why it ends");
        assert!(refused.contains("--data-dir"), "and what to do: {refused}");
        assert!(!log.since(0).join("\n").contains("panicked"));
        heard.recv().await.expect("an answer");
        kills::kill(process);
    })
    .await;
    let begun = std::time::Instant::now();
    while second.exited().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the second one goes on");
        tokio::task::yield_now().await;
    }
    let mut world = Arc::into_inner(world).expect("the writers are done");
    // At once: who was killed lets go of the folder a moment later.
    world.restart(Pair::kill);
    record::check(&Arc::new(world), writers, true).await;
}

#[test]
fn c11_a_start_waits_for_one_that_is_on_its_way_out() {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    fs::create_dir(folder.path().join("data")).expect("a folder");
    // Holds the lock as a process does that has not quite gone.
    let holder = fs::File::create(folder.path().join("data/lock")).expect("the lock file");
    holder.lock().expect("it can be locked");
    let log = Log::default();
    let mut service = first_boot(&folder, &log);
    assert!(log.wait_for(0, |line| line.contains("waiting").then_some(())).is_some(), "{}", log.since(0).join("\n"));
    drop(holder);
    assert!(log.wait_for(0, |line| line.contains("is running").then_some(())).is_some(), "{}", log.since(0).join("\n"));
    assert!(service.exited().is_none());
    assert!(service.terminate().success());
}

fn first_boot(folder: &TempDir, log: &Log) -> Process {
    let mut arguments: Vec<_> =
        ["serve", "--dev", "--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"].map(Into::into).into();
    arguments.push(folder.path().join("data").into());
    Process::start(env!("CARGO_BIN_EXE_supos-auth").as_ref(), folder.path(), arguments, &[], log)
}

/// Every start that is killed leaves something that the next one, or the last one, makes a working service of.
async fn a_first_start_can_be_killed(kills: u64) {
    let mut dice = Dice::new();
    let mut folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    for _ in 0..kills {
        if dice.once_in(2) {
            folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
        }
        let service = first_boot(&folder, &Log::default());
        tokio::time::sleep(Duration::from_micros(dice.roll(500_000))).await;
        service.kill();
        let world = World::own(Setup { data: Some(folder.path().join("data")), ..kills::setup() }).await;
        world.family().await;
    }
}

#[tokio::test]
async fn h24_c15_a_first_start_can_be_killed_at_any_moment() {
    a_first_start_can_be_killed(6).await;
}

#[tokio::test]
#[ignore = "takes minutes: 200 kills"]
async fn h24_c15_hundreds_of_first_starts_can_be_killed_at_any_moment() {
    a_first_start_can_be_killed(rounds(200)).await;
}

#[test]
fn h18_the_store_is_not_opened_by_two_processes_that_start_at_once() {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let logs = [Log::default(), Log::default()];
    let services: Vec<_> = logs.iter().map(|log| first_boot(&folder, log)).collect();
    let runs = |log: &Log| {
        log.wait_for(
            0,
            |line| {
                if line.contains("is running") { Some(true) } else { line.contains("another supos-auth has").then_some(false) }
            },
        )
    };
    let mut run: Vec<_> = logs.iter().map(runs).collect();
    run.sort_unstable();
    assert_eq!(run, [Some(false), Some(true)], "{:?}", logs.map(|log| log.since(0)));
    for service in services {
        service.kill();
    }
}

/// sled's notes of where everything is, which a start begins from.
fn notes(world: &World) -> Vec<String> {
    let files = fs::read_dir(world.data().join("store")).expect("a store").flatten();
    files.filter_map(|file| file.file_name().into_string().ok()).filter(|name| name.starts_with("snap.")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_after_a_stop_does_not_read_what_was_written_before() {
    let mut world = World::own(kills::setup()).await;
    world.signed_in().await;
    world.terminate();
    let before = notes(&world);
    assert_eq!(before.len(), 1, "{before:?}");
    // A start that reads more than was noted notes it.
    world.restart(|_| ());
    assert_eq!(notes(&world), before);
}
