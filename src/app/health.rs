//! Whether the service is well: what it says to health checkers is what it found out by trying.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{core::Core, grpc};

/// How often the store is tried.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// How long the store may take to write one record.
const TRY_LIMIT: Duration = Duration::from_secs(2);

/// What health checkers are told.
#[derive(Clone, Debug)]
pub(super) struct Health {
    reporter: HealthReporter,
    ready: Arc<AtomicBool>,
    services: Arc<[&'static str]>,
}

impl Health {
    /// Not well, until it has been tried.
    pub(super) async fn new(admin: bool) -> Self {
        let mut services = vec![""];
        services.extend(grpc::SERVICES);
        if admin {
            services.extend(grpc::admin::SERVICES);
        }
        let health = Self { reporter: HealthReporter::new(), ready: Arc::default(), services: services.into() };
        health.tell(false).await;
        health
    }

    pub(super) fn reporter(&self) -> HealthReporter {
        self.reporter.clone()
    }

    /// Whether everything is well.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    async fn tell(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
        metrics::gauge!("supos_auth_ready").set(if ready { 1.0 } else { 0.0 });
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in self.services.iter() {
            self.reporter.set_service_status(*service, status).await;
        }
    }

    /// Tries the store and the keys again and again.
    pub(super) async fn watch(self, core: Arc<Core>) {
        let mut tick = interval(TRY_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                // Once it has been said, the next try tells when it is over.
                () = core.store.stalled(), if self.is_ready() => {}
            }
            let probe = async {
                tokio::select! {
                    biased;
                    () = core.store.stalled() => Some("the disk does not answer".to_owned()),
                    probed = timeout(TRY_LIMIT, core.store.probe()) => match probed {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(_) => Some(format!("a write takes longer than {} s", TRY_LIMIT.as_secs())),
                    },
                }
            };
            let store = probe.await;
            let keys = (!core.issuer.keys().can_sign(core.now())).then(|| "there is no key to sign with".to_owned());
            let fault = store.or(keys);
            let ready = fault.is_none();
            if ready != self.is_ready() {
                match fault {
                    Some(fault) => tracing::error!("not ready: {fault}"),
                    None => tracing::info!("ready"),
                }
                self.tell(ready).await;
            }
        }
    }

    /// Says to everybody that the service stops, and ends what watches it.
    pub(super) async fn stop(&mut self) {
        self.tell(false).await;
        for service in self.services.iter() {
            self.reporter.clear_service_status(service).await;
        }
    }
}
