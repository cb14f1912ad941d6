//! How cost grows with the number of live sessions.

use std::{path::Path, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    Failure, chart,
    child::{disk, memory},
    client::{Call, Place},
    closed::{self, Script, Window},
    machine::{Machine, Progress},
    population::Population,
    report::{Figures, Spread, float, mib, table, time},
    scripts,
    stage::{Ceiling, Service},
    targets::{self, Target},
};

/// How many sessions there are, one run after the other.
pub(crate) const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
const CALLERS: usize = 32;
/// How many tokens are asked about in turn: as many as the smallest store has sessions, so that it is the same work everywhere.
const TOKENS: usize = SIZES[0];
/// How many calls a second are made ready of those that work once.
const ONCE_A_SECOND: usize = 15_000;
/// What a store may keep in memory however many sessions there are, in bytes.
const CACHE: u64 = 64 * 1024 * 1024;

/// What was found with one number of sessions.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Size {
    pub(crate) sessions: usize,
    filled_in_s: f64,
    /// The empty method, measured beside the others.
    ceiling: Figures,
    /// The same tokens again and again, of sessions from everywhere.
    pub(crate) seen: Figures,
    /// A new token with each call, of sessions from everywhere.
    pub(crate) never_seen: Figures,
    /// One refresh of each session, from everywhere.
    pub(crate) refresh: Figures,
    /// Calls of each for each call of the ceiling in the same round.
    seen_ratio: Spread,
    never_seen_ratio: Spread,
    refresh_ratio: Spread,
    /// Bytes on the disk in new files, which is what compaction makes, and after all calls.
    disk_new: u64,
    disk: u64,
    /// Bytes of memory right after the start, and after everything.
    memory_at_first: u64,
    memory: u64,
    ready_after_a_stop_s: f64,
    ready_after_a_kill_s: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    machine: Machine,
    rounds: usize,
    seconds_each: f64,
    pub(crate) sizes: Vec<Size>,
    targets: Vec<Target>,
}

/// Measures with each number of sessions.
pub(crate) async fn run(
    server: &Path,
    stores: &Path,
    folder: &Path,
    machine: Machine,
    (rounds, window): (usize, Window),
    sizes: &[usize],
    progress: &Progress,
) -> Result<Growth, Failure> {
    let mut found = Vec::new();
    for &sessions in sizes {
        let population = Population::prepare(server, stores, sessions, progress).await?;
        let folder = folder.join(sessions.to_string());
        std::fs::create_dir_all(&folder)?;
        found.push(one(server, &folder, &population, rounds, window, progress).await?);
        std::fs::remove_dir_all(&folder)?;
    }
    let targets = judge(&found);
    Ok(Growth { machine, rounds, seconds_each: window.measured.as_secs_f64(), sizes: found, targets })
}

/// New tokens for calls that work once, of sessions from everywhere.
fn new_calls(population: &Population, window: Window) -> Result<Vec<Call>, Failure> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some ten thousand")]
    let number = (window.warm + window.measured).as_secs_f64().ceil() as usize * ONCE_A_SECOND;
    let sessions: Vec<usize> = population.some(number).into_iter().cycle().take(number).collect();
    population.access_tokens(&sessions)?.iter().map(|token| scripts::valid(token, token)).collect()
}

async fn one(
    server: &Path,
    folder: &Path,
    population: &Population,
    rounds: usize,
    window: Window,
    progress: &Progress,
) -> Result<Size, Failure> {
    let sessions = population.sessions;
    let say = |what: &str| progress.show(&format!("{sessions} sessions: {what}"));
    say("starting the processes");
    let ceiling = Ceiling::start(folder).await?;
    population.copy_to(&folder.join("data"))?;
    let key = population.master_key_file();
    let start = || Service::start(server, folder, &key, &[]);
    let service = start().await?;
    let memory_at_first = memory(service.id());
    let tokens = population.access_tokens(&population.some(TOKENS))?;
    let seen: Arc<[Call]> = tokens.iter().map(|token| scripts::valid(token, token)).collect::<Result<_, _>>()?;
    let empty: Arc<[Call]> = [scripts::empty()].into();
    // Each round refreshes others, for as long as there are any: a family is refreshed for the first time once.
    let first_refreshes = scripts::first_refreshes(population, &population.some(rounds * ONCE_A_SECOND))?;
    let mut first_refreshes: Vec<Vec<Call>> = first_refreshes.chunks(first_refreshes.len() / rounds).map(<[Call]>::to_vec).collect();

    let native = Place::Grpc(service.grpc);
    let run = async |place: &Place, script: Vec<Box<dyn Script>>, process: u32| {
        let measured = closed::run(place, script, window, &[process]).await?;
        if measured.calls == 0 { Err(Failure::from("no call was answered")) } else { Ok(measured) }
    };
    let long = Window { warm: Duration::ZERO, measured: Duration::from_mins(5) };
    closed::run(&native, scripts::once(seen.to_vec(), CALLERS, scripts::says_valid), long, &[]).await?;
    let (mut empties, mut seens, mut nevers, mut refreshes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        say(&format!("round {} of {rounds}", round + 1));
        let on_ceiling = scripts::again(&empty, CALLERS, scripts::is_empty);
        empties.push(run(&Place::Grpc(ceiling.grpc), on_ceiling, ceiling.id()).await?);
        seens.push(run(&native, scripts::again(&seen, CALLERS, scripts::says_valid), service.id()).await?);
        let never = scripts::once(new_calls(population, window)?, CALLERS, scripts::says_valid);
        nevers.push(run(&native, never, service.id()).await?);
        let refresh = scripts::once(first_refreshes.pop().unwrap_or_default(), CALLERS, scripts::is_anything);
        let warm = Window { warm: Duration::ZERO, ..window };
        refreshes.push(closed::run(&native, refresh, warm, &[service.id()]).await?);
    }
    say("stopping and starting");
    let memory_now = memory(service.id());
    service.terminate().await?;
    let disk = disk(&folder.join("data"));
    let service = start().await?;
    let ready_after_a_stop_s = service.ready_after.as_secs_f64();
    // It is killed while it writes.
    let families = scripts::Families::new(scripts::families(population, &(0..CALLERS).collect::<Vec<_>>())?.into());
    let place = Place::Grpc(service.grpc);
    let writing = closed::Background::start(&place, scripts::refreshing(&families, CALLERS, false)).await?;
    sleep(Duration::from_secs(1)).await;
    service.kill();
    writing.stop().await;
    let service = start().await?;
    let ready_after_a_kill_s = service.ready_after.as_secs_f64();
    service.terminate().await?;

    let figures = |name, all: &[closed::Measured]| Figures::named(name, CALLERS, &all.iter().collect::<Vec<_>>());
    let rate = |measured: &closed::Measured| float(measured.calls) / measured.seconds;
    let of_ceiling = |all: &[closed::Measured]| Spread::of(all.iter().zip(&empties).map(|(one, empty)| rate(one) / rate(empty)));
    Ok(Size {
        sessions,
        filled_in_s: population.seconds,
        seen_ratio: of_ceiling(&seens),
        never_seen_ratio: of_ceiling(&nevers),
        refresh_ratio: of_ceiling(&refreshes),
        ceiling: figures("empty method", &empties),
        seen: figures("validity, seen before", &seens),
        never_seen: figures("validity, never seen", &nevers),
        refresh: figures("refresh, once a session", &refreshes),
        disk_new: population.disk(),
        disk,
        memory_at_first,
        memory: memory_now,
        ready_after_a_stop_s,
        ready_after_a_kill_s,
    })
}

/// Bytes a session beyond what the smallest store has.
fn per_session(size: &Size, least: &Size, bytes: impl Fn(&Size) -> u64, fixed: u64) -> f64 {
    let more = float(bytes(size)) - float(bytes(least)) - float(fixed);
    more.max(0.0) / float((size.sessions - least.sessions) as u64)
}

fn judge(sizes: &[Size]) -> Vec<Target> {
    let [least, .., most] = sizes else { return Vec::new() };
    let name = |what: &str| format!("{} sessions: {what}", most.sessions);
    // What the machine did meanwhile shows in the ceiling as well.
    let times = |what: &str, ratio: fn(&Size) -> &Spread| {
        let what = format!("{what}: time of a call beside its ceiling, for what it is with {}", least.sessions);
        Target::at_most(&name(&what), 1.25, ratio(least).median / ratio(most).median)
    };
    vec![
        times("validity, seen before", |size| &size.seen_ratio),
        times("validity, never seen", |size| &size.never_seen_ratio),
        times("refresh, once a session", |size| &size.refresh_ratio),
        Target::at_most(&name("bytes of disk a session, in new files"), 600.0, per_session(most, least, |size| size.disk_new, 0)),
        Target::at_most(&name("bytes of memory a session, beyond 64 MiB"), 400.0, per_session(most, least, |size| size.memory, CACHE)),
        Target::at_most(&name("seconds to be ready after a stop"), 2.0, most.ready_after_a_stop_s),
        Target::at_most(&name("seconds to be ready after a kill"), 10.0, most.ready_after_a_kill_s),
    ]
}

impl Growth {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut header = vec![String::new()];
        header.extend(self.sizes.iter().map(|size| format!("{} sessions", size.sessions)));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut table = table(&header);
        let least = &self.sizes[0];
        let mut add = |name: &str, value: &dyn Fn(&Size) -> String| {
            let values = self.sizes.iter().map(value);
            table.add_row(std::iter::once(name.to_owned()).chain(values));
        };
        let a_call =
            |figures: &Figures| format!("{} ({:.0}/s)", time(1e6 / figures.calls_per_second.median), figures.calls_per_second.median);
        add("empty method: time for each call", &|size| a_call(&size.ceiling));
        add("validity, seen before", &|size| a_call(&size.seen));
        add("validity, never seen", &|size| a_call(&size.never_seen));
        add("refresh, once a session", &|size| a_call(&size.refresh));
        add("validity, seen before: p99", &|size| time(size.seen.p99_us));
        add("validity, seen before: of its ceiling", &|size| format!("{:.2}", size.seen_ratio.median));
        add("validity, never seen: of its ceiling", &|size| format!("{:.2}", size.never_seen_ratio.median));
        add("refresh, once a session: of its ceiling", &|size| format!("{:.2}", size.refresh_ratio.median));
        add("disk, new files", &|size| format!("{:.1} MiB", mib(size.disk_new)));
        add("disk after all calls", &|size| format!("{:.1} MiB", mib(size.disk)));
        add("disk, a session more, in new files", &|size| {
            if size.sessions == least.sessions {
                String::new()
            } else {
                format!("{:.0} bytes", per_session(size, least, |size| size.disk_new, 0))
            }
        });
        add("memory after the start", &|size| format!("{:.0} MiB", mib(size.memory_at_first)));
        add("memory after all calls", &|size| format!("{:.0} MiB", mib(size.memory)));
        add("memory, a session more", &|size| {
            if size.sessions == least.sessions {
                String::new()
            } else {
                format!("{:.0} bytes", per_session(size, least, |size| size.memory, 0))
            }
        });
        add("ready after a stop", &|size| time(size.ready_after_a_stop_s * 1e6));
        add("ready after a kill", &|size| time(size.ready_after_a_kill_s * 1e6));
        add("filled in", &|size| time(size.filled_in_s * 1e6));
        let how = format!("{CALLERS} callers, {} rounds of {} s for each kind of call.", self.rounds, self.seconds_each);
        [self.machine.markdown(), how, table.to_string(), targets::markdown(&self.targets)].join("\n\n")
    }

    /// As a plot.
    pub(crate) fn svg(&self) -> String {
        let line = |name: &'static str, figures: fn(&Size) -> &Figures| chart::Line {
            name,
            points: self.sizes.iter().map(|size| (float(size.sessions as u64), 1e6 / figures(size).calls_per_second.median)).collect(),
        };
        let lines = [
            line("refresh, once a session", |size| &size.refresh),
            line("validity, never seen", |size| &size.never_seen),
            line("validity, seen before", |size| &size.seen),
            line("empty method", |size| &size.ceiling),
        ];
        chart::draw("Time for each call, in µs", "live sessions", &lines)
    }
}
