//! Tokens and codes that come and go: what the files take for them, meanwhile and afterwards.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use supos_auth::store::{Maintenance as _, sled::SledStore};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::{
    harness::{App, Call, Op, Pair, Setup, User, Via, Who, World, authorize, exchange, refresh},
    measure::size,
};

/// How many clients are at it.
const CLIENTS: usize = 16;
/// How many tokens they get.
const TOKENS: u64 = 3_000_000;
/// How much more than twice what new files take is left alone.
const SMALL: u64 = 4 << 20;
/// How much more than four times what new files would take there may be while it works.
const LEEWAY: u64 = 64 << 20;
/// How long after the last call the files may go on to be larger than they may be at rest: until the next look, and the compaction.
const UNTIL_AT_REST: Duration = Duration::from_mins(5);

/// A session from its beginning to its end. Counts the tokens that it has got.
async fn live(world: &World, app: &App, user: &User, tokens: &AtomicU64) {
    let ticket = world.sign_in(user).await;
    for _ in 0..40 {
        let code = world.call(Via::Native, &authorize(Op::Authorize, app).by(Who::ticket(&ticket))).await.text_of("code");
        let exchanged = exchange(Op::TokenV2, app, &code);
        let mut newest = world.call(Via::Native, &exchanged).await.tokens();
        for _ in 0..10 {
            let refreshed = refresh(Op::TokenV2, &newest.refresh).by(Who::bearer(&newest.access));
            newest = world.call(Via::Native, &refreshed).await.tokens();
        }
        // An access token and a refresh token each time.
        tokens.fetch_add(22, Ordering::Relaxed);
    }
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
}

/// Runs a command of the program that needs no service.
fn run(arguments: &[&Path]) {
    let output = Command::new(env!("CARGO_BIN_EXE_supos-auth")).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What new files take that hold what the stopped service's store holds.
async fn need(data: &Path) -> u64 {
    let folder = TempDir::new().expect("a folder");
    let (backup, fresh) = (folder.path().join("backup"), folder.path().join("data"));
    run(&["backup".as_ref(), "--data-dir".as_ref(), data, &backup]);
    run(&["restore".as_ref(), &backup, "--data-dir".as_ref(), &fresh]);
    let store = SledStore::open(&fresh).expect("it opens");
    store.give_space_back().await.expect("it moves to new files where a restore has left more than they take");
    drop(store);
    size(&fresh)
}

/// Says that it is done when it is dropped, also by a test that fails.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ten minutes with `--release`. What `make test` has of this is in threshold.rs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "millions of tokens; run by make soak"]
async fn h23_millions_of_codes_and_tokens_that_come_and_go_take_no_more_of_the_disk_than_they_may() {
    // Codes are remembered twice as long as they work.
    let setup = Setup::default().argument("--code-lifetime", "10").argument("--log", "warn,supos_auth::app=info,supos_auth::store=info");
    let mut world = Arc::new(World::own(Setup { alone: true, ..setup }).await);
    let tokens = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (world, tokens) = (Arc::clone(&world), Arc::clone(&tokens));
        let (app, user) = (world.app().await, world.user().await);
        clients.spawn(async move {
            while tokens.load(Ordering::Relaxed) < TOKENS {
                live(&world, &app, &user, &tokens).await;
            }
        });
    }
    let (done, data) = (Done(Arc::default()), world.data());
    let looking = {
        let (done, data, tokens) = (Arc::clone(&done.0), data.clone(), Arc::clone(&tokens));
        tokio::task::spawn_blocking(move || {
            let mut most = 0;
            let mut said = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(size(&data));
                let now = tokens.load(Ordering::Relaxed);
                if now >= said + TOKENS / 10 {
                    said = now;
                    println!("{now} tokens after {:?}: {} MiB, {} MiB at the most", begun.elapsed(), size(&data) >> 20, most >> 20);
                }
                #[expect(clippy::disallowed_methods, reason = "a folder gives no event when it grows")]
                std::thread::sleep(Duration::from_millis(50));
            }
            most
        })
    };
    while clients.join_next().await.transpose().expect("no client fails").is_some() {}
    drop(done);
    let most = looking.await.expect("no panic");

    let mut own = Arc::into_inner(world).expect("the clients are done");
    own.terminate();
    let needed = need(&data).await;
    println!("{} tokens in {:?}: {most} bytes at the most, {needed} are needed", tokens.load(Ordering::Relaxed), begun.elapsed());
    assert!(most <= 4 * needed + LEEWAY, "{most} bytes where {needed} are needed");

    own.restart(|_: &mut Pair| ());
    world = Arc::new(own);
    let ended = Instant::now();
    let at_rest = || size(&world.data());
    while at_rest() > 2 * needed + SMALL {
        assert!(ended.elapsed() < UNTIL_AT_REST, "{} bytes at rest where {needed} are needed", at_rest());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{} bytes at rest, after {:?}", at_rest(), ended.elapsed());
}
