//! Calls are made until the app has taken them, and nobody waits for somebody else's server.

use std::time::{Duration, Instant};

use supos_auth::grpc::pb::supos::auth::admin::v1::{App as AdminApp, LogoutDeliveryState, UpdateAppRequest};

use super::{app_at, deliveries, failed, logged, owed, settled, sign_out, tokens_with, told, until, verified};
use crate::harness::{
    App, Call, Op, Pair, Setup, Via, Who, World, claims,
    sink::{Manner, Sink},
};

const OK: Manner = Manner::Status(200, None);

#[tokio::test]
async fn a51_a_call_is_repeated_with_the_same_jti_until_the_app_takes_it() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (sink, (_, ticket)) = (Sink::start(Manner::Failing(3)), world.signed_in().await);
    let app = app_at(&world, &sink).await;
    let tokens = world.tokens(&app, &ticket).await;
    let mark = world.service_log.mark();
    sign_out(&world, &ticket).await;
    let mut calls = Vec::new();
    for tries in 0..4 {
        let call = sink.next().await;
        calls.push(verified(&world, &app, &call).await);
        if tries < 3 {
            let waiting = until(async || owed(&world, &app).await.into_iter().find(|owed| owed.tries > tries)).await;
            assert_eq!(waiting.last_error, "the app answered 500");
            let next = waiting.next_try_time.expect("a time").seconds - world.now();
            assert!(next <= 16, "{waiting:?}");
            world.step(60);
        }
    }
    assert!(calls.iter().all(|call| call["jti"] == calls[0]["jti"] && call["sid"] == claims(&tokens.access)["sid"]));
    assert!(calls[3]["iat"].as_i64() > calls[0]["iat"].as_i64(), "each try has a fresh token");
    settled(&world, &app).await;
    assert_eq!(sink.connections(), 4);
    assert_eq!(logged(&world, mark, "an app was told", &app)["tries"], 4);
}

#[tokio::test]
async fn every_2xx_is_taken_for_delivered_and_every_other_status_is_repeated() {
    let world = World::own(Setup::default()).await;
    let mut scenes = Vec::new();
    let (_, ticket) = world.signed_in().await;
    for status in [200, 202, 204, 299, 301, 304, 400, 401, 404, 410, 429, 500, 503] {
        let sink = Sink::start(Manner::Status(status, None));
        let app = app_at(&world, &sink).await;
        world.tokens(&app, &ticket).await;
        scenes.push((status, sink, app));
    }
    sign_out(&world, &ticket).await;
    for (status, sink, app) in &scenes {
        sink.next().await;
        if *status < 300 {
            settled(&world, app).await;
        } else {
            assert_eq!(failed(&world, app).await.last_error, format!("the app answered {status}"));
        }
    }
}

/// A call that is owed survives what `end` does to the service.
async fn owed_calls_survive(end: impl FnOnce(&mut Pair)) {
    let mut world = World::own(Setup::default()).await;
    let sinks = [Sink::start(Manner::Never), Sink::start(Manner::Never)];
    let apps = [app_at(&world, &sinks[0]).await, app_at(&world, &sinks[1]).await];
    let (_, ticket) = world.signed_in().await;
    let tokens = [world.tokens(&apps[0], &ticket).await, world.tokens(&apps[1], &ticket).await];
    sign_out(&world, &ticket).await;
    // The calls are under way, and nobody has answered them.
    let first = sinks[0].next().await;
    sinks[1].next().await;
    world.restart(|pair| {
        end(pair);
        for sink in &sinks {
            sink.behave(OK);
        }
    });
    let jti = told(&world, &sinks[0], &apps[0], &tokens[0]).await;
    assert_eq!(claims(&first.token())["jti"], jti.as_str(), "the app can tell that it is the same call");
    told(&world, &sinks[1], &apps[1], &tokens[1]).await;
    settled(&world, &apps[0]).await;
    settled(&world, &apps[1]).await;
    // What was settled stays so.
    world.restart(Pair::kill);
    assert!(deliveries(&world, LogoutDeliveryState::Owed, "").await.is_empty());
}

#[tokio::test]
async fn a51_a_call_that_is_owed_survives_a_kill() {
    owed_calls_survive(Pair::kill).await;
}

#[tokio::test]
async fn a51_a_call_that_is_owed_survives_a_graceful_restart() {
    owed_calls_survive(Pair::terminate).await;
}

#[tokio::test]
async fn a_sign_out_that_was_answered_is_owed_though_the_service_is_killed_at_once() {
    let mut world = World::own(Setup::default()).await;
    let (sink, app) = {
        let sink = Sink::start(OK);
        let app = app_at(&world, &sink).await;
        (sink, app)
    };
    for _ in 0..5 {
        let (_, ticket) = world.signed_in().await;
        let tokens = world.tokens(&app, &ticket).await;
        // Natively: Envoy may take the service for gone for a moment, after a kill before.
        world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
        world.restart(Pair::kill);
        // Once at least: it may have been made just before.
        let jti = told(&world, &sink, &app, &tokens).await;
        settled(&world, &app).await;
        for again in sink.rest().await {
            assert_eq!(claims(&again.token())["jti"], jti.as_str());
        }
    }
}

#[tokio::test]
async fn slow_dead_and_hostile_apps_delay_neither_the_user_nor_other_apps() {
    let world = World::own(Setup::default()).await;
    let forbidden = Sink::start(OK);
    let manners = [
        Manner::Never,
        Manner::Trickle,
        Manner::TrickledHead,
        Manner::Endless,
        Manner::Status(302, Some(forbidden.url("/logout"))),
        Manner::Status(307, Some(forbidden.url("/logout"))),
    ];
    let hostile: Vec<Sink> = manners.into_iter().map(Sink::start).collect();
    let good = Sink::start(OK);
    let good_app = app_at(&world, &good).await;
    let mut hostile_apps = Vec::new();
    for sink in &hostile {
        hostile_apps.push(app_at(&world, sink).await);
    }
    // Nobody listens there.
    let dead = super::app_with(&world, &["http://127.0.0.1:2/callback"], &["http://127.0.0.1:2/logout"]).await;
    hostile_apps.push(dead);
    // The first round is without them: what this machine needs.
    let mut alone = (Duration::ZERO, Duration::ZERO);
    for round in 0..4 {
        let (_, ticket) = world.signed_in().await;
        for app in hostile_apps.iter().filter(|_| round > 0) {
            world.tokens(app, &ticket).await;
        }
        let tokens = world.tokens(&good_app, &ticket).await;
        let begun = Instant::now();
        sign_out(&world, &ticket).await;
        let answered = begun.elapsed();
        told(&world, &good, &good_app, &tokens).await;
        let told = begun.elapsed();
        if round == 0 {
            alone = (answered, told);
        }
        // Whoever waited for one of the others would wait for five seconds.
        let (latest_answer, latest_call) = (alone.0 + Duration::from_secs(3), alone.1 + Duration::from_secs(4));
        assert!(answered < latest_answer && told < latest_call, "{answered:?}, {told:?}, alone {alone:?}");
    }
    for (at, error) in [
        (0, "no answer within 5 s"),
        (2, "no answer within 5 s"),
        (4, "the app answered 302"),
        (5, "the app answered 307"),
        (6, "no connection: "),
    ] {
        let failed = failed(&world, &hostile_apps[at]).await;
        assert!(failed.last_error.starts_with(error), "{failed:?}");
    }
    // A status is enough: it does not matter how its body comes.
    settled(&world, &hostile_apps[1]).await;
    settled(&world, &hostile_apps[3]).await;
    assert_eq!(forbidden.connections(), 0, "redirects are not followed");
}

#[tokio::test]
async fn many_calls_to_an_app_that_is_dead_do_not_delay_the_only_one_to_another() {
    let world = World::own(Setup::default()).await;
    let (dead, good) = (Sink::start(Manner::Never), Sink::start(OK));
    let (dead_app, good_app) = (app_at(&world, &dead).await, app_at(&world, &good).await);
    let user = world.user().await;
    for _ in 0..100 {
        let ticket = world.sign_in(&user).await;
        world.tokens(&dead_app, &ticket).await;
    }
    let ticket = world.sign_in(&user).await;
    let tokens = world.tokens(&good_app, &ticket).await;
    world.disable_user(&user).await;
    let begun = Instant::now();
    told(&world, &good, &good_app, &tokens).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(owed(&world, &dead_app).await.len(), 100);
    dead.next().await;
    assert!(dead.connections() <= 2, "and few calls at a time are made to the dead one: {}", dead.connections());
    // Once it answers it gets them all.
    dead.behave(OK);
    let mut jtis = std::collections::HashSet::new();
    while jtis.len() < 100 {
        jtis.insert(claims(&dead.next().await.token())["jti"].to_string());
    }
    settled(&world, &dead_app).await;
}

#[tokio::test]
async fn a_call_is_given_up_after_a_day_and_operators_see_it_for_three_more() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (sink, (_, ticket)) = (Sink::start(Manner::Status(503, None)), world.signed_in().await);
    let app = app_at(&world, &sink).await;
    world.tokens(&app, &ticket).await;
    sign_out(&world, &ticket).await;
    sink.next().await;
    failed(&world, &app).await;
    world.step(24 * 3600 - 60);
    sink.next().await;
    until(async || owed(&world, &app).await.into_iter().find(|owed| owed.tries >= 2)).await;
    let mark = world.service_log.mark();
    world.step(120);
    settled(&world, &app).await;
    let line = logged(&world, mark, "gave up telling an app", &app);
    assert_eq!((&line["level"], &line["last_error"]), (&"ERROR".into(), &"the app answered 503".into()));
    let app_name = format!("apps/{}", app.id);
    let given_up = deliveries(&world, LogoutDeliveryState::GivenUp, &app_name).await;
    assert_eq!(given_up.len(), 1);
    // One more may have come due before the day was over.
    let tries = i32::try_from(sink.connections()).expect("a number");
    assert_eq!((given_up[0].state(), given_up[0].tries), (LogoutDeliveryState::GivenUp, tries));
    sink.rest().await;
    assert!(given_up[0].give_up_time.is_some() && given_up[0].next_try_time.is_none());
    world.step(3 * 24 * 3600 - 60);
    assert_eq!(deliveries(&world, LogoutDeliveryState::GivenUp, &app_name).await.len(), 1);
    world.step(120);
    until(async || deliveries(&world, LogoutDeliveryState::GivenUp, &app_name).await.is_empty().then_some(())).await;
    assert_eq!(sink.rest().await.len(), 0, "nobody calls any more");
}

#[tokio::test]
async fn an_address_that_the_app_takes_back_is_not_called_again() {
    let world = World::own(Setup::default()).await;
    let (sink, (_, ticket)) = (Sink::start(Manner::Status(500, None)), world.signed_in().await);
    let app = app_at(&world, &sink).await;
    world.tokens(&app, &ticket).await;
    sign_out(&world, &ticket).await;
    failed(&world, &app).await;
    let changed = AdminApp {
        name: format!("apps/{}", app.id),
        redirect_uris: vec!["https://app.invalid/cb".to_owned()],
        logout_uris: Vec::new(),
        ..Default::default()
    };
    let mask = prost_types::FieldMask { paths: vec!["redirect_uris".to_owned(), "logout_uris".to_owned()] };
    let request = world.as_admin(UpdateAppRequest { app: Some(changed), update_mask: Some(mask) }).await;
    world.apps().update_app(request).await.expect("it is changed");
    settled(&world, &app).await;
    let given_up = deliveries(&world, LogoutDeliveryState::GivenUp, &format!("apps/{}", app.id)).await;
    assert!(given_up[0].last_error.contains("not on an origin that the app has registered"), "{given_up:?}");
}

#[tokio::test]
async fn sign_outs_at_the_same_time_owe_one_call() {
    let world = std::sync::Arc::new(World::own(Setup::default()).await);
    let sink = Sink::start(OK);
    let app = app_at(&world, &sink).await;
    let (_, ticket) = world.signed_in().await;
    let tokens = world.tokens(&app, &ticket).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..32 {
        let (world, ticket) = (std::sync::Arc::clone(&world), ticket.clone());
        calls.spawn(async move { world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await });
    }
    for reply in calls.join_all().await {
        reply.ok();
    }
    told(&world, &sink, &app, &tokens).await;
    settled(&world, &app).await;
    assert_eq!(sink.connections(), 1);
}

/// How long each of so many sign-outs takes until the user has his answer, the slowest last; each tells the good app.
async fn sign_outs(world: &World, sink: &Sink, app: &App) -> Vec<Duration> {
    let user = world.user().await;
    let mut took = Vec::new();
    for _ in 0..100 {
        let ticket = world.sign_in(&user).await;
        let tokens = world.tokens(app, &ticket).await;
        let begun = Instant::now();
        sign_out(world, &ticket).await;
        took.push(begun.elapsed());
        told(world, sink, app, &tokens).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
    took.sort();
    took
}

#[tokio::test]
#[ignore = "takes minutes: make soak"]
async fn ten_thousand_calls_owed_to_dead_apps_change_nothing_for_others() {
    const OWED: usize = 10_000;
    let world = World::own(Setup::default()).await;
    let (good, hostile) = (Sink::start(OK), [Sink::start(Manner::Never), Sink::start(Manner::TrickledHead), Sink::start(Manner::Endless)]);
    let good_app = app_at(&world, &good).await;
    let before = sign_outs(&world, &good, &good_app).await;

    let (_, ticket) = world.signed_in().await;
    let mut apps = Vec::new();
    for sink in &hostile {
        apps.push(app_at(&world, sink).await);
    }
    for at in 0..OWED {
        tokens_with(&world, &apps[at % apps.len()], &ticket, &format!("/out/{at}")).await;
    }
    let begun = Instant::now();
    sign_out(&world, &ticket).await;
    let all_at_once = begun.elapsed();
    let during = sign_outs(&world, &good, &good_app).await;

    let p99 = |took: &[Duration]| took[took.len() * 99 / 100];
    println!("one sign-out that owes {OWED} calls: {all_at_once:?}; p99 before {:?}, while they are owed {:?}", p99(&before), p99(&during));
    assert!(p99(&during) < p99(&before) * 3 + Duration::from_millis(50));
    // The body without end does not matter: that third is delivered, and the rest waits.
    until(async || owed(&world, &apps[2]).await.is_empty().then_some(())).await;
    assert!(hostile[0].connections() < 100 && hostile[1].connections() < 100, "the dead ones are not flooded");
    assert_eq!(owed(&world, &apps[0]).await.len(), 1000, "a whole page");
}
