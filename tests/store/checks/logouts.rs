//! Calls that are owed to apps.

use std::time::Duration;

use supos_auth::core::{
    clock::Timestamp,
    ids::LogoutId,
    logouts::{GIVE_UP_AFTER, Outcome, OwedLogout, SHOWN_FOR},
    model::App,
};

use crate::{
    database::Db,
    scene::{Scene, app_id, at, before, purge},
};

/// Owes an app a call at each of these paths.
async fn owe(scene: &Scene, app: &App, paths: &[&str], now: Timestamp) -> Vec<OwedLogout> {
    let session = scene.session_of(&scene.user, now).await;
    for path in paths {
        scene.family_of(&session, app, path, now).await;
    }
    scene.store.end_session(session.id, now).await.unwrap();
    let owed = scene.owed().await;
    owed.into_iter().filter(|owed| owed.session == session.id).collect()
}

pub(crate) async fn calls_come_due_lane_by_lane_those_first_that_are_due_longest(db: Db) {
    let scene = Scene::new(&db).await;
    let other = scene.app("other").await;
    let mut of_shop = Vec::new();
    for second in [3, 1, 2, 5, 4] {
        of_shop.push((second, owe(&scene, &scene.app, &["/out"], at(second)).await.remove(0)));
    }
    let of_other = owe(&scene, &other, &["/out"], at(9)).await.remove(0);
    of_shop.sort_by_key(|(second, _)| *second);
    let due = async |per_lane, now| {
        let mut due = scene.store.due_logouts(per_lane, now).await.unwrap();
        // Which lane is first is no matter.
        due.sort_by_key(|owed| (owed.app.clone(), owed.next_try_at));
        due
    };
    let of_shop: Vec<OwedLogout> = of_shop.into_iter().map(|(_, owed)| owed).collect();
    assert_eq!(due(10, before(at(1))).await, []);
    assert_eq!(due(10, at(1)).await, of_shop[..1]);
    assert_eq!(due(3, at(8)).await, of_shop[..3]);
    let both = [&[of_other][..], &of_shop[..2]].concat();
    assert_eq!(due(2, at(9)).await, both, "one lane keeps no other waiting");
    let lane = scene.store.due_logouts(10, at(8)).await.unwrap();
    assert_eq!(lane, of_shop, "in the order of time");
}

pub(crate) async fn what_became_of_a_try_is_noted(db: Db) {
    let scene = Scene::new(&db).await;
    let [told, again, given_up] = owe(&scene, &scene.app, &["/1", "/2", "/3"], at(1)).await.try_into().unwrap();
    let settle = async |owed: &OwedLogout, outcome| scene.store.settle_logout(owed.id, outcome).await.unwrap();
    settle(&told, Outcome::Settled).await;
    settle(&again, Outcome::Again { error: "first".into(), at: at(5) }).await;
    settle(&again, Outcome::Again { error: "second\n".into(), at: at(100) }).await;
    settle(&given_up, Outcome::Again { error: "first".into(), at: at(5) }).await;
    settle(&given_up, Outcome::GivenUp { error: "410".into(), at: at(6) }).await;
    let again = OwedLogout { tries: 2, next_try_at: at(100), last_error: "second".to_owned(), ..again };
    assert_eq!(scene.owed().await, std::slice::from_ref(&again));
    assert_eq!(scene.store.due_logouts(10, before(at(100))).await.unwrap(), []);
    assert_eq!(scene.store.due_logouts(10, at(100)).await.unwrap(), [again]);
    let shown = scene.store.logouts(true, None, None, 10).await.unwrap();
    let mut expected = OwedLogout { given_up_at: Some(at(6)), next_try_at: at(5), last_error: "410".to_owned(), ..given_up.clone() };
    // Whether the last try is counted is no matter: it is not tried again.
    expected.tries = shown[0].tries;
    assert_eq!(shown, [expected]);
    for gone in [told.id, given_up.id, LogoutId::at(at(1)).unwrap()] {
        for outcome in
            [Outcome::Settled, Outcome::Again { error: "x".into(), at: at(7) }, Outcome::GivenUp { error: "x".into(), at: at(7) }]
        {
            scene.store.settle_logout(gone, outcome).await.expect("one that is not owed any more is no error");
        }
    }
    assert_eq!((scene.owed().await.len(), scene.store.logouts(true, None, None, 10).await.unwrap()), (1, shown));
}

pub(crate) async fn calls_are_given_up_after_a_day_and_shown_for_three_more(db: Db) {
    let scene = Scene::new(&db).await;
    let old = owe(&scene, &scene.app, &["/1", "/2"], at(0)).await;
    let young = owe(&scene, &scene.app, &["/3"], at(1)).await;
    let end = at(0).after(GIVE_UP_AFTER);
    assert_eq!(scene.store.give_up_logouts(before(end)).await.unwrap(), []);
    let mut given_up = Vec::new();
    while let batch = scene.store.give_up_logouts(end).await.unwrap()
        && !batch.is_empty()
    {
        given_up.extend(batch);
    }
    given_up.sort_by_key(|owed| owed.id);
    assert_eq!(given_up, old, "as they were");
    assert_eq!(scene.owed().await, young);
    assert_eq!(scene.store.due_logouts(10, end).await.unwrap(), young);
    let shown = scene.store.logouts(true, None, None, 10).await.unwrap();
    assert_eq!(shown, old.iter().map(|owed| OwedLogout { given_up_at: Some(end), ..owed.clone() }).collect::<Vec<_>>());
    purge(&scene.store, end.after(SHOWN_FOR)).await;
    assert_eq!(scene.store.logouts(true, None, None, 10).await.unwrap().len(), 2, "a purge took what is still shown");
    purge(&scene.store, end.after(SHOWN_FOR + Duration::from_millis(1))).await;
    assert_eq!(scene.store.logouts(true, None, None, 10).await.unwrap(), []);
    assert_eq!(scene.owed().await, young, "a purge took what is still owed");
}

pub(crate) async fn calls_are_listed_the_oldest_first_page_by_page_and_by_app(db: Db) {
    let scene = Scene::new(&db).await;
    let other = scene.app("other").await;
    let mut all = Vec::new();
    for second in 1..6 {
        all.extend(owe(&scene, if second % 2 == 0 { &other } else { &scene.app }, &["/out"], at(second)).await);
    }
    for given_up in [false, true] {
        for app in [None, Some(app_id("shop")), Some(app_id("other")), Some(app_id("nobody"))] {
            let expected: Vec<_> = all.iter().filter(|owed| app.as_ref().is_none_or(|app| owed.app == *app)).map(|owed| owed.id).collect();
            let mut seen = Vec::new();
            while let page = scene.store.logouts(given_up, app.clone(), seen.last().copied(), 2).await.unwrap()
                && !page.is_empty()
            {
                assert!(page.len() <= 2);
                seen.extend(page.into_iter().map(|owed| owed.id));
            }
            assert_eq!(seen, expected, "{app:?}");
        }
        for owed in &all {
            scene.store.settle_logout(owed.id, Outcome::GivenUp { error: String::new(), at: at(9) }).await.unwrap();
        }
    }
    assert_eq!(scene.owed().await, []);
}

pub(crate) async fn whoever_waits_is_told_that_calls_have_come_to_be_owed(db: Db) {
    let scene = Scene::new(&db).await;
    for round in 0..3 {
        let waiting = tokio::spawn({
            let store = scene.store.clone();
            async move { store.logouts_owed().await }
        });
        owe(&scene, &scene.app, &["/out"], at(round)).await;
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("nobody was told").unwrap();
    }
}
