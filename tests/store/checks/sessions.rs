//! Sessions: how they begin, go on and end.

use std::time::Duration;

use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        ids::{FamilyId, SessionId},
        model::{Family, Session, User},
        secret::BearerHash,
    },
    store::{ENDED_AT_ONCE, Kept, NewPassword, SessionPage, record::Record},
};

use crate::{
    database::Db,
    scene::{GRACE, IDLE, LIFETIME, Scene, at, before, change, code, new_hash, new_password, purge, session, user},
};

use super::races::race;

/// How many families are more than end in one step.
const MANY: usize = ENDED_AT_ONCE + 60;

/// So many families of a session, each of which is told at an address of its own.
async fn many_families(scene: &Scene, session: &Session, number: usize) -> Vec<FamilyId> {
    let made = race(scene.handles(), number, |store, number| {
        let (hash, code, app) = (new_hash(), code(&scene.app, session.id, at(1)), scene.app.id.clone());
        async move {
            store.create_code(hash, code, at(1)).await?;
            store.redeem_code(&hash, &app, format!("/out?{number}"), None, at(1)).await
        }
    });
    made.await.into_iter().map(|grant| grant.unwrap().family_id).collect()
}

pub(crate) async fn a_session_is_opened_with_the_password_that_is_in_force(db: Db) {
    let scene = Scene::new(&db).await;
    let bare = User { password_hash: None, ..user("bare") };
    let off = User { enabled: false, ..user("off") };
    scene.store.create_users(vec![bare.clone(), off.clone()]).await.unwrap();
    let open = async |user: &User, hash: &str| {
        let session = session(user.id, at(1));
        let opened = scene.store.open_session(session.clone(), hash.to_owned()).await;
        assert_eq!(scene.is_signed_in(&session, at(1)).await, opened.is_ok(), "{}", user.name);
        assert_eq!(scene.store.session(session.id).await.unwrap().is_some(), opened.is_ok(), "{}", user.name);
        opened
    };
    assert_eq!(open(&scene.user, "hash of ann's").await, Ok(scene.user.clone()));
    assert_eq!(open(&scene.user, "hash of an old one").await, Err(Error::WrongPassword));
    assert_eq!(open(&bare, "").await, Err(Error::WrongPassword));
    assert_eq!(open(&user("nobody"), "x").await, Err(Error::WrongPassword));
    assert_eq!(open(&off, "hash of off's").await, Err(Error::UserDisabled));
    assert_eq!(open(&off, "wrong").await, Err(Error::WrongPassword), "who does not know the password learns nothing");
}

pub(crate) async fn a_session_is_read_back_as_it_was_opened(db: Db) {
    let scene = Scene::new(&db).await;
    let signed_in = scene.signed_in(&scene.session, at(1)).await.unwrap();
    assert_eq!((&*signed_in.session, &*signed_in.user), (&scene.session, &scene.user));
    assert_eq!(scene.store.session(scene.session.id).await.unwrap(), Some(scene.session.clone()));
    assert_eq!(scene.store.session_of_ticket(&BearerHash::of_ticket("another"), at(1)).await.unwrap(), None);
    assert_eq!(scene.store.session(session(scene.user.id, at(1)).id).await.unwrap(), None);
}

pub(crate) async fn a_session_ends_at_its_limits_to_the_millisecond(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    let ends = async |scene: &Scene, session: &Session, end: Timestamp| {
        assert!(scene.is_signed_in(session, before(end)).await && scene.is_good(family, before(end)).await);
        assert!(!scene.is_signed_in(session, end).await && !scene.is_good(family, end).await);
        assert_eq!(scene.sessions(None, before(end)).await, [session.id]);
        assert_eq!(scene.sessions(Some(session.user), end).await, []);
    };
    let mut idle_end = at(0).after(IDLE);
    ends(&scene, &scene.session, idle_end).await;
    // Whatever keeps it alive does so for as long again, and no longer than its whole lifetime.
    let whole_end = at(0).after(LIFETIME);
    let (mut generation, mut round) = (0, 0);
    while idle_end < whole_end {
        let now = before(idle_end);
        match round % 3 {
            0 => drop(scene.code(now).await),
            1 => {
                scene.rotate(family, generation, now).await.unwrap();
                generation += 1;
            }
            _ => drop(scene.family(now).await),
        }
        round += 1;
        idle_end = now.after(IDLE);
        ends(&scene, &scene.session, idle_end.min(whole_end)).await;
    }
    let late = scene.store.create_code(crate::scene::new_hash(), crate::scene::code(&scene.app, scene.session.id, whole_end), whole_end);
    assert_eq!(late.await, Err(Error::CredentialRefused));
}

pub(crate) async fn a_clock_that_is_behind_does_not_shorten_a_session(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(500)).await;
    let end = at(500).after(IDLE);
    scene.code(at(100)).await;
    scene.family(at(100)).await;
    scene.rotate(family, 0, at(100)).await.unwrap();
    assert!(scene.is_signed_in(&scene.session, before(end)).await);
}

pub(crate) async fn a_repeated_answer_keeps_the_session_alive_too(db: Db) {
    let scene = Scene::new(&db).await;
    let family = scene.family(at(0)).await;
    scene.rotate(family, 0, at(0)).await.unwrap();
    let now = before(at(0).after(GRACE));
    scene.rotate(family, 0, now).await.unwrap();
    assert!(scene.is_signed_in(&scene.session, before(now.after(IDLE))).await);
}

pub(crate) async fn live_sessions_are_listed_page_by_page_with_the_apps_that_hold_tokens(db: Db) {
    let scene = Scene::new(&db).await;
    let (bob, other) = (scene.user("bob").await, scene.app("other").await);
    let mut sessions = vec![scene.session.clone()];
    for number in 0..6 {
        sessions.push(scene.session_of(if number < 4 { &scene.user } else { &bob }, at(number)).await);
    }
    // Several families of an app are one app; one that was ended by a replay holds no tokens.
    for app in [&other, &scene.app, &scene.app] {
        scene.family_of(&sessions[1], app, "/out", at(1)).await;
    }
    let replayed = scene.code_of(&sessions[2], &scene.app, at(1)).await;
    scene.redeem(&replayed, at(1)).await.unwrap();
    assert_eq!(scene.redeem(&replayed, at(1)).await, Err(Error::CodeReplayed));
    let ended = sessions.remove(3);
    scene.store.end_session(ended.id, at(2)).await.unwrap();
    let (with_tokens, without) = (sessions[1].id, sessions[2].id);
    sessions.sort_by_key(|session| session.id);
    for user in [None, Some(scene.user.id), Some(bob.id), Some(user("nobody").id)] {
        let expected: Vec<_> = sessions.iter().filter(|session| user.is_none_or(|user| session.user == user)).map(|s| s.id).collect();
        for limit in 1..8 {
            let (mut seen, mut after) = (Vec::new(), None);
            loop {
                let SessionPage { sessions, next } = scene.store.sessions(user, after, limit, at(6)).await.unwrap();
                assert!(sessions.len() <= limit);
                for (signed_in, apps) in sessions {
                    let id = signed_in.session.id;
                    assert_eq!(signed_in.user.id, signed_in.session.user);
                    let held = if id == with_tokens { vec![other.id.clone(), scene.app.id.clone()] } else { vec![] };
                    assert_eq!(apps, held, "{}", id == without);
                    seen.push(id);
                }
                match next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, expected, "{limit} at a time");
        }
    }
}

pub(crate) async fn the_end_of_a_session_is_the_end_of_its_codes_and_families(db: Db) {
    let scene = Scene::new(&db).await;
    let second = scene.session_of(&scene.user, at(0)).await;
    let (family, spare, used) = (scene.family(at(1)).await, scene.code(at(1)).await, scene.code(at(1)).await);
    scene.redeem(&used, at(1)).await.unwrap();
    let seconds_family = scene.family_of(&second, &scene.app, "/out", at(1)).await;
    assert!(scene.store.end_session(scene.session.id, at(2)).await.unwrap());
    assert!(!scene.store.end_session(scene.session.id, at(2)).await.unwrap(), "there was none any more");
    assert!(!scene.store.end_session(session(scene.user.id, at(0)).id, at(2)).await.unwrap());
    assert!(!scene.is_signed_in(&scene.session, at(2)).await);
    assert_eq!(scene.store.session(scene.session.id).await.unwrap(), None);
    assert!(!scene.is_good(family, at(2)).await);
    assert_eq!(scene.rotate(family, 0, at(2)).await, Err(Error::RefreshTokenRefused));
    for code in [&spare, &used] {
        assert_eq!(scene.redeem(code, at(2)).await, Err(Error::CodeRefused));
    }
    let late = scene.store.create_code(crate::scene::new_hash(), crate::scene::code(&scene.app, scene.session.id, at(2)), at(2)).await;
    assert_eq!(late, Err(Error::CredentialRefused));
    // Other sessions of the user go on.
    assert_eq!(scene.sessions(None, at(2)).await, [second.id]);
    assert!(scene.is_good(seconds_family, at(2)).await);
}

pub(crate) async fn all_sessions_of_a_user_end_and_nobody_elses(db: Db) {
    let scene = Scene::new(&db).await;
    let bob = scene.user("bob").await;
    let bobs = scene.session_of(&bob, at(0)).await;
    for _ in 0..3 {
        scene.session_of(&scene.user, at(0)).await;
    }
    let family = scene.family(at(1)).await;
    assert_eq!(scene.store.end_sessions_of(scene.user.id, at(2)).await, Ok(4));
    assert_eq!(scene.store.end_sessions_of(scene.user.id, at(2)).await, Ok(0));
    assert_eq!(scene.store.end_sessions_of(user("nobody").id, at(2)).await, Ok(0));
    assert!(!scene.is_good(family, at(2)).await);
    assert_eq!(scene.sessions(None, at(2)).await, [bobs.id]);
    assert_eq!(scene.told().await.len(), 1);
}

pub(crate) async fn whatever_ends_a_session_owes_its_apps_a_call_each(db: Db) {
    let scene = Scene::new(&db).await;
    let (other, silent) = (scene.app("other").await, scene.app("silent").await);
    for end in ["sign-out", "all of a user", "a disabled user", "a limit"] {
        let session = scene.session_of(&scene.user, at(10)).await;
        // The same address is called once, however many families leave it. What is empty or on no registered origin is never called.
        for (app, logout_uri) in [
            (&scene.app, "/out"),
            (&scene.app, "/out"),
            (&scene.app, "https://out.shop.example/logout"),
            (&other, "/out"),
            (&silent, ""),
            (&silent, "https://elsewhere.example/out"),
            (&silent, "//elsewhere.example/out"),
        ] {
            scene.family_of(&session, app, logout_uri, at(10)).await;
        }
        assert_eq!(scene.told().await, [], "{end}: nothing is owed yet");
        let ended_at = match end {
            "sign-out" => {
                assert!(scene.store.end_session(session.id, at(20)).await.unwrap());
                at(20)
            }
            "all of a user" => {
                scene.store.end_sessions_of(scene.user.id, at(21)).await.unwrap();
                at(21)
            }
            "a disabled user" => {
                scene.store.update_user(scene.user.id, change(|user: &mut User| user.enabled = false), at(22)).await.unwrap();
                scene.store.update_user(scene.user.id, change(|user: &mut User| user.enabled = true), at(22)).await.unwrap();
                at(22)
            }
            _ => {
                let end = at(10).after(IDLE).after(std::time::Duration::from_millis(1));
                purge(&scene.store, end).await;
                end
            }
        };
        let mut told = scene.told().await;
        told.retain(|(_, uri)| !uri.is_empty());
        let expected =
            [("other", "https://other.example/out"), ("shop", "https://out.shop.example/logout"), ("shop", "https://shop.example/out")];
        assert_eq!(told, expected.map(|(app, uri)| (app.to_owned(), uri.to_owned())), "{end}");
        for owed in scene.owed().await {
            let app = if owed.app == other.id { &other } else { &scene.app };
            assert_eq!((owed.incarnation, owed.user, owed.session), (app.incarnation, scene.user.id, session.id), "{end}");
            assert_eq!((owed.created_at, owed.next_try_at, owed.tries), (ended_at, ended_at, 0), "{end}");
            assert_eq!((owed.last_error.as_str(), owed.given_up_at), ("", None), "{end}");
            scene.store.settle_logout(owed.id, supos_auth::core::logouts::Outcome::Settled).await.unwrap();
        }
    }
}

pub(crate) async fn an_app_whose_family_was_ended_by_a_replay_is_told_too(db: Db) {
    let scene = Scene::new(&db).await;
    let by_code = scene.code(at(1)).await;
    scene.redeem(&by_code, at(1)).await.unwrap();
    assert_eq!(scene.redeem(&by_code, at(2)).await, Err(Error::CodeReplayed));
    let other = scene.app("other").await;
    let by_refresh = scene.family_of(&scene.session, &other, "/bye", at(1)).await;
    let rotation = |generation| supos_auth::store::Rotation { family: by_refresh, generation, grace: GRACE };
    let by = || supos_auth::store::Refresher::App(other.id.clone());
    for generation in 0..2 {
        scene.store.rotate_refresh_token(rotation(generation), by(), None, at(2)).await.unwrap();
    }
    assert_eq!(scene.store.rotate_refresh_token(rotation(0), by(), None, at(2)).await, Err(Error::RefreshTokenReplayed));
    assert_eq!(scene.told().await, [], "the session has not ended");
    scene.store.end_session(scene.session.id, at(3)).await.unwrap();
    let expected = [("other", "https://other.example/bye"), ("shop", "https://shop.example/out")];
    assert_eq!(scene.told().await, expected.map(|(app, uri)| (app.to_owned(), uri.to_owned())));
}

pub(crate) async fn a_session_of_more_than_ends_in_one_step_is_dead_at_once_and_gone_after_a_purge(db: Db) {
    let scene = Scene::new(&db).await;
    let families = many_families(&scene, &scene.session, MANY).await;
    let id = scene.session.id;
    assert_eq!(scene.store.end_session(id, at(3)).await, Ok(true));
    for family in &families {
        assert!(!scene.is_good(*family, at(3)).await, "{family:?}");
    }
    assert!(!scene.is_signed_in(&scene.session, at(3)).await);
    assert_eq!(scene.store.session(id).await, Ok(None));
    assert!(scene.sessions(None, at(3)).await.is_empty() && scene.sessions(Some(scene.user.id), at(3)).await.is_empty());
    let more = scene.store.create_code(new_hash(), code(&scene.app, id, at(3)), at(3)).await;
    assert_eq!(more, Err(Error::CredentialRefused));
    assert!(scene.store.overdue(at(4)).await.unwrap() < Duration::from_secs(2), "it seems long overdue");
    assert_eq!(scene.store.end_session(id, at(4)).await, Ok(false), "it has ended already");
    assert_eq!(scene.store.end_sessions_of(scene.user.id, at(4)).await, Ok(0), "it has ended already");
    purge(&scene.store, at(5)).await;
    assert_eq!(scene.owed().await.len(), MANY, "each app hears of it where it said");
}

pub(crate) async fn a_user_with_more_than_ends_in_one_step_is_deleted_whole(db: Db) {
    let scene = Scene::new(&db).await;
    many_families(&scene, &scene.session, MANY).await;
    scene.store.delete_user(scene.user.id, at(3)).await.unwrap();
    assert_eq!(scene.store.user(scene.user.id).await, Ok(None));
    assert_eq!(scene.store.session(scene.session.id).await, Ok(None));
    assert_eq!(scene.owed().await.len(), MANY, "each app hears of it where it said");
    assert_eq!(scene.store.purge(at(3)).await, Ok(0), "something of his session is left");
}

pub(crate) async fn a_user_whose_sessions_take_several_steps_to_end_is_deleted_whole(db: Db) {
    let scene = Scene::new(&db).await;
    let family = Family {
        app: scene.app.id.clone(),
        incarnation: scene.app.incarnation,
        scope: String::new(),
        logout_uri: "/out".into(),
        redirect_origin: "https://shop.example".into(),
        generation: 0,
        rotated_at: at(1),
    };
    // So many of each that there comes a step which ends all that it has looked at, and has not looked at all.
    let first = Session { id: SessionId::from_bytes([0; 16]), ..session(scene.user.id, at(1)) };
    let others = (1..ENDED_AT_ONCE * 27 / 10).map(|_| session(scene.user.id, at(1)));
    for (session, families) in [(first, ENDED_AT_ONCE * 3 / 2)].into_iter().chain(others.map(|other| (other, 1))) {
        let of = session.id;
        let families = (0..u32::try_from(families).unwrap()).map(|number| Record::Family { session: of, number, family: family.clone() });
        scene.store.import([Record::Session(session)].into_iter().chain(families).collect()).await.unwrap();
    }
    scene.store.delete_user(scene.user.id, at(3)).await.unwrap();
    assert_eq!(scene.store.user(scene.user.id).await, Ok(None));
    assert_eq!(scene.store.purge(at(3)).await, Ok(0), "something of his sessions is left");
}

pub(crate) async fn all_sessions_of_a_user_end_however_many_there_are(db: Db) {
    let scene = Scene::new(&db).await;
    let hash = scene.user.password_hash.clone().unwrap();
    let open = async |number: usize| {
        let opened = race(scene.handles(), number, |store, _| {
            let (session, hash) = (session(scene.user.id, at(1)), hash.clone());
            async move { store.open_session(session.clone(), hash).await.map(|_| session) }
        });
        opened.await.into_iter().map(Result::unwrap).collect::<Vec<_>>()
    };
    let live = async || {
        let page = scene.store.sessions(Some(scene.user.id), None, 2 * MANY, at(3)).await.unwrap();
        page.sessions.iter().map(|(signed_in, _)| signed_in.session.id).collect::<Vec<_>>()
    };
    open(MANY - 1).await;
    assert_eq!(scene.store.end_sessions_of(scene.user.id, at(2)).await, Ok(MANY));
    assert!(live().await.is_empty());

    let opened = open(MANY).await;
    let kept = opened[MANY / 2].id;
    let password = NewPassword { replaces: Some("another".into()), ..new_password(&hash, Kept::One(kept)) };
    assert_eq!(scene.store.set_password(scene.user.id, password, at(2)).await, Err(Error::WrongPassword));
    assert_eq!(live().await.len(), MANY, "a refusal has ended some");
    scene.store.set_password(scene.user.id, new_password(&hash, Kept::One(kept)), at(2)).await.unwrap();
    assert_eq!(live().await, [kept]);

    open(MANY).await;
    scene.store.update_user(scene.user.id, change(|user: &mut User| user.enabled = false), at(2)).await.unwrap();
    scene.store.update_user(scene.user.id, change(|user: &mut User| user.enabled = true), at(2)).await.unwrap();
    assert!(live().await.is_empty(), "one has come back with its user");

    // Whoever disabled him was cut short before this one had ended.
    scene.store.update_user(scene.user.id, change(|user: &mut User| user.enabled = false), at(2)).await.unwrap();
    scene.store.import(vec![Record::Session(session(scene.user.id, at(1)))]).await.unwrap();
    scene.store.update_user(scene.user.id, change(|user: &mut User| user.enabled = true), at(2)).await.unwrap();
    assert!(live().await.is_empty(), "one has come back with its user");

    open(MANY).await;
    scene.store.delete_user(scene.user.id, at(2)).await.unwrap();
    assert!(live().await.is_empty());
    assert_eq!(scene.store.user(scene.user.id).await, Ok(None));
}

pub(crate) async fn an_app_is_told_once_though_sessions_take_several_steps_to_end(db: Db) {
    let scene = Scene::new(&db).await;
    // Each fits into a step, and the two do not.
    let others: Vec<Session> = vec![scene.session_of(&scene.user, at(1)).await, scene.session_of(&scene.user, at(1)).await];
    many_families(&scene, &scene.session, ENDED_AT_ONCE - 3).await;
    for session in &others {
        for _ in 0..4 {
            scene.family_of(session, &scene.app, "/out", at(1)).await;
        }
    }
    assert_eq!(scene.store.end_sessions_of(scene.user.id, at(2)).await, Ok(3));
    purge(&scene.store, at(3)).await;
    assert_eq!(scene.owed().await.len(), ENDED_AT_ONCE - 3 + 2);
}
