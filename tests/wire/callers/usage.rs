//! What operators know of apps that use what is deprecated, and how they switch it off.

use supos_auth::grpc::pb::supos::auth::admin::v1::{AppUsage, DeleteAppRequest, ListAppUsageRequest};
use tonic::Code;

use crate::harness::{App, Call, Op, Pair, Setup, Status, Via, Who, World, authorize, exchange, refresh, tools, valid};

async fn usage(world: &World, app: &App) -> Option<AppUsage> {
    let request = world.as_admin(ListAppUsageRequest { page_size: 1000, page_token: String::new() }).await;
    let listed = world.apps().list_app_usage(request).await.expect("a list").into_inner();
    listed.app_usage.into_iter().find(|usage| usage.app == format!("apps/{}", app.id))
}

fn calls(usage: &AppUsage) -> Vec<(&str, i64)> {
    usage.deprecated_calls.iter().map(|calls| (calls.operation.as_str(), calls.calls)).collect()
}

#[tokio::test]
async fn the_admin_api_and_a_metric_say_which_app_calls_what_is_deprecated_and_signs_without_a_date() {
    let mut world = World::own(Setup::default()).await;
    let (app, quiet) = (world.app().await, world.app().await);
    let (_, ticket) = world.signed_in().await;
    // By a ticket: the app is the one that is named. By a signature and by a token: it is the one that shows it.
    let code = world.call(Via::Envoy, &authorize(Op::AuthorizeV281, &app).by(Who::ticket(&ticket))).await.text_of("code");
    let tokens = world.call(Via::Envoy, &exchange(Op::ExchangeV281, &app, &code)).await.tokens();
    let tokens = world.call(Via::Native, &refresh(Op::RefreshV281, &tokens.refresh).by(Who::bearer(&tokens.access))).await.tokens();
    for via in Via::BOTH {
        assert!(world.call(via, &valid(&tokens.access).by(app.who())).await.valid());
    }
    world.call(Via::Envoy, &authorize(Op::Authorize, &quiet).by(Who::ticket(&ticket))).await.ok();
    // Neither a wrong signature nor an unknown app counts for anybody.
    world.call(Via::Envoy, &valid("x").by(App::signing(&quiet.id, "wrong"))).await;
    world.call(Via::Envoy, &authorize(Op::AuthorizeV281, &quiet).but("appid", Some("no-app")).by(Who::ticket(&ticket))).await;

    let expected = [("v281.Authorize", 1), ("v281.ExchangeCode", 1), ("v281.RefreshToken", 1), ("v281.ValidateToken", 2)];
    let seen = usage(&world, &app).await.expect("the app has used something");
    assert_eq!(calls(&seen), expected);
    assert_eq!(seen.undated_signatures, 2, "native signatures have a date");
    assert!(seen.last_undated_signature_time.is_some() && seen.deprecated_calls.iter().all(|calls| calls.last_call_time.is_some()));
    assert_eq!(usage(&world, &quiet).await, None);

    let metrics = reqwest::get(format!("http://{}/metrics", world.ops())).await.expect("an answer").text().await.expect("metrics");
    let has = |name: &str, labels: [&str; 2], value: u32| {
        metrics
            .lines()
            .any(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)) && line.ends_with(&format!(" {value}")))
    };
    let label = format!("app=\"{}\"", app.id);
    assert!(has("supos_auth_deprecated_calls_total{", [&label, "operation=\"v281.ValidateToken\""], 2), "{metrics}");
    assert!(has("supos_auth_undated_signatures_total{", [&label, ""], 2), "{metrics}");
    assert!(!metrics.contains(&format!("app=\"{}\"", quiet.id)), "{metrics}");

    world.restart(Pair::terminate);
    world.call(Via::Envoy, &valid("x").by(app.who())).await.ok();
    let seen = usage(&world, &app).await.expect("it is kept");
    assert_eq!(calls(&seen).last(), Some(&("v281.ValidateToken", 3)));

    let request = world.as_admin(DeleteAppRequest { name: format!("apps/{}", app.id) }).await;
    world.apps().delete_app(request).await.expect("the app can be deleted");
    assert_eq!(usage(&world, &app).await, None);
}

#[tokio::test]
async fn each_deprecated_operation_can_be_switched_off_and_the_others_go_on() {
    let off = Setup::default().argument("--switch-off", "v281.SignOut,v1.Token").argument("--switch-off", "v281.GetUsername");
    let world = World::own(off).await;
    let (app, _, _, tokens) = world.family().await;
    for op in [Op::SignOutV281, Op::TokenV1, Op::Username] {
        for via in Via::BOTH {
            let call = Call::new(op).with("accessToken", &tokens.access).with("grantType", "refresh_token").by(app.who());
            let reply = world.call(via, &call).await;
            assert!(matches!(reply.status, Status::Http(404) | Status::Grpc(Code::Unimplemented)), "{op:?}: {:?}", reply.status);
            assert_eq!(reply.body["code"], 100_106_404, "{op:?}: {}", reply.text);
            if via == Via::Envoy {
                assert!(reply.header("deprecation").is_some_and(|at| at.starts_with('@')), "{op:?}");
            }
        }
    }
    assert!(world.is_valid(&app, &tokens.access).await, "nothing was ended");
    world.call(Via::Envoy, &refresh(Op::RefreshV281, &tokens.refresh).by(app.who())).await.tokens();
}

#[test]
fn only_what_is_deprecated_can_be_switched_off() {
    for name in ["v2.Token", "v281.Nothing", "all"] {
        let started = tools::that_ends().args(["serve", "--switch-off", name]).output().expect("it runs");
        let said = String::from_utf8_lossy(&started.stderr);
        assert!(started.status.code() == Some(2) && said.contains("v281.SignOut"), "it says what can be: {said}");
    }
}
