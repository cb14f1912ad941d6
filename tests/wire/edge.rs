//! The public port: what it lets through, and what it refuses before any operation is asked.

use serde_json::json;

use crate::harness::{Call, Case, Op, Reply, Status, Via, Who, World, authorize, exchange, raw, refresh, valid};

#[track_caller]
fn assert_refused(answer: &raw::RawAnswer, status: u16, code: i64, what: &str) {
    assert_eq!(answer.status(), Some(status), "{what}: {}", answer.text());
    assert_eq!(answer.json()["code"], code, "{what}: {}", answer.text());
    assert!(answer.json()["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {}", answer.text());
    let content_type = answer.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{what}: {content_type}");
}

const SECRET: &str = "a-secret-that-must-not-come-back";

#[tokio::test]
async fn a_body_of_64_kib_passes_and_one_byte_more_is_413() {
    let world = World::shared().await;
    let user = world.user().await;
    let path = Op::SignIn.path();
    for length in [64 * 1024, 64 * 1024 + 1] {
        let head = json!({"userName": user.name, "password": user.password}).to_string();
        let head = format!("{},\"unknown\":\"", head.strip_suffix('}').expect("an object"));
        let body = format!("{head}{}\"}}", "x".repeat(length - head.len() - 2));
        assert_eq!(body.len(), length);
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let chunks = body.as_bytes().chunks(1000).map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8_lossy(chunk)));
        let many = chunks.collect::<Vec<String>>().concat();
        for (what, header, bytes) in [
            ("with its length", format!("content-length: {length}"), body.clone()),
            ("in one chunk", "transfer-encoding: chunked".to_owned(), chunked),
            ("in many chunks", "transfer-encoding: chunked".to_owned(), format!("{many}0\r\n\r\n")),
        ] {
            let answer = raw::request(world.http(), "POST", path, &["content-type: application/json", &header], bytes.as_bytes());
            if length == 64 * 1024 {
                assert_eq!(answer.status(), Some(200), "{what}: {}", answer.text());
            } else {
                assert_refused(&answer, 413, 100_106_500, what);
            }
        }
    }
}

#[tokio::test]
async fn a_body_far_over_the_limit_is_413_before_it_is_read() {
    let world = World::shared().await;
    for op in Op::WITH_BODY {
        let answer = raw::request(
            world.http(),
            "POST",
            op.path(),
            &["content-type: application/json", "content-length: 5242880"],
            &vec![b' '; 70_000],
        );
        assert_refused(&answer, 413, 100_106_500, "a length of 5 MiB");
    }
}

#[tokio::test]
async fn only_json_is_taken_where_a_body_is_due() {
    let world = World::shared().await;
    for op in Op::WITH_BODY {
        for (_, path) in op.paths() {
            let body = json!({"userName": SECRET, "password": SECRET, "grantType": "refresh_token", "refreshToken": SECRET}).to_string();
            let length = format!("content-length: {}", body.len());
            let refused: [&[&str]; 9] = [
                &[],
                &["content-type:"],
                &["content-type: text/plain"],
                &["content-type: text/plain; application/json"],
                &["content-type: application/x-www-form-urlencoded"],
                &["content-type: multipart/form-data; boundary=x"],
                &["content-type: application/jsonp"],
                &["content-type: application/json", "content-type: application/json"],
                &["content-type: application/json, text/plain"],
            ];
            for types in refused {
                let headers: Vec<&str> = types.iter().copied().chain([length.as_str()]).collect();
                let answer = raw::request(world.http(), "POST", path, &headers, body.as_bytes());
                assert_refused(&answer, 415, 100_106_500, &format!("{path} {types:?}"));
                assert!(!answer.text().contains(SECRET));
            }
            for good in ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;charset=UTF-8; x=y"] {
                let answer = raw::request(world.http(), "POST", path, &[&format!("content-type: {good}"), &length], body.as_bytes());
                assert_eq!(answer.status(), Some(401), "{good} is taken, and then the caller is judged: {}", answer.text());
            }
        }
    }
}

#[tokio::test]
async fn sign_out_takes_any_body_of_any_type_and_reads_none() {
    let world = World::shared().await;
    let (app, user, ..) = world.family().await;
    let types =
        ["x-nothing: x", "content-type: text/plain", "content-type: application/x-www-form-urlencoded", "content-type: application/json"];
    for header in types {
        for body in ["", "{}", "{", "no JSON at all", "null", "{\"body\":1,\"body\":2}", "x=y"] {
            let ticket = world.sign_in(&user).await;
            let tokens = world.tokens(&app, &ticket).await;
            let (cookie, length) = (format!("cookie: suposTicket={ticket}"), format!("content-length: {}", body.len()));
            let answer = raw::request(world.http(), "POST", Op::SignOut.path(), &[header, &cookie, &length], body.as_bytes());
            assert_eq!(answer.status(), Some(200), "{header} {body}: {}", answer.text());
            assert!(!world.is_valid(&app, &tokens.access).await, "{header} {body}");
        }
    }
}

#[tokio::test]
async fn headers_over_24_kib_are_431_and_a_long_token_three_times_is_not() {
    let world = World::shared().await;
    let long = "x".repeat(25 * 1024);
    for (target, header) in [
        (Op::Username.path().to_owned(), format!("authorization: Bearer {long}")),
        (format!("{}?accessToken={long}", Op::Username.path()), "x-nothing: x".to_owned()),
        ("/oauth2/jwks".to_owned(), format!("x-unknown: {long}")),
    ] {
        let answer = raw::request(world.http(), "GET", &target, &[&header], b"");
        assert_refused(&answer, 431, 100_106_500, "25 KiB");
        assert!(!answer.text().contains("xxxxxxxxxx"));
    }
    let token = "y".repeat(7 * 1024);
    let target = Op::Valid.path().replace("{accessToken}", &token);
    let headers = [format!("authorization: Bearer {token}"), format!("cookie: suposTicket={token}")];
    let answer = raw::request(world.http(), "GET", &target, &headers.each_ref().map(String::as_str), b"");
    assert_eq!((answer.status(), answer.json()), (Some(200), json!({"valid": false})), "{}", answer.text());
}

#[tokio::test]
async fn what_is_not_documented_is_404() {
    let world = World::shared().await;
    let unknown = [
        "/",
        "/index.html",
        "/open-api",
        "/open-api/auth/v3/oauth2/token",
        "/open-api/auth/v2/oauth2/tokens",
        "/open-api/auth/v2/oauth2",
        "/auth/v2",
        "/metrics",
        "/livez",
        "/readyz",
        "/oauth2/token",
        "/inter-api/auth/v1/oauth2/authorize/more",
        "/open-api/supos/auth/v2/code",
        "/OPEN-API/auth/v2/oauth2/token",
        "/inter-api/auth/LOGIN",
        "//inter-api/auth/login",
        "/inter-api//auth/login",
        "/inter-api/auth/../auth/login",
        "/./inter-api/auth/login",
        "/inter-api/auth/login;x=y",
        "/inter-api/auth/%6cogin/x",
    ];
    for target in unknown {
        for (method, headers, body) in
            [("GET", vec!["x-nothing: x"], ""), ("POST", vec!["content-type: application/json", "content-length: 2"], "{}")]
        {
            let answer = raw::request(world.http(), method, target, &headers, body.as_bytes());
            assert_refused(&answer, 404, 100_106_404, &format!("{method} {target}"));
        }
    }
    // These get past Envoy.
    for (method, target) in
        [("PUT", "/inter-api/auth/sign-in"), ("DELETE", "/inter-api/auth/password"), ("GET", "/inter-api/auth/assets/x.css")]
    {
        let answer = raw::request(world.http(), method, target, &["content-length: 0"], b"");
        assert_refused(&answer, 404, 100_106_404, &format!("{method} {target}"));
    }
}

#[tokio::test]
async fn a_wrong_method_is_404() {
    let world = World::shared().await;
    let all = [Op::TokenV2, Op::TokenV1, Op::AuthorizeV281, Op::ExchangeV281, Op::RefreshV281, Op::Username, Op::Valid, Op::SignOutV281];
    for op in all.into_iter().chain([Op::Authorize, Op::SignIn, Op::SignOut, Op::Jwks]) {
        for (_, path) in op.paths() {
            let path = path.replace("{accessToken}", "token");
            let right: Vec<&str> = op.paths().iter().map(|(method, _)| *method).collect();
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"]
                .into_iter()
                .filter(|method| !right.contains(method))
            {
                let answer = raw::request(world.http(), method, &path, &["content-type: application/json", "content-length: 0"], b"");
                assert_refused(&answer, 404, 100_106_404, &format!("{method} {path}"));
            }
            let answer = raw::request(world.http(), "HEAD", &path, &[], b"");
            assert_eq!(answer.status(), Some(404), "HEAD {path}: {}", answer.text());
            assert!(answer.text().ends_with("\r\n\r\n"), "an answer to HEAD has no body: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn http_that_is_broken_is_refused_in_the_same_form() {
    let world = World::shared().await;
    let host = world.http();
    for (what, bytes, status) in [
        ("no HTTP at all", "nonsense\r\n\r\n".to_owned(), 400),
        ("HTTP/1.0", format!("GET /oauth2/jwks HTTP/1.0\r\nhost: {host}\r\n\r\n"), 426),
        ("no host", "GET /oauth2/jwks HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
        (
            "an upgrade",
            format!("GET /oauth2/jwks HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"),
            403,
        ),
        (
            "two lengths",
            format!(
                "POST /inter-api/auth/login HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{{}}"
            ),
            400,
        ),
        (
            "length and chunks",
            format!(
                "POST /inter-api/auth/login HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{{}}"
            ),
            400,
        ),
    ] {
        let answer = raw::exchange(&raw::Listener::Tcp(host), bytes.as_bytes(), |got| got.ends_with(b"}"));
        assert_eq!(answer.status(), Some(status), "{what}: {}", answer.text());
        assert!(answer.json()["code"].is_i64(), "{what}: {}", answer.text());
    }
}

#[tokio::test]
async fn a_trailing_slash_changes_no_rule() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let calls = [
        exchange(Op::TokenV2, &app, &code),
        Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password),
        refresh(Op::RefreshV281, &tokens.refresh).by(app.who()),
        Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who()),
        authorize(Op::AuthorizeV281, &app).by(Who::ticket(&ticket)),
        authorize(Op::Authorize, &app).by(Who::ticket(&ticket)),
    ];
    for call in &calls {
        let slash = |who: &Who, call: &Call| {
            let (who, call) = (who.clone(), call.clone());
            let world = &world;
            async move {
                let target = format!("{}/", call.op.path());
                if Op::WITH_BODY.contains(&call.op) {
                    world.post(call.op, &target, call.json().to_string(), &who).await
                } else {
                    world.get(call.op, &format!("{target}?{}", crate::harness::world::query(&call.parameters)), &who).await
                }
            }
        };
        if call.op != Op::SignIn {
            let reply: Reply = slash(&Who::nobody(), call).await;
            reply.refused(Case::Caller);
            assert_eq!(reply.header("deprecation").is_some(), call.op.is_deprecated());
        }
        slash(&call.who, call).await.ok();
        if Op::WITH_BODY.contains(&call.op) {
            let refused = world.http.post(world.url(&format!("{}/", call.op.path()))).header("content-type", "text/plain").body("{}");
            assert_eq!(world.receive(call.op, refused).await.status, Status::Http(415));
        }
    }
    // An escaped slash is never a slash, nor part of a token.
    for target in ["/inter-api/auth%2Flogin", "/open-api/supos/auth/v2/a%2Fb/valid", "/open-api/supos/auth/v2/a%5Cb/valid"] {
        let answer = raw::request(world.http(), "GET", target, &[], b"");
        assert_refused(&answer, 400, 100_106_500, target);
    }
}

#[tokio::test]
async fn a_token_in_a_path_that_is_no_text_is_refused() {
    let world = World::shared().await;
    let (app, ..) = world.family().await;
    // What is text, if an odd one, is a token that nobody has signed.
    for (piece, status) in [("%ff", 400), ("a%C3%28", 400), ("%zz", 400), ("%", 400), ("%4", 400), ("a%20b", 200), ("%E4%BD%A0", 200)] {
        let target = Op::Valid.path().replace("{accessToken}", piece);
        let header = format!("authorization: {}", app.signature("GET", &target, ""));
        let answer = raw::request(world.http(), "GET", &target, &[&header], b"");
        assert_eq!(answer.status(), Some(status), "{piece}: {}", answer.text());
        assert!(answer.json()["code"].is_i64() || answer.json()["valid"] == false, "{piece}: {}", answer.text());
    }
}

#[tokio::test]
async fn health_and_readiness_are_for_operators_alone() {
    let world = World::shared().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = raw::request(world.ops(), "GET", path, &[], b"");
        assert_eq!(answer.status(), Some(200), "{path}: {}", answer.text());
        assert_eq!(raw::request(world.http(), "GET", path, &[], b"").status(), Some(404), "{path}");
    }
}

#[tokio::test]
async fn errors_are_never_cached() {
    let world = World::shared().await;
    let (app, ..) = world.family().await;
    let calls =
        [exchange(Op::TokenV2, &app, "no-such-code"), exchange(Op::ExchangeV281, &app, "no-such-code"), valid("x"), Call::new(Op::SignIn)];
    for call in calls {
        let reply = world.call(Via::Envoy, &call).await;
        assert!(!reply.is_ok());
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{:?}", call.op);
    }
    assert_eq!(world.get(Op::Jwks, "/no/such/path", &Who::nobody()).await.header("cache-control"), Some("no-store"));
}
