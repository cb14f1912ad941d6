//! What many sessions cost: disk and memory a session, and how long the service takes to start. Printed, and judged by hand
//! (docs/storage.md).

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use supos_auth::store::{Transfer as _, sled::SledStore};
use tokio::task::JoinSet;

use crate::{
    harness::{Pair, Setup},
    measure::{memory, session, size, wished_for},
};

/// How many sessions are stored in one step.
const BATCH: u64 = 50;
/// How many steps are asked for at once.
const AT_ONCE: u64 = 20;
/// How long the memory of a process has to stay the same.
const QUIET: Duration = Duration::from_secs(3);
/// For how long that may take, and a compaction.
const MOST_CHANGE: Duration = Duration::from_mins(10);

/// Stores sessions, and says how far it has come.
async fn fill(store: &Arc<SledStore>, count: u64) {
    let begun = Instant::now();
    let rounds = count / (BATCH * AT_ONCE);
    for round in 0..rounds {
        let mut steps = JoinSet::new();
        for step in round * AT_ONCE..(round + 1) * AT_ONCE {
            let store = Arc::clone(store);
            steps.spawn(async move { store.import((step * BATCH..(step + 1) * BATCH).flat_map(session).collect()).await });
        }
        while let Some(stored) = steps.join_next().await {
            stored.expect("no panic").expect("stored");
        }
        if (round + 1).is_multiple_of((rounds / 10).max(1)) {
            println!("{} sessions stored after {:?}", (round + 1) * BATCH * AT_ONCE, begun.elapsed());
        }
    }
}

/// The memory of a process once that does not change any more: what it does after its start is done then.
async fn settled_memory(process: u32) -> u64 {
    let begun = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    while since.elapsed() < QUIET && begun.elapsed() < MOST_CHANGE {
        let now = memory(&process.to_string());
        if now.abs_diff(last) > 1 << 20 {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    last
}

/// Starts the service again, and says how long that took.
async fn start(pair: &mut Pair, after: &str, sessions: u64) -> u64 {
    let begun = Instant::now();
    pair.start_again(|_| ()).expect("it starts");
    let took = begun.elapsed();
    let disk = disk(pair, sessions);
    let memory = settled_memory(pair.service_id()).await;
    println!("{sessions} sessions, after {after}: ready in {took:?}; {disk} bytes of disk each, {} MiB of memory", memory >> 20);
    memory
}

/// Waits until the service has moved its store to new files.
fn await_compaction(pair: &Pair) {
    let begun = Instant::now();
    let is_done = |line: &str| line.contains("the store is compacted").then_some(());
    while pair.service_log.wait_for(0, is_done).is_none() {
        assert!(begun.elapsed() < MOST_CHANGE, "the store is not compacted");
    }
}

fn disk(pair: &Pair, sessions: u64) -> u64 {
    size(&pair.data().join("store")) / sessions.max(1)
}

fn stop(pair: &mut Pair) {
    let begun = Instant::now();
    pair.terminate();
    println!("stopped in {:?}", begun.elapsed());
}

fn binary() -> u64 {
    fs::metadata(Path::new(env!("CARGO_BIN_EXE_supos-auth"))).map_or(0, |metadata| metadata.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; SESSIONS=1000000 cargo test --release --test space -- --ignored --nocapture a_store_of_many_sessions"]
async fn a_store_of_many_sessions() {
    let count = wished_for(200_000);
    let begun = Instant::now();
    let mut pair = Pair::start(Setup { alone: true, ..Setup::default() }).expect("it starts");
    println!("a new store: ready in {:?}; the binary has {} MiB", begun.elapsed(), binary() >> 20);
    stop(&mut pair);
    let empty = start(&mut pair, "nothing", 0).await;
    stop(&mut pair);

    let store = Arc::new(SledStore::open(&pair.data()).expect("a store"));
    fill(&store, count).await;
    drop(store);
    // Its files are let go of a moment later, which may be seconds with so many sessions.
    fs::File::open(pair.data().join("store/db")).and_then(|log| log.lock()).expect("the files are let go of");
    // As after a kill: nobody has prepared the next start, and all of the log is read.
    start(&mut pair, "a kill, not compacted", count).await;
    await_compaction(&pair);
    let memory = settled_memory(pair.service_id()).await;
    println!("compacted: {} bytes of disk each, {} MiB of memory", disk(&pair, count), memory >> 20);
    pair.kill();
    start(&mut pair, "a kill", count).await;
    stop(&mut pair);
    let full = start(&mut pair, "a stop", count).await;
    println!(
        "a session takes {} bytes of disk, and {} bytes of memory, the cache included",
        disk(&pair, count),
        full.saturating_sub(empty) / count
    );
    stop(&mut pair);
}
