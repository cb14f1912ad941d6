//! The database goes, comes back, refuses writes, is slow, or its answer is lost.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use supos_auth::grpc::pb::supos::auth::admin::v1::{AddSigningKeyRequest, ListSigningKeysRequest, SigningKeyState};
use tokio::task::JoinSet;

use crate::{
    harness::{Call, Case, Op, Via, Who, authorize, exchange, jwt_part, refresh, valid},
    postgres_server::{PostgresServer, is_wanted},
    proxy::Proxy,
    stage::{Replicas, by_port, finds_out, is_ready, is_unavailable, until},
};

/// Two services, the second of which reaches the database through a proxy.
async fn one_by_proxy() -> (Replicas, Proxy) {
    let server = PostgresServer::shared();
    let (url, proxy) = (server.database(), Proxy::start(server.port()).await);
    let port = proxy.port();
    let place = |replica| if replica == 0 { url.clone() } else { by_port(&url, port) };
    (Replicas::at(2, place, |_, setup| setup.argument("--signing-key-lead", "10")).await, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_a_service_that_cannot_ask_the_database_calls_nothing_good_and_says_that_it_is_not_ready() {
    if !is_wanted() {
        return;
    }
    let (replicas, proxy) = one_by_proxy().await;
    let [here, apart] = [replicas.world(0), replicas.world(1)];
    let (app, _, ticket, tokens) = here.family().await;
    let (_, _, _, others) = here.family().await;
    for _ in 0..5 {
        assert!(replicas.is_good(&app, &tokens.access).await);
    }
    proxy.cut(true);
    here.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
    let call = valid(&tokens.access).by(Who::bearer(&tokens.access));
    for call in [call, refresh(Op::TokenV2, &tokens.refresh).by(app.who()), valid(&others.access).by(Who::bearer(&others.access))] {
        let reply = apart.call(Via::Native, &call).await;
        assert!(is_unavailable(&reply), "{:?} {}", reply.status, reply.text);
    }
    finds_out("the service that is cut off says so", async || !is_ready(apart)).await;
    assert!(is_ready(here));
    proxy.cut(false);
    finds_out("it is ready again", async || is_ready(apart)).await;
    assert!(!apart.call(Via::Native, &valid(&tokens.access).by(app.who())).await.valid());
    assert!(apart.call(Via::Native, &valid(&others.access).by(Who::bearer(&others.access))).await.valid());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_a_service_that_was_cut_off_while_others_took_a_new_key_knows_it_as_soon_as_it_answers_again() {
    if !is_wanted() {
        return;
    }
    let (replicas, proxy) = one_by_proxy().await;
    let [here, apart] = [replicas.world(0), replicas.world(1)];
    let (app, _, ticket, mut tokens) = here.family().await;
    let others = here.tokens(&app, &ticket).await;
    proxy.cut(true);
    let request = here.as_admin(AddSigningKeyRequest::default()).await;
    let added = here.signing_keys().add_signing_key(request).await.expect("a key can be added").into_inner();
    let new = added.signing_key.expect("the key that was added").kid;
    until("the new key signs, and the old one is retired", async || {
        let keys = here.signing_keys().list_signing_keys(here.as_admin(ListSigningKeysRequest::default()).await).await;
        let keys = keys.expect("keys can be listed").into_inner().signing_keys;
        keys.iter().all(|key| key.state() == if key.kid == new { SigningKeyState::Active } else { SigningKeyState::Verifying })
    })
    .await;
    tokens = here.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.tokens();
    assert_eq!(jwt_part(&tokens.access, 0)["kid"], new.as_str());
    proxy.cut(false);
    // It may say that it cannot say, but not that the token is none.
    let asked = valid(&tokens.access).by(Who::bearer(&tokens.access));
    let answer = loop {
        let reply = apart.call(Via::Native, &asked).await;
        if !is_unavailable(&reply) {
            break reply;
        }
    };
    assert!(answer.valid());
    let given = apart.call(Via::Native, &refresh(Op::TokenV2, &others.refresh).by(app.who())).await;
    assert!(is_unavailable(&given) || jwt_part(&given.tokens().access, 0)["kid"] == new.as_str(), "it signs with a key that is retired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_commit_whose_answer_is_lost_gives_nothing_out_and_asking_again_gives_nothing_twice() {
    if !is_wanted() {
        return;
    }
    let (replicas, proxy) = one_by_proxy().await;
    let [here, lossy] = [replicas.world(0), replicas.world(1)];
    let (app, _, ticket, tokens) = here.family().await;
    // Bearer and not Sign: a signature over gRPC writes, too.
    let by = Who::bearer(&tokens.access);

    proxy.lose_the_next(b"UPDATE 1");
    let lost = lossy.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(by.clone())).await;
    assert!(is_unavailable(&lost) && lost.body.get("refreshToken").is_none(), "{:?} {}", lost.status, lost.text);
    let again = lossy.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(by.clone())).await.tokens();
    let elsewhere = here.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(by)).await.tokens();
    assert_eq!(again.refresh, elsewhere.refresh, "one successor");
    assert!(replicas.is_good(&app, &again.access).await);

    // Over gRPC the signature of the app is used up first: that is another INSERT, so the answer to the family's is lost.
    let code = here.code(&app, Who::ticket(&ticket)).await;
    let call = exchange(Op::TokenV2, &app, &code);
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        proxy.lose_the_next(b"INSERT 0 1");
        outcomes.push(lossy.call(Via::Native, &call).await);
    }
    for reply in &outcomes {
        assert!(!reply.is_ok() && reply.body.get("accessToken").is_none(), "{:?} {}", reply.status, reply.text);
    }
    let mut given = 0;
    for world in [lossy, here] {
        given += usize::from(world.call(Via::Native, &call).await.is_ok());
    }
    assert!(given <= 1, "a code was given out twice");
}

/// Stops the database while callers refresh, and starts it again.
async fn away(end: fn(&mut PostgresServer)) {
    if !is_wanted() {
        return;
    }
    let mut server = PostgresServer::start(Vec::new());
    let url = server.database();
    let replicas = Arc::new(Replicas::at(2, |_| url.clone(), |_, setup| setup).await);
    let app = replicas.world(0).app().await;
    let (stop, _) = tokio::sync::watch::channel(false);
    let mut callers = JoinSet::new();
    for caller in 0..8 {
        let (_, ticket) = replicas.world(0).signed_in().await;
        let mut tokens = replicas.world(0).tokens(&app, &ticket).await;
        let (replicas, app, stop) = (Arc::clone(&replicas), app.clone(), stop.subscribe());
        callers.spawn(async move {
            let (mut done, mut refused) = (0, 0);
            for turn in caller.. {
                if *stop.borrow() {
                    break;
                }
                let (world, via) = replicas.way(turn);
                let reply = world.call(via, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await;
                if reply.is_ok() {
                    tokens = reply.tokens();
                    done += 1;
                } else {
                    assert!(is_unavailable(&reply), "{:?} {}", reply.status, reply.text);
                    refused += 1;
                }
            }
            (tokens, done, refused)
        });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| end(&mut server));
    let call = valid("nothing").by(Who::nobody());
    for world in &replicas.worlds {
        finds_out("the service says that it is not ready", async || !is_ready(world)).await;
        assert!(!world.call(Via::Native, &call).await.is_ok());
    }
    tokio::task::block_in_place(|| server.resume());
    let begun = Instant::now();
    for world in &replicas.worlds {
        finds_out("the service is ready again", async || is_ready(world)).await;
    }
    let envoy_sends_calls_on = async || replicas.world(0).call(Via::Envoy, &valid("nothing").by(app.who())).await.is_ok();
    until("Envoy has seen that they are", envoy_sends_calls_on).await;
    println!("well {:?} after the database took connections again", begun.elapsed());
    // And nothing after: every call goes well, whichever connection of the pool it gets.
    let mut waiting = JoinSet::new();
    for turn in 0..60 {
        let (replicas, app) = (Arc::clone(&replicas), app.clone());
        waiting.spawn(async move {
            let (world, via) = replicas.way(turn);
            world.call(via, &valid("nothing").by(app.who())).await
        });
    }
    for reply in waiting.join_all().await {
        assert!(!reply.valid());
    }
    stop.send_replace(true);
    for (tokens, done, refused) in callers.join_all().await {
        assert!(done > 0 && refused > 0, "{done} {refused}");
        assert!(replicas.is_good(&app, &tokens.access).await, "a family that was told to be good is dead");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p4_a_database_that_is_restarted_costs_errors_while_it_is_away_and_nothing_after() {
    away(PostgresServer::shut_down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p4_a_database_that_crashes_costs_errors_while_it_is_away_and_nothing_after() {
    away(PostgresServer::crash).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p14_a_database_that_takes_no_writes_is_a_503_until_it_does() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::start(Vec::new());
    let url = server.database();
    let replicas = Replicas::at(2, |_| url.clone(), |_, setup| setup).await;
    let (app, _, ticket, tokens) = replicas.world(0).family().await;
    let code = replicas.world(0).code(&app, Who::ticket(&ticket)).await;
    let set = |value: &str| {
        server.psql("postgres", &format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
        server.psql("postgres", "SELECT pg_reload_conf()");
    };
    set("on");
    for world in &replicas.worlds {
        finds_out("the service says that it is not ready", async || !is_ready(world)).await;
        for call in [exchange(Op::TokenV2, &app, &code), Call::new(Op::SignOut).by(Who::ticket(&ticket))] {
            let reply = world.call(Via::Native, &call).await;
            assert!(is_unavailable(&reply), "{:?} {}", reply.status, reply.text);
        }
    }
    set("off");
    for world in &replicas.worlds {
        finds_out("the service is ready again", async || is_ready(world)).await;
    }
    assert!(replicas.is_good(&app, &tokens.access).await, "a sign-out that was refused took place");
    replicas.world(1).call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens();
}

/// What a server says where it finds no room for another page of a table: every write that needs one fails, whatever else goes on.
fn disk_full(tables: &str) -> String {
    format!(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$; \
         DO $$ DECLARE of text; BEGIN \
         FOR of IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename LIKE '{tables}' LOOP \
         EXECUTE format('CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON %I EXECUTE FUNCTION no_room()', of); \
         END LOOP; END $$"
    )
}

/// With room again.
const ROOM: &str = "DROP FUNCTION no_room() CASCADE";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p14_a_database_whose_disk_is_full_is_a_503_for_what_it_would_have_to_store_and_nothing_else() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let replicas = Replicas::at(2, |_| url.clone(), |_, setup| setup).await;
    let (app, _, ticket, tokens) = replicas.world(0).family().await;
    let code = replicas.world(0).code(&app, Who::ticket(&ticket)).await;
    let name = url.rsplit('/').next().expect("the name of the database");
    server.psql(name, &disk_full("%"));
    let bearer = Who::bearer(&tokens.access);
    for world in &replicas.worlds {
        let writes = [
            exchange(Op::TokenV2, &app, &code),
            refresh(Op::TokenV2, &tokens.refresh).by(bearer.clone()),
            authorize(Op::Authorize, &app).by(Who::ticket(&ticket)),
        ];
        for call in writes {
            let reply = world.call(Via::Native, &call).await;
            assert!(is_unavailable(&reply), "{:?} {}", reply.status, reply.text);
        }
        assert!(world.call(Via::Native, &valid(&tokens.access).by(bearer.clone())).await.valid(), "what is only read is answered");
    }
    server.psql(name, ROOM);
    assert!(replicas.is_good(&app, &tokens.access).await, "what was refused took place");
    replicas.world(1).call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens();
    replicas.world(0).call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(bearer)).await.tokens();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p14_where_one_table_has_no_room_left_each_step_is_done_wholly_or_refused() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let replicas = Replicas::at(2, |_| url.clone(), |_, setup| setup).await;
    let world = replicas.world(0);
    let app = world.app().await;
    let name = url.rsplit('/').next().expect("the name of the database");
    for table in ["sessions", "families", "codes", "used_up", "logouts", "counts"] {
        let (user, ticket) = world.signed_in().await;
        let tokens = world.tokens(&app, &ticket).await;
        let code = world.code(&app, Who::ticket(&ticket)).await;
        let leaving = world.sign_in(&user).await;
        let left = world.tokens(&app, &leaving).await;
        server.psql(name, &disk_full(table));
        let call = async |call: Call| {
            let reply = world.call(Via::Native, &call).await;
            assert!(reply.is_ok() || is_unavailable(&reply), "{table}: {:?} {}", reply.status, reply.text);
            reply
        };
        let signed_in = call(Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password)).await;
        let authorized = call(authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await;
        let exchanged = call(exchange(Op::TokenV2, &app, &code)).await;
        let refreshed = call(refresh(Op::TokenV2, &tokens.refresh).by(Who::bearer(&tokens.access))).await;
        let signed_out = call(Call::new(Op::SignOut).by(Who::ticket(&leaving))).await;
        let replies = [&signed_in, &authorized, &exchanged, &refreshed, &signed_out];
        assert!(replies.iter().any(|reply| !reply.is_ok()), "nothing needs room in {table}");
        server.psql(name, ROOM);
        // What was told holds, and what was refused can be had now.
        let there = replicas.world(1);
        if signed_in.is_ok() {
            there.code(&app, Who::ticket(&signed_in.text_of("ticket"))).await;
        }
        if authorized.is_ok() {
            there.call(Via::Native, &exchange(Op::TokenV2, &app, &authorized.text_of("code"))).await.tokens();
        }
        if exchanged.is_ok() {
            assert!(replicas.is_good(&app, &exchanged.tokens().access).await, "{table}");
        } else {
            there.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.tokens();
        }
        let next = if refreshed.is_ok() { refreshed.tokens() } else { tokens };
        there.call(Via::Native, &refresh(Op::TokenV2, &next.refresh).by(app.who())).await.tokens();
        assert_eq!(replicas.is_good(&app, &left.access).await, !signed_out.is_ok(), "{table}");
        there.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&leaving))).await.ok();
        assert!(!replicas.is_good(&app, &left.access).await, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p14_calls_that_wait_for_a_slow_database_are_given_up_and_do_not_pile_up() {
    if !is_wanted() {
        return;
    }
    let server = PostgresServer::shared();
    let url = server.database();
    let replicas = Arc::new(Replicas::at(2, |_| url.clone(), |_, setup| setup.argument("--store-connections", "4")).await);
    let (app, _, _, tokens) = replicas.world(0).family().await;
    let name = url.rsplit('/').next().expect("the name of the database").to_owned();
    // Whoever needs a session waits for this, and all connections with him.
    let locked = tokio::task::spawn_blocking(move || {
        server.psql(&name, "BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(8); COMMIT");
    });
    let sessions_are_locked = async || {
        let reply = replicas.world(0).call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(Who::bearer(&tokens.access))).await;
        is_unavailable(&reply)
    };
    until("somebody waits in vain", sessions_are_locked).await;
    let mut callers = JoinSet::new();
    for caller in 0..200 {
        let (replicas, call) = (Arc::clone(&replicas), valid(&tokens.access).by(Who::bearer(&tokens.access)));
        callers.spawn(async move {
            let (world, via) = replicas.way(caller);
            world.call(via, &call).await
        });
    }
    for reply in callers.join_all().await {
        assert!(reply.is_ok() || is_unavailable(&reply), "{:?} {}", reply.status, reply.text);
    }
    locked.await.expect("the lock was held");
    for world in &replicas.worlds {
        finds_out("the service is ready again", async || is_ready(world)).await;
    }
    assert!(replicas.is_good(&app, &tokens.access).await);
    replicas.world(1).call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(Who::nobody())).await.refused(Case::Caller);
}
