//! Sign: what is accepted, what is refused, and that a signature opens what it was made for and nothing else.

use aws_lc_rs::hmac;
use supos_auth::grpc::pb::supos::auth::admin::v1::{App as AdminApp, CreateAppRequest};

use self::vectors::vectors;
use crate::harness::{App, Call, Case, Op, Via, Who, World, raw};

#[path = "../../vectors/sign.rs"]
mod vectors;

const USERNAME: &str = "/open-api/supos/auth/v2/username";
const TOKEN_V281: &str = "/open-api/supos/auth/v2/code/accessToken";

/// Signs these very lines, with none of the service's own code.
fn sign(app: &App, lines: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, app.secret.as_bytes());
    let signature = hmac::sign(&key, lines.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    format!("authorization: Sign {}-{signature}", app.id)
}

/// Sends a GET with these header lines.
fn get(world: &World, target: &str, headers: &[&str]) -> raw::RawAnswer {
    raw::request(world.http(), "GET", target, headers, b"")
}

#[track_caller]
fn assert_answer(answer: &raw::RawAnswer, what: &str, status: u16, code: i64) {
    assert_eq!((answer.status(), answer.json()["code"].as_i64()), (Some(status), Some(code)), "{what}: {}", answer.text());
}

/// That the caller was taken: what is wrong is the token or code that he asks about.
#[track_caller]
fn assert_taken(answer: &raw::RawAnswer, what: &str) {
    let json = answer.json();
    let taken = json["valid"] == false || json["code"] == 100_106_403 || json["message"] == "accessToken is unknown or expired";
    assert!(taken || json["message"] == "code is unknown, used or expired", "{what}: {}", answer.text());
}

#[tokio::test]
async fn every_worked_case_of_sign_is_accepted_through_envoy_and_with_another_digit_refused() {
    let world = World::shared().await;
    let vectors = vectors();
    let made = vectors.iter().find(|vector| vector.ak != "demo-app").expect("a case of another app");
    let app = AdminApp { app_id: made.ak.clone(), redirect_uris: vec!["https://a.invalid/*".into()], ..AdminApp::default() };
    let request = world.as_admin(CreateAppRequest { app: Some(app), secret: made.sk.clone() }).await;
    world.apps().create_app(request).await.expect("the app of the cases");
    for vector in &vectors {
        let target = vector.target();
        let mut headers: Vec<String> = vector.x_mc_headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut body = String::new();
        if !vector.content_type.is_empty() {
            headers.push(format!("Content-Type: {}", vector.content_type));
        }
        if vector.method == "POST" {
            body = r#"{"grantType":"authorization_code","code":"C","logoutUri":"x"}"#.to_owned();
            headers.push(format!("Content-Length: {}", body.len()));
        }
        let last = if vector.authorization.ends_with('0') { "1" } else { "0" };
        let changed = format!("{}{last}", &vector.authorization[..vector.authorization.len() - 1]);
        let what = format!("{}, where this is signed:\n{}", vector.name, vector.canonical);
        for (authorization, good) in [(&vector.authorization, true), (&changed, false)] {
            let authorization = format!("Authorization: {authorization}");
            let headers: Vec<&str> = headers.iter().map(String::as_str).chain([authorization.as_str()]).collect();
            let answer = raw::request(world.http(), &vector.method, &target, &headers, body.as_bytes());
            if good {
                assert_taken(&answer, &what);
            } else {
                assert_answer(&answer, &what, 401, 100_106_401);
            }
        }
    }
}

#[tokio::test]
async fn a_request_is_signed_as_it_was_sent_in_whatever_way_that_is() {
    let world = World::shared().await;
    let app = world.app().await;
    // Target, line 4, content type header, further headers, line 5.
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("accessToken=T&b=2&a=1", "a=1&accesstoken=T&b=2", &[], ""),
        ("b=2&accessToken=T&B=3&b=4", "accesstoken=T&b=4", &[], ""),
        ("&&accessToken=T&&x", "accesstoken=T&x=", &[], ""),
        ("%61ccess%54oken=T&x=a+b%20c%2Bd", "accesstoken=T&x=a b c+d", &[], ""),
        ("accessToken=T&x=%e5%bc%A0&%C3%84=1", "accesstoken=T&x=张&Ä=1", &[], ""),
        ("accessToken=T&=x&y==", "=x&accesstoken=T&y==", &[], ""),
        ("access_token=T", "access_token=T", &[], ""),
        ("accessToken=a%26b%3Dc", "accesstoken=a&b=c", &[], ""),
        ("accessToken=T", "accesstoken=T", &["X-Mc-tYPE: openAPI", "x-MC-App:   a  b  "], "x-mc-app:a  b;x-mc-type:openAPI"),
        ("accessToken=T", "accesstoken=T", &["x-mc-empty:"], "x-mc-empty:"),
        ("accessToken=T", "accesstoken=T", &["x-mc-name: 张三", "xmc: 1", "x_mc_a: 2"], "x-mc-name:张三"),
    ];
    for (query, line, headers, custom) in cases {
        for content_type in ["", "application/json", "Application/JSON ; charset=\"utf-8\"", "-", "text/plain;a=é"] {
            let line_3 = format!("Content-Type: {content_type}");
            for end in ["\n", ""] {
                let authorization = sign(&app, &format!("GET\n{USERNAME}\n{content_type}\n{line}\n{custom}{end}"));
                let mut all: Vec<&str> = headers.to_vec();
                all.extend((!content_type.is_empty()).then_some(line_3.as_str()));
                all.push(&authorization);
                assert_taken(&get(&world, &format!("{USERNAME}?{query}"), &all), &format!("{query} {all:?}"));
            }
        }
    }
    // The path as sent, and the scheme in any case.
    for path in ["/open-api/supos/auth/v2/a.b/valid", "/open-api/supos/auth/v2/%61.b/valid", "/open-api/supos/auth/v2/a.b/valid/"] {
        let authorization = sign(&app, &format!("GET\n{path}\n\n\n\n"));
        assert_taken(&get(&world, path, &[&authorization]), path);
        assert_taken(&get(&world, path, &[&authorization.replace("Sign", "sIGN")]), path);
    }
    // A GET may have a body, which is not covered.
    let authorization = sign(&app, &format!("GET\n{USERNAME}\napplication/json\naccesstoken=T\n\n"));
    let headers = [authorization.as_str(), "content-type: application/json", "content-length: 14"];
    assert_taken(&raw::request(world.http(), "GET", &format!("{USERNAME}?accessToken=T"), &headers, b"{\"a\":\"anyone\"}"), "a body");
}

#[tokio::test]
async fn a_request_that_could_be_taken_for_another_is_refused_whoever_signs_it() {
    let world = World::shared().await;
    let app = world.app().await;
    let username = |query: &str| format!("{USERNAME}?{query}");
    let signed = |line: &str, custom: &str| sign(&app, &format!("GET\n{USERNAME}\n\n{line}\n{custom}\n"));
    let good = signed("accesstoken=T", "");
    let cases: Vec<(&str, String, Vec<String>)> = vec![
        ("a line feed in a value", username("accessToken=T&x=a%0Ab"), vec![signed("accesstoken=T&x=a\nb", "")]),
        ("a form that hides a header", username("a=1%0Ax-mc-date:D&accessToken=T"), vec![signed("a=1\nx-mc-date:D&accesstoken=T", "")]),
        ("a delete character in a name", username("accessToken=T&x%7F=1"), vec![signed("accesstoken=T&x\u{7f}=1", "")]),
        ("a NUL", username("accessToken=T%00"), vec![signed("accesstoken=T\0", "")]),
        ("an ampersand in a name", username("accessToken=T&a%26b=1"), vec![signed("a&b=1&accesstoken=T", "")]),
        ("an equals sign in a name", username("accessToken=T&a%3Db=1"), vec![signed("a=b=1&accesstoken=T", "")]),
        ("a hidden parameter", username("a=1%26accesstoken%3DT"), vec![signed("a=1&accesstoken=T", "")]),
        ("a parameter in another case", username("ACCESSTOKEN=T"), vec![good.clone()]),
        ("a parameter given twice", username("accessToken=T&access_token=T"), vec![signed("access_token=T&accesstoken=T", "")]),
        ("a bad escape", username("accessToken=T&x=%zz"), vec![signed("accesstoken=T&x=%zz", "")]),
        ("two X-MC- headers", username("accessToken=T"), vec![signed("accesstoken=T", "x-mc-a:1"), "x-mc-a: 1".into(), "X-MC-A: 1".into()]),
        ("a semicolon", username("accessToken=T"), vec![signed("accesstoken=T", "x-mc-a:1;x-mc-b:2"), "x-mc-a: 1;x-mc-b:2".into()]),
        ("a tab", username("accessToken=T"), vec![signed("accesstoken=T", "x-mc-a:1\t2"), "x-mc-a: 1\t2".into()]),
        ("two signatures", username("accessToken=T"), vec![good.clone(), good.clone()]),
        ("a signature and a bearer", username("accessToken=T"), vec![good.clone(), "authorization: Bearer x".into()]),
        ("two in one header", username("accessToken=T"), vec![format!("{good}, Bearer x")]),
        ("two tokens", username("accessToken=T"), vec![good.clone(), "token: a".into(), "token: a".into()]),
        (
            "two content types",
            username("accessToken=T"),
            vec![
                sign(&app, &format!("GET\n{USERNAME}\na/b,a/b\naccesstoken=T\n\n")),
                "content-type: a/b".into(),
                "content-type: a/b".into(),
            ],
        ),
    ];
    for (what, target, headers) in cases {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = get(&world, &target, &headers);
        assert_answer(&answer, what, 400, 800_003);
        assert!(answer.json()["message"].as_str().is_some_and(|message| message.contains(' ')), "{what}: {}", answer.text());
    }
    // `grantType` sorts after `code`: a code could swallow it.
    let target = format!("{TOKEN_V281}?appid={}&code=C%26granttype%3Dauthorization_code", app.id);
    let line = format!("appid={}&code=C&granttype=authorization_code", app.id);
    let answer = get(&world, &target, &[&sign(&app, &format!("GET\n{TOKEN_V281}\n\n{line}\n\n"))]);
    assert_answer(&answer, "a code that hides the grant type", 400, 800_003);
    assert!(answer.text().contains("code is ambiguous"), "{}", answer.text());
}

#[tokio::test]
async fn what_is_not_quite_the_signature_is_none() {
    let world = World::shared().await;
    let (app, other) = (world.app().await, world.app().await);
    let lines = format!("GET\n{USERNAME}\n\naccesstoken=T\n\n");
    let good = sign(&app, &lines);
    let hex = good.rsplit_once('-').expect("a hyphen").1.to_owned();
    let of = |credential: &str| format!("authorization: Sign {credential}");
    let id = &app.id;
    let with = |text: &str| sign(&app, text);
    for header in [
        of(""),
        "authorization: Sign".to_owned(),
        of(&hex),
        of(&format!("{id}-")),
        of(&format!("-{hex}")),
        of(&format!("{id}{hex}")),
        of(&format!("{id}-{}", hex.to_uppercase())),
        of(&format!("{id}-{}", &hex[..62])),
        of(&format!("{id}-{hex}00")),
        of(&format!("{id}-0x{}", &hex[2..])),
        of(&format!("{}-{hex}", id.to_uppercase())),
        of(&format!("{id} -{hex}")),
        of(&format!("{id}-{hex};")),
        of(&format!("{}-{hex}", other.id)),
        of(&format!("no-{id}-{hex}")),
        sign(&App { id: id.clone(), ..other.clone() }, &lines),
        sign(&App { secret: String::new(), ..app.clone() }, &lines),
        with(&format!("get\n{USERNAME}\n\naccesstoken=T\n\n")),
        with(&format!("GET\n{USERNAME}\n\naccessToken=T\n\n")),
        with(&format!("GET\n{USERNAME}\napplication/json\naccesstoken=T\n\n")),
        with(&format!("GET\n{USERNAME}?accessToken=T\n\n\n\n")),
        with(&format!("GET\n{USERNAME}\n\naccesstoken=T\n\n\n")),
        with(&format!("GET\n{USERNAME}\n\naccesstoken=T")),
        with(&format!("GET\n{USERNAME}/\n\naccesstoken=T\n\n")),
    ] {
        assert_answer(&get(&world, &format!("{USERNAME}?accessToken=T"), &[&header]), &header, 401, 100_106_401);
    }
    assert_taken(&get(&world, &format!("{USERNAME}?accessToken=T"), &[&good]), "the signature itself");
}

#[tokio::test]
async fn h3_a_signature_for_one_operation_opens_no_other_whatever_headers_are_added() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let token = &tokens.access;
    // Every operation that an app may call, as it is sent, and as it is signed.
    let valid = format!("/open-api/supos/auth/v2/{token}/valid");
    let query = format!("?accessToken={token}");
    let line = format!("accesstoken={token}");
    let operations: Vec<(&str, String, &str, String, String)> = vec![
        ("POST", "/open-api/auth/v2/oauth2/token".into(), "application/json", String::new(), String::new()),
        ("POST", "/auth/v2/oauth2/token".into(), "application/json", String::new(), String::new()),
        ("POST", "/open-api/auth/v1/oauth2/token".into(), "application/json", String::new(), String::new()),
        ("GET", USERNAME.into(), "", query.clone(), line.clone()),
        ("GET", valid, "", String::new(), String::new()),
        ("GET", "/open-api/supos/auth/v2/logout".into(), "", query, line),
        ("GET", "/open-api/supos/auth/v2/code/refreshToken".into(), "", "?refreshToken=x".into(), "refreshtoken=x".into()),
    ];
    for (at, (method, path, content_type, _, line)) in operations.iter().enumerate() {
        let authorization = sign(&app, &format!("{method}\n{path}\n{content_type}\n{line}\n\n"));
        for (to, (other_method, other_path, other_type, query, _)) in operations.iter().enumerate() {
            if at == to {
                continue;
            }
            let mut headers = vec![
                authorization.clone(),
                format!("x-envoy-original-path: {path}"),
                format!("x-envoy-original-method: {method}"),
                format!("x-original-content-type: {content_type}"),
                format!("x-http-method-override: {method}"),
                format!("x-original-url: {path}"),
                format!("x-rewrite-url: {path}"),
                format!("x-forwarded-uri: {path}"),
                format!("x_envoy_original_path: {path}"),
            ];
            let body = br#"{"grantType":"refresh_token","refreshToken":"x"}"#;
            let is_post = *other_method == "POST";
            if is_post {
                headers.extend([format!("content-type: {other_type}"), format!("content-length: {}", body.len())]);
            }
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let target = format!("{other_path}{query}");
            let answer = raw::request(world.http(), other_method, &target, &headers, if is_post { body } else { b"" });
            assert_answer(&answer, &format!("signed for {path}, sent to {target}"), 401, 100_106_401);
        }
    }
    assert!(world.is_valid(&app, token).await);
}

#[tokio::test]
async fn h3_no_http_signature_opens_a_native_method_and_no_native_one_another_method_or_an_http_path() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let token = tokens.access.as_str();
    let date = supos_auth::sign::date(supos_auth::core::clock::Timestamp::from_millis(u64::try_from(world.now()).expect("now") * 1000));
    let custom = format!("x-mc-date:{date};x-mc-nonce:once");
    let credential = |lines: String| sign(&app, &lines).split_once(": ").expect("a header").1.to_owned();
    let http = credential(format!("GET\n{USERNAME}\n\naccesstoken={token}\n{custom}\n"));
    let native = |method: &str| credential(format!("POST\n/supos.auth.v281.AuthService/{method}\napplication/grpc\n\n{custom}\n"));
    let ask = Call::new(Op::Username).with("accessToken", token).header("x-mc-date", &date).header("x-mc-nonce", "once");
    for (what, authorization) in [("HTTP", http.clone()), ("another method", native("ValidateToken")), ("sign-out", native("SignOut"))] {
        let forged = ask
            .clone()
            .header("x-envoy-original-path", &format!("{USERNAME}?accessToken={token}"))
            .header("x-envoy-original-method", "GET")
            .header("x-original-content-type", "");
        for call in [ask.clone(), forged] {
            let reply = world.call(Via::Native, &call.by(Who::authorization(&authorization))).await;
            assert_eq!(reply.check_refusal(Case::Caller), Ok(()), "{what}");
        }
    }
    let headers = [format!("authorization: {}", native("GetUsername")), format!("x-mc-date: {date}"), "x-mc-nonce: once".to_owned()];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    assert_answer(&get(&world, &format!("{USERNAME}?accessToken={token}"), &headers), "native, sent over HTTP", 401, 100_106_401);
    // The same one, where it belongs.
    world.call(Via::Native, &ask.by(Who::authorization(&native("GetUsername")))).await.ok();
    // And HTTP Basic is gone.
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{}:{}", app.id, app.secret));
    for via in Via::BOTH {
        let call = Call::new(Op::Username).with("accessToken", token).by(Who::authorization(&format!("Basic {basic}")));
        world.call(via, &call).await.refused(Case::Caller);
    }
}

#[tokio::test]
async fn a_refused_signature_is_logged_once_a_minute_with_what_the_service_took_the_request_for_and_no_secret() {
    let world = World::own(crate::harness::Setup::default()).await;
    let app = world.app().await;
    let wrong = App { secret: "not the secret".into(), ..app.clone() };
    let token = "a-token-that-nobody-may-read";
    let target = format!("/open-api/supos/auth/v2/{token}/valid?state=a-state-of-somebody&x=shown");
    let lines = format!("GET\n/open-api/supos/auth/v2/{token}/valid\na/b\nstate=a-state-of-somebody&x=shown\nx-mc-type:openAPI\n");
    let authorization = sign(&wrong, &lines);
    let mark = world.service_log.mark();
    for _ in 0..3 {
        let answer = get(&world, &target, &[&authorization, "content-type: a/b", "x-mc-type: openAPI"]);
        assert_answer(&answer, "a wrong signature", 401, 100_106_401);
    }
    let line = world.service_log.wait_for(mark, |line| line.contains("wrong_signature").then(|| line.to_owned())).expect("a line");
    let json: serde_json::Value = serde_json::from_str(&line).expect("the log is JSON");
    assert_eq!((&json["ak"], &json["address"]), (&app.id.as_str().into(), &"127.0.0.1".into()));
    let shown = json["canonical"].as_str().expect("the text");
    assert!(shown.starts_with("GET\\n/open-api/supos/auth/v2/sha256:"), "{shown}");
    assert!(shown.ends_with(":19&x=shown\\nx-mc-type:openAPI\\n"), "{shown}");
    // Another address key gets a line of its own; by then all those of the first are written.
    let nobody = App { id: "nobody".into(), ..app.clone() };
    get(&world, USERNAME, &[&sign(&nobody, "x")]);
    world.service_log.wait_for(mark, |line| line.contains("unknown_app").then_some(())).expect("a line");
    let lines = world.service_log.since(mark);
    assert_eq!(lines.iter().filter(|line| line.contains("wrong_signature")).count(), 1);
    let signature = authorization.rsplit_once('-').expect("a signature").1;
    for secret in [token, "a-state-of-somebody", signature, &app.secret, "not the secret"] {
        assert!(!lines.iter().any(|line| line.contains(secret)), "the log has {secret}");
    }
}

#[tokio::test]
async fn b27_bytes_that_are_no_text_prove_nothing_in_any_header() {
    let world = World::shared().await;
    let app = world.app().await;
    let good = sign(&app, &format!("GET\n{USERNAME}\n\naccesstoken=T\n\n"));
    for header in ["authorization", "cookie", "token", "x-mc-a", "content-type", "accept-language", "origin"] {
        for byte in 0x80..=0xff_u8 {
            let mut bytes = format!("GET {USERNAME}?accessToken=T HTTP/1.1\r\nhost: a\r\nconnection: close\r\n").into_bytes();
            if ["token", "x-mc-a", "content-type"].contains(&header) {
                bytes.extend_from_slice(good.as_bytes());
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(b": Sign a");
            bytes.push(byte);
            bytes.extend_from_slice(b"\r\n\r\n");
            let answer = raw::exchange(&raw::Listener::Tcp(world.http()), &bytes, |_| false);
            assert!(matches!(answer.status(), Some(400 | 401)), "{header} {byte:x}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn b26_headers_that_only_look_like_ours_are_not_ours() {
    let world = World::shared().await;
    let (app, user, _, tokens) = world.family().await;
    for header in [
        "x-auth-user",
        "x_auth_user",
        "x-forwarded-user",
        "x-user-id",
        "x-client-id",
        "x-edge-secret",
        "x-envoy-external-address",
        "x_mc_date",
        "suposticket",
        "x-token",
        "proxy-authorization",
        "x-authorization",
    ] {
        for value in [user.id.as_str(), app.id.as_str(), &format!("Bearer {}", tokens.access), &tokens.access] {
            for via in Via::BOTH {
                let call = Call::new(Op::Username).with("accessToken", &tokens.access).header(header, value).header(header, value);
                world.call(via, &call).await.refused(Case::Caller);
            }
        }
    }
    // A token without a signature beside it is no credential, and a wrong signature is not made up for by one.
    for via in Via::BOTH {
        let ask = Call::new(Op::Username).with("accessToken", &tokens.access).header("token", &tokens.access);
        world.call(via, &ask).await.refused(Case::Caller);
        world.call(via, &ask.clone().by(App::signing(&app.id, "wrong"))).await.refused(Case::Caller);
        world.call(via, &ask.clone().by(Who::authorization("Sign x"))).await.refused(Case::Caller);
    }
}
