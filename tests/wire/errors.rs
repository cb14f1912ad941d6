//! Every refusal of the documented table, on both surfaces, as data.

mod rows;

use crate::harness::{App, Call, Case, Op, Tokens, User, Via, Who, World, authorize, exchange, forged, refresh, unique, valid};
use rows::{Row, rows};
use supos_auth::grpc::pb::supos::auth::admin::v1::DisableAppRequest;

/// What the rows are made of. What is live stays live: no refused call may use it up.
struct Fixture {
    app: App,
    other_app: App,
    disabled_app: App,
    user: User,
    disabled_user: User,
    ticket: String,
    ended_ticket: String,
    tokens: Tokens,
    other_app_tokens: Tokens,
    other_user_tokens: Tokens,
    ended_tokens: Tokens,
    code: String,
    used_code: String,
    other_app_code: String,
    ended_code: String,
    replaced_refresh_token: String,
    forged_access_token: String,
}

impl Fixture {
    async fn new(world: &World) -> Self {
        let (app, user, ticket, tokens) = world.family().await;
        let (other_app, disabled_app) = (world.app().await, world.app().await);
        let request = world.as_admin(DisableAppRequest { name: format!("apps/{}", disabled_app.id) }).await;
        world.apps().disable_app(request).await.expect("an app can be disabled");
        let disabled_user = world.user().await;
        world.disable_user(&disabled_user).await;
        let other_app_tokens = world.tokens(&other_app, &ticket).await;
        let (_, other_ticket) = world.signed_in().await;
        let other_user_tokens = world.tokens(&app, &other_ticket).await;

        let code = world.code(&app, Who::ticket(&ticket)).await;
        let used_code = world.code(&app, Who::ticket(&ticket)).await;
        world.call(Via::Native, &exchange(Op::TokenV2, &app, &used_code)).await.ok();
        let other_app_code = world.code(&other_app, Who::ticket(&ticket)).await;

        let first = world.tokens(&app, &ticket).await;
        let second = world.call(Via::Native, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.tokens();
        world.call(Via::Native, &refresh(Op::TokenV2, &second.refresh).by(app.who())).await.ok();

        let ended_ticket = world.sign_in(&user).await;
        let ended_tokens = world.tokens(&app, &ended_ticket).await;
        let ended_code = world.code(&app, Who::ticket(&ended_ticket)).await;
        world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ended_ticket))).await.ok();

        let forged_access_token = forged(&tokens.access);
        Self {
            app,
            other_app,
            disabled_app,
            user,
            disabled_user,
            ticket,
            ended_ticket,
            tokens,
            other_app_tokens,
            other_user_tokens,
            ended_tokens,
            code,
            used_code,
            other_app_code,
            ended_code,
            replaced_refresh_token: first.refresh,
            forged_access_token,
        }
    }

    async fn assert_nothing_was_used_up(&self, world: &World) {
        for (app, tokens) in [(&self.app, &self.tokens), (&self.other_app, &self.other_app_tokens), (&self.app, &self.other_user_tokens)] {
            assert!(world.is_valid(app, &tokens.access).await, "a refused call ended a token");
            world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.ok();
        }
        world.call(Via::Native, &exchange(Op::TokenV2, &self.app, &self.code)).await.ok();
        world.call(Via::Native, &exchange(Op::TokenV2, &self.other_app, &self.other_app_code)).await.ok();
    }
}

async fn run(via: Via) {
    let world = World::shared().await;
    let fixture = Fixture::new(&world).await;
    let mut wrong = Vec::new();
    for Row { what, call, cases, parameter } in rows(&fixture) {
        let reply = world.call(via, &call).await;
        let mismatches: Vec<String> = cases.iter().filter_map(|case| reply.check_refusal(*case).err()).collect();
        if mismatches.len() == cases.len() {
            wrong.push(format!("{what}, operation {:?}: {mismatches:?}\n    {:?} {}", call.op, reply.status, reply.text));
            continue;
        }
        reply.echoes_nothing_of(&call);
        if let Some(parameter) = parameter {
            reply.names(parameter);
        }
    }
    assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    fixture.assert_nothing_was_used_up(&world).await;
}

#[tokio::test]
async fn every_row_of_the_error_table_holds_over_http() {
    run(Via::Envoy).await;
}

#[tokio::test]
async fn every_row_of_the_error_table_holds_over_native_grpc() {
    run(Via::Native).await;
}

#[tokio::test]
async fn the_same_fault_has_the_same_reason_whatever_the_operation() {
    let world = World::shared().await;
    let (app, _, ticket, _) = world.family().await;
    let mut reasons = Vec::new();
    for op in Op::EXCHANGES {
        let reply = world.call(Via::Native, &exchange(op, &app, "no-such-code")).await;
        reasons.push(reply.body["reason"].as_str().expect("a reason").to_owned());
    }
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "an unknown code: {reasons:?}");
    let unknown = world.call(Via::Native, &authorize(Op::Authorize, &app).but("appid", Some("no-such-app")).by(Who::ticket(&ticket))).await;
    assert_ne!(unknown.body["reason"], reasons[0].as_str(), "different causes have different reasons");
}

#[tokio::test]
async fn messages_are_chinese_for_who_prefers_chinese_and_english_for_everyone_else() {
    let world = World::shared().await;
    let app = world.app().await;
    let call = exchange(Op::TokenV2, &app, "").but("code", None);
    for via in Via::BOTH {
        for (preference, expected) in [
            (None, "code is required"),
            (Some("en-GB,en;q=0.9,zh;q=0.1"), "code is required"),
            (Some("de"), "code is required"),
            (Some("zh"), "code必填"),
            (Some("zh-CN,zh;q=0.9,en;q=0.8"), "code必填"),
            (Some("ZH-hans"), "code必填"),
        ] {
            let call = preference.into_iter().fold(call.clone(), |call, value| call.header("accept-language", value));
            let reply = world.call(via, &call).await;
            reply.refused(Case::Parameter);
            assert_eq!(reply.body["message"], expected, "{preference:?}");
        }
    }
    // What Envoy refuses by itself speaks both languages, too.
    let refusals = [world.http.get(world.url("/no/such/path")), world.http.post(world.url(Op::TokenV2.path())).body("x")];
    for refusal in refusals {
        let english = world.receive(Op::TokenV2, refusal.try_clone().expect("a request")).await;
        let chinese = world.receive(Op::TokenV2, refusal.header("accept-language", "zh-CN")).await;
        assert_eq!((english.status, &english.body["code"]), (chinese.status, &chinese.body["code"]));
        assert!(english.body["message"].as_str().is_some_and(str::is_ascii), "{}", english.text);
        assert!(chinese.body["message"].as_str().is_some_and(|message| !message.is_ascii()), "{}", chinese.text);
    }
}

#[tokio::test]
async fn the_caller_is_judged_before_the_parameters() {
    let world = World::shared().await;
    let (app, _, _, tokens) = world.family().await;
    let stranger = App::signing(&app.id, "not-the-secret");
    for via in Via::BOTH {
        for op in Op::EXCHANGES {
            world.call(via, &Call::new(op).by(stranger.clone())).await.refused(Case::Caller);
        }
        for op in Op::AUTHORIZES {
            world.call(via, &Call::new(op).by(Who::ticket("no-such-ticket"))).await.refused(Case::Caller);
        }
        for op in [Op::Username, Op::SignOutV281] {
            world.call(via, &Call::new(op).by(stranger.clone())).await.refused(Case::Caller);
        }
        world.call(via, &valid(&tokens.access).by(stranger.clone())).await.refused(Case::Caller);
    }
}

#[tokio::test]
async fn one_answer_for_a_wrong_password_and_for_a_user_who_is_not_there() {
    let world = World::shared().await;
    let user = world.user().await;
    for via in Via::BOTH {
        let sign_in = |name: &str| Call::new(Op::SignIn).with("userName", name).with("password", "not the password");
        let known = world.call(via, &sign_in(&user.name)).await;
        let unknown = world.call(via, &sign_in(&unique("nobody"))).await;
        known.refused(Case::Password);
        unknown.refused(Case::Password);
        assert_eq!(known.body, unknown.body);
    }
}
