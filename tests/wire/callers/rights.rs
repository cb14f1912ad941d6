//! What only some may.

use prost_types::FieldMask;
use supos_auth::grpc::pb::supos::auth::admin::v1::{
    App as AdminApp, CreateAppRequest, ListAppsRequest, UpdateAppRequest, UpdateUserRequest, User as AdminUser,
};
use tonic::Code;

use crate::harness::{App, Call, Case, Op, Setup, Tokens, Via, Who, World, authorize, native, valid};

async fn app_with(world: &World, rights: &[&str], dated: bool) -> App {
    let change = |app: &mut AdminApp| {
        app.rights = rights.iter().map(|&right| right.to_owned()).collect();
        app.signature_requires_date = dated;
    };
    world.app_with(change).await
}

async fn give_user(world: &World, user: &crate::harness::User, rights: &[&str]) {
    let user = AdminUser {
        name: format!("users/{}", user.id),
        rights: rights.iter().map(|&right| right.to_owned()).collect(),
        ..AdminUser::default()
    };
    let message = UpdateUserRequest { user: Some(user), update_mask: Some(FieldMask { paths: vec!["rights".into()] }) };
    let request = world.as_admin(message).await;
    world.users().update_user(request).await.expect("the rights can be set");
}

fn username(tokens: &Tokens) -> Call {
    Call::new(Op::Username).with("accessToken", &tokens.access)
}

fn dated(world: &World, call: Call) -> Call {
    let now = u64::try_from(world.now()).expect("now") * 1000;
    let date = supos_auth::sign::date(supos_auth::core::clock::Timestamp::from_millis(now));
    call.header("x-mc-date", &date).header("x-mc-nonce", &crate::harness::unique("n"))
}

#[tokio::test]
async fn the_right_tokens_inspect_opens_everybodys_tokens_to_an_app_and_to_a_user() {
    let world = World::shared().await;
    let (_, user, _, tokens) = world.family().await;
    let (plain, inspector) = (world.app().await, app_with(&world, &["tokens.inspect"], false).await);
    let (someone, ticket) = world.signed_in().await;
    for via in Via::BOTH {
        world.call(via, &username(&tokens).by(plain.who())).await.refused(Case::Grant);
        assert!(!world.call(via, &valid(&tokens.access).by(plain.who())).await.valid());
        assert_eq!(world.call(via, &username(&tokens).by(inspector.who())).await.text_of("username"), user.name);
        assert!(world.call(via, &valid(&tokens.access).by(inspector.who())).await.valid());
        world.call(via, &username(&tokens).by(Who::ticket(&ticket))).await.refused(Case::Grant);
        // It is no right to end what it may ask about.
        world.call(via, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(inspector.who())).await.refused(Case::Grant);
    }
    give_user(&world, &someone, &["tokens.inspect"]).await;
    for via in Via::BOTH {
        assert_eq!(world.call(via, &username(&tokens).by(Who::ticket(&ticket))).await.text_of("username"), user.name);
    }
    give_user(&world, &someone, &[]).await;
    world.call(Via::Native, &username(&tokens).by(Who::ticket(&ticket))).await.refused(Case::Grant);
}

#[tokio::test]
async fn the_right_sessions_end_ends_anybodys_session_and_does_not_ask_about_it() {
    let world = World::shared().await;
    for via in Via::BOTH {
        let (app, _, _, tokens) = world.family().await;
        let ender = app_with(&world, &["sessions.end"], false).await;
        world.call(via, &username(&tokens).by(ender.who())).await.refused(Case::Grant);
        world.call(via, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(ender.who())).await.ok();
        assert!(!world.is_valid(&app, &tokens.access).await);
    }
}

#[tokio::test]
async fn the_right_codes_any_app_lets_an_apps_tokens_make_codes_for_others() {
    let world = World::shared().await;
    let target = world.app().await;
    let (_, ticket) = world.signed_in().await;
    for (rights, may) in [(&[][..], false), (&["tokens.inspect", "sessions.end"], false), (&["codes.any_app"], true)] {
        let app = app_with(&world, rights, false).await;
        let tokens = world.tokens(&app, &ticket).await;
        for via in Via::BOTH {
            let reply = world.call(via, &authorize(Op::Authorize, &target).by(Who::bearer(&tokens.access))).await;
            if may {
                reply.ok();
            } else {
                reply.refused(Case::Forbidden);
            }
        }
    }
}

#[tokio::test]
async fn a_signature_without_a_checked_date_never_carries_admin() {
    let world = World::shared().await;
    let (_, user, _, tokens) = world.family().await;
    let (undated, strict) = (app_with(&world, &["admin"], false).await, app_with(&world, &["admin"], true).await);
    // `admin` is every right, so it would open this token.
    world.call(Via::Envoy, &username(&tokens).by(undated.who())).await.refused(Case::Grant);
    let with_date = dated(&world, username(&tokens).by(undated.who()));
    world.call(Via::Envoy, &with_date).await.refused(Case::Grant);
    let call = dated(&world, username(&tokens).by(strict.who()));
    assert_eq!(world.call(Via::Envoy, &call).await.text_of("username"), user.name);
    // Native signatures always have a date that is checked.
    assert_eq!(world.call(Via::Native, &username(&tokens).by(undated.who())).await.text_of("username"), user.name);
}

#[tokio::test]
async fn the_admin_api_takes_users_with_the_right_admin_and_no_signature() {
    let world = World::shared().await;
    let (user, ticket) = world.signed_in().await;
    let app = app_with(&world, &["admin"], true).await;
    let list =
        async |who: &Who| world.apps().list_apps(native::request(ListAppsRequest::default(), who)).await.map_err(|status| status.code());
    let by_ticket = Who::authorization(&format!("Ticket {ticket}"));
    assert_eq!(list(&by_ticket).await.expect_err("he may not"), Code::PermissionDenied);
    assert_eq!(list(&app.who()).await.expect_err("it takes no Sign"), Code::Unauthenticated);
    give_user(&world, &user, &["admin"]).await;
    list(&by_ticket).await.expect("he is an administrator now");
    give_user(&world, &user, &["tokens.inspect", "sessions.end", "identity_providers.write"]).await;
    assert_eq!(list(&by_ticket).await.expect_err("he is none any more"), Code::PermissionDenied);
}

#[tokio::test]
async fn rights_are_shown_changed_and_checked_by_name() {
    let world = World::shared().await;
    let app = app_with(&world, &["sessions.end", "admin", "sessions.end"], true).await;
    let update = async |rights: &[&str]| {
        let rights = rights.iter().map(|&right| right.to_owned()).collect();
        let message = UpdateAppRequest {
            app: Some(AdminApp { name: format!("apps/{}", app.id), rights, ..AdminApp::default() }),
            update_mask: Some(FieldMask { paths: vec!["rights".into()] }),
        };
        let request = world.as_admin(message).await;
        world.apps().update_app(request).await.map(|updated| updated.into_inner().app.expect("an app"))
    };
    let updated = update(&["identity_providers.write", "codes.any_app"]).await.expect("these are rights");
    assert_eq!(updated.rights, ["identity_providers.write", "codes.any_app"]);
    assert!(updated.signature_requires_date && updated.redirect_uris == [app.redirect.clone()], "nothing else has changed");
    for wrong in ["Admin", "admin ", "", "*", "tokens.*"] {
        let status = update(&["admin", wrong]).await.expect_err("that is no right");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("app.rights[1]"), "{}", status.message());
    }
    let app = AdminApp { redirect_uris: vec!["https://a.invalid/*".into()], rights: vec!["root".into()], ..AdminApp::default() };
    let request = world.as_admin(CreateAppRequest { app: Some(app), secret: String::new() }).await;
    assert_eq!(world.apps().create_app(request).await.expect_err("that is no right").code(), Code::InvalidArgument);
}

#[tokio::test]
async fn rights_survive_a_restart() {
    let mut world = World::own(Setup::default()).await;
    let (_, _, _, tokens) = world.family().await;
    let inspector = app_with(&world, &["tokens.inspect"], false).await;
    world.restart(crate::harness::Pair::terminate);
    assert!(world.call(Via::Envoy, &valid(&tokens.access).by(inspector.who())).await.valid());
}
