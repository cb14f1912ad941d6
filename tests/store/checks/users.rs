//! Users.

use supos_auth::{
    core::{
        Error,
        model::{Link, LinkOrigin, User},
        rights::Rights,
    },
    store::{Change, Kept, LinksOf, NewPassword},
};

use crate::{
    database::Db,
    scene::{Scene, administrator, at, authority, change, new_password, refusal, session, user},
};

pub(crate) async fn a_user_is_read_back_by_his_id_and_by_his_name(db: Db) {
    let store = db.open().await;
    let mut bare = user("Straße 王");
    (bare.password_hash, bare.enabled, bare.password_change_required) = (None, false, false);
    bare.rights = Rights::of_names(["sessions.end"]).unwrap();
    let ann = user("ann");
    store.create_users(vec![ann.clone(), bare.clone()]).await.unwrap();
    for user in [ann, bare] {
        assert_eq!(store.user(user.id).await.unwrap(), Some(user.clone()));
        assert_eq!(store.user_named(&user.name).await.unwrap(), Some(user));
    }
    for other in ["Ann", "an", "ann ", "", "STRASSE 王", "ann\u{301}"] {
        assert_eq!(store.user_named(other).await.unwrap(), None, "{other}");
    }
    assert_eq!(store.user(user("x").id).await.unwrap(), None);
}

pub(crate) async fn users_are_made_all_or_none(db: Db) {
    let store = db.open().await;
    let taken = |step: usize| Err(Error::AlreadyExists { name: format!("steps[{step}].user.user_name") });
    let ann = user("ann");
    store.create_users(vec![ann.clone()]).await.unwrap();
    let (bob, again) = (user("bob"), user("ann"));
    assert_eq!(store.create_users(vec![bob.clone(), again.clone()]).await, taken(1));
    assert_eq!(store.create_users(vec![bob.clone(), user("bob")]).await, taken(1));
    assert_eq!(store.users(None, 10).await.unwrap(), [ann]);
    assert_eq!((store.user(bob.id).await.unwrap(), store.user(again.id).await.unwrap()), (None, None), "a part of a batch was made");
}

pub(crate) async fn users_are_listed_by_name_page_by_page(db: Db) {
    let store = db.open().await;
    let names = [" a", "A", "Z", "a", "a b", "a-b", "aa", "b", "z", "é", "王"];
    store.create_users(names.iter().rev().map(|name| user(name)).collect()).await.unwrap();
    let list = async |after: Option<&str>, limit| -> Vec<String> {
        store.users(after.map(str::to_owned), limit).await.unwrap().into_iter().map(|user| user.name).collect()
    };
    assert_eq!(list(None, 100).await, names);
    assert_eq!(list(Some("a,"), 2).await, ["a-b", "aa"], "after a key that is not there");
    let mut seen = Vec::new();
    while let page = list(seen.last().map(String::as_str), 3).await
        && !page.is_empty()
    {
        assert!(page.len() <= 3);
        seen.extend(page);
    }
    assert_eq!(seen, names, "page by page");
}

pub(crate) async fn a_user_is_changed_or_left_alone(db: Db) {
    let scene = Scene::new(&db).await;
    let ann = scene.user.id;
    let mut changed = scene.user.clone();
    (changed.person_code, changed.account_type, changed.updated_at) = ("P9".to_owned(), 3, at(9));
    changed.rights = Rights::of_names(["tokens.inspect"]).unwrap();
    let becomes = changed.clone();
    let answer = scene.store.update_user(ann, change(move |user: &mut User| *user = becomes.clone()), at(9)).await;
    assert_eq!(answer, Ok(changed.clone()));
    let spoilt: Change<User> = Box::new(|user| {
        user.enabled = false;
        Err(Error::NotAllowed)
    });
    for refused in [refusal(), spoilt] {
        assert_eq!(scene.store.update_user(ann, refused, at(9)).await, Err(Error::NotAllowed));
    }
    assert_eq!(scene.store.user(ann).await.unwrap(), Some(changed), "a change that was refused");
    assert!(scene.is_signed_in(&scene.session, at(9)).await);
    assert_eq!(scene.store.update_user(user("x").id, change(|_| ()), at(9)).await, Err(Error::NotFound("user")));
}

/// Disables a user, or enables him.
async fn enable(scene: &Scene, user: &User, enabled: bool) -> Result<User, Error> {
    scene.store.update_user(user.id, change(move |user: &mut User| user.enabled = enabled), at(5)).await
}

pub(crate) async fn a_disabled_user_has_no_session_left_and_gets_none_back(db: Db) {
    let scene = Scene::new(&db).await;
    let bob = scene.user("bob").await;
    let (second, bobs) = (scene.session_of(&scene.user, at(0)).await, scene.session_of(&bob, at(0)).await);
    let (family, spare) = (scene.family(at(1)).await, scene.code(at(1)).await);
    let bobs_family = scene.family_of(&bobs, &scene.app, "/out", at(1)).await;
    assert!(!enable(&scene, &scene.user, false).await.unwrap().enabled);
    let of_ann = [scene.session.clone(), second];
    for step in ["disabled", "enabled again"] {
        for session in &of_ann {
            assert!(!scene.is_signed_in(session, at(6)).await, "{step}");
            assert_eq!(scene.store.session(session.id).await.unwrap(), None, "{step}");
        }
        assert!(!scene.is_good(family, at(6)).await, "{step}");
        assert_eq!(scene.rotate(family, 0, at(6)).await, Err(Error::RefreshTokenRefused), "{step}");
        assert_eq!(scene.redeem(&spare, at(6)).await, Err(Error::CodeRefused), "{step}");
        assert_eq!(scene.sessions(None, at(6)).await, [bobs.id], "{step}");
        assert_eq!(scene.told().await, [("shop".to_owned(), "https://shop.example/out".to_owned())], "{step}");
        assert!(scene.is_good(bobs_family, at(6)).await, "somebody else's");
        if step == "disabled" {
            let refused = scene.store.open_session(session(scene.user.id, at(6)), scene.user.password_hash.clone().unwrap()).await;
            assert_eq!(refused, Err(Error::UserDisabled));
            enable(&scene, &scene.user, true).await.unwrap();
        }
    }
    scene.session_of(&scene.user, at(7)).await;
}

pub(crate) async fn the_last_enabled_administrator_stays_one(db: Db) {
    let scene = Scene::new(&db).await;
    let by_right = User { rights: Rights::of_names(["admin"]).unwrap(), ..user("by right") };
    let off = User { enabled: false, ..administrator("off") };
    let (first, second) = (administrator("first"), by_right);
    scene.store.create_users(vec![first.clone(), second.clone(), off.clone()]).await.unwrap();
    let seat = scene.session_of(&second, at(0)).await;
    enable(&scene, &first, false).await.expect("another one is left");
    let demote = || change(|user: &mut User| (user.account_type, user.rights) = (0, Rights::default()));
    let precondition = |outcome: Result<(), Error>| assert!(matches!(outcome, Err(Error::Precondition(_))), "{outcome:?}");
    precondition(enable(&scene, &second, false).await.map(drop));
    precondition(scene.store.update_user(second.id, demote(), at(5)).await.map(drop));
    precondition(scene.store.delete_user(second.id, at(5)).await);
    assert_eq!(scene.store.user(second.id).await.unwrap(), Some(second.clone()));
    assert!(scene.is_signed_in(&seat, at(6)).await, "a refusal ended his session");
    // What does not make him less of one is no matter.
    scene.store.update_user(second.id, change(|user: &mut User| user.account_type = 1), at(6)).await.unwrap();
    scene.store.delete_user(off.id, at(6)).await.expect("one that was none any more");
    enable(&scene, &first, true).await.unwrap();
    scene.store.delete_user(second.id, at(6)).await.expect("another one is left");
    precondition(scene.store.delete_user(first.id, at(6)).await);
}

pub(crate) async fn a_deleted_user_leaves_nothing(db: Db) {
    let scene = Scene::new(&db).await;
    let authority = authority("a");
    scene.store.register_authority(authority.clone(), at(0)).await.unwrap();
    let link = Link { user: scene.user.id, origin: LinkOrigin::Administrator, created_at: at(0) };
    scene.store.link_user(authority.id, "subject".to_owned(), link).await.unwrap();
    let (family, spare) = (scene.family(at(1)).await, scene.code(at(1)).await);
    scene.store.delete_user(scene.user.id, at(5)).await.unwrap();
    assert_eq!(scene.store.delete_user(scene.user.id, at(5)).await, Err(Error::NotFound("user")));
    assert_eq!(scene.store.user(scene.user.id).await.unwrap(), None);
    assert_eq!(scene.store.user_named("ann").await.unwrap(), None);
    assert_eq!(scene.store.users(None, 10).await.unwrap(), []);
    assert_eq!(scene.store.links(LinksOf::Authority(authority.id), None, 10).await.unwrap(), []);
    assert!(!scene.is_signed_in(&scene.session, at(6)).await && !scene.is_good(family, at(6)).await);
    assert_eq!(scene.redeem(&spare, at(6)).await, Err(Error::CodeRefused));
    assert_eq!(scene.told().await.len(), 1, "his apps are told");
    let refused = scene.store.open_session(session(scene.user.id, at(6)), scene.user.password_hash.clone().unwrap()).await;
    assert_eq!(refused, Err(Error::WrongPassword), "as if he had never been");
    scene.user("ann").await;
}

pub(crate) async fn a_new_password_ends_the_sessions_that_are_not_kept(db: Db) {
    let scene = Scene::new(&db).await;
    let bob = scene.user("bob").await;
    let bobs = scene.session_of(&bob, at(0)).await;
    let mut hash = scene.user.password_hash.clone().unwrap();
    for keep in ["none", "one", "all", "another's", "one that is no more"] {
        let scene_user = User { password_hash: Some(hash.clone()), ..scene.user.clone() };
        scene.store.end_sessions_of(scene.user.id, at(1)).await.unwrap();
        let sessions = [scene.session_of(&scene_user, at(1)).await, scene.session_of(&scene_user, at(1)).await];
        let family = scene.family_of(&sessions[0], &scene.app, "/out", at(1)).await;
        let owed_before = scene.owed().await.len();
        let (kept, alive) = match keep {
            "none" => (Kept::None, [false, false]),
            "one" => (Kept::One(sessions[1].id), [false, true]),
            "all" => (Kept::All, [true, true]),
            "another's" => (Kept::One(bobs.id), [false, false]),
            _ => (Kept::One(scene.session.id), [false, false]),
        };
        hash = format!("hash {keep}");
        let user = scene.store.set_password(scene.user.id, new_password(&hash, kept), at(2)).await.unwrap();
        assert_eq!((user.password_hash.as_deref(), user.password_change_required, user.updated_at), (Some(hash.as_str()), false, at(2)));
        assert_eq!(scene.store.user(user.id).await.unwrap(), Some(user), "{keep}");
        for (session, alive) in sessions.iter().zip(alive) {
            assert_eq!(scene.is_signed_in(session, at(3)).await, alive, "{keep}");
        }
        assert_eq!(scene.is_good(family, at(3)).await, alive[0], "{keep}");
        assert_eq!(scene.owed().await.len(), owed_before + usize::from(!alive[0]), "{keep}");
        assert!(scene.is_signed_in(&bobs, at(3)).await, "{keep}");
    }
}

pub(crate) async fn a_password_is_replaced_only_while_it_is_in_force(db: Db) {
    let scene = Scene::new(&db).await;
    let old = scene.user.password_hash.clone().unwrap();
    let replace = async |old: &str, new: &str| {
        let password = new_password(new, Kept::None);
        let password = NewPassword { replaces: Some(old.to_owned()), change_required: true, ..password };
        scene.store.set_password(scene.user.id, password, at(2)).await
    };
    assert_eq!(replace("another", "new").await, Err(Error::WrongPassword));
    assert!(scene.is_signed_in(&scene.session, at(3)).await, "a refusal ended his session");
    assert_eq!(scene.store.user(scene.user.id).await.unwrap(), Some(scene.user.clone()));
    assert!(replace(&old, "new").await.unwrap().password_change_required);
    assert_eq!(replace(&old, "newer").await, Err(Error::WrongPassword));
    let nobody = scene.store.set_password(user("x").id, new_password("x", Kept::None), at(2)).await;
    assert_eq!(nobody, Err(Error::NotFound("user")));
    let bare = User { password_hash: None, ..user("bare") };
    scene.store.create_users(vec![bare.clone()]).await.unwrap();
    let password = NewPassword { replaces: Some("x".to_owned()), ..new_password("y", Kept::None) };
    assert_eq!(scene.store.set_password(bare.id, password, at(2)).await, Err(Error::WrongPassword), "there is none to replace");
    scene.store.set_password(bare.id, new_password("y", Kept::None), at(2)).await.unwrap();
}
