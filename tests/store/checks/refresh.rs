//! Refresh tokens.

use std::time::Duration;

use supos_auth::{
    core::{
        Error,
        ids::FamilyId,
        model::{App, Grant},
    },
    store::{Refresher, Rotation},
};

use crate::{
    database::Db,
    scene::{GRACE, IDLE, Scene, at, before, change},
};

pub(crate) async fn each_use_of_the_newest_token_gives_the_next_generation(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    let before = scene.store.grant(family, at(0)).await.unwrap().unwrap();
    for generation in 0..5 {
        let now = at(u64::from(generation) * 100 + 1);
        let granted = scene.rotate(family, generation, now).await.unwrap();
        assert_eq!(granted.family_id, family);
        assert_eq!((granted.family.generation, granted.family.rotated_at), (generation + 1, now));
        assert_eq!((&granted.family.scope, &granted.family.logout_uri), (&before.family.scope, &before.family.logout_uri));
        assert_eq!((granted.session.id, granted.session.last_used_at, &*granted.user), (scene.session.id, now, &scene.user));
        assert_eq!(scene.store.grant(family, now).await.unwrap(), Some(granted));
    }
}

pub(crate) async fn the_token_before_gets_the_same_successor_within_the_grace(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    scene.rotate(family, 0, at(50)).await.unwrap();
    // The grace is counted from the first use: repeats do not make it longer.
    let end = at(50).after(GRACE);
    for now in [at(50), at(55), before(end)] {
        let again = scene.rotate(family, 0, now).await.unwrap();
        assert_eq!((again.family.generation, again.family.rotated_at), (1, at(50)));
    }
    assert_eq!(scene.rotate(family, 0, end).await, Err(Error::RefreshTokenReplayed));
    assert!(!scene.is_good(family, end).await);
    assert_eq!(scene.rotate(family, 1, end).await, Err(Error::RefreshTokenRefused), "the newest token is dead as well");
}

pub(crate) async fn an_older_token_ends_the_family_and_no_other(db: Db) {
    let scene = Scene::new(&db).await;
    let (family, other) = (scene.family(at(0)).await, scene.family(at(0)).await);
    scene.rotate(family, 0, at(1)).await.unwrap();
    scene.rotate(family, 1, at(1)).await.unwrap();
    assert_eq!(scene.rotate(family, 0, at(1)).await, Err(Error::RefreshTokenReplayed), "its successor was used");
    assert!(!scene.is_good(family, at(1)).await);
    assert_eq!(scene.rotate(family, 0, at(1)).await, Err(Error::RefreshTokenRefused));
    assert!(scene.is_good(other, at(1)).await && scene.is_signed_in(&scene.session, at(1)).await);
}

pub(crate) async fn with_no_grace_a_token_works_once(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    let rotate = async || {
        let rotation = Rotation { family, generation: 0, grace: Duration::ZERO };
        scene.store.rotate_refresh_token(rotation, Refresher::App(scene.app.id.clone()), None, at(1)).await
    };
    rotate().await.unwrap();
    assert_eq!(rotate().await, Err(Error::RefreshTokenReplayed));
    assert!(!scene.is_good(family, at(1)).await);
}

pub(crate) async fn a_generation_that_was_never_given_out_is_refused_and_ends_nothing(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    for generation in [1, 2, u32::MAX] {
        assert_eq!(scene.rotate(family, generation, at(1)).await, Err(Error::RefreshTokenRefused));
    }
    let unknown = FamilyId { session: family.session, number: family.number + 1 };
    assert_eq!(scene.rotate(unknown, 0, at(1)).await, Err(Error::RefreshTokenRefused));
    assert!(scene.is_good(family, at(1)).await);
}

pub(crate) async fn a_refresh_by_somebody_else_is_refused_and_ends_nothing(db: Db) {
    let scene = Scene::new(&db).await;
    let other = scene.app("other").await;
    let (family, sibling) = (scene.family(at(0)).await, scene.family(at(0)).await);
    let rotate = async |generation, by| -> Result<Grant, Error> {
        scene.store.rotate_refresh_token(Rotation { family, generation, grace: GRACE }, by, None, at(1)).await
    };
    rotate(0, Refresher::App(scene.app.id.clone())).await.unwrap();
    rotate(1, Refresher::Family(family)).await.expect("an access token of the family is enough");
    for by in [Refresher::App(other.id.clone()), Refresher::Family(sibling)] {
        for generation in 0..4 {
            assert_eq!(rotate(generation, by.clone()).await, Err(Error::RefreshTokenRefused), "{by:?} {generation}");
        }
    }
    assert_eq!(scene.store.grant(family, at(1)).await.unwrap().unwrap().family.generation, 2);
}

pub(crate) async fn an_app_can_insist_on_its_own_credential(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    scene.store.update_app(&scene.app.id, change(|app: &mut App| app.refresh_requires_app_credential = true)).await.unwrap();
    let rotate =
        async |generation, by| scene.store.rotate_refresh_token(Rotation { family, generation, grace: GRACE }, by, None, at(1)).await;
    rotate(0, Refresher::App(scene.app.id.clone())).await.unwrap();
    rotate(1, Refresher::App(scene.app.id.clone())).await.unwrap();
    for generation in 0..4 {
        assert_eq!(rotate(generation, Refresher::Family(family)).await, Err(Error::CredentialRequired), "{generation}");
    }
    assert_eq!(scene.store.grant(family, at(1)).await.unwrap().unwrap().family.generation, 2, "it ended nothing");
}

pub(crate) async fn no_refresh_outlives_the_session(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    let end = at(0).after(IDLE);
    assert_eq!(scene.rotate(family, 0, end).await, Err(Error::RefreshTokenRefused));
    assert!(scene.is_good(family, before(end)).await, "a refusal ended the family");
    scene.rotate(family, 0, before(end)).await.unwrap();
}
