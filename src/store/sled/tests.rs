use super::*;
use crate::{
    core::{
        ids::{AppId, AuthorityId, Incarnation, LogoutId, SessionId, UserId},
        logouts::OwedLogout,
        model::{Authority, Link, LinkOrigin, Session, User},
        rights::Rights,
        seal::Sealed,
        secret::BearerHash,
    },
    store::{AuthorityStore as _, LinksOf, LogoutStore as _, SessionStore as _, Transfer as _, record::Record},
};

/// What is no record of any kind.
const UNREADABLE: &[u8] = &[0xc1];

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000).after(Duration::from_secs(seconds))
}

/// One of many users, whose ids are in no order.
pub(super) fn user(number: u64) -> User {
    let mut id = [1; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    User {
        id: UserId::from_bytes(id),
        name: format!("user-{number}"),
        person_code: String::new(),
        company_code: String::new(),
        account_type: 0,
        enabled: true,
        password_hash: None,
        password_change_required: false,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
        rights: Rights::default(),
    }
}

fn session(number: u8) -> Session {
    Session {
        id: SessionId::from_bytes([number; 16]),
        user: user(1).id,
        ticket: BearerHash::of_ticket(&number.to_string()),
        created_at: at(0),
        last_used_at: at(0),
        expires_at: at(100),
        idle_lifetime: Duration::from_secs(100),
        next_family: 0,
        authority: None,
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_looked_at_again_and_keeps_nothing_else_from_being_purged() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let (broken, other) = (session(1), session(2));
    let sessions = [&broken, &other].map(|session| Record::Session(session.clone()));
    store.import([vec![Record::User(user(1))], sessions.into()].concat()).await.unwrap();
    let key = keys::session(broken.id);
    let good = store.tree().insert(&key, UNREADABLE).unwrap().unwrap();
    let signing_key = keys::signing_key("broken");
    for key in [signing_key.as_slice(), keys::LATEST] {
        store.tree().insert(key, UNREADABLE).unwrap();
    }

    assert_eq!(store.purge(at(200)).await, Ok(2));
    assert_eq!(store.session(other.id).await, Ok(None));
    assert_eq!(store.latest().await, Ok(at(200)));
    assert!(store.tree().contains_key(&signing_key).unwrap());
    assert_eq!(store.purge(at(200)).await, Ok(0), "it is looked at again at once, over and over");

    store.tree().insert(&key, good).unwrap();
    assert_eq!(store.purge(at(200).after(Duration::from_hours(2))).await, Ok(1));
    assert_eq!(store.session(broken.id).await, Ok(None), "it is left for ever");
}

#[tokio::test]
async fn the_latest_time_goes_back_with_a_clock_that_was_far_ahead_and_with_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    for (now, latest) in [(at(1000), at(1000)), (at(400), at(1000)), (at(500_000), at(500_000)), (at(1100), at(1100))] {
        store.purge(now).await.unwrap();
        assert_eq!(store.latest().await, Ok(latest));
    }
}

#[tokio::test]
async fn a_call_that_cannot_be_read_keeps_no_other_from_being_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let owed = [0, 1, 1_000_000].map(|seconds| OwedLogout {
        id: LogoutId::at(at(seconds)).unwrap(),
        app: AppId::new("shop").unwrap(),
        incarnation: Incarnation::from_bytes([1; 16]),
        uri: "https://app.example/logout".into(),
        user: user(1).id,
        session: session(1).id,
        created_at: at(seconds),
        next_try_at: at(seconds),
        tries: 0,
        last_error: String::new(),
        given_up_at: None,
    });
    store.import(owed.iter().cloned().map(Record::OwedLogout).collect()).await.unwrap();
    store.tree().insert(keys::owed(owed[0].id), UNREADABLE).unwrap();
    assert_eq!(store.give_up_logouts(at(1_000_000)).await, Ok(vec![owed[1].clone()]));
    assert_eq!(store.give_up_logouts(at(1_000_000)).await, Ok(vec![]));
}

#[tokio::test]
async fn an_authority_with_many_links_is_off_while_they_go_and_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    let authority = Authority {
        id: AuthorityId::from_bytes([3; 16]),
        name: "elsewhere".into(),
        client_id: "supos".into(),
        client_secret: Sealed::from_bytes(vec![1; 44]),
        authorization_uri: "https://idp.example/a".into(),
        token_uri: "https://idp.example/t".into(),
        userinfo_uri: "https://idp.example/u".into(),
        logout_uri: "https://idp.example/o".into(),
        enabled: true,
        pending: None,
        link_by_name: true,
        create_users: false,
        created_at: at(0),
        updated_at: at(0),
    };
    store.import(vec![Record::User(user(1)), Record::Authority(authority.clone())]).await.unwrap();
    let link = Link { user: user(1).id, origin: LinkOrigin::Administrator, created_at: at(0) };
    for hundred in 0..25 {
        let links =
            (0..100).map(|number| Record::Link { authority: authority.id, subject: format!("{hundred}-{number}"), link: link.clone() });
        store.import(links.collect()).await.unwrap();
    }
    let left = async |of| store.links(of, None, 5000).await.unwrap().len();
    let (id, some) = (authority.id, authority.clone());
    assert_eq!(store.run(move |txn| authorities::remove_some(txn, some)).await, Ok(false));
    assert_eq!((left(LinksOf::Authority(id)).await, left(LinksOf::User(user(1).id)).await), (1500, 1500));
    assert_eq!(store.authority(id, at(1)).await.unwrap().map(|authority| authority.enabled), Some(false));

    store.delete_authority(id, at(1)).await.unwrap();
    assert_eq!((left(LinksOf::Authority(id)).await, left(LinksOf::User(user(1).id)).await), (0, 0));
    assert_eq!(store.delete_authority(id, at(1)).await, Err(Error::NotFound("authority")));
    store.register_authority(authority, at(1)).await.expect("its name is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_callers_wait_what_the_service_does_by_itself_has_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SledStore::open(folder.path()).unwrap());
    // Holds up the writer, as a slow disk does.
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (held_up, is_held_up) = tokio::sync::oneshot::channel();
    let own = Arc::clone(&store);
    let work = tokio::spawn(async move {
        let hold = move |_: &sled::Tree| (held_up.send(()).is_ok() && held.recv().is_ok(), writer::Wrote::Nothing);
        own.writer.between_steps(hold).await
    });
    is_held_up.await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    let full = loop {
        let mut step = Box::pin(store.writer.run(|_| Ok(())));
        let polled = std::future::poll_fn(|context| std::task::Poll::Ready(step.as_mut().poll(context))).await;
        if let std::task::Poll::Ready(refused) = polled {
            break refused;
        }
    };
    assert!(matches!(full, Err(Error::Busy { .. })), "{full:?}");
    for what in ["purge", "probe", "flush"] {
        let store = Arc::clone(&store);
        callers.spawn(async move {
            match what {
                "purge" => store.purge(at(0)).await.map(|_| ()),
                "probe" => store.probe().await,
                _ => store.flush().await,
            }
        });
    }
    let_go.send(()).unwrap();
    assert_eq!(work.await.unwrap(), Ok(true));
    assert_eq!(callers.join_all().await, [Ok(()), Ok(()), Ok(())]);
}

#[test]
fn a_store_that_new_files_could_not_take_the_place_of_is_refused_with_what_to_do() {
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join(STORE)).unwrap();
    let refused = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("a link") && refused.contains("--data-dir"), "{refused}");
}

#[test]
fn a_store_without_its_log_is_refused_and_not_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    fs::remove_file(folder.path().join("store/db")).unwrap();
    let refused = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("is not there. Restore it from a backup"), "{refused}");
    assert!(!folder.path().join("store/db").exists());
}

#[test]
fn a_restore_that_was_killed_or_failed_makes_room_for_no_empty_store() {
    let folder = tempfile::tempdir().unwrap();
    let unfinished = folder.path().join("restore.unfinished");
    fs::create_dir_all(unfinished.join("store")).unwrap();
    fs::write(unfinished.join("store/db"), [1; 1000]).unwrap();
    for open in [SledStore::open, SledStore::open_existing] {
        open(folder.path()).unwrap_err();
    }
    let refused = SledStore::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("a restore into") && refused.contains("give it again") && refused.contains("restore.unfinished"), "{refused}");
    assert!(unfinished.join("store/db").exists() && !folder.path().join(STORE).exists());

    // One that fails by itself leaves nothing but that it was there, and the next one goes on from there. It is there all the time.
    let inode = fs::metadata(&unfinished).unwrap().ino();
    drop(NewStore::begin(folder.path()).unwrap());
    assert_eq!(fs::read_dir(&unfinished).unwrap().count(), 0);
    assert_eq!(fs::metadata(&unfinished).unwrap().ino(), inode);
    SledStore::open(folder.path()).unwrap_err();
    NewStore::begin(folder.path()).unwrap().finish().unwrap();
    assert!(!unfinished.exists());
    drop(SledStore::open(folder.path()).unwrap());
    fs::remove_dir_all(folder.path().join(STORE)).unwrap();

    // The last thing that a restore does is to move its store away.
    drop(SledStore::open(folder.path()).unwrap());
    fs::create_dir(&unfinished).unwrap();
    drop(SledStore::open(folder.path()).unwrap());
    assert!(!unfinished.exists());
}
