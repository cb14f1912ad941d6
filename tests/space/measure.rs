//! Measurements of the embedded store by itself. They are printed, and judged by hand (docs/storage.md).

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use supos_auth::{
    core::{
        clock::Timestamp,
        ids::{AppId, Incarnation, SessionId, UserId},
        model::{Family, Session},
        seal::Sealed,
        secret::{BearerHash, random_bytes},
    },
    store::{Identity, Maintenance as _, OneUse, Origin, ReplayStore as _, Transfer as _, record::Record, sled::SledStore},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// The bytes of all files in a folder, as the disk holds them.
pub(crate) fn size(folder: &Path) -> u64 {
    // What is compacted comes and goes.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
            Err(_) => 0,
        })
        .sum()
}

/// The memory that a process has, in bytes: its id, or `self`.
pub(crate) fn memory(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// How many sessions are to be measured: `SESSIONS`.
pub(crate) fn wished_for(otherwise: u64) -> u64 {
    std::env::var("SESSIONS").map_or(otherwise, |count| count.parse().expect("a number"))
}

pub(crate) fn session(number: u64) -> [Record; 2] {
    let id = SessionId::from_bytes(random_bytes().expect("randomness"));
    let now = Timestamp::from_millis(1_800_000_000_000 + number);
    let session = Session {
        id,
        user: UserId::from_bytes([u8::try_from(number % 251).expect("small"); 16]),
        ticket: BearerHash::from_bytes(random_bytes().expect("randomness")),
        created_at: now,
        last_used_at: now,
        expires_at: now.after(Duration::from_hours(30 * 24)),
        idle_lifetime: Duration::from_hours(7 * 24),
        next_family: 1,
        authority: None,
    };
    let family = Family {
        app: AppId::new("an-app-of-some-length").expect("an id"),
        incarnation: Incarnation::from_bytes([7; 16]),
        scope: "openid".into(),
        logout_uri: "https://app.example/logout".into(),
        redirect_origin: "https://app.example".into(),
        generation: 3,
        rotated_at: now,
    };
    [Record::Session(session), Record::Family { session: id, number: 0, family }]
}

/// What goes on beside the calls.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    Compaction,
    Backup,
}

impl Beside {
    async fn run(self, store: &SledStore) {
        match self {
            Self::Nothing => tokio::time::sleep(Duration::from_secs(5)).await,
            Self::Compaction => {
                let space = store.give_space_back().await.expect("looked at");
                assert!(space.is_some_and(|space| space.given_back.is_some()), "there was nothing to give back");
            }
            Self::Backup => {
                let (to, mut from) = mpsc::channel(4);
                let receive = async { while from.recv().await.is_some() {} };
                tokio::join!(store.export(to), receive).0.expect("exported");
            }
        }
    }
}

/// How long calls wait while the store moves to new files and while a backup is taken, beside how long they wait otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; cargo test --release --test space -- --ignored --nocapture waits"]
async fn waits_of_calls_during_a_compaction_and_a_backup() {
    let count = wished_for(100_000);
    let folder = TempDir::new().expect("a folder");
    let store = Arc::new(SledStore::open(folder.path()).expect("a store"));
    store.set_identity(Identity { origin: Origin::Production, root: Sealed::from_bytes(vec![1; 44]) }).await.expect("stored");
    for batch in 0..count / 500 {
        store.import((0..500).flat_map(|number| session(batch * 500 + number)).collect()).await.expect("stored");
    }
    for beside in [Beside::Nothing, Beside::Compaction, Beside::Nothing, Beside::Backup] {
        let stop = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..16)
            .map(|_| {
                let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
                tokio::spawn(async move {
                    let mut waits = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let until = Timestamp::from_millis(1_800_000_000_000);
                        store
                            .use_once(OneUse { hash: BearerHash::from_bytes(random_bytes().expect("randomness")), until })
                            .await
                            .expect("used");
                        waits.push(begun.elapsed());
                    }
                    waits
                })
            })
            .collect();
        let begun = Instant::now();
        beside.run(&store).await;
        let took = begun.elapsed();
        stop.store(true, Ordering::Relaxed);
        let mut waits = Vec::new();
        for caller in callers {
            waits.extend(caller.await.expect("no panic"));
        }
        waits.sort();
        let at = |share: usize| waits[(waits.len() - 1) * share / 1000];
        println!(
            "{beside:?} ({took:?}): {} writes, p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}, {} MiB",
            waits.len(),
            at(500),
            at(990),
            at(999),
            at(1000),
            memory("self") >> 20
        );
        assert!(waits.last().is_some_and(|longest| *longest < Duration::from_secs(2)), "a call waited for 2 s");
    }
}
