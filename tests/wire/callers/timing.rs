//! That the time of a refusal does not tell why it was refused (security.md, G11).

use std::time::{Duration, Instant};

use crate::harness::{App, Call, Case, Op, Setup, User, Via, Who, World, forged, valid};

/// The two-sample Kolmogorov-Smirnov statistic, as a multiple of what chance exceeds in one of a hundred cases.
fn distance(one: &mut [Duration], other: &mut [Duration]) -> f64 {
    one.sort_unstable();
    other.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    let below = |sample: &[Duration], at: Duration| sample.partition_point(|time| *time <= at) as f64 / sample.len() as f64;
    let greatest = one.iter().chain(&*other).map(|at| (below(one, *at) - below(other, *at)).abs()).fold(0.0, f64::max);
    #[expect(clippy::cast_precision_loss, reason = "they are small")]
    let (n, m) = (one.len() as f64, other.len() as f64);
    greatest / (1.628 * ((n + m) / (n * m)).sqrt())
}

/// Compares the times of two calls over so many interleaved pairs. Chance makes one of a hundred comparisons fail, so there are three.
async fn assert_alike(world: &World, via: Via, pairs: usize, calls: [&Call; 2], case: Option<Case>) {
    let mut distances = Vec::new();
    for _ in 0..3 {
        let mut times = [Vec::with_capacity(pairs), Vec::with_capacity(pairs)];
        for pair in 0..pairs {
            for turn in 0..2 {
                // Which comes first changes, with no period that something else could share, so that neither gains by it.
                let which = (pair.count_ones() as usize + turn) % 2;
                let begun = Instant::now();
                let reply = world.call(via, calls[which]).await;
                times[which].push(begun.elapsed());
                match case {
                    Some(case) => reply.refused(case),
                    None => assert!(!reply.valid()),
                }
            }
        }
        let [one, other] = &mut times;
        distances.push(distance(one, other));
        if distances.last().is_some_and(|distance| *distance < 1.0) {
            return;
        }
    }
    panic!("the times of {:?} over {via:?} differ: {distances:?}", calls[0].op);
}

fn unknown_and_wrong(app: &App) -> [Call; 2] {
    let unknown: String = app.id.chars().rev().collect();
    [valid("x").by(App::signing(&unknown, "wrong")), valid("x").by(App::signing(&app.id, "wrong"))]
}

#[tokio::test]
async fn g11_an_unknown_access_key_and_a_wrong_signature_take_as_long() {
    let world = World::own(Setup::default()).await;
    let app = world.app().await;
    world.call(Via::Envoy, &valid("x").by(app.who())).await.ok();
    let [unknown, wrong] = unknown_and_wrong(&app);
    assert_alike(&world, Via::Envoy, 2000, [&unknown, &wrong], Some(Case::Caller)).await;
}

/// Takes a quarter of an hour: `make soak`.
#[tokio::test]
#[ignore = "it takes a quarter of an hour: make soak"]
async fn g11_every_pair_of_refusals_that_must_not_be_told_apart_takes_as_long_on_both_surfaces() {
    let world = World::own(Setup::default().argument("--failures-per-name", "100")).await;
    let (app, user, ticket, tokens) = world.family().await;
    let disabled = world.app().await;
    let request =
        world.as_admin(supos_auth::grpc::pb::supos::auth::admin::v1::DisableAppRequest { name: format!("apps/{}", disabled.id) }).await;
    world.apps().disable_app(request).await.expect("it can be disabled");
    let ended = tokens.clone();
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    for via in Via::BOTH {
        let [unknown, wrong] = unknown_and_wrong(&app);
        assert_alike(&world, via, 10_000, [&unknown, &wrong], Some(Case::Caller)).await;
        assert_alike(&world, via, 10_000, [&wrong, &valid("x").by(disabled.who())], Some(Case::Caller)).await;
        let [unknown, ended] = [forged(&ended.access), ended.access.clone()].map(|token| valid(&token).by(app.who()));
        assert_alike(&world, via, 10_000, [&unknown, &ended], None).await;
    }
    // A name has a hundred tries, so each pair has a user of its own.
    let mut times = [Vec::new(), Vec::new()];
    for pair in 0..2000 {
        let user: User = if pair == 0 { user.clone() } else { world.user().await };
        for turn in 0..2 {
            let which = (pair + turn) % 2;
            let name = if which == 0 { user.name.clone() } else { user.name.chars().rev().collect() };
            let call = Call::new(Op::SignIn).with("userName", name).with("password", "not the password");
            let begun = Instant::now();
            world.call(Via::Native, &call).await.refused(Case::Password);
            times[which].push(begun.elapsed());
        }
    }
    let [one, other] = &mut times;
    assert!(distance(one, other) < 1.0, "the times of an unknown user and a wrong password differ");
}
