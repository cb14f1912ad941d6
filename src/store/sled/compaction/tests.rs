use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::{
    core::clock::Timestamp,
    store::{UserStore as _, sled::tests::user},
};

fn now() -> Timestamp {
    Timestamp::from_millis(1)
}

fn content(tree: &sled::Tree) -> BTreeMap<Vec<u8>, Vec<u8>> {
    tree.iter().map(Result::unwrap).map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes users from `first` on, one after the other, and deletes every other one, until it is stopped; gives the last one's number.
async fn come_and_go(store: Arc<SledStore>, stop: Arc<AtomicBool>, first: u64, done: impl Fn(u64)) -> u64 {
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        store.create_users(vec![user(number)]).await.unwrap();
        if number % 2 == 1 {
            store.delete_user(user(number).id, now()).await.unwrap();
        }
        done(number);
        number += 1;
    }
    number
}

/// Whether of those users the even ones are there, and the odd ones are not.
async fn check(store: &SledStore, first: u64, end: u64) {
    for number in first..end {
        assert_eq!(store.user_named(&format!("user-{number}")).await.unwrap().is_some(), number % 2 == 0, "user {number} of {end}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn everything_moves_to_new_files_while_steps_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    // More keys than one window has.
    for begin in (0..9000).step_by(1000) {
        store.create_users((begin..begin + 1000).map(|number| user(number * 2)).collect()).await.unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> =
        [100_000, 200_000].map(|first| (first, tokio::spawn(come_and_go(Arc::clone(&store), Arc::clone(&stop), first, |_| ())))).into();
    for _ in 0..2 {
        store.copy_all().await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut ends = Vec::new();
    for (first, worker) in workers {
        ends.push((first, worker.await.unwrap()));
    }
    let before = content(&store.tree());
    assert_eq!(names(folder.path()), ["lock", "store"]);
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(content(&store.tree()), before);
    for (first, end) in ends {
        assert!(end > first + 2);
        check(&store, first, end).await;
    }
}

#[tokio::test]
async fn a_copy_that_was_not_finished_is_worth_nothing_and_one_that_was_is_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let open = async |end| {
        let store = SledStore::open(folder.path()).unwrap();
        check(&store, 0, end).await;
        assert_eq!(names(folder.path()), ["lock", "store"]);
        store
    };
    let store = open(0).await;
    store.create_users(vec![user(0)]).await.unwrap();
    drop(store);
    fs::create_dir(path(COPY)).unwrap();
    fs::write(path(COPY).join("db"), [7; 5000]).unwrap();
    drop(open(2).await);
    fs::rename(path(STORE), path(NEXT)).unwrap();
    drop(open(2).await);
    // The old files may be there whole, or in part.
    for whole in [true, false] {
        fs::rename(path(STORE), path(NEXT)).unwrap();
        fs::create_dir(path(STORE)).unwrap();
        fs::write(path(STORE).join(if whole { "db" } else { "conf" }), "old").unwrap();
        drop(open(2).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn nothing_is_left_of_a_copy_that_fails_and_the_store_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    for begin in (0..9000).step_by(1000) {
        store.create_users((begin..begin + 1000).map(|number| user(number * 2)).collect()).await.unwrap();
    }
    let copying = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.copy_all().await }
    });
    // As when a step cannot be written to the copy.
    let mirror = &store.writer.beside.mirror;
    while mirror.get().is_none() {
        assert!(!copying.is_finished(), "it has copied everything already");
        tokio::task::yield_now().await;
    }
    mirror.set(None);
    copying.await.unwrap().unwrap_err();
    assert_eq!(names(folder.path()), ["lock", "store"]);
    store.create_users(vec![user(100_000)]).await.unwrap();
    store.copy_all().await.unwrap();
    check(&store, 17_998, 17_999).await;
    check(&store, 100_000, 100_001).await;
}

#[test]
fn nothing_is_copied_where_there_is_no_room_for_it() {
    let folder = tempfile::tempdir().unwrap();
    check_room(folder.path(), 0).unwrap();
    let refused = check_room(folder.path(), u64::MAX).unwrap_err().to_string();
    assert!(refused.contains("MiB of room") && refused.contains("Make room"), "{refused}");
}

#[test]
fn it_is_not_looked_again_soon_after_copying_has_failed_however_much_is_written() {
    let looked = |failed| Looked { at: Instant::now(), keys: 0, written: 0, failed };
    assert!(looked(false).is_old(WRITES) && !looked(false).is_old(WRITES - 1));
    assert!(!looked(true).is_old(u64::MAX));
}

#[tokio::test]
async fn new_files_whose_old_ones_could_not_be_removed_are_measured_and_get_their_name_the_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.create_users((0..100).map(user).collect()).await.unwrap();
    // As after a move that ended with an error: these are in force, and beside them is what is left of the old ones.
    let path = |name: &str| folder.path().join(name);
    fs::rename(path(STORE), path(NEXT)).unwrap();
    fs::create_dir(path(STORE)).unwrap();
    let space = store.compact().await.unwrap();
    assert_eq!(space.bytes, size(&path(STORE)));
    assert!(space.bytes > 0);
    assert_eq!(names(folder.path()), ["lock", "store"]);
    drop(store);
    assert!(SledStore::open(folder.path()).unwrap().user_named("user-99").await.unwrap().is_some());
}

const FOLDER: &str = "SUPOS_AUTH_TEST_COMPACTED_FOLDER";
const FIRST: &str = "SUPOS_AUTH_TEST_FIRST_USER";

/// What the next test kills: makes users and says so, and moves to new files again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
#[ignore = "run by a_kill_while_moving_to_new_files_loses_nothing, in a process of its own"]
async fn moves_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let first = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = Arc::new(SledStore::open(Path::new(&folder)).unwrap());
    let say = |number: u64| println!("\nmade {number}");
    tokio::spawn(come_and_go(Arc::clone(&store), Arc::default(), first, say));
    loop {
        store.copy_all().await.unwrap();
    }
}

async fn kill_again_and_again(rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let mut first = 0;
    let mut found = Vec::new();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "store::sled::compaction::tests::moves_until_it_is_killed"])
            .env(FOLDER, folder.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut made = lines.filter_map(|line| line.strip_prefix("made ").and_then(|number| number.parse::<u64>().ok()));
        // At one step or another of the copying, which begins anew all the time.
        let some = 20 + round * 7 % 40;
        let mut last = made.by_ref().nth(usize::try_from(some).unwrap()).expect("it works");
        child.kill().unwrap();
        last = made.last().unwrap_or(last);
        child.wait().unwrap();
        found.push(names(folder.path()));
        let store = SledStore::open(folder.path()).unwrap();
        check(&store, 0, last + 1).await;
        // One more may have been made, and not been said.
        store.delete_user(user(last + 1).id, now()).await.ok();
        first = (last + 3) & !1;
        for number in last + 1..first {
            if number % 2 == 0 {
                store.create_users(vec![user(number)]).await.unwrap();
            }
        }
    }
    assert!(found.iter().any(|names| names.len() > 2), "the kills hit no copy: {found:?}");
}

#[tokio::test]
async fn a_kill_while_moving_to_new_files_loses_nothing() {
    kill_again_and_again(6).await;
}

#[tokio::test]
#[ignore = "the long form of the one above; run by make soak"]
async fn a_hundred_kills_while_moving_to_new_files_lose_nothing() {
    kill_again_and_again(100).await;
}
