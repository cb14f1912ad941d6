//! Operation 2.

use std::time::Duration;

use supos_auth::grpc::pb::supos::auth::admin::v1::{EnableIdentityProviderRequest, GetIdentityProviderRequest, IdentityProvider};

use super::stage::redirect_uri;
use crate::harness::{Call, Case, Op, Setup, Status, Via, Who, World, unique};

fn call(name: &str) -> Call {
    Call::new(Op::CreateIdentityProvider)
        .with("clientType", "internal")
        .with("protocolType", "bluetron")
        .with("clientName", name)
        .with("enabled", "true")
        .with("clientId", "the-client-id")
        .with("clientSecret", "the-client-secret")
        .with("authorizationUri", "https://authority.invalid/authorize")
        .with("tokenUri", "https://authority.invalid/token")
        .with("userinfoUri", "https://authority.invalid/userinfo")
        .with("logoutUri", "https://authority.invalid/logout")
}

async fn administrator(world: &World) -> Who {
    let call = Call::new(Op::SignIn).with("userName", "admin").with("password", "admin-password");
    Who::ticket(&world.call(Via::Native, &call).await.text_of("ticket"))
}

async fn get(world: &World, name: &str) -> Result<IdentityProvider, tonic::Code> {
    let request = world.as_admin(GetIdentityProviderRequest { name: format!("identityProviders/~{name}") }).await;
    let got = world.authorities().get_identity_provider(request).await.map_err(|status| status.code())?;
    Ok(got.into_inner().identity_provider.expect("the authority"))
}

#[tokio::test]
async fn whoever_has_the_right_registers_an_authority_that_is_enabled_as_he_says() {
    let world = World::shared().await;
    let admin = administrator(&world).await;
    for via in Via::BOTH {
        for (enabled, stored) in [(Some("true"), true), (Some("false"), false), (None, false)] {
            for path in 0..if via == Via::Envoy { 2 } else { 1 } {
                let name = unique("by-right");
                let reply = world.call(via, &call(&name).but("enabled", enabled).at_path(path).by(admin.clone())).await;
                assert_eq!(reply.ok()["enabled"], stored, "{}", reply.text);
                assert_eq!(reply.body["redirectUri"], redirect_uri(&world));
                assert!(!reply.text.contains("the-client-secret"));
                let got = get(&world, &name).await.expect("it is there");
                assert_eq!((got.enabled, got.pending_until.is_some(), got.link_by_name), (Some(stored), false, Some(true)));
            }
        }
    }
    // An app that has the right shows it with a dated signature; an undated one is not worth it.
    let app = world.app_with(|app| app.rights = vec!["identity_providers.write".to_owned()]).await;
    let name = unique("by-app");
    let reply = world.call(Via::Native, &call(&name).by(app.who())).await;
    assert_eq!(reply.ok()["enabled"], true);
}

#[tokio::test]
async fn an_empty_name_is_the_client_id() {
    let world = World::shared().await;
    let admin = administrator(&world).await;
    for (via, name) in [(Via::Envoy, None), (Via::Native, Some(""))] {
        let id = unique("client");
        let call = call("").but("clientName", name).but("clientId", Some(&id)).by(admin.clone());
        world.call(via, &call).await.ok();
        assert_eq!(get(&world, &id).await.expect("it is there").client_id, id);
    }
}

#[tokio::test]
async fn every_rule_about_a_parameter_is_a_400_that_names_it_and_stores_nothing() {
    let world = World::shared().await;
    let admin = administrator(&world).await;
    let name = unique("never");
    let good = || call(&name).by(admin.clone());
    let mut wrong: Vec<(&'static str, Option<String>)> = Vec::new();
    for required in ["clientType", "protocolType", "clientId", "clientSecret", "authorizationUri", "tokenUri", "userinfoUri", "logoutUri"] {
        wrong.extend([(required, None), (required, Some(String::new()))]);
    }
    for word in ["external", "Internal", "internal "] {
        wrong.push(("clientType", Some(word.to_owned())));
    }
    for word in ["oidc", "BLUETRON"] {
        wrong.push(("protocolType", Some(word.to_owned())));
    }
    for (field, longest) in [("clientName", 256), ("clientId", 256), ("clientSecret", 512)] {
        wrong.extend([(field, Some("x".repeat(longest + 1))), (field, Some("a\u{7}b".to_owned()))]);
    }
    for field in ["authorizationUri", "tokenUri", "userinfoUri", "logoutUri"] {
        for uri in [
            "authority.invalid/x",
            "/x",
            "//authority.invalid/x",
            "https:authority.invalid",
            "https:///x",
            "ftp://authority.invalid/x",
            "javascript://authority.invalid/x",
            "file:///etc/passwd",
            "https://user@authority.invalid/x",
            "https://user:word@authority.invalid/x",
            "https://@authority.invalid/x",
            "https://good.invalid\\@authority.invalid/x",
            "https://authority.invalid/x#fragment",
            "https://authority.invalid/x#",
            "https://authority.invalid/x y",
            "https://authority.invalid/\r\nx",
            "https://authority.invalid:99999/x",
        ] {
            wrong.push((field, Some(uri.to_owned())));
        }
        wrong.push((field, Some(format!("https://authority.invalid/{}", "x".repeat(512)))));
    }
    for field in ["tokenUri", "userinfoUri"] {
        for uri in [
            "http://169.254.169.254/x",
            "http://0xa9fea9fe/x",
            "http://[::ffff:169.254.169.254]/x",
            "http://0.0.0.0/x",
            "http://[fe80::1]/x",
        ] {
            wrong.push((field, Some(uri.to_owned())));
        }
        // The service itself, by way of each of its listeners.
        for own in [world.grpc(), world.ops(), world.http()] {
            wrong.push((field, Some(format!("http://{own}/x"))));
        }
    }
    for (field, value) in &wrong {
        for via in Via::BOTH {
            let reply = world.call(via, &good().but(field, value.as_deref())).await;
            reply.refused(Case::Parameter);
            reply.names(field);
            if let Some(value) = value.as_deref().filter(|value| value.len() > 8) {
                assert!(!reply.text.contains(value), "{field}: the answer quotes {value}");
            }
        }
    }
    assert_eq!(get(&world, &name).await.map(|_| ()), Err(tonic::Code::NotFound));
    // Browsers go to the other two by themselves: an address of this machine's is none of our business there.
    world.call(Via::Native, &good().but("logoutUri", Some("http://169.254.169.254/x"))).await.ok();
}

#[tokio::test]
async fn the_json_body_is_judged_as_everywhere() {
    let world = World::shared().await;
    let admin = administrator(&world).await;
    let path = Op::CreateIdentityProvider.path();
    for (body, name) in [
        (r#"{"clientType":"internal","enabled":"true"}"#, "enabled"),
        (r#"{"clientType":"internal","enabled":1}"#, "enabled"),
        (r#"{"clientType":"internal","enabled":true,"enabled":true}"#, "enabled"),
        (r#"{"clientType":"internal","client_type":"internal"}"#, "clientType"),
        (r#"{"clientType":true}"#, "clientType"),
        ("[]", "body"),
    ] {
        let reply = world.post(Op::CreateIdentityProvider, path, body, &admin).await;
        reply.refused(Case::Parameter);
        reply.names(name);
    }
    let twice = world.post(Op::CreateIdentityProvider, &format!("{path}?enabled=true"), "{}", &admin).await;
    twice.refused(Case::Parameter);
    let text = world.http.post(world.url(path)).header("content-type", "text/plain").body("{}");
    assert_eq!(world.receive(Op::CreateIdentityProvider, text).await.status, Status::Http(415));
    // What is not known is passed over, and null is nothing.
    let mut json = call(&unique("json")).json();
    (json["more"], json["enabled"]) = (serde_json::json!([1]), serde_json::Value::Null);
    let reply = world.post(Op::CreateIdentityProvider, path, json.to_string(), &admin).await;
    assert_eq!(reply.ok()["enabled"], false);
}

#[tokio::test]
async fn the_caller_is_judged_before_the_parameters_and_a_bad_credential_is_not_nobody() {
    let world = World::shared().await;
    let (app, ..) = world.family().await;
    for via in Via::BOTH {
        for who in [Who::bearer("x.y.z"), crate::harness::App::signing(&app.id, "not the secret"), Who::authorization("Basic eDp5")] {
            world.call(via, &Call::new(Op::CreateIdentityProvider).by(who)).await.refused(Case::Caller);
        }
    }
    // A page of another site does nothing in the administrator's name.
    let elsewhere = administrator(&world).await.and(Who::headers(vec![("origin", "https://evil.invalid".to_owned())]));
    world.call(Via::Envoy, &call(&unique("csrf")).by(elsewhere)).await.refused(Case::Forbidden);
}

#[tokio::test]
async fn what_nobody_registers_waits_for_an_administrator_and_is_gone_after_a_week() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (forgotten, wanted) = (unique("forgotten"), unique("wanted"));
    for (via, name) in [(Via::Envoy, &forgotten), (Via::Native, &wanted)] {
        let reply = world.call(via, &call(name)).await;
        assert_eq!((&reply.ok()["enabled"], &reply.body["redirectUri"]), (&false.into(), &redirect_uri(&world).into()));
        let got = get(&world, name).await.expect("it is there");
        assert_eq!((got.enabled, got.pending_from.as_str()), (Some(false), "127.0.0.1"));
        let until = got.pending_until.expect("it waits").seconds;
        assert!((until - world.now() - 7 * 86_400).abs() < 60, "{until}");
    }
    // A user without the right, and an app whose signature has no date, are no better off.
    let entitled = world.app_with(|app| app.rights = vec!["identity_providers.write".to_owned()]).await;
    let undated = unique("undated");
    assert_eq!(world.call(Via::Envoy, &call(&undated).by(entitled.who())).await.ok()["enabled"], false);
    assert!(get(&world, &undated).await.expect("it is there").pending_until.is_some());
    let request = world.as_admin(EnableIdentityProviderRequest { name: format!("identityProviders/~{wanted}") }).await;
    world.authorities().enable_identity_provider(request).await.expect("it can be enabled");
    world.step(7 * 86_400 + 1);
    assert_eq!(get(&world, &forgotten).await.map(|_| ()), Err(tonic::Code::NotFound));
    let got = get(&world, &wanted).await.expect("what was enabled stays");
    assert_eq!((got.enabled, got.pending_until), (Some(true), None));
    // Its name is free, and so is its place.
    for _ in 0..3 {
        world.call(Via::Envoy, &call(&unique("again"))).await.ok();
    }
    let entitled = administrator(&world).await;
    world.call(Via::Envoy, &call(&forgotten).by(entitled)).await.ok();
}

#[tokio::test]
async fn h7_three_wait_from_one_address_and_twenty_in_all_and_the_rest_is_told_when_to_come_back() {
    let world = World::own(Setup { trusted_hops: 1, ..Setup::default() }).await;
    let from = |address: &str| Who::headers(vec![("x-forwarded-for", address.to_owned())]);
    for address in 0..6 {
        let address = format!("198.51.100.{address}");
        for place in 0..4 {
            let reply = world.call(Via::Envoy, &call(&unique("pending")).by(from(&address))).await;
            if place < 3 {
                reply.ok();
            } else {
                reply.refused(Case::Tries);
                let wait: u64 = reply.header("retry-after").and_then(|wait| wait.parse().ok()).expect("how long");
                assert!(wait <= 7 * 86_400 && wait > 7 * 86_400 - 600, "{wait}");
            }
        }
    }
    // A /64 of IPv6 is one address. Two more, and it is twenty.
    world.call(Via::Envoy, &call(&unique("pending")).by(from("2001:db8::1"))).await.ok();
    let taken = unique("pending");
    world.call(Via::Envoy, &call(&taken).by(from("2001:db8::ffff:1"))).await.ok();
    world.call(Via::Envoy, &call(&unique("pending")).by(from("203.0.113.1"))).await.refused(Case::Tries);
    world.call(Via::Envoy, &call(&taken).by(from("203.0.113.1"))).await.refused(Case::NameTaken);
    // Whoever has the right is not bound by that, and what waits gives way to him.
    let admin = administrator(&world).await;
    let reply = world.call(Via::Envoy, &call(&taken).by(admin.clone())).await;
    assert_eq!(reply.ok()["enabled"], true);
    world.call(Via::Envoy, &call(&taken).by(admin)).await.refused(Case::NameTaken);
    world.call(Via::Envoy, &call(&unique("pending")).by(from("203.0.113.1"))).await.ok();
}

#[tokio::test]
async fn a_name_that_is_taken_is_409_changes_nothing_and_a_race_for_one_has_one_winner() {
    let world = World::shared().await;
    let admin = administrator(&world).await;
    let name = unique("taken");
    world.call(Via::Envoy, &call(&name).by(admin.clone())).await.ok();
    for via in Via::BOTH {
        for who in [admin.clone(), Who::nobody()] {
            let reply = world.call(via, &call(&name).but("clientId", Some("another")).by(who)).await;
            reply.refused(Case::NameTaken);
            reply.echoes_nothing_of(&call(&name));
        }
    }
    assert_eq!(get(&world, &name).await.expect("it is there").client_id, "the-client-id");
    // One spelling is one name.
    world.call(Via::Envoy, &call("Zu\u{308}rich").by(admin.clone())).await.ok();
    world.call(Via::Envoy, &call("Z\u{fc}rich").by(admin.clone())).await.refused(Case::NameTaken);
    let name = unique("race");
    let replies = (0..16).map(|_| call(&name).by(admin.clone())).map(|call| {
        let via = Via::Envoy;
        let world = &world;
        async move { world.call(via, &call).await }
    });
    let mut won = 0;
    for reply in join_all(replies).await {
        if reply.is_ok() {
            won += 1;
        } else {
            reply.refused(Case::NameTaken);
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn h7_a_race_for_the_last_places_is_won_by_as_many_as_there_are() {
    let world = World::own(Setup::default()).await;
    let calls = (0..16).map(|_| call(&unique("race"))).map(|call| {
        let world = &world;
        async move { world.call(Via::Envoy, &call).await }
    });
    let won = join_all(calls).await.iter().filter(|reply| reply.is_ok()).count();
    assert_eq!(won, 3);
}

#[tokio::test]
async fn an_operator_can_refuse_nobody_altogether() {
    let setup = Setup { arguments: vec!["--no-anonymous-authorities".to_owned()], ..Setup::default() };
    let world = World::own(setup).await;
    for via in Via::BOTH {
        world.call(via, &call(&unique("nobody"))).await.refused(Case::Caller);
        world.call(via, &call(&unique("nobody")).by(Who::ticket("dead"))).await.refused(Case::Caller);
    }
    let (_, ticket) = world.signed_in().await;
    assert_eq!(world.call(Via::Envoy, &call(&unique("known")).by(Who::ticket(&ticket))).await.ok()["enabled"], false);
    let admin = administrator(&world).await;
    assert_eq!(world.call(Via::Envoy, &call(&unique("admin")).by(admin)).await.ok()["enabled"], true);
}

/// Waits for all of them at once.
pub(super) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    let all = std::future::poll_fn(|context| {
        for (future, output) in &mut waiting {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if waiting.iter().all(|(_, output)| output.is_some()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    });
    tokio::time::timeout(Duration::from_mins(1), all).await.expect("they end");
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}
