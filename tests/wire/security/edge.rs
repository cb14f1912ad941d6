//! What Envoy's port and the listeners behind it must not let through.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tonic::{
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};

use crate::harness::{Call, Case, Op, Status, Via, Who, World, authorize, exchange, raw, refresh, valid, world::encode};

#[tokio::test]
async fn h1_forged_headers_of_envoys_change_nothing_through_envoy() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let forged = |path: &str| {
        Who::headers(vec![
            ("x-envoy-original-path", path.to_owned()),
            ("x-envoy-original-method", "POST".to_owned()),
            ("x-original-content-type", "application/json".to_owned()),
            ("x-http-status", "200".to_owned()),
            ("x-envoy-external-address", "10.9.8.7".to_owned()),
            ("x-edge-secret", "guessed".to_owned()),
            ("x-edge-peer", "10.9.8.7".to_owned()),
            ("grpc-timeout", "1n".to_owned()),
            ("grpc-encoding", "gzip".to_owned()),
            ("te", "trailers".to_owned()),
        ])
    };
    // The operation and the parameters are those of the real path.
    let other_query = forged(&format!("{}?grantType=authorization_code&appid=x&code=y", Op::ExchangeV281.path()));
    let first = world.call(Via::Envoy, &exchange(Op::ExchangeV281, &app, &code).by(other_query)).await.tokens();
    let other_token = forged(&Op::Valid.path().replace("{accessToken}", "not-a-token"));
    assert!(world.call(Via::Envoy, &valid(&tokens.access).by(app.who()).by(other_token)).await.valid());
    let other_op = forged(Op::TokenV2.path());
    world.call(Via::Envoy, &refresh(Op::RefreshV281, &first.refresh).by(app.who()).by(other_op)).await.ok();
    let real = forged(&Op::Valid.path().replace("{accessToken}", &tokens.access));
    assert!(!world.call(Via::Envoy, &valid("not-a-token").by(app.who()).by(real)).await.valid());
    // An error stays an error.
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, "no-such-code").by(forged("/oauth2/jwks"))).await.refused(Case::Grant);
    let text = world
        .http
        .post(world.url(Op::TokenV2.path()))
        .header("content-type", "text/plain")
        .header("x-original-content-type", "application/json");
    assert_eq!(world.receive(Op::TokenV2, text.body("{}")).await.status, Status::Http(415));
}

#[tokio::test]
async fn h1_the_native_listener_takes_no_word_of_envoys() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let forged = |op: Op, query: &str| {
        Who::headers(vec![
            ("x-envoy-original-path", format!("{}?{query}", op.path())),
            ("x-envoy-original-method", op.paths()[0].0.to_owned()),
            ("x-original-content-type", "application/json".to_owned()),
            ("x-envoy-external-address", "10.9.8.7".to_owned()),
        ])
    };
    // The message counts, and not a query that no one has sent.
    let elsewhere = forged(Op::ExchangeV281, "grantType=authorization_code&appid=x&code=y");
    world.call(Via::Native, &exchange(Op::ExchangeV281, &app, &code).by(elsewhere)).await.ok();
    let real = forged(Op::RefreshV281, &format!("refreshToken={}", tokens.refresh));
    world.call(Via::Native, &refresh(Op::RefreshV281, "").by(app.who()).by(real)).await.refused(Case::Parameter);
    // And a native caller gets a native error, which conforms to gRPC.
    let refused = world.call(Via::Native, &exchange(Op::TokenV2, &app, "no-such-code").by(forged(Op::TokenV2, ""))).await;
    refused.refused(Case::Grant);
    assert_eq!(refused.status, Status::Grpc(tonic::Code::Unauthenticated));
    let redirect =
        world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket)).by(forged(Op::Authorize, "state=x"))).await;
    assert!(redirect.header("set-cookie").is_none());
    redirect.ok();
}

const METHODS: [&str; 12] = [
    "/supos.auth.v2.AuthService/Token",
    "/supos.auth.v2.AuthService/SignIn",
    "/supos.auth.v2.AuthService/GetJwks",
    "/supos.auth.v1.AuthService/Token",
    "/supos.auth.v281.AuthService/ValidateToken",
    "/supos.auth.admin.v1.AppService/ListApps",
    "/supos.auth.admin.v1.UserService/ListUsers",
    "/supos.auth.admin.v1.SessionService/ListSessions",
    "/supos.auth.admin.v1.SigningKeyService/ListSigningKeys",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

#[tokio::test]
async fn h2_native_grpc_and_method_paths_do_not_exist_on_the_public_port() {
    let world = World::shared().await;
    for path in METHODS {
        for content_type in ["application/json", "text/plain", "application/octet-stream"] {
            let answer = raw::request(world.http(), "POST", path, &[&format!("content-type: {content_type}"), "content-length: 2"], b"{}");
            assert_eq!(
                (answer.status(), &answer.json()["code"]),
                (Some(404), &json!(100_106_404)),
                "{path} {content_type}: {}",
                answer.text()
            );
        }
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-web",
            "application/grpc-web-text",
            "application/grpc+json",
            "APPLICATION/GRPC",
        ] {
            let answer =
                raw::request(world.http(), "POST", path, &[&format!("content-type: {content_type}"), "content-length: 5"], b"\0\0\0\0\0");
            let refused = answer.status() == Some(415)
                || (answer.status() == Some(200) && answer.header("grpc-status").is_some_and(|status| status != "0"));
            assert!(refused, "{path} {content_type}: {}", answer.text());
        }
    }
    for op in [Op::TokenV2, Op::SignIn, Op::SignOut, Op::Valid] {
        let answer = raw::request(world.http(), "POST", op.path(), &["content-type: application/grpc", "content-length: 5"], b"\0\0\0\0\0");
        assert!(answer.status() == Some(415) || answer.header("grpc-status").is_some_and(|status| status != "0"), "{}", answer.text());
    }
}

#[tokio::test]
async fn h2_a_grpc_client_at_the_public_port_sees_an_error() {
    let mut world = World::shared().await;
    let endpoint = Endpoint::from_shared(format!("http://{}", world.http())).expect("a URL");
    world.channel = endpoint.connect_lazy();
    for op in [Op::Jwks, Op::SignIn, Op::Valid] {
        let reply = world.call(Via::Native, &Call::new(op)).await;
        assert!(matches!(reply.status, Status::Grpc(code) if code != tonic::Code::Ok), "{op:?}: {reply:?}");
    }
}

/// How a method answers an empty message from an administrator.
async fn answer_to_an_administrator(world: &World, channel: &Channel, path: &'static str) -> tonic::Code {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the listener takes connections");
    let request = world.as_admin(()).await;
    let reply = client.unary(request, PathAndQuery::from_static(path), tonic_prost::ProstCodec::<(), ()>::default()).await;
    reply.map_or_else(|status| status.code(), |_| tonic::Code::Ok)
}

#[tokio::test]
async fn h2_the_edge_socket_has_no_admin_service_and_no_reflection() {
    let world = World::shared().await;
    let edge = Endpoint::from_shared(format!("unix:{}", world.edge().display())).expect("a path makes a URL").connect_lazy();
    for path in METHODS.iter().filter(|path| path.contains("admin") || path.contains("reflection")) {
        assert_ne!(answer_to_an_administrator(&world, &world.channel, path).await, tonic::Code::Unimplemented, "{path} is there, natively");
        assert_eq!(answer_to_an_administrator(&world, &edge, path).await, tonic::Code::Unimplemented, "{path}");
    }
    // The socket is the service's user's alone.
    let mode = std::fs::metadata(world.edge()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[tokio::test]
async fn h5_the_token_in_the_path_is_the_one_that_is_judged() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let base = Op::Valid.path();
    for (in_path, in_query) in [
        (tokens.access.as_str(), "not-a-token"),
        ("not-a-token", tokens.access.as_str()),
        (tokens.access.as_str(), tokens.access.as_str()),
        ("x", ""),
    ] {
        for name in ["accessToken", "access_token", "ACCESSTOKEN", "accesstoken", "%61ccessToken", "_accessToken_"] {
            let target = format!("{}?{name}={}", base.replace("{accessToken}", &encode(in_path)), encode(in_query));
            let reply = world.get(Op::Valid, &target, &app.who()).await;
            reply.refused(Case::Parameter);
            let target = format!("{}?unknown=1&{name}", base.replace("{accessToken}", &encode(in_path)));
            world.get(Op::Valid, &target, &app.who()).await.refused(Case::Parameter);
        }
    }
    let target = format!("{}?token=x&access=y", base.replace("{accessToken}", &encode(&tokens.access)));
    assert!(world.get(Op::Valid, &target, &app.who()).await.valid(), "what the operation does not know is ignored");
}

#[tokio::test]
async fn h6_a_page_elsewhere_cannot_post_json_without_asking_the_browser_first() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let cookie = format!("cookie: suposTicket={ticket}");
    // The types that a browser sends to another site without a preflight, and none at all.
    for content_type in [
        None,
        Some("text/plain"),
        Some("text/plain;charset=UTF-8"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
    ] {
        for op in Op::WITH_BODY {
            for (_, path) in op.paths() {
                let header = content_type.map_or_else(|| "x-nothing: x".to_owned(), |content_type| format!("content-type: {content_type}"));
                let body = json!({"userName": "demo", "password": "demo-password"}).to_string();
                let length = format!("content-length: {}", body.len());
                let answer =
                    raw::request(world.http(), "POST", path, &[&header, &cookie, "origin: https://evil.invalid", &length], body.as_bytes());
                assert_eq!(answer.status(), Some(415), "{path} {header}: {}", answer.text());
                assert!(answer.header("set-cookie").is_none());
            }
        }
    }
}

/// What a page of another origin on the service's host can have a browser send to the gRPC port, with the cookie and without being asked.
#[tokio::test]
async fn h6_a_page_beside_the_service_cannot_use_its_grpc_port_with_the_users_ticket() {
    let world = World::shared().await;
    let (_, ticket) = world.signed_in().await;
    let browser = reqwest::Client::builder().http2_prior_knowledge().no_proxy().build().expect("a client");
    for method in
        ["supos.auth.admin.v1.UserService/ListUsers", "supos.auth.v2.AuthService/SignOut", "supos.auth.v281.AuthService/Authorize"]
    {
        let post = |content_type: Option<&'static str>| {
            let call = browser.post(format!("http://{}/{method}", world.grpc())).header("cookie", format!("suposTicket={ticket}"));
            content_type.map_or(call.try_clone().expect("it has no body yet"), |content_type| call.header("content-type", content_type))
        };
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("multipart/form-data; boundary=x")] {
            let answer = post(content_type).body(vec![0; 5]).send().await.expect("an answer");
            assert_eq!(answer.status(), 415, "{method} {content_type:?}");
            assert!(answer.headers().get("set-cookie").is_none() && answer.headers().get("grpc-status").is_none());
        }
        let answer = post(Some("application/grpc")).body(vec![0; 5]).send().await.expect("an answer");
        assert_eq!(answer.status(), 200, "a gRPC client is let: {method}");
    }
}

#[tokio::test]
async fn h6_a_page_elsewhere_cannot_sign_the_user_out() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let own = world.public_url();
    let foreign: [&[(&'static str, &str)]; 6] = [
        &[("origin", "https://evil.invalid")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
        &[("origin", "https://evil.invalid"), ("sec-fetch-site", "cross-site")],
        &[("origin", "http://127.0.0.1.evil.invalid")],
    ];
    for path in 0..Op::SignOut.paths().len() {
        for headers in foreign {
            let call = headers
                .iter()
                .fold(Call::new(Op::SignOut).at_path(path).by(Who::ticket(&ticket)), |call, (name, value)| call.header(name, value));
            let reply = world.call(Via::Envoy, &call).await;
            reply.refused(Case::Forbidden);
            assert!(reply.header("set-cookie").is_none(), "the cookie stays: {headers:?}");
            assert!(world.is_valid(&app, &tokens.access).await, "{headers:?}");
        }
    }
    // A browser sends none with a form that a page of another site has it post, and would take the service at its word.
    for path in 0..Op::SignOut.paths().len() {
        let bare = |header: Option<(&'static str, &str)>| {
            let call = Call::new(Op::SignOut).at_path(path);
            header.map_or(call.clone(), |(name, value)| call.header(name, value))
        };
        let reply = world.call(Via::Envoy, &bare(Some(("sec-fetch-site", "cross-site")))).await;
        reply.ok();
        assert!(reply.header("set-cookie").is_none(), "the cookie is taken out of his browser");
        for own in [None, Some(("sec-fetch-site", "same-origin"))] {
            let reply = world.call(Via::Envoy, &bare(own)).await;
            assert!(reply.header("set-cookie").is_some_and(|cookie| cookie.starts_with("suposTicket=;")), "{own:?}");
        }
    }
    // Operation 9 takes the cookie, too.
    for headers in foreign {
        let by_cookie = Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(Who::ticket(&ticket));
        let call = headers.iter().fold(by_cookie, |call, (name, value)| call.header(name, value));
        world.call(Via::Envoy, &call).await.refused(Case::Forbidden);
        assert!(world.is_valid(&app, &tokens.access).await, "{headers:?}");
    }
    for headers in [
        vec![("origin", own.as_str())],
        vec![("origin", own.as_str()), ("sec-fetch-site", "same-origin")],
        vec![("sec-fetch-site", "none")],
        vec![],
    ] {
        let (_, ticket) = world.signed_in().await;
        let tokens = world.tokens(&app, &ticket).await;
        let call = headers.iter().fold(Call::new(Op::SignOut).by(Who::ticket(&ticket)), |call, (name, value)| call.header(name, value));
        world.call(Via::Envoy, &call).await.ok();
        assert!(!world.is_valid(&app, &tokens.access).await, "{headers:?}");
    }
}

#[tokio::test]
async fn h12_false_and_zero_are_printed() {
    let world = World::shared().await;
    let (app, user, ..) = world.family().await;
    let refused = world.call(Via::Envoy, &valid("no-such-token").by(app.who())).await;
    assert_eq!(*refused.ok(), json!({"valid": false}));
    let signed_in = world.call(Via::Envoy, &Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)).await;
    assert_eq!(signed_in.ok()["accountType"], 0);
    let plain = world.user_with(|user| (user.person_code, user.company_code) = (String::new(), String::new())).await;
    let signed_in = world.call(Via::Envoy, &Call::new(Op::SignIn).with("userName", &plain.name).with("password", &plain.password)).await;
    assert_eq!((&signed_in.ok()["personCode"], &signed_in.ok()["companyCode"]), (&json!(""), &json!("")));
}

#[tokio::test]
async fn h13_no_way_to_write_a_path_gets_round_a_rule() {
    let world = World::shared().await;
    let body = json!({"userName": "demo", "password": "demo-password"}).to_string();
    let length = format!("content-length: {}", body.len());
    for target in [
        "/inter-api/auth/login",
        "/inter-api/auth/login/",
        "/inter-api/auth/login?",
        "/inter-api/auth/login?x=1",
        "/inter-api/auth/login/?x=1",
    ] {
        let answer = raw::request(world.http(), "POST", target, &["content-type: text/plain", &length], body.as_bytes());
        assert_eq!(answer.status(), Some(415), "{target}: {}", answer.text());
    }
    let odd = [
        "//inter-api/auth/login",
        "/inter-api/auth//login",
        "/inter-api/./auth/login",
        "/inter-api/x/../auth/login",
        "/inter-api/auth/login/.",
        "/inter-api/auth/login//",
        "/inter-api/auth/%6c%6fgin",
        "/inter-api/auth/login%3f",
        "/inter-api/auth/login%20",
        "/inter-api%2fauth%2flogin",
        "/inter-api/auth%5clogin",
        "/inter-api/auth\\login",
        "/inter-api/auth/%2e%2e/auth/login",
    ];
    for target in odd {
        for content_type in ["text/plain", "application/json"] {
            let answer = raw::request(world.http(), "POST", target, &[&format!("content-type: {content_type}"), &length], body.as_bytes());
            assert!(matches!(answer.status(), Some(400 | 404 | 415)), "{target} {content_type}: {}", answer.text());
            assert!(answer.header("set-cookie").is_none() && answer.json()["ticket"] == Value::Null, "{target}");
        }
    }
    let absolute = raw::request(
        world.http(),
        "POST",
        "http://elsewhere.invalid/inter-api/auth/login",
        &["content-type: text/plain", &length],
        body.as_bytes(),
    );
    assert!(matches!(absolute.status(), Some(400 | 404 | 415)), "{}", absolute.text());
}

#[tokio::test]
async fn h14_no_refusal_quotes_what_was_sent() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    for secret in [&tokens.access, &tokens.refresh, &code, &ticket, &app.secret] {
        let authorization = format!("authorization: Bearer {secret}");
        let signature = format!("authorization: Sign {secret}-{secret}");
        let cookie = format!("cookie: suposTicket={secret}; other={secret}");
        let bodies = [
            format!("grant_type=authorization_code&code={secret}"),
            format!("{{\"grantType\":\"{secret}\",\"code\":\"{secret}\"}}"),
            format!("{{\"grantType\": {secret}"),
            secret.clone(),
            format!("{{\"userName\":\"{secret}\",\"password\":\"{secret}\",\"{secret}\":\"{secret}\"}}"),
        ];
        let mut answers = Vec::new();
        for body in &bodies {
            for content_type in ["application/json", "application/x-www-form-urlencoded", secret] {
                for op in Op::WITH_BODY {
                    let length = format!("content-length: {}", body.len());
                    let headers = [format!("content-type: {content_type}"), length, authorization.clone(), cookie.clone()];
                    answers.push(raw::request(world.http(), "POST", op.path(), &headers.each_ref().map(String::as_str), body.as_bytes()));
                }
            }
        }
        for target in [
            format!("/{secret}"),
            format!("/open-api/supos/auth/v2/{secret}/valid?accessToken={secret}"),
            format!("/open-api/supos/auth/v2/{secret}/nothing"),
            format!("/open-api/supos/auth/v2/{secret}%zz/valid"),
            format!("/open-api/supos/auth/v2/username?accessToken={secret}%ff"),
            format!("/open-api/supos/auth/v2/username?{secret}={secret}&{secret}=%"),
            format!("/open-api/supos/auth/v2/code/refreshToken?refreshToken={secret}&refreshToken={secret}"),
            format!("/open-api/supos/auth/v2/code/accessToken?grantType={secret}&appid={secret}&code={secret}"),
            format!("/inter-api/auth/v1/oauth2/authorize?responseType={secret}&redirectUri={secret}&state={secret}&appid={secret}"),
        ] {
            for method in ["GET", "POST", "HEAD", "DELETE"] {
                answers.push(raw::request(world.http(), method, &target, &[&signature, &cookie], b""));
            }
        }
        for answer in answers {
            assert_ne!(answer.status(), Some(200), "{}", answer.text());
            assert!(!answer.text().contains(secret.as_str()), "{}", answer.text());
        }
    }
    // It was all in vain, and did no harm.
    assert!(world.is_valid(&app, &tokens.access).await);
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.ok();
    world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
}

#[tokio::test]
async fn h16_answers_to_urls_that_hold_tokens_leave_no_trace_in_browsers() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let calls = [
        valid(&tokens.access).by(app.who()),
        Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who()),
        refresh(Op::RefreshV281, &tokens.refresh).by(app.who()),
        exchange(Op::ExchangeV281, &app, "no-such-code"),
        authorize(Op::Authorize, &app).by(Who::ticket(&ticket)),
        Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who()),
    ];
    for call in calls {
        let reply = world.call(Via::Envoy, &call).await;
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"), "{:?}", call.op);
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{:?}", call.op);
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{:?}", call.op);
        for inner in ["server", "grpc-status", "grpc-message", "x-http-status", "x-envoy-upstream-service-time", "x-envoy-original-path"] {
            assert!(reply.header(inner).is_none(), "{:?}: {inner}", call.op);
        }
    }
}
