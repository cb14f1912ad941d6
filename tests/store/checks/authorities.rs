//! Third-party authorities, and who their users are here.

use std::time::Duration;

use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        ids::AuthorityId,
        model::{Authority, Link, LinkOrigin, Pending, User},
        rights::Rights,
    },
    store::{Arrival, Linked, LinksOf, MAX_PENDING, MAX_PENDING_OF_NETWORK},
};

use crate::{
    database::{Db, Handle},
    scene::{arrival, at, authority, before, change, ordinary, purge, refusal, user},
};

const WEEK: Duration = Duration::from_hours(7 * 24);

pub(crate) fn waiting(name: &str, network: &str, since: Timestamp) -> Authority {
    let pending = Some(Pending { expires_at: since.after(WEEK), network: network.to_owned() });
    Authority { enabled: false, pending, ..authority(name) }
}

async fn links_of(store: &Handle, of: LinksOf) -> Vec<String> {
    store.links(of, None, 100).await.unwrap().into_iter().map(|linked| linked.subject).collect()
}

async fn set(store: &Handle, id: AuthorityId, set: fn(&mut Authority)) -> Authority {
    store.update_authority(id, change(set), at(1)).await.unwrap()
}

pub(crate) async fn an_authority_is_read_back_and_its_name_is_its_own(db: Db) {
    let store = db.open().await;
    let (a, b, waits) = (authority("a"), authority("b"), waiting("w", "n", at(0)));
    for authority in [&a, &b, &waits] {
        store.register_authority(authority.clone(), at(0)).await.unwrap();
        assert_eq!(store.authority(authority.id, at(0)).await.unwrap(), Some(authority.clone()));
        assert_eq!(store.authority_named(&authority.name, at(0)).await.unwrap(), Some(authority.clone()));
    }
    assert_eq!(store.register_authority(authority("a"), at(0)).await, Err(Error::AuthorityExists));
    assert_eq!(store.register_authority(waiting("a", "n", at(0)), at(0)).await, Err(Error::AuthorityExists));
    assert_eq!(store.register_authority(waiting("w", "n", at(0)), at(0)).await, Err(Error::AuthorityExists));
    assert_eq!(store.authority_named("a", at(0)).await.unwrap(), Some(a.clone()), "a refusal changed it");
    assert_eq!(store.authority_named("A", at(0)).await.unwrap(), None);
    assert_eq!(store.authority(authority("x").id, at(0)).await.unwrap(), None);

    let rename = |name: &'static str| change(move |authority: &mut Authority| name.clone_into(&mut authority.name));
    assert_eq!(store.update_authority(a.id, rename("b"), at(1)).await, Err(Error::AuthorityExists));
    assert_eq!(store.update_authority(a.id, refusal(), at(1)).await, Err(Error::NotAllowed));
    assert_eq!(store.authority(a.id, at(1)).await.unwrap(), Some(a.clone()), "a refusal changed it");
    let renamed = store.update_authority(a.id, rename("c"), at(1)).await.unwrap();
    assert_eq!(renamed, Authority { name: "c".to_owned(), ..a.clone() });
    assert_eq!(store.authority_named("a", at(1)).await.unwrap(), None);
    assert_eq!(store.authority_named("c", at(1)).await.unwrap(), Some(renamed));
    let nobody = authority("x").id;
    assert_eq!(store.update_authority(nobody, rename("y"), at(1)).await, Err(Error::NotFound("authority")));

    store.delete_authority(b.id, at(1)).await.unwrap();
    assert_eq!(store.delete_authority(b.id, at(1)).await, Err(Error::NotFound("authority")));
    assert_eq!((store.authority(b.id, at(1)).await.unwrap(), store.authority_named("b", at(1)).await.unwrap()), (None, None));
    store.register_authority(authority("b"), at(1)).await.expect("its name is free");
}

pub(crate) async fn authorities_are_listed_by_name_page_by_page(db: Db) {
    let store = db.open().await;
    let names = ["A", "Z", "a", "a b", "a-b", "aa", "b", "王"];
    for name in names.iter().rev() {
        store.register_authority(authority(name), at(0)).await.unwrap();
    }
    // Those that have waited too long are not there, and take no place on a page.
    for name in ["0", "a0", "z"] {
        store.register_authority(waiting(name, name, at(0)), at(0)).await.unwrap();
    }
    let now = at(0).after(WEEK);
    let list = async |after: Option<&str>, limit| -> Vec<String> {
        store.authorities(after.map(str::to_owned), limit, now).await.unwrap().into_iter().map(|authority| authority.name).collect()
    };
    assert_eq!(list(None, 100).await, names);
    assert_eq!(list(Some("a!"), 1).await, ["a-b"], "after a key that is not there");
    let mut seen = Vec::new();
    while let page = list(seen.last().map(String::as_str), 2).await
        && !page.is_empty()
    {
        assert!(page.len() <= 2);
        seen.extend(page);
    }
    assert_eq!(seen, names, "page by page");
    assert_eq!(store.authorities(None, 100, before(now)).await.unwrap().len(), names.len() + 3);
}

pub(crate) async fn so_many_wait_and_no_more_until_the_first_has_waited_too_long(db: Db) {
    let store = db.open().await;
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
    let one_more = store.register_authority(waiting("x", "another", now), now).await;
    assert_eq!(one_more, Err(Error::TooManyTries { retry_after: at(0).after(WEEK).since(now) }));
    store.register_authority(authority("y"), now).await.expect("who has the right is not bound");
    let week = at(0).after(WEEK);
    assert!(store.authority_named("w0", week).await.unwrap().is_none());
    let gone = store.update_authority(store.authority_named("w0", now).await.unwrap().unwrap().id, change(|_| ()), week).await;
    assert_eq!(gone, Err(Error::NotFound("authority")));
    store.register_authority(waiting("w0", "another", week), week).await.expect("there is room again, and the name is free");
    assert!(store.register_authority(waiting("x", "another", week), week).await.is_err(), "that was the only place");
    // What was purged is as gone as what was not looked at.
    purge(&store, week.after(WEEK * 2)).await;
    let left: Vec<_> = store.authorities(None, 100, at(0)).await.unwrap().into_iter().map(|authority| authority.name).collect();
    assert_eq!(left, ["y"]);
}

pub(crate) async fn an_authority_that_waits_is_gone_to_the_millisecond(db: Db) {
    let store = db.open().await;
    let waits = waiting("w", "n", at(0));
    store.register_authority(waits.clone(), at(0)).await.unwrap();
    let end = at(0).after(WEEK);
    purge(&store, before(end)).await;
    assert_eq!(store.authority(waits.id, before(end)).await.unwrap(), Some(waits.clone()));
    for purged in [false, true] {
        assert_eq!(store.authority(waits.id, end).await.unwrap(), None, "{purged}");
        assert_eq!(store.authority_named("w", end).await.unwrap(), None, "{purged}");
        assert_eq!(store.delete_authority(waits.id, end).await, Err(Error::NotFound("authority")), "{purged}");
        purge(&store, end.after(Duration::from_millis(1))).await;
    }
}

pub(crate) async fn one_that_waits_gives_way_and_one_that_was_enabled_stays(db: Db) {
    let store = db.open().await;
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
    for name in ["c", "d", "e"] {
        store.register_authority(waiting(name, "n", at(1)), at(1)).await.expect("none of the network's waits any more");
    }
    let later = at(0).after(WEEK * 2);
    purge(&store, later).await;
    assert!(store.authority(second.id, later).await.unwrap().is_some());
}

pub(crate) async fn a_name_that_waited_too_long_can_be_taken_by_a_change(db: Db) {
    let store = db.open().await;
    let a = authority("a");
    store.register_authority(a.clone(), at(0)).await.unwrap();
    store.register_authority(waiting("w", "n", at(0)), at(0)).await.unwrap();
    let rename = || change(|authority: &mut Authority| "w".clone_into(&mut authority.name));
    let end = at(0).after(WEEK);
    assert_eq!(store.update_authority(a.id, rename(), before(end)).await, Err(Error::AuthorityExists));
    store.update_authority(a.id, rename(), end).await.unwrap();
    purge(&store, end.after(WEEK)).await;
    assert_eq!(store.authority_named("w", end).await.unwrap().map(|authority| authority.id), Some(a.id));
}

pub(crate) async fn whoever_arrives_is_found_by_his_link_then_by_his_name_then_made(db: Db) {
    let store = db.open().await;
    let authority = authority("a");
    store.register_authority(authority.clone(), at(0)).await.unwrap();
    let (zhang, boss) = (ordinary("zhang"), User { account_type: 1, ..user("boss") });
    let auditor = User { rights: Rights::of_names(["tokens.inspect"]).unwrap(), ..ordinary("auditor") };
    store.create_users(vec![zhang.clone(), boss.clone(), auditor.clone()]).await.unwrap();

    let first = arrival(&authority, "1", Some("zhang"));
    assert_eq!(store.open_session_of(first.clone()).await.unwrap(), zhang);
    let signed_in = store.session_of_ticket(&first.session.ticket, at(10)).await.unwrap().unwrap();
    assert_eq!((signed_in.user.id, signed_in.session.authority), (zhang.id, Some(authority.id)));
    let linked = store.links(LinksOf::User(zhang.id), None, 10).await.unwrap();
    let link = Link { user: zhang.id, origin: LinkOrigin::Name, created_at: at(10) };
    assert_eq!(linked, [Linked { authority: authority.id, subject: "1".to_owned(), user: zhang.clone(), link }]);
    // His link counts from then on, whatever name he has.
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("boss"))).await.unwrap().id, zhang.id);
    assert_eq!(store.open_session_of(arrival(&authority, "1", None)).await.unwrap().id, zhang.id);
    for name in ["boss", "auditor"] {
        assert_eq!(store.open_session_of(arrival(&authority, "2", Some(name))).await, Err(Error::AuthorityUserUnknown), "{name}");
    }
    assert_eq!(store.open_session_of(arrival(&authority, "2", None)).await, Err(Error::AuthorityUserUnknown));
    let newcomer = arrival(&authority, "3", Some("new"));
    let made = store.open_session_of(newcomer.clone()).await.unwrap();
    assert_eq!(Some(&made), newcomer.newcomer.as_ref());
    assert_eq!(store.user_named("new").await.unwrap(), Some(made.clone()));
    assert_eq!(store.links(LinksOf::User(made.id), None, 10).await.unwrap()[0].link.origin, LinkOrigin::Creation);
    let no_newcomer = Arrival { newcomer: None, ..arrival(&authority, "4", Some("newer")) };
    assert_eq!(store.open_session_of(no_newcomer).await, Err(Error::AuthorityUserUnknown));

    let link = Link { user: boss.id, origin: LinkOrigin::Administrator, created_at: at(5) };
    store.link_user(authority.id, "2".to_owned(), link.clone()).await.unwrap();
    assert_eq!(store.open_session_of(arrival(&authority, "2", None)).await.unwrap().id, boss.id);
    store.update_user(zhang.id, change(|user: &mut User| user.account_type = 1), at(6)).await.unwrap();
    assert_eq!(store.open_session_of(arrival(&authority, "1", None)).await, Err(Error::AuthorityUserUnknown), "linked by name alone");
}

pub(crate) async fn settings_of_the_authority_and_of_the_user_are_heeded_at_that_moment(db: Db) {
    let store = db.open().await;
    let authority = authority("a");
    store.register_authority(authority.clone(), at(0)).await.unwrap();
    let (zhang, off) = (ordinary("zhang"), User { enabled: false, ..ordinary("off") });
    store.create_users(vec![zhang, off]).await.unwrap();
    let refused = arrival(&authority, "9", Some("off"));
    assert_eq!(store.open_session_of(refused.clone()).await, Err(Error::UserDisabled));
    assert!(links_of(&store, LinksOf::Authority(authority.id)).await.is_empty(), "a refusal leaves nothing behind");
    assert_eq!(store.session(refused.session.id).await.unwrap(), None);
    set(&store, authority.id, |authority| authority.create_users = false).await;
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("new"))).await, Err(Error::AuthorityUserUnknown));
    set(&store, authority.id, |authority| (authority.link_by_name, authority.create_users) = (false, true)).await;
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("zhang"))).await, Err(Error::AuthorityUserUnknown));
    set(&store, authority.id, |authority| authority.enabled = false).await;
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("new"))).await, Err(Error::AuthorityOff));
    assert_eq!(store.user_named("new").await.unwrap(), None);
    store.delete_authority(authority.id, at(1)).await.unwrap();
    assert_eq!(store.open_session_of(arrival(&authority, "1", Some("new"))).await, Err(Error::AuthorityOff));
}

pub(crate) async fn a_user_of_an_authority_is_one_user_here(db: Db) {
    let store = db.open().await;
    let authority = authority("a");
    store.register_authority(authority.clone(), at(0)).await.unwrap();
    let (zhang, li) = (ordinary("zhang"), ordinary("li"));
    store.create_users(vec![zhang.clone(), li.clone()]).await.unwrap();
    let link = |user: &User, seconds| Link { user: user.id, origin: LinkOrigin::Administrator, created_at: at(seconds) };
    let say = async |id, subject: &str, link| store.link_user(id, subject.to_owned(), link).await;
    say(authority.id, "1", link(&zhang, 1)).await.unwrap();
    let taken = Err(Error::AlreadyExists { name: "subject".into() });
    assert_eq!(say(authority.id, "1", link(&li, 2)).await, taken);
    let anew = say(authority.id, "1", link(&zhang, 3)).await.unwrap();
    assert_eq!(anew, Linked { authority: authority.id, subject: "1".to_owned(), user: zhang.clone(), link: link(&zhang, 3) });
    assert_eq!(store.links(LinksOf::Authority(authority.id), None, 10).await.unwrap(), [anew]);
    assert_eq!(links_of(&store, LinksOf::User(li.id)).await, [""; 0], "a refusal linked him");
    assert_eq!(say(crate::scene::authority("x").id, "1", link(&zhang, 1)).await, Err(Error::NotFound("authority")));
    assert_eq!(say(authority.id, "2", link(&user("x"), 1)).await, Err(Error::NotFound("user")));
    store.unlink_user(authority.id, "1".to_owned()).await.unwrap();
    assert_eq!(store.unlink_user(authority.id, "1".to_owned()).await, Err(Error::NotFound("link")));
    say(authority.id, "1", link(&li, 4)).await.expect("he is free again");
    assert_eq!(links_of(&store, LinksOf::User(zhang.id)).await, [""; 0]);
}

pub(crate) async fn links_go_with_either_end(db: Db) {
    let store = db.open().await;
    let (a, b) = (authority("a"), authority("b"));
    let (zhang, li) = (ordinary("zhang"), ordinary("li"));
    store.create_users(vec![zhang.clone(), li.clone()]).await.unwrap();
    for authority in [&a, &b] {
        store.register_authority(authority.clone(), at(0)).await.unwrap();
        for (subject, user) in [("z", &zhang), ("z2", &zhang), ("l", &li), ("Z", &li)] {
            let link = Link { user: user.id, origin: LinkOrigin::Administrator, created_at: at(0) };
            store.link_user(authority.id, subject.to_owned(), link).await.unwrap();
        }
    }
    assert_eq!(links_of(&store, LinksOf::Authority(a.id)).await, ["Z", "l", "z", "z2"]);
    let rest = store.links(LinksOf::Authority(a.id), Some((a.id, "l".to_owned())), 1).await.unwrap();
    assert_eq!(rest[0].subject, "z");
    let mut of_zhang = Vec::new();
    while let page = store.links(LinksOf::User(zhang.id), of_zhang.last().cloned(), 1).await.unwrap()
        && !page.is_empty()
    {
        of_zhang.extend(page.into_iter().map(|linked| (linked.authority, linked.subject)));
    }
    let mut expected: Vec<_> = [a.id, b.id].into_iter().flat_map(|id| [(id, "z".to_owned()), (id, "z2".to_owned())]).collect();
    expected.sort();
    assert_eq!(of_zhang, expected, "by authority and subject, page by page");
    store.delete_user(zhang.id, at(6)).await.unwrap();
    assert_eq!(links_of(&store, LinksOf::Authority(b.id)).await, ["Z", "l"]);
    store.delete_authority(a.id, at(0)).await.unwrap();
    assert_eq!(links_of(&store, LinksOf::User(li.id)).await, ["Z", "l"]);
    assert_eq!(links_of(&store, LinksOf::Authority(a.id)).await, [""; 0]);
}
