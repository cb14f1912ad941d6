//! Authorization codes.

use supos_auth::{
    core::{Error, ids::FamilyId, model::Family},
    store::{OneUse, Refresher, Rotation},
};

use crate::{
    database::Db,
    scene::{CODE_LIFETIME, GRACE, Scene, app, at, before, code, new_hash, purge, session},
};

pub(crate) async fn a_code_is_redeemed_for_the_family_that_it_stands_for(db: Db) {
    let scene = Scene::new(&db).await;
    let (first, second) = (scene.code(at(1)).await, scene.code(at(1)).await);
    let granted = scene.store.redeem_code(&first, &scene.app.id, "/bye?x=1".to_owned(), None, at(2)).await.unwrap();
    let family = Family {
        app: scene.app.id.clone(),
        incarnation: scene.app.incarnation,
        scope: "read write".to_owned(),
        logout_uri: "/bye?x=1".to_owned(),
        redirect_origin: "https://shop.example".to_owned(),
        generation: 0,
        rotated_at: at(2),
    };
    assert_eq!(*granted.family, family);
    assert_eq!((granted.family_id.session, &*granted.user), (scene.session.id, &scene.user));
    assert_eq!((granted.session.id, granted.session.last_used_at), (scene.session.id, at(2)));
    assert_eq!(scene.store.grant(granted.family_id, at(2)).await.unwrap(), Some(granted.clone()));
    let other = scene.redeem(&second, at(3)).await.unwrap();
    assert_ne!(other.family_id, granted.family_id);
    assert!(scene.is_good(granted.family_id, at(3)).await && scene.is_good(other.family_id, at(3)).await);
    let unknown = FamilyId { session: scene.session.id, number: 99 };
    assert!(!scene.is_good(unknown, at(3)).await);
}

pub(crate) async fn a_code_is_made_in_a_live_session_for_an_enabled_app(db: Db) {
    let scene = Scene::new(&db).await;
    let make = async |code| scene.store.create_code(new_hash(), code, at(1)).await;
    let good = code(&scene.app, scene.session.id, at(1));
    make(good).await.unwrap();
    assert_eq!(make(code(&scene.app, session(scene.user.id, at(1)).id, at(1))).await, Err(Error::CredentialRefused));
    assert_eq!(make(code(&app("nobody"), scene.session.id, at(1))).await, Err(Error::UnknownApp));
    assert_eq!(make(code(&app("shop"), scene.session.id, at(1))).await, Err(Error::UnknownApp), "an earlier life of the app");
}

pub(crate) async fn a_code_works_once_and_its_second_use_ends_what_the_first_gave_out(db: Db) {
    let scene = Scene::new(&db).await;
    let (code, other) = (scene.code(at(1)).await, scene.family(at(1)).await);
    let granted = scene.redeem(&code, at(2)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(scene.redeem(&code, at(3)).await, Err(Error::CodeReplayed));
        assert!(!scene.is_good(granted.family_id, at(3)).await);
        assert_eq!(scene.rotate(granted.family_id, 0, at(3)).await, Err(Error::RefreshTokenRefused));
    }
    assert!(scene.is_good(other, at(3)).await, "another family of the same session");
    assert!(scene.is_signed_in(&scene.session, at(3)).await);
}

pub(crate) async fn what_a_step_is_done_by_is_used_up_whatever_comes_of_it(db: Db) {
    let scene = Scene::new(&db).await;
    let (code, family) = (scene.code(at(1)).await, scene.family(at(1)).await);
    let new_use = || OneUse { hash: new_hash(), until: at(100) };
    let redeem = async |code, using| scene.store.redeem_code(&code, &scene.app.id, "/out".to_owned(), Some(using), at(2)).await;
    let rotate = async |generation, using| {
        let rotation = Rotation { family, generation, grace: GRACE };
        scene.store.rotate_refresh_token(rotation, Refresher::App(scene.app.id.clone()), Some(using), at(2)).await
    };
    let refused = new_use();
    assert_eq!(redeem(new_hash(), refused).await, Err(Error::CodeRefused));
    assert_eq!(redeem(code, refused).await, Err(Error::CredentialRefused), "a refusal uses it up, too");
    let first = new_use();
    let granted = redeem(code, first).await.expect("the refusal before has used the code up");
    assert_eq!(redeem(code, first).await, Err(Error::CredentialRefused));
    assert_eq!(rotate(0, first).await, Err(Error::CredentialRefused), "whatever it is used for");
    assert_eq!(scene.store.use_once(first).await, Ok(false));
    assert!(scene.is_good(granted.family_id, at(2)).await, "what was refused is no second use of the code");
    let second = new_use();
    rotate(0, second).await.unwrap();
    assert_eq!(rotate(1, second).await, Err(Error::CredentialRefused));
    assert_eq!(scene.store.grant(family, at(2)).await.unwrap().unwrap().family.generation, 1);
    assert_eq!(redeem(code, new_use()).await, Err(Error::CodeReplayed));
}

pub(crate) async fn a_try_by_another_app_changes_nothing(db: Db) {
    let scene = Scene::new(&db).await;
    let other = scene.app("other").await;
    let code = scene.code(at(1)).await;
    let steal = async || scene.store.redeem_code(&code, &other.id, "/out".to_owned(), None, at(2)).await;
    assert_eq!(steal().await, Err(Error::CodeRefused));
    let granted = scene.redeem(&code, at(2)).await.expect("a try by another app used the code up");
    assert_eq!(steal().await, Err(Error::CodeRefused));
    assert!(scene.is_good(granted.family_id, at(2)).await, "a try by another app ended the family");
    assert_eq!(scene.redeem(&new_hash(), at(2)).await, Err(Error::CodeRefused));
}

pub(crate) async fn a_code_expires_to_the_millisecond_and_a_used_one_is_known_as_long_again(db: Db) {
    let scene = Scene::new(&db).await;
    let end = at(1).after(CODE_LIFETIME);
    let (early, late) = (scene.code(at(1)).await, scene.code(at(1)).await);
    assert_eq!(scene.redeem(&late, end).await, Err(Error::CodeRefused));
    let granted = scene.redeem(&early, before(end)).await.unwrap();
    purge(&scene.store, before(end)).await;
    // A code that has expired is dead, and a purge does not make a second use look like an unknown code before its time.
    purge(&scene.store, end).await;
    assert_eq!(scene.redeem(&late, end).await, Err(Error::CodeRefused));
    assert!(scene.is_good(granted.family_id, end).await);
    let known_until = before(end.after(CODE_LIFETIME));
    purge(&scene.store, known_until).await;
    assert_eq!(scene.redeem(&early, known_until).await, Err(Error::CodeReplayed));
    assert!(!scene.is_good(granted.family_id, known_until).await);
    let forgotten = end.after(CODE_LIFETIME * 2);
    purge(&scene.store, forgotten).await;
    assert_eq!(scene.redeem(&early, forgotten).await, Err(Error::CodeRefused), "it was purged");
}
