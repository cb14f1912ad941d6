//! The process is killed again and again while clients work.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    dice::{Dice, rounds},
    harness::{Pair, Setup, World},
    record,
};

/// The service alone, for calls over gRPC, which issues what another start of it takes, wherever that listens. A refresh token that was replaced gives its successor for longer than a restart takes.
pub(crate) fn setup() -> Setup {
    let public_url = Some("http://auth.invalid".to_owned());
    Setup { alone: true, public_url, ..Setup::default() }.argument("--refresh-grace", "300").argument("--disk-timeout", "4")
}

pub(crate) fn kill(process: u32) {
    Command::new("kill").args(["-KILL", &process.to_string()]).status().expect("kill");
}

async fn everything_told_holds(kills: u64) {
    const WRITERS: usize = 8;
    let mut dice = Dice::new();
    let mut world = Arc::new(World::own(setup()).await);
    let mut writers = record::writers(&world, WRITERS, &mut dice).await;
    let mut slowest = Duration::ZERO;
    for round in 0..kills {
        // sled's own flusher sleeps for 500 ms.
        let delay = Duration::from_millis(dice.roll(700));
        let process = world.service_id();
        writers = record::work(&world, writers, async move |mut heard| {
            heard.recv().await.expect("an answer");
            tokio::time::sleep(delay).await;
            kill(process);
        })
        .await;
        let mut own = Arc::into_inner(world).expect("the writers are done");
        let begun = Instant::now();
        own.restart(Pair::kill);
        slowest = slowest.max(begun.elapsed());
        world = Arc::new(own);
        writers = record::check(&world, writers, round + 1 == kills).await;
    }
    let answers: usize = writers.iter().map(|writer| writer.answers).sum();
    println!("{kills} kills, {answers} answers that hold, ready after {} ms at the most", slowest.as_millis());
    assert!(answers > WRITERS, "somebody has worked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c1_what_clients_were_told_holds_however_often_the_service_is_killed() {
    everything_told_holds(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: 250 kills"]
async fn c1_what_clients_were_told_holds_after_hundreds_of_kills() {
    everything_told_holds(rounds(250)).await;
}
