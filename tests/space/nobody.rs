//! What callers without a credential can fill the store with.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::{
    harness::{Call, Op, Setup, Via, Who, World},
    leftovers::keys,
};

/// How many call at once.
const CALLERS: usize = 16;

/// The most records that such callers may leave, however often they call.
const MOST: usize = 1000;

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
    let mut world = World::own(Setup::default()).await;
    world.terminate();
    let before: usize = keys(&world.data()).values().sum();
    world.restart(|_| ());
    let shared = Arc::new(world);
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let world = Arc::clone(&shared);
        callers.spawn(async move {
            for round in (caller..rounds).step_by(CALLERS) {
                for (at, call) in calls(round).into_iter().enumerate() {
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
    println!("{rounds} rounds of {} calls have left {left} records", calls(0).len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_callers_without_a_credential_leave_next_to_nothing_in_the_store() {
    call_as_nobody(40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a million calls; run by make soak"]
async fn d9_a_million_calls_without_a_credential_leave_a_thousand_records_at_most() {
    call_as_nobody(112_000).await;
}
