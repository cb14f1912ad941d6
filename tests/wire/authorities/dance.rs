//! Signing in at an authority: operation 13, and what follows from it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use prost_types::FieldMask;
use serde_json::json;
use supos_auth::grpc::pb::supos::auth::admin::v1::{
    DeleteIdentityProviderRequest, DisableIdentityProviderRequest, LinkUserRequest, UpdateUserRequest, User as AdminUser,
};

use super::{
    registration::join_all,
    stage::{Browser, Fake, Says, cookie, redirect_uri, registered, set_cookie, ticket},
};
use crate::harness::{Call, Case, Op, Setup, Status, Via, Who, World, unique, world::with_another_end};

#[tokio::test]
async fn a_user_signs_in_at_an_authority_and_signs_out_of_it() {
    let world = World::shared().await;
    let user = world.user().await;
    let (app, browser, fake) = (world.app().await, Browser::of(&world).await, Fake::of(&unique("subject"), &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    let mark = world.service_log.mark();
    for via in Via::BOTH {
        let away = browser.begins(&world, &authority);
        assert!(away.location.starts_with(&fake.uri("/authorize?tenant=plant&")), "{}", away.location);
        let says = |name: &str| away.query[name].as_str();
        assert_eq!(
            [says("response_type"), says("client_id"), says("scope"), says("code_challenge_method")],
            ["code", "our-client-id", "openid profile", "S256"]
        );
        assert_eq!(says("redirect_uri"), redirect_uri(&world));

        let reply = world.call(via, &away.back()).await;
        let ticket = ticket(&world, &reply);
        assert_eq!(reply.body, json!({"code": "100000000", "message": "OK"}));
        if via == Via::Envoy {
            assert_eq!((reply.status, reply.header("location")), (Status::Http(302), Some("/where/he/was?a=b")));
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
        for cookie in reply.headers_of("set-cookie") {
            assert!(cookie.contains("; Path=/; HttpOnly; SameSite=Lax") && !cookie.contains("Domain"), "{cookie}");
        }
        assert!(set_cookie(&reply, "suposBrowser").is_some_and(|browser| !browser.is_empty()));
        assert_eq!(set_cookie(&reply, "suposThird"), None, "another tab may be away still");

        let asked = fake.asked();
        let [.., token, user_call] = asked.as_slice() else { panic!("two calls: {asked:?}") };
        assert!(token.head.starts_with("POST /token HTTP/1.1") && user_call.head.starts_with("GET /userinfo HTTP/1.1"));
        assert!(user_call.head.contains("authorization: Bearer upstream-token"));
        assert!(token.head.contains("content-type: application/x-www-form-urlencoded"));
        let sent = |name: &str| token.form[name].as_str();
        assert_eq!(
            [sent("grant_type"), sent("code"), sent("client_id"), sent("client_secret"), sent("redirect_uri")],
            ["authorization_code", "upstream-code", "our-client-id", "our-client-secret", &redirect_uri(&world)]
        );
        let challenge = aws_lc_digest(sent("code_verifier"));
        assert_eq!(challenge, says("code_challenge"));

        // The session is as good as one that a password has opened, and says where else to sign out.
        let tokens = world.tokens(&app, &ticket).await;
        assert!(world.is_valid(&app, &tokens.access).await);
        let sign_out = match via {
            Via::Envoy => Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who()),
            Via::Native => Call::new(Op::SignOut).by(Who::ticket(&ticket)),
        };
        for via in Via::BOTH {
            let reply = world.call(via, &sign_out).await;
            let expected = if via == Via::Envoy { json!(fake.uri("/logout")) } else { serde_json::Value::Null };
            assert_eq!(reply.ok()["redirectUri"], expected, "said once: {}", reply.text);
        }
        assert!(!world.is_valid(&app, &tokens.access).await);
    }
    // Nothing that passed through is in the log.
    let log = world.service_log.since(mark).join("\n");
    for secret in ["our-client-secret", "upstream-code", "upstream-token"] {
        assert!(!log.contains(secret), "the log has {secret}");
    }
    // Another session of the same user came from no authority, and its answer has no such field.
    let ordinary = world.sign_in(&user).await;
    let reply = world.call(Via::Envoy, &Call::new(Op::SignOut).by(Who::ticket(&ordinary))).await;
    assert_eq!(*reply.ok(), json!({"code": "100000000", "message": "OK"}));
}

fn aws_lc_digest(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes()))
}

#[tokio::test]
async fn a64_a_state_works_once_in_its_own_browser_unchanged_and_for_ten_minutes() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of("once", &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    let away = browser.begins(&world, &authority);
    let other = browser.begins(&world, &authority);
    let changed = with_another_end(&away.state);
    for via in Via::BOTH {
        for refused in [
            Call { who: Who::nobody(), ..away.back() },
            Call { who: cookie(""), ..away.back() },
            Call { who: cookie(&other.binding), ..away.back() },
            away.back().but("state", Some("x")),
            away.back().but("state", Some(&changed)),
            away.back().but("state", None),
            away.back_with(&[]),
            away.back().but("protocolType", Some("oidc")),
        ] {
            let reply = world.call(via, &refused).await;
            reply.refused(Case::Parameter);
            reply.echoes_nothing_of(&Call { who: Who::nobody(), ..away.back() });
            assert!(set_cookie(&reply, "suposTicket").is_none());
        }
    }
    assert!(fake.asked().is_empty(), "the authority was not asked");
    ticket(&world, &world.call(Via::Envoy, &away.back()).await);
    for via in Via::BOTH {
        world.call(via, &away.back()).await.refused(Case::Parameter);
    }
    world.restart(crate::harness::Pair::kill);
    world.call(Via::Envoy, &away.back()).await.refused(Case::Parameter);
    // Raced, it has one winner.
    let back = other.back();
    let raced = join_all((0..16).map(|_| world.call(Via::Envoy, &back))).await;
    assert_eq!(raced.iter().filter(|reply| reply.is_ok()).count(), 1);

    for (seconds, is_good) in [(598, true), (601, false)] {
        loop {
            let begun = world.now();
            let away = browser.begins(&world, &authority);
            world.go_to(begun + seconds);
            let is_ok = world.call(Via::Envoy, &away.back()).await.is_ok();
            // On a machine that stands still for a moment it may be asked too late.
            if is_ok == is_good || world.now() < begun + 600 {
                assert_eq!(is_ok, is_good, "after {seconds} s");
                break;
            }
            assert!(is_good, "after {seconds} s");
        }
    }
}

#[tokio::test]
async fn what_a_neighbour_on_the_host_has_a_browser_show_beside_its_own_stops_no_sign_in() {
    let world = World::shared().await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of(&unique("beside"), &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    for via in Via::BOTH {
        let (away, other) = (browser.begins(&world, &authority), browser.begins(&world, &authority));
        for planted in ["suposThird=", "suposThird=x; suposThird=y", &format!("suposThird={}", other.binding)] {
            let shown = format!("{planted}; suposThird={}", browser.begins(&world, &authority).binding);
            let refused = Call { who: Who::headers(vec![("cookie", shown)]), ..away.back() };
            world.call(via, &refused).await.refused(Case::Parameter);
        }
        for planted in ["suposThird=", "suposThird=x; suposThird=y", &format!("suposThird={}", other.binding)] {
            let away = browser.begins(&world, &authority);
            let shown = format!("{planted}; suposThird={}", away.binding);
            ticket(&world, &world.call(via, &Call { who: Who::headers(vec![("cookie", shown)]), ..away.back() }).await);
        }
    }
}

#[tokio::test]
async fn a64_b11_an_authority_that_is_disabled_or_deleted_stops_at_once_sign_ins_under_way_included() {
    let world = World::shared().await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of(&unique("off"), &user.name).await);
    for via in Via::BOTH {
        let authority = registered(&world, &fake, |_| {}).await;
        let name = format!("identityProviders/{}", authority.id);
        let away = browser.begins(&world, &authority);
        let request = world.as_admin(DisableIdentityProviderRequest { name: name.clone() }).await;
        world.authorities().disable_identity_provider(request).await.expect("it can be disabled");
        let asked = fake.asked().len();
        world.call(via, &away.back()).await.refused(Case::Off);
        assert_eq!(fake.asked().len(), asked, "it is not even asked");
        let away = browser.begins(&world, &authority);
        let request = world.as_admin(DeleteIdentityProviderRequest { name }).await;
        world.authorities().delete_identity_provider(request).await.expect("it can be deleted");
        world.call(via, &away.back()).await.refused(Case::Off);
    }
    // One that is disabled while the authority is being asked.
    let authority = registered(&world, &fake, |_| {}).await;
    fake.user_says(Says::Nothing);
    let away = browser.begins(&world, &authority);
    let disable = async {
        while !fake.asked().last().is_some_and(|asked| asked.head.starts_with("GET /userinfo")) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let request = world.as_admin(DisableIdentityProviderRequest { name: format!("identityProviders/{}", authority.id) }).await;
        world.authorities().disable_identity_provider(request).await.expect("it can be disabled");
        fake.user_says(Says::json(&json!({"sub": unique("late"), "preferred_username": user.name})));
    };
    let back = away.back();
    let (reply, ()) = tokio::join!(world.call(Via::Envoy, &back), disable);
    reply.refused(Case::Off);
    assert!(set_cookie(&reply, "suposTicket").is_none());
}

#[tokio::test]
async fn h7_a_name_never_leads_to_an_administrator_or_a_user_with_rights() {
    let world = World::shared().await;
    let (boss, auditor) = (world.user_with(|user| user.account_type = 1).await, world.user().await);
    let plain = world.user().await;
    give(&world, &auditor.name, &["tokens.inspect"]).await;
    let browser = Browser::of(&world).await;
    let fake = Fake::of("x", "x").await;
    let authority = registered(&world, &fake, |asked| asked.create_users = true).await;
    let try_as = async |subject: &str, name: &str, via: Via| {
        fake.user_says(Says::json(&json!({"sub": subject, "preferred_username": name})));
        world.call(via, &browser.begins(&world, &authority).back()).await
    };
    for via in Via::BOTH {
        for name in [boss.name.as_str(), "admin", auditor.name.as_str()] {
            try_as(&unique("s"), name, via).await.refused(Case::Stranger);
        }
    }
    // An administrator says who they are.
    let link = LinkUserRequest {
        identity_provider: format!("identityProviders/{}", authority.id),
        subject: "the-boss".to_owned(),
        user: format!("users/{}", boss.id),
    };
    world.authorities().link_user(world.as_admin(link).await).await.expect("he can be linked");
    let boss_ticket = ticket(&world, &try_as("the-boss", "whatever", Via::Envoy).await);
    assert!(!boss_ticket.is_empty());
    // Who was found by his name and gets rights later has to be linked, too: anybody at the authority could have had that name.
    ticket(&world, &try_as("plain", &plain.name, Via::Envoy).await);
    give(&world, &plain.name, &["sessions.end"]).await;
    try_as("plain", &plain.name, Via::Envoy).await.refused(Case::Stranger);
}

async fn give(world: &World, name: &str, rights: &[&str]) {
    let user = AdminUser {
        name: format!("users/~{name}"),
        rights: rights.iter().map(|&right| right.to_owned()).collect(),
        ..AdminUser::default()
    };
    let message = UpdateUserRequest { user: Some(user), update_mask: Some(FieldMask { paths: vec!["rights".into()] }) };
    world.users().update_user(world.as_admin(message).await).await.expect("rights can be given");
}

#[tokio::test]
async fn whoever_is_nobody_here_is_refused_or_made_as_the_authority_is_set() {
    let world = World::shared().await;
    let (known, off) = (world.user().await, world.user().await);
    world.disable_user(&off).await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of("x", "x").await);
    let says = |subject: &str, name: &str| fake.user_says(Says::json(&json!({"sub": subject, "preferred_username": name})));

    let by_hand = registered(&world, &fake, |asked| asked.link_by_name = Some(false)).await;
    let ordinary = registered(&world, &fake, |_| {}).await;
    let making = registered(&world, &fake, |asked| asked.create_users = true).await;
    let come = async |authority, via| world.call(via, &browser.begins(&world, authority).back()).await;
    for via in Via::BOTH {
        says(&unique("s"), &known.name);
        come(&by_hand, via).await.refused(Case::Stranger);
        says(&unique("s"), &unique("nobody"));
        come(&ordinary, via).await.refused(Case::Stranger);
        says(&unique("s"), &known.name.to_uppercase());
        come(&ordinary, via).await.refused(Case::Stranger);
        for name in ["", "a\u{0}b", "a@b@c"] {
            says(&unique("s"), name);
            come(&ordinary, via).await.refused(Case::Stranger);
        }
        says(&unique("s"), &off.name);
        come(&ordinary, via).await.refused(Case::Disabled);
    }
    let (name, subject) = (unique("made"), unique("s"));
    says(&subject, &name);
    let app = world.app().await;
    for _ in 0..2 {
        let ticket = ticket(&world, &come(&making, Via::Envoy).await);
        let tokens = world.tokens(&app, &ticket).await;
        let reply = world.call(Via::Native, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await;
        assert_eq!(reply.text_of("username"), name);
    }
    // He has no password, so no password is his.
    let guess = Call::new(Op::SignIn).with("userName", &name).with("password", "x");
    world.call(Via::Envoy, &guess).await.refused(Case::Password);
    // Another one of the same name is not he, and not made.
    says(&unique("s"), &name);
    let strict = registered(&world, &fake, |asked| (asked.link_by_name, asked.create_users) = (Some(false), true)).await;
    come(&strict, Via::Envoy).await.refused(Case::Stranger);
}

#[tokio::test]
async fn what_the_authority_says_instead_of_a_code_is_told() {
    let world = World::shared().await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of(&unique("no"), &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    for via in Via::BOTH {
        for (error, case) in [
            ("access_denied", Case::Forbidden),
            ("login_required", Case::Forbidden),
            ("server_error", Case::TokenCall),
            ("<script>", Case::TokenCall),
        ] {
            let away = browser.begins(&world, &authority);
            let reply = world.call(via, &away.back_with(&[("error", error)])).await;
            reply.refused(case);
            assert!(!reply.text.contains(error));
            // A code beside an error is none.
            let both = away.back_with(&[("error", "access_denied"), ("code", "upstream-code")]);
            world.call(via, &both).await.refused(Case::Forbidden);
            assert!(fake.asked().is_empty());
            // Nothing is kept of an error, so the state is as good as before.
            ticket(&world, &world.call(via, &away.back()).await);
            fake.forget();
        }
    }
}

#[tokio::test]
async fn sign_ins_at_an_authority_that_come_to_nothing_are_limited_by_address_and_nobody_is_kept_from_a_browser_that_he_is_known_by() {
    const FREE: usize = 5;
    let setup = Setup { trusted_hops: 1, ..Setup::default().movable_clock() };
    let mut world = World::own(setup.argument("--failures-per-address", &FREE.to_string())).await;
    let user = world.user().await;
    let (browser, fake) = (Browser::of(&world).await, Fake::of("subject", &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    let back = |world: &World, address: &str| browser.begins(world, &authority).back().header("x-forwarded-for", address);
    // What comes to something is not counted.
    let mut known = None;
    for _ in 0..2 * FREE {
        let reply = world.call(Via::Envoy, &back(&world, "192.0.2.1")).await;
        ticket(&world, &reply);
        known = set_cookie(&reply, "suposBrowser");
    }
    let known = known.expect("a browser that he is known by");
    fake.token_says(Says::status("400 Bad Request", r#"{"error": "invalid_grant"}"#));
    for _ in 0..FREE {
        world.call(Via::Envoy, &back(&world, "192.0.2.1")).await.refused(Case::TokenCall);
    }
    fake.forget();
    let waiting = back(&world, "192.0.2.1");
    let refused = world.call(Via::Envoy, &waiting).await;
    refused.refused(Case::Tries);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse().is_ok_and(|seconds: u64| (1..=11).contains(&seconds))));
    assert!(fake.asked().is_empty(), "the authority is not asked");
    fake.token_says(Says::json(&json!({"access_token": "upstream-token", "token_type": "Bearer"})));
    ticket(&world, &world.call(Via::Envoy, &back(&world, "192.0.2.2")).await);
    let his = back(&world, "192.0.2.1").by(Who::headers(vec![("cookie", format!("suposBrowser={known}"))]));
    ticket(&world, &world.call(Via::Envoy, &his).await);
    // Nothing was used up when it was refused.
    world.step(11);
    ticket(&world, &world.call(Via::Envoy, &waiting).await);
}

#[tokio::test]
async fn b10_a_sign_in_at_an_authority_makes_a_new_ticket_whatever_the_browser_has() {
    let world = World::shared().await;
    let (user, planted) = (world.user().await, world.signed_in().await.1);
    let (browser, fake) = (Browser::of(&world).await, Fake::of(&unique("fix"), &user.name).await);
    let authority = registered(&world, &fake, |_| {}).await;
    let away = browser.begins(&world, &authority);
    let reply = world.call(Via::Envoy, &away.back().by(cookie(&away.binding).and(Who::ticket(&planted)))).await;
    assert_ne!(ticket(&world, &reply), planted);
}
