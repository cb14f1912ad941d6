//! A database that is far away: what a step costs is its trips, whatever their number of records.

use supos_auth::{
    core::{
        Error,
        model::{App, User},
    },
    store::{TRANSFER_BATCH, Transfer as _, postgres::PostgresStore, record::Record},
};

use crate::{
    address, by_proxy, database, name,
    postgres_server::{PostgresServer, is_wanted},
    proxy::Proxy,
    scene::{administrator, app, at, new_hash, user},
};

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

    (users.remove(2500), apps.remove(2500));
    store.create_users(users.clone()).await.unwrap();
    store.create_apps(apps.clone()).await.unwrap();
    for number in [0, 7, 8, 2998] {
        assert_eq!(store.user(users[number].id).await.unwrap().as_ref(), Some(&users[number]));
        assert_eq!(store.app(&apps[number].id).await.unwrap().as_deref(), Some(&apps[number]));
    }
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*) FROM users WHERE administrator"), "1");
}
