//! What was answered was stored; what could not be stored was not answered.

use std::process::Command;

use crate::harness::{Call, Case, Op, Pair, Reply, Setup, Status, Via, Who, World, authorize, exchange, refresh};

/// Lets the service write no byte to any file from now on.
fn fill_the_disk(world: &World) {
    let limited = Command::new("prlimit").args(["--fsize=0:0", "--pid", &world.service_id().to_string()]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit (util-linux) has to be there");
}

#[track_caller]
fn assert_unavailable(reply: &Reply) {
    match reply.status {
        Status::Http(status) => assert_eq!((status, reply.body["code"].as_i64()), (503, Some(100_106_503)), "{}", reply.text),
        Status::Grpc(code) => assert_eq!(code, tonic::Code::Unavailable, "{}", reply.text),
    }
}

#[tokio::test]
async fn h31_what_cannot_be_stored_is_503_and_never_an_answer() {
    for via in Via::BOTH {
        let mut world = World::own(Setup::default()).await;
        let (app, user, ticket, tokens) = world.family().await;
        let code = world.code(&app, Who::ticket(&ticket)).await;
        let calls = [
            Call::new(Op::SignOut).by(Who::ticket(&ticket)),
            exchange(Op::TokenV2, &app, &code),
            refresh(Op::TokenV2, &tokens.refresh).by(app.who()),
            authorize(Op::Authorize, &app).by(Who::ticket(&ticket)),
            Call::new(Op::SignIn).with("userName", &user.name).with("password", &user.password),
        ];
        fill_the_disk(&world);
        for call in &calls {
            let mut reply = world.call(via, call).await;
            for _ in 0..3 {
                // The connection went with the service while the call waited for it, which is no answer: it is made again.
                if !matches!(reply.status, Status::Grpc(tonic::Code::Cancelled | tonic::Code::Unknown)) {
                    break;
                }
                reply = world.call(via, call).await;
            }
            assert_unavailable(&reply);
            for given in ["accessToken", "refreshToken", "ticket"] {
                assert!(reply.body[given].is_null(), "{given} was given out");
            }
        }
        // Nothing of it was promised, so either truth is honest; but there is one truth, and it holds everywhere.
        world.restart(Pair::kill);
        let alive = world.call(Via::Envoy, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.is_ok();
        assert_eq!(world.call(Via::Native, &authorize(Op::AuthorizeV281, &app).by(Who::ticket(&ticket))).await.is_ok(), alive);
        assert!(alive || !world.is_valid(&app, &tokens.access).await);
        // And the service works again.
        let ticket = world.sign_in(&user).await;
        let fresh = world.tokens(&app, &ticket).await;
        world.call(Via::Envoy, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.ok();
        world.call(Via::Envoy, &refresh(Op::TokenV2, &fresh.refresh).by(app.who())).await.refused(Case::Grant);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn h31_what_was_answered_before_the_service_was_killed_holds() {
    use std::sync::Arc;
    use tokio::task::JoinSet;

    const WRITERS: usize = 8;
    let mut world = World::own(Setup::default()).await;
    let app = world.app().await;
    let user = world.user().await;
    for round in 0_usize..3 {
        let mut codes = Vec::new();
        let mut sessions = Vec::new();
        for _ in 0..WRITERS {
            let ticket = world.sign_in(&user).await;
            sessions.push((ticket.clone(), world.tokens(&app, &ticket).await));
            for _ in 0..30 {
                codes.push((ticket.clone(), world.code(&app, Who::ticket(&ticket)).await));
            }
        }
        // Each writer redeems its codes and then signs out, until the service is gone.
        let shared = Arc::new(world);
        let (acknowledged, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut writers = JoinSet::new();
        for (index, (ticket, tokens)) in sessions.iter().cloned().enumerate() {
            let own: Vec<String> = codes.iter().filter(|(other, _)| *other == ticket).map(|(_, code)| code.clone()).collect();
            let (world, app, acknowledged) = (Arc::clone(&shared), app.clone(), acknowledged.clone());
            writers.spawn(async move {
                let mut redeemed = Vec::new();
                for code in own {
                    if !world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.is_ok() {
                        return (redeemed, None);
                    }
                    let _ = acknowledged.send(());
                    redeemed.push(code);
                }
                let out = world.call(Via::Native, &Call::new(Op::SignOut).by(Who::ticket(&ticket))).await.is_ok();
                let _ = acknowledged.send(());
                (redeemed, (out && index < WRITERS).then_some((ticket, tokens)))
            });
        }
        drop(acknowledged);
        // Killed after so many acknowledgements: early, in the middle, when some have signed out.
        let until = [20, 130, WRITERS * 31 - 3][round];
        for _ in 0..until {
            heard.recv().await.expect("an acknowledgement");
        }
        Command::new("kill").args(["-KILL", &shared.service_id().to_string()]).status().expect("kill");
        let done = writers.join_all().await;
        world = Arc::into_inner(shared).expect("the writers are done");
        world.restart(Pair::kill);

        let mut count = 0;
        for (redeemed, signed_out) in done {
            count += redeemed.len();
            for code in redeemed {
                world.call(Via::Native, &exchange(Op::TokenV2, &app, &code)).await.refused(Case::Grant);
            }
            if let Some((ticket, tokens)) = signed_out {
                assert!(!world.is_valid(&app, &tokens.access).await, "a session that was signed out is back");
                world.call(Via::Native, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.refused(Case::Caller);
            }
        }
        assert!(count >= 20, "round {round}: {count} codes were acknowledged");
    }
}
