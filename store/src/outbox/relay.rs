//! Delivers the messages of an outbox.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::TimeDelta;
use drystone_mesh::{clock::Clock, telemetry::Metrics};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Message, Outcome,
    store::{self, Leased},
};
use crate::Db;

/// How long a message is leased. A killed instance holds it up for so long.
const LEASE: TimeDelta = TimeDelta::seconds(10);
/// How long one delivery may take, well within the lease: clocks of instances differ.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);
/// How many messages are leased at a time. They are delivered at once.
const BATCH: u32 = 32;
/// How often messages are looked for that another instance has written.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The bounds of the delay after a failure, which doubles.
const MIN_DELAY: TimeDelta = TimeDelta::milliseconds(250);
const MAX_DELAY: TimeDelta = TimeDelta::minutes(5);
/// After so many attempts, about a day, a message is a dead letter.
const MAX_ATTEMPTS: u32 = 300;
/// The maximum length of a stored error in bytes.
const MAX_ERROR_LENGTH: usize = 512;

/// Delivers a message. It may be called again with one that was delivered.
#[async_trait]
pub trait Deliver: Send + Sync + 'static {
    /// Delivers the message.
    ///
    /// # Errors
    /// [`DeliveryError`].
    async fn deliver(&self, message: &Message) -> Result<(), DeliveryError>;
}

/// Why a message was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// It is tried again.
    #[error("{0}")]
    Temporary(String),
    /// It is given up: nothing would change.
    #[error("{0}")]
    Permanent(String),
}

/// The metrics of the outbox of one service.
#[derive(Debug, Clone, Default)]
pub struct RelayMetrics {
    live: Gauge,
    lag: Gauge,
    dead: Gauge,
    delivered: Counter,
    failed: Counter,
    given_up: Counter,
}

/// Those of all services of a process.
#[derive(Clone, Default)]
struct Families {
    live: Family<ServiceLabel, Gauge>,
    lag: Family<ServiceLabel, Gauge>,
    dead: Family<ServiceLabel, Gauge>,
    attempts: Family<AttemptLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabel {
    service: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    service: &'static str,
    outcome: &'static str,
}

impl RelayMetrics {
    /// The metrics of the outbox of this service.
    #[must_use]
    pub fn new(metrics: &Metrics, service: &'static str) -> Self {
        let Families { live, lag, dead, attempts } = metrics.shared(|registry| {
            let families = Families::default();
            registry.register("drystone_outbox_messages", "Messages to be delivered", families.live.clone());
            registry.register(
                "drystone_outbox_lag_seconds",
                "Age of the oldest message to be delivered",
                families.lag.clone(),
            );
            registry.register("drystone_outbox_dead_letters", "Messages that were given up", families.dead.clone());
            registry.register(
                "drystone_outbox_deliveries",
                "Attempts to deliver messages, by outcome",
                families.attempts.clone(),
            );
            families
        });
        let label = ServiceLabel { service };
        let attempts = |outcome| attempts.get_or_create_owned(&AttemptLabels { service, outcome });
        Self {
            live: live.get_or_create_owned(&label),
            lag: lag.get_or_create_owned(&label),
            dead: dead.get_or_create_owned(&label),
            delivered: attempts("delivered"),
            failed: attempts("failed"),
            given_up: attempts("given_up"),
        }
    }
}

/// Relays the messages of one database. Clones share it.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    db: Db,
    clock: Clock,
    metrics: RelayMetrics,
    deliver: Box<dyn Deliver>,
    /// Of this instance.
    lease: Uuid,
    wake: Notify,
    /// Notified after each round.
    done: Notify,
}

impl Relay {
    /// A relay of the messages in `db`.
    #[must_use]
    pub fn new(db: Db, clock: Clock, metrics: RelayMetrics, deliver: impl Deliver) -> Self {
        let (wake, done) = (Notify::new(), Notify::new());
        Self(Arc::new(Inner { db, clock, metrics, deliver: Box::new(deliver), lease: Uuid::now_v7(), wake, done }))
    }

    /// Messages have been written: looks for them at once.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Delivers messages until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let found = match self.round().await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "messages could not be relayed; they will be");
                    0
                }
            };
            self.0.done.notify_waiters();
            if stop.is_cancelled() {
                return;
            }
            if found == 0 {
                tokio::select! {
                    () = self.0.wake.notified() => {}
                    () = tokio::time::sleep(POLL_INTERVAL) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Waits until a message is delivered or given up, for at most this time.
    ///
    /// # Errors
    /// The database fails.
    pub async fn outcome(&self, id: Uuid, max: Duration) -> sqlx::Result<Outcome> {
        let settled = async {
            loop {
                let done = self.0.done.notified();
                tokio::pin!(done);
                // Enabled before the look, so that no round is missed.
                done.as_mut().enable();
                match store::outcome(&self.0.db, id).await? {
                    Outcome::Pending => {}
                    outcome => return Ok(outcome),
                }
                self.wake();
                done.await;
            }
        };
        timeout(max, settled).await.unwrap_or(Ok(Outcome::Pending))
    }

    /// Delivers what is due. Returns how many messages that were.
    pub(super) async fn round(&self) -> sqlx::Result<usize> {
        let Inner { db, clock, lease, metrics, .. } = &*self.0;
        let mut backlog = store::backlog(db).await?;
        let mut count = 0;
        // An idle relay only reads.
        if backlog.live > 0 {
            let now = clock.now();
            let leased = store::lease(db, *lease, now, now + LEASE, BATCH).await?;
            count = leased.len();
            // Of different keys, so in any order.
            let deliveries = leased.into_iter().map(|leased| self.deliver(leased));
            for outcome in futures_util::future::join_all(deliveries).await {
                outcome?;
            }
            backlog = store::backlog(db).await?;
        }
        metrics.live.set(backlog.live);
        metrics.dead.set(backlog.dead);
        metrics.lag.set(backlog.oldest.map_or(0, |oldest| (clock.now() - oldest).num_seconds().max(0)));
        Ok(count)
    }

    async fn deliver(&self, leased: Leased) -> sqlx::Result<()> {
        let Inner { db, clock, lease, metrics, deliver, .. } = &*self.0;
        let Leased { sequence, message, attempts } = leased;
        let delivery = timeout(DELIVERY_TIMEOUT, deliver.deliver(&message)).await;
        let error = match delivery {
            Ok(Ok(())) => {
                metrics.delivered.inc();
                return store::delivered(db, *lease, sequence).await;
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => DeliveryError::Temporary(format!("no answer within {DELIVERY_TIMEOUT:?}")),
        };
        let now = clock.now();
        let is_dead = matches!(error, DeliveryError::Permanent(_)) || attempts >= MAX_ATTEMPTS;
        let text = drystone::status::shorten(&error.to_string(), MAX_ERROR_LENGTH).into_owned();
        if is_dead {
            metrics.given_up.inc();
            tracing::error!(kind = message.kind, key = message.key, id = %message.id, error = text, "message given up");
        } else {
            metrics.failed.inc();
            tracing::warn!(
                kind = message.kind,
                key = message.key,
                attempts,
                error = text,
                "message not delivered; it will be"
            );
        }
        let next = if is_dead { Err(now) } else { Ok(now + delay(attempts)) };
        store::failed(db, *lease, sequence, &text, next).await
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("lease", &self.0.lease).finish_non_exhaustive()
    }
}

/// The delay after this many attempts: doubled each time, and shortened by up to half at random.
fn delay(attempts: u32) -> TimeDelta {
    let doubled = MIN_DELAY * 2_i32.saturating_pow(attempts.saturating_sub(1).min(20));
    let full = doubled.min(MAX_DELAY);
    full * fastrand::i32(50..=100) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        for (attempts, full) in
            [(1, 250), (2, 500), (3, 1000), (10, 128_000), (11, 256_000), (12, 300_000), (u32::MAX, 300_000)]
        {
            let delay = delay(attempts).num_milliseconds();
            assert!((full / 2..=full).contains(&delay), "{attempts}: {delay}");
        }
    }
}
