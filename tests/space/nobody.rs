//! What callers without a credential can fill the store with.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;

use supos_auth::core::model::Authority;

use crate::{
    authorities::{Browser, Fake, Says, registered, ticket},
    harness::{Call, Case, Op, Setup, Via, Who, World},
    leftovers::keys,
};

/// How many call at once.
const CALLERS: usize = 16;

/// The most records that such callers may leave, however often they call.
const MOST: usize = 1000;

fn no_code() -> Says {
    Says::status("400 Bad Request", r#"{"error": "invalid_grant"}"#)
}

/// An authority that gives no code, and a browser that begins to sign in at it.
struct Elsewhere {
    fake: Fake,
    authority: Authority,
    browser: Browser,
}

impl Elsewhere {
    async fn of(world: &World) -> Self {
        let fake = Fake::of("subject", "nobody").await;
        fake.token_says(no_code());
        let authority = registered(world, &fake, |_| {}).await;
        Self { fake, authority, browser: Browser::of(world).await }
    }

    /// Comes back with nothing that the authority has said.
    fn calls(&self, world: &World) -> [Call; 2] {
        [("error", "access_denied"), ("code", "made-up")].map(|said| self.browser.begins(world, &self.authority).back_with(&[said]))
    }
}

/// How many records a stopped service has.
fn records(world: &World) -> usize {
    keys(&world.data()).values().sum()
}

/// What nobody in particular may try, the `round`th time.
fn calls(round: usize) -> [Call; 9] {
    let new = |op| Call::new(op);
    let code = format!("code-{round}");
    [
        new(Op::SignIn).with("userName", format!("nobody-{round}")).with("password", "a-guess-of-some-length"),
        new(Op::SignIn).with("userName", "demo").with("password", format!("guess-{round}-of-some-length")),
        new(Op::Authorize)
            .with("responseType", "code")
            .with("appid", "demo-app")
            .with("redirectUri", "http://127.0.0.1:9999/in")
            .with("state", format!("state-{round}"))
            .by(Who::ticket(&format!("ticket-{round}"))),
        new(Op::TokenV2)
            .with("grantType", "authorization_code")
            .with("code", &code)
            .with("logoutUri", "/logout")
            .by(Who::authorization(&format!("Sign app-{round}-{round:064x}"))),
        new(Op::ExchangeV281).with("appid", "demo-app").with("code", code).by(Who::authorization(&format!("Sign demo-app-{round:064x}"))),
        new(Op::Valid).with("accessToken", format!("token-{round}")),
        new(Op::SignOut).by(Who::ticket(&format!("ticket-{round}"))),
        new(Op::ThirdParty).with("code", format!("code-{round}")).with("state", format!("state-{round}")),
        new(Op::CreateIdentityProvider)
            .with("clientType", "internal")
            .with("protocolType", "bluetron")
            .with("clientName", format!("authority-{round}"))
            .with("enabled", "true")
            .with("clientId", "id")
            .with("clientSecret", "a-client-secret")
            .with("authorizationUri", "https://authority.invalid/authorize")
            .with("tokenUri", "https://authority.invalid/token")
            .with("userinfoUri", "https://authority.invalid/userinfo")
            .with("logoutUri", "https://authority.invalid/logout"),
    ]
}

async fn call_as_nobody(rounds: usize) {
    // As shipped: what comes back from an authority is used up, and leaves a record, only as often as failures of an address are free.
    let mut world = World::own(Setup::default().argument("--failures-per-address", "100")).await;
    let elsewhere = Arc::new(Elsewhere::of(&world).await);
    world.terminate();
    let before = records(&world);
    world.restart(|_| ());
    let shared = Arc::new(world);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (world, elsewhere) = (Arc::clone(&shared), Arc::clone(&elsewhere));
        callers.spawn(async move {
            for round in (caller..rounds).step_by(CALLERS) {
                for (at, call) in calls(round).into_iter().chain(elsewhere.calls(&world)).enumerate() {
                    world.call(Via::BOTH[(round + at) % 2], &call).await;
                }
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.expect("every call is answered");
    }
    let mut world = Arc::into_inner(shared).expect("nobody calls any more");
    world.terminate();
    let after = keys(&world.data());
    let left = after.values().sum::<usize>().saturating_sub(before);
    assert!(left <= MOST, "{rounds} rounds have left {left} records: {after:?}");
    println!("{rounds} rounds of {} calls have left {left} records", calls(0).len() + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_callers_without_a_credential_leave_next_to_nothing_in_the_store() {
    call_as_nobody(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_sign_ins_at_an_authority_that_come_to_nothing_leave_no_more_records_than_failures_are_free() {
    const FREE: usize = 5;
    let mut world = World::own(Setup::default().argument("--failures-per-address", &FREE.to_string())).await;
    let elsewhere = Elsewhere::of(&world).await;
    world.terminate();
    let before = records(&world);
    world.restart(|_| ());
    for round in 0..10 * FREE {
        for call in elsewhere.calls(&world) {
            assert!(!world.call(Via::BOTH[round % 2], &call).await.is_ok());
        }
    }
    world.terminate();
    // Each is a record, and one that says when it goes. One more failure is free every ten seconds, and these took some.
    let left = records(&world).saturating_sub(before);
    assert!((2 * FREE..4 * FREE).contains(&left), "{left} records");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_sign_ins_that_come_to_nothing_leave_no_more_records_from_many_addresses_and_every_good_one_stays_used_up() {
    const KEPT: usize = 256;
    const GONE: usize = 30;
    let mut world = World::own(Setup { trusted_hops: 1, ..Setup::default() }).await;
    let user = world.user().await;
    let Elsewhere { fake, authority, browser } = Elsewhere::of(&world).await;
    world.terminate();
    let before = records(&world);
    world.restart(|_| ());
    let back = |world: &World, round: usize| {
        browser.begins(world, &authority).back().header("x-forwarded-for", &format!("198.18.{}.{}", round / 200, round % 200))
    };

    // A caller who does not wait for the answer is counted like the others.
    fake.token_says(Says::Nothing);
    for round in 0..GONE {
        let call = back(&world, round);
        let asked = async {
            while fake.asked().len() <= round {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            reply = world.call(Via::Envoy, &call) => panic!("the authority says nothing: {}", reply.text),
            () = asked => {}
        }
    }
    fake.user_says(Says::json(&json!({"sub": "somebody", "preferred_username": user.name})));
    fake.token_says(Says::json(&json!({"access_token": "upstream-token", "token_type": "Bearer"})));
    let good = back(&world, GONE);
    ticket(&world, &world.call(Via::Envoy, &good).await);
    fake.token_says(no_code());
    let mut last = good.clone();
    for round in GONE + 1..GONE + KEPT + 50 {
        last = back(&world, round);
        world.call(Via::Envoy, &last).await.refused(Case::TokenCall);
    }
    for used in [&good, &last] {
        world.call(Via::Envoy, used).await.refused(Case::Parameter);
    }
    world.terminate();
    let after = keys(&world.data());
    let left = after.values().sum::<usize>().saturating_sub(before);
    // Each is a record, and one that says when it goes; whoever is signed in has left some, too.
    assert!((2 * KEPT..2 * KEPT + 20).contains(&left), "{left} records: {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a million calls; run by make soak"]
async fn d9_a_million_calls_without_a_credential_leave_a_thousand_records_at_most() {
    call_as_nobody(91_000).await;
}
