//! Races: what must hold when many ask at once, of one handle or of two.

use std::collections::HashSet;

use supos_auth::{
    core::{
        Error,
        model::{App, Authority, Grant, Link, LinkOrigin, User},
        usage::{AppUsage, Count},
    },
    store::{Kept, LinksOf, MAX_PENDING, MAX_PENDING_OF_NETWORK, NewPassword, OneUse, Refresher, Rotation},
};
use tokio::task::JoinSet;

use super::authorities::waiting;
use crate::{
    database::{Db, Handle, open_two},
    scene::{GRACE, Scene, administrator, app, app_id, arrival, at, authority, change, code, new_hash, new_password, session, user},
};

/// How many ask at once.
const CALLERS: usize = 40;
/// How often each race is run.
const ROUNDS: usize = 20;

/// Asks so often at once, of one handle after the other, and gives the answers. Who is sent away because there is too much to do asks
/// again: nothing was begun for him.
pub(super) async fn race<T, F>(handles: [&Handle; 2], callers: usize, ask: impl Fn(Handle, usize) -> F) -> Vec<Result<T, Error>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    let mut asked = JoinSet::new();
    let begin = |number: usize| {
        let answer = ask(handles[number % 2].clone(), number);
        async move { (number, answer.await) }
    };
    for number in 0..callers {
        asked.spawn(begin(number));
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer.unwrap() {
            (number, Err(Error::Busy { .. })) => drop(asked.spawn(begin(number))),
            (_, answer) => answers.push(answer),
        }
    }
    answers
}

fn count<T, E>(outcomes: &[Result<T, E>]) -> usize {
    outcomes.iter().filter(|outcome| outcome.is_ok()).count()
}

impl Scene {
    pub(super) fn handles(&self) -> [&Handle; 2] {
        [&self.store, &self.other]
    }
}

pub(crate) async fn a_code_redeemed_by_many_at_once_has_one_winner(db: Db) {
    race_for_codes(db, ROUNDS).await;
}

pub(crate) async fn race_for_codes(db: Db, rounds: usize) {
    let scene = Scene::new(&db).await;
    for _ in 0..rounds {
        let session = scene.session_of(&scene.user, at(1)).await;
        let code = scene.code_of(&session, &scene.app, at(1)).await;
        let outcomes = race(scene.handles(), CALLERS, |store, number| {
            // Some of them are another app.
            let app = if number % 8 == 7 { app_id("other") } else { scene.app.id.clone() };
            async move { store.redeem_code(&code, &app, "/out".to_owned(), None, at(2)).await }
        })
        .await;
        assert_eq!(count(&outcomes), 1, "{outcomes:?}");
        for outcome in &outcomes {
            match outcome {
                Ok(grant) => assert!(!scene.is_good(grant.family_id, at(2)).await, "a replay left the family alive"),
                Err(Error::CodeReplayed | Error::CodeRefused) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
        assert!(outcomes.iter().filter(|outcome| **outcome == Err(Error::CodeReplayed)).count() >= CALLERS / 2);
        scene.store.end_session(session.id, at(2)).await.unwrap();
    }
}

pub(crate) async fn a_refresh_token_used_by_many_at_once_has_one_successor(db: Db) {
    race_for_refresh(db, ROUNDS).await;
}

pub(crate) async fn race_for_refresh(db: Db, rounds: usize) {
    let scene = Scene::new(&db).await;
    let mut family = scene.family(at(1)).await;
    for round in 0..rounds {
        if round % 100 == 99 {
            family = scene.family(at(1)).await;
        }
        let generation = scene.store.grant(family, at(1)).await.unwrap().unwrap().family.generation;
        let outcomes = race(scene.handles(), CALLERS, |store, _| {
            let (rotation, by) = (Rotation { family, generation, grace: GRACE }, Refresher::App(scene.app.id.clone()));
            async move { store.rotate_refresh_token(rotation, by, None, at(1)).await }
        })
        .await;
        for outcome in outcomes {
            let granted: Grant = outcome.unwrap();
            assert_eq!((granted.family.generation, granted.family_id), (generation + 1, family));
        }
        let after = scene.store.grant(family, at(1)).await.unwrap().unwrap().family;
        assert_eq!(after.generation, generation + 1);
    }
}

pub(crate) async fn a_refresh_token_used_by_many_at_once_works_once_where_there_is_no_grace(db: Db) {
    let scene = Scene::new(&db).await;
    for _ in 0..ROUNDS {
        let family = scene.family(at(1)).await;
        let outcomes = race(scene.handles(), CALLERS, |store, _| {
            let (rotation, by) =
                (Rotation { family, generation: 0, grace: std::time::Duration::ZERO }, Refresher::App(scene.app.id.clone()));
            async move { store.rotate_refresh_token(rotation, by, None, at(1)).await }
        })
        .await;
        assert_eq!(count(&outcomes), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Err(Error::RefreshTokenReplayed)).count(), 1, "{outcomes:?}");
        assert!(!scene.is_good(family, at(1)).await);
    }
}

pub(crate) async fn something_used_up_by_many_at_once_is_given_to_one(db: Db) {
    race_to_use_once(db, ROUNDS).await;
}

pub(crate) async fn race_to_use_once(db: Db, rounds: usize) {
    let [store, other] = open_two(&db).await;
    for _ in 0..rounds {
        let hash = new_hash();
        let outcomes =
            race([&store, &other], CALLERS, |store, _| async move { store.use_once(OneUse { hash, until: at(1000) }).await }).await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(true)).count(), 1);
    }
}

pub(crate) async fn a_sign_out_beside_redeeming_and_refreshing_leaves_nothing_alive(db: Db) {
    let scene = Scene::new(&db).await;
    for round in 0..ROUNDS {
        let session = scene.session_of(&scene.user, at(1)).await;
        let family = scene.family_of(&session, &scene.app, "/out", at(1)).await;
        let mut codes = Vec::new();
        for _ in 0..8 {
            codes.push(scene.code_of(&session, &scene.app, at(1)).await);
        }
        let signed_out_by = round % CALLERS;
        let outcomes = race(scene.handles(), CALLERS, |store, number| {
            let (app, record) = (scene.app.id.clone(), scene.app.clone());
            let (spare, session) = (codes[number % codes.len()], session.id);
            async move {
                if number == signed_out_by {
                    assert!(store.end_session(session, at(2)).await?);
                    return Ok(None);
                }
                Ok(match number % 3 {
                    0 => store.redeem_code(&spare, &app, "/out".to_owned(), None, at(2)).await.ok().map(|grant| grant.family_id),
                    1 => {
                        let rotation = Rotation { family, generation: 0, grace: GRACE };
                        store.rotate_refresh_token(rotation, Refresher::App(app), None, at(2)).await.ok().map(|grant| grant.family_id)
                    }
                    _ => {
                        let _ = store.create_code(new_hash(), code(&record, session, at(2)), at(2)).await;
                        None
                    }
                })
            }
        })
        .await;
        for family in outcomes.into_iter().filter_map(Result::unwrap) {
            assert!(!scene.is_good(family, at(2)).await, "a family outlived its session");
        }
        assert_eq!(scene.store.session(session.id).await.unwrap(), None, "a session came back");
        assert!(!scene.is_signed_in(&session, at(2)).await);
    }
    // One call for each session, whatever came to it beside its end.
    assert_eq!(scene.owed().await.len(), ROUNDS);
}

pub(crate) async fn a_session_is_ended_by_one_of_many(db: Db) {
    let scene = Scene::new(&db).await;
    for _ in 0..ROUNDS {
        let session = scene.session_of(&scene.user, at(1)).await;
        scene.family_of(&session, &scene.app, "/out", at(1)).await;
        let outcomes = race(scene.handles(), CALLERS, |store, _| async move { store.end_session(session.id, at(2)).await }).await;
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Ok(true)).count(), 1);
    }
    assert_eq!(scene.owed().await.len(), ROUNDS, "its app is told once");
}

pub(crate) async fn who_is_disabled_or_gets_another_password_while_he_signs_in_is_not_in(db: Db) {
    let scene = Scene::new(&db).await;
    for round in 0..ROUNDS {
        let ann = user(&format!("ann {round}"));
        scene.store.create_users(vec![ann.clone()]).await.unwrap();
        let at_once = round % CALLERS;
        race(scene.handles(), CALLERS, |store, number| {
            let ann = ann.clone();
            async move {
                if number == at_once && round % 2 == 0 {
                    store.update_user(ann.id, change(|user: &mut User| user.enabled = false), at(1)).await
                } else if number == at_once {
                    store.set_password(ann.id, new_password("another", Kept::None), at(1)).await
                } else {
                    store.open_session(session(ann.id, at(1)), ann.password_hash.unwrap()).await
                }
            }
        })
        .await;
        assert_eq!(scene.sessions(Some(ann.id), at(1)).await, [], "round {round}");
        let late = scene.store.open_session(session(ann.id, at(1)), ann.password_hash.unwrap()).await;
        assert!(late.is_err(), "round {round}: {late:?}");
    }
}

pub(crate) async fn a_password_replaced_by_many_at_once_is_replaced_by_one(db: Db) {
    let scene = Scene::new(&db).await;
    let mut old = scene.user.password_hash.clone();
    for round in 0..ROUNDS {
        let outcomes = race(scene.handles(), CALLERS, |store, number| {
            let password = NewPassword { replaces: old.clone(), ..new_password(&format!("{round} {number}"), Kept::All) };
            let id = scene.user.id;
            async move { store.set_password(id, password, at(1)).await }
        })
        .await;
        assert_eq!(count(&outcomes), 1, "{outcomes:?}");
        old = outcomes.into_iter().find_map(Result::ok).unwrap().password_hash;
        assert_eq!(scene.store.user(scene.user.id).await.unwrap().unwrap().password_hash, old);
    }
}

pub(crate) async fn two_who_take_the_last_administrators_away_at_once_leave_one(db: Db) {
    let [store, other] = open_two(&db).await;
    for round in 0..ROUNDS {
        let both = [administrator(&format!("a{round}")), administrator(&format!("b{round}"))];
        store.create_users(both.to_vec()).await.unwrap();
        if round > 0 {
            // Whoever was left over before goes first.
            for user in store.users(None, 10).await.unwrap() {
                if !both.contains(&user) {
                    store.delete_user(user.id, at(1)).await.unwrap();
                }
            }
        }
        let outcomes = race([&store, &other], 2, |store, number| {
            let id = both[number].id;
            async move {
                match round % 3 {
                    0 => store.delete_user(id, at(1)).await,
                    1 => store.update_user(id, change(|user: &mut User| user.account_type = 0), at(1)).await.map(drop),
                    _ => store.update_user(id, change(|user: &mut User| user.enabled = false), at(1)).await.map(drop),
                }
            }
        })
        .await;
        assert_eq!(count(&outcomes), 1, "{outcomes:?}");
        assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(Error::Precondition(_)))), "{outcomes:?}");
        let users = store.users(None, 10).await.unwrap();
        assert_eq!(users.iter().filter(|user| user.enabled && user.is_administrator()).count(), 1);
    }
}

pub(crate) async fn no_change_is_lost_to_another_at_the_same_time(db: Db) {
    let scene = Scene::new(&db).await;
    let authority = authority("a");
    scene.store.register_authority(authority.clone(), at(0)).await.unwrap();
    let handles = scene.handles();
    let added = race(handles, CALLERS, |store, number| {
        let (id, uri) = (scene.app.id.clone(), format!("https://{number}.example/"));
        async move { store.update_app(&id, change(move |app: &mut App| app.redirect_uris.push(uri.clone()))).await }
    });
    assert_eq!(count(&added.await), CALLERS);
    let added = race(handles, CALLERS, |store, number| {
        let (id, note) = (scene.user.id, format!(" {number}"));
        async move { store.update_user(id, change(move |user: &mut User| user.person_code.push_str(&note)), at(1)).await }
    });
    assert_eq!(count(&added.await), CALLERS);
    let added = race(handles, CALLERS, |store, number| {
        let (id, note) = (authority.id, format!(" {number}"));
        async move { store.update_authority(id, change(move |known: &mut Authority| known.client_id.push_str(&note)), at(1)).await }
    });
    assert_eq!(count(&added.await), CALLERS);
    let added = race(handles, CALLERS, |store, number| {
        let usage = AppUsage { undated: Count { times: 1, last_at: at(number as u64) }, ..AppUsage::default() };
        let usage = vec![(scene.app.id.clone(), usage)];
        async move { store.add_usage(usage).await }
    });
    assert_eq!(count(&added.await), CALLERS);
    let notes = |text: &str| text.split(' ').filter_map(|note| note.parse::<usize>().ok()).collect::<HashSet<_>>().len();
    let app = scene.store.app(&scene.app.id).await.unwrap().unwrap();
    assert_eq!(app.redirect_uris.len(), scene.app.redirect_uris.len() + CALLERS);
    assert_eq!(notes(&scene.store.user(scene.user.id).await.unwrap().unwrap().person_code), CALLERS);
    assert_eq!(notes(&scene.store.authority(authority.id, at(1)).await.unwrap().unwrap().client_id), CALLERS);
    let undated = scene.store.usage(None, 10).await.unwrap()[0].1.undated;
    assert_eq!(undated, Count { times: CALLERS as u64, last_at: at(CALLERS as u64 - 1) });
}

pub(crate) async fn a_race_for_a_name_has_one_winner(db: Db) {
    let [store, other] = open_two(&db).await;
    let handles = [&store, &other];
    for round in 0..ROUNDS {
        let name = format!("n{round}");
        let made = race(handles, CALLERS, |store, _| {
            let app = app(&name);
            async move { store.create_apps(vec![app]).await }
        });
        assert_eq!(count(&made.await), 1, "apps");
        let made = race(handles, CALLERS, |store, _| {
            let user = user(&name);
            async move { store.create_users(vec![user]).await }
        });
        assert_eq!(count(&made.await), 1, "users");
        let made = race(handles, CALLERS, |store, _| {
            let authority = authority(&name);
            async move { store.register_authority(authority, at(0)).await }
        });
        assert_eq!(count(&made.await), 1, "authorities");
        let id = store.authority_named(&name, at(0)).await.unwrap().unwrap().id;
        let users: Vec<User> = (0..2).map(|number| user(&format!("{name} {number}"))).collect();
        store.create_users(users.clone()).await.unwrap();
        let linked = race(handles, 2, |store, number| {
            let link = Link { user: users[number].id, origin: LinkOrigin::Administrator, created_at: at(0) };
            async move { store.link_user(id, "subject".to_owned(), link).await }
        });
        assert_eq!(count(&linked.await), 1, "links");
    }
}

pub(crate) async fn two_who_arrive_at_once_as_the_same_subject_of_an_authority_are_one_user(db: Db) {
    let [store, other] = open_two(&db).await;
    let authority = authority("a");
    store.register_authority(authority.clone(), at(0)).await.unwrap();
    for round in 0..ROUNDS {
        // He was renamed there while he signed in.
        let arrived = race([&store, &other], 4, |store, number| {
            let arrival = arrival(&authority, &format!("subject {round}"), Some(&format!("name {round} {}", number % 2)));
            async move { store.open_session_of(arrival).await.map(|user| user.id) }
        })
        .await;
        let users: HashSet<_> = arrived.into_iter().map(Result::unwrap).collect();
        assert_eq!(users.len(), 1, "he is several users");
        assert_eq!(store.links(LinksOf::Authority(authority.id), None, 1000).await.unwrap().len(), round + 1);
    }
}

pub(crate) async fn a_race_for_the_last_places_is_won_by_as_many_as_there_are(db: Db) {
    let [store, other] = open_two(&db).await;
    let race = async |of_one_network: bool| {
        let outcomes = race([&store, &other], CALLERS, |store, number| {
            let network = if of_one_network { "one".to_owned() } else { number.to_string() };
            let authority = waiting(&format!("{of_one_network} {number}"), &network, at(0));
            async move { store.register_authority(authority, at(0)).await }
        });
        count(&outcomes.await)
    };
    assert_eq!(race(true).await, MAX_PENDING_OF_NETWORK);
    assert_eq!(race(false).await, MAX_PENDING - MAX_PENDING_OF_NETWORK);
}
