//! What operators see of the calls that are owed.

use std::process::Command;

use serde_json::Value;
use supos_auth::grpc::pb::supos::auth::admin::v1::{ListLogoutDeliveriesRequest, LogoutDeliveryState};
use tonic::Code;

use super::{app_at, deliveries, failed, logged, settled, sign_out, tokens_with, told, until};
use crate::harness::{
    Setup, Who, World, claims, native,
    sink::{Manner, Sink},
};

async fn metrics(world: &World) -> String {
    reqwest::get(format!("http://{}/metrics", world.ops())).await.expect("an answer").text().await.expect("metrics")
}

/// The value of a metric whose line has all of these in it.
fn value(metrics: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = metrics.lines().find(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test]
async fn operators_see_what_is_owed_page_by_page_and_what_went_wrong() {
    let world = World::own(Setup::default()).await;
    let (broken, good) = (Sink::start(Manner::Status(500, None)), Sink::start(Manner::Status(200, None)));
    let (app, other) = (app_at(&world, &broken).await, app_at(&world, &broken).await);
    let fine = app_at(&world, &good).await;
    let mark = world.service_log.mark();
    let mut sessions = Vec::new();
    for at in 0..5 {
        let (user, ticket) = world.signed_in().await;
        let tokens = tokens_with(&world, &app, &ticket, &format!("/out{at}?token=of-the-apps-own")).await;
        if at == 0 {
            world.tokens(&other, &ticket).await;
            let tokens = world.tokens(&fine, &ticket).await;
            sign_out(&world, &ticket).await;
            told(&world, &good, &fine, &tokens).await;
        } else {
            sign_out(&world, &ticket).await;
        }
        sessions.push((user, claims(&tokens.access)["sid"].as_str().expect("sid").to_owned()));
    }
    settled(&world, &fine).await;
    // The oldest first, in pages.
    let mut seen = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListLogoutDeliveriesRequest {
            page_size: 2,
            page_token,
            app: format!("apps/{}", app.id),
            state: LogoutDeliveryState::Owed.into(),
        };
        let page = world.sessions().list_logout_deliveries(world.as_admin(request).await).await.expect("a page").into_inner();
        assert!(page.logout_deliveries.len() <= 2);
        seen.extend(page.logout_deliveries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
    for (at, (delivery, (user, session))) in seen.iter().zip(&sessions).enumerate() {
        assert_eq!(delivery.session, format!("sessions/{session}"));
        assert_eq!(delivery.user, format!("users/{}", user.id));
        assert_eq!(delivery.uri, broken.url(&format!("/out{at}")), "without the query, which may hold the app's own secrets");
        assert_eq!(delivery.state(), LogoutDeliveryState::Owed);
        assert!(delivery.create_time.is_some() && delivery.next_try_time.is_some() && delivery.give_up_time.is_none());
    }
    assert_eq!(deliveries(&world, LogoutDeliveryState::Unspecified, "").await.len(), 6);
    assert_eq!(deliveries(&world, LogoutDeliveryState::GivenUp, "").await.len(), 0);
    assert_eq!(failed(&world, &other).await.last_error, "the app answered 500");

    let label = |id: &str| format!("app=\"{id}\"");
    let text = until(async || {
        let text = metrics(&world).await;
        (value(&text, "supos_auth_logouts_owed", &[]) == Some(6.0)).then_some(text)
    })
    .await;
    let calls = |id: &str, outcome: &str| value(&text, "supos_auth_logout_calls_total{", &[&label(id), &format!("outcome=\"{outcome}\"")]);
    assert_eq!(calls(&fine.id, "delivered"), Some(1.0));
    assert!(calls(&app.id, "failed").is_some_and(|failed| failed >= 1.0), "{text}");
    assert_eq!(calls(&app.id, "delivered"), None);

    let line = logged(&world, mark, "an app could not be told", &app);
    assert_eq!((line["level"].as_str(), line["error"].as_str()), (Some("WARN"), Some("the app answered 500")));
    logged(&world, mark, "an app was told", &fine);
    let log = world.service_log.since(mark).join("\n");
    for secret in [broken.next().await.token(), good.rest().await.first().map(super::Received::token).unwrap_or_default()] {
        assert!(secret.is_empty() || !log.contains(&secret), "a logout token is in the log");
    }
    assert!(!log.contains("of-the-apps-own"));

    // And by the command line.
    let ticket = world.admin().await.headers[0].1.trim_start_matches("Ticket ").to_owned();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_supos-auth"))
            .args(["session", "logouts", "--server", &format!("http://{}", world.grpc())])
            .args(arguments)
            .env("SUPOS_AUTH_TICKET", &ticket)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let table = run(&["--app", &app.id]);
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(table.contains("LAST ERROR") && table.contains("the app answered 500") && !table.contains(&other.id), "{table}");
    let listed: Value = serde_json::from_str(&run(&["--output", "json"])).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(6));
    assert_eq!(serde_json::from_str::<Value>(&run(&["--given-up", "-o", "json"])).expect("JSON"), serde_json::json!([]));

    // Once the app is back, nothing is left.
    broken.behave(Manner::Status(204, None));
    until(async || (value(&metrics(&world).await, "supos_auth_logouts_owed", &[]) == Some(0.0)).then_some(())).await;
    assert!(deliveries(&world, LogoutDeliveryState::Owed, "").await.is_empty());
}

#[tokio::test]
async fn only_administrators_see_what_is_owed_and_a_list_is_asked_for_properly() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let ask = async |message: ListLogoutDeliveriesRequest, who: &Who| {
        world.sessions().list_logout_deliveries(native::request(message, who)).await.expect_err("a refusal").code()
    };
    let nothing = ListLogoutDeliveriesRequest::default;
    assert_eq!(ask(nothing(), &Who::nobody()).await, Code::Unauthenticated);
    assert_eq!(ask(nothing(), &Who::authorization(&format!("Ticket {ticket}"))).await, Code::PermissionDenied);
    let admin = world.admin().await;
    assert_eq!(ask(ListLogoutDeliveriesRequest { page_size: -1, ..nothing() }, &admin).await, Code::InvalidArgument);
    assert_eq!(ask(ListLogoutDeliveriesRequest { page_token: "!".to_owned(), ..nothing() }, &admin).await, Code::InvalidArgument);
    assert_eq!(ask(ListLogoutDeliveriesRequest { app: "shop".to_owned(), ..nothing() }, &admin).await, Code::InvalidArgument);
    assert_eq!(ask(ListLogoutDeliveriesRequest { state: 7, ..nothing() }, &admin).await, Code::InvalidArgument);
}
