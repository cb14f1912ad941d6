//! Stores and what is in them.

use std::{path::Path, sync::Arc, time::Duration};

use supos_auth::{
    backup::{self, Piece},
    core::{
        clock::{Clock as _, SystemClock, Timestamp},
        ids::{AppId, Incarnation, SessionId, UserId},
        model::{App, Code, Session, User},
        rights::Rights,
        seal::Sealed,
        secret::{BearerHash, random_bytes},
    },
    store::{AppStore as _, Identity, Maintenance as _, Origin, Store, UserStore as _, record::Record, sled::SledStore},
};
use tokio::sync::mpsc;

pub(crate) const HASH: &str = "the hash of a password";

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn user(number: u64) -> User {
    let mut id = [0x11; 16];
    id[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    User {
        id: UserId::from_bytes(id),
        name: format!("user-{number:08}"),
        person_code: "P1".into(),
        company_code: "C1".into(),
        account_type: 0,
        enabled: true,
        password_hash: Some(HASH.into()),
        password_change_required: false,
        created_at: now(),
        updated_at: now(),
        rights: Rights::default(),
    }
}

pub(crate) fn app(id: &str) -> App {
    App {
        id: AppId::new(id).expect("an id"),
        incarnation: Incarnation::from_bytes([5; 16]),
        display_name: id.into(),
        redirect_uris: vec!["https://app.example/*".into()],
        logout_uris: Vec::new(),
        enabled: true,
        refresh_requires_app_credential: false,
        secrets: Vec::new(),
        created_at: now(),
        updated_at: now(),
        rights: Rights::default(),
        signature_requires_date: false,
    }
}

pub(crate) fn session(of: &User) -> Session {
    let id = SessionId::random().expect("an id");
    Session {
        id,
        user: of.id,
        ticket: BearerHash::of_ticket(&id.to_string()),
        created_at: now(),
        last_used_at: now(),
        expires_at: now().after(Duration::from_hours(24)),
        idle_lifetime: Duration::from_hours(1),
        next_family: 0,
        authority: None,
    }
}

pub(crate) fn code(of: &Session, app: &App) -> Code {
    Code {
        app: app.id.clone(),
        incarnation: app.incarnation,
        session: of.id,
        redirect_uri: "https://app.example/in".into(),
        scope: "openid".into(),
        expires_at: now().after(Duration::from_mins(10)),
        used: None,
        kept_until: now().after(Duration::from_mins(20)),
    }
}

/// A store with a root key, one app and so many users.
pub(crate) async fn open(folder: &Path, users: u64) -> Arc<SledStore> {
    let store = SledStore::open(folder).expect("a store");
    store.set_identity(Identity { origin: Origin::Production, root: Sealed::from_bytes(vec![9; 44]) }).await.expect("stored");
    store.create_apps(vec![app("shop")]).await.expect("stored");
    for begin in (0..users).step_by(500) {
        store.create_users((begin..users.min(begin + 500)).map(user).collect()).await.expect("stored");
    }
    Arc::new(store)
}

/// Puts so many codes of about 3 KiB into a store. A purge an hour from now takes them.
pub(crate) async fn put_codes(store: &dyn Store, number: usize) {
    let (session, app) = (session(&user(0)), app("shop"));
    for begin in (0..number).step_by(500) {
        let codes = (begin..number.min(begin + 500)).map(|_| Record::Code {
            hash: BearerHash::from_bytes(random_bytes().expect("randomness")),
            code: Code {
                redirect_uri: format!("https://app.example/{}", "x".repeat(2000)),
                scope: "y".repeat(1000),
                ..code(&session, &app)
            },
        });
        store.import(codes.collect()).await.expect("stored");
    }
}

/// All records of a store.
pub(crate) async fn export(store: &dyn Store) -> Vec<Record> {
    let (to, mut from) = mpsc::channel(4);
    let mut records = Vec::new();
    let receive = async {
        while let Some(batch) = from.recv().await {
            records.extend(batch);
        }
    };
    let (exported, ()) = tokio::join!(store.export(to), receive);
    exported.expect("exported");
    records
}

/// The file of a backup.
pub(crate) async fn take(store: &dyn Store) -> Vec<u8> {
    let (to, mut from) = mpsc::channel::<Piece>(4);
    let mut file = Vec::new();
    let receive = async {
        while let Some(piece) = from.recv().await {
            file.extend(piece.bytes);
        }
    };
    let (taken, ()) = tokio::join!(backup::take(store, now(), to), receive);
    taken.expect("a backup");
    file
}

/// Puts the file of a backup into an empty store.
pub(crate) async fn put(file: &[u8], store: &dyn Store) {
    assert!(store.is_empty().await.expect("it says so"));
    let mut reader = backup::Reader::open(file).expect("a backup");
    while let Some(batch) = reader.next_batch().expect("records") {
        store.import(batch).await.expect("stored");
    }
}
