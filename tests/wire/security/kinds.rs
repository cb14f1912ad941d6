//! Every kind of secret at every place where a secret may be shown: only its own place takes it, and nothing is used up.

use crate::harness::{App, Call, Case, Op, Reply, Via, Who, World, authorize, exchange, refresh, unique, valid};

/// A place where a caller can show a secret, with the kind that belongs there.
struct Place {
    own: &'static str,
    what: String,
    call: Box<dyn Fn(&str) -> Call>,
}

fn places(app: &App, access_token: &str, user_name: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |own, what: String, call: Box<dyn Fn(&str) -> Call>| places.push(Place { own, what, call });
    for op in Op::EXCHANGES {
        let app = app.clone();
        add("code", format!("code of {op:?}"), Box::new(move |secret| exchange(op, &app, secret)));
    }
    for op in Op::REFRESHES {
        let app = app.clone();
        add("refreshToken", format!("refreshToken of {op:?}"), Box::new(move |secret| refresh(op, secret).by(app.who())));
    }
    for op in [Op::Username, Op::Valid, Op::SignOutV281] {
        let app = app.clone();
        add(
            "accessToken",
            format!("accessToken of {op:?}"),
            Box::new(move |secret| Call::new(op).with("accessToken", secret).by(app.who())),
        );
    }
    for op in Op::AUTHORIZES {
        let (by_bearer, by_cookie) = (app.clone(), app.clone());
        add("accessToken", format!("Bearer of {op:?}"), Box::new(move |secret| authorize(op, &by_bearer).by(Who::bearer(secret))));
        add("ticket", format!("cookie of {op:?}"), Box::new(move |secret| authorize(op, &by_cookie).by(Who::ticket(secret))));
    }
    add(
        "accessToken",
        "Bearer of operation 7".to_owned(),
        Box::new(|secret| Call::new(Op::Username).with("accessToken", "x").by(Who::bearer(secret))),
    );
    add("ticket", "cookie of operation 8".to_owned(), Box::new(|secret| valid("x").by(Who::ticket(secret))));
    let (asked, by_app) = (valid(access_token), app.who());
    add("accessToken", "token beside Sign".to_owned(), Box::new(move |secret| asked.clone().by(by_app.clone()).header("token", secret)));
    let id = app.id.clone();
    add("secret", "secret of Sign".to_owned(), Box::new(move |secret| valid("x").by(App::signing(&id, secret))));
    add("none", "app of Sign".to_owned(), Box::new(|secret| valid("x").by(App::signing(secret, secret))));
    let name = user_name.to_owned();
    add(
        "password",
        "password of sign-in".to_owned(),
        Box::new(move |secret| Call::new(Op::SignIn).with("userName", &name).with("password", secret)),
    );
    add("none", "name at sign-in".to_owned(), Box::new(|secret| Call::new(Op::SignIn).with("userName", secret).with("password", secret)));
    places
}

/// Whether the reply gave the caller anything.
fn gave_something(reply: &Reply) -> bool {
    reply.is_ok() && reply.body["valid"] != false
}

#[tokio::test]
async fn b3_each_kind_of_secret_opens_its_own_place_alone_and_is_not_used_up_elsewhere() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let kid = crate::harness::jwt_part(&tokens.access, 0)["kid"].as_str().expect("a kid").to_owned();
    let sid = crate::harness::claims(&tokens.access)["sid"].as_str().expect("a session id").to_owned();
    let jti = crate::harness::claims(&tokens.access)["jti"].as_str().expect("a token id").to_owned();
    let secrets = [
        ("code", &code),
        ("refreshToken", &tokens.refresh),
        ("accessToken", &tokens.access),
        ("ticket", &ticket),
        ("secret", &app.secret),
        ("password", &user.password),
        // No secrets, and no credentials either.
        ("app id", &app.id),
        ("user id", &user.id),
        ("session id", &sid),
        ("token id", &jti),
        ("key id", &kid),
    ];
    let mut wrong = Vec::new();
    for (kind, secret) in secrets {
        for place in places(&app, &tokens.access, &user.name) {
            if place.own == kind {
                continue;
            }
            for via in Via::BOTH {
                let reply = world.call(via, &(place.call)(secret)).await;
                if reply.check_refusal(Case::Tries).is_ok() {
                    wrong.push(format!("the {kind} was not looked at as the {}", place.what));
                }
                if gave_something(&reply) {
                    wrong.push(format!("the {kind} as the {}: {}", place.what, reply.text));
                }
                if kind != "app id" && reply.text.contains(secret.as_str()) {
                    wrong.push(format!("the {kind} as the {} comes back: {}", place.what, reply.text));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    assert!(world.is_valid(&app, &tokens.access).await);
    world.call(Via::Envoy, &exchange(Op::TokenV2, &app, &code)).await.ok();
    world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
    world.call(Via::Envoy, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.ok();
}

#[tokio::test]
async fn h30_a_key_in_the_store_is_no_way_to_something_of_another_kind() {
    let world = World::shared().await;
    let (app, _, ticket, tokens) = world.family().await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    // With the names of kinds in front, behind, and with the separators that a flat key space may use.
    for kind in ["code", "refresh", "refresh_token", "ticket", "session", "app", "user", "family", "token"] {
        for separator in [":", "/", "\0", ".", "-", "_", "|"] {
            for secret in [&code, &tokens.refresh, &ticket] {
                for forged in [
                    format!("{kind}{separator}{secret}"),
                    format!("{secret}{separator}{kind}"),
                    format!("..{separator}{kind}{separator}{secret}"),
                ] {
                    let calls = [exchange(Op::TokenV2, &app, &forged), refresh(Op::TokenV2, &forged).by(app.who())];
                    for call in calls {
                        assert!(!gave_something(&world.call(Via::Native, &call).await), "{forged:?}");
                    }
                    if !separator.contains('\0') {
                        assert!(
                            !gave_something(&world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&forged))).await),
                            "{forged:?}"
                        );
                    }
                }
            }
        }
    }
    // An app and a user of one name are two things.
    let name = unique("both");
    let both = world.app_with(|app| app.app_id.clone_from(&name)).await;
    let user = world.user_with(|user| user.user_name.clone_from(&name)).await;
    let as_user = Call::new(Op::SignIn).with("userName", &both.id).with("password", &both.secret);
    assert!(!world.call(Via::Native, &as_user).await.is_ok());
    let as_app = valid(&tokens.access).by(App::signing(&user.name, &user.password));
    assert!(!world.call(Via::Native, &as_app).await.is_ok());
}
