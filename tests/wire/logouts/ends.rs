//! However a session ends, each of its apps is told, once.

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    ChangePasswordRequest, DeleteAppRequest, DeleteUserRequest, DisableAppRequest, EndSessionRequest, EndUserSessionsRequest,
    ResetPasswordRequest, SetPasswordRequest,
};

use super::{app_at, settled, sign_out, tokens_with, told, until};
use crate::harness::{
    App, Call, Case, Op, Setup, Tokens, User, Via, Who, World, claims, exchange, native, refresh,
    sink::{Manner, Sink},
};

const OK: Manner = Manner::Status(200, None);

/// A user who is signed in, and two apps that hold tokens of his session.
struct Scene {
    user: User,
    ticket: String,
    sinks: [Sink; 2],
    apps: [App; 2],
    tokens: [Tokens; 2],
}

impl Scene {
    async fn new(world: &World) -> Self {
        let sinks = [Sink::start(OK), Sink::start(OK)];
        let apps = [app_at(world, &sinks[0]).await, app_at(world, &sinks[1]).await];
        let (user, ticket) = world.signed_in().await;
        // An app that has come to its tokens twice is told once.
        world.tokens(&apps[0], &ticket).await;
        let tokens = [world.tokens(&apps[0], &ticket).await, world.tokens(&apps[1], &ticket).await];
        Self { user, ticket, sinks, apps, tokens }
    }

    fn session(&self) -> String {
        format!("sessions/{}", claims(&self.tokens[0].access)["sid"].as_str().expect("sid"))
    }

    fn user_name(&self) -> String {
        format!("users/{}", self.user.id)
    }

    async fn assert_each_app_was_told_once(&self, world: &World, how: &str) {
        let mut jtis = Vec::new();
        for ((sink, app), tokens) in self.sinks.iter().zip(&self.apps).zip(&self.tokens) {
            jtis.push(told(world, sink, app, tokens).await);
        }
        assert_ne!(jtis[0], jtis[1]);
        for (sink, app) in self.sinks.iter().zip(&self.apps) {
            settled(world, app).await;
            assert_eq!(sink.rest().await.len(), 0, "{how}: told once");
            assert_eq!(sink.connections(), 1, "{how}");
        }
    }
}

#[tokio::test]
async fn a50_every_way_to_sign_out_tells_every_app_of_the_session_once() {
    let world = World::own(Setup::default()).await;
    for via in Via::BOTH {
        let by_app = async |scene: &Scene| Call::new(Op::SignOutV281).with("accessToken", &scene.tokens[0].access).by(scene.apps[0].who());
        let scene = Scene::new(&world).await;
        world.call(via, &by_app(&scene).await).await.ok();
        // A second time ends nothing, and tells nobody.
        world.call(via, &by_app(&scene).await).await.ok();
        scene.assert_each_app_was_told_once(&world, "operation 9 by an app").await;

        let scene = Scene::new(&world).await;
        let token = &scene.tokens[1].access;
        world.call(via, &Call::new(Op::SignOutV281).with("accessToken", token).by(Who::bearer(token))).await.ok();
        scene.assert_each_app_was_told_once(&world, "operation 9 by a Bearer").await;

        for path in 0..2 {
            let scene = Scene::new(&world).await;
            world.call(via, &Call::new(Op::SignOut).at_path(path).by(Who::ticket(&scene.ticket))).await.ok();
            world.call(via, &Call::new(Op::SignOut).at_path(path).by(Who::ticket(&scene.ticket))).await.ok();
            scene.assert_each_app_was_told_once(&world, "operation 12").await;
        }
    }
}

#[tokio::test]
async fn a53_whatever_an_administrator_ends_tells_the_apps() {
    let world = World::own(Setup::default()).await;

    let scene = Scene::new(&world).await;
    let request = world.as_admin(EndSessionRequest { name: scene.session() }).await;
    world.sessions().end_session(request).await.expect("it ends");
    scene.assert_each_app_was_told_once(&world, "EndSession").await;

    let scene = Scene::new(&world).await;
    let request = world.as_admin(EndUserSessionsRequest { user: scene.user_name() }).await;
    world.sessions().end_user_sessions(request).await.expect("they end");
    scene.assert_each_app_was_told_once(&world, "EndUserSessions").await;

    let scene = Scene::new(&world).await;
    world.disable_user(&scene.user).await;
    scene.assert_each_app_was_told_once(&world, "DisableUser").await;

    let scene = Scene::new(&world).await;
    let request = world.as_admin(DeleteUserRequest { name: scene.user_name() }).await;
    world.users().delete_user(request).await.expect("he goes");
    scene.assert_each_app_was_told_once(&world, "DeleteUser").await;

    let scene = Scene::new(&world).await;
    let request = SetPasswordRequest { name: scene.user_name(), password: "another long password".to_owned() };
    world.users().set_password(world.as_admin(request).await).await.expect("he has another");
    scene.assert_each_app_was_told_once(&world, "SetPassword").await;

    let scene = Scene::new(&world).await;
    let request = world.as_admin(ResetPasswordRequest { name: scene.user_name() }).await;
    world.users().reset_password(request).await.expect("he has another");
    scene.assert_each_app_was_told_once(&world, "ResetPassword").await;
}

#[tokio::test]
async fn a_user_who_changes_his_password_ends_his_other_sessions_and_their_apps_are_told() {
    let world = World::own(Setup::default()).await;
    let scene = Scene::new(&world).await;
    let ticket = world.sign_in(&scene.user).await;
    let kept_sink = Sink::start(OK);
    let kept = app_at(&world, &kept_sink).await;
    let tokens = world.tokens(&kept, &ticket).await;
    let request = ChangePasswordRequest {
        current_password: scene.user.password.clone(),
        new_password: "another long password".to_owned(),
        ..Default::default()
    };
    let who = Who::authorization(&format!("Ticket {ticket}"));
    world.users().change_password(native::request(request, &who)).await.expect("he has another");
    scene.assert_each_app_was_told_once(&world, "ChangePassword").await;
    assert_eq!(kept_sink.connections(), 0, "his own session goes on");
    sign_out(&world, &ticket).await;
    told(&world, &kept_sink, &kept, &tokens).await;
}

#[tokio::test]
async fn a53_a_session_that_reaches_a_limit_tells_the_apps() {
    const DAY: i64 = 24 * 3600;
    let mut world = World::own(Setup::default().movable_clock()).await;
    for days in [7, 30] {
        let scene = Scene::new(&world).await;
        let mut ticket = Some(scene.ticket.as_str());
        for _ in (6..days).step_by(6) {
            // Kept alive, but for the last week: the first ends because nobody uses it, the second because it is 30 days old.
            if let Some(ticket) = ticket.filter(|_| days == 30) {
                world.code(&scene.apps[0], Who::ticket(ticket)).await;
            }
            world.step(6 * DAY);
        }
        ticket.take();
        assert_eq!(scene.sinks[0].connections() + scene.sinks[1].connections(), 0, "it goes on");
        world.step(2 * DAY);
        scene.assert_each_app_was_told_once(&world, "a limit").await;
    }
}

#[tokio::test]
async fn an_app_that_lost_its_tokens_by_a_replay_still_hears_of_the_end_of_the_session() {
    let world = World::own(Setup::default()).await;
    let (sink, (_, ticket)) = (Sink::start(OK), world.signed_in().await);
    let app = app_at(&world, &sink).await;
    let code = world.code(&app, Who::ticket(&ticket)).await;
    let tokens = world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens();
    for _ in 0..2 {
        world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
    }
    let first = tokens_with(&world, &app, &ticket, "/by-refresh").await;
    let second = world.call(Via::Native, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.tokens();
    world.call(Via::Native, &refresh(Op::TokenV2, &second.refresh).by(app.who())).await.tokens();
    world.call(Via::Native, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.refused(Case::Grant);
    assert_eq!(sink.connections(), 0, "the session goes on");
    sign_out(&world, &ticket).await;
    told(&world, &sink, &app, &tokens).await;
    told(&world, &sink, &app, &tokens).await;
    settled(&world, &app).await;
    assert_eq!(sink.rest().await.len(), 0);
}

#[tokio::test]
async fn a_disabled_app_is_told_and_a_deleted_one_is_not() {
    let world = World::own(Setup::default()).await;
    let scene = Scene::new(&world).await;
    let request = world.as_admin(DisableAppRequest { name: format!("apps/{}", scene.apps[0].id) }).await;
    world.apps().disable_app(request).await.expect("it is disabled");
    let request = world.as_admin(DeleteAppRequest { name: format!("apps/{}", scene.apps[1].id) }).await;
    world.apps().delete_app(request).await.expect("it goes");
    sign_out(&world, &scene.ticket).await;
    told(&world, &scene.sinks[0], &scene.apps[0], &scene.tokens[0]).await;
    settled(&world, &scene.apps[0]).await;
    assert_eq!(scene.sinks[1].connections(), 0);
}

#[tokio::test]
async fn an_app_that_is_deleted_while_a_call_is_owed_is_not_called_again() {
    let world = World::own(Setup::default()).await;
    let (sink, (_, ticket)) = (Sink::start(Manner::Status(500, None)), world.signed_in().await);
    let app = app_at(&world, &sink).await;
    world.tokens(&app, &ticket).await;
    sign_out(&world, &ticket).await;
    sink.next().await;
    let request = world.as_admin(DeleteAppRequest { name: format!("apps/{}", app.id) }).await;
    world.apps().delete_app(request).await.expect("it goes");
    let before = sink.connections();
    settled(&world, &app).await;
    // A try may have been under way just then.
    assert!(sink.connections() <= before + 1);
}

#[tokio::test]
async fn a50_a_logout_token_is_no_access_token_anywhere() {
    let world = World::own(Setup::default()).await;
    let scene = Scene::new(&world).await;
    sign_out(&world, &scene.ticket).await;
    let token = scene.sinks[0].next().await.token();
    let (_, ticket) = world.signed_in().await;
    for via in Via::BOTH {
        let bearer = || Who::bearer(&token);
        assert!(!world.call(via, &crate::harness::valid(&token).by(scene.apps[0].who())).await.valid());
        assert!(!world.call(via, &crate::harness::valid(&token).by(bearer())).await.valid());
        world.call(via, &crate::harness::authorize(Op::Authorize, &scene.apps[0]).by(bearer())).await.refused(Case::Caller);
        world.call(via, &Call::new(Op::Username).with("accessToken", &token).by(Who::ticket(&ticket))).await.refused(Case::Grant);
        world.call(via, &Call::new(Op::SignOutV281).with("accessToken", &token).by(bearer())).await.refused(Case::Caller);
        world.call(via, &refresh(Op::TokenV2, &scene.tokens[0].refresh).by(bearer())).await.refused_as_one_of(&[Case::Caller, Case::Grant]);
    }
    until(async || scene.sinks[1].rest().await.len().eq(&1).then_some(())).await;
}
