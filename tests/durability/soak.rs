//! The service works at full rate for a long time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    dice::minutes,
    harness::{App, Call, Op, Reply, User, Via, Who, World, authorize, exchange, refresh},
    kills,
};

/// No call may take longer.
const LIMIT: Duration = Duration::from_secs(2);

/// One client: how many calls it has made, and how long the slowest took.
struct Client {
    world: Arc<World>,
    app: App,
    user: User,
    calls: u64,
    slowest: Duration,
}

impl Client {
    async fn call(&mut self, call: Call) -> Reply {
        let begun = Instant::now();
        let reply = self.world.call(Via::Native, &call).await;
        reply.ok();
        self.calls += 1;
        self.slowest = self.slowest.max(begun.elapsed());
        reply
    }

    /// A session from its beginning to its end.
    async fn live(&mut self) {
        let ticket = self.world.sign_in(&self.user).await;
        for _ in 0..20 {
            let code = self.call(authorize(Op::Authorize, &self.app).by(Who::ticket(&ticket))).await.text_of("code");
            let mut tokens = self.call(exchange(Op::TokenV2, &self.app, &code)).await.tokens();
            for _ in 0..10 {
                tokens = self.call(refresh(Op::TokenV2, &tokens.refresh).by(self.app.who())).await.tokens();
            }
        }
        self.call(Call::new(Op::SignOut).by(Who::ticket(&ticket))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes half an hour"]
async fn h20_c8_no_call_is_slow_however_long_the_service_works_at_full_rate() {
    let end = Instant::now() + Duration::from_secs(60 * minutes(30));
    let world = Arc::new(World::own(kills::setup().argument("--log", "warn")).await);
    let mut tasks = JoinSet::new();
    for _ in 0..16 {
        let (app, user) = (world.app().await, world.user().await);
        let mut client = Client { world: Arc::clone(&world), app, user, calls: 0, slowest: Duration::ZERO };
        tasks.spawn(async move {
            while Instant::now() < end {
                client.live().await;
            }
            (client.calls, client.slowest)
        });
    }
    let (calls, slowest): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().unzip();
    let slowest = slowest.into_iter().max().expect("there were clients");
    println!("{} calls, the slowest took {} ms", calls.iter().sum::<u64>(), slowest.as_millis());
    assert!(slowest < LIMIT, "a call took {slowest:?}");
}
