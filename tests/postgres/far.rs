//! A database that is far away: what a step costs is its trips, whatever their number of records.

use std::{collections::BTreeMap, time::Duration};

use supos_auth::{
    core::{
        Error,
        model::{App, User},
        usage::{AppUsage, Count},
    },
    store::{TRANSFER_BATCH, Transfer as _, postgres::PostgresStore, record::Record},
};

use crate::{
    address, by_proxy, database, name,
    postgres_server::{PostgresServer, is_wanted},
    proxy::Proxy,
    scene::{Scene, administrator, app, app_id, at, new_hash, user},
};

/// How many records of a kind one step sees to.
const MANY: usize = 256;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_moved_into_a_database_that_is_far_away() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let proxy = Proxy::start(server.port()).await;
    let store = PostgresStore::open(address(&by_proxy(&proxy, &url)), 2).await.unwrap();
    proxy.far_away(7);
    let used = |_| Record::UsedUp { hash: new_hash(), until: at(1000) };
    store.import((0..TRANSFER_BATCH).map(used).collect()).await.unwrap();
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*) FROM used_up"), TRANSFER_BATCH.to_string());
    // A transaction takes longer than a step may that a caller waits for.
    proxy.far_away(70);
    store.import((0..100).map(used).collect()).await.unwrap();
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*) FROM used_up"), (TRANSFER_BATCH + 100).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_users_and_apps_are_imported_into_a_database_that_is_far_away_all_or_none() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let proxy = Proxy::start(server.port()).await;
    let store = database::open(&address(&by_proxy(&proxy, &url))).await;
    let mut users: Vec<User> = (0..3000).map(|number| user(&format!("user {number}"))).collect();
    users[7] = administrator("user 7");
    users[8].password_hash = None;
    let mut apps: Vec<App> = (0..3000).map(|number| app(&format!("app{number}"))).collect();
    apps[7].redirect_uris = Vec::new();
    apps[8].secrets = Vec::new();
    store.create_users(vec![users[2500].clone()]).await.unwrap();
    store.create_apps(vec![apps[2500].clone()]).await.unwrap();
    proxy.far_away(7);

    let taken = |field: &str| Err(Error::AlreadyExists { name: format!("steps[2500].{field}") });
    assert_eq!(store.create_users(users.clone()).await, taken("user.user_name"));
    assert_eq!(store.create_apps(apps.clone()).await, taken("app.app_id"));
    assert_eq!(server.psql(name(&url), "SELECT (SELECT COUNT(*) FROM users), (SELECT COUNT(*) FROM apps)"), "1|1");

    users.remove(2500);
    apps.remove(2500);
    store.create_users(users.clone()).await.unwrap();
    store.create_apps(apps.clone()).await.unwrap();
    for number in [0, 7, 8, 2998] {
        assert_eq!(store.user(users[number].id).await.unwrap().as_ref(), Some(&users[number]));
        assert_eq!(store.app(&apps[number].id).await.unwrap().as_deref(), Some(&apps[number]));
    }
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*) FROM users WHERE administrator"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_of_many_records_is_seen_to_in_a_database_that_is_far_away() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let proxy = Proxy::start(server.port()).await;
    let scene = Scene::new(&address(&by_proxy(&proxy, &url))).await;
    let mut sessions = Vec::new();
    for number in 0..MANY {
        scene.family_of(&scene.session, &scene.app, &format!("/out/{number}"), at(1)).await;
        sessions.push(scene.session_of(&scene.user, at(2)).await);
        scene.code_of(&sessions[number], &scene.app, at(500)).await;
    }
    scene.store.end_session(scene.session.id, at(3)).await.unwrap();
    assert_eq!(scene.owed().await.len(), MANY);
    proxy.far_away(30);

    let given_up = scene.store.give_up_logouts(at(3).after(Duration::from_hours(25))).await.unwrap();
    assert_eq!(given_up.len(), MANY);
    assert_eq!(scene.owed().await, []);
    let shown = scene.store.logouts(true, None, None, 2 * MANY).await.unwrap();
    assert!(shown.len() == MANY && shown.iter().zip(&given_up).all(|(shown, was)| shown.id == was.id && shown.given_up_at.is_some()));

    // None of them was used in the time that was set for a look at it, and all have been since.
    assert!(scene.store.purge(at(1100)).await.unwrap() >= MANY);
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*), MIN(look_at) = MIN(last_used_at + idle_lifetime) FROM sessions"), "256|t");

    let count = |times| Count { times, last_at: at(times) };
    let deprecated: BTreeMap<_, _> = (0..MANY as u64).map(|number| (format!("operation {number}"), count(number))).collect();
    let usage = AppUsage { deprecated, undated: count(3) };
    let gone = (app_id("gone"), usage.clone());
    let twice = vec![(scene.app.id.clone(), usage.clone()), gone, (scene.app.id.clone(), usage.clone())];
    scene.store.add_usage(twice).await.unwrap();
    let mut sum = usage.clone();
    sum.add(usage);
    sum.deprecated.remove("operation 0");
    let mut known = scene.store.usage(None, 10).await.unwrap();
    known[0].1.deprecated.remove("operation 0");
    assert_eq!(known, [(scene.app.id.clone(), sum)]);
}
