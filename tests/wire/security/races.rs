//! Single use under race: many callers at once, on every surface and operation that there is.

use std::sync::Arc;

use tokio::{sync::Barrier, task::JoinSet};

use crate::harness::{Call, Case, Op, Reply, Via, Who, World, claims, exchange, refresh};

const CALLERS: usize = 64;
const ROUNDS: usize = 25;

/// Sends one call per caller, all at the same moment.
async fn all_at_once(world: &Arc<World>, call: impl Fn(usize) -> (Via, Call)) -> Vec<Reply> {
    let barrier = Arc::new(Barrier::new(CALLERS));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (world, barrier, (via, call)) = (Arc::clone(world), Arc::clone(&barrier), call(caller));
        callers.spawn(async move {
            barrier.wait().await;
            world.call(via, &call).await
        });
    }
    callers.join_all().await
}

fn way(ops: [Op; 3], caller: usize) -> (Op, Via) {
    (ops[caller % 3], Via::BOTH[caller / 3 % 2])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_a_code_raced_by_64_callers_is_given_out_once_and_then_ended() {
    let world = Arc::new(World::shared().await);
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for round in 0..ROUNDS {
        let code = world.code(&app, Who::ticket(&ticket)).await;
        let replies = all_at_once(&world, |caller| {
            let (op, via) = way(Op::EXCHANGES, caller + round);
            (via, exchange(op, &app, &code))
        });
        let (won, lost): (Vec<Reply>, Vec<Reply>) = replies.await.into_iter().partition(Reply::is_ok);
        assert_eq!(won.len(), 1, "round {round}: one caller wins");
        for reply in &lost {
            reply.refused(Case::Grant);
        }
        // The others were second uses, so what the first got is dead.
        let tokens = won[0].tokens();
        assert!(!world.is_valid(&app, &tokens.access).await, "round {round}");
        world.call(Via::Native, &refresh(Op::TokenV2, &tokens.refresh).by(app.who())).await.refused(Case::Grant);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a28_a_refresh_token_raced_by_64_callers_has_one_successor_given_to_each() {
    let world = Arc::new(World::shared().await);
    let (app, _, _, mut tokens) = world.family().await;
    for round in 0..ROUNDS {
        let replies = all_at_once(&world, |caller| {
            let (op, via) = way(Op::REFRESHES, caller + round);
            let who = if caller % 5 == 0 { Who::bearer(&tokens.access) } else { app.who() };
            (via, refresh(op, &tokens.refresh).by(who))
        });
        let given: Vec<_> = replies.await.iter().map(Reply::tokens).collect();
        let end = claims(&given[0].access)["exp"].clone();
        for other in &given {
            assert_eq!(other.refresh, given[0].refresh, "round {round}: one successor, byte for byte");
            assert_eq!(claims(&other.access)["exp"], end, "round {round}: one generation has one end");
        }
        for other in [&given[0], &given[CALLERS / 2], &given[CALLERS - 1]] {
            assert!(world.is_valid(&app, &other.access).await, "round {round}");
        }
        assert_ne!(given[0].refresh, tokens.refresh);
        tokens = given[0].clone();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_a_code_raced_by_its_app_and_by_another_goes_to_its_app() {
    let world = Arc::new(World::shared().await);
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    let other = world.app().await;
    for round in 0..5 {
        let code = world.code(&app, Who::ticket(&ticket)).await;
        let replies = all_at_once(&world, |caller| {
            let (op, via) = way(Op::EXCHANGES, caller);
            (via, exchange(op, if caller == round * 7 { &app } else { &other }, &code))
        });
        let (won, lost): (Vec<Reply>, Vec<Reply>) = replies.await.into_iter().partition(Reply::is_ok);
        assert_eq!(won.len(), 1, "round {round}");
        for reply in &lost {
            reply.refused(Case::Grant);
        }
        assert!(world.is_valid(&app, &won[0].tokens().access).await, "round {round}: the other app's tries end nothing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a36_a_sign_out_raced_by_refreshes_leaves_no_token_alive() {
    let world = Arc::new(World::shared().await);
    let app = world.app().await;
    for round in 0..5 {
        let (_, ticket) = world.signed_in().await;
        let tokens = world.tokens(&app, &ticket).await;
        let replies = all_at_once(&world, |caller| {
            let (op, via) = way(Op::REFRESHES, caller);
            if caller == 32 {
                (via, Call::new(Op::SignOut).by(Who::ticket(&ticket)))
            } else {
                (via, refresh(op, &tokens.refresh).by(app.who()))
            }
        });
        for reply in replies.await {
            if !reply.is_ok() {
                reply.refused(Case::Grant);
            } else if reply.op != Op::SignOut {
                let late = reply.tokens();
                assert!(!world.is_valid(&app, &late.access).await, "round {round}: a token outlived its session");
                world.call(Via::Native, &refresh(Op::TokenV2, &late.refresh).by(app.who())).await.refused(Case::Grant);
            }
        }
    }
}
