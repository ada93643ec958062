//! What is done from time to time: accounts whose purge time has come are removed, old request ids forgotten, missing words of the
//! search written, and the totals of the metrics updated.

use std::time::Duration;

use drystone_mesh::{clock::Clock, error::Chain, telemetry::Metrics};
use drystone_store::request_id;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    store::{Totals, UserStore},
};

const INTERVAL: Duration = Duration::from_secs(15);

/// How long the ids of removed accounts are kept, so that nothing that goes on late creates them again.
const PURGED_LIFETIME: Duration = Duration::from_hours(24 * 30);

/// The accounts and grants of the store. Every instance has the same ones.
#[derive(Debug, Clone, Default)]
struct Gauges {
    accounts: Family<StatusLabel, Gauge>,
    grants: Family<RoleLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    role: String,
}

impl Gauges {
    fn new(metrics: &Metrics) -> Self {
        let gauges = Self::default();
        metrics.register(|registry| {
            registry.register("drystone_accounts", "Accounts, by status", gauges.accounts.clone());
            registry.register(
                "drystone_role_grants",
                "Granted roles, also expired ones; everybody has the role member without a grant",
                gauges.grants.clone(),
            );
        });
        gauges
    }

    fn set(&self, totals: &Totals) {
        for (status, amount) in &totals.by_status {
            self.accounts.get_or_create(&StatusLabel { status }).set(*amount);
        }
        // Roles that were deleted are left out.
        self.grants.clear();
        for (role, amount) in totals.by_role.iter().filter(|(_, amount)| **amount != 0) {
            self.grants.get_or_create(&RoleLabel { role: role.clone() }).set(*amount);
        }
    }
}

/// Runs until `stop`, which ends it between two transactions.
pub(crate) async fn run(store: UserStore, clock: Clock, metrics: Metrics, stop: CancellationToken) {
    let gauges = Gauges::new(&metrics);
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let rounds = async {
        loop {
            interval.tick().await;
            // Each by itself: what fails or takes long does not hold up the others for good.
            let (words, totals, purged, request_ids) = tokio::join!(
                complete_words(&store),
                update_totals(&store, &gauges),
                purge(&store, &clock),
                forget_request_ids(&store, &clock),
            );
            for outcome in [words, totals, purged, request_ids] {
                if let Err(error) = outcome {
                    tracing::warn!(cause = %Chain(&error), "housekeeping of accounts failed");
                }
            }
        }
    };
    stop.run_until_cancelled(rounds).await;
}

async fn complete_words(store: &UserStore) -> Result<(), Error> {
    let completed = store.complete_words().await?;
    if completed > 0 {
        tracing::info!(accounts = completed, "words for the search of accounts written");
    }
    Ok(())
}

async fn update_totals(store: &UserStore, gauges: &Gauges) -> Result<(), Error> {
    gauges.set(&store.totals().await?);
    Ok(())
}

async fn purge(store: &UserStore, clock: &Clock) -> Result<(), Error> {
    let purged = store.purge_due(clock.now()).await?;
    if purged > 0 {
        tracing::info!(accounts = purged, "deleted accounts removed for good");
    }
    Ok(())
}

async fn forget_request_ids(store: &UserStore, clock: &Clock) -> Result<(), Error> {
    let now = clock.now();
    request_id::forget(store.db(), now - request_id::LIFETIME).await?;
    store.forget_kept_emails(now).await?;
    store.forget_purged(now - PURGED_LIFETIME).await
}
