//! What the 200 and 302 answers look like: names, types, headers.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{Call, Op, Reply, Via, Who, World, authorize, claims, exchange, jwt_part, raw, refresh, valid};

/// The names of the fields of a JSON object, sorted.
fn names(body: &Value) -> Vec<&str> {
    let mut names: Vec<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

#[track_caller]
fn assert_json(reply: &Reply) {
    let content_type = reply.header("content-type").unwrap_or_default();
    assert!(content_type.starts_with("application/json"), "{:?} answers {content_type}", reply.op);
}

#[track_caller]
fn assert_no_store(reply: &Reply) {
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{:?} {}", reply.op, reply.text);
}

#[tokio::test]
async fn token_answers_have_the_documented_names_and_types_on_every_path() {
    let world = World::shared().await;
    let (app, (user, ticket)) = (world.app().await, world.signed_in().await);
    let v2 = vec!["accessToken", "accountType", "companyCode", "expiresIn", "personCode", "refreshToken", "username"];
    let v1 = vec!["accessToken", "accountType", "expiresIn", "refreshToken", "username"];
    let v281 = vec!["accessToken", "expiresIn", "refreshToken"];
    for (exchange_op, refresh_op, expected) in
        [(Op::TokenV2, Op::TokenV2, v2), (Op::TokenV1, Op::TokenV1, v1), (Op::ExchangeV281, Op::RefreshV281, v281)]
    {
        for path in 0..exchange_op.paths().len() {
            let code = world.code(&app, Who::ticket(&ticket)).await;
            let first = world.call(Via::Envoy, &exchange(exchange_op, &app, &code).at_path(path)).await;
            let second = world.call(Via::Envoy, &refresh(refresh_op, &first.tokens().refresh).by(app.who()).at_path(path)).await;
            for reply in [&first, &second] {
                let body = reply.ok();
                assert_eq!(names(body), expected);
                assert_json(reply);
                assert_no_store(reply);
                assert_eq!(body["expiresIn"], "3600", "seconds, as a text");
                if let Some(kind) = body.get("accountType") {
                    assert_eq!((kind, &body["username"]), (&json!(0), &json!(user.name)));
                }
                if let Some(person) = body.get("personCode") {
                    assert_eq!((person, &body["companyCode"]), (&json!(format!("P-{}", user.name)), &json!(format!("C-{}", user.name))));
                }
            }
        }
    }
}

#[tokio::test]
async fn account_type_is_a_number_whatever_it_is() {
    let world = World::shared().await;
    let app = world.app().await;
    for kind in [0, 1, 7] {
        let user = world.user_with(|user| user.account_type = kind).await;
        let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
        let signed_in = world.call(Via::Envoy, &sign_in).await;
        assert_eq!(signed_in.ok()["accountType"], kind);
        let code = world.code(&app, Who::ticket(&signed_in.text_of("ticket"))).await;
        assert_eq!(world.call(Via::Envoy, &exchange(Op::TokenV1, &app, &code)).await.ok()["accountType"], kind);
    }
}

#[tokio::test]
async fn asking_answers_have_the_documented_names_and_types() {
    let world = World::shared().await;
    let (app, user, _, tokens) = world.family().await;
    let valid_reply = world.call(Via::Envoy, &valid(&tokens.access).by(app.who())).await;
    assert_eq!(*valid_reply.ok(), json!({"valid": true}));
    assert_json(&valid_reply);
    let username = world.call(Via::Envoy, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await;
    assert_eq!(*username.ok(), json!({"message": user.name, "username": user.name}));
    assert_json(&username);
    let signed_out = world.call(Via::Envoy, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who())).await;
    assert_eq!(*signed_out.ok(), json!({"code": "100000000", "message": "OK"}));
    assert_json(&signed_out);
}

#[tokio::test]
async fn signing_in_answers_the_ticket_and_sets_it_as_a_cookie_beside_one_that_knows_the_browser() {
    let world = World::shared().await;
    let user = world.user().await;
    let reply = world.call(Via::Envoy, &Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)).await;
    assert_eq!(names(reply.ok()), ["accountType", "companyCode", "personCode", "ticket", "username"]);
    assert_no_store(&reply);
    assert_json(&reply);
    let ticket = reply.text_of("ticket");

    let cookies = reply.headers_of("set-cookie");
    let [of_the_session, of_the_browser] = cookies.as_slice() else { panic!("two cookies are set: {cookies:?}") };
    let (value, attributes) = cookie(of_the_session);
    assert_eq!(value, format!("suposTicket={ticket}"));
    assert!(!attributes.iter().any(|attribute| attribute.starts_with("max-age")), "the session's own cookie: {of_the_session}");
    let (value, attributes) = cookie(of_the_browser);
    assert!(value.starts_with("suposBrowser=") && !value.contains(&ticket), "{of_the_browser}");
    assert!(attributes.contains(&format!("max-age={}", 180 * 86_400)), "it outlives the session: {of_the_browser}");
}

/// The name and value of a cookie, and its attributes, of which those that any cookie of the service has are checked.
#[track_caller]
fn cookie(header: &str) -> (&str, Vec<String>) {
    let (value, attributes) = header.split_once(';').expect("a cookie has attributes");
    let attributes: Vec<String> = attributes.split(';').map(|attribute| attribute.trim().to_ascii_lowercase()).collect();
    for attribute in ["httponly", "samesite=lax", "path=/"] {
        assert!(attributes.contains(&attribute.to_owned()), "{attribute} is missing: {header}");
    }
    assert!(!attributes.iter().any(|attribute| attribute.starts_with("domain")), "no Domain: {header}");
    assert!(!attributes.contains(&"secure".to_owned()), "the public URL is http, so a Secure cookie would never come back: {header}");
    (value, attributes)
}

#[tokio::test]
async fn signing_out_clears_the_cookie_by_post_and_by_get_with_a_session_or_without() {
    let world = World::shared().await;
    for path in 0..Op::SignOut.paths().len() {
        let (_, ticket) = world.signed_in().await;
        for who in [Who::ticket(&ticket), Who::ticket(&ticket), Who::ticket("no-such-ticket"), Who::nobody()] {
            let reply = world.call(Via::Envoy, &Call::new(Op::SignOut).at_path(path).by(who)).await;
            assert_eq!(*reply.ok(), json!({"code": "100000000", "message": "OK"}));
            assert_json(&reply);
            let cookies = reply.headers_of("set-cookie");
            let [cookie] = cookies.as_slice() else { panic!("one cookie is set: {cookies:?}") };
            let cookie = cookie.to_ascii_lowercase();
            assert!(cookie.starts_with("suposticket=;"), "the cookie is emptied: {cookie}");
            assert!(cookie.contains("max-age=0") || cookie.contains("expires=thu, 01 jan 1970"), "the cookie is gone at once: {cookie}");
            assert!(cookie.contains("path=/") && !cookie.contains("domain"), "it is the cookie of sign-in: {cookie}");
        }
    }
}

#[tokio::test]
async fn authorize_answers_302_with_the_code_in_the_location_and_in_the_json() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for op in Op::AUTHORIZES {
        let state = "a state & more = 100%/ü\"'<>";
        let reply = world.call(Via::Envoy, &authorize(op, &app).but("state", Some(state)).by(Who::ticket(&ticket))).await;
        assert_eq!(reply.status, crate::harness::Status::Http(302));
        assert_eq!(names(reply.ok()), ["code", "message"]);
        assert_eq!(reply.ok()["message"], "OK");
        assert_json(&reply);
        assert_no_store(&reply);
        let location = url::Url::parse(reply.header("location").expect("a location")).expect("a URL");
        assert!(location.as_str().starts_with(&format!("{}?", app.redirect)), "{location}");
        let query: Vec<(String, String)> = location.query_pairs().into_owned().collect();
        assert_eq!(query, [("code".to_owned(), reply.text_of("code")), ("state".to_owned(), state.to_owned())]);
        assert!(reply.header("set-cookie").is_none(), "authorize sets no cookie");
    }
}

#[tokio::test]
async fn a_code_over_grpc_comes_with_no_redirect() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for op in Op::AUTHORIZES {
        let reply = world.call(Via::Native, &authorize(op, &app).by(Who::ticket(&ticket))).await;
        assert_eq!(reply.ok()["message"], "OK");
        assert!(!reply.text_of("code").is_empty());
        for header in ["location", "x-http-status", "set-cookie"] {
            assert!(reply.header(header).is_none(), "{header} is for browsers");
        }
    }
}

#[tokio::test]
async fn deprecated_operations_say_so_and_name_their_successor_in_errors_and_redirects_too() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let good = [
        exchange(Op::TokenV1, &app, &code),
        authorize(Op::AuthorizeV281, &app).by(Who::ticket(&ticket)),
        exchange(Op::ExchangeV281, &app, &world.code(&app, Who::ticket(&ticket)).await),
        refresh(Op::RefreshV281, &tokens.refresh).by(app.who()),
        Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who()),
        valid(&tokens.access).by(app.who()),
        Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who()),
    ];
    for call in &good {
        let reply = world.call(Via::Envoy, call).await;
        reply.ok();
        assert_deprecated(&reply);
        let reply = world.call(Via::Envoy, &Call { who: Who::nobody(), ..call.clone() }).await;
        assert!(call.op == Op::Valid || !reply.is_ok(), "nobody gets nothing from {:?}", call.op);
        assert_deprecated(&reply);
    }
    // To a browser, too, whose query cannot even be read.
    let page = raw::request(world.http(), "GET", "/open-api/supos/auth/v2/code/authorize?x=%zz", &["accept: text/html"], b"");
    assert_eq!(page.status(), Some(400), "{}", page.text());
    assert!(page.header("deprecation").is_some() && page.header("link").is_some(), "{}", page.text());
    for op in [Op::TokenV2, Op::Authorize, Op::SignIn, Op::SignOut, Op::Jwks] {
        let reply = world.call(Via::Envoy, &Call::new(op)).await;
        assert!(reply.header("deprecation").is_none(), "{op:?} is not deprecated");
        assert!(reply.header("link").is_none(), "{op:?} has no successor");
    }
}

#[track_caller]
fn assert_deprecated(reply: &Reply) {
    assert!(reply.op.is_deprecated());
    let deprecations = reply.headers_of("deprecation");
    let [since] = deprecations.as_slice() else { panic!("{:?}: deprecation: {deprecations:?}", reply.op) };
    let since = since.strip_prefix('@').and_then(|seconds| seconds.parse::<i64>().ok());
    assert!(since.is_some_and(|seconds| seconds <= crate::harness::now()), "{:?}: a time of RFC 9745: {deprecations:?}", reply.op);
    let links: Vec<String> =
        reply.op.successor().map(|successor| format!("<{}>; rel=\"successor-version\"", successor.path())).into_iter().collect();
    let got: Vec<String> = reply.headers_of("link").into_iter().map(str::to_owned).collect();
    assert_eq!(got.len(), links.len(), "{:?}: {got:?}", reply.op);
    for (got, expected) in got.iter().zip(&links) {
        // A path or a whole URL: both are a URI reference.
        let path = &expected[1..];
        assert!(got.starts_with('<') && got.ends_with(path), "{:?}: {got} is not {expected}", reply.op);
    }
}

#[tokio::test]
async fn the_published_keys_check_the_tokens_and_may_be_cached() {
    let world = World::shared().await;
    let (_, _, _, tokens) = world.family().await;
    let reply = world.call(Via::Envoy, &Call::new(Op::Jwks)).await;
    assert_json(&reply);
    let cache = reply.header("cache-control").unwrap_or_default();
    let max_age = cache.split(',').find_map(|part| part.trim().strip_prefix("max-age=")).and_then(|age| age.parse::<u32>().ok());
    assert!(max_age.is_some_and(|age| age > 0 && age <= 3600) && !cache.contains("no-store"), "cacheable, not for long: {cache}");
    assert_eq!(names(reply.ok()), ["keys"]);

    let header = jwt_part(&tokens.access, 0);
    let keys = reply.ok()["keys"].as_array().expect("keys");
    for key in keys {
        assert_eq!(names(key), ["alg", "crv", "kid", "kty", "use", "x", "y"], "a public key and nothing else");
        assert_eq!((&key["kty"], &key["use"], &key["alg"], &key["crv"]), (&json!("EC"), &json!("sig"), &json!("ES256"), &json!("P-256")));
    }
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key that signed is published");
    let (signed, signature) = tokens.access.rsplit_once('.').expect("three parts");
    let point: Vec<u8> = [vec![4], coordinate(&key["x"]), coordinate(&key["y"])].concat();
    let public = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).expect("base64url")).expect("the published key fits the signature");

    assert_eq!(world.call(Via::Native, &Call::new(Op::Jwks)).await.ok(), reply.ok(), "both surfaces publish the same keys");
}

fn coordinate(value: &Value) -> Vec<u8> {
    let bytes = URL_SAFE_NO_PAD.decode(value.as_str().expect("a text")).expect("base64url");
    assert_eq!(bytes.len(), 32, "a coordinate of P-256");
    bytes
}

#[tokio::test]
async fn a34_access_tokens_hold_the_documented_claims_and_no_others() {
    let world = World::shared().await;
    let (app, (user, ticket)) = (world.app().await, world.signed_in().await);
    let call = authorize(Op::Authorize, &app).with("scope", "one two,three").by(Who::ticket(&ticket));
    let code = world.call(Via::Envoy, &call).await.text_of("code");
    let tokens = world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.tokens();
    let (header, claims) = (jwt_part(&tokens.access, 0), claims(&tokens.access));
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("ES256")));
    assert_eq!(names(&claims), ["aud", "client_id", "exp", "iat", "iss", "jti", "scope", "sid", "sub", "username"]);
    assert_eq!(claims["iss"], world.public_url());
    assert_eq!(claims["aud"], json!([world.public_url()]));
    assert_eq!(claims["client_id"], app.id.as_str());
    assert_eq!(claims["sub"], user.id.as_str());
    assert_eq!(claims["username"], user.name.as_str());
    let (issued, expires) = (claims["iat"].as_i64().expect("a number"), claims["exp"].as_i64().expect("a number"));
    assert!((issued - crate::harness::now()).abs() < 30);
    assert_eq!(expires - issued, tokens.expires_in);
    for word in ["one", "two", "three"] {
        assert!(claims["scope"].as_str().is_some_and(|scope| scope.split([' ', ',']).any(|other| other == word)), "{}", claims["scope"]);
    }
}
