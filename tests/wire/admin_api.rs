//! The admin API: administrators alone, on the native listener alone.

use prost_types::FieldMask;
use supos_auth::grpc::pb::supos::auth::admin::v1::{
    CreateAppRequest, CreateUserRequest, EndUserSessionsRequest, ImportOptions, ImportUsersRequest, ListAppsRequest, ListSessionsRequest,
    ListSigningKeysRequest, ListUsersRequest, UpdateUserRequest, User as AdminUser, import_users_request::Step,
};
use tonic::Code;

use crate::harness::{App, Call, Case, Op, User, Via, Who, World, authorize, native, unique};

/// How each service of the admin API answers the caller.
async fn answers(world: &World, who: &Who) -> Vec<Result<(), tonic::Status>> {
    let user = CreateUserRequest::default();
    vec![
        world.apps().list_apps(native::request(ListAppsRequest::default(), who)).await.map(|_| ()),
        world.users().list_users(native::request(ListUsersRequest::default(), who)).await.map(|_| ()),
        world.sessions().list_sessions(native::request(ListSessionsRequest::default(), who)).await.map(|_| ()),
        world.signing_keys().list_signing_keys(native::request(ListSigningKeysRequest::default(), who)).await.map(|_| ()),
        // Complete nonsense, so that the caller is all that is judged.
        world.apps().create_app(native::request(CreateAppRequest::default(), who)).await.map(|_| ()).or_else(invalid_is_fine),
        world.users().create_user(native::request(user, who)).await.map(|_| ()).or_else(invalid_is_fine),
    ]
}

fn invalid_is_fine(status: tonic::Status) -> Result<(), tonic::Status> {
    if status.code() == Code::InvalidArgument { Ok(()) } else { Err(status) }
}

#[tokio::test]
async fn administrators_are_let_in_by_ticket_and_by_token() {
    let world = World::shared().await;
    let app = world.app().await;
    let admin = world.user_with(|user| user.account_type = 1).await;
    let ticket = world.sign_in(&admin).await;
    let tokens = world.tokens(&app, &ticket).await;
    for who in
        [Who::authorization(&format!("Ticket {ticket}")), Who::authorization(&format!("ticket {ticket}")), Who::bearer(&tokens.access)]
    {
        for answer in answers(&world, &who).await {
            answer.expect("an administrator is let in");
        }
    }
}

#[tokio::test]
async fn nobody_else_is_let_in() {
    let world = World::shared().await;
    let (app, user, ticket, tokens) = world.family().await;
    let other_kind = world.user_with(|user| user.account_type = 2).await;
    let other_ticket = world.sign_in(&other_kind).await;
    for (what, who, code) in [
        ("nobody", Who::nobody(), Code::Unauthenticated),
        ("an app", app.who(), Code::PermissionDenied),
        ("an app with a wrong secret", App::signing(&app.id, "wrong"), Code::Unauthenticated),
        ("a user's ticket", Who::authorization(&format!("Ticket {ticket}")), Code::PermissionDenied),
        ("a user's token", Who::bearer(&tokens.access), Code::PermissionDenied),
        ("an account of another type", Who::authorization(&format!("Ticket {other_ticket}")), Code::PermissionDenied),
        ("an unknown ticket", Who::authorization("Ticket no-such-ticket"), Code::Unauthenticated),
        ("the administrator's name and password", App::signing("admin", "admin-password"), Code::Unauthenticated),
        ("the user's name and password", App::signing(&user.name, &user.password), Code::Unauthenticated),
    ] {
        for answer in answers(&world, &who).await {
            let status = answer.expect_err(what);
            let allowed = status.code() == code || (what == "an app" && status.code() == Code::Unauthenticated);
            assert!(allowed, "{what}: {status:?}");
            let reply = native::refusal(Op::TokenV2, &status);
            reply.refused_as_one_of(&[Case::Caller, Case::Forbidden]);
        }
    }
}

#[tokio::test]
async fn an_administrator_who_is_one_no_more_is_not_let_in() {
    let world = World::shared().await;
    let app = world.app().await;
    let admin = world.user_with(|user| user.account_type = 1).await;
    let ticket = world.sign_in(&admin).await;
    let tokens = world.tokens(&app, &ticket).await;
    demote(&world, &admin).await;
    for who in [Who::authorization(&format!("Ticket {ticket}")), Who::bearer(&tokens.access)] {
        for answer in answers(&world, &who).await {
            let status = answer.expect_err("he is an administrator no more");
            assert!(matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated), "{status:?}");
        }
    }
}

/// Makes an administrator an ordinary user.
async fn demote(world: &World, admin: &User) {
    let demoted = AdminUser { name: format!("users/{}", admin.id), account_type: 0, ..Default::default() };
    let mask = FieldMask { paths: vec!["account_type".to_owned()] };
    let request = world.as_admin(UpdateUserRequest { user: Some(demoted), update_mask: Some(mask) }).await;
    world.users().update_user(request).await.expect("an account's type can be changed");
}

#[tokio::test]
async fn an_import_by_somebody_who_is_an_administrator_no_more_when_its_last_record_has_come_stores_nothing() {
    let world = World::shared().await;
    let app = world.app().await;
    for (ends, by_token) in [(true, false), (true, true), (false, false), (false, true)] {
        let admin = world.user_with(|user| user.account_type = 1).await;
        let ticket = world.sign_in(&admin).await;
        let who =
            if by_token { Who::bearer(&world.tokens(&app, &ticket).await.access) } else { Who::authorization(&format!("Ticket {ticket}")) };
        let (steps, sent) = tokio::sync::mpsc::channel(2);
        let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
        let mut told = world.users().import_users(native::request(sent, &who)).await.expect("it begins").into_inner();
        let name = unique("imported");
        let user = AdminUser { user_name: name.clone(), ..AdminUser::default() };
        let user = CreateUserRequest { user: Some(user), password: "correct horse battery".to_owned(), ..Default::default() };
        for step in [Step::Options(ImportOptions::default()), Step::User(user)] {
            steps.send(ImportUsersRequest { step: Some(step) }).await.expect("it is taken");
        }
        if ends {
            let request = world.as_admin(EndUserSessionsRequest { user: format!("users/{}", admin.id) }).await;
            world.sessions().end_user_sessions(request).await.expect("his sessions end");
        } else {
            demote(&world, &admin).await;
        }
        drop(steps);
        let refused = told.message().await.expect_err("it is refused");
        let expected = if ends { Code::Unauthenticated } else { Code::PermissionDenied };
        assert_eq!(refused.code(), expected, "{refused:?}");
        let sign_in = Call::new(Op::SignIn).with("userName", &name).with("password", "correct horse battery");
        world.call(Via::Native, &sign_in).await.refused(Case::Password);
    }
}

#[tokio::test]
async fn the_ticket_scheme_is_for_the_admin_api() {
    let world = World::shared().await;
    let (app, _, ticket, _) = world.family().await;
    let who = Who::authorization(&format!("Ticket {ticket}"));
    let reply = world.call(Via::Envoy, &authorize(Op::Authorize, &app).by(who)).await;
    reply.refused(Case::Caller);
}

#[tokio::test]
async fn apps_and_users_cannot_be_made_twice() {
    let world = World::shared().await;
    let (app, user) = (world.app().await, world.user().await);
    let again =
        supos_auth::grpc::pb::supos::auth::admin::v1::App { app_id: app.id.clone(), display_name: unique("name"), ..Default::default() };
    let request = world.as_admin(CreateAppRequest { app: Some(again), secret: String::new() }).await;
    assert_eq!(world.apps().create_app(request).await.expect_err("the app is there already").code(), Code::AlreadyExists);
    let again = supos_auth::grpc::pb::supos::auth::admin::v1::User { user_name: user.name.clone(), ..Default::default() };
    let request =
        world.as_admin(CreateUserRequest { user: Some(again), password: user.password.clone(), password_hash: String::new() }).await;
    assert_eq!(world.users().create_user(request).await.expect_err("the user is there already").code(), Code::AlreadyExists);
    world.sign_in(&user).await;
}

#[tokio::test]
async fn a_page_token_that_nobody_was_given_is_refused_by_its_name() {
    let world = World::shared().await;
    // No Base64, no UTF-8, and what no name has in it.
    for page_token in ["!", "_w", "AA", "YQBi"].map(str::to_owned) {
        let request = world.as_admin(ListUsersRequest { page_token: page_token.clone(), ..Default::default() }).await;
        let of_users = world.users().list_users(request).await.expect_err(&page_token);
        let request = world.as_admin(ListAppsRequest { page_token: page_token.clone(), ..Default::default() }).await;
        let of_apps = world.apps().list_apps(request).await.expect_err(&page_token);
        for status in [of_users, of_apps] {
            assert!(status.code() == Code::InvalidArgument && status.message().contains("page_token"), "{page_token}: {status:?}");
        }
    }
}
