//! A store with as many live sessions as are wanted, and the credentials that go with them.
//!
//! It is made by way of a backup, because signing so many users in would take hours. Everything in it follows from the number of a
//! session, so that nothing has to be kept but the keys. It is made once for each number of sessions and each build of the service, and
//! copied from then on.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, UNIX_EPOCH},
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use supos_auth::{
    backup::Encoder,
    core::{
        apps::secret_purpose,
        clock::{Clock as _, SystemClock, Timestamp},
        ids::{AppId, FamilyId, Incarnation, SecretId, SessionId, UserId},
        model::{App, AppSecret, Family, Grant, Session, SigningKey, User},
        rights::Rights,
        seal::{MasterKey, Vault},
        secret::{BearerHash, Secret},
    },
    issuer::{self, Issuer},
    store::{Identity, Origin, record::Record},
};

use crate::{
    Failure, ceiling,
    child::{Child, disk},
    machine::Progress,
    stage::Service,
};

/// The app that the sessions' tokens were given to.
pub(crate) const APP: &str = "bench-app";
/// Its secret.
pub(crate) const APP_SECRET: &str = "bench-secret-of-more-than-32-characters";
/// Where its codes go.
pub(crate) const REDIRECT_URI: &str = "http://127.0.0.1:9999/callback";
/// How many users there are, however many sessions.
pub(crate) const USERS: usize = 10_000;
/// The password of them all.
pub(crate) const PASSWORD: &str = "bench-password";
const MASTER_KEY: [u8; MasterKey::LENGTH] = [0x42; MasterKey::LENGTH];
/// What the service says that it is called by default.
const PUBLIC_URL: &str = "http://127.0.0.1:8080";
/// How many records are written at a time.
const BATCH: usize = 4096;
/// Sessions were last used at some time of the last day, tokens are good from now on.
const DAY: u64 = 24 * 60 * 60 * 1000;
/// After this a store is made anew, long before its sessions expire.
const KEPT: Duration = Duration::from_hours(24);

/// What is kept beside a store.
#[derive(Debug, Serialize, Deserialize)]
struct Keys {
    /// Which build of the service has made it.
    build: String,
    made_at: Timestamp,
    seconds: f64,
    identity: Identity,
    signing_key: SigningKey,
}

/// A store that is full, and whose tokens can be made.
pub(crate) struct Population {
    /// How many sessions there are. One more is the inspector's.
    pub(crate) sessions: usize,
    /// How long it took to make the store.
    pub(crate) seconds: f64,
    folder: PathBuf,
    issuer: Issuer,
    vault: Vault,
    made_at: Timestamp,
}

fn spread(kind: u8, number: usize) -> [u8; 32] {
    let mut input = vec![kind];
    input.extend_from_slice(&number.to_be_bytes());
    let mut output = [0; 32];
    output.copy_from_slice(digest(&SHA256, &input).as_ref());
    output
}

fn spread_id(kind: u8, number: usize) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&spread(kind, number)[..16]);
    id
}

fn app_id() -> Result<AppId, Failure> {
    AppId::new(APP).ok_or_else(|| "the app's id is none".into())
}

fn incarnation() -> Incarnation {
    Incarnation::from_bytes([1; 16])
}

/// The ticket of a session.
pub(crate) fn ticket(session: usize) -> String {
    URL_SAFE_NO_PAD.encode(spread(1, session))
}

/// The name of a user.
pub(crate) fn user_name(user: usize) -> String {
    format!("user.{user}")
}

impl Population {
    /// The store for so many sessions, which is made unless there is one. `folder` is where they all are.
    pub(crate) async fn prepare(server: &Path, folder: &Path, sessions: usize, progress: &Progress) -> Result<Self, Failure> {
        let about = fs::metadata(server)?;
        let build = format!("{} bytes of {:?}", about.len(), about.modified()?.duration_since(UNIX_EPOCH)?);
        let folder = folder.join(sessions.to_string());
        let now = SystemClock.now();
        let usable = |keys: &Keys| keys.build == build && now.since(keys.made_at) < KEPT;
        let keys = fs::read(folder.join("keys.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).filter(usable);
        let keys = match keys {
            Some(keys) => keys,
            None => make(server, &folder, sessions, build, now, progress).await?,
        };
        let vault = Vault::open(&MasterKey::new(MASTER_KEY), &keys.identity.root)?;
        let issuer = Issuer::new(PUBLIC_URL.to_owned(), Duration::from_hours(1));
        issuer.set_keys(&[keys.signing_key], &vault)?;
        Ok(Self { sessions, seconds: keys.seconds, folder, issuer, vault, made_at: keys.made_at })
    }

    /// Where the master key is.
    pub(crate) fn master_key_file(&self) -> PathBuf {
        self.folder.join("master-key")
    }

    /// Copies the store, so that this one stays as it is.
    pub(crate) fn copy_to(&self, data: &Path) -> Result<(), Failure> {
        let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(self.folder.join("data")).arg(data).status()?;
        if status.success() { Ok(()) } else { Err(format!("cp: {status}").into()) }
    }

    /// The bytes that it takes on the disk.
    pub(crate) fn disk(&self) -> u64 {
        disk(&self.folder.join("data"))
    }

    /// So many sessions, evenly spread over all.
    pub(crate) fn some(&self, number: usize) -> Vec<usize> {
        let number = number.min(self.sessions);
        (0..number).map(|at| at * self.sessions / number).collect()
    }

    /// The session of a user who may ask about everybody's tokens.
    pub(crate) const fn inspector(&self) -> usize {
        self.sessions
    }

    /// The first refresh token of a session.
    pub(crate) fn refresh_token(&self, session: usize) -> Result<String, Failure> {
        Ok(self.vault.refresh_token(family_id(session), 0)?.expose().to_owned())
    }

    /// New access tokens of these sessions, good for an hour.
    pub(crate) fn access_tokens(&self, sessions: &[usize]) -> Result<Vec<String>, Failure> {
        let now = SystemClock.now();
        let cores = thread::available_parallelism()?.get();
        let make = |sessions: &[usize]| -> Result<Vec<String>, Failure> {
            sessions.iter().map(|&session| Ok(self.issuer.mint(&self.grant(session, now)?, now)?.token.expose().to_owned())).collect()
        };
        let made: Result<Vec<Vec<String>>, Failure> = thread::scope(|scope| {
            let share = sessions.len().div_ceil(cores).max(1);
            let threads: Vec<_> = sessions.chunks(share).map(|sessions| scope.spawn(move || make(sessions))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread has panicked".into()))).collect()
        });
        made.map(|tokens| tokens.concat())
    }

    fn grant(&self, session: usize, now: Timestamp) -> Result<Grant, Failure> {
        let user = user(user_of(session, self.sessions), None, self.made_at)?;
        // A token's times are those of its generation.
        let family = Family { rotated_at: now, ..family(session, self.made_at)? };
        let (id, session) = (family_id(session), session_record(session, self.sessions, self.made_at));
        Ok(Grant { family_id: id, family: family.into(), session: session.into(), user: user.into() })
    }
}

fn family_id(session: usize) -> FamilyId {
    FamilyId { session: SessionId::from_bytes(spread_id(0, session)), number: 0 }
}

/// Users come in turn; the session after the last one is the inspector's, who comes after the last user.
const fn user_of(session: usize, sessions: usize) -> usize {
    if session == sessions { USERS } else { session % USERS }
}

fn used_at(session: usize, made_at: Timestamp) -> Timestamp {
    let [first, second, third, fourth, ..] = spread(0, session);
    let ago = u64::from(u32::from_be_bytes([first, second, third, fourth])) % DAY;
    Timestamp::from_millis(made_at.millis() - ago)
}

fn session_record(session: usize, sessions: usize, made_at: Timestamp) -> Session {
    let used_at = used_at(session, made_at);
    Session {
        id: family_id(session).session,
        user: UserId::from_bytes(spread_id(2, user_of(session, sessions))),
        ticket: BearerHash::of_ticket(&ticket(session)),
        created_at: used_at,
        last_used_at: used_at,
        expires_at: used_at.after(Duration::from_hours(30 * 24)),
        idle_lifetime: Duration::from_hours(7 * 24),
        next_family: 1,
        authority: None,
    }
}

fn family(session: usize, made_at: Timestamp) -> Result<Family, Failure> {
    Ok(Family {
        app: app_id()?,
        incarnation: incarnation(),
        scope: "openid profile".to_owned(),
        logout_uri: "http://127.0.0.1:9999/logout".to_owned(),
        redirect_origin: "http://127.0.0.1:9999".to_owned(),
        generation: 0,
        rotated_at: used_at(session, made_at),
    })
}

fn user(number: usize, password_hash: Option<String>, made_at: Timestamp) -> Result<User, Failure> {
    let rights: &[&str] = if number == USERS { &["tokens.inspect"] } else { &[] };
    Ok(User {
        id: UserId::from_bytes(spread_id(2, number)),
        name: user_name(number),
        person_code: format!("P{number}"),
        company_code: "C0001".to_owned(),
        account_type: 0,
        enabled: true,
        password_hash,
        password_change_required: false,
        created_at: made_at,
        updated_at: made_at,
        rights: Rights::of_names(rights.iter().copied())?,
    })
}

fn app(vault: &Vault, made_at: Timestamp) -> Result<App, Failure> {
    let id = SecretId::from_bytes([3; 16]);
    let sealed = vault.seal(&secret_purpose(&id), Secret::new(APP_SECRET).expose().as_bytes())?;
    Ok(App {
        id: app_id()?,
        incarnation: incarnation(),
        display_name: APP.to_owned(),
        redirect_uris: vec!["http://127.0.0.1:9999/*".to_owned()],
        logout_uris: vec!["http://127.0.0.1:9999/logout".to_owned()],
        enabled: true,
        refresh_requires_app_credential: false,
        secrets: vec![AppSecret { id, sealed, short: false, created_at: made_at }],
        created_at: made_at,
        updated_at: made_at,
        rights: Rights::default(),
        signature_requires_date: false,
    })
}

/// Makes a store and what is kept beside it.
async fn make(server: &Path, folder: &Path, sessions: usize, build: String, now: Timestamp, progress: &Progress) -> Result<Keys, Failure> {
    let began = std::time::Instant::now();
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    fs::write(folder.join("master-key"), MASTER_KEY)?;
    let (vault, root) = Vault::create(&MasterKey::new(MASTER_KEY))?;
    let identity = Identity { origin: Origin::Production, root };
    let signing_key = issuer::generate(&vault, now, Duration::ZERO)?;
    let hash = ceiling::hash(PASSWORD)?;

    let file = folder.join("backup.jsonl");
    let (mut encoder, header) = Encoder::begin(&identity, now)?;
    let mut output = BufWriter::new(File::create(&file)?);
    output.write_all(&header)?;
    let users = (0..=USERS).map(|number| user(number, Some(hash.clone()), now).map(Record::User));
    let heads = (0..=sessions).map(|session| Ok(Record::Session(session_record(session, sessions, now))));
    let families = (0..=sessions).map(|session| Ok(Record::family(family_id(session), family(session, now)?)));
    let mut records = std::iter::once(app(&vault, now).map(Record::App))
        .chain(users)
        .chain(std::iter::once(Ok(Record::SigningKey(signing_key.clone()))))
        .chain(heads)
        .chain(families)
        .chain(std::iter::once(Ok(Record::Identity(identity.clone()))));
    loop {
        let batch = records.by_ref().take(BATCH).collect::<Result<Vec<Record>, Failure>>()?;
        if batch.is_empty() {
            break;
        }
        output.write_all(&encoder.add(&batch)?)?;
        progress.show(&format!("filling a store with {sessions} sessions: {} records written", encoder.records()));
    }
    output.write_all(&encoder.end()?)?;
    output.into_inner()?.sync_all()?;

    progress.show(&format!("filling a store with {sessions} sessions: supos-auth restore"));
    let arguments: [OsString; 4] = ["restore".into(), file.clone().into(), "--data-dir".into(), folder.join("data").into()];
    Child::start(server, arguments, &folder.join("restore.log"))?.finish().await.map_err(|error| format!("supos-auth restore: {error}"))?;
    fs::remove_file(&file)?;
    progress.show(&format!("filling a store with {sessions} sessions: moving it to files that take no more room than they need"));
    let mut service = Service::start(server, folder, &folder.join("master-key"), &[]).await?;
    service.at_rest().await?;
    service.terminate().await?;
    let keys = Keys { build, made_at: now, seconds: began.elapsed().as_secs_f64(), identity, signing_key };
    fs::write(folder.join("keys.json"), serde_json::to_vec(&keys)?)?;
    Ok(keys)
}
