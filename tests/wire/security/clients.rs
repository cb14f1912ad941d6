//! Apps and their secrets.

use std::collections::HashSet;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use supos_auth::grpc::pb::supos::auth::admin::v1::{AddAppSecretRequest, GetAppRequest, RemoveAppSecretRequest};

use crate::harness::{App, Call, Case, Op, Via, Who, World, authorize, exchange, refresh, unique, valid, world::encode};

#[tokio::test]
async fn a18_no_grant_without_the_apps_own_credential() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let other = world.app().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let calls: Vec<Call> = Op::EXCHANGES
        .into_iter()
        .map(|op| Call { who: Who::nobody(), ..exchange(op, &app, &code) })
        .chain(Op::REFRESHES.map(|op| refresh(op, &tokens.refresh)))
        .collect();
    let strangers = [
        Who::nobody(),
        App::signing(&app.id, ""),
        App::signing(&app.id, &other.secret),
        App::signing(&app.id, &app.secret[1..]),
        App::signing(&app.id, &format!("{} ", app.secret)),
        App::signing(&app.id, &app.secret.to_ascii_uppercase()),
        App::signing(&app.id.to_ascii_uppercase(), &app.secret),
        App::signing("", &app.secret),
        App::signing(&app.secret, &app.id),
        Who::authorization(&format!("Sign {}-{}", app.id, app.secret)),
        Who::authorization(&format!("Sign {}:{}", app.id, app.secret)),
        Who::authorization(&format!("Basic {}", STANDARD.encode(format!("{}:{}", app.id, app.secret)))),
        Who::authorization(""),
    ];
    for call in &calls {
        for who in &strangers {
            for via in Via::BOTH {
                let call = call.clone().by(who.clone());
                let reply = world.call(via, &call).await;
                reply.refused(Case::Caller);
                reply.echoes_nothing_of(&call);
            }
        }
    }
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.ok();
    world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
}

#[tokio::test]
async fn a18_two_credentials_in_one_call_are_not_chosen_between() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let call = valid(&tokens.access);
    for (first, second) in
        [(app.who(), App::signing(&app.id, "wrong")), (App::signing(&app.id, "wrong"), app.who()), (app.who(), Who::bearer(&tokens.access))]
    {
        for via in Via::BOTH {
            let reply = world.call(via, &call.clone().by(first.clone()).by(second.clone())).await;
            reply.refused(Case::Parameter);
        }
    }
    let signature = app.signature("GET", &Op::Valid.path().replace("{accessToken}", &encode(&tokens.access)), "");
    assert!(world.call(Via::Envoy, &call.clone().by(Who::authorization(&signature))).await.valid(), "once it is good");
    for via in Via::BOTH {
        world.call(via, &call.clone().by(Who::authorization(&format!("{signature}, {signature}")))).await.refused(Case::Parameter);
    }
}

#[tokio::test]
async fn a19_the_service_makes_secrets_of_256_bits_and_shows_them_once() {
    let world = World::shared().await;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let app = world.app().await;
        assert!(app.secret.len() >= 43, "256 bits are 43 characters of base64: {} are too few", app.secret.len());
        assert!(app.secret.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(seen.insert(app.secret.clone()));
        let request = world.as_admin(GetAppRequest { name: format!("apps/{}", app.id) }).await;
        let shown = world.apps().get_app(request).await.expect("the app").into_inner().app.expect("the app");
        assert!(!format!("{shown:?}").contains(&app.secret));
        assert_eq!(shown.secrets.len(), 1);
        assert!(!shown.secrets[0].short);
    }
}

#[tokio::test]
async fn a19_two_secrets_live_at_once_and_one_that_is_removed_is_dead() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let name = format!("apps/{}", app.id);
    let short = unique("short");
    let add = |secret: &str| AddAppSecretRequest { app: name.clone(), secret: secret.to_owned() };

    let request = world.as_admin(add(&short)).await;
    let added = world.apps().add_app_secret(request).await.expect("a second secret").into_inner();
    assert!(added.secret.is_empty(), "a secret that the caller chose is not shown");
    let added = added.app_secret.expect("what was added");
    assert!(added.short);
    let request = world.as_admin(add("")).await;
    assert!(world.apps().add_app_secret(request).await.is_err(), "there are two at most");

    let ask = valid(&tokens.access);
    for via in Via::BOTH {
        for secret in [&app.secret, &short] {
            assert!(world.call(via, &ask.clone().by(App::signing(&app.id, secret))).await.valid());
        }
    }
    let request = world.as_admin(RemoveAppSecretRequest { name: added.name }).await;
    world.apps().remove_app_secret(request).await.expect("a secret can be removed");
    for via in Via::BOTH {
        world.call(via, &ask.clone().by(App::signing(&app.id, &short))).await.refused(Case::Caller);
        assert!(world.call(via, &ask.clone().by(app.who())).await.valid());
    }
    let request = world.as_admin(GetAppRequest { name }).await;
    let last = world.apps().get_app(request).await.expect("the app").into_inner().app.expect("the app").secrets.remove(0);
    let request = world.as_admin(RemoveAppSecretRequest { name: last.name }).await;
    assert!(world.apps().remove_app_secret(request).await.is_err(), "the last one stays");
    assert!(world.call(Via::Envoy, &ask.by(app.who())).await.valid());
}

#[tokio::test]
async fn a21_every_answer_with_a_secret_in_it_forbids_to_store_it() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let mut calls = vec![Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)];
    for op in Op::AUTHORIZES {
        calls.push(authorize(op, &app).by(Who::ticket(&ticket)));
    }
    for op in Op::EXCHANGES {
        calls.push(exchange(op, &app, &world.code(&app, Who::ticket(&ticket)).await));
    }
    for op in Op::REFRESHES {
        calls.push(refresh(op, &world.tokens(&app, &ticket).await.refresh).by(app.who()));
    }
    for op in [Op::Username, Op::Valid, Op::SignOutV281] {
        calls.push(Call::new(op).with("accessToken", &tokens.access).by(app.who()));
    }
    calls.push(Call::new(Op::SignOut).by(Who::ticket(&ticket)));
    for call in &calls {
        for path in 0..call.op.paths().len() {
            let reply = world.call(Via::Envoy, &call.clone().at_path(path)).await;
            assert!(path > 0 || reply.is_ok(), "{:?}: {}", call.op, reply.text);
            assert_eq!(reply.headers_of("cache-control"), ["no-store"], "{:?}", call.op);
        }
    }
}
