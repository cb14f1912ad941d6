use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::{
    core::{
        ids::SessionId,
        model::{Pending, Session},
        rights::Rights,
        seal::Sealed,
        secret::{BearerHash, Secret},
    },
    store::{Maintenance as _, SessionStore as _, UserStore as _},
};

const WEEK: Duration = Duration::from_hours(7 * 24);

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

fn store() -> (TempDir, SledStore) {
    let folder = TempDir::new().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    (folder, store)
}

fn authority(name: &str) -> Authority {
    Authority {
        id: AuthorityId::random().unwrap(),
        name: name.to_owned(),
        client_id: "client".to_owned(),
        client_secret: Sealed::from_bytes(vec![1, 2, 3]),
        authorization_uri: "https://authority.example/authorize".to_owned(),
        token_uri: "https://authority.example/token".to_owned(),
        userinfo_uri: "https://authority.example/userinfo".to_owned(),
        logout_uri: "https://authority.example/logout".to_owned(),
        enabled: true,
        pending: None,
        link_by_name: true,
        create_users: true,
        created_at: at(0),
        updated_at: at(1),
    }
}

fn waiting(name: &str, network: &str, since: Timestamp) -> Authority {
    let pending = Some(Pending { expires_at: since.after(WEEK), network: network.to_owned() });
    Authority { enabled: false, pending, ..authority(name) }
}

fn user(name: &str) -> User {
    User {
        id: UserId::random().unwrap(),
        name: name.to_owned(),
        person_code: String::new(),
        company_code: String::new(),
        account_type: 0,
        enabled: true,
        password_hash: None,
        password_change_required: false,
        created_at: at(0),
        updated_at: at(0),
        rights: Rights::default(),
    }
}

fn arrival(authority: &Authority, subject: &str, name: Option<&str>) -> Arrival {
    let newcomer = name.map(user);
    let session = Session {
        id: SessionId::random().unwrap(),
        user: UserId::from_bytes([0; 16]),
        ticket: BearerHash::of_ticket(Secret::random().unwrap().expose()),
        created_at: at(10),
        last_used_at: at(10),
        expires_at: at(1000),
        idle_lifetime: Duration::from_secs(1000),
        next_family: 0,
        authority: None,
    };
    Arrival { session, authority: authority.id, subject: subject.to_owned(), name: name.map(str::to_owned), newcomer }
}

async fn links_of(store: &SledStore, of: LinksOf) -> Vec<String> {
    store.links(of, None, 100).await.unwrap().into_iter().map(|linked| linked.subject).collect()
}

async fn set(store: &SledStore, id: AuthorityId, change: fn(&mut Authority)) -> Authority {
    let change = Box::new(move |authority: &mut Authority| {
        change(authority);
        Ok(())
    });
    store.update_authority(id, change, at(1)).await.unwrap()
}

#[tokio::test]
async fn an_authority_reads_back_and_its_name_is_its_own() {
    let (_folder, store) = store();
    let (a, b) = (authority("a"), authority("b"));
    store.register_authority(a.clone(), at(0)).await.unwrap();
    store.register_authority(b.clone(), at(0)).await.unwrap();
    assert_eq!(store.register_authority(authority("a"), at(0)).await, Err(Error::AuthorityExists));
    assert_eq!(store.register_authority(waiting("a", "n", at(0)), at(0)).await, Err(Error::AuthorityExists));
    assert_eq!(store.authority(a.id, at(0)).await.unwrap(), Some(a.clone()));
    assert_eq!(store.authority_named("b", at(0)).await.unwrap(), Some(b.clone()));
    let rename: fn(&mut Authority) = |authority| authority.name = "b".to_owned();
    let refused = store
        .update_authority(
            a.id,
            Box::new(move |authority| {
                rename(authority);
                Ok(())
            }),
            at(1),
        )
        .await;
    assert_eq!(refused, Err(Error::AuthorityExists));
    set(&store, a.id, |authority| authority.name = "c".to_owned()).await;
    assert!(store.authority_named("a", at(1)).await.unwrap().is_none());
    let listed = |after: Option<&str>, limit| store.authorities(after.map(str::to_owned), limit, at(1));
    let names = |authorities: Vec<Authority>| authorities.into_iter().map(|authority| authority.name).collect::<Vec<_>>();
    assert_eq!(names(listed(None, 10).await.unwrap()), ["b", "c"]);
    assert_eq!(names(listed(Some("b"), 1).await.unwrap()), ["c"]);
    store.delete_authority(b.id, at(1)).await.unwrap();
    assert_eq!(store.delete_authority(b.id, at(1)).await, Err(Error::NotFound("authority")));
    store.register_authority(authority("b"), at(1)).await.unwrap();
}

#[tokio::test]
async fn so_many_wait_and_no_more_until_the_first_has_waited_too_long() {
    let (_folder, store) = store();
    for number in 0..MAX_PENDING {
        let network = format!("network {}", number / MAX_PENDING_OF_NETWORK);
        let since = at(number as u64);
        store.register_authority(waiting(&format!("w{number}"), &network, since), since).await.unwrap();
        if number == MAX_PENDING_OF_NETWORK - 1 {
            let one_more = store.register_authority(waiting("x", &network, since), since).await;
            assert_eq!(one_more, Err(Error::TooManyTries { retry_after: at(0).after(WEEK).since(since) }));
        }
    }
    let now = at(MAX_PENDING as u64);
    assert!(matches!(store.register_authority(waiting("x", "another", now), now).await, Err(Error::TooManyTries { .. })));
    store.register_authority(authority("y"), now).await.expect("who has the right is not bound");
    let week = at(0).after(WEEK);
    assert!(store.authority_named("w0", week).await.unwrap().is_none());
    assert!(!store.authorities(None, 100, week).await.unwrap().iter().any(|authority| authority.name == "w0"));
    store.register_authority(waiting("w0", "another", week), week).await.unwrap();
    // What was purged is as gone as what was not looked at.
    while store.purge(week.after(WEEK * 2)).await.unwrap() > 0 {}
    assert_eq!(store.authorities(None, 100, week).await.unwrap().len(), 1);
    assert_eq!(store.tree.scan_prefix(keys::PENDING).count(), 0);
}

#[tokio::test]
async fn one_that_waits_gives_way_and_one_that_was_enabled_stays() {
    let (_folder, store) = store();
    let (first, second) = (waiting("a", "n", at(0)), waiting("b", "n", at(0)));
    for waiting in [&first, &second] {
        store.register_authority(waiting.clone(), at(0)).await.unwrap();
    }
    let rightful = authority("a");
    store.register_authority(rightful.clone(), at(1)).await.unwrap();
    assert_eq!(store.authority_named("a", at(1)).await.unwrap(), Some(rightful));
    assert!(store.authority(first.id, at(1)).await.unwrap().is_none());
    set(&store, second.id, |authority| (authority.enabled, authority.pending) = (true, None)).await;
    assert_eq!(store.register_authority(authority("b"), at(1)).await, Err(Error::AuthorityExists));
    let later = at(0).after(WEEK * 2);
    while store.purge(later).await.unwrap() > 0 {}
    assert!(store.authority(second.id, later).await.unwrap().is_some());
}

#[tokio::test]
async fn whoever_arrives_is_found_by_his_link_then_by_his_name_then_made() {
    let (_folder, store) = store();
    let authority = authority("a");
    store.register_authority(authority.clone(), at(0)).await.unwrap();
    let (zhang, boss) = (user("zhang"), User { account_type: 1, ..user("boss") });
    let auditor = User { rights: Rights::of_names(["tokens.inspect"]).unwrap(), ..user("auditor") };
    store.create_users(vec![zhang.clone(), boss.clone(), auditor.clone()]).await.unwrap();

    let first = arrival(&authority, "1", Some("zhang"));
    assert_eq!(store.open_session_of(first.clone()).await.unwrap().id, zhang.id);
    let signed_in = store.session_of_ticket(&first.session.ticket, at(10)).await.unwrap().unwrap();
    assert_eq!((signed_in.user.id, signed_in.session.authority), (zhang.id, Some(authority.id)));
    // His link counts from then on, whatever name he has.
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("boss"))).await.unwrap().id, zhang.id);
    assert_eq!(store.open_session_of(arrival(&authority, "1", None)).await.unwrap().id, zhang.id);
    for name in ["boss", "auditor"] {
        assert_eq!(store.open_session_of(arrival(&authority, "2", Some(name))).await, Err(Error::AuthorityUserUnknown), "{name}");
    }
    assert_eq!(store.open_session_of(arrival(&authority, "2", None)).await, Err(Error::AuthorityUserUnknown));
    let made = store.open_session_of(arrival(&authority, "3", Some("new"))).await.unwrap();
    assert_eq!(store.user_named("new").await.unwrap(), Some(made));

    let link = Link { user: boss.id, origin: LinkOrigin::Administrator, created_at: at(5) };
    store.link_user(authority.id, "2".to_owned(), link.clone()).await.unwrap();
    assert_eq!(store.open_session_of(arrival(&authority, "2", None)).await.unwrap().id, boss.id);
    let taken = store.link_user(authority.id, "1".to_owned(), link).await.map(|_| ());
    assert_eq!(taken, Err(Error::AlreadyExists { name: "subject".into() }));

    let promote: Change<User> = Box::new(|user| {
        user.account_type = 1;
        Ok(())
    });
    store.update_user(zhang.id, promote, at(6)).await.unwrap();
    assert_eq!(store.open_session_of(arrival(&authority, "1", None)).await, Err(Error::AuthorityUserUnknown), "linked by name alone");
}

#[tokio::test]
async fn settings_of_the_authority_and_of_the_user_are_heeded_at_that_moment() {
    let (_folder, store) = store();
    let authority = authority("a");
    store.register_authority(authority.clone(), at(0)).await.unwrap();
    let (zhang, off) = (user("zhang"), User { enabled: false, ..user("off") });
    store.create_users(vec![zhang.clone(), off]).await.unwrap();
    assert_eq!(store.open_session_of(arrival(&authority, "9", Some("off"))).await, Err(Error::UserDisabled));
    assert!(links_of(&store, LinksOf::Authority(authority.id)).await.is_empty(), "a refusal leaves nothing behind");
    set(&store, authority.id, |authority| authority.create_users = false).await;
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("new"))).await, Err(Error::AuthorityUserUnknown));
    set(&store, authority.id, |authority| (authority.link_by_name, authority.create_users) = (false, true)).await;
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("zhang"))).await, Err(Error::AuthorityUserUnknown));
    set(&store, authority.id, |authority| authority.enabled = false).await;
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("new"))).await, Err(Error::AuthorityOff));
}

#[tokio::test]
async fn links_go_with_either_end() {
    let (_folder, store) = store();
    let (a, b) = (authority("a"), authority("b"));
    let (zhang, li) = (user("zhang"), user("li"));
    store.create_users(vec![zhang.clone(), li.clone()]).await.unwrap();
    for authority in [&a, &b] {
        store.register_authority(authority.clone(), at(0)).await.unwrap();
        for (subject, user) in [("z", &zhang), ("z2", &zhang), ("l", &li)] {
            let link = Link { user: user.id, origin: LinkOrigin::Administrator, created_at: at(0) };
            store.link_user(authority.id, subject.to_owned(), link).await.unwrap();
        }
    }
    assert_eq!(links_of(&store, LinksOf::Authority(a.id)).await, ["l", "z", "z2"]);
    assert_eq!(links_of(&store, LinksOf::User(zhang.id)).await.len(), 4);
    let rest = store.links(LinksOf::Authority(a.id), Some((a.id, "l".to_owned())), 1).await.unwrap();
    assert_eq!(rest[0].subject, "z");
    store.delete_user(zhang.id, at(6)).await.unwrap();
    assert_eq!(links_of(&store, LinksOf::Authority(b.id)).await, ["l"]);
    store.delete_authority(a.id, at(0)).await.unwrap();
    assert_eq!(links_of(&store, LinksOf::User(li.id)).await, ["l"]);
    store.unlink_user(b.id, "l".to_owned()).await.unwrap();
    assert_eq!(store.unlink_user(b.id, "l".to_owned()).await, Err(Error::NotFound("link")));
    for prefix in [&b"b"[..], b"y"] {
        assert_eq!(store.tree.scan_prefix(prefix).count(), 0);
    }
}

#[tokio::test]
async fn a_race_for_a_name_or_for_the_last_place_has_one_winner() {
    let (_folder, store) = store();
    let race = async |make: fn(usize) -> Authority| {
        let calls = (0..32).map(|number| store.register_authority(make(number), at(0)));
        join_all(calls).await.iter().filter(|outcome| outcome.is_ok()).count()
    };
    assert_eq!(race(|_| authority("one")).await, 1);
    assert_eq!(race(|number| waiting(&format!("w{number}"), "n", at(0))).await, MAX_PENDING_OF_NETWORK);
    assert_eq!(race(|number| waiting(&format!("v{number}"), &format!("{number}"), at(0))).await, MAX_PENDING - MAX_PENDING_OF_NETWORK);
}

async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| Some(Box::pin(future))).collect();
    let mut done: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (slot, out) in waiting.iter_mut().zip(&mut done) {
            if let Some(future) = slot
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *out = Some(output);
                *slot = None;
            }
        }
        if waiting.iter().all(Option::is_none) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
