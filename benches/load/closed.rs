//! The closed loop: so many callers, each of whom makes a call once the one before was answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use prost::bytes::Bytes;
use tokio::{task::JoinSet, time::sleep_until};

use crate::{
    Failure,
    child::{Cpu, memory},
    client::{Call, Connection, Outcome, Place},
};

/// What one caller says.
pub(crate) trait Script: Send {
    /// The next call; none when there is nothing left to say.
    fn next(&mut self) -> Option<Call>;

    /// Takes the answer of that call, and says whether it is the right one.
    fn answered(&mut self, answer: Bytes) -> bool;
}

/// How long to measure, after how long a time in which nothing is counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) warm: Duration,
    pub(crate) measured: Duration,
}

/// What was measured.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// Calls that were answered.
    pub(crate) calls: u64,
    /// Calls that were turned away.
    pub(crate) shed: u64,
    /// For how long, in seconds.
    pub(crate) seconds: f64,
    /// How long they took, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// The processor time that each process of `watched` had, in seconds.
    pub(crate) cpu: Vec<f64>,
    /// And the generator.
    pub(crate) own_cpu: f64,
    /// The bytes of memory that the first of `watched` had in the end.
    pub(crate) memory: u64,
}

/// A histogram of nanoseconds, up to a minute, to a hundredth.
pub(crate) fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(2).unwrap_or_else(|_| unreachable!("two digits are among those that there are"));
    histogram.auto(true);
    histogram
}

/// Nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

struct Tally {
    calls: u64,
    shed: u64,
    latencies: Histogram<u64>,
    last: Instant,
    ran_out: bool,
}

/// Has each script said by a caller of its own.
pub(crate) async fn run(place: &Place, scripts: Vec<Box<dyn Script>>, window: Window, watched: &[u32]) -> Result<Measured, Failure> {
    let connections = place.connect(scripts.len()).await?;
    let began = Instant::now() + window.warm;
    let ends = began + window.measured;
    let mut callers = JoinSet::new();
    for (script, connection) in scripts.into_iter().zip(connections) {
        callers.spawn(say(script, connection, began, ends));
    }
    let cpu = || (watched.iter().map(|&process| Cpu::of(process)).collect::<Vec<_>>(), Cpu::of(std::process::id()));
    sleep_until(began.into()).await;
    let (before, own_before) = cpu();

    let mut total = Tally { calls: 0, shed: 0, latencies: histogram(), last: began, ran_out: false };
    let mut after = None;
    loop {
        tokio::select! {
            () = sleep_until(ends.into()), if after.is_none() => after = Some(cpu()),
            ended = callers.join_next() => match ended {
                Some(tally) => {
                    let tally = tally??;
                    total.calls += tally.calls;
                    total.shed += tally.shed;
                    total.latencies.add(&tally.latencies)?;
                    total.last = total.last.max(tally.last);
                    total.ran_out |= tally.ran_out;
                }
                None => break,
            }
        }
    }
    let (after, own_after) = after.unwrap_or_else(cpu);
    let end = if total.ran_out { total.last.min(ends) } else { ends };
    Ok(Measured {
        calls: total.calls,
        shed: total.shed,
        seconds: (end - began).as_secs_f64(),
        latencies: total.latencies,
        cpu: after.iter().zip(&before).map(|(after, before)| after.since(before).as_secs_f64()).collect(),
        own_cpu: own_after.since(&own_before).as_secs_f64(),
        memory: watched.first().map(|&process| memory(process)).unwrap_or_default(),
    })
}

async fn say(mut script: Box<dyn Script>, mut connection: Connection, began: Instant, ends: Instant) -> Result<Tally, Failure> {
    let mut tally = Tally { calls: 0, shed: 0, latencies: histogram(), last: began, ran_out: false };
    loop {
        let Some(call) = script.next() else {
            tally.ran_out = true;
            return Ok(tally);
        };
        let sent = Instant::now();
        if sent >= ends {
            return Ok(tally);
        }
        let outcome = connection.call(call).await;
        let answered = Instant::now();
        let counts = answered >= began && answered < ends;
        match outcome {
            Outcome::Answered(answer) => {
                if !script.answered(answer) {
                    return Err("an answer is not the one that was expected".into());
                }
                if counts {
                    tally.calls += 1;
                    tally.last = answered;
                    tally.latencies.record(nanos(answered - sent))?;
                }
            }
            Outcome::Shed => tally.shed += u64::from(counts),
            Outcome::Failed(problem) => return Err(problem.into()),
        }
    }
}

/// Callers in the background, until they are stopped.
pub(crate) struct Background {
    stop: Arc<AtomicBool>,
    callers: JoinSet<()>,
}

impl Background {
    /// Has each script said again and again.
    pub(crate) async fn start(place: &Place, scripts: Vec<Box<dyn Script>>) -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut callers = JoinSet::new();
        let connections = place.connect(scripts.len()).await?;
        for (mut script, mut connection) in scripts.into_iter().zip(connections) {
            let stop = Arc::clone(&stop);
            callers.spawn(async move {
                while let Some(call) = script.next().filter(|_| !stop.load(Ordering::Relaxed)) {
                    connection.call(call).await;
                }
            });
        }
        Ok(Self { stop, callers })
    }

    /// Waits until each has had its last answer.
    pub(crate) async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.callers.join_next().await.is_some() {}
    }
}
