//! What an authority may answer, and what becomes of it.

use std::time::{Duration, Instant};

use serde_json::json;

use super::stage::{Browser, Fake, Says, registered, ticket};
use crate::harness::{Case, Setup, Via, World, unique};

/// Answers that are none, to either call.
fn nonsense() -> Vec<(&'static str, Says)> {
    let good = json!({"access_token": "upstream-token", "sub": "1"}).to_string();
    let huge = json!({"access_token": "upstream-token", "sub": "1", "more": "x".repeat(70_000)}).to_string();
    vec![
        ("an error", Says::status("400 Bad Request", r#"{"error":"invalid_grant"}"#)),
        ("a fault", Says::status("500 Internal Server Error", &good)),
        ("a redirect", Says::Raw(b"HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec())),
        (
            "a redirect that keeps the method",
            Says::Raw(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ),
        ("no content", Says::Raw(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("HTML", Says::status("200 OK", "<html><body>Sign in here")),
        ("half of it", Says::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"sub\":\"1\",\"access_token\":\"t\"}".to_vec())),
        ("an empty object", Says::status("200 OK", "{}")),
        ("a list", Says::status("200 OK", "[]")),
        ("a number", Says::json(&json!({"access_token": 1, "sub": 1}))),
        ("an empty text", Says::json(&json!({"access_token": "", "sub": ""}))),
        ("a control character", Says::json(&json!({"access_token": "a\nb", "sub": "a\nb"}))),
        ("two of it", Says::status("200 OK", r#"{"access_token":"a","access_token":"b","sub":"1","sub":"2"}"#)),
        ("very deep", Says::status("200 OK", &format!("{{\"access_token\":\"t\",\"sub\":\"1\",\"x\":{}", "[".repeat(60_000)))),
        ("too much", Says::Json(huge)),
        ("no HTTP", Says::Raw(b"220 mail.invalid ESMTP\r\n".to_vec())),
        ("nothing", Says::Raw(Vec::new())),
        ("headers without end", Says::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec())),
    ]
}

#[tokio::test]
async fn a65_an_authority_that_answers_nonsense_is_a_502_on_both_surfaces() {
    let world = World::shared().await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of(&unique("nonsense"), &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    for (at, (what, says)) in nonsense().into_iter().enumerate() {
        let via = Via::BOTH[at % 2];
        let mark = world.service_log.mark();
        let good = Says::json(&json!({"access_token": "upstream-token"}));
        for (case, token, user) in [(Case::TokenCall, says.clone(), None), (Case::UserCall, good, Some(says))] {
            fake.token_says(token);
            if let Some(user) = user {
                fake.user_says(user);
            }
            let before = fake.asked().len();
            let reply = world.call(via, &browser.begins(&world, &authority).back()).await;
            if let Err(wrong) = reply.check_refusal(case) {
                panic!("{what}, {case:?}: {wrong}: {}", reply.text);
            }
            assert_eq!(reply.header("retry-after"), None);
            assert_eq!(fake.asked().len() - before, if case == Case::TokenCall { 1 } else { 2 }, "{what}: no call is made again");
        }
        let log = world.service_log.since(mark).join("\n");
        assert!(!log.contains("upstream-token") && !log.contains("Sign in here"), "{what} is in the log");
    }
    // And it was the answers alone.
    fake.token_says(Says::json(&json!({"access_token": "t", "token_type": "bearer"})));
    fake.user_says(Says::json(&json!({"sub": unique("s"), "username": user.name})));
    ticket(&world, &world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await);
}

#[tokio::test]
async fn a65_an_authority_that_is_slow_is_given_up_after_five_seconds_and_keeps_nobody_else_waiting() {
    let world = World::shared().await;
    let (user, ticket) = world.signed_in().await;
    let (app, browser, fake) = (world.app().await, Browser::of(&world).await, Fake::of(&unique("slow"), &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    for (case, token, user) in [
        (Case::TokenCall, Says::Nothing, Says::Nothing),
        (Case::TokenCall, Says::Endless(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec()), Says::Nothing),
        (Case::UserCall, Says::json(&json!({"access_token": "t"})), Says::Nothing),
    ] {
        fake.token_says(token);
        fake.user_says(user);
        let back = browser.begins(&world, &authority).back();
        let begun = Instant::now();
        let others = async {
            for _ in 0..5 {
                let at = Instant::now();
                world.tokens(&app, &ticket).await;
                assert!(at.elapsed() < Duration::from_secs(4), "others wait: {:?}", at.elapsed());
            }
        };
        let (reply, ()) = tokio::join!(world.call(Via::Envoy, &back), others);
        reply.refused(case);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a65_an_authority_that_is_down_or_may_not_be_called_is_a_502() {
    let world = World::own(Setup::default().argument("--outbound-allow", "127.0.0.1/32")).await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of("down", &user.name).await);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
    let elsewhere = tokio::net::TcpListener::bind(("127.0.0.2", 0)).await.expect("a port");
    let port = elsewhere.local_addr().expect("an address").port();
    for uri in [
        format!("http://{free}/token"),
        "http://no-such-name.invalid/token".to_owned(),
        format!("https://{}/token", fake.address),
        // A name is judged by what it leads to.
        format!("http://localhost:{}/token", world.grpc().port()),
        format!("http://localhost:{}/token", world.ops().port()),
    ] {
        let authority = registered(&world, &fake, |asked| asked.token_uri = uri.clone()).await;
        let reply = world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await;
        assert_eq!(reply.check_refusal(Case::TokenCall), Ok(()), "{uri}: {}", reply.text);
        let authority = registered(&world, &fake, |asked| asked.userinfo_uri = uri.replace("/token", "/userinfo")).await;
        let reply = world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await;
        assert_eq!(reply.check_refusal(Case::UserCall), Ok(()), "{uri}: {}", reply.text);
    }
    let came = tokio::time::timeout(Duration::from_millis(10), elsewhere.accept()).await;
    assert!(came.is_err(), "somebody came to port {port}");
}

#[tokio::test]
async fn a64_b6_an_id_token_has_to_agree_with_who_the_user_call_names() {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let world = World::shared().await;
    let user = world.user().await;
    let subject = unique("agree");
    let (browser, fake) = (Browser::of(&world).await, Fake::of(&subject, &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    let jwt = |claims: serde_json::Value| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
    for (id_token, case) in [
        (jwt(json!({"sub": subject})), None),
        (jwt(json!({"sub": subject, "aud": ["our-client-id"]})), None),
        (jwt(json!({"sub": "another"})), Some(Case::UserCall)),
        (jwt(json!({"sub": subject, "aud": "another-client"})), Some(Case::TokenCall)),
        (jwt(json!({})), Some(Case::TokenCall)),
        ("no jwt".to_owned(), Some(Case::TokenCall)),
    ] {
        fake.token_says(Says::json(&json!({"access_token": "t", "id_token": id_token})));
        let reply = world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await;
        match case {
            Some(case) => reply.refused(case),
            None => drop(ticket(&world, &reply)),
        }
    }
    fake.token_says(Says::json(&json!({"access_token": "t", "token_type": "mac"})));
    world.call(Via::Envoy, &browser.begins(&world, &authority).back()).await.refused(Case::TokenCall);
}
