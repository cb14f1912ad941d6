//! What is wanted, and whether it is reached.

use serde::Serialize;

use crate::{
    report::{Compared, mib, table},
    rounds::{AtRest, What},
};

/// Something that is wanted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    name: String,
    wanted: String,
    found: f64,
    reached: bool,
}

impl Target {
    pub(crate) fn at_least(name: &str, wanted: f64, found: f64) -> Self {
        Self { name: name.to_owned(), wanted: format!(">= {wanted}"), found, reached: found >= wanted }
    }

    pub(crate) fn at_most(name: &str, wanted: f64, found: f64) -> Self {
        Self { name: name.to_owned(), wanted: format!("<= {wanted}"), found, reached: found <= wanted }
    }
}

/// The targets as a table.
pub(crate) fn markdown(targets: &[Target]) -> String {
    let mut table = table(&["target", "wanted", "found", "reached"]);
    for target in targets {
        let reached = if target.reached { "yes" } else { "no" };
        table.add_row([target.name.clone(), target.wanted.clone(), format!("{:.2}", target.found), reached.to_owned()]);
    }
    table.to_string()
}

/// The shares of the ceiling that are wanted.
const SHARES: [(What, f64); 9] = [
    (What::Valid, 0.75),
    (What::ValidByService, 0.75),
    (What::ValidNeverSeen, 0.20),
    (What::Refresh, 0.20),
    (What::RefreshOfMany, 0.20),
    (What::Exchange, 0.15),
    (What::SignIn, 0.90),
    (What::ValidThroughEnvoy, 0.85),
    (What::RefreshThroughEnvoy, 0.50),
];

/// What the main run says of the targets that it has measured.
pub(crate) fn of_run(compared: &[Compared], at_rest: &AtRest) -> Vec<Target> {
    let find = |what: What| compared.iter().find(|compared| compared.what == what);
    let mut targets = Vec::new();
    for (what, share) in SHARES {
        let Some(compared) = find(what) else { continue };
        let name = format!("{}, {} callers: share of its ceiling", what.name(), what.callers());
        targets.push(Target::at_least(&name, share, compared.ratio.median));
    }
    for what in [What::Refresh, What::RefreshOfMany] {
        let Some(compared) = find(what) else { continue };
        let name = format!("{}, {} callers: p99 for each p50", what.name(), what.callers());
        targets.push(Target::at_most(&name, 4.0, compared.operation.p99_us / compared.operation.p50_us));
    }
    if let Some(compared) = find(What::ValidOnEdgeSigned) {
        targets.push(Target::at_most("what Sign adds to a call: µs of processor time", 5.0, compared.more_cpu_us.median));
    }
    if let Some(compared) = find(What::ValidWhileSignIns) {
        let times = compared.operation.p99_us / compared.ceiling.p99_us;
        targets.push(Target::at_most("p99 of validity while sign-ins are queued, for what it is without", 3.0, times));
    }
    if let Some(ratio) = find(What::EmptyThroughEnvoy).and_then(|compared| compared.envoy_cpu_ratio) {
        let name = "processor time of Envoy, for what it takes with transcoder and router alone";
        targets.push(Target::at_most(name, 1.25, ratio.median));
    }
    targets.push(Target::at_most("memory on an empty store: MB", 40.0, mib(at_rest.memory) * 1.048_576));
    targets.push(Target::at_most("size of the program: MB", 25.0, mib(at_rest.program) * 1.048_576));
    targets.push(Target::at_most("ready on an empty store: ms", 150.0, at_rest.ready_after * 1e3));
    targets
}
