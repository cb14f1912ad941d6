//! What the tests of authorities work with: an authority that says what it is told to, and browsers that are sent to it.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use supos_auth::{
    core::{
        authorities::dance::{Departure, depart},
        clock::Timestamp,
        model::Authority,
        seal::{MasterKey, Sealed, Vault},
    },
    grpc::pb::supos::auth::admin::v1::{CreateIdentityProviderRequest, IdentityProvider},
    store::{Maintenance as _, sled::SledStore},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::harness::{Call, Op, Reply, Who, World, unique};

/// What an authority answers.
#[derive(Clone, Debug)]
pub(super) enum Says {
    /// Status 200 and this JSON.
    Json(String),
    /// These bytes.
    Raw(Vec<u8>),
    /// These bytes, and then more and more of them.
    Endless(Vec<u8>),
    /// Nothing, until it is told to say something else.
    Nothing,
}

impl Says {
    pub(super) fn json(value: &serde_json::Value) -> Self {
        Self::Json(value.to_string())
    }

    pub(super) fn status(line: &str, body: &str) -> Self {
        Self::Raw(format!("HTTP/1.1 {line}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into())
    }
}

/// What an authority was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) head: String,
    pub(super) form: HashMap<String, String>,
}

/// An authority in this process.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    token: Arc<Mutex<Says>>,
    user: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fake {
    /// An authority that signs everybody in as this user.
    pub(super) async fn of(subject: &str, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let token = Arc::new(Mutex::new(Says::json(&serde_json::json!({"access_token": "upstream-token", "token_type": "Bearer"}))));
        let user = Arc::new(Mutex::new(Says::json(&serde_json::json!({"sub": subject, "preferred_username": name}))));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (tokens, users, log) = (Arc::clone(&token), Arc::clone(&user), Arc::clone(&asked));
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&tokens), Arc::clone(&users), Arc::clone(&log)));
            }
        });
        Self { address, token, user, asked, server }
    }

    pub(super) fn token_says(&self, says: Says) {
        *locked(&self.token) = says;
    }

    pub(super) fn user_says(&self, says: Says) {
        *locked(&self.user) = says;
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        locked(&self.asked).clone()
    }

    /// Forgets what it was asked.
    pub(super) fn forget(&self) {
        locked(&self.asked).clear();
    }

    pub(super) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn answer(mut stream: TcpStream, token: Arc<Mutex<Says>>, user: Arc<Mutex<Says>>, log: Arc<Mutex<Vec<Asked>>>) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let (head, form) = loop {
        let Ok(length @ 1..) = stream.read(&mut chunk).await else { return };
        request.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap_or_default().parse().unwrap_or_default());
        if body.len() >= length {
            break (head.to_owned(), url::form_urlencoded::parse(body.as_bytes()).into_owned().collect());
        }
    };
    let said = if head.starts_with("POST /token") { token } else { user };
    locked(&log).push(Asked { head, form });
    let says = loop {
        let says = locked(&said).clone();
        if !matches!(says, Says::Nothing) {
            break says;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let sent = match &says {
        Says::Json(body) => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await
        }
        Says::Raw(bytes) | Says::Endless(bytes) => stream.write_all(bytes).await,
        Says::Nothing => Ok(()),
    };
    if matches!(says, Says::Endless(_)) && sent.is_ok() {
        while stream.write_all(&[b' '; 4096]).await.is_ok() {}
    }
    let _ = stream.shutdown().await;
}

/// An authority as an administrator registers it.
pub(super) async fn registered(world: &World, fake: &Fake, change: impl FnOnce(&mut IdentityProvider)) -> Authority {
    let mut asked = IdentityProvider {
        display_name: unique("authority"),
        client_id: "our-client-id".to_owned(),
        authorization_uri: fake.uri("/authorize?tenant=plant"),
        token_uri: fake.uri("/token"),
        userinfo_uri: fake.uri("/userinfo"),
        logout_uri: fake.uri("/logout"),
        ..IdentityProvider::default()
    };
    change(&mut asked);
    let message = CreateIdentityProviderRequest { identity_provider: Some(asked), client_secret: "our-client-secret".to_owned() };
    let request = world.as_admin(message).await;
    let made = world.authorities().create_identity_provider(request).await.expect("an authority can be registered").into_inner();
    of_message(made.identity_provider.expect("the authority"))
}

/// The record behind a message, as far as a browser is sent away with it.
pub(super) fn of_message(made: IdentityProvider) -> Authority {
    Authority {
        id: id_of(&made.name),
        name: made.display_name,
        client_id: made.client_id,
        client_secret: Sealed::from_bytes(Vec::new()),
        authorization_uri: made.authorization_uri,
        token_uri: made.token_uri,
        userinfo_uri: made.userinfo_uri,
        logout_uri: made.logout_uri,
        enabled: made.enabled.unwrap_or_default(),
        pending: None,
        link_by_name: made.link_by_name.unwrap_or_default(),
        create_users: made.create_users,
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
    }
}

pub(super) fn id_of(name: &str) -> supos_auth::core::ids::AuthorityId {
    name.strip_prefix("identityProviders/").and_then(|id| id.parse().ok()).expect("the name of an authority")
}

/// The part of a browser that goes to authorities: it is sent away as the service does it, under the service's own keys.
pub(super) struct Browser {
    vault: Vault,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the service has a folder").flatten() {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else if path.is_file() {
            // What the service removes meanwhile is not missed.
            let _ = fs::copy(&path, &copied);
        }
    }
}

/// A store made of a copy of another one's files. One that is written while it is copied may have to be copied again.
fn copied(data: &Path) -> (TempDir, SledStore) {
    let mut last = None;
    for _ in 0..20 {
        let folder = TempDir::new().expect("a folder");
        copy(data, folder.path());
        match SledStore::open(folder.path()) {
            Ok(store) => return (folder, store),
            Err(error) => last = Some(error),
        }
    }
    panic!("no copy opens: {last:?}");
}

impl Browser {
    /// Reads the keys from a copy of what the service keeps.
    pub(super) async fn of(world: &World) -> Self {
        let mut beside = world.data().into_os_string();
        beside.push(".master-key");
        let key: [u8; 32] = fs::read(beside).expect("the master key").try_into().expect("32 bytes");
        let (_folder, store) = copied(&world.data());
        let identity = store.identity().await.expect("the store reads").expect("the store has a root key");
        Self { vault: Vault::open(&MasterKey::new(key), &identity.root).expect("the root key opens") }
    }

    /// Begins a sign-in.
    pub(super) fn begins(&self, world: &World, authority: &Authority) -> Away {
        let now = Timestamp::from_millis(u64::try_from(world.now()).expect("now") * 1000);
        let Departure { location, binding } =
            depart(&self.vault, authority, &redirect_uri(world), "/where/he/was?a=b", None, now).expect("a browser can be sent away");
        let url = url::Url::parse(&location).expect("a URL");
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let away = Away { location, state: query["state"].clone(), query, binding: binding.expose().to_owned() };
        world.remember([("state", away.state.clone()), ("binding", away.binding.clone())]);
        away
    }
}

pub(super) fn redirect_uri(world: &World) -> String {
    format!("{}/inter-api/auth/v1/third/authorize?protocolType=bluetron", world.public_url())
}

/// A browser that is at an authority.
#[derive(Clone, Debug)]
pub(super) struct Away {
    pub(super) location: String,
    pub(super) query: HashMap<String, String>,
    pub(super) state: String,
    pub(super) binding: String,
}

impl Away {
    /// Comes back.
    pub(super) fn back(&self) -> Call {
        self.back_with(&[("code", "upstream-code")])
    }

    pub(super) fn back_with(&self, parameters: &[(&'static str, &str)]) -> Call {
        let call = Call::new(Op::ThirdParty).with("protocolType", "bluetron").with("state", &self.state).by(cookie(&self.binding));
        parameters.iter().fold(call, |call, (name, value)| call.with(name, *value))
    }
}

pub(super) fn cookie(binding: &str) -> Who {
    Who::headers(vec![("cookie", format!("other=x; suposThird={binding}"))])
}

/// The value of a cookie that an answer sets.
pub(super) fn set_cookie(reply: &Reply, name: &str) -> Option<String> {
    let prefix = format!("{name}=");
    let value = reply.headers_of("set-cookie").into_iter().find_map(|cookie| cookie.strip_prefix(&prefix))?;
    value.split(';').next().map(str::to_owned)
}

/// The ticket of a session that was opened.
#[track_caller]
pub(super) fn ticket(world: &World, reply: &Reply) -> String {
    reply.ok();
    let ticket = set_cookie(reply, "suposTicket").expect("a ticket");
    world.remember([("ticket", ticket.clone())]);
    ticket
}
