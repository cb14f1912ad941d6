//! Authorities with many users, and many calls that concern them at once.

use std::{sync::Arc, time::Duration};

use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        model::{Authority, Link, LinkOrigin, Pending},
    },
    store::{AuthorityStore as _, MAX_PENDING, UserStore as _, postgres::PostgresStore},
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    address, by_proxy,
    crowds::hold,
    name,
    postgres_server::{PostgresServer, is_wanted},
    proxy::Proxy,
    scene::{Scene, arrival, at, authority, change, ordinary},
};

/// Links a user to so many subjects, and to one that comes after all of them.
async fn link_many(server: &PostgresServer, url: &str, scene: &Scene, number: usize) -> Authority {
    let authority = authority("many");
    scene.store.register_authority(authority.clone(), at(1)).await.unwrap();
    let link = Link { user: scene.session.user, origin: LinkOrigin::Administrator, created_at: at(1) };
    scene.store.link_user(authority.id, "z".into(), link).await.unwrap();
    let many = format!(
        "INSERT INTO links SELECT authority_id, lpad(n::text, 5, '0'), user_id, origin, created_at FROM links, generate_series(1, {number}) n"
    );
    server.psql(name(url), &many);
    authority
}

/// Were it one statement, an authority with more links than can be deleted in 5 s could not be deleted at all.
/// Were it one statement, an authority with more links than can be deleted in 5 s could not be deleted at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_with_many_links_goes_step_by_step_and_is_off_from_the_first_one_on() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    let authority = link_many(server, &url, &scene, 2500).await;
    let left = || server.psql(name(&url), "SELECT COUNT(*) FROM links");
    let holder = hold(server, &url, "SELECT 1 FROM links WHERE subject = 'z' FOR UPDATE", "SELECT pg_sleep(3)", "COMMIT").await;
    let outcome = scene.store.delete_authority(authority.id, at(2)).await;
    assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
    assert_eq!(left(), "501");
    assert_eq!(scene.store.authority(authority.id, at(2)).await.unwrap().map(|authority| authority.enabled), Some(false));
    holder.join().unwrap();
    scene.store.delete_authority(authority.id, at(2)).await.unwrap();
    assert_eq!(left(), "0");
    assert_eq!(scene.store.delete_authority(authority.id, at(2)).await, Err(Error::NotFound("authority")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whom_an_authority_knows_by_many_names_goes_step_by_step() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    link_many(server, &url, &scene, 2500).await;
    let user = scene.session.user;
    let left = || server.psql(name(&url), "SELECT COUNT(*) FROM links");
    let holder = hold(server, &url, "SELECT 1 FROM links WHERE subject = 'z' FOR UPDATE", "SELECT pg_sleep(3)", "COMMIT").await;
    let outcome = scene.store.delete_user(user, at(2)).await;
    assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
    assert_eq!(left(), "501");
    assert_eq!(scene.store.user(user).await.unwrap().map(|user| user.enabled), Some(false));
    holder.join().unwrap();
    scene.store.delete_user(user, at(2)).await.unwrap();
    assert_eq!((left().as_str(), scene.store.user(user).await.unwrap()), ("0", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_is_switched_off_and_deleted_however_many_sign_in_by_it() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let proxy = Proxy::start(server.port()).await;
    let far = Scene::new(&address(&by_proxy(&proxy, &url))).await;
    let store = PostgresStore::open(address(&url), 2).await.unwrap();
    proxy.far_away(30);
    for deletes in [false, true] {
        let (authority, user) = (authority(&format!("busy {deletes}")), ordinary(&format!("user {deletes}")));
        store.register_authority(authority.clone(), at(1)).await.unwrap();
        store.create_users(vec![user.clone()]).await.unwrap();
        let (is_over, mut over) = watch::channel(false);
        let mut people = JoinSet::new();
        for number in 0..8 {
            let (store, authority, is_over) = (Arc::clone(&far.store), authority.clone(), is_over.clone());
            let name = user.name.clone();
            people.spawn(async move {
                let mut sign_ins = 0;
                loop {
                    match store.open_session_of(arrival(&authority, &format!("{number}"), Some(&name))).await {
                        Ok(_) => sign_ins += 1,
                        Err(Error::AuthorityOff) => return sign_ins,
                        Err(error) => panic!("{error}"),
                    }
                    if sign_ins == 5 {
                        is_over.send_replace(true);
                    }
                }
            });
        }
        over.wait_for(|over| *over).await.unwrap();
        if deletes {
            store.delete_authority(authority.id, at(2)).await.unwrap();
        } else {
            let off = change(|authority: &mut Authority| authority.enabled = false);
            store.update_authority(authority.id, off, at(2)).await.unwrap();
        }
        assert!(people.join_all().await.iter().sum::<i32>() >= 5);
    }
}

/// Whoever switches an authority off, and then ends the sessions of those who came by it, has ended all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_an_authority_is_off_nobody_who_was_on_his_way_in_by_it_comes_in_later() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    let (authority, user) = (authority("a"), ordinary("zhang"));
    scene.store.register_authority(authority.clone(), at(1)).await.unwrap();
    scene.store.create_users(vec![user.clone()]).await.unwrap();
    let holder = hold(server, &url, "SELECT 1 FROM users FOR UPDATE", "SELECT pg_sleep(1)", "COMMIT").await;
    let arriving = tokio::spawn({
        let (store, arrival) = (Arc::clone(&scene.store), arrival(&authority, "1", Some("zhang")));
        async move { store.open_session_of(arrival).await }
    });
    let waiting = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while server.psql(name(&url), waiting) == "0" {
        assert!(!arriving.is_finished(), "he has come in");
    }
    let off = change(|authority: &mut Authority| authority.enabled = false);
    scene.other.update_authority(authority.id, off, at(2)).await.unwrap();
    scene.other.end_sessions_of(user.id, at(3)).await.unwrap();
    holder.join().unwrap();
    let _ = arriving.await.unwrap();
    assert_eq!(scene.sessions(Some(user.id), at(11)).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_register_an_authority_keeps_no_connection_and_no_administrator_waiting() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    let waiting = |name: String, until: Timestamp| {
        let pending = Some(Pending { expires_at: until, network: name.clone() });
        Authority { enabled: false, pending, ..authority(&name) }
    };
    for number in 0..MAX_PENDING {
        scene.store.register_authority(waiting(format!("w{number}"), at(1000)), at(1)).await.unwrap();
    }
    let guard = "UPDATE guards SET name = name WHERE name = 'authorities'";
    let holder = hold(server, &url, guard, "SELECT pg_sleep(4)", "COMMIT").await;
    let mut callers = JoinSet::new();
    for number in 0..60 {
        let store = Arc::clone(&scene.store);
        let (name, refused) = if number % 2 == 0 {
            ("w0".to_owned(), Error::AuthorityExists)
        } else {
            (format!("x{number}"), Error::TooManyTries { retry_after: Duration::from_secs(999) })
        };
        let authority = waiting(name, at(1000));
        callers.spawn(async move { assert_eq!(store.register_authority(authority, at(1)).await, Err(refused)) });
    }
    callers.join_all().await;
    assert!(!holder.is_finished(), "they waited for somebody who changes authorities");
    holder.join().unwrap();
}
