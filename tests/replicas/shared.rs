//! What is done at one service is so at every other one.

use std::{collections::HashSet, sync::Arc, time::Duration};

use supos_auth::grpc::pb::supos::auth::admin::v1::{AddSigningKeyRequest, DisableAppRequest, ListSigningKeysRequest};
use tokio::task::JoinSet;

use crate::{
    harness::{App, Call, Case, Op, Setup, Tokens, Via, Who, World, authorize, exchange, jwt_part, refresh, valid},
    postgres_server::{PostgresServer, is_wanted},
    stage::{Replicas, setup, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_what_ends_at_one_service_is_dead_at_the_others_at_the_next_call() {
    let Some(replicas) = Replicas::start(2).await else { return };
    let [here, there] = [replicas.world(0), replicas.world(1)];
    for end in ["sign-out", "sign-out by token", "a disabled user", "a replayed code", "a replayed refresh token", "a disabled app"] {
        let app = here.app().await;
        let (user, ticket) = here.signed_in().await;
        let code = here.code(&app, Who::ticket(&ticket)).await;
        let spare = here.code(&app, Who::ticket(&ticket)).await;
        let mut tokens = there.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens();
        // Both services know the token, so that a memory of it would show.
        for _ in 0..3 {
            assert!(replicas.is_good(&app, &tokens.access).await, "{end}");
        }
        match end {
            "sign-out" => drop(here.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok()),
            "sign-out by token" => {
                let call = Call::new(Op::SignOutV281).with("accessToken", &tokens.access).by(app.who());
                here.call(Via::Native, &call).await.ok();
            }
            "a disabled user" => here.disable_user(&user).await,
            "a replayed code" => here.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant),
            "a replayed refresh token" => {
                let first = tokens.clone();
                for _ in 0..2 {
                    tokens = here.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens();
                }
                here.call(Via::Native, &refresh(Op::TokenV2, &first.refresh).by(app.who())).await.refused(Case::Grant);
            }
            _ => {
                let request = here.as_admin(DisableAppRequest { name: format!("apps/{}", app.id) }).await;
                here.apps().disable_app(request).await.expect("an app can be disabled");
                let answer = there.call(Via::Native, &valid(&tokens.access).by(app.who())).await;
                answer.refused(Case::Caller);
                continue;
            }
        }
        let good = there.call(Via::Native, &valid(&tokens.access).by(app.who())).await.valid();
        assert!(!good, "{end}: the other service calls the token good");
        there.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
        if !end.starts_with("a replayed") {
            there.call(Via::Native, &exchange(Op::TokenV2, &app, &spare)).await.refused(Case::Grant);
            there.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
        }
    }
}

async fn flows(flows: usize) {
    let Some(replicas) = Replicas::start(3).await else { return };
    let app = replicas.world(0).app().await;
    let user = replicas.world(1).user().await;
    for flow in 0..flows {
        // Each request at another service, and which of them begins changes, too.
        let mut turn = flow;
        let mut next = || {
            turn += 1;
            replicas.way(turn)
        };
        let (world, via) = next();
        let sign_in = Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password);
        let ticket = world.call(via, &sign_in).await.text_of("ticket");
        let (world, via) = next();
        let code = world.call(via, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.text_of("code");
        let (world, via) = next();
        let first = world.call(via, &exchange(Op::TokenV2, &app, &code)).await.tokens();
        let (world, via) = next();
        assert!(world.call(via, &valid(&first.access).by(app.who())).await.valid(), "flow {flow}");
        let (world, via) = next();
        let second = world.call(via, &refresh(Op::TokenV2, &first.refresh).by(Who::bearer(&first.access))).await.tokens();
        let (world, via) = next();
        let name = world.call(via, &Call::new(Op::Username).with("accessToken", &second.access).by(app.who())).await;
        assert_eq!(name.text_of("username"), user.name, "flow {flow}");
        let (world, via) = next();
        world.call(via, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
        let (world, via) = next();
        assert!(!world.call(via, &valid(&second.access).by(app.who())).await.valid(), "flow {flow}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p11_a_flow_whose_every_request_comes_to_another_service_is_like_any_other() {
    flows(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: a thousand flows"]
async fn p11_a_thousand_flows_whose_every_request_comes_to_another_service_are_like_any_other() {
    flows(1000).await;
}

/// The ids of the keys that a service publishes, in their order.
async fn published(world: &World) -> Vec<String> {
    let keys = world.call(Via::Native, &Call::new(Op::Jwks)).await;
    let mut kids: Vec<String> =
        keys.ok()["keys"].as_array().expect("keys").iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect();
    kids.sort();
    kids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_new_key_is_published_everywhere_before_it_signs_and_every_service_knows_every_token() {
    if !is_wanted() {
        return;
    }
    let url = PostgresServer::shared().database();
    let replicas = Replicas::at(2, |_| url.clone(), |_, setup| setup.argument("--signing-key-lead", "10")).await;
    let [here, there] = [replicas.world(0), replicas.world(1)];
    let (app, _, _, mut tokens) = here.family().await;
    let old = jwt_part(&tokens.access, 0)["kid"].clone();
    let request = here.as_admin(AddSigningKeyRequest::default()).await;
    let added = here.signing_keys().add_signing_key(request).await.expect("a key can be added").into_inner();
    let new = added.signing_key.expect("the key that was added").kid;
    until("the other service publishes it", async || published(there).await.contains(&new)).await;
    let signing = signs_everywhere(&replicas, &app, &mut tokens, &new).await;
    assert_eq!(signing, HashSet::from([old.as_str().expect("a kid").to_owned(), new]), "a third key signs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "long: a hundred thousand tokens are looked at, and the keys change all the while"]
async fn p8_of_a_hundred_thousand_tokens_looked_at_elsewhere_while_keys_change_none_has_a_key_that_is_not_known() {
    const CALLERS: usize = 12;
    const EACH: usize = 100_000 / CALLERS + 1;
    if !is_wanted() {
        return;
    }
    let url = PostgresServer::shared().database();
    let replicas = Arc::new(Replicas::at(3, |_| url.clone(), |_, setup| setup.argument("--signing-key-lead", "10")).await);
    let app = replicas.world(0).app().await;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (replicas, app) = (Arc::clone(&replicas), app.clone());
        callers.spawn(async move {
            let (_, ticket) = replicas.world(caller).signed_in().await;
            let (mut tokens, mut kids) = (replicas.world(caller).tokens(&app, &ticket).await, HashSet::new());
            for turn in 0..EACH {
                if turn % 4 == 0 {
                    let signs = replicas.world(caller + turn / 4);
                    tokens = signs.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens();
                    kids.insert(jwt_part(&tokens.access, 0)["kid"].to_string());
                }
                // By the token itself: a signature of the app's would cost a step of the store.
                let world = replicas.world(caller + turn);
                let reply = world.call(Via::Native, &valid(&tokens.access).by(Who::bearer(&tokens.access))).await;
                assert!(reply.valid(), "caller {caller}, turn {turn}: {}", reply.text);
            }
            kids
        });
    }
    let mut kids = HashSet::new();
    let rotating = tokio::spawn({
        let replicas = Arc::clone(&replicas);
        async move {
            for turn in 0.. {
                let world = replicas.world(turn);
                let request = world.as_admin(AddSigningKeyRequest::default()).await;
                world.signing_keys().add_signing_key(request).await.expect("a key can be added");
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        }
    });
    for of_caller in callers.join_all().await {
        kids.extend(of_caller);
    }
    rotating.abort();
    println!("{} tokens were looked at, signed with {} keys", CALLERS * EACH, kids.len());
    assert!(kids.len() >= 3, "the keys have not changed: {kids:?}");
}

/// Refreshes at one service after the other until each signs with this key, and gives all keys that have signed meanwhile. Every service
/// has published a key before another one signs with it, and knows every token at once.
async fn signs_everywhere(replicas: &Replicas, app: &App, tokens: &mut Tokens, newest: &str) -> HashSet<String> {
    let (mut kids, mut signed_by) = (HashSet::new(), HashSet::new());
    for turn in 0.. {
        let world = replicas.world(turn);
        *tokens = world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens();
        assert!(replicas.is_good(app, &tokens.access).await, "a service does not know the key of another one's token");
        let kid = jwt_part(&tokens.access, 0)["kid"].as_str().expect("a kid").to_owned();
        if kid == newest {
            assert!(published(replicas.world(turn + 1)).await.contains(&kid));
            signed_by.insert(turn % replicas.worlds.len());
        }
        kids.insert(kid);
        if signed_by.len() == replicas.worlds.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(turn < 600, "the new key never signs");
    }
    kids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p8_a_service_that_is_killed_while_it_takes_a_new_key_leaves_keys_that_the_others_go_on_with() {
    if !is_wanted() {
        return;
    }
    let url = PostgresServer::shared().database();
    let mut replicas = Replicas::at(3, |_| url.clone(), |_, setup| setup.argument("--signing-key-lead", "10")).await;
    let mut victim = replicas.worlds.pop().expect("there are three");
    let here = replicas.world(0);
    let (app, _, _, mut tokens) = here.family().await;
    let mut told = Vec::new();
    for round in 0..8 {
        let request = victim.as_admin(AddSigningKeyRequest::default()).await;
        let mut keys = victim.signing_keys();
        let adding = tokio::spawn(async move { keys.add_signing_key(request).await });
        // Before it has begun, in the middle of it, and at the end once it has answered.
        tokio::time::sleep(Duration::from_millis(3 * round)).await;
        while round == 7 && !adding.is_finished() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::block_in_place(|| {
            victim.restart_with(
                |pair| {
                    pair.kill();
                    let added = tokio::runtime::Handle::current().block_on(adding).expect("the caller lives");
                    told.extend(added.ok().and_then(|added| added.into_inner().signing_key).map(|key| key.kid));
                },
                |_| {},
            );
        });
    }
    replicas.worlds.push(victim);
    until("all services publish the same keys", async || {
        let all = published(&replicas.worlds[0]).await;
        published(&replicas.worlds[1]).await == all && published(&replicas.worlds[2]).await == all
    })
    .await;
    let all = published(&replicas.worlds[0]).await;
    assert!(!told.is_empty(), "no key was taken");
    assert!(told.iter().all(|kid| all.contains(kid)), "a key that was answered is gone: {told:?}, {all:?}");
    let request = replicas.world(0).as_admin(ListSigningKeysRequest { page_size: 1000, ..Default::default() }).await;
    let listed = replicas.world(0).signing_keys().list_signing_keys(request).await.expect("keys can be listed").into_inner().signing_keys;
    let newest =
        listed.iter().max_by_key(|key| key.activate_time.map(|time| (time.seconds, time.nanos))).expect("there is a key").kid.clone();
    let signing = signs_everywhere(&replicas, &app, &mut tokens, &newest).await;
    assert!(signing.iter().all(|kid| all.contains(kid)), "{signing:?} sign, {all:?} are published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p8_services_that_rotate_their_keys_at_the_same_time_make_one_new_key() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let folder = tempfile::TempDir::with_prefix("supos-auth-replicas-").expect("a temporary folder");
    // The first start makes a key. It is then made so old that every service which starts sees that another one is due.
    drop(World::own(Setup { alone: true, ..setup(folder.path(), &url) }).await);
    let name = url.rsplit('/').next().expect("the name of the database");
    server.psql(name, "UPDATE signing_keys SET created_at = created_at - 31536000000, activates_at = activates_at - 31536000000");
    let mut starts = JoinSet::new();
    for _ in 0..3 {
        let setup = Setup { alone: true, ..setup(folder.path(), &url) };
        starts.spawn(World::own(setup));
    }
    let worlds = starts.join_all().await;
    let request = worlds[0].as_admin(ListSigningKeysRequest::default()).await;
    let keys = worlds[0].signing_keys().list_signing_keys(request).await.expect("keys can be listed").into_inner().signing_keys;
    assert_eq!(keys.len(), 2, "{keys:?}");
    for world in &worlds {
        assert_eq!(published(world).await.len(), 2);
    }
}
