//! The store's files were cut short or damaged while no service ran.

use std::{fs, path::Path, sync::Arc};

use tempfile::TempDir;

use crate::{
    dice::{Dice, rounds},
    harness::{Pair, Setup, World},
    kills,
    record::{self, Writer},
};

/// A store that clients have worked on, and what they were told.
async fn store(answers: usize, end: fn(&mut Pair), dice: &mut Dice) -> (TempDir, Vec<Writer>) {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let setup = Setup { data: Some(folder.path().join("data")), ..kills::setup() };
    let world = Arc::new(World::own(setup).await);
    let writers = record::writers(&world, 4, dice).await;
    let writers = record::work_and_kill(&world, writers, answers).await;
    let mut world = Arc::into_inner(world).expect("the writers are done");
    // What the kill has left open is found out, and then the log is not that of a single run.
    world.restart(Pair::kill);
    let shared = Arc::new(world);
    let writers = record::check(&shared, writers, false).await;
    end(&mut Arc::into_inner(shared).expect("nobody checks any more"));
    (folder, writers)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if from.is_file() {
            fs::copy(&from, &to).expect("a file can be copied");
        }
    }
}

/// What became of a store that was damaged.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// All that was told holds.
    Whole,
    /// It does not open, and says what to do.
    Refused,
    /// It opens, and what is missing is an error and not another truth.
    Faulty,
}

/// Opens a damaged copy of the store.
async fn open(folder: &TempDir, writers: &[Writer], damage: impl FnOnce(&Path)) -> Outcome {
    let copied = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    copy(folder.path(), copied.path());
    damage(&copied.path().join("data/store/db"));
    let setup = Setup { data: Some(copied.path().join("data")), ..kills::setup() };
    let pair = match Pair::start(setup) {
        Ok(pair) => pair,
        Err(refused) => {
            assert!(refused.contains("estore it from a backup"), "it does not say what to do: {refused}");
            return Outcome::Refused;
        }
    };
    let log = pair.service_log.clone();
    let writers = writers.to_vec();
    let checked = tokio::spawn(async move {
        let world = Arc::new(World::of(pair));
        record::check(&world, writers, true).await;
    });
    match checked.await {
        Ok(()) => Outcome::Whole,
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("STORE_UNAVAILABLE"), "something is missing, and nobody says so: {error}");
            let said = log.since(0).iter().any(|line| line.contains("estore it from a backup"));
            assert!(said, "it does not say what to do: {}", log.since(0).join("\n"));
            Outcome::Faulty
        }
    }
}

async fn damage_is_never_silent(answers: usize, cuts: u64, flips: u64) {
    let mut dice = Dice::new();
    for end in [Pair::terminate as fn(&mut Pair), Pair::kill] {
        let (folder, writers) = store(answers, end, &mut dice).await;
        let mut outcomes = Vec::new();
        for _ in 0..cuts {
            let bytes = 1 + dice.roll(4096);
            let cut = |db: &Path| {
                let file = fs::OpenOptions::new().write(true).open(db).expect("the log");
                let length = file.metadata().expect("a length").len();
                file.set_len(length.saturating_sub(bytes)).expect("it can be cut");
            };
            outcomes.push(open(&folder, &writers, cut).await);
        }
        println!("cut: {outcomes:?}");
        outcomes.clear();
        for _ in 0..flips {
            let chance = dice.another();
            outcomes.push(open(&folder, &writers, |db| flip(db, chance)).await);
        }
        println!("flipped: {outcomes:?}");
    }
}

fn flip(file: &Path, mut dice: Dice) {
    let mut bytes = fs::read(file).expect("the log");
    let at = dice.index(bytes.len()).expect("it is not empty");
    bytes[at] ^= 1 << dice.roll(8);
    fs::write(file, bytes).expect("the log can be written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c7_a_log_that_was_cut_short_or_damaged_opens_whole_or_not_at_all() {
    damage_is_never_silent(150, 3, 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: hundreds of damaged logs"]
async fn c7_hundreds_of_damaged_logs_open_whole_or_not_at_all() {
    // A code lives for ten minutes: no store is opened for longer.
    for _ in 0..rounds(10) {
        damage_is_never_silent(2000, 5, 20).await;
    }
}
