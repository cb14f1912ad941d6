//! Clients that sign: one that others could have written from the description alone, and the command line.

use std::{fmt::Debug, process::Command, str::FromStr};

use reqwest::header::HeaderName;
use serde_json::Value;
use supos_auth::grpc::pb::supos::auth::v281::{ValidateTokenRequest, auth_service_client::AuthServiceClient};
use tonic::{Code, Request, Status, metadata::AsciiMetadataKey};

use crate::harness::{Case, Op, Setup, World, tools};

#[tokio::test]
async fn a_client_written_from_the_description_of_sign_alone_is_understood() {
    let world = World::shared().await;
    let client = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sign_client.py");
    let output = Command::new(tools::python()).arg(client).arg(world.url("")).output().expect("there is a Python");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.ends_with("done\n"), "{printed}{}", String::from_utf8_lossy(&output.stderr));
}

/// What `supos-auth sign` prints.
fn sign(arguments: &[&str], secret: &str) -> String {
    let mut sign = Command::new(env!("CARGO_BIN_EXE_supos-auth"));
    let output = sign.arg("sign").args(arguments).env("SUPOS_AUTH_APP_SECRET", secret).output().expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// The headers in it.
fn headers<K: FromStr<Err: Debug>>(printed: &str) -> Vec<(K, String)> {
    let header = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.parse().expect("a name of a header"), value.to_owned())
    };
    printed.lines().map(header).collect()
}

#[tokio::test]
async fn what_the_log_has_of_a_refused_signature_is_what_the_command_line_shows_of_the_request() {
    // One of its own: the log has only so many such lines a minute.
    let world = World::own(Setup::default()).await;
    let (app, url) = (world.app().await.id, world.url("/open-api/supos/auth/v2/username?accessToken=hunter2&n=%E5%BC%A0+%5C%26"));
    let request = ["-H", "X-MC-Type: a b", "--content-type", "application/json", "GET", &url];
    let printed = sign(&[&["--headers", "--app-id", &app][..], &request].concat(), "secret");
    let mark = world.service_log.mark();
    let mut call = world.http.get(&url);
    for (name, value) in headers::<HeaderName>(&printed) {
        call = call.header(name, value);
    }
    world.receive(Op::Username, call).await.refused(Case::Caller);
    let logged = world.service_log.wait_for(mark, |line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["ak"] == app.as_str()).then(|| line["canonical"].as_str().map(str::to_owned))?
    });
    let shown = sign(&[&["--masked"][..], &request].concat(), "");
    assert_eq!(logged.as_deref(), Some(shown.trim_end()));
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// The headers of a native call of this method that the demo app signs.
fn native(method: &str, secret: &str) -> Vec<(AsciiMetadataKey, String)> {
    headers(&sign(&["--headers", "--app-id", "demo-app", "--grpc", method], secret))
}

#[tokio::test]
#[expect(deprecated, reason = "nothing replaces operation 8")]
async fn the_command_line_signs_native_calls_and_each_works_once_for_its_own_method() {
    let world = World::shared().await;
    let ask = async |headers: &[(AsciiMetadataKey, String)]| -> Result<bool, Status> {
        let mut request = Request::new(ValidateTokenRequest { access_token: "x".to_owned() });
        for (name, value) in headers {
            request.metadata_mut().insert(name, value.parse().expect("a value"));
        }
        Ok(AuthServiceClient::new(world.channel.clone()).validate_token(request).await?.into_inner().valid)
    };
    let headers = native("/supos.auth.v281.AuthService/ValidateToken", "demo-secret");
    assert!(!ask(&headers).await.expect("the signature is good"), "what is no token is good");
    for headers in [
        headers,
        native("/supos.auth.v281.AuthService/GetUsername", "demo-secret"),
        native("/supos.auth.v281.AuthService/ValidateToken", "another-secret"),
    ] {
        assert_eq!(ask(&headers).await.expect_err("it is refused").code(), Code::Unauthenticated);
    }
}
