//! A backup of a store that changes is the store as it was at one moment.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use supos_auth::{
    core::{Error, ids::SessionId, secret::BearerHash},
    store::{Maintenance as _, SessionStore as _, Transfer as _, UserStore as _, record::Record, sled::SledStore},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::stores::{self, HASH, app, code, now, session, user};

/// Sessions that are opened, get a family, and end, one after the other; the ids in the order in which that began.
async fn come_and_go(store: Arc<SledStore>, stop: Arc<AtomicBool>, steps: Arc<AtomicU64>, of: u64) -> Vec<SessionId> {
    let (user, app) = (user(of), app("shop"));
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let session = session(&user);
        ids.push(session.id);
        store.open_session(session.clone(), HASH.into()).await.expect("opened");
        let hash = BearerHash::of_code(&session.id.to_string());
        store.create_code(hash, code(&session, &app), now()).await.expect("made");
        store.redeem_code(&hash, &app.id, "/logout".into(), None, now()).await.expect("redeemed");
        if ids.len() >= 3 {
            assert!(store.end_session(ids[ids.len() - 3], now()).await.expect("ended"));
        }
        steps.fetch_add(1, Ordering::Relaxed);
    }
    ids
}

/// Users who are made one after the other.
async fn make_users(store: Arc<SledStore>, stop: Arc<AtomicBool>, first: u64) -> u64 {
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        store.create_users(vec![user(number)]).await.expect("made");
        number += 1;
    }
    number
}

/// Leaves so much behind that moving to new files is worth it at the next look.
async fn fill_with_what_is_gone(folder: &Path, store: Arc<SledStore>) -> Arc<SledStore> {
    stores::put_codes(&*store, 16_000).await;
    while store.purge(now().after(Duration::from_hours(1))).await.expect("purged") > 0 {}
    store.flush().await.expect("flushed");
    drop(Arc::into_inner(store).expect("nobody else has it"));
    Arc::new(SledStore::open(folder).expect("it opens"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_is_the_state_of_one_moment_while_everything_changes() {
    a_backup_is_the_state_of_one_moment(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_is_the_state_of_one_moment_while_the_store_moves_to_new_files() {
    a_backup_is_the_state_of_one_moment(true).await;
}

async fn a_backup_is_the_state_of_one_moment(moves: bool) {
    const BALLAST: u64 = 6_000;
    const WORKERS: u64 = 6;
    let folder = TempDir::new().expect("a folder");
    let mut store = stores::open(folder.path(), BALLAST).await;
    if moves {
        store = fill_with_what_is_gone(folder.path(), store).await;
    }
    let (stop, steps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> =
        (0..WORKERS).map(|of| tokio::spawn(come_and_go(Arc::clone(&store), Arc::clone(&stop), Arc::clone(&steps), of))).collect();
    let maker = tokio::spawn(make_users(Arc::clone(&store), Arc::clone(&stop), BALLAST));

    let wait_for = async |more: u64| {
        let until = steps.load(Ordering::Relaxed) + more;
        while steps.load(Ordering::Relaxed) < until {
            tokio::task::yield_now().await;
        }
    };
    wait_for(20).await;
    let (to, mut from) = mpsc::channel(1);
    let export = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.export(to).await }
    });
    let mut records = Vec::new();
    let mut moved = None;
    while let Some(batch) = from.recv().await {
        records.extend(batch);
        if moves && moved.is_none() {
            let store = Arc::clone(&store);
            moved = Some(tokio::spawn(async move { store.give_space_back().await }));
        }
        // Between two batches, much is written behind what was read, and before what was not.
        wait_for(20).await;
    }
    export.await.expect("no panic").expect("exported");
    if let Some(moved) = moved {
        let space = moved.await.expect("no panic").expect("moved").expect("it sees to its space");
        assert!(space.given_back.is_some(), "it has not moved: {space:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut opened = Vec::new();
    for worker in workers {
        opened.push(worker.await.expect("no panic"));
    }
    maker.await.expect("no panic");
    assert!(matches!(records.last(), Some(Record::Identity(_))));

    // Users were made one after the other: of those that are there, none is missing before another.
    let users: HashSet<&str> =
        records.iter().filter_map(|record| if let Record::User(user) = record { Some(user.name.as_str()) } else { None }).collect();
    let last = users.iter().max().expect("users").trim_start_matches("user-").parse::<usize>().expect("a number");
    assert_eq!(users.len(), last + 1, "a user is there who was made after one who is not");

    let mut sessions = HashMap::new();
    let (mut families, mut codes, mut owed) = (HashSet::new(), HashMap::new(), HashSet::new());
    for record in &records {
        match record {
            Record::Session(session) => drop(sessions.insert(session.id, session)),
            Record::Family { session, number, .. } => assert!(families.insert((*session, *number))),
            Record::Code { code, .. } => drop(codes.insert(code.session, code)),
            Record::OwedLogout(call) => assert!(owed.insert(call.session)),
            _ => {}
        }
    }
    for of_worker in &opened {
        // One after the other: they have ended, they live, they are not there yet.
        let mut stage = 0;
        for id in of_worker {
            let (lives, has_family, has_code, has_ended) =
                (sessions.get(id), families.contains(&(*id, 0)), codes.get(id), owed.contains(id));
            let used = has_code.is_some_and(|code| code.used.is_some());
            let now = match (lives, has_family, has_ended) {
                (None, false, true) => 0,
                (Some(session), family, false) => {
                    assert_eq!((session.next_family == 1, family), (used, used), "a code, its family and its session say different things");
                    1
                }
                (None, false, false) => {
                    assert!(has_code.is_none());
                    2
                }
                other => panic!("what is there of one session is not of one moment: {other:?}"),
            };
            assert!(stage <= now, "what was done later is there, and what was done before is not");
            stage = now;
        }
        let alive = of_worker.iter().filter(|id| sessions.contains_key(id)).count();
        assert!((1..=3).contains(&alive), "{alive} sessions of one who has two or three");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "writes 48,000 large records; run by make soak"]
async fn a_backup_that_is_outrun_is_refused_and_another_can_be_taken() {
    let folder = TempDir::new().expect("a folder");
    let store = stores::open(folder.path(), 3_000).await;
    let large = |number: u64| Record::User(supos_auth::core::model::User { company_code: "c".repeat(3_500), ..user(number) });
    let (to, mut from) = mpsc::channel(1);
    let export = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.export(to).await }
    });
    let first = from.recv().await.expect("a batch");
    assert!(!first.is_empty());
    let (second, _kept) = mpsc::channel(1);
    assert!(matches!(store.export(second).await, Err(Error::Precondition(_))), "one at a time");
    // What was not there before costs little to keep; what is overwritten costs what it was.
    for begin in (100_000..124_000).step_by(1000) {
        store.import((begin..begin + 1000).map(large).collect()).await.expect("writing goes on");
    }
    while from.recv().await.is_some() {}
    export.await.expect("no panic").expect("new records do not outrun a backup");

    let (to, mut from) = mpsc::channel(1);
    let export = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.export(to).await }
    });
    from.recv().await.expect("a batch");
    for begin in (100_000..124_000).step_by(1000) {
        store.import((begin..begin + 1000).map(user).map(Record::User).collect()).await.expect("writing goes on");
    }
    while from.recv().await.is_some() {}
    let refused = export.await.expect("no panic").expect_err("too much has changed");
    assert!(matches!(refused, Error::Precondition(_)), "{refused}");
    assert_eq!(stores::export(&*store).await.len(), 27_002);
}
