//! Single use, raced at several services at once.

use std::sync::Arc;

use tokio::{sync::Barrier, task::JoinSet};
use tonic::Code;

use crate::{
    harness::{Call, Case, Op, Reply, Status, Via, Who, authorize, claims, exchange, refresh, unique, valid},
    stage::Replicas,
};

const CALLERS: usize = 40;
const ROUNDS: usize = 10;
/// How many rounds G4 of the security goals asks for.
const MANY: usize = 10_000;

/// The answers to a race.
struct Race {
    replies: Vec<Reply>,
    /// How many answers were lost: a service that is too busy says so, or gives up. Who asks again may then ask for the second time.
    lost: usize,
}

impl Race {
    /// The winners, of whom there is one, and the losers. The one may be somebody whose answer was lost.
    fn winner(self) -> (Option<Reply>, Vec<Reply>) {
        let (mut won, losers): (Vec<Reply>, Vec<Reply>) = self.replies.into_iter().partition(Reply::is_ok);
        let winner = won.pop();
        assert!(won.is_empty(), "{} callers win", won.len() + 1);
        assert!(winner.is_some() || self.lost > 0, "nobody wins");
        (winner, losers)
    }
}

/// Sends one call per caller, all at the same moment, to one service after the other. Who gets no answer asks again.
async fn all_at_once(replicas: &Arc<Replicas>, is_native: bool, call: impl Fn(usize) -> Call) -> Race {
    let barrier = Arc::new(Barrier::new(CALLERS));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (replicas, barrier, call) = (Arc::clone(replicas), Arc::clone(&barrier), call(caller));
        callers.spawn(async move {
            barrier.wait().await;
            let (world, via) = if is_native { (replicas.world(caller), Via::Native) } else { replicas.way(caller) };
            let mut lost = 0;
            loop {
                let reply = world.call(via, &call).await;
                if !matches!(reply.status, Status::Http(503 | 504) | Status::Grpc(Code::Unavailable | Code::DeadlineExceeded)) {
                    return (reply, lost);
                }
                lost += 1;
                assert!(lost < 20, "no answer: {:?} {}", reply.status, reply.text);
            }
        });
    }
    let (replies, lost): (Vec<Reply>, Vec<usize>) = callers.join_all().await.into_iter().unzip();
    Race { replies, lost: lost.into_iter().sum() }
}

async fn race_for_codes(number: usize, rounds: usize) {
    let Some(replicas) = Replicas::start(number).await.map(Arc::new) else { return };
    let world = replicas.world(0);
    let (app, (_, ticket)) = (world.app().await, world.signed_in().await);
    for round in 0..rounds {
        let code = world.call(replicas.way(round).1, &authorize(Op::Authorize, &app).by(Who::ticket(&ticket))).await.text_of("code");
        let race = all_at_once(&replicas, false, |caller| exchange(Op::EXCHANGES[caller % 3], &app, &code)).await;
        let (winner, losers) = race.winner();
        for reply in &losers {
            reply.refused(Case::Grant);
        }
        // The others were second uses, so what the first got is dead, wherever one asks.
        if let Some(winner) = winner {
            assert!(!replicas.is_good(&app, &winner.tokens().access).await, "round {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_code_redeemed_at_two_services_at_once_is_given_out_once() {
    race_for_codes(2, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 10,000 rounds at three services"]
async fn g4_p1_ten_thousand_codes_raced_at_three_services_are_given_out_once_each() {
    race_for_codes(3, MANY).await;
}

async fn race_for_refresh(number: usize, rounds: usize) {
    let Some(replicas) = Replicas::start(number).await.map(Arc::new) else { return };
    let (app, _, _, mut tokens) = replicas.world(0).family().await;
    for round in 0..rounds {
        let race = all_at_once(&replicas, false, |caller| {
            let who = if caller % 5 == 0 { Who::bearer(&tokens.access) } else { app.who() };
            refresh(Op::REFRESHES[caller % 3], &tokens.refresh).by(who)
        });
        let given: Vec<_> = race.await.replies.iter().map(Reply::tokens).collect();
        for other in &given {
            assert_eq!(other.refresh, given[0].refresh, "round {round}: one successor, byte for byte");
        }
        for other in [&given[0], &given[CALLERS / 2], &given[CALLERS - 1]] {
            assert!(replicas.is_good(&app, &other.access).await, "round {round}");
            assert_eq!(claims(&other.access)["sid"], claims(&tokens.access)["sid"], "round {round}");
        }
        assert_ne!(given[0].refresh, tokens.refresh);
        tokens = given[0].clone();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_refresh_token_used_at_two_services_at_once_has_one_successor_given_to_each() {
    race_for_refresh(2, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 10,000 rounds at three services"]
async fn g4_p1_ten_thousand_refresh_tokens_raced_at_three_services_have_one_successor_each() {
    race_for_refresh(3, MANY).await;
}

async fn race_for_signatures(number: usize, rounds: usize) {
    let Some(replicas) = Replicas::start(number).await.map(Arc::new) else { return };
    let (app, _, _, tokens) = replicas.world(0).family().await;
    for round in 0..rounds {
        // Over gRPC, where each signature has a date and a nonce and works once.
        let nonce = Who::headers(vec![("x-mc-nonce", unique("raced")), ("x-mc-date", date())]);
        let call = valid(&tokens.access).by(nonce).by(app.who());
        for reply in all_at_once(&replicas, true, |_| call.clone()).await.winner().1 {
            assert_eq!(reply.check_refusal(Case::Caller), Ok(()), "round {round}");
        }
    }
}

/// The time now, as a signature has it.
fn date() -> String {
    let seconds = u64::try_from(crate::harness::now()).expect("it is after 1970");
    supos_auth::sign::date(supos_auth::core::clock::Timestamp::from_millis(seconds * 1000))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_dated_signature_used_at_two_services_at_once_is_taken_once() {
    race_for_signatures(2, ROUNDS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: 10,000 rounds at three services"]
async fn g4_p10_ten_thousand_dated_signatures_raced_at_three_services_are_taken_once_each() {
    race_for_signatures(3, MANY).await;
}
