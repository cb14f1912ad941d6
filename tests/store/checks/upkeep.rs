//! What was used up, signing keys, and what a store is asked about itself.

use std::time::Duration;

use supos_auth::{
    core::{Error, clock::Timestamp, model::SigningKey, seal::Sealed},
    store::{Identity, Kept, OneUse, Origin},
};

use crate::{
    database::{Db, Handle},
    scene::{IDLE, Scene, at, before, new_hash, new_password, purge},
};

pub(crate) async fn what_was_used_stays_used_for_as_long_as_was_said(db: Db) {
    let store = db.open().await;
    let (hash, other) = (new_hash(), new_hash());
    assert_eq!(store.use_once(OneUse { hash, until: at(10) }).await, Ok(true));
    assert_eq!(store.use_once(OneUse { hash, until: at(20) }).await, Ok(false));
    assert_eq!(store.use_once(OneUse { hash: other, until: at(30) }).await, Ok(true), "another value");
    purge(&store, before(at(10))).await;
    purge(&store, at(10)).await;
    assert_eq!(store.use_once(OneUse { hash, until: at(20) }).await, Ok(false), "a purge took it before its time");
    purge(&store, at(29)).await;
    assert_eq!(store.use_once(OneUse { hash: other, until: at(40) }).await, Ok(false));
    assert_eq!(store.use_once(OneUse { hash, until: at(40) }).await, Ok(true), "a purge left it behind");
}

pub(crate) async fn what_was_used_works_again_once_that_is_forgotten(db: Db) {
    let store = db.open().await;
    let (hash, other, never) = (new_hash(), new_hash(), new_hash());
    for hash in [hash, other] {
        assert_eq!(store.use_once(OneUse { hash, until: at(10) }).await, Ok(true));
    }
    for hash in [hash, never, hash] {
        assert_eq!(store.forget_use(&hash).await, Ok(()));
    }
    assert_eq!(store.use_once(OneUse { hash: other, until: at(10) }).await, Ok(false), "another value is forgotten");
    assert_eq!(store.use_once(OneUse { hash, until: at(30) }).await, Ok(true));
    purge(&store, at(20)).await;
    assert_eq!(store.use_once(OneUse { hash, until: at(30) }).await, Ok(false), "a purge took it at the time that it had before");
    assert_eq!(store.use_once(OneUse { hash: never, until: at(30) }).await, Ok(true));
}

pub(crate) fn key(kid: &str, activates_at: Timestamp) -> SigningKey {
    SigningKey {
        kid: kid.to_owned(),
        sealed: Sealed::from_bytes(vec![9, 8, 7]),
        x: format!("x of {kid}"),
        y: format!("y of {kid}"),
        created_at: at(1),
        activates_at,
        retired_at: None,
        expires_at: None,
        forgotten_at: None,
    }
}

async fn keys(store: &Handle) -> Vec<SigningKey> {
    let mut keys = store.signing_keys().await.unwrap();
    keys.sort_by(|a, b| a.kid.cmp(&b.kid));
    keys
}

pub(crate) async fn a_signing_key_is_retired_and_forgotten(db: Db) {
    let store = db.open().await;
    assert_eq!(keys(&store).await, []);
    let (a, b) = (key("a", at(1)), key("b", at(100)));
    assert_eq!(store.add_signing_key(a.clone(), None).await, Ok(true));
    assert_eq!(store.add_signing_key(b.clone(), None).await, Ok(false), "another one was added meanwhile");
    assert_eq!(store.add_signing_key(b.clone(), Some("x".into())).await, Ok(false));
    assert_eq!(store.add_signing_key(b.clone(), Some("a".into())).await, Ok(true));
    assert_eq!(keys(&store).await, [a.clone(), b.clone()]);
    let retire = async |kid: &str, now| store.retire_signing_key(kid, now, at(300), at(400)).await;
    let refused = retire("a", before(at(100))).await;
    assert!(matches!(refused, Err(Error::Precondition(_))), "the other one does not sign yet: {refused:?}");
    assert_eq!(retire("x", at(100)).await, Err(Error::NotFound("signing key")));
    assert_eq!(keys(&store).await, [a.clone(), b.clone()], "a refusal changed something");
    let retired = SigningKey { retired_at: Some(at(100)), expires_at: Some(at(300)), forgotten_at: Some(at(400)), ..a };
    assert_eq!(retire("a", at(100)).await, Ok(retired.clone()));
    assert_eq!(retire("a", at(200)).await, Ok(retired.clone()), "it was retired already");
    assert!(matches!(retire("b", at(200)).await, Err(Error::Precondition(_))), "no other one signs");
    purge(&store, before(at(400))).await;
    assert_eq!(keys(&store).await, [retired, b.clone()]);
    purge(&store, at(401)).await;
    assert_eq!(keys(&store).await, [b]);
}

pub(crate) async fn a_store_knows_what_it_was_made_for(db: Db) {
    let store = db.open().await;
    assert!(store.identity().await.unwrap().is_none());
    let first = Identity { origin: Origin::Production, root: Sealed::from_bytes(vec![5, 6]) };
    let second = Identity { origin: Origin::Demo, root: Sealed::from_bytes(vec![7]) };
    assert_eq!(store.found(first.clone()).await, Ok(first.clone()));
    assert_eq!(store.found(second.clone()).await, Ok(first.clone()), "what a store was made for does not change by itself");
    assert_eq!(store.identity().await, Ok(Some(first)));
    store.set_identity(second.clone()).await.unwrap();
    assert_eq!(store.identity().await, Ok(Some(second)));
}

pub(crate) async fn how_long_a_purge_is_overdue_is_known(db: Db) {
    let store = db.open().await;
    assert_eq!(store.overdue(at(100)).await, Ok(Duration::ZERO), "nothing is there");
    for until in [at(30), at(5), at(200)] {
        store.use_once(OneUse { hash: new_hash(), until }).await.unwrap();
    }
    assert_eq!(store.overdue(at(5)).await, Ok(Duration::ZERO));
    assert_eq!(store.overdue(at(65)).await, Ok(Duration::from_mins(1)), "the oldest counts");
    purge(&store, at(65)).await;
    assert_eq!(store.overdue(at(65)).await, Ok(Duration::ZERO));
}

pub(crate) async fn a_purge_takes_what_has_ended_in_small_batches_and_nothing_that_lives(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    // So much that no single step may take it all: others would have to wait for it.
    for _ in 0..700 {
        scene.store.use_once(OneUse { hash: new_hash(), until: at(5) }).await.unwrap();
    }
    let idle_end = at(0).after(IDLE);
    scene.rotate(family, 0, before(idle_end)).await.unwrap();
    let mut steps = 0;
    while scene.store.purge(idle_end.after(Duration::from_millis(1))).await.unwrap() > 0 {
        steps += 1;
        assert!(steps < 10_000, "a purge never ends");
    }
    assert!(steps > 1, "everything was purged in one step");
    assert!(scene.is_good(family, idle_end).await && scene.is_signed_in(&scene.session, idle_end).await);
    assert_eq!(scene.store.session(scene.session.id).await.unwrap().map(|session| session.id), Some(scene.session.id));
    let second_end = before(idle_end).after(IDLE + Duration::from_millis(1));
    purge(&scene.store, second_end).await;
    assert_eq!(scene.store.session(scene.session.id).await.unwrap(), None, "one that was kept alive is purged all the same");
    assert_eq!(scene.store.purge(second_end).await, Ok(0));
    assert_eq!(scene.told().await.len(), 1, "its app is told");
    assert_eq!(scene.store.user(scene.user.id).await.unwrap(), Some(scene.user.clone()));
    assert_eq!(scene.store.app(&scene.app.id).await.unwrap().as_deref(), Some(&scene.app));
}

pub(crate) async fn everything_is_there_when_the_store_is_opened_again(db: Db) {
    let (family, user, session, ended) = {
        let scene = Scene::new(&db).await;
        let family = scene.family(at(1)).await;
        scene.rotate(family, 0, at(2)).await.unwrap();
        let ended = scene.family_of(&scene.session_of(&scene.user, at(1)).await, &scene.app, "/out", at(1)).await;
        assert!(scene.store.end_session(ended.session, at(3)).await.unwrap());
        let password = new_password("new", Kept::All);
        let user = scene.store.set_password(scene.user.id, password, at(3)).await.unwrap();
        scene.store.probe().await.unwrap();
        scene.store.flush().await.unwrap();
        (family, user, scene.session, ended)
    };
    let store = db.open().await;
    let grant = store.grant(family, at(4)).await.unwrap().unwrap();
    assert_eq!((grant.family.generation, &*grant.user, grant.session.id), (1, &user, session.id));
    assert_eq!(store.grant(ended, at(4)).await.unwrap(), None);
    assert_eq!(store.owed_logouts().await, Ok(1));
    assert!(store.session_of_ticket(&session.ticket, at(4)).await.unwrap().is_some());
}

pub(crate) async fn a_store_that_is_well_has_not_failed(db: Db) {
    let store = db.open().await;
    store.probe().await.unwrap();
    store.flush().await.unwrap();
    let told = tokio::time::timeout(Duration::ZERO, store.failed()).await;
    assert!(told.is_err(), "{told:?}");
}
