//! Records for checks. No field has the value that it would have by default, so that one that is lost shows.

use std::time::Duration;

use supos_auth::{
    core::{
        Error,
        clock::Timestamp,
        ids::{AppId, AuthorityId, FamilyId, Incarnation, SecretId, SessionId, UserId},
        logouts::OwedLogout,
        model::{App, AppSecret, Authority, Code, Grant, Session, SignedIn, User},
        rights::Rights,
        seal::Sealed,
        secret::{BearerHash, Secret},
    },
    store::{Arrival, Change, Kept, NewPassword, Refresher, Rotation},
};

use crate::database::{Db, Handle, open_two};

/// How long a refresh token's successor is given out again.
pub(crate) const GRACE: Duration = Duration::from_secs(10);
/// How long sessions live with nothing to keep them alive.
pub(crate) const IDLE: Duration = Duration::from_secs(1000);
/// How long they live at the most.
pub(crate) const LIFETIME: Duration = Duration::from_secs(5000);
/// How long codes live.
pub(crate) const CODE_LIFETIME: Duration = Duration::from_mins(1);

/// A moment so many seconds after all checks begin.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
}

/// The last moment before this one.
pub(crate) fn before(time: Timestamp) -> Timestamp {
    Timestamp::from_millis(time.millis() - 1)
}

pub(crate) fn app_id(id: &str) -> AppId {
    AppId::new(id).unwrap()
}

/// The hash of a value that nobody has made before.
pub(crate) fn new_hash() -> BearerHash {
    BearerHash::of_code(Secret::random().unwrap().expose())
}

pub(crate) fn app(id: &str) -> App {
    App {
        id: app_id(id),
        incarnation: Incarnation::random().unwrap(),
        display_name: format!("The {id}"),
        redirect_uris: vec![format!("https://{id}.example/callback"), format!("http://{id}.example:8080/*")],
        logout_uris: vec![format!("https://out.{id}.example/logout")],
        enabled: true,
        refresh_requires_app_credential: false,
        secrets: vec![AppSecret {
            id: SecretId::random().unwrap(),
            sealed: Sealed::from_bytes(vec![1, 2, 250]),
            short: true,
            created_at: at(1),
        }],
        created_at: at(2),
        updated_at: at(3),
        rights: Rights::of_names(["tokens.inspect", "sessions.end"]).unwrap(),
        signature_requires_date: true,
    }
}

pub(crate) fn authority(name: &str) -> Authority {
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
        created_at: at(2),
        updated_at: at(3),
    }
}

pub(crate) fn user(name: &str) -> User {
    User {
        id: UserId::random().unwrap(),
        name: name.to_owned(),
        person_code: format!("P {name}"),
        company_code: format!("C {name}"),
        account_type: 7,
        enabled: true,
        password_hash: Some(format!("hash of {name}'s")),
        password_change_required: true,
        created_at: at(4),
        updated_at: at(5),
        rights: Rights::default(),
    }
}

pub(crate) fn administrator(name: &str) -> User {
    User { account_type: 1, ..user(name) }
}

/// A user without rights.
pub(crate) fn ordinary(name: &str) -> User {
    User { account_type: 0, ..user(name) }
}

/// Somebody whom an authority has signed in.
pub(crate) fn arrival(authority: &Authority, subject: &str, name: Option<&str>) -> Arrival {
    let newcomer = name.map(ordinary);
    let session = session(UserId::from_bytes([0; 16]), at(10));
    Arrival { session, authority: authority.id, subject: subject.to_owned(), name: name.map(str::to_owned), newcomer }
}

pub(crate) fn session(user: UserId, now: Timestamp) -> Session {
    Session {
        id: SessionId::random().unwrap(),
        user,
        ticket: BearerHash::of_ticket(Secret::random().unwrap().expose()),
        created_at: now,
        last_used_at: now,
        expires_at: now.after(LIFETIME),
        idle_lifetime: IDLE,
        next_family: 0,
        authority: None,
    }
}

pub(crate) fn code(app: &App, session: SessionId, now: Timestamp) -> Code {
    Code {
        app: app.id.clone(),
        incarnation: app.incarnation,
        session,
        redirect_uri: format!("https://{}.example/callback?x=1", app.id),
        scope: "read write".to_owned(),
        expires_at: now.after(CODE_LIFETIME),
        kept_until: now.after(CODE_LIFETIME * 2),
        used: None,
    }
}

/// A change that refuses nothing.
pub(crate) fn change<T: 'static>(change: impl Fn(&mut T) + Send + Sync + 'static) -> Change<T> {
    Box::new(move |record| {
        change(record);
        Ok(())
    })
}

/// A change that has something to say against it, before it has changed anything.
pub(crate) fn refusal<T: 'static>() -> Change<T> {
    Box::new(|_| Err(Error::NotAllowed))
}

pub(crate) fn new_password(hash: &str, keep: Kept) -> NewPassword {
    NewPassword { hash: hash.to_owned(), change_required: false, replaces: None, keep }
}

/// Purges until nothing is left.
pub(crate) async fn purge(store: &Handle, now: Timestamp) {
    for _ in 0..10_000 {
        if store.purge(now).await.unwrap() == 0 {
            return;
        }
    }
    panic!("a purge never ends");
}

/// A store with an app, a user and his session.
pub(crate) struct Scene {
    pub(crate) store: Handle,
    /// Another handle on the same database, where there can be one.
    pub(crate) other: Handle,
    pub(crate) app: App,
    pub(crate) user: User,
    pub(crate) session: Session,
}

impl Scene {
    pub(crate) async fn new(db: &Db) -> Self {
        let [store, other] = open_two(db).await;
        let (app, user) = (app("shop"), user("ann"));
        store.create_apps(vec![app.clone()]).await.unwrap();
        store.create_users(vec![user.clone()]).await.unwrap();
        let session = session(user.id, at(0));
        store.open_session(session.clone(), user.password_hash.clone().unwrap()).await.unwrap();
        Self { store, other, app, user, session }
    }

    /// Another app.
    pub(crate) async fn app(&self, id: &str) -> App {
        let app = app(id);
        self.store.create_apps(vec![app.clone()]).await.unwrap();
        app
    }

    /// Another user.
    pub(crate) async fn user(&self, name: &str) -> User {
        let user = user(name);
        self.store.create_users(vec![user.clone()]).await.unwrap();
        user
    }

    /// Another session of a user.
    pub(crate) async fn session_of(&self, user: &User, now: Timestamp) -> Session {
        let session = session(user.id, now);
        self.store.open_session(session.clone(), user.password_hash.clone().unwrap()).await.unwrap();
        session
    }

    /// A code of the session for the app.
    pub(crate) async fn code(&self, now: Timestamp) -> BearerHash {
        self.code_of(&self.session, &self.app, now).await
    }

    pub(crate) async fn code_of(&self, session: &Session, app: &App, now: Timestamp) -> BearerHash {
        let hash = new_hash();
        self.store.create_code(hash, code(app, session.id, now), now).await.unwrap();
        hash
    }

    /// Redeems a code for the app.
    pub(crate) async fn redeem(&self, code: &BearerHash, now: Timestamp) -> Result<Grant, Error> {
        self.store.redeem_code(code, &self.app.id, "/out".to_owned(), None, now).await
    }

    /// A family of the session for the app.
    pub(crate) async fn family(&self, now: Timestamp) -> FamilyId {
        self.family_of(&self.session, &self.app, "/out", now).await
    }

    pub(crate) async fn family_of(&self, session: &Session, app: &App, logout_uri: &str, now: Timestamp) -> FamilyId {
        let code = self.code_of(session, app, now).await;
        self.store.redeem_code(&code, &app.id, logout_uri.to_owned(), None, now).await.unwrap().family_id
    }

    /// Uses a refresh token as its app.
    pub(crate) async fn rotate(&self, family: FamilyId, generation: u32, now: Timestamp) -> Result<Grant, Error> {
        let rotation = Rotation { family, generation, grace: GRACE };
        self.store.rotate_refresh_token(rotation, Refresher::App(self.app.id.clone()), None, now).await
    }

    /// Whether the tokens of a family are good.
    pub(crate) async fn is_good(&self, family: FamilyId, now: Timestamp) -> bool {
        let (seen, elsewhere) = (self.store.grant(family, now).await.unwrap(), self.other.grant(family, now).await.unwrap());
        assert_eq!(seen, elsewhere, "two handles on one database differ");
        seen.is_some()
    }

    /// Whether a ticket is good.
    pub(crate) async fn is_signed_in(&self, session: &Session, now: Timestamp) -> bool {
        self.signed_in(session, now).await.is_some()
    }

    pub(crate) async fn signed_in(&self, session: &Session, now: Timestamp) -> Option<SignedIn> {
        self.store.session_of_ticket(&session.ticket, now).await.unwrap()
    }

    /// The live sessions.
    pub(crate) async fn sessions(&self, user: Option<UserId>, now: Timestamp) -> Vec<SessionId> {
        let page = self.store.sessions(user, None, 1000, now).await.unwrap();
        page.sessions.into_iter().map(|(signed_in, _)| signed_in.session.id).collect()
    }

    /// The calls that are owed.
    pub(crate) async fn owed(&self) -> Vec<OwedLogout> {
        let owed = self.store.logouts(false, None, None, 10_000).await.unwrap();
        assert_eq!(self.store.owed_logouts().await.unwrap(), owed.len() as u64, "the count of what is owed");
        owed
    }

    /// Whom they tell, and where.
    pub(crate) async fn told(&self) -> Vec<(String, String)> {
        let mut told: Vec<_> = self.owed().await.into_iter().map(|owed| (owed.app.as_str().to_owned(), owed.uri)).collect();
        told.sort();
        told
    }
}
