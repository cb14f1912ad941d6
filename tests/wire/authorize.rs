//! Authorize (operations 4 and 10): who is known, which app it is for, where the code goes.

mod redirects;

use serde_json::json;

use crate::harness::{App, Call, Case, Op, Reply, Status, Via, Who, World, authorize, exchange, raw, unique};

#[tokio::test]
async fn the_user_is_known_by_the_cookie_and_by_a_bearer_of_the_app() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    for via in Via::BOTH {
        for op in Op::AUTHORIZES {
            for who in [Who::ticket(&ticket), Who::bearer(&tokens.access)] {
                let code = world.call(via, &authorize(op, &app).by(who)).await.text_of("code");
                let given = world.call(via, &exchange(Op::TokenV2, &app, &code)).await;
                assert_eq!(given.ok()["username"], user.name.as_str());
            }
        }
    }
}

#[tokio::test]
async fn a_bearer_makes_codes_for_its_own_app_alone() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let other = world.app().await;
    for via in Via::BOTH {
        for op in Op::AUTHORIZES {
            world.call(via, &authorize(op, &other).by(Who::bearer(&tokens.access))).await.refused(Case::Forbidden);
            world.call(via, &authorize(op, &app).by(Who::bearer(&tokens.access))).await.ok();
            world.call(via, &authorize(op, &other).by(Who::ticket(&ticket))).await.ok();
        }
        let no_name = authorize(Op::Authorize, &other).but("appid", None).by(Who::bearer(&tokens.access));
        world.call(via, &no_name).await.refused(Case::Forbidden);
    }
}

#[tokio::test]
async fn a_dead_cookie_counts_as_none() {
    let world = World::shared().await;
    let (app, user, _, tokens) = world.family().await;
    let ended = world.sign_in(&user).await;
    world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ended))).await.ok();
    let live = world.sign_in(&user).await;
    for via in Via::BOTH {
        for op in Op::AUTHORIZES {
            for dead in [ended.as_str(), "no-such-ticket", "", "a b", "x=y"] {
                world.call(via, &authorize(op, &app).by(Who::ticket(dead))).await.refused(Case::Caller);
                world.call(via, &authorize(op, &app).by(Who::ticket(dead)).by(Who::bearer(&tokens.access))).await.ok();
                let beside_a_live_one = Who::headers(vec![("cookie", format!("a=b; suposTicket={dead}; suposTicket={live}; c=d"))]);
                world.call(via, &authorize(op, &app).by(beside_a_live_one)).await.ok();
            }
        }
    }
}

#[tokio::test]
async fn two_cookies_that_name_different_sessions_are_ambiguous_and_two_of_one_session_are_not() {
    let world = World::shared().await;
    let (app, (user, first)) = (world.app().await, world.signed_in().await);
    let second = world.sign_in(&user).await;
    let (_, strangers) = world.signed_in().await;
    for via in Via::BOTH {
        for op in Op::AUTHORIZES {
            for other in [&second, &strangers] {
                for who in [
                    Who::headers(vec![("cookie", format!("suposTicket={first}; suposTicket={other}"))]),
                    Who::headers(vec![("cookie", format!("suposTicket={first}")), ("cookie", format!("x=y; suposTicket={other}"))]),
                ] {
                    let reply = world.call(via, &authorize(op, &app).by(who)).await;
                    reply.refused(Case::Parameter);
                    assert!(!reply.text.contains(&first) && !reply.text.contains(other.as_str()), "{}", reply.text);
                }
            }
            let twice = Who::headers(vec![("cookie", format!("suposTicket={first}; x=y")), ("cookie", format!("suposTicket={first}"))]);
            world.call(via, &authorize(op, &app).by(twice)).await.ok();
        }
    }
}

#[tokio::test]
async fn the_cookies_name_is_exact() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for via in Via::BOTH {
        for name in ["suposticket", "SUPOSTICKET", "xsuposTicket", "suposTicket2", "__Host-suposTicket"] {
            let who = Who::headers(vec![("cookie", format!("{name}={ticket}"))]);
            world.call(via, &authorize(Op::Authorize, &app).by(who)).await.refused(Case::Caller);
        }
        let among_others = Who::headers(vec![("cookie", format!("a=suposTicket; b=\"; suposTicket={ticket} ;c"))]);
        world.call(via, &authorize(Op::Authorize, &app).by(among_others)).await.ok();
    }
}

#[tokio::test]
async fn a_caller_who_is_not_known_and_is_no_browser_gets_401() {
    let world = World::shared().await;
    let app = world.app().await;
    for op in Op::AUTHORIZES {
        for accept in ["application/json", "*/*", "text/plain, application/json;q=0.9"] {
            let reply = world.call(Via::Envoy, &authorize(op, &app).header("accept", accept)).await;
            reply.refused(Case::Caller);
        }
    }
}

#[tokio::test]
async fn without_appid_the_app_is_the_one_that_the_redirect_uri_belongs_to() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let shared = format!("https://{}.invalid", unique("shared"));
    let wide = world.app_with(|app| app.redirect_uris = vec![format!("{shared}/*")]).await;
    let narrow = world.app_with(|app| app.redirect_uris = vec![format!("{shared}/narrow")]).await;
    let without =
        |redirect: &str| authorize(Op::Authorize, &app).but("appid", None).but("redirectUri", Some(redirect)).by(Who::ticket(&ticket));
    for via in Via::BOTH {
        let code = world.call(via, &without(&app.redirect)).await.text_of("code");
        world.call(via, &exchange(Op::TokenV2, &app, &code)).await.ok();
        let code = world.call(via, &without(&format!("{shared}/elsewhere"))).await.text_of("code");
        world.call(via, &exchange(Op::TokenV2, &wide, &code)).await.ok();

        world.call(via, &without(&format!("{shared}/narrow"))).await.refused(Case::Parameter);
        world.call(via, &without("https://nobody.invalid/callback")).await.refused(Case::Parameter);

        let named = authorize(Op::Authorize, &App { redirect: format!("{shared}/narrow"), ..narrow.clone() }).by(Who::ticket(&ticket));
        let code = world.call(via, &named).await.text_of("code");
        world.call(via, &exchange(Op::TokenV2, &narrow, &code)).await.ok();
        // An empty one is none.
        world.call(via, &without(&app.redirect).with("appid", "")).await.ok();
    }
}

#[tokio::test]
async fn operation_4_has_to_have_an_appid() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for via in Via::BOTH {
        let reply = world.call(via, &authorize(Op::AuthorizeV281, &app).but("appid", None).by(Who::ticket(&ticket))).await;
        reply.refused(Case::Parameter);
        reply.names("appid");
    }
}

#[tokio::test]
async fn the_location_keeps_the_query_and_the_fragment_and_no_older_code_or_state() {
    let world = World::shared().await;
    let app = world.app_with(|app| app.redirect_uris = vec![format!("https://{}.invalid/*", app.app_id)]).await;
    let (_, ticket) = world.signed_in().await;
    let origin = format!("https://{}.invalid", app.id);
    for op in Op::AUTHORIZES {
        for (redirect, expected) in [
            ("/cb", "/cb?code=CODE&state=S"),
            ("/cb?", "/cb?code=CODE&state=S"),
            ("/cb?a=1&b=2", "/cb?a=1&b=2&code=CODE&state=S"),
            ("/cb?code=old&a=1&state=old", "/cb?a=1&code=CODE&state=S"),
            ("/cb?a=1&c%6fde=old&st%61te=old", "/cb?a=1&code=CODE&state=S"),
            ("/cb?code&state", "/cb?code=CODE&state=S"),
            ("/cb#part", "/cb?code=CODE&state=S#part"),
            ("/cb?a=1#part?code=x", "/cb?a=1&code=CODE&state=S#part?code=x"),
            ("/cb#code=old&state=old", "/cb?code=CODE&state=S#code=old&state=old"),
        ] {
            let call = authorize(op, &app)
                .but("redirectUri", Some(&format!("{origin}{redirect}")))
                .but("state", Some("S"))
                .by(Who::ticket(&ticket));
            let reply: Reply = world.call(Via::Envoy, &call).await;
            assert_eq!(reply.status, Status::Http(302), "{redirect}: {}", reply.text);
            let code = reply.text_of("code");
            let expected = format!("{origin}{}", expected.replace("CODE", &code));
            assert_eq!(reply.headers_of("location"), [expected.as_str()], "{redirect}");
            assert!(!code.contains(['%', '&', '=', '+', '#', ' ']), "a code goes into a query as it is: {code}");
        }
    }
}

#[tokio::test]
async fn state_comes_back_byte_for_byte_and_splits_no_header() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for state in
        ["&<>\"'%0a", "a\r\nset-cookie: x=y\r\n\r\n<html>", "\u{0}", "line\nline", "你好 🎉", "..//\\@:?#[]", "+%2B", &"long&=".repeat(300)]
    {
        for op in Op::AUTHORIZES {
            let call = authorize(op, &app).but("state", Some(state)).by(Who::ticket(&ticket));
            let reply = world.call(Via::Envoy, &call).await;
            assert!(reply.header("set-cookie").is_none());
            if reply.status == Status::Http(400) && state.contains(char::is_control) {
                continue; // To refuse a control character is as safe as to encode it.
            }
            assert_eq!(reply.status, Status::Http(302), "{state:?}: {}", reply.text);
            let location = url::Url::parse(reply.header("location").expect("one line")).expect("a URL");
            let got: Vec<String> =
                location.query_pairs().filter(|(name, _)| name == "state").map(|(_, value)| value.into_owned()).collect();
            assert_eq!(got, [state]);
        }
    }
}

#[tokio::test]
async fn the_public_url_is_a_setting_whatever_the_headers_say() {
    let world = World::shared().await;
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let forged = [
        "host: evil.invalid",
        "x-forwarded-host: evil.invalid",
        "x-forwarded-proto: https",
        "x-forwarded-port: 444",
        "forwarded: host=evil.invalid;proto=https",
        "x-forwarded-prefix: /evil",
        "x-original-host: evil.invalid",
    ];
    let body = exchange(Op::TokenV2, &app, &code).json().to_string();
    let request = format!(
        "POST {} HTTP/1.1\r\n{}\r\nauthorization: {}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        Op::TokenV2.path(),
        forged.join("\r\n"),
        app.signature("POST", Op::TokenV2.path(), "application/json"),
        body.len()
    );
    let answer = raw::exchange(&raw::Listener::Tcp(world.http()), request.as_bytes(), |_| false);
    assert_eq!(answer.status(), Some(200), "{}", answer.text());
    assert!(!answer.text().contains("evil"), "{}", answer.text());
    let token = answer.json()["accessToken"].as_str().expect("a token").to_owned();
    let claims = crate::harness::claims(&token);
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(world.public_url()), &json!([world.public_url()])));
}
