//! What a failover would lose: commits that the primary does not wait for a standby with.

use std::sync::atomic::{AtomicBool, Ordering};

use super::database::{Columns, Txn};

/// Whether no commit waits for a standby, and whether something copies the server as it is, all databases of it, and goes on doing so. This much of the
/// copies everybody may see.
const STANDBYS: &str = "SELECT current_setting('synchronous_standby_names') = '', EXISTS (SELECT 1 FROM pg_stat_replication r \
                        JOIN pg_stat_activity a ON a.pid = r.pid WHERE a.datid IS NULL AND a.application_name <> 'pg_basebackup')";

/// What was seen of the standbys so far.
#[derive(Debug, Default)]
pub(super) struct Standbys {
    /// There was one. One that is not connected falls behind, and may be promoted all the same.
    seen: AtomicBool,
    at_risk: AtomicBool,
}

impl Standbys {
    /// Looks, and says so in a metric, and in the log when it has come to be so. A database that does not know such things is passed over.
    pub(super) async fn look(&self, database: &Txn<'_>) {
        let Ok(Some(row)) = database.query_opt(STANDBYS, &[]).await else { return };
        let mut columns = Columns::of(&row);
        let (Ok(waits_for_none), Ok(has_one)) = (columns.next::<bool>(), columns.next::<bool>()) else { return };
        let at_risk = waits_for_none && (self.seen.fetch_or(has_one, Ordering::Relaxed) || has_one);
        metrics::gauge!("supos_auth_database_failover_loses").set(f64::from(u8::from(at_risk)));
        if !self.at_risk.swap(at_risk, Ordering::Relaxed) && at_risk {
            tracing::warn!(
                "the database has standbys and waits for none of them (synchronous_standby_names): after a failover, what was revoked may be \
                 good again"
            );
        }
    }
}
