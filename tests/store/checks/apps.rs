//! Apps.

use supos_auth::{
    core::{
        Error,
        ids::AppId,
        model::App,
        usage::{AppUsage, Count},
    },
    store::Change,
};

use crate::{
    database::{Db, Handle},
    scene::{Scene, app, app_id, at, change, code, new_hash, purge, refusal},
};

pub(crate) async fn an_app_is_read_back_as_it_was_made(db: Db) {
    let store = db.open().await;
    let (shop, mut bare) = (app("shop"), app("bare"));
    (bare.enabled, bare.refresh_requires_app_credential, bare.signature_requires_date) = (false, true, false);
    (bare.redirect_uris, bare.logout_uris, bare.secrets, bare.display_name) = (vec![], vec![], vec![], String::new());
    store.create_apps(vec![shop.clone(), bare.clone()]).await.unwrap();
    assert_eq!(store.app(&shop.id).await.unwrap().as_deref(), Some(&shop));
    assert_eq!(store.app(&bare.id).await.unwrap().as_deref(), Some(&bare));
    for other in ["shop2", "Shop", "sho"] {
        assert_eq!(store.app(&app_id(other)).await.unwrap(), None, "{other}");
    }
}

pub(crate) async fn apps_are_made_all_or_none(db: Db) {
    let store = db.open().await;
    store.create_apps(vec![]).await.unwrap();
    let taken = |step: usize| Err(Error::AlreadyExists { name: format!("steps[{step}].app.app_id") });
    store.create_apps(vec![app("a")]).await.unwrap();
    let first = store.app(&app_id("a")).await.unwrap();
    assert_eq!(store.create_apps(vec![app("b"), app("a"), app("c")]).await, taken(1));
    assert_eq!(store.create_apps(vec![app("b"), app("c"), app("b")]).await, taken(2));
    assert_eq!(store.apps(None, 10).await.unwrap().len(), 1, "a part of a batch was made");
    assert_eq!(store.app(&app_id("a")).await.unwrap(), first);
}

pub(crate) async fn apps_are_listed_by_id_page_by_page(db: Db) {
    let store = db.open().await;
    // In the order of their bytes, whatever language a database sorts by.
    let ids = ["!", "A", "Z", "a", "a!", "a-b", "a_b", "aa", "b", "ba", "~"];
    store.create_apps(ids.iter().rev().map(|id| app(id)).collect()).await.unwrap();
    let list = async |after: Option<&str>, limit| -> Vec<String> {
        let apps = store.apps(after.map(app_id), limit).await.unwrap();
        apps.into_iter().map(|app| app.id.as_str().to_owned()).collect()
    };
    assert_eq!(list(None, 100).await, ids);
    assert_eq!(list(Some("~"), 100).await, [""; 0]);
    assert_eq!(list(Some("a#"), 2).await, ["a-b", "a_b"], "after a key that is not there");
    let mut seen = Vec::new();
    while let page = list(seen.last().map(String::as_str), 2).await
        && !page.is_empty()
    {
        assert!(page.len() <= 2);
        seen.extend(page);
    }
    assert_eq!(seen, ids, "page by page");
}

pub(crate) async fn an_app_is_changed_or_left_alone(db: Db) {
    let store = db.open().await;
    store.create_apps(vec![app("shop"), app("other")]).await.unwrap();
    let changed = app("shop");
    let becomes = changed.clone();
    let answer = store.update_app(&app_id("shop"), change(move |app: &mut App| *app = becomes.clone())).await.unwrap();
    assert_eq!(answer, changed);
    assert_eq!(store.app(&app_id("shop")).await.unwrap().as_deref(), Some(&changed));
    assert_eq!(store.update_app(&app_id("shop"), refusal()).await, Err(Error::NotAllowed));
    let spoilt: Change<App> = Box::new(|app| {
        "half done".clone_into(&mut app.display_name);
        Err(Error::NotAllowed)
    });
    assert_eq!(store.update_app(&app_id("shop"), spoilt).await, Err(Error::NotAllowed));
    assert_eq!(store.app(&app_id("shop")).await.unwrap().as_deref(), Some(&changed), "a change that was refused");
    assert_eq!(store.update_app(&app_id("nobody"), change(|_| ())).await, Err(Error::NotFound("app")));
    let other = store.app(&app_id("other")).await.unwrap().unwrap();
    assert_eq!(other.display_name, "The other");
}

pub(crate) async fn a_disabled_app_does_nothing_and_loses_nothing(db: Db) {
    let scene = Scene::new(&db).await;
    let (family, spare) = (scene.family(at(1)).await, scene.code(at(1)).await);
    let enable = async |enabled| {
        scene.store.update_app(&scene.app.id, change(move |app: &mut App| app.enabled = enabled)).await.unwrap();
    };
    enable(false).await;
    assert!(!scene.is_good(family, at(2)).await);
    assert_eq!(scene.redeem(&spare, at(2)).await, Err(Error::CodeRefused));
    assert_eq!(scene.rotate(family, 0, at(2)).await, Err(Error::RefreshTokenRefused));
    let refused = scene.store.create_code(new_hash(), code(&scene.app, scene.session.id, at(2)), at(2)).await;
    assert_eq!(refused, Err(Error::UnknownApp));
    enable(true).await;
    assert!(scene.is_good(family, at(3)).await);
    scene.redeem(&spare, at(3)).await.expect("a refusal used the code up");
    assert_eq!(scene.rotate(family, 0, at(3)).await.unwrap().family.generation, 1);
}

pub(crate) async fn a_deleted_app_takes_its_codes_and_families_with_it(db: Db) {
    let scene = Scene::new(&db).await;
    let other = scene.app("other").await;
    let (family, spare, used) = (scene.family(at(1)).await, scene.code(at(1)).await, scene.code(at(1)).await);
    scene.redeem(&used, at(1)).await.unwrap();
    let others = scene.family_of(&scene.session, &other, "/out", at(1)).await;
    let usage = AppUsage { undated: Count { times: 1, last_at: at(1) }, ..AppUsage::default() };
    scene.store.add_usage(vec![(scene.app.id.clone(), usage)]).await.unwrap();
    scene.store.delete_app(&scene.app.id).await.unwrap();
    assert_eq!(scene.store.delete_app(&scene.app.id).await, Err(Error::NotFound("app")));
    assert_eq!(scene.store.app(&scene.app.id).await.unwrap(), None);

    // The next life of the same id has nothing of this one.
    for step in ["deleted", "made anew"] {
        assert!(!scene.is_good(family, at(2)).await, "{step}");
        assert_eq!(scene.rotate(family, 0, at(2)).await, Err(Error::RefreshTokenRefused), "{step}");
        assert_eq!(scene.redeem(&spare, at(2)).await, Err(Error::CodeRefused), "{step}");
        assert_eq!(scene.redeem(&used, at(2)).await, Err(Error::CodeRefused), "{step}");
        let refused = scene.store.create_code(new_hash(), code(&scene.app, scene.session.id, at(2)), at(2)).await;
        assert_eq!(refused, Err(Error::UnknownApp), "{step}");
        assert_eq!(scene.store.usage(None, 10).await.unwrap(), [], "{step}");
        let holders = scene.store.sessions(None, None, 10, at(2)).await.unwrap().sessions.remove(0).1;
        assert_eq!(holders, std::slice::from_ref(&other.id), "{step}: an app that holds no tokens is listed");
        if step == "deleted" {
            scene.app(scene.app.id.as_str()).await;
        }
    }
    assert!(scene.is_good(others, at(2)).await);
    scene.store.end_session(scene.session.id, at(3)).await.unwrap();
    assert_eq!(scene.told().await, [("other".to_owned(), "https://other.example/out".to_owned())]);
    purge(&scene.store, at(1_000_000)).await;
}

pub(crate) async fn usage_is_added_up_and_listed_by_app(db: Db) {
    let store = db.open().await;
    store.create_apps(vec![app("a"), app("b"), app("c")]).await.unwrap();
    let used = |times, last| AppUsage {
        deprecated: [("op4".to_owned(), Count { times, last_at: at(last) })].into(),
        undated: Count { times: times * 2, last_at: at(last) },
    };
    let add = async |usage: Vec<(&str, AppUsage)>| {
        store.add_usage(usage.into_iter().map(|(app, usage)| (app_id(app), usage)).collect()).await.unwrap();
    };
    add(vec![("b", used(1, 10)), ("nobody", used(1, 10)), ("a", used(2, 20))]).await;
    add(vec![("b", used(3, 5)), ("b", used(1, 11))]).await;
    assert_eq!(listed(&store, None, 10).await, [(app_id("a"), used(2, 20)), (app_id("b"), used(5, 11))]);
    assert_eq!(listed(&store, Some("a"), 10).await, [(app_id("b"), used(5, 11))]);
    assert_eq!(listed(&store, None, 1).await, [(app_id("a"), used(2, 20))]);
}

async fn listed(store: &Handle, after: Option<&str>, limit: usize) -> Vec<(AppId, AppUsage)> {
    store.usage(after.map(app_id), limit).await.unwrap()
}
