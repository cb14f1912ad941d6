//! What a failover would lose: commits that the primary does not wait for a standby with.

use std::sync::atomic::{AtomicBool, Ordering};

use super::database::{Columns, Txn};

/// Whether something copies what this server writes, and no commit waits for it. Whoever may not see more of the copies sees their number.
const AT_RISK: &str = "SELECT current_setting('synchronous_standby_names') = '' AND EXISTS (SELECT 1 FROM pg_stat_replication)";

/// What was seen of the standbys last.
#[derive(Debug, Default)]
pub(super) struct Standbys {
    at_risk: AtomicBool,
}

impl Standbys {
    /// Looks, and says so in a metric, and in the log when it has come to be so. A database that does not know such things is passed over.
    pub(super) async fn look(&self, database: &Txn<'_>) {
        let Ok(Some(row)) = database.query_opt(AT_RISK, &[]).await else { return };
        let Ok(at_risk) = Columns::of(&row).next::<bool>() else { return };
        metrics::gauge!("supos_auth_database_failover_loses").set(f64::from(u8::from(at_risk)));
        if at_risk && !self.at_risk.swap(at_risk, Ordering::Relaxed) {
            tracing::warn!(
                "the database has standbys and waits for none of them (synchronous_standby_names): after a failover, what was revoked may be \
                 good again"
            );
        }
        self.at_risk.store(at_risk, Ordering::Relaxed);
    }
}
