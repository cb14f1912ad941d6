//! What is disabled works no more, wherever it is shown: {user, app, secret, key} x {code, refresh, token, ticket, Sign, Bearer}.

use supos_auth::grpc::pb::supos::auth::admin::v1::{
    AddAppSecretRequest, AddSigningKeyRequest, CreateAppRequest, DeleteAppRequest, DeleteUserRequest, DisableAppRequest, EnableAppRequest,
    EnableUserRequest, GetAppRequest, ListSigningKeysRequest, RemoveAppSecretRequest, RetireSigningKeyRequest, SigningKeyState,
};

use crate::harness::{App, Call, Case, Op, Setup, Tokens, User, Via, Who, World, authorize, exchange, jwt_part, refresh, valid};

/// Everything that one user has at one app, and a bystander of each kind.
struct Scene {
    app: App,
    user: User,
    ticket: String,
    tokens: Tokens,
    code: String,
    other_app: App,
    /// Of the same session at the other app.
    other_app_tokens: Tokens,
    /// Of another user at the app.
    other_user_tokens: Tokens,
}

impl Scene {
    async fn new(world: &World) -> Self {
        let (app, user, ticket, tokens) = world.family().await;
        let other_app = world.app().await;
        let code = world.code(&app, Who::ticket(&ticket)).await;
        let other_app_tokens = world.tokens(&other_app, &ticket).await;
        let (_, other_ticket) = world.signed_in().await;
        let other_user_tokens = world.tokens(&app, &other_ticket).await;
        Self { app, user, ticket, tokens, code, other_app, other_app_tokens, other_user_tokens }
    }

    fn sign_in(&self) -> Call {
        Call::new(Op::SignIn).with("userName", &self.user.name).with("password", &self.user.password)
    }
}

async fn assert_user_has_nothing(world: &World, scene: &Scene) {
    let Scene { app, ticket, tokens, code, other_app, other_app_tokens, .. } = scene;
    for via in Via::BOTH {
        for op in Op::EXCHANGES {
            world.call(via, &exchange(op, app, code)).await.refused(Case::Grant);
        }
        for (app, tokens) in [(app, tokens), (other_app, other_app_tokens)] {
            for op in Op::REFRESHES {
                world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
                let by_bearer = world.call(via, &refresh(op, &tokens.refresh).by(Who::bearer(&tokens.access))).await;
                by_bearer.refused_as_one_of(&[Case::Grant, Case::Caller]);
            }
            assert!(!world.call(via, &valid(&tokens.access).by(app.who())).await.valid());
            assert!(!world.call(via, &valid(&tokens.access).by(Who::bearer(&tokens.access))).await.valid());
            world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who())).await.refused(Case::Grant);
            world
                .call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(Who::bearer(&tokens.access)))
                .await
                .refused(Case::Caller);
            for op in Op::AUTHORIZES {
                world.call(via, &authorize(op, app).by(Who::bearer(&tokens.access))).await.refused(Case::Caller);
            }
        }
        for op in Op::AUTHORIZES {
            world.call(via, &authorize(op, app).by(Who::ticket(ticket))).await.refused(Case::Caller);
        }
        world.call(via, &valid(&tokens.access).by(Who::ticket(ticket))).await.refused(Case::Caller);
    }
}

#[tokio::test]
async fn a31_b11_a_disabled_user_has_nothing_left_and_enabling_him_brings_nothing_back() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    world.disable_user(&scene.user).await;
    assert_user_has_nothing(&world, &scene).await;
    for via in Via::BOTH {
        world.call(via, &scene.sign_in()).await.refused(Case::Disabled);
    }
    assert!(world.is_valid(&scene.app, &scene.other_user_tokens.access).await, "another user goes on");

    let request = world.as_admin(EnableUserRequest { name: format!("users/{}", scene.user.id) }).await;
    world.users().enable_user(request).await.expect("a user can be enabled");
    assert_user_has_nothing(&world, &scene).await;
    let ticket = world.call(Via::Envoy, &scene.sign_in()).await.text_of("ticket");
    world.tokens(&scene.app, &ticket).await;
}

#[tokio::test]
async fn b11_a_deleted_user_has_nothing_left() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    let request = world.as_admin(DeleteUserRequest { name: format!("users/~{}", scene.user.name) }).await;
    world.users().delete_user(request).await.expect("a user can be deleted");
    assert_user_has_nothing(&world, &scene).await;
    for via in Via::BOTH {
        world.call(via, &scene.sign_in()).await.refused(Case::Password);
    }
}

/// Checks that the app can do nothing, and that its codes and tokens are good for nobody.
async fn assert_app_has_nothing(world: &World, scene: &Scene, gone: bool) {
    let Scene { app, ticket, tokens, code, .. } = scene;
    for via in Via::BOTH {
        let signed = [
            exchange(Op::TokenV2, app, code),
            exchange(Op::TokenV1, app, code),
            exchange(Op::ExchangeV281, app, code),
            refresh(Op::TokenV2, &tokens.refresh).by(app.who()),
            refresh(Op::TokenV1, &tokens.refresh).by(app.who()),
            refresh(Op::RefreshV281, &tokens.refresh).by(app.who()),
            valid(&tokens.access).by(app.who()),
            Call::new(Op::Username).with("accessToken", &tokens.access).by(app.who()),
            Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who()),
        ];
        for call in &signed {
            let reply = world.call(via, call).await;
            if gone { reply.refused_as_one_of(&[Case::Caller, Case::Grant]) } else { reply.refused(Case::Caller) }
        }
        let bearer = Who::bearer(&tokens.access);
        for op in Op::REFRESHES {
            let reply = world.call(via, &refresh(op, &tokens.refresh).by(bearer.clone())).await;
            reply.refused_as_one_of(&[Case::Grant, Case::Caller]);
        }
        assert!(!world.call(via, &valid(&tokens.access).by(bearer.clone())).await.valid());
        assert!(!world.call(via, &valid(&tokens.access).by(Who::ticket(ticket))).await.valid());
        world.call(via, &Call::new(Op::Username).with("accessToken", &tokens.access).by(Who::ticket(ticket))).await.refused(Case::Grant);
        for op in Op::AUTHORIZES {
            let by_bearer = world.call(via, &authorize(op, app).by(bearer.clone())).await;
            by_bearer.refused_as_one_of(&[Case::Caller, Case::Parameter]);
            world.call(via, &authorize(op, app).by(Who::ticket(ticket))).await.refused(Case::Parameter);
        }
        world.call(via, &authorize(Op::Authorize, app).but("appid", None).by(Who::ticket(ticket))).await.refused(Case::Parameter);
    }
    assert!(world.is_valid(&scene.other_app, &scene.other_app_tokens.access).await, "another app of the session goes on");
}

#[tokio::test]
async fn a31_b11_a_disabled_app_can_do_nothing_and_goes_on_once_it_is_enabled() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    let name = format!("apps/{}", scene.app.id);
    let request = world.as_admin(DisableAppRequest { name: name.clone() }).await;
    world.apps().disable_app(request).await.expect("an app can be disabled");
    assert_app_has_nothing(&world, &scene, false).await;

    let request = world.as_admin(EnableAppRequest { name }).await;
    world.apps().enable_app(request).await.expect("an app can be enabled");
    assert!(world.is_valid(&scene.app, &scene.tokens.access).await, "tokens that have not expired work again");
    world.call(Via::Envoy, &refresh(Op::TokenV2, &scene.tokens.refresh).by(scene.app.who())).await.ok();
    world.call(Via::Envoy, &exchange(Op::TokenV2, &scene.app, &scene.code)).await.ok();
}

#[tokio::test]
async fn b11_a_deleted_app_leaves_nothing_to_one_that_is_made_by_the_same_id() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    let name = format!("apps/{}", scene.app.id);
    let request = world.as_admin(GetAppRequest { name: name.clone() }).await;
    let as_it_was = world.apps().get_app(request).await.expect("the app").into_inner().app;
    let request = world.as_admin(DeleteAppRequest { name }).await;
    world.apps().delete_app(request).await.expect("an app can be deleted");
    assert_app_has_nothing(&world, &scene, true).await;

    let request = world.as_admin(CreateAppRequest { app: as_it_was, secret: scene.app.secret.clone() }).await;
    world.apps().create_app(request).await.expect("an app of the same id can be made");
    assert!(!world.is_valid(&scene.app, &scene.tokens.access).await, "the tokens of the former app stay dead");
    for via in Via::BOTH {
        world.call(via, &exchange(Op::TokenV2, &scene.app, &scene.code)).await.refused(Case::Grant);
        world.call(via, &refresh(Op::TokenV2, &scene.tokens.refresh).by(scene.app.who())).await.refused(Case::Grant);
    }
    world.tokens(&scene.app, &scene.ticket).await;
}

#[tokio::test]
async fn b11_a_removed_secret_opens_nothing() {
    let world = World::shared().await;
    let scene = Scene::new(&world).await;
    let name = format!("apps/{}", scene.app.id);
    let request = world.as_admin(AddAppSecretRequest { app: name.clone(), secret: String::new() }).await;
    let fresh = world.apps().add_app_secret(request).await.expect("a second secret").into_inner().secret;
    let request = world.as_admin(GetAppRequest { name }).await;
    let secrets = world.apps().get_app(request).await.expect("the app").into_inner().app.expect("the app").secrets;
    let oldest = secrets.into_iter().min_by_key(|secret| secret.create_time.map(|time| (time.seconds, time.nanos))).expect("a secret");
    let request = world.as_admin(RemoveAppSecretRequest { name: oldest.name }).await;
    world.apps().remove_app_secret(request).await.expect("a secret can be removed");

    let Scene { app, tokens, code, .. } = &scene;
    let renewed = App { secret: fresh, ..app.clone() };
    for via in Via::BOTH {
        for op in Op::EXCHANGES {
            world.call(via, &exchange(op, app, code)).await.refused(Case::Caller);
        }
        for op in Op::REFRESHES {
            world.call(via, &refresh(op, &tokens.refresh).by(app.who())).await.refused(Case::Caller);
        }
        for op in [Op::Username, Op::Valid, Op::SignOutV281] {
            world.call(via, &Call::new(op).with("accessToken", &tokens.access).by(app.who())).await.refused(Case::Caller);
        }
    }
    assert!(world.is_valid(&renewed, &tokens.access).await, "the tokens are the app's as before");
    world.call(Via::Envoy, &exchange(Op::TokenV2, &renewed, code)).await.ok();
    world.call(Via::Envoy, &refresh(Op::TokenV2, &tokens.refresh).by(renewed.who())).await.ok();
}

#[tokio::test]
async fn b11_a_retired_key_signs_nothing_more_and_goes_when_its_last_token_has_expired() {
    let mut world = World::own(Setup::default().movable_clock()).await;
    let (app, user, ticket, by_the_old_key) = world.family().await;
    let old = jwt_part(&by_the_old_key.access, 0)["kid"].as_str().expect("a kid").to_owned();
    let request = world.as_admin(AddSigningKeyRequest {}).await;
    let added = world.signing_keys().add_signing_key(request).await.expect("a key can be added").into_inner().signing_key.expect("the key");
    assert_eq!(added.state(), SigningKeyState::Pending, "it signs once everybody can know it");
    assert!(published(&world).await.contains(&added.kid), "and is published at once");
    assert_eq!(jwt_part(&world.tokens(&app, &ticket).await.access, 0)["kid"], old.as_str());

    let active_from = added.activate_time.expect("a time").seconds;
    world.go_to(active_from + 1);
    let by_the_new_key = world.tokens(&app, &ticket).await;
    assert_eq!(jwt_part(&by_the_new_key.access, 0)["kid"], added.kid.as_str());

    let request = world.as_admin(RetireSigningKeyRequest { name: format!("signingKeys/{old}") }).await;
    let retired =
        world.signing_keys().retire_signing_key(request).await.expect("a key can be retired").into_inner().signing_key.expect("the key");
    assert!(world.is_valid(&app, &by_the_old_key.access).await, "what it has signed is good until it expires");
    assert!(published(&world).await.contains(&old));

    let gone_at = retired.expire_time.expect("a retired key has an end").seconds;
    world.go_to(gone_at + 60);
    assert!(!published(&world).await.contains(&old), "the key is gone");
    assert!(!world.is_valid(&app, &by_the_old_key.access).await);
    let request = world.as_admin(ListSigningKeysRequest::default()).await;
    let keys = world.signing_keys().list_signing_keys(request).await.expect("keys").into_inner().signing_keys;
    assert!(keys.iter().any(|key| key.state() == SigningKeyState::Active), "some key signs");
    let ticket = world.sign_in(&user).await;
    assert!(world.is_valid(&app, &world.tokens(&app, &ticket).await.access).await);
}

async fn published(world: &World) -> Vec<String> {
    let keys = world.call(Via::Envoy, &Call::new(Op::Jwks)).await.ok()["keys"].as_array().expect("keys").clone();
    keys.iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
}
