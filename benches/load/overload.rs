//! More calls than can be served: an open loop, whose calls come when they are due, whether those before were answered or not.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, uri::PathAndQuery};
use prost::bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{client::Grpc, transport::Channel};

use crate::{
    Failure,
    client::{Call, Connection, Outcome, Place},
    closed::{self, Script, Window, histogram, nanos},
    machine::{Machine, Progress},
    population::{Population, USERS},
    report::{float, table, time},
    scripts::{self, Families},
    stage::Service,
    targets::{self, Target},
};

/// How much more is offered than can be served.
const TIMES: f64 = 4.0;
/// How many calls may wait for their answers. Beyond that the generator has none to give, which is counted.
const OUTSTANDING: usize = 4096;
/// Enough of them that the service's limit of streams for each does not keep calls waiting here.
const CONNECTIONS: usize = 32;
const CALLERS: usize = 32;
/// How many tokens are asked about in turn.
const TOKENS: usize = 10_000;
/// How long a trial of a rate takes, and what is measured after the overload.
const TRIAL: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(4);
/// The shares of what the closed loop has reached that are tried. Where none will do, the last one has to.
const SHARES: [f64; 6] = [1.0, 0.85, 0.7, 0.55, 0.4, 0.25];
/// The pieces of time whose p99 says whether all is as usual again, and from how many times the usual p99 on it is not.
const PIECE: Duration = Duration::from_millis(100);
const UNUSUAL: f64 = 3.0;
/// So many pieces in a row say that it is.
const A_WHILE: usize = 5;
/// How often health is asked for, and for how long it may take.
const HEALTH_EVERY: Duration = Duration::from_millis(100);
const HEALTH_WITHIN: Duration = Duration::from_secs(1);

/// What is overloaded.
#[derive(Clone, Copy, Debug)]
enum What {
    Valid,
    Refresh,
    SignIn,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Valid => "validity, seen before",
            Self::Refresh => "refresh (durable)",
            Self::SignIn => "sign in (durable)",
        }
    }

    /// What p99 has to stay below for a rate to be one that can be served.
    const fn bearable(self) -> Duration {
        match self {
            Self::Valid | Self::Refresh => Duration::from_millis(100),
            Self::SignIn => Duration::from_secs(1),
        }
    }
}

/// How a call ended that was due at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Accepted,
    Shed,
    Failed,
    /// It was not made, because too many waited.
    NotMade,
}

/// A call: when it was due, from the beginning on, and when it had ended after that.
#[derive(Clone, Copy, Debug)]
struct Made {
    due: Duration,
    took: Duration,
    ended: Ended,
}

/// Calls that were offered.
struct Offered {
    made: Vec<Made>,
    problem: Option<String>,
}

/// Offers calls at one rate after the other, each for its time.
async fn offer(shared: &[Grpc<Channel>], calls: &mut dyn Iterator<Item = Call>, rates: &[(f64, Duration)]) -> Result<Offered, Failure> {
    let made = Arc::new(Mutex::new((Vec::new(), None)));
    let places = Arc::new(Semaphore::new(OUTSTANDING));
    let mut tasks = JoinSet::new();
    let mut tick = interval(Duration::from_millis(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut connections = shared.iter().cycle();
    let starts = rates.iter().scan(Duration::ZERO, |start, (_, duration)| Some(std::mem::replace(start, *start + *duration)));
    let mut schedule = starts.zip(rates).flat_map(|(start, &(rate, duration))| {
        (0_u32..)
            .map(move |at| Duration::from_secs_f64(f64::from(at) / rate))
            .take_while(move |due| *due < duration)
            .map(move |due| start + due)
    });
    let began = Instant::now();
    let mut next = schedule.next();
    while let Some(due) = next {
        if due > began.elapsed() {
            tick.tick().await;
            while tasks.try_join_next().is_some() {}
            continue;
        }
        next = schedule.next();
        let call = calls.next().ok_or("there are no calls left: give it more --sessions, or fewer --seconds")?;
        let note = {
            let made = Arc::clone(&made);
            move |ended, problem: Option<String>| {
                let took = (began + due).elapsed();
                let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
                made.0.push(Made { due, took, ended });
                made.1 = made.1.take().or(problem);
            }
        };
        let (Ok(place), Some(connection)) = (Arc::clone(&places).try_acquire_owned(), connections.next()) else {
            note(Ended::NotMade, None);
            continue;
        };
        let mut connection = Connection::Grpc(connection.clone());
        tasks.spawn(async move {
            let (ended, problem) = match connection.call(call).await {
                Outcome::Answered(_) => (Ended::Accepted, None),
                Outcome::Shed => (Ended::Shed, None),
                Outcome::Failed(problem) => (Ended::Failed, Some(problem)),
            };
            drop(place);
            note(ended, problem);
        });
    }
    while tasks.join_next().await.is_some() {}
    let (made, problem) = std::mem::take(&mut *made.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Offered { made, problem })
}

impl Offered {
    fn count(&self, ended: Ended) -> u64 {
        self.made.iter().filter(|made| made.ended == ended).count() as u64
    }

    /// How many were accepted, and answered before that.
    fn accepted_within(&self, end: Duration) -> u64 {
        self.made.iter().filter(|made| made.ended == Ended::Accepted && made.due + made.took < end).count() as u64
    }

    /// What was due before and from then on.
    fn split(self, at: Duration) -> (Self, Self) {
        let (before, after) = self.made.into_iter().partition(|made| made.due < at);
        (Self { made: before, problem: self.problem }, Self { made: after, problem: None })
    }

    /// A quantile of how long accepted calls took from when they were due, in microseconds.
    fn quantile(&self, quantile: f64) -> f64 {
        let mut latencies = histogram();
        for made in self.made.iter().filter(|made| made.ended == Ended::Accepted) {
            // It grows as it has to, so it cannot fail.
            let _ = latencies.record(nanos(made.took));
        }
        float(latencies.value_at_quantile(quantile)) / 1e3
    }

    fn p99(&self) -> f64 {
        self.quantile(0.99)
    }

    /// When all was as usual again: from when on it was so for a while, or after all of it.
    fn usual_after(&self, usual_p99: f64) -> f64 {
        let mut pieces: BTreeMap<u128, Vec<&Made>> = BTreeMap::new();
        for made in &self.made {
            pieces.entry(made.due.as_millis() / PIECE.as_millis()).or_default().push(made);
        }
        let is_usual = |made: &Vec<&Made>| {
            let mut latencies = histogram();
            for made in made {
                let _ = latencies.record(nanos(made.took));
            }
            let p99 = float(latencies.value_at_quantile(0.99)) / 1e3;
            made.iter().all(|made| made.ended == Ended::Accepted) && p99 <= UNUSUAL * usual_p99
        };
        let usual: Vec<bool> = pieces.values().map(is_usual).collect();
        let began = usual.windows(A_WHILE).position(|pieces| pieces.iter().all(|usual| *usual));
        let pieces = u32::try_from(began.unwrap_or(usual.len())).unwrap_or(u32::MAX);
        (PIECE * pieces).as_secs_f64()
    }
}

/// Whether health was answered while something went on.
#[derive(Clone, Debug, Default, Serialize)]
struct Health {
    asked: u64,
    answered: u64,
    slowest_ms: f64,
}

/// Asks for health for ever.
async fn watch_health(mut connection: Connection, health: Arc<Mutex<Health>>) {
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let call = Call { path, headers: HeaderMap::new(), body: Bytes::new() };
    loop {
        let began = Instant::now();
        let answered =
            matches!(timeout(HEALTH_WITHIN, connection.call(call.clone())).await, Ok(Outcome::Answered(answer)) if *answer == [8, 1]);
        let took = began.elapsed();
        {
            let mut health = health.lock().unwrap_or_else(PoisonError::into_inner);
            health.asked += 1;
            health.answered += u64::from(answered);
            health.slowest_ms = health.slowest_ms.max(took.as_secs_f64() * 1e3);
        }
        sleep(HEALTH_EVERY.saturating_sub(took)).await;
    }
}

/// What was found of one operation.
#[derive(Clone, Debug, Serialize)]
struct Overloaded {
    operation: &'static str,
    closed_loop_per_second: f64,
    sustainable_per_second: f64,
    usual_p50_us: f64,
    usual_p99_us: f64,
    offered_per_second: f64,
    accepted_per_second: f64,
    shed_per_second: f64,
    failed: u64,
    a_failure: Option<String>,
    not_made_per_second: f64,
    accepted_p50_us: f64,
    accepted_p99_us: f64,
    usual_again_after_s: f64,
    health: Health,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Overload {
    machine: Machine,
    seconds: f64,
    operations: Vec<Overloaded>,
    targets: Vec<Target>,
}

/// Overloads each operation in turn.
pub(crate) async fn run(
    server: &Path,
    folder: &Path,
    population: &Population,
    machine: Machine,
    duration: Duration,
    progress: &Progress,
) -> Result<Overload, Failure> {
    let mut operations = Vec::new();
    for what in [What::Valid, What::Refresh, What::SignIn] {
        let folder = folder.join(format!("{what:?}"));
        std::fs::create_dir_all(&folder)?;
        population.copy_to(&folder.join("data"))?;
        let service = Service::start(server, &folder, &population.master_key_file(), &[]).await?;
        operations.push(one(what, &service, population, duration, progress).await?);
        service.terminate().await?;
    }
    let targets = operations.iter().flat_map(judge).collect();
    Ok(Overload { machine, seconds: duration.as_secs_f64(), operations, targets })
}

async fn one(
    what: What,
    service: &Service,
    population: &Population,
    duration: Duration,
    progress: &Progress,
) -> Result<Overloaded, Failure> {
    let native = Place::Grpc(service.grpc);
    let shared = native.share(CONNECTIONS).await?;
    let say = |what_now: &str| progress.show(&format!("{}: {what_now}", what.name()));
    say("making tokens");
    let (closed_scripts, mut calls) = prepare(what, population)?;
    if let What::Valid = what {
        say("showing the tokens");
        let all = calls.by_ref().take(TOKENS).collect();
        let long = Window { warm: Duration::ZERO, measured: Duration::from_mins(5) };
        closed::run(&native, scripts::once(all, CALLERS, scripts::says_valid), long, &[]).await?;
    }
    say("what a closed loop reaches");
    let window = Window { warm: Duration::from_millis(300), measured: TRIAL };
    let measured = closed::run(&native, closed_scripts, window, &[]).await?;
    let reached = float(measured.calls) / measured.seconds;

    let mut sustainable = reached;
    let mut usual = None;
    for share in SHARES {
        sustainable = share * reached;
        say(&format!("trying {sustainable:.0} calls a second"));
        let offered = offer(&shared, &mut calls, &[(sustainable, TRIAL)]).await?;
        let all = offered.made.iter().all(|made| made.ended == Ended::Accepted);
        let bearable = all && offered.p99() <= what.bearable().as_secs_f64() * 1e6;
        usual = Some(offered);
        if bearable {
            break;
        }
        // What still waits is not the next trial's.
        sleep(Duration::from_millis(500)).await;
    }
    let usual = usual.ok_or("no rate was tried")?;

    say(&format!("offering {:.0} calls a second", TIMES * sustainable));
    let health = Arc::new(Mutex::new(Health::default()));
    let rates = [(TIMES * sustainable, duration), (sustainable / 2.0, AFTER)];
    let mut watching = JoinSet::new();
    watching.spawn(watch_health(native.connect(1).await?.remove(0), Arc::clone(&health)));
    let offered = offer(&shared, &mut calls, &rates).await?;
    watching.shutdown().await;
    let (overloaded, after) = offered.split(duration);
    let a_second = |calls: u64| float(calls) / duration.as_secs_f64();
    Ok(Overloaded {
        operation: what.name(),
        closed_loop_per_second: reached,
        sustainable_per_second: sustainable,
        usual_p50_us: usual.quantile(0.5),
        usual_p99_us: usual.p99(),
        offered_per_second: a_second(overloaded.made.len() as u64),
        accepted_per_second: a_second(overloaded.accepted_within(duration)),
        shed_per_second: a_second(overloaded.count(Ended::Shed)),
        failed: overloaded.count(Ended::Failed),
        not_made_per_second: a_second(overloaded.count(Ended::NotMade)),
        accepted_p50_us: overloaded.quantile(0.5),
        accepted_p99_us: overloaded.p99(),
        a_failure: overloaded.problem,
        usual_again_after_s: after.usual_after(usual.p99()),
        health: health.lock().unwrap_or_else(PoisonError::into_inner).clone(),
    })
}

/// What a closed loop says, and the calls of the open one.
type Prepared<'a> = (Vec<Box<dyn Script>>, Box<dyn Iterator<Item = Call> + Send + 'a>);

fn prepare(what: What, population: &Population) -> Result<Prepared<'_>, Failure> {
    Ok(match what {
        What::Valid => {
            let tokens = population.access_tokens(&population.some(TOKENS))?;
            let calls: Arc<[Call]> = tokens.iter().map(|token| scripts::valid(token, token)).collect::<Result<_, _>>()?;
            let all = Arc::clone(&calls);
            let open = (0..all.len()).cycle().map(move |at| all[at].clone());
            (scripts::again(&calls, CALLERS, scripts::says_valid), Box::new(open))
        }
        What::Refresh => {
            let sessions: Vec<usize> = (0..population.sessions).collect();
            let (closed, open) = sessions.split_at(4 * CALLERS);
            let families = Families::new(scripts::families(population, closed)?.into());
            let open = scripts::families(population, open)?.into_iter().filter_map(|family| family.call(false).ok());
            (scripts::refreshing(&families, 4 * CALLERS, false), Box::new(open))
        }
        What::SignIn => {
            let calls: Arc<[Call]> = (0..USERS).map(scripts::sign_in).collect();
            let open = (0..USERS).cycle().map(scripts::sign_in);
            (scripts::again(&calls, CALLERS, scripts::is_anything), Box::new(open))
        }
    })
}

fn judge(found: &Overloaded) -> Vec<Target> {
    let name = |what: &str| format!("{} at {TIMES} times what can be served: {what}", found.operation);
    vec![
        Target::at_least(&name("accepted a second, for what can be served"), 0.8, found.accepted_per_second / found.sustainable_per_second),
        Target::at_most(&name("p99 of what was accepted: s"), 1.0, found.accepted_p99_us / 1e6),
        Target::at_most(&name("calls that failed otherwise than by being turned away"), 0.0, float(found.failed)),
        Target::at_least(
            &name("share of health checks answered within 1 s"),
            1.0,
            float(found.health.answered) / float(found.health.asked),
        ),
        Target::at_most(&name("as usual again after: s"), 1.0, found.usual_again_after_s),
    ]
}

impl Overload {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut table = table(&[
            "operation",
            "can be served",
            "offered",
            "accepted",
            "turned away",
            "not made",
            "failed",
            "usual p50",
            "usual p99",
            "p50 of accepted",
            "p99 of accepted",
            "health answered",
            "slowest",
            "as usual after",
        ]);
        for found in &self.operations {
            table.add_row([
                found.operation.to_owned(),
                format!("{:.0}/s", found.sustainable_per_second),
                format!("{:.0}/s", found.offered_per_second),
                format!("{:.0}/s", found.accepted_per_second),
                format!("{:.0}/s", found.shed_per_second),
                format!("{:.0}/s", found.not_made_per_second),
                found.failed.to_string(),
                time(found.usual_p50_us),
                time(found.usual_p99_us),
                time(found.accepted_p50_us),
                time(found.accepted_p99_us),
                format!("{} of {}", found.health.answered, found.health.asked),
                format!("{:.0} ms", found.health.slowest_ms),
                format!("{:.1} s", found.usual_again_after_s),
            ]);
        }
        let how = format!(
            "{TIMES} times what can be served, for {} s; at most {OUTSTANDING} calls wait for their answers, those beyond are not made. Times are \
             from when a call was due.",
            self.seconds
        );
        [self.machine.markdown(), how, table.to_string(), targets::markdown(&self.targets)].join("\n\n")
    }
}
