//! What the service takes without harm: values as long as they may be, cookies of others, floods of connections, keys that have gone.

use std::{ffi::OsString, io::Write as _, net::TcpStream};

use serde_json::Value;
use supos_auth::grpc::pb::supos::auth::admin::v1::{AddSigningKeyRequest, RetireSigningKeyRequest};
use tempfile::TempDir;

use crate::harness::{
    Call, Op, Setup, Via, Who, World, authorize, jwt_part,
    process::{Log, Process},
    raw, refresh, valid,
};

#[tokio::test]
async fn every_value_may_be_as_long_as_it_is_documented_all_at_once() {
    let world = World::shared().await;
    let (_, _, ticket, _) = world.family().await;
    let scope = "s".repeat(1024);
    // Registered as a prefix by the demo, whose app this is.
    let demo = crate::harness::App::signing("demo-app", "demo-secret");
    let redirect = format!("http://127.0.0.1:9999/{}", "r".repeat(2048 - 22));
    assert_eq!(redirect.len(), 2048);
    for logout in ["l".repeat(1024), "l".repeat(8000)] {
        let call = Call::new(Op::Authorize)
            .with("responseType", "code")
            .with("appid", "demo-app")
            .with("redirectUri", &redirect)
            .with("state", "t".repeat(2048))
            .with("scope", &scope)
            .by(Who::ticket(&ticket));
        let code = world.call(Via::Envoy, &call).await.text_of("code");
        let call =
            Call::new(Op::TokenV2).with("grantType", "authorization_code").with("code", &code).with("logoutUri", &logout).by(demo.clone());
        world.call(Via::Envoy, &call).await.ok();
    }
}

#[tokio::test]
async fn a_cookie_of_another_application_hides_no_ticket() {
    let world = World::shared().await;
    let (app, _, ticket, _) = world.family().await;
    let call = authorize(Op::Authorize, &app);
    let url = world.url(&format!(
        "{}?responseType=code&appid={}&redirectUri={}&state=s",
        call.op.path(),
        app.id,
        url::form_urlencoded::byte_serialize(app.redirect.as_bytes()).collect::<String>()
    ));
    let cookie = [b"name=\xe5\xbc\xa0\xff; suposTicket=".as_slice(), ticket.as_bytes()].concat();
    let request = world.http.get(url).header("cookie", reqwest::header::HeaderValue::from_bytes(&cookie).expect("a header"));
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 302);
}

#[tokio::test]
async fn an_expired_token_of_a_key_that_has_gone_still_refreshes_and_signs_out() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, _, ticket, tokens) = world.family().await;
    let other = world.tokens(&app, &ticket).await;
    let old = jwt_part(&tokens.access, 0)["kid"].as_str().expect("a kid").to_owned();
    let request = world.as_admin(AddSigningKeyRequest {}).await;
    let added = world.signing_keys().add_signing_key(request).await.expect("a key").into_inner().signing_key.expect("the key");
    world.go_to(added.activate_time.expect("a time").seconds + 1);
    let request = world.as_admin(RetireSigningKeyRequest { name: format!("signingKeys/{old}") }).await;
    let retired = world.signing_keys().retire_signing_key(request).await.expect("retired").into_inner().signing_key.expect("the key");
    world.go_to(retired.expire_time.expect("an end").seconds + 3600);
    let keys = world.call(Via::Envoy, &Call::new(Op::Jwks)).await.ok().clone();
    assert!(keys["keys"].as_array().is_some_and(|keys| keys.iter().all(|key| key["kid"] != old.as_str())), "it is published no more");

    assert!(!world.call(Via::Envoy, &valid(&tokens.access).by(app.who())).await.valid());
    let by_itself = refresh(Op::TokenV2, &tokens.refresh).by(Who::bearer(&tokens.access));
    world.call(Via::Envoy, &by_itself).await.ok();
    let end = Call::new(Op::SignOutV281).with("accessToken", &other.access).by(Who::bearer(&other.access));
    world.call(Via::Envoy, &end).await.ok();
}

/// A demo of its own with few open files, and the addresses of its gRPC and ops listeners.
fn narrow(folder: &TempDir, log: &Log, more: &[&str]) -> (Process, String, String) {
    let mut arguments: Vec<OsString> =
        ["--nofile=128", env!("CARGO_BIN_EXE_supos-auth"), "serve", "--dev", "--log-format", "json"].map(OsString::from).into();
    arguments.extend(["--grpc-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"].map(OsString::from));
    arguments.push(folder.path().join("data").into());
    arguments.extend(more.iter().map(OsString::from));
    let service = Process::start("prlimit".as_ref(), folder.path(), arguments, &[], log);
    let address = |listener: &str| {
        log.wait_for(0, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "listening" && line["listener"] == listener).then(|| line["address"].as_str().map(str::to_owned))?
        })
        .unwrap_or_else(|| panic!("{}", log.since(0).join("\n")))
    };
    let addresses = (address("grpc"), address("ops"));
    log.wait_for(0, |line| line.contains("\"ready\"").then_some(())).expect("it is ready");
    (service, addresses.0, addresses.1)
}

fn is_healthy(grpc: &str) -> bool {
    let mut health = std::process::Command::new(env!("CARGO_BIN_EXE_supos-auth"));
    let output = health.args(["health", "--timeout", "20", "--server", &format!("http://{grpc}")]).output().expect("it runs");
    output.status.success()
}

fn flood(grpc: &str, connections: usize) -> Vec<TcpStream> {
    (0..connections).map(|_| TcpStream::connect(grpc).expect("the kernel accepts")).collect()
}

#[test]
fn a_flood_of_connections_does_not_end_the_service() {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let log = Log::default();
    let (mut service, grpc, _) = narrow(&folder, &log, &[]);
    let flood = flood(&grpc, 200);
    log.wait_for(0, |line| line.contains("could not be accepted").then_some(())).expect("more than it has files for");
    assert!(service.exited().is_none(), "it goes on");
    drop(flood);
    assert!(is_healthy(&grpc));
    assert!(service.terminate().success());
}

#[test]
fn who_says_only_half_a_hello_takes_nothing_from_others() {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let log = Log::default();
    let (service, grpc, _) = narrow(&folder, &log, &["--grpc-connections", "20"]);
    let mut flood = flood(&grpc, 40);
    for connection in &mut flood {
        connection.write_all(b"PRI * HTTP/2").expect("the kernel takes it");
    }
    assert!(is_healthy(&grpc));
    drop(flood);
    assert!(service.terminate().success());
}

#[test]
fn who_only_connects_takes_nothing_from_others_and_holds_no_stop() {
    let folder = TempDir::with_prefix("supos-auth-").expect("a temporary folder");
    let log = Log::default();
    let (service, grpc, ops) = narrow(&folder, &log, &["--grpc-connections", "20"]);
    log.wait_for(0, |line| line.contains("\"ready\"").then_some(())).expect("the service is ready once it has tried its store");
    let flood = flood(&grpc, 40);
    assert_eq!(raw::status_of(ops.parse().expect("an address"), "/readyz"), Some(200), "the other listeners have their own places");
    assert!(is_healthy(&grpc), "who says nothing makes way for who does");
    assert!(service.terminate().success());
    assert!(!log.since(0).iter().any(|line| line.contains("cut off")), "and no call was cut off");
    drop(flood);
}
