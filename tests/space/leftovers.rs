//! Whatever comes and goes leaves nothing behind. The files are read as they are, so that indexes count, too.

use std::{collections::BTreeMap, path::Path, time::Duration};

use supos_auth::{
    core::{
        clock::Timestamp,
        ids::{AppId, AuthorityId},
        logouts::Outcome,
        model::{Authority, Link, LinkOrigin, Pending, Session, SigningKey},
        seal::Sealed,
        secret::BearerHash,
        usage::{AppUsage, Count},
    },
    store::{
        AppStore as _, AuthorityStore as _, LogoutStore as _, Maintenance as _, OneUse, Refresher, ReplayStore as _, Rotation,
        SessionStore as _, SigningKeyStore as _, UsageStore as _, UserStore as _, sled::SledStore,
    },
};
use tempfile::TempDir;

use crate::stores::{self, HASH, app, code, now, session, user};

/// How many keys of each kind a stopped store has: by the first letter of the key, and what the store knows of itself by name.
pub(crate) fn keys(folder: &Path) -> BTreeMap<String, usize> {
    // What was opened here before lets go of its files a moment later.
    let open = || sled::Config::new().path(folder.join("store")).open();
    let db = (0..500)
        .find_map(|_| {
            open().ok().or_else(|| {
                #[expect(clippy::disallowed_methods, reason = "a file lock gives no event to wait for")]
                std::thread::sleep(Duration::from_millis(20));
                None
            })
        })
        .expect("it opens");
    let mut kinds = BTreeMap::new();
    for key in db.iter().keys() {
        let key = key.expect("a key");
        let kind = if key[0] == b'm' { String::from_utf8_lossy(&key).into_owned() } else { char::from(key[0]).to_string() };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

async fn purge(store: &SledStore, at: Timestamp) {
    while store.purge(at).await.expect("purged") > 0 {}
}

fn authority(number: u8, waits: bool) -> Authority {
    Authority {
        id: AuthorityId::from_bytes([number; 16]),
        name: format!("authority {number}"),
        client_id: "supos".into(),
        client_secret: Sealed::from_bytes(vec![1; 44]),
        authorization_uri: "https://idp.example/a".into(),
        token_uri: "https://idp.example/t".into(),
        userinfo_uri: "https://idp.example/u".into(),
        logout_uri: "https://idp.example/o".into(),
        enabled: !waits,
        pending: waits.then(|| Pending { expires_at: now().after(Duration::from_hours(24)), network: format!("192.0.{number}.0/24") }),
        link_by_name: true,
        create_users: false,
        created_at: now(),
        updated_at: now(),
    }
}

/// A session in which an app gets tokens, rotates them, and, one time in three, has them stolen.
async fn live(store: &SledStore, number: u64) -> Session {
    let (user, shop) = (user(number % 20), app("shop"));
    let opened = session(&user);
    store.open_session(opened.clone(), HASH.into()).await.expect("opened");
    let (used, unused) = (BearerHash::of_code(&format!("used {number}")), BearerHash::of_code(&format!("unused {number}")));
    for hash in [used, unused] {
        store.create_code(hash, code(&opened, &shop), now()).await.expect("made");
    }
    let grant = store.redeem_code(&used, &shop.id, "https://app.example/logout".into(), None, now()).await.expect("redeemed");
    let rotation = Rotation { family: grant.family_id, generation: 0, grace: Duration::from_secs(30) };
    store.rotate_refresh_token(rotation, Refresher::App(shop.id.clone()), None, now()).await.expect("rotated");
    if number.is_multiple_of(3) {
        store.redeem_code(&used, &shop.id, String::new(), None, now()).await.expect_err("it is a replay");
    }
    assert!(
        store
            .use_once(OneUse { hash: BearerHash::of_signature("shop", &number.to_be_bytes()), until: now().after(Duration::from_mins(5)) })
            .await
            .expect("used")
    );
    opened
}

#[tokio::test]
async fn h23_what_has_ended_or_expired_leaves_nothing_behind() {
    let folder = TempDir::new().expect("a folder");
    let store = stores::open(folder.path(), 20).await;
    store.probe().await.expect("probed");
    let shop = AppId::new("shop").expect("an id");

    for number in 0..120 {
        let opened = live(&store, number).await;
        match number % 4 {
            0 => assert!(store.end_session(opened.id, now()).await.expect("ended")),
            1 => assert!(store.end_sessions_of(opened.user, now()).await.expect("ended") > 0),
            // The others expire.
            _ => {}
        }
    }
    // Calls to apps: some are made, some are given up, some are owed for too long.
    for (at, call) in store.due_logouts(1000, now()).await.expect("calls").into_iter().enumerate() {
        let outcome = match at % 3 {
            0 => Outcome::Settled,
            1 => Outcome::GivenUp { error: "gone".into(), at: now() },
            _ => Outcome::Again { error: "busy".into(), at: now().after(Duration::from_mins(1)) },
        };
        store.settle_logout(call.id, outcome).await.expect("settled");
    }
    for number in 1..=4 {
        store.register_authority(authority(number, number > 2), now()).await.expect("registered");
    }
    let link = Link { user: user(3).id, origin: LinkOrigin::Administrator, created_at: now() };
    for number in 1..=2 {
        store.link_user(AuthorityId::from_bytes([number; 16]), "somebody".into(), link.clone()).await.expect("linked");
    }
    store.delete_authority(AuthorityId::from_bytes([1; 16]), now()).await.expect("deleted");
    store.delete_user(user(3).id, now()).await.expect("deleted");
    store.delete_authority(AuthorityId::from_bytes([2; 16]), now()).await.expect("deleted");
    // Of those that wait, one is deleted, and one waits too long.
    store.delete_authority(AuthorityId::from_bytes([3; 16]), now()).await.expect("deleted");
    let usage = AppUsage { undated: Count { times: 1, last_at: now() }, ..AppUsage::default() };
    store.add_usage(vec![(shop.clone(), usage.clone())]).await.expect("counted");
    store.delete_app(&shop).await.expect("deleted");
    store.add_usage(vec![(shop, usage)]).await.expect("passed over");
    for (kid, before) in [("old", None), ("new", Some("old".to_owned()))] {
        let key = SigningKey {
            kid: kid.into(),
            sealed: Sealed::from_bytes(vec![1; 44]),
            x: "x".into(),
            y: "y".into(),
            created_at: now(),
            activates_at: Timestamp::default(),
            retired_at: None,
            expires_at: None,
            forgotten_at: None,
        };
        assert!(store.add_signing_key(key, before).await.expect("added"));
    }
    let soon = now().after(Duration::from_hours(1));
    store.retire_signing_key("old", now(), soon, soon).await.expect("retired");

    let later = now().after(Duration::from_hours(24 * 30));
    purge(&store, later).await;
    while !store.give_up_logouts(later).await.expect("given up").is_empty() {}
    purge(&store, later.after(Duration::from_hours(24 * 30))).await;
    assert_eq!(store.owed_logouts().await.expect("a number"), 0);
    store.flush().await.expect("flushed");
    drop(store);

    let mut left = keys(folder.path());
    left.retain(|kind, _| !kind.starts_with('m'));
    let expected = [("k", 1), ("n", 19), ("u", 19)].map(|(kind, count)| (kind.to_owned(), count));
    assert_eq!(left, expected.into(), "users, their names and one key are all that there is");
}

#[tokio::test]
async fn who_signs_out_leaves_no_note_of_when_his_session_would_have_ended() {
    let folder = TempDir::new().expect("a folder");
    let store = stores::open(folder.path(), 1).await;
    let user = user(0);
    let mut sessions = Vec::new();
    for _ in 0..50 {
        let opened = session(&user);
        store.open_session(opened.clone(), HASH.into()).await.expect("opened");
        store.create_code(BearerHash::of_code(&opened.id.to_string()), code(&opened, &app("shop")), now()).await.expect("made");
        sessions.push(opened);
    }
    // They are looked at when nothing has kept them alive, and were: that is noted anew.
    purge(&store, sessions[0].ends_at()).await;
    for opened in &sessions {
        store.end_session(opened.id, now()).await.expect("ended");
    }
    store.flush().await.expect("flushed");
    drop(store);
    let left = keys(folder.path());
    assert_eq!(left.get("e"), left.get("c"), "{left:?}");
    assert!(["s", "t", "x"].iter().all(|kind| !left.contains_key(*kind)), "{left:?}");
}
