//! What was found, in figures: tables for people, JSON for programs.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

use crate::{
    closed::{Measured, histogram},
    machine::Machine,
    rounds::{Found, Pair, Round, What},
    targets::Target,
};

/// The middle of several measurements, and how far they are apart.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (last, middle) = (values.len().saturating_sub(1), values.len() / 2);
        let median = if values.len().is_multiple_of(2) { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) } else { at(middle) };
        Self { median, least: at(0), most: at(last) }
    }
}

/// A whole number as one that can be divided.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, and nothing here is as much")]
pub(crate) const fn float(number: u64) -> f64 {
    number as f64
}

/// The figures of one kind of call.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) callers: usize,
    pub(crate) calls_per_second: Spread,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    /// The processor time of the process that was called, for each call.
    pub(crate) cpu_us: Spread,
    pub(crate) envoy_cpu_us: Option<Spread>,
    pub(crate) generator_cpu_us: Spread,
    /// The memory of the process that was called, after the last round.
    pub(crate) memory_mib: f64,
    pub(crate) calls: u64,
    pub(crate) shed: u64,
}

fn rate(measured: &Measured) -> f64 {
    float(measured.calls) / measured.seconds
}

fn per_call(seconds: f64, measured: &Measured) -> f64 {
    seconds * 1e6 / float(measured.calls)
}

impl Figures {
    pub(crate) fn of(what: What, all: &[&Measured]) -> Self {
        Self::named(what.name(), what.callers(), all)
    }

    pub(crate) fn named(name: &'static str, callers: usize, all: &[&Measured]) -> Self {
        let mut latencies = histogram();
        for measured in all {
            // It grows as it has to, so it cannot fail.
            let _ = latencies.add(&measured.latencies);
        }
        let quantile = |quantile| float(latencies.value_at_quantile(quantile)) / 1e3;
        let cpu = |of: usize| {
            let known = all.iter().filter_map(|measured| Some(per_call(*measured.cpu.get(of)?, measured))).collect::<Vec<_>>();
            (!known.is_empty()).then(|| Spread::of(known))
        };
        Self {
            name,
            callers,
            calls_per_second: Spread::of(all.iter().map(|measured| rate(measured))),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            cpu_us: cpu(0).unwrap_or_else(|| Spread::of([])),
            envoy_cpu_us: cpu(1),
            generator_cpu_us: Spread::of(all.iter().map(|measured| per_call(measured.own_cpu, measured))),
            memory_mib: all.last().map_or(0.0, |measured| mib(measured.memory)),
            calls: all.iter().map(|measured| measured.calls).sum(),
            shed: all.iter().map(|measured| measured.shed).sum(),
        }
    }
}

/// An operation beside its ceiling.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    #[serde(skip)]
    pub(crate) what: What,
    pub(crate) operation: Figures,
    pub(crate) ceiling: Figures,
    /// Its calls for each call of the ceiling.
    pub(crate) ratio: Spread,
    /// Its processor time beyond the ceiling's for each call.
    pub(crate) more_cpu_us: Spread,
    /// Envoy's processor time for each that the ceiling's has.
    pub(crate) envoy_cpu_ratio: Option<Spread>,
}

impl Compared {
    pub(crate) fn of(pair: &Pair) -> Self {
        let measured: Vec<&Measured> = pair.rounds.iter().map(|round| &round.measured).collect();
        let ceiling: Vec<&Measured> = pair.rounds.iter().map(|round| &round.ceiling).collect();
        let cpu = |measured: &Measured, of: usize| measured.cpu.get(of).map(|&seconds| per_call(seconds, measured));
        let spread = |of: fn(f64, f64) -> f64, value: &dyn Fn(&Measured) -> Option<f64>| {
            let each = |round: &Round| Some(of(value(&round.measured)?, value(&round.ceiling)?));
            let known: Vec<f64> = pair.rounds.iter().filter_map(each).collect();
            (!known.is_empty()).then(|| Spread::of(known))
        };
        Self {
            what: pair.what,
            ratio: spread(|ours, theirs| ours / theirs, &|measured| Some(rate(measured))).unwrap_or_else(|| Spread::of([])),
            more_cpu_us: spread(|ours, theirs| ours - theirs, &|measured| cpu(measured, 0)).unwrap_or_else(|| Spread::of([])),
            envoy_cpu_ratio: spread(|ours, theirs| ours / theirs, &|measured| cpu(measured, 1)),
            operation: Figures::of(pair.what, &measured),
            ceiling: Figures::of(pair.ceiling, &ceiling),
        }
    }
}

/// All of the main run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) sessions: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds_each: f64,
    pub(crate) settings: &'static str,
    pub(crate) compared: Vec<Compared>,
    pub(crate) ready_on_an_empty_store_s: f64,
    pub(crate) idle_memory_mib: f64,
    pub(crate) memory_mib: f64,
    pub(crate) memory_after_mib: f64,
    pub(crate) program_mib: f64,
    pub(crate) targets: Vec<Target>,
}

/// How the service was set.
const SETTINGS: &str = "as shipped: embedded store, session check, metrics, and a line in the log for each call, which is a file";

/// Bytes as MiB.
pub(crate) const fn mib(bytes: u64) -> f64 {
    float(bytes) / 1024.0 / 1024.0
}

impl Report {
    pub(crate) fn of(machine: Machine, sessions: usize, seconds_each: f64, found: &Found) -> Self {
        let compared: Vec<Compared> = found.pairs.iter().map(Compared::of).collect();
        let targets = crate::targets::of_run(&compared, &found.at_rest);
        Self {
            machine,
            sessions,
            rounds: found.pairs.first().map_or(0, |pair| pair.rounds.len()),
            seconds_each,
            settings: SETTINGS,
            compared,
            ready_on_an_empty_store_s: found.at_rest.ready_after,
            idle_memory_mib: mib(found.at_rest.memory),
            memory_mib: mib(found.memory.0),
            memory_after_mib: mib(found.memory.1),
            program_mib: mib(found.at_rest.program),
            targets,
        }
    }

    /// As Markdown, which reads well at a terminal, too.
    pub(crate) fn markdown(&self) -> String {
        let mut operations = table(&[
            "operation",
            "callers",
            "calls/s",
            "p50",
            "p99",
            "p99.9",
            "of its ceiling",
            "spread",
            "CPU a call",
            "Envoy's",
            "generator's",
            "memory",
        ]);
        for compared in &self.compared {
            operations.add_row(row(&compared.ceiling, None));
            operations.add_row(row(&compared.operation, Some(&compared.ratio)));
        }
        let sections = [
            self.machine.markdown(),
            format!(
                "{} live sessions, {} rounds of {} s each. The service: {}.",
                self.sessions, self.rounds, self.seconds_each, self.settings
            ),
            "Above each operation is its ceiling, which was measured right beside it.".to_owned(),
            operations.to_string(),
            format!(
                "Memory: {:.0} MiB on an empty store, {:.0} MiB with the sessions, {:.0} MiB after all rounds. Ready on an empty store after \
                 {:.0} ms. The program has {:.1} MiB.",
                self.idle_memory_mib,
                self.memory_mib,
                self.memory_after_mib,
                self.ready_on_an_empty_store_s * 1e3,
                self.program_mib
            ),
            crate::targets::markdown(&self.targets),
        ];
        sections.join("\n\n")
    }
}

/// A table whose first column is text and whose others are figures.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Microseconds in a unit that reads well.
pub(crate) fn time(microseconds: f64) -> String {
    match microseconds {
        none if !none.is_finite() || none <= 0.0 => String::new(),
        short if short < 1e3 => format!("{short:.0} µs"),
        long if long < 1e6 => format!("{:.1} ms", long / 1e3),
        longer => format!("{:.2} s", longer / 1e6),
    }
}

fn row(figures: &Figures, ratio: Option<&Spread>) -> Vec<String> {
    let cpu = |spread: Option<&Spread>| spread.map(|spread| time(spread.median)).unwrap_or_default();
    vec![
        figures.name.to_owned(),
        figures.callers.to_string(),
        format!("{:.0}", figures.calls_per_second.median),
        time(figures.p50_us),
        time(figures.p99_us),
        time(figures.p999_us),
        ratio.map(|ratio| format!("{:.2}", ratio.median)).unwrap_or_default(),
        ratio.map(|ratio| format!("{:.2} to {:.2}", ratio.least, ratio.most)).unwrap_or_default(),
        cpu(Some(&figures.cpu_us)),
        cpu(figures.envoy_cpu_us.as_ref()),
        cpu(Some(&figures.generator_cpu_us)),
        if figures.memory_mib > 0.0 { format!("{:.0} MiB", figures.memory_mib) } else { String::new() },
    ]
}
