//! Logs and metrics.

mod lines;
mod meters;

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use self::lines::Lines;
pub use self::{
    lines::LogGuard,
    meters::{count_call, count_deprecated, count_undated},
};
use crate::config::LogFormat;

/// The upper bounds of the buckets that durations are counted in, in seconds.
const DURATIONS: [f64; 12] = [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

/// How often samples are made into counts. Until then each takes memory.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Makes samples into counts, for ever.
pub async fn keep_up(metrics: PrometheusHandle) {
    let mut tick = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tick.tick().await;
        metrics.run_upkeep();
    }
}

/// Begins to log, and to count. What is logged last is written when the guard is dropped.
///
/// # Errors
/// When the filter is malformed, or it was done before.
pub fn begin(format: LogFormat, filter: &str) -> Result<(PrometheusHandle, LogGuard), Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log: {error}"))?;
    let (lines, guard) = Lines::to(std::io::stderr())?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()?,
        LogFormat::Json => log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()?,
    }
    let recorder = PrometheusBuilder::new().set_buckets(&DURATIONS)?.install_recorder()?;
    metrics::describe_counter!("supos_auth_requests_total", "Calls that were answered, by operation and outcome");
    metrics::describe_histogram!("supos_auth_request_duration_seconds", metrics::Unit::Seconds, "How long calls took, by operation");
    metrics::describe_counter!("supos_auth_purged_records_total", "Records that were looked at because their time may have come");
    metrics::describe_gauge!(
        "supos_auth_purge_overdue_seconds",
        metrics::Unit::Seconds,
        "How long the oldest expired record waits to be removed"
    );
    metrics::describe_gauge!("supos_auth_store_bytes", "Disk space that the embedded store takes");
    metrics::describe_counter!("supos_auth_store_compactions_total", "How often the embedded store has moved to new files");
    metrics::describe_counter!("supos_auth_store_given_back_bytes_total", "Disk space that moving to new files has given back");
    metrics::describe_counter!("supos_auth_deprecated_calls_total", "Calls of deprecated operations, by operation and app");
    metrics::describe_counter!("supos_auth_undated_signatures_total", "Signatures that were taken without a date, by app");
    metrics::describe_counter!("supos_auth_refused_signatures_total", "Signatures that were refused, by reason");
    metrics::describe_gauge!("supos_auth_logouts_owed", "Calls that are owed to apps because a session has ended");
    metrics::describe_counter!(
        "supos_auth_logout_calls_total",
        "Calls that tell apps of a sign-out, by app and outcome: delivered, failed (and tried again), given_up"
    );
    metrics::describe_gauge!("supos_auth_database_connections", "Connections to the database, in use and idle");
    metrics::describe_gauge!("supos_auth_database_waiting", "Calls that wait for a connection to the database");
    metrics::describe_counter!("supos_auth_database_pool_exhausted_total", "Calls that waited for a connection in vain");
    metrics::describe_counter!("supos_auth_database_lock_timeouts_total", "Calls that waited in vain for what somebody else had locked");
    metrics::describe_counter!("supos_auth_database_retries_total", "Steps that the database undid and that were run again, by its code");
    metrics::describe_gauge!(
        "supos_auth_database_failover_loses",
        "Whether the database has standbys, or had one since the start, that no commit waits for: 1, or 0"
    );
    metrics::describe_gauge!("supos_auth_ready", "Whether the service is ready: 1, or 0");
    Ok((recorder, guard))
}
