//! Several services on one database, and Envoy in front of them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Code;

use crate::{
    harness::{App, Pair, Reply, Setup, Status, Via, World, process::PATIENCE, raw, valid},
    postgres_server::{PASSWORD, PostgresServer, is_wanted},
};

/// How long a service may take to be itself again once the database is (docs/storage.md).
const RECOVERY: Duration = Duration::from_secs(10);

/// The services, each with native clients of its own. The first one's Envoy calls all of them in turn.
pub(crate) struct Replicas {
    pub(crate) worlds: Vec<World>,
    _folder: TempDir,
}

impl Replicas {
    /// So many on a database of their own; none when the tests with PostgreSQL are left out.
    pub(crate) async fn start(number: usize) -> Option<Self> {
        if !is_wanted() {
            return None;
        }
        let url = PostgresServer::shared().database();
        Some(Self::at(number, |_| url.clone(), |_, setup| setup).await)
    }

    /// So many, each with a database URL and a setup of its own.
    pub(crate) async fn at(number: usize, url: impl Fn(usize) -> String, change: impl Fn(usize, Setup) -> Setup) -> Self {
        let folder = TempDir::with_prefix("supos-auth-replicas-").expect("a temporary folder");
        let socket = |number: usize| folder.path().join(format!("{number}.sock"));
        let mut worlds: Vec<World> = Vec::new();
        for replica in 0..number {
            let mut setup = setup(folder.path(), &url(replica));
            setup.edge = Some(socket(replica));
            match worlds.first() {
                None => setup.beside = (1..number).map(socket).collect(),
                Some(first) => (setup.alone, setup.public_url) = (true, Some(first.public_url())),
            }
            worlds.push(World::own(change(replica, setup)).await);
        }
        Self { worlds, _folder: folder }
    }

    /// One after the other.
    pub(crate) fn world(&self, number: usize) -> &World {
        &self.worlds[number % self.worlds.len()]
    }

    /// The service that a caller asks, and how: the native listener of one after the other, or Envoy.
    pub(crate) fn way(&self, number: usize) -> (&World, Via) {
        match number % (self.worlds.len() + 1) {
            0 => (&self.worlds[0], Via::Envoy),
            replica => (&self.worlds[replica - 1], Via::Native),
        }
    }

    /// Whether every service calls a token good, or every one calls it dead, at the first call each.
    pub(crate) async fn is_good(&self, app: &App, access_token: &str) -> bool {
        let mut said = Vec::new();
        for world in &self.worlds {
            said.push(world.call(Via::Native, &valid(access_token).by(app.who())).await.valid());
        }
        assert!(said.iter().all(|good| *good == said[0]), "the services differ: {said:?}");
        said[0]
    }
}

/// What all services of one kind are set up with.
pub(crate) fn setup(folder: &Path, url: &str) -> Setup {
    let key = folder.join("master.key");
    if !key.exists() {
        fs::write(&key, [7; 32]).expect("the folder can be written to");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }
    // A rotation whose answer was lost is asked for again, once whatever was away is back.
    let settings = [("SUPOS_AUTH_STORE", url), ("SUPOS_AUTH_REFRESH_GRACE", "60")];
    let environment = settings.map(|(name, value)| (name.to_owned(), value.into())).to_vec();
    let setup = Setup { environment, ..Setup::default() };
    setup.argument("--master-key-file", key.to_str().expect("the folder's name is text"))
}

/// The URL of a database by TCP on this port, instead of by the server's socket.
pub(crate) fn by_port(url: &str, port: u16) -> String {
    let name = url.rsplit('/').next().expect("a URL ends in the database's name");
    format!("postgres://postgres:{PASSWORD}@127.0.0.1:{port}/{name}?sslmode=disable")
}

/// Whether a service refuses because it cannot ask the database.
pub(crate) fn is_unavailable(reply: &Reply) -> bool {
    matches!(reply.status, Status::Http(503) | Status::Grpc(Code::Unavailable)) && reply.body["code"] == 100_106_503
}

/// What `/readyz` says.
pub(crate) fn is_ready(pair: &Pair) -> bool {
    raw::status_of(pair.ops(), "/readyz") == Some(200)
}

/// Waits until a service has found out what has become of the database, for as long as that may take.
pub(crate) async fn finds_out(what: &str, so: impl AsyncFn() -> bool) {
    within(RECOVERY, what, so).await;
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, so: impl AsyncFn() -> bool) {
    within(PATIENCE, what, so).await;
}

/// Says how long it took, too.
async fn within(limit: Duration, what: &str, so: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !so().await {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: after {} ms", begun.elapsed().as_millis());
}
