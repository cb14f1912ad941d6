//! Moving everything into another store.

use std::collections::HashSet;

use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        logouts::Outcome,
        model::{Link, LinkOrigin},
        seal::Sealed,
        usage::{AppUsage, Count},
    },
    store::{ENDED_AT_ONCE, Identity, OneUse, Origin, TRANSFER_BATCH, record::Record},
};
use tokio::sync::mpsc;

use super::{authorities::waiting, races::race, upkeep::key};
use crate::{
    database::{Db, Handle},
    scene::{GRACE, IDLE, Scene, administrator, at, authority, new_hash, purge},
};

/// Everything that a store holds.
pub(crate) async fn export(store: &Handle) -> Vec<Record> {
    let (send, mut receive) = mpsc::channel::<Vec<Record>>(1);
    let collect = async move {
        let mut all = Vec::new();
        while let Some(batch) = receive.recv().await {
            assert!(!batch.is_empty() && batch.len() <= TRANSFER_BATCH, "a batch of {}", batch.len());
            all.extend(batch);
        }
        all
    };
    let (exported, all) = tokio::join!(store.export(send), collect);
    exported.unwrap();
    all
}

/// The records in an order that does not depend on the store: within one kind an export has none.
fn sorted(mut records: Vec<Record>) -> Vec<String> {
    let mut texts: Vec<String> = records.drain(..).map(|record| serde_json::to_string(&record).unwrap()).collect();
    texts.sort();
    texts
}

/// A store with records of all kinds, so many that they are several batches.
async fn fill(scene: &Scene) {
    let store = &scene.store;
    scene.family(at(1)).await;
    scene.code(at(1)).await;
    let replayed = scene.code(at(1)).await;
    scene.redeem(&replayed, at(1)).await.unwrap();
    assert_eq!(scene.redeem(&replayed, at(1)).await, Err(Error::CodeReplayed));
    for path in ["/1", "/2"] {
        let ended = scene.session_of(&scene.user, at(1)).await;
        scene.family_of(&ended, &scene.app, path, at(1)).await;
        store.end_session(ended.id, at(2)).await.unwrap();
    }
    let given_up = scene.owed().await.remove(0);
    store.settle_logout(given_up.id, Outcome::GivenUp { error: "410".into(), at: at(3) }).await.unwrap();
    let usage = AppUsage { undated: Count { times: 3, last_at: at(1) }, ..AppUsage::default() };
    store.add_usage(vec![(scene.app.id.clone(), usage)]).await.unwrap();
    store.create_users(vec![administrator("root")]).await.unwrap();
    store.add_signing_key(key("k1", at(1)), None).await.unwrap();
    let authority = authority("a");
    store.register_authority(authority.clone(), at(1)).await.unwrap();
    store.register_authority(waiting("w", "n", at(1)), at(1)).await.unwrap();
    let link = Link { user: scene.user.id, origin: LinkOrigin::Name, created_at: at(1) };
    store.link_user(authority.id, "subject".to_owned(), link).await.unwrap();
    race(scene.handles(), TRANSFER_BATCH + 10, |store, _| async move { store.use_once(OneUse { hash: new_hash(), until: at(500) }).await })
        .await;
    store.set_identity(Identity { origin: Origin::Production, root: Sealed::from_bytes(vec![4; 40]) }).await.unwrap();
}

pub(crate) async fn an_export_has_every_record_once_in_the_documented_order(db: Db) {
    let scene = Scene::new(&db).await;
    fill(&scene).await;
    let records = export(&scene.store).await;
    let mut kinds: Vec<&str> = records.iter().map(Record::kind).collect();
    kinds.dedup();
    let order = [
        "app",
        "app_usage",
        "user",
        "signing_key",
        "authority",
        "link",
        "session",
        "family",
        "ended_family",
        "code",
        "used_up",
        "owed_logout",
        "given_up_logout",
        "identity",
    ];
    assert_eq!(kinds, order);
    assert_eq!(records.iter().filter(|record| record.kind() == "used_up").count(), TRANSFER_BATCH + 10);
    let texts = sorted(records);
    assert_eq!(texts.iter().collect::<HashSet<_>>().len(), texts.len(), "a record came twice");
}

pub(crate) async fn what_is_exported_makes_the_same_store_elsewhere(db: Db) {
    let other = db.another().await;
    makes_the_same_store(&db, other).await;
}

/// The way from one kind of store to another.
pub(crate) async fn what_is_exported_makes_the_same_store_of_another_kind(db: Db) {
    if let Some(other) = db.of_another_kind().await {
        makes_the_same_store(&db, other).await;
    }
}

async fn makes_the_same_store(db: &Db, other: Db) {
    let scene = Scene::new(db).await;
    fill(&scene).await;
    let records = export(&scene.store).await;
    let elsewhere = other.open().await;
    assert!(elsewhere.is_empty().await.unwrap() && !scene.store.is_empty().await.unwrap());
    for batch in records.chunks(TRANSFER_BATCH) {
        elsewhere.import(batch.to_vec()).await.unwrap();
    }
    assert!(!elsewhere.is_empty().await.unwrap());
    assert_eq!(sorted(export(&elsewhere).await), sorted(records));
    // It also behaves alike: what leads to the records is there.
    let copy = Scene {
        store: elsewhere.clone(),
        other: elsewhere,
        app: scene.app.clone(),
        user: scene.user.clone(),
        session: scene.session.clone(),
    };
    for scene in [&scene, &copy] {
        assert!(scene.is_signed_in(&scene.session, at(4)).await);
        assert_eq!(scene.store.user_named("ann").await.unwrap().as_ref(), Some(&scene.user));
        assert_eq!(scene.sessions(Some(scene.user.id), at(4)).await, [scene.session.id]);
        assert_eq!((scene.owed().await.len(), scene.store.due_logouts(9, at(4)).await.unwrap().len()), (1, 1));
        assert!(scene.store.register_authority(authority("a"), at(4)).await.is_err());
        let root = scene.store.user_named("root").await.unwrap().unwrap();
        assert!(matches!(scene.store.delete_user(root.id, at(4)).await, Err(Error::Precondition(_))));
        let page = scene.store.sessions(None, None, 10, at(4)).await.unwrap();
        assert_eq!(page.sessions[0].1, std::slice::from_ref(&scene.app.id));
        let family = supos_auth::core::ids::FamilyId { session: scene.session.id, number: 0 };
        assert_eq!(scene.rotate(family, 0, at(4)).await.unwrap().family.generation, 1);
        scene.store.end_session(scene.session.id, at(5)).await.unwrap();
        assert_eq!(scene.owed().await.len(), 2);
    }
    let end = at(5).after(IDLE + GRACE);
    purge(&scene.store, end).await;
    purge(&copy.store, end).await;
    assert_eq!(without_logouts(&copy.store).await, without_logouts(&scene.store).await, "what expires there expires here");
}

/// All but the calls that are owed: each store has made its own ids for those.
async fn without_logouts(store: &Handle) -> Vec<String> {
    let records = export(store).await;
    sorted(records.into_iter().filter(|record| record.kind() != "owed_logout").collect())
}

/// What is ended in steps, and was left between two: there is nothing of it that another kind of store does not take.
pub(crate) async fn what_is_half_ended_goes_to_another_kind_of_store_and_back(db: Db) {
    let Some(other) = db.of_another_kind().await else { return };
    let scene = Scene::new(&db).await;
    fill(&scene).await;
    let large = scene.session_of(&scene.user, at(1)).await;
    let ended = ENDED_AT_ONCE + 10;
    let families: Vec<Record> = export(&scene.store).await;
    let family =
        families.iter().find_map(|record| if let Record::Family { family, .. } = record { Some(family.clone()) } else { None }).unwrap();
    let many =
        (0..ended).map(|number| Record::Family { session: large.id, number: u32::try_from(number).unwrap(), family: family.clone() });
    for batch in many.collect::<Vec<_>>().chunks(TRANSFER_BATCH) {
        scene.store.import(batch.to_vec()).await.unwrap();
    }
    // More than end in a step: the session is dead, and some of it is left.
    assert!(scene.store.end_session(large.id, at(2)).await.unwrap());
    let left = |records: &[Record]| {
        records.iter().filter(|record| matches!(record, Record::Family { session, .. } if *session == large.id)).count()
    };
    let before = export(&scene.store).await;
    assert!(left(&before) > 0, "nothing is left of it");

    let elsewhere = other.open().await;
    for batch in before.chunks(TRANSFER_BATCH) {
        elsewhere.import(batch.to_vec()).await.unwrap();
    }
    assert_eq!(sorted(export(&elsewhere).await), sorted(before.clone()));
    let back = db.another().await.open().await;
    for batch in export(&elsewhere).await.chunks(TRANSFER_BATCH) {
        back.import(batch.to_vec()).await.unwrap();
    }
    assert_eq!(sorted(export(&back).await), sorted(before));
    for store in [&elsewhere, &back] {
        purge(store, at(4)).await;
        assert_eq!(left(&export(store).await), 0, "it is not ended");
    }
}

pub(crate) async fn an_export_is_of_one_moment_whatever_is_written_meanwhile(db: Db) {
    let scene = Scene::new(&db).await;
    fill(&scene).await;
    let before = sorted(export(&scene.store).await);
    let (send, mut receive) = mpsc::channel::<Vec<Record>>(1);
    let exporting = tokio::spawn({
        let store = scene.store.clone();
        async move { store.export(send).await }
    });
    // It has begun: everything after this is after its moment.
    let mut records = receive.recv().await.unwrap();
    scene.store.end_session(scene.session.id, at(3)).await.unwrap();
    scene.store.delete_app(&scene.app.id).await.unwrap();
    scene.store.set_password(scene.user.id, crate::scene::new_password("new", supos_auth::store::Kept::All), at(3)).await.unwrap();
    purge(&scene.store, Timestamp::from_millis(u64::MAX / 2)).await;
    for number in 0..20 {
        scene.store.create_apps(vec![crate::scene::app(&format!("new{number}"))]).await.unwrap();
    }
    while let Some(batch) = receive.recv().await {
        records.extend(batch);
    }
    exporting.await.unwrap().unwrap();
    assert_eq!(sorted(records), before);
}

pub(crate) async fn a_store_that_was_never_used_is_empty(db: Db) {
    let store = db.open().await;
    store.probe().await.unwrap();
    assert!(store.is_empty().await.unwrap());
    assert_eq!(export(&store).await, []);
    store.use_once(OneUse { hash: new_hash(), until: at(1) }).await.unwrap();
    assert!(!store.is_empty().await.unwrap());
}

pub(crate) async fn an_export_that_nobody_receives_ends(db: Db) {
    let scene = Scene::new(&db).await;
    fill(&scene).await;
    let (send, receive) = mpsc::channel(1);
    drop(receive);
    scene.store.export(send).await.unwrap_err();
}
