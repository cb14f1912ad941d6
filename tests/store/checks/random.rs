//! Whatever is done, in whatever order, a store answers as the model does, and looks like it afterwards.

use std::{collections::BTreeSet, fmt, time::Duration};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestError, TestRunner},
};
use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        ids::FamilyId,
        logouts::Outcome,
        model::{App, User},
        secret::BearerHash,
    },
    store::{Kept, NewPassword, OneUse, Refresher, Rotation},
};

use crate::{
    database::{Db, Handle},
    model::{Model, PLACES},
    scene::{GRACE, app as app_record, app_id, change, new_hash, new_password, purge, user as user_record},
};

/// How many histories are tried, where nobody asks for more.
pub(crate) const HISTORIES: u32 = 32;
/// How often a history that shows a fault is made shorter: each time costs about as much as a history.
const SHRINKS: u32 = 50;
/// How long a history is.
const LENGTH: usize = 100;
/// The steps of the clock, in milliseconds: about the lengths of everything that ends.
const STEPS: [u64; 8] = [2, 4_000, 9_998, 10_000, 59_998, 60_000, 500_000, 999_998];

/// Something that is done. Apps and users go by number, what comes to be by how long ago that was.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    ClockBack(u64),
    MakeApp(u8),
    DeleteApp(u8),
    EnableApp(u8, bool),
    Insist(u8, bool),
    MakeUser(u8),
    DeleteUser(u8),
    EnableUser(u8, bool),
    Promote(u8, bool),
    SetPassword { user: u8, keep: Keep, replaces: Option<bool> },
    SignIn { user: u8, rightly: bool },
    SignOut(Index),
    SignOutAll(u8),
    MakeCode { session: Index, app: u8 },
    Redeem { code: Index, app: Option<u8>, place: usize, using: Using },
    Exchange { session: Index, app: u8, place: usize, using: Using },
    Refresh { family: Index, behind: u32, by: By, using: Using },
    UseOnce(u8, u64),
    ForgetUse(u8),
    Settle(Index),
    Purge,
}

/// What a step uses up, by number, and for how long that is remembered.
type Using = Option<(u8, u64)>;

#[derive(Clone, Debug)]
enum Keep {
    Nothing,
    One(Index),
    All,
}

#[derive(Clone, Debug)]
enum By {
    Itself,
    App(u8),
    Family(Option<Index>),
}

fn step() -> impl Strategy<Value = Step> {
    let (app, user) = (|| 0..2_u8, || 0..2_u8);
    let index = any::<Index>;
    let by = prop_oneof![
        5 => Just(By::Itself),
        1 => app().prop_map(By::App),
        3 => Just(By::Family(None)),
        1 => index().prop_map(|other| By::Family(Some(other))),
    ];
    let keep = prop_oneof![Just(Keep::Nothing), index().prop_map(Keep::One), Just(Keep::All)];
    let mostly = || prop::bool::weighted(0.7);
    let once = || (0..4_u8, prop::sample::select(&STEPS[..]));
    let using = move || prop::option::weighted(0.2, once());
    prop_oneof![
        12 => prop::sample::select(&STEPS[..]).prop_map(Step::Wait),
        2 => prop::sample::select(&STEPS[..3]).prop_map(Step::ClockBack),
        3 => app().prop_map(Step::MakeApp),
        1 => app().prop_map(Step::DeleteApp),
        3 => (app(), mostly()).prop_map(|(app, on)| Step::EnableApp(app, on)),
        2 => (app(), any::<bool>()).prop_map(|(app, on)| Step::Insist(app, on)),
        3 => user().prop_map(Step::MakeUser),
        1 => user().prop_map(Step::DeleteUser),
        3 => (user(), mostly()).prop_map(|(user, on)| Step::EnableUser(user, on)),
        3 => (user(), mostly()).prop_map(|(user, on)| Step::Promote(user, on)),
        2 => (user(), keep, prop::option::of(mostly()))
            .prop_map(|(user, keep, replaces)| Step::SetPassword { user, keep, replaces }),
        12 => (user(), prop::bool::weighted(0.9)).prop_map(|(user, rightly)| Step::SignIn { user, rightly }),
        3 => index().prop_map(Step::SignOut),
        1 => user().prop_map(Step::SignOutAll),
        8 => (index(), app()).prop_map(|(session, app)| Step::MakeCode { session, app }),
        8 => (index(), prop::option::weighted(0.2, app()), 0..PLACES.len(), using())
            .prop_map(|(code, app, place, using)| Step::Redeem { code, app, place, using }),
        16 => (index(), app(), 0..PLACES.len(), using())
            .prop_map(|(session, app, place, using)| Step::Exchange { session, app, place, using }),
        30 => (index(), prop_oneof![6 => Just(1_u32), 5 => Just(2), 2 => Just(3), 1 => Just(0)], by, using())
            .prop_map(|(family, behind, by, using)| Step::Refresh { family, behind, by, using }),
        3 => once().prop_map(|(what, until)| Step::UseOnce(what, until)),
        1 => once().prop_map(|(what, _)| Step::ForgetUse(what)),
        3 => index().prop_map(Step::Settle),
        5 => Just(Step::Purge),
    ]
}

/// One of the newest.
fn pick(index: Index, len: usize) -> Option<usize> {
    (len > 0).then(|| len - 1 - index.index(len.min(4)))
}

fn name(number: u8) -> String {
    format!("n{number}")
}

/// A store beside the model.
struct Pair {
    store: Handle,
    model: Model,
    families: Vec<FamilyId>,
    passwords: u32,
}

fn same<T: fmt::Debug, U: fmt::Debug>(said: &Result<T, Error>, expected: &Result<U, Error>) {
    match (said, expected) {
        (Ok(_), Ok(_)) | (Err(Error::Precondition(_)), Err(Error::Precondition(_))) => {}
        (Err(said), Err(expected)) if said == expected => {}
        _ => panic!("the store says {said:?}, the model {expected:?}"),
    }
}

impl Pair {
    fn new(store: Handle) -> Self {
        Self { store, model: Model::new(), families: Vec::new(), passwords: 0 }
    }

    async fn update_user(&mut self, number: u8, set: impl Fn(&mut User) + Clone + Send + Sync + 'static) {
        let Some(user) = self.model.user(&name(number)).cloned() else { return };
        let said = self.store.update_user(user.id, change(set.clone()), self.model.now).await;
        same(&said, &self.model.change_user(&name(number), set, false));
        if let Ok(said) = said {
            assert_eq!(Some(&said), self.model.user(&name(number)));
        }
    }

    async fn update_app(&mut self, number: u8, set: impl Fn(&mut App) + Clone + Send + Sync + 'static) {
        let Some(at) = self.model.apps.iter().position(|app| app.id.as_str() == name(number)) else { return };
        let said = self.store.update_app(&self.model.apps[at].id, change(set.clone())).await.unwrap();
        set(&mut self.model.apps[at]);
        assert_eq!(said, self.model.apps[at]);
    }

    async fn make_code(&mut self, session: Index, app: u8) {
        let Some(at) = pick(session, self.model.sessions.len()) else { return };
        let app = self.model.app(&name(app)).cloned().unwrap_or_else(|| app_record("nobody"));
        let (hash, session) = (new_hash(), self.model.sessions[at].record.id);
        let (code, expected) = self.model.make_code(hash, &app, session);
        same(&self.store.create_code(hash, code, self.model.now).await, &expected);
    }

    /// What is used up.
    fn one_use(&self, (what, after): (u8, u64)) -> OneUse {
        OneUse { hash: BearerHash::of_sign_in(&what.to_string()), until: self.model.now.after(Duration::from_millis(after)) }
    }

    async fn redeem(&mut self, at: usize, app: Option<u8>, place: usize, using: Using) {
        let app = app.map_or_else(|| self.model.codes[at].record.app.clone(), |app| app_id(&name(app)));
        let using = using.map(|using| self.one_use(using));
        let expected = self.model.using(using, |model| model.redeem(at, app.as_str(), place));
        let uri = PLACES[place].0.replace("{app}", app.as_str());
        let said = self.store.redeem_code(&self.model.codes[at].hash, &app, uri, using, self.model.now).await;
        same(&said, &expected);
        if let (Ok(granted), Ok(family)) = (said, expected) {
            assert_eq!(*granted.family, self.model.families[family].record);
            assert!(!self.families.contains(&granted.family_id), "two families have one id");
            self.families.push(granted.family_id);
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each thing that can be done")]
    async fn take(&mut self, step: Step) {
        let now = self.model.now;
        match step {
            Step::Wait(millis) => self.model.now = now.after(Duration::from_millis(millis)),
            Step::ClockBack(millis) => {
                self.model.now = Timestamp::from_millis(now.millis() - millis);
            }
            Step::MakeApp(app) => {
                let (app, is_new) = self.model.make_app(&name(app));
                let said = self.store.create_apps(vec![app]).await;
                same(&said, &is_new.then_some(()).ok_or(Error::AlreadyExists { name: "steps[0].app.app_id".into() }));
            }
            Step::DeleteApp(app) => {
                let app = app_id(&name(app));
                let before = self.model.apps.len();
                self.model.apps.retain(|known| known.id != app);
                let was_there = self.model.apps.len() < before;
                same(&self.store.delete_app(&app).await, &was_there.then_some(()).ok_or(Error::NotFound("app")));
            }
            Step::EnableApp(app, enabled) => self.update_app(app, move |app| app.enabled = enabled).await,
            Step::Insist(app, insists) => self.update_app(app, move |app| app.refresh_requires_app_credential = insists).await,
            Step::MakeUser(user) => {
                let (user, is_new) = self.model.make_user(&name(user));
                let said = self.store.create_users(vec![user]).await;
                same(&said, &is_new.then_some(()).ok_or(Error::AlreadyExists { name: "steps[0].user.user_name".into() }));
            }
            Step::DeleteUser(user) => {
                let Some(known) = self.model.user(&name(user)).cloned() else { return };
                let said = self.store.delete_user(known.id, now).await;
                same(&said, &self.model.change_user(&known.name, |_| (), true));
            }
            Step::EnableUser(user, enabled) => self.update_user(user, move |user| user.enabled = enabled).await,
            Step::Promote(user, is_administrator) => {
                self.update_user(user, move |user| user.account_type = u8::from(is_administrator)).await;
            }
            Step::SetPassword { user, keep, replaces } => {
                let Some(known) = self.model.user(&name(user)).cloned() else { return };
                self.passwords += 1;
                let hash = format!("hash {}", self.passwords);
                let replaces = replaces.map(|rightly| if rightly { known.password_hash.clone().unwrap() } else { "another".to_owned() });
                let keep = match keep {
                    Keep::Nothing => Kept::None,
                    Keep::All => Kept::All,
                    Keep::One(index) => match pick(index, self.model.sessions.len()) {
                        Some(at) => Kept::One(self.model.sessions[at].record.id),
                        None => Kept::None,
                    },
                };
                let password = NewPassword { replaces: replaces.clone(), ..new_password(&hash, keep) };
                let said = self.store.set_password(known.id, password, now).await;
                let keeps = |id| keep == Kept::All || keep == Kept::One(id);
                same(&said, &self.model.set_password(&known.name, &hash, replaces.as_deref(), keeps));
            }
            Step::SignIn { user, rightly } => {
                let known = self.model.user(&name(user)).cloned().unwrap_or_else(|| user_record("nobody"));
                let hash = if rightly { known.password_hash.clone().unwrap() } else { "another".to_owned() };
                let (session, expected) = self.model.open(known.id, &hash);
                same(&self.store.open_session(session, hash).await, &expected);
            }
            Step::SignOut(index) => {
                let Some(at) = pick(index, self.model.sessions.len()) else { return };
                let id = self.model.sessions[at].record.id;
                let ended = self.model.end(|session| session.id == id) == 1;
                assert_eq!(self.store.end_session(id, now).await.unwrap(), ended);
            }
            Step::SignOutAll(user) => {
                let Some(id) = self.model.user(&name(user)).map(|user| user.id) else { return };
                let ended = self.model.end(|session| session.user == id);
                assert_eq!(self.store.end_sessions_of(id, now).await.unwrap(), ended);
            }
            Step::MakeCode { session, app } => self.make_code(session, app).await,
            Step::Redeem { code, app, place, using } => {
                let Some(at) = pick(code, self.model.codes.len()) else { return };
                self.redeem(at, app, place, using).await;
            }
            Step::Exchange { session, app, place, using } => {
                let before = self.model.codes.len();
                self.make_code(session, app).await;
                if self.model.codes.len() > before {
                    self.redeem(before, None, place, using).await;
                }
            }
            Step::Refresh { family, behind, by, using } => {
                let Some(at) = pick(family, self.families.len()) else { return };
                let record = &self.model.families[at].record;
                let (own, generation) = (record.app.clone(), (record.generation + 1).saturating_sub(behind));
                let other = |index| pick(index, self.families.len()).unwrap_or(at);
                let named;
                let (by, his) = match by {
                    By::Itself => (Refresher::App(own.clone()), Ok(own.as_str())),
                    By::App(app) => {
                        named = name(app);
                        (Refresher::App(app_id(&named)), Ok(named.as_str()))
                    }
                    By::Family(shown) => {
                        let shown = shown.map_or(at, other);
                        (Refresher::Family(self.families[shown]), Err(shown))
                    }
                };
                let using = using.map(|using| self.one_use(using));
                let expected = self.model.using(using, |model| model.refresh(at, generation, his));
                let rotation = Rotation { family: self.families[at], generation, grace: GRACE };
                let said = self.store.rotate_refresh_token(rotation, by, using, now).await;
                same(&said, &expected);
                if let Ok(granted) = said {
                    assert_eq!(*granted.family, self.model.families[at].record);
                }
            }
            Step::UseOnce(what, after) => {
                let using = self.one_use((what, after));
                let first = self.model.use_once(using);
                assert_eq!(self.store.use_once(using).await.unwrap(), first);
            }
            Step::ForgetUse(what) => {
                let hash = self.one_use((what, 0)).hash;
                self.model.forget_use(hash);
                self.store.forget_use(&hash).await.unwrap();
            }
            Step::Settle(index) => {
                let owed = self.store.logouts(false, None, None, 1000).await.unwrap();
                let Some(at) = pick(index, owed.len()) else { return };
                let settled = &owed[at];
                self.store.settle_logout(settled.id, Outcome::Settled).await.unwrap();
                self.model.owed.retain(|(app, life, uri, session)| {
                    (app.as_str(), *life, uri, *session) != (settled.app.as_str(), settled.incarnation, &settled.uri, settled.session)
                });
            }
            Step::Purge => {
                let now = self.model.purge();
                purge(&self.store, now).await;
            }
        }
    }

    /// Compares all that can be seen.
    async fn compare(&self) {
        let (store, model) = (&self.store, &self.model);
        let mut apps = model.apps.clone();
        apps.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(store.apps(None, 10).await.unwrap(), apps);
        let mut users = model.users.clone();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(store.users(None, 10).await.unwrap(), users);
        let mut live = Vec::new();
        for facts in &model.sessions {
            let record = &facts.record;
            let signed_in = store.session_of_ticket(&record.ticket, model.now).await.unwrap();
            let is_live = model.is_session_live(record.id);
            assert_eq!(signed_in.is_some(), is_live, "{record:?}");
            if let Some(signed_in) = signed_in {
                assert_eq!((signed_in.session.last_used_at, signed_in.session.id), (record.last_used_at, record.id));
                assert_eq!(model.users.iter().find(|user| user.id == record.user), Some(&*signed_in.user));
                live.push(record);
            }
            let found = store.session(record.id).await.unwrap();
            assert!(!(facts.has_ended && found.is_some()), "a session that was ended is there");
            assert!(!(is_live && found.is_none()), "a live session is not there");
        }
        live.sort_by_key(|session| session.id);
        for user in [None].into_iter().chain(model.users.iter().map(|user| Some(user.id))) {
            let page = store.sessions(user, None, 1000, model.now).await.unwrap();
            let listed: Vec<_> = page.sessions.iter().map(|(signed_in, _)| signed_in.session.id).collect();
            let expected: Vec<_> = live.iter().filter(|session| user.is_none_or(|user| session.user == user)).map(|s| s.id).collect();
            assert_eq!(listed, expected);
            for (signed_in, apps) in page.sessions {
                let apps: Vec<String> = apps.iter().map(|app| app.as_str().to_owned()).collect();
                assert_eq!(apps, model.holders(signed_in.session.id).into_iter().collect::<Vec<_>>());
            }
        }
        for (facts, id) in model.families.iter().zip(&self.families) {
            let grant = store.grant(*id, model.now).await.unwrap();
            assert_eq!(grant.as_ref().map(|grant| &*grant.family), model.is_family_live(facts).then_some(&facts.record));
        }
        let owed = store.logouts(false, None, None, 1000).await.unwrap();
        assert_eq!(store.owed_logouts().await.unwrap(), owed.len() as u64);
        let calls: Vec<_> = owed.into_iter().map(|owed| (owed.app.as_str().to_owned(), owed.incarnation, owed.uri, owed.session)).collect();
        let count = calls.len();
        let calls: BTreeSet<_> = calls.into_iter().collect();
        assert_eq!((&calls, count), (&model.owed, model.owed.len()));
    }
}

/// Goes through a history with a store and the model.
async fn live_through(store: Handle, history: Vec<Step>) {
    let mut pair = Pair::new(store);
    for number in 0..2 {
        pair.take(Step::MakeApp(number)).await;
        pair.take(Step::MakeUser(number)).await;
    }
    for step in history {
        pair.take(step).await;
        pair.compare().await;
    }
}

pub(crate) async fn whatever_is_done_the_store_and_the_model_agree(db: Db) {
    histories(db, HISTORIES).await;
}

pub(crate) async fn histories(db: Db, histories: u32) {
    let runtime = tokio::runtime::Handle::current();
    let search = move || {
        let mut runner =
            TestRunner::new(Config { cases: histories, failure_persistence: None, max_shrink_iters: SHRINKS, ..Config::default() });
        let found = runner.run(&vec(step(), LENGTH / 2..LENGTH), |history| {
            runtime.block_on(async {
                let store = db.another().await.open().await;
                live_through(store, history).await;
            });
            Ok(())
        });
        match found {
            Ok(()) => {}
            Err(TestError::Fail(why, history)) => panic!("{why}\nafter {history:#?}"),
            Err(TestError::Abort(why)) => panic!("{why}"),
        }
    };
    tokio::task::spawn_blocking(search).await.unwrap();
}
