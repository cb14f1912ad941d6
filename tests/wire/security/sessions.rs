//! Sessions: what ends them, and that nothing of them is left.

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    ChangePasswordRequest, CreateUserRequest, EndSessionRequest, EndUserSessionsRequest, GetUserRequest, ListSessionsRequest,
    SetPasswordRequest, User as AdminUser,
};

use crate::harness::{App, Call, Case, Op, Tokens, User, Via, Who, World, authorize, exchange, native, refresh};

/// A session with everything that can hang on it, at two apps.
struct Session {
    ticket: String,
    apps: [(App, Tokens, String); 2],
}

impl Session {
    async fn new(world: &World, user: &User) -> Self {
        let ticket = world.sign_in(user).await;
        let (first, second) = (world.app().await, world.app().await);
        let mut apps = Vec::new();
        for app in [first, second] {
            let tokens = world.tokens(&app, &ticket).await;
            let code = world.code(&app, Who::ticket(&ticket)).await;
            apps.push((app, tokens, code));
        }
        Self { ticket, apps: apps.try_into().unwrap_or_else(|_| panic!("two apps")) }
    }

    async fn assert_over(&self, world: &World) {
        for (app, tokens, code) in &self.apps {
            assert!(!world.is_valid(app, &tokens.access).await, "an access token has outlived its session");
            for via in Via::BOTH {
                for op in Op::REFRESHES {
                    world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
                }
                for op in Op::EXCHANGES {
                    world.call(via, &exchange(op, app, code)).await.refused(Case::Grant);
                }
                for op in Op::AUTHORIZES {
                    world.call(via, &authorize(op, app).by(Who::ticket(&self.ticket))).await.refused(Case::Caller);
                }
            }
        }
    }

    async fn assert_alive(&self, world: &World) {
        for (app, tokens, code) in &self.apps {
            assert!(world.is_valid(app, &tokens.access).await);
            world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
            world.call(Via::Native, &exchange(Op::TokenV2, app, code)).await.ok();
            world.call(Via::Native, &authorize(Op::Authorize, app).by(Who::ticket(&self.ticket))).await.ok();
        }
    }
}

#[tokio::test]
async fn a52_signing_out_ends_codes_and_tokens_of_every_app_and_of_that_session_alone() {
    let world = World::shared().await;
    for via in Via::BOTH {
        for path in 0..if via == Via::Envoy { 2 } else { 1 } {
            let user = world.user().await;
            let (here, elsewhere) = (Session::new(&world, &user).await, Session::new(&world, &user).await);
            world.call(via, &Call::new(Op::SignOut).at_path(path).by(Who::ticket(&here.ticket))).await.ok();
            here.assert_over(&world).await;
            elsewhere.assert_alive(&world).await;
        }
        let user = world.user().await;
        let (here, elsewhere) = (Session::new(&world, &user).await, Session::new(&world, &user).await);
        let (app, tokens, _) = &here.apps[1];
        world.call(via, &Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who())).await.ok();
        here.assert_over(&world).await;
        elsewhere.assert_alive(&world).await;
    }
}

#[tokio::test]
async fn a52_an_administrator_ends_one_session_or_all_of_a_user() {
    let world = World::shared().await;
    let (user, other) = (world.user().await, world.user().await);
    let (first, second, third, others) = (
        Session::new(&world, &user).await,
        Session::new(&world, &user).await,
        Session::new(&world, &user).await,
        Session::new(&world, &other).await,
    );
    let sid = crate::harness::claims(&first.apps[0].1.access)["sid"].as_str().expect("a session id").to_owned();
    let list = || ListSessionsRequest { user: format!("users/{}", user.id), ..Default::default() };
    let request = world.as_admin(list()).await;
    let listed = world.sessions().list_sessions(request).await.expect("sessions").into_inner().sessions;
    assert_eq!(listed.len(), 3);
    for secret in world.secrets().iter().filter(|(kind, _)| *kind == "ticket") {
        assert!(!format!("{listed:?}").contains(&secret.1), "a session's name is no ticket");
    }

    let request = world.as_admin(EndSessionRequest { name: format!("sessions/{sid}") }).await;
    world.sessions().end_session(request).await.expect("a session can be ended");
    first.assert_over(&world).await;
    second.assert_alive(&world).await;

    let request = world.as_admin(EndUserSessionsRequest { user: format!("users/~{}", user.name) }).await;
    let ended = world.sessions().end_user_sessions(request).await.expect("sessions can be ended").into_inner().ended;
    assert_eq!(ended, 2);
    second.assert_over(&world).await;
    third.assert_over(&world).await;
    others.assert_alive(&world).await;
    let request = world.as_admin(list()).await;
    assert!(world.sessions().list_sessions(request).await.expect("sessions").into_inner().sessions.is_empty());
}

#[tokio::test]
async fn a31_a62_a_password_that_an_administrator_sets_ends_every_session() {
    let world = World::shared().await;
    let user = world.user().await;
    let (first, second) = (Session::new(&world, &user).await, Session::new(&world, &user).await);
    let changed = User { password: format!("another {}", user.password), ..user.clone() };
    let request = world.as_admin(SetPasswordRequest { name: format!("users/{}", user.id), password: changed.password.clone() }).await;
    world.users().set_password(request).await.expect("a password can be set");
    first.assert_over(&world).await;
    second.assert_over(&world).await;
    let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
    world.call(Via::Envoy, &sign_in).await.refused(Case::Password);
    world.sign_in(&changed).await;
}

#[tokio::test]
async fn a62_who_changes_his_own_password_says_whether_his_other_sessions_go_on() {
    let world = World::shared().await;
    for keep in [true, false] {
        let user = world.user().await;
        let (here, elsewhere) = (Session::new(&world, &user).await, Session::new(&world, &user).await);
        let message = ChangePasswordRequest {
            user_name: String::new(),
            current_password: user.password.clone(),
            new_password: format!("another {}", user.password),
            keep_other_sessions: keep,
        };
        let wrong = ChangePasswordRequest { current_password: "not the password".to_owned(), ..message.clone() };
        assert!(world.users().change_password(native::request(wrong, &Who::ticket(&here.ticket))).await.is_err());
        world
            .users()
            .change_password(native::request(message, &Who::ticket(&here.ticket)))
            .await
            .expect("one's own password can be changed");
        here.assert_alive(&world).await;
        if keep { elsewhere.assert_alive(&world).await } else { elsewhere.assert_over(&world).await }
    }
}

#[tokio::test]
async fn a62_a_user_who_is_disabled_is_out_at_once() {
    let world = World::shared().await;
    let user = world.user().await;
    let (first, second) = (Session::new(&world, &user).await, Session::new(&world, &user).await);
    world.disable_user(&user).await;
    first.assert_over(&world).await;
    second.assert_over(&world).await;
}

#[tokio::test]
async fn a54_signing_in_makes_a_new_session_and_takes_over_no_ticket_that_was_there_before() {
    let world = World::shared().await;
    let (user, attacker) = (world.user().await, world.user().await);
    let app = world.app().await;
    let planted = world.sign_in(&attacker).await;
    for via in Via::BOTH {
        for before in [planted.as_str(), "chosen-by-somebody-else"] {
            let call = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password).by(Who::ticket(before));
            let ticket = world.call(via, &call).await.text_of("ticket");
            assert_ne!(ticket, before);
            let tokens = world.tokens(&app, &ticket).await;
            assert_eq!(crate::harness::claims(&tokens.access)["sub"], user.id.as_str());
        }
    }
    world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket("chosen-by-somebody-else"))).await.refused(Case::Caller);
    let tokens = world.tokens(&app, &planted).await;
    assert_eq!(crate::harness::claims(&tokens.access)["sub"], attacker.id.as_str(), "the planted ticket is its owner's as before");
}

#[tokio::test]
async fn a63_a_one_time_password_opens_nothing_but_its_own_change() {
    let world = World::shared().await;
    let name = crate::harness::unique("new");
    let user = AdminUser { user_name: name.clone(), ..Default::default() };
    let request = world.as_admin(CreateUserRequest { user: Some(user), ..Default::default() }).await;
    let made = world.users().create_user(request).await.expect("a user can be made").into_inner();
    let (once, id) = (made.one_time_password, made.user.expect("the user").user_id);
    assert!(once.len() >= 12);
    let sign_in = |password: &str| Call::new(Op::SignIn).with("userName", &name).with("password", password);
    for via in Via::BOTH {
        world.call(via, &sign_in(&once)).await.refused(Case::Disabled);
        world.call(via, &sign_in("not the password")).await.refused(Case::Password);
    }
    let own = format!("the own password of {name}");
    let change = |current: &str| ChangePasswordRequest {
        user_name: name.clone(),
        current_password: current.to_owned(),
        new_password: own.clone(),
        keep_other_sessions: false,
    };
    assert!(world.users().change_password(change("not the password")).await.is_err());
    world.users().change_password(change(&once)).await.expect("it opens its own change");
    for via in Via::BOTH {
        world.call(via, &sign_in(&once)).await.refused(Case::Password);
        world.call(via, &sign_in(&own)).await.ok();
    }
    let request = world.as_admin(GetUserRequest { name: format!("users/{id}") }).await;
    let user = world.users().get_user(request).await.expect("the user").into_inner().user.expect("the user");
    assert!(!user.password_change_required);
}
