//! What is special to the PostgreSQL store: its database may go, refuse writes, or lose an answer. What every store has to do is tried in
//! `tests/store`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod authorities;
mod commits;
mod crowds;
mod far;
#[path = "../postgres_server/mod.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod postgres_server;
#[expect(dead_code, reason = "no connection is cut here: see tests/replicas")]
mod proxy;
#[path = "../store/scene.rs"]
#[expect(dead_code, reason = "not all of it is needed here")]
mod scene;
mod tls;

/// What `scene` works on.
mod database {
    use std::sync::Arc;

    use supos_auth::store::{
        Store,
        postgres::{Address, PostgresStore},
    };

    pub(crate) type Handle = Arc<dyn Store>;
    pub(crate) type Db = Address;

    pub(crate) async fn open_two(db: &Db) -> [Handle; 2] {
        [open(db).await, open(db).await]
    }

    pub(crate) async fn open(db: &Db) -> Handle {
        Arc::new(PostgresStore::open(db.clone(), 4).await.unwrap())
    }
}

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use postgres_server::{PASSWORD, PostgresServer, is_wanted};
use proxy::Proxy;
use scene::{Scene, at, change, new_hash};
use supos_auth::{
    core::{
        Error,
        clock::{Clock, Timestamp},
        logouts::OwedLogout,
        model::{App, User},
        rights::Rights,
        secret::Secret,
        throttle::{Counts, Failure, Kind, Memory, Pace, Place},
    },
    store::{
        OneUse, Store,
        postgres::{Address, PostgresStore},
    },
};
use tokio::task::JoinSet;

/// How long the store may take to be itself again once the database is (docs/storage.md).
const RECOVERY: Duration = Duration::from_secs(10);

fn address(url: &str) -> Address {
    Address::read(&Secret::new(url)).unwrap()
}

/// The name of the database that a URL of the test server ends in.
fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

/// The URL of the same database, through a proxy.
fn by_proxy(proxy: &Proxy, url: &str) -> String {
    format!("postgres://postgres:{PASSWORD}@127.0.0.1:{}/{}", proxy.port(), name(url))
}

fn is_unavailable<T: std::fmt::Debug>(outcome: &Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::StoreUnavailable(_)))
}

/// The URL of a database whose host is asked after this port.
fn after(port: u16, url: &str) -> String {
    let (user, place) = url.split_once("://").unwrap().1.split_once('@').unwrap();
    format!("postgres://{user}@127.0.0.1:{port},{place}")
}

/// Tries something until it goes well.
async fn until_it_goes_well<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> T {
    let deadline = Instant::now() + RECOVERY;
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(Error::StoreUnavailable(_)) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("the store is not itself again: {error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_start_at_once_on_a_new_database_make_its_tables_once() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    // Where they meet is different each time: at the table's row in a catalogue, at its name, at the type of its rows.
    for _ in 0..8 {
        let url = server.database();
        let mut starts = JoinSet::new();
        for _ in 0..8 {
            let address = address(&url);
            starts.spawn(async move { PostgresStore::open(address, 2).await.map(|_| ()) });
        }
        for started in starts.join_all().await {
            started.unwrap();
        }
        assert_eq!(server.psql(name(&url), "SELECT COUNT(*) FROM schema_migrations"), "3");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_an_older_version_are_brought_up_to_date_with_all_that_they_hold() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let first = include_str!("../../src/store/postgres/migrations/001_tables.sql");
    let noted = "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now()); \
                 INSERT INTO schema_migrations (version) VALUES (1); INSERT INTO used_up (hash, kept_until) VALUES ('\\x07', 5)";
    server.psql(name(&url), first);
    server.psql(name(&url), noted);
    let mut starts = JoinSet::new();
    for _ in 0..3 {
        let address = address(&url);
        starts.spawn(async move { PostgresStore::open(address, 2).await.map(|_| ()) });
    }
    for started in starts.join_all().await {
        started.unwrap();
    }
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*), MAX(version) FROM schema_migrations"), "3|3");
    assert_eq!(server.psql(name(&url), "SELECT COUNT(*) FROM used_up"), "1");
    let scene = Scene::new(&address(&url)).await;
    let family = scene.family(at(1)).await;
    assert!(scene.is_good(family, at(2)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_a_start_has_left_behind_without_noting_them_are_made_use_of() {
    if !is_wanted() {
        return;
    }
    // As after a start that was killed, where the database does not undo what was made of tables.
    let server = PostgresServer::shared();
    for last in ["001_tables", "002_counts"] {
        let url = server.database();
        server.psql(name(&url), include_str!("../../src/store/postgres/migrations/001_tables.sql"));
        if last == "002_counts" {
            server.psql(name(&url), include_str!("../../src/store/postgres/migrations/002_counts.sql"));
        }
        let scene = Scene::new(&address(&url)).await;
        let family = scene.family(at(1)).await;
        assert!(scene.is_good(family, at(2)).await, "{last}");
        for table in ["guards", "probes"] {
            let twice = format!("SELECT COUNT(*) - COUNT(DISTINCT t::text) FROM {table} t");
            assert_eq!(server.psql(name(&url), &twice), "0", "{last}");
        }
    }
}

/// The columns with a collation of their own.
const COLLATIONS: &str = "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = 'public' AND collation_name IS NOT NULL";

/// Has a database say that it is CockroachDB, have its setting, and note what is set.
const COCKROACH: &str = "CREATE SCHEMA other; CREATE TABLE other.told (setting text, value text, ours boolean); \
    CREATE FUNCTION other.version() RETURNS text LANGUAGE sql AS $$ SELECT 'CockroachDB CCL v25.4.1 (x86_64-pc-linux-gnu)' $$; \
    CREATE VIEW other.pg_settings AS SELECT 'autocommit_before_ddl' AS name UNION ALL SELECT name FROM pg_catalog.pg_settings; \
    CREATE FUNCTION other.set_config(setting text, value text, ours boolean) RETURNS text LANGUAGE sql AS \
    $$ INSERT INTO other.told VALUES (setting, value, ours) RETURNING 'off' $$;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_database_is_cockroachdb_tables_have_no_collations_and_are_made_in_one_transaction() {
    if !is_wanted() {
        return;
    }
    // No CockroachDB, but all that it is told otherwise.
    let server = PostgresServer::shared();
    let url = server.database();
    server.psql(name(&url), COCKROACH);
    server.psql(name(&url), &format!("ALTER DATABASE {} SET search_path = public, other, pg_catalog", name(&url)));
    let scene = Scene::new(&address(&url)).await;
    let family = scene.family(at(1)).await;
    assert!(scene.is_good(family, at(2)).await);
    assert_eq!(server.psql(name(&url), COLLATIONS), "0");
    assert_eq!(server.psql(name(&url), "SELECT DISTINCT setting, value, ours FROM other.told"), "autocommit_before_ddl|off|t");
    let plain = server.database();
    drop(database::open(&address(&plain)).await);
    assert_eq!(server.psql(name(&plain), COLLATIONS), "6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_listed_by_their_bytes_whatever_the_databases_locale() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database_with("LOCALE_PROVIDER icu ICU_LOCALE 'en'");
    let by_its_own = "SELECT string_agg(n, '' ORDER BY n) FROM unnest(ARRAY['b', 'B', 'a', 'é', 'Z']) AS n";
    assert_eq!(server.psql(name(&url), by_its_own), "abBéZ");
    let store = database::open(&address(&url)).await;
    store.create_users(["b", "B", "a", "é", "Z"].map(scene::user).into()).await.unwrap();
    let listed: Vec<String> = store.users(None, 10).await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(listed, ["B", "Z", "a", "b", "é"]);
    let listed: Vec<String> = store.users(Some("Z".to_owned()), 2).await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(listed, ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_starts_waits_for_a_migration_as_long_as_it_takes() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    server.psql(name(&url), include_str!("../../src/store/postgres/migrations/001_tables.sql"));
    server.psql(
        name(&url),
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now()); \
         INSERT INTO schema_migrations (version) VALUES (1)",
    );
    // Longer than any step may take that a caller waits for.
    let holder = crowds::hold(server, &url, "INSERT INTO schema_migrations (version) VALUES (2)", "SELECT pg_sleep(8)", "ROLLBACK").await;
    PostgresStore::open(address(&url), 2).await.unwrap();
    holder.join().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_a_newer_version_are_refused_with_what_to_do() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    drop(database::open(&address(&url)).await);
    server.psql(name(&url), "INSERT INTO schema_migrations (version) VALUES (99)");
    let refused = PostgresStore::open(address(&url), 2).await.unwrap_err().to_string();
    assert!(refused.contains("version 99") && refused.contains("newer one"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_not_every_name_fits_in_is_refused_with_what_to_do() {
    if !is_wanted() {
        return;
    }
    let url = PostgresServer::shared().database_with("ENCODING 'LATIN1' LOCALE 'C'");
    let refused = PostgresStore::open(address(&url), 2).await.unwrap_err().to_string();
    assert!(refused.contains("LATIN1") && refused.contains("ENCODING 'UTF8'"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_tells_the_password_of_the_database() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let place = format!("127.0.0.1:{}", server.port());
    for url in [
        format!("postgres://postgres:{PASSWORD}x@{place}/postgres"),
        format!("postgres://postgres:{PASSWORD}@{place}/nowhere"),
        format!("postgres://postgres:{PASSWORD}@{place}/postgres?sslmode=verify-full"),
        format!("postgres://postgres:{PASSWORD}@127.0.0.1:1/postgres"),
    ] {
        let error = PostgresStore::open(address(&url), 2).await.unwrap_err().to_string();
        assert!(!error.contains(PASSWORD), "{error}");
        assert!(error.contains("127.0.0.1"), "it does not say where: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_of_the_database_costs_errors_while_it_is_away_and_nothing_after() {
    if !is_wanted() {
        return;
    }
    let mut server = PostgresServer::start(Vec::new());
    let scene = Scene::new(&address(&server.database())).await;
    let (family, code) = (scene.family(at(1)).await, scene.code(at(1)).await);
    scene.rotate(family, 0, at(2)).await.unwrap();
    let used = new_hash();
    assert!(scene.store.use_once(OneUse { hash: used, until: at(1000) }).await.unwrap());
    server.crash();
    assert!(is_unavailable(&scene.store.grant(family, at(3)).await), "nothing is valid while nobody can be asked");
    assert!(is_unavailable(&scene.store.use_once(OneUse { hash: used, until: at(1000) }).await));
    assert!(is_unavailable(&scene.store.probe().await));
    server.resume();
    until_it_goes_well(async || scene.store.probe().await).await;
    // At every connection of the pool.
    for _ in 0..20 {
        assert_eq!(scene.store.grant(family, at(3)).await.unwrap().unwrap().family.generation, 1);
    }
    assert_eq!(scene.store.use_once(OneUse { hash: used, until: at(1000) }).await, Ok(false));
    assert!(scene.redeem(&code, at(3)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_of_a_newer_version_is_not_given_and_not_taken_away() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    for table in ["users", "apps"] {
        server.psql(name(&url), &format!("UPDATE {table} SET rights = '{{tokens.inspect,of.a.newer.version}}'"));
    }
    let app = scene.store.app(&scene.app.id).await.unwrap().unwrap();
    let user = scene.store.user(scene.user.id).await.unwrap().unwrap();
    for rights in [&app.rights, &user.rights] {
        assert_eq!(rights.names().collect::<Vec<_>>(), ["tokens.inspect"]);
    }
    let none = Rights::default();
    scene.store.update_app(&app.id, change(move |app: &mut App| app.rights = none.clone())).await.unwrap();
    scene.store.update_user(user.id, change(|user: &mut User| user.account_type = 0), at(1)).await.unwrap();
    assert_eq!(server.psql(name(&url), "SELECT rights FROM apps"), "{of.a.newer.version}");
    assert_eq!(server.psql(name(&url), "SELECT rights FROM users"), "{tokens.inspect,of.a.newer.version}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_left_and_acknowledges_nothing() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    server.psql("postgres", &format!("ALTER DATABASE {} SET default_transaction_read_only = on", name(&url)));
    // Connections that are there keep taking writes, as the setting is one of new ones: they are as a standby's would be.
    server.psql("postgres", &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", name(&url)));
    for _ in 0..3 {
        assert!(is_unavailable(&scene.store.use_once(OneUse { hash: new_hash(), until: at(1000) }).await));
    }
    server.psql("postgres", &format!("ALTER DATABASE {} RESET default_transaction_read_only", name(&url)));
    assert!(until_it_goes_well(async || scene.store.use_once(OneUse { hash: new_hash(), until: at(1000) }).await).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_gives_nothing_out_and_asking_again_is_safe() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let scene = Scene::new(&address(&url)).await;
    let (family, code) = (scene.family(at(1)).await, scene.code(at(1)).await);
    let proxy = Proxy::start(server.port()).await;
    let by_proxy = by_proxy(&proxy, &url);
    let Scene { store, .. } = &scene;
    let direct = std::sync::Arc::clone(store);
    let lossy = Scene { store: database::open(&address(&by_proxy)).await, ..scene };

    proxy.lose_the_next(b"UPDATE 1");
    assert!(is_unavailable(&lossy.rotate(family, 0, at(2)).await));
    assert_eq!(direct.grant(family, at(2)).await.unwrap().unwrap().family.generation, 1, "it was committed");
    let again = lossy.rotate(family, 0, at(3)).await.unwrap();
    assert_eq!(again.family.generation, 1, "the same successor");

    proxy.lose_the_next(b"INSERT 0 1");
    assert!(is_unavailable(&lossy.redeem(&code, at(4)).await));
    assert_eq!(lossy.redeem(&code, at(5)).await, Err(Error::CodeReplayed), "never a second pair");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_somebody_owes_is_taken_by_one_of_many_and_by_another_when_he_is_gone() {
    if !is_wanted() {
        return;
    }
    let scene = Scene::new(&address(&PostgresServer::shared().database())).await;
    scene.family(at(1)).await;
    scene.store.end_session(scene.session.id, at(2)).await.unwrap();
    let take = async |owed: &OwedLogout, until: Timestamp| {
        let mut takers = JoinSet::new();
        for number in 0..20 {
            let (store, owed) = (if number % 2 == 0 { scene.store.clone() } else { scene.other.clone() }, owed.clone());
            takers.spawn(async move { store.take_logout(&owed, until).await.unwrap() });
        }
        takers.join_all().await.into_iter().filter(|taken| *taken).count()
    };
    let owed = scene.other.due_logouts(4, at(2)).await.unwrap().remove(0);
    assert_eq!(take(&owed, at(32)).await, 1);
    assert_eq!(scene.store.due_logouts(4, at(31)).await.unwrap(), []);
    let left = scene.store.due_logouts(4, at(32)).await.unwrap().remove(0);
    assert_eq!((left.id, left.tries), (owed.id, 0), "the same call: who took it has not said what became of it");
    assert_eq!(take(&left, at(62)).await, 1);
}

/// A clock that stands: with hours between one failure and the next, the database's does as good as that, too.
#[derive(Debug)]
struct Standing;

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        at(1)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_counted_in_the_database_as_they_are_in_memory() {
    if !is_wanted() {
        return;
    }
    let stores = [
        PostgresStore::open(address(&PostgresServer::shared().database()), 2)
            .await
            .map(|store| Arc::new(store) as Arc<dyn Counts>)
            .unwrap(),
        Arc::new(Memory::new(Arc::new(Standing))) as Arc<dyn Counts>,
    ];
    let every = Duration::from_hours(1);
    let failure = |number: u64| {
        let kind = [Kind::Name, Kind::PasswordAddress][usize::from(number.is_multiple_of(2))];
        // The numbers of places are whatever a hash gives, above the greatest number of the database's, too.
        let place = Place { kind, number: number << 61 | number };
        Failure { place, pace: Pace { every, most: every * u32::try_from(number + 2).unwrap() } }
    };
    let his = Place { kind: Kind::His, number: 7 };
    for counts in stores {
        let outcomes = async |failures: &[Failure]| {
            let mut outcomes = Vec::new();
            for _ in 0..6 {
                outcomes.push(counts.count(failures).await.is_ok());
            }
            outcomes.iter().filter(|counted| **counted).count()
        };
        let left = async |number| counts.left(&[failure(number).place, his]).await.unwrap();
        assert_eq!(outcomes(&[failure(0)]).await, 2);
        assert_eq!(outcomes(&[failure(7), failure(5), failure(0)]).await, 0, "where one is too much none is counted");
        assert_eq!(left(7).await, [Duration::ZERO; 2]);
        assert_eq!(outcomes(&[failure(1), failure(2)]).await, 3);
        counts.take_back(&[(failure(1).place, every), (failure(2).place, Duration::MAX), (failure(3).place, every)]).await.unwrap();
        assert_eq!(outcomes(&[failure(1), failure(2)]).await, 1);
        assert_eq!(outcomes(&[failure(2)]).await, 3);
        // Several who sign in at once under one name are right one after the other.
        for _ in 0..6 {
            counts.take_back(&[(failure(2).place, Duration::MAX)]).await.unwrap();
        }
        assert_eq!(outcomes(&[failure(2)]).await, 4);
        // As it is once a clock that was far ahead is set right.
        let ahead = Failure { pace: Pace { every, most: every * 50 }, ..failure(3) };
        for _ in 0..8 {
            counts.count(&[ahead]).await.unwrap();
        }
        assert_eq!(outcomes(&[failure(3)]).await, 5, "more than there can be is forgiven");

        assert!(!counts.note(his, every).await.unwrap() && counts.note(his, every).await.unwrap());
        let [none, noted] = left(4).await[..] else { panic!("two places") };
        assert!(none.is_zero() && noted > every / 2 && noted <= every, "{noted:?}");

        // However many names there are, they have so many counts among them. A note is one party's own.
        let twin = |place: Place| Place { number: place.number ^ 1 << 40, ..place };
        counts.count(&[failure(4)]).await.unwrap();
        let left = counts.left(&[failure(4).place, his].map(twin)).await.unwrap();
        assert!(left[0] > every / 2 && left[1].is_zero(), "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_takes_connections_and_says_nothing_keeps_nobody_from_the_next_one() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    // The kernel takes connections for it, and nobody reads what they say.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = server.database();
    let url = after(silent.local_addr().unwrap().port(), &good);
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(address(&url), 2).await.unwrap());
    store.probe().await.unwrap();
    // From then on the one that has answered is asked first.
    silent.set_nonblocking(true).unwrap();
    let asked = || std::iter::from_fn(|| silent.accept().ok()).count();
    assert!(asked() > 0);
    server.psql(
        name(&good),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    );
    until_it_goes_well(async || store.probe().await).await;
    assert_eq!(asked(), 0, "the silent host was asked again");
}

/// How long health waits is as long as an address may take. A little less, and a little more.
const LESS: Duration = Duration::from_millis(1900);
const MORE: Duration = Duration::from_millis(2200);

/// What comes of it in time.
async fn within<T>(patience: Duration, asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let asked = tokio::time::timeout(patience, asked).await;
    asked.unwrap_or_else(|_| Err(Error::StoreUnavailable("too late".into())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_service_is_well_again_after_its_database_server_has_vanished_no_call_is_sent_to_that_one() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let (first, second) = (Proxy::start(server.port()).await, Proxy::start(server.port()).await);
    let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{},127.0.0.1:{}/{}", first.port(), second.port(), name(&server.database()));
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(address(&url), 8).await.unwrap());
    let use_one = || OneUse { hash: new_hash(), until: at(3) };
    // As many connections as there may be.
    first.far_away(50);
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let store = Arc::clone(&store);
        callers.spawn(async move { store.use_once(use_one()).await.unwrap() });
    }
    callers.join_all().await;
    first.far_away(u64::from(u32::MAX));
    until_it_goes_well(async || within(LESS, store.probe()).await).await;
    for _ in 0..16 {
        within(MORE, store.use_once(use_one())).await.expect("it was sent to the server that has gone");
    }
}

/// As a machine that has lost its power does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_falls_silent_keeps_nobody_who_waits_no_longer_than_for_a_probe_from_the_next_one() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let (first, second) = (Proxy::start(server.port()).await, Proxy::start(server.port()).await);
    let url = format!("postgres://postgres:{PASSWORD}@127.0.0.1:{},127.0.0.1:{}/{}", first.port(), second.port(), name(&server.database()));
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(address(&url), 2).await.unwrap());
    store.probe().await.unwrap();
    first.far_away(u64::from(u32::MAX));
    // Health waits 2 s, as long as an address may take. Whoever waits a little longer gives up when the next host has just been asked.
    second.far_away(100);
    within(MORE, store.probe()).await.unwrap_err();
    until_it_goes_well(async || within(MORE, store.probe()).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_says_nothing_keeps_nobody_from_the_next_one_of_the_same_name() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let leaves = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // Where the name stands for both, in whichever order.
    if tokio::net::lookup_host(("localhost", 0)).await.unwrap().count() < 2 {
        return;
    }
    for (silent, good) in [("127.0.0.1", "::1"), ("::1", "127.0.0.1")] {
        let Ok(silent) = TcpListener::bind((silent, 0)) else { return };
        let port = silent.local_addr().unwrap().port();
        let Ok(good) = tokio::net::TcpListener::bind((good, port)).await else { return };
        let _proxy = Proxy::listening(good, server.port());
        let url = server.database();
        let named = format!("postgres://postgres:{PASSWORD}@localhost:{port}/{}", name(&url));
        let store: Arc<dyn Store> = Arc::new(PostgresStore::open(address(&named), 2).await.unwrap());
        store.probe().await.unwrap();
        // Nor whoever waits no longer than an address may take, as health does.
        server.psql(name(&url), leaves);
        until_it_goes_well(async || within(LESS, store.probe()).await).await;
    }
}

/// With these settings PostgreSQL reads a whole table only if there is no other way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_callers_wait_for_reads_a_whole_table() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::start(vec![("enable_seqscan", "off".into())]);
    let url = server.database();
    // Making the tables reads them, which is counted once whoever has made them is gone.
    drop(database::open(&address(&url)).await);
    let others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    while server.psql(name(&url), others) != "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.psql(name(&url), "SELECT pg_stat_reset()");
    let scene = Scene::new(&address(&url)).await;
    let family = scene.family(at(1)).await;
    scene.rotate(family, 0, at(2)).await.unwrap();
    assert!(scene.is_good(family, at(2)).await && scene.is_signed_in(&scene.session, at(2)).await);
    scene.store.user_named("ann").await.unwrap();
    scene.store.use_once(OneUse { hash: new_hash(), until: at(3) }).await.unwrap();
    scene.store.end_session(scene.session.id, at(4)).await.unwrap();
    scene.store.due_logouts(4, at(4)).await.unwrap();
    scene.store.purge(at(100_000)).await.unwrap();
    let scanned = server.psql(
        name(&url),
        "SELECT pg_stat_force_next_flush(); SELECT relname || ' ' || seq_scan FROM pg_stat_user_tables WHERE seq_scan > 0 AND relname IN \
         ('apps', 'users', 'sessions', 'families', 'ended_families', 'codes', 'used_up', 'links')",
    );
    assert_eq!(scanned.trim(), "");
}
