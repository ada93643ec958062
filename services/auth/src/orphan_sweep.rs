//! Removes orphans: credentials whose account was never created. Expired links, trust in devices and old sign-ins as well.
//!
//! An interrupted registration can leave one. It cannot be used to sign in, and a retry of the registration continues
//! from it, but most are never retried. So a credential is pending until its account is known to exist. Once it has
//! been pending for an hour, the sweep looks the account up at the user service and confirms or removes the
//! credential. Confirmed credentials are never removed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    error::Chain,
};
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    error::Error, factor::USE_RETENTION, metrics::FactorMetrics, register::confirm, sign_in_history::RETENTION,
    store::AuthStore, upstreams::Upstreams,
};

/// The delay of the first sweep: the other services start at the same time.
pub const INITIAL_DELAY: Duration = Duration::from_mins(1);

/// The time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// How long a credential must have been pending: far longer than the deadline of any call.
const MIN_PENDING_AGE: Duration = Duration::from_hours(1);

/// How many credentials are read at once.
const BATCH_SIZE: u32 = 100;

/// The deadline of a lookup at the user service.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The background job that removes orphans.
pub struct OrphanSweep {
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// The store of credentials.
    pub store: AuthStore,
    /// Source of time.
    pub clock: Clock,
    /// Has the number of users with second factors.
    pub factor_metrics: FactorMetrics,
}

impl OrphanSweep {
    /// Sweeps at intervals until `stop` is cancelled; the first time after `initial_delay`.
    pub async fn run(self, initial_delay: Duration, stop: CancellationToken) {
        let mut interval = interval_at(tokio::time::Instant::now() + initial_delay, SWEEP_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sweeps = async {
            loop {
                interval.tick().await;
                let now = self.clock.now();
                let forgotten =
                    self.store.forget_links(now).await.and(self.store.forget_sign_ins(now - RETENTION).await);
                let forgotten = forgotten.and(self.store.forget_challenges(now).await);
                let forgotten = forgotten.and(self.store.forget_factors(now).await);
                let forgotten = forgotten.and(self.store.forget_passkey_challenges(now - USE_RETENTION).await);
                let forgotten = forgotten.and(self.store.forget_trusted_devices(now).await);
                if let Err(error) = forgotten {
                    warn!(%error, "expired links, challenges, factors and trusted devices, and old sign-ins were not forgotten");
                }
                if let Err(error) = self.count_factors().await {
                    warn!(%error, "users with second factors were not counted");
                }
                if let Err(error) = self.sweep().await {
                    warn!(cause = %Chain(&error), "sweep of credentials without an account failed");
                }
            }
        };
        // Each step is atomic, so a sweep can be cancelled between any two.
        stop.run_until_cancelled(sweeps).await;
    }

    async fn count_factors(&self) -> sqlx::Result<()> {
        for (kind, users) in self.store.users_by_factor().await? {
            self.factor_metrics.set_users(kind, users);
        }
        Ok(())
    }

    /// Confirms or removes every credential that has been pending for too long.
    ///
    /// # Errors
    /// The store fails, or the user service is unavailable. Credentials processed before that stay so.
    pub async fn sweep(&self) -> Result<(), Error> {
        let cutoff = self.clock.now() - MIN_PENDING_AGE;
        loop {
            let batch = self.store.pending_credentials(cutoff, BATCH_SIZE).await?;
            for user_id in &batch {
                self.confirm_or_delete(*user_id, cutoff).await?;
            }
            // No credential is read twice: each was confirmed, deleted, or resumed after the cutoff.
            if batch.len() < BATCH_SIZE as usize {
                return Ok(());
            }
        }
    }

    async fn confirm_or_delete(&self, user_id: Uuid, cutoff: Timestamp) -> Result<(), Error> {
        let call = Call::background(Some(Instant::now() + LOOKUP_TIMEOUT));
        if self.upstreams.account_by_id(&call, user_id).await?.is_some() {
            confirm(&self.store, user_id, self.clock.now()).await?;
        } else if self.store.delete_pending_credential(user_id, cutoff).await? {
            info!(%user_id, "credential without an account removed");
        }
        Ok(())
    }
}
