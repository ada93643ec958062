//! Removes orphans: credentials whose account never came to be.
//!
//! A registration that breaks off half-way can leave one behind. It lets nobody in, and a repetition of the
//! registration goes on from it; but most are never repeated. So a credential is pending until its account is known to
//! be there, and once it has been pending for an hour the user service is asked. Credentials that are not pending are
//! never looked at: what becomes of an account later is not for a sweep to judge.

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

use crate::{error::Error, store::AuthStore, upstreams::Upstreams};

/// How long after the start the first sweep comes: the other services start at the same time.
pub const FIRST: Duration = Duration::from_mins(1);

/// How often.
const PERIOD: Duration = Duration::from_hours(1);

/// How long a registration may be at work: far longer than the deadline of any call.
const AGE: Duration = Duration::from_hours(1);

/// How many credentials are read at once.
const BATCH: u32 = 100;

/// How long the user service has to answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Sweeps.
pub struct OrphanSweep {
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// Where the credentials are.
    pub store: AuthStore,
    /// The time.
    pub clock: Clock,
}

impl OrphanSweep {
    /// Sweeps until `stop`, for the first time after `first`.
    pub async fn run(self, first: Duration, stop: CancellationToken) {
        let mut period = interval_at(tokio::time::Instant::now() + first, PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sweeping = async {
            loop {
                period.tick().await;
                if let Err(error) = self.sweep().await {
                    warn!(cause = %Chain(&error), "credentials without an account could not be swept");
                }
            }
        };
        // Each step is whole by itself, so that it can be left between any two.
        stop.run_until_cancelled(sweeping).await;
    }

    /// Removes the orphans of today.
    ///
    /// # Errors
    /// The store fails, or the user service is away. What has been swept until then stays swept.
    pub async fn sweep(&self) -> Result<(), Error> {
        let until = self.clock.now() - AGE;
        loop {
            let batch = self.store.pending_credentials(until, BATCH).await?;
            for user_id in &batch {
                self.settle(*user_id, until).await?;
            }
            // None of these comes again: each has been confirmed or removed, or is pending as of now.
            if batch.len() < BATCH as usize {
                return Ok(());
            }
        }
    }

    async fn settle(&self, user_id: Uuid, until: Timestamp) -> Result<(), Error> {
        let call = Call::background(Some(Instant::now() + LOOKUP_TIMEOUT));
        if self.upstreams.account_by_id(&call, user_id).await?.is_some() {
            self.store.confirm_credential(user_id).await?;
        } else if self.store.delete_pending_credential(user_id, until).await? {
            info!(%user_id, "credential without an account removed");
        }
        Ok(())
    }
}
