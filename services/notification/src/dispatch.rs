//! Delivers messages: leases deliveries that are due, attempts them, and records what has become of them.
//!
//! Several instances share one queue. A delivery is leased to one of them at a time; what an instance had leased when it was killed is
//! attempted again when the lease has ended. A delivery whose attempt was recorded as successful is never attempted again; between the
//! receiver's answer and that record a kill can cause a second attempt, with the same id, by which a receiver can tell.

mod attempt;
mod lanes;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    error::Chain,
    limit::{Key, Limit},
};
use tokio::{
    sync::{Notify, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::attempt::Attempts;
use self::lanes::{Lanes, Permit, Slot};
use crate::{
    Error,
    channel::{Channel, SendError},
    message::Job,
    metrics::DeliveryMetrics,
    store::{NotificationStore, Outcome},
};

/// How long a delivery is leased. A killed instance holds it up for so long.
pub(crate) const LEASE: TimeDelta = TimeDelta::seconds(60);

/// How long a leased delivery may wait for its turn: what is left of the lease is longer than any attempt, and the clocks of
/// instances differ.
const MAX_WAIT: TimeDelta = TimeDelta::seconds(10);

/// How many deliveries are attempted at once.
const MAX_IN_FLIGHT: usize = 64;

/// How many deliveries are leased at once.
const MAX_LEASED: usize = 256;

/// How many deliveries one round leases.
const BATCH: usize = 64;

/// How often deliveries are looked for that another instance has accepted, or whose time has come.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long attempts may take after the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds of the delay after a failure, which doubles.
const MIN_DELAY: TimeDelta = TimeDelta::seconds(5);
const MAX_DELAY: TimeDelta = TimeDelta::hours(1);

/// The maximum length of a stored error in bytes.
const MAX_ERROR_LENGTH: usize = 512;

/// What the dispatcher needs.
pub(crate) struct DispatcherOptions {
    pub(crate) store: NotificationStore,
    pub(crate) attempts: Attempts,
    pub(crate) clock: Clock,
    pub(crate) metrics: DeliveryMetrics,
    /// Of mails by domain, and of calls by webhook.
    pub(crate) limits: [(Channel, Limit, u32); 2],
    pub(crate) max_attempts: u32,
}

/// Delivers the messages of one database. Clones share it.
#[derive(Clone)]
pub(crate) struct Dispatcher(Arc<Inner>);

struct Inner {
    options: DispatcherOptions,
    /// Of this instance.
    lease: Uuid,
    wake: Notify,
    lanes: Mutex<Lanes>,
    in_flight: Semaphore,
    stop: CancellationToken,
}

impl Dispatcher {
    pub(crate) fn new(options: DispatcherOptions, stop: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            options,
            lease: Uuid::now_v7(),
            wake: Notify::new(),
            lanes: Mutex::default(),
            in_flight: Semaphore::new(MAX_IN_FLIGHT),
            stop,
        }))
    }

    /// Messages were accepted: looks for them at once.
    pub(crate) fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Delivers until the stop, and then waits for the attempts that have begun.
    pub(crate) async fn run(self) {
        let this = &self.0;
        // Nobody else has the file of SQLite: whoever had leases there was killed.
        if let Err(error) = this.options.store.release_file(this.options.clock.now()).await {
            tracing::warn!(cause = %Chain(&error), "leases of a killed process were not ended; they end by themselves");
        }
        let mut jobs = JoinSet::new();
        while !this.stop.is_cancelled() {
            let leased = self.round(&mut jobs).await.unwrap_or_else(|error| {
                tracing::warn!(cause = %Chain(&error), "deliveries could not be leased; they will be");
                0
            });
            // A full batch means that there is more.
            if leased == BATCH {
                tokio::task::yield_now().await;
                while jobs.try_join_next().is_some() {}
                if jobs.len() + BATCH <= MAX_LEASED {
                    continue;
                }
            }
            tokio::select! {
                () = this.stop.cancelled() => {}
                () = this.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                Some(_) = jobs.join_next(), if jobs.len() > BATCH / 2 => {}
            }
            while jobs.try_join_next().is_some() {}
        }
        let drained = timeout(DRAIN_TIMEOUT, async { while jobs.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            jobs.shutdown().await;
        }
        if let Err(error) = this.options.store.release(this.lease, this.options.clock.now()).await {
            tracing::warn!(cause = %Chain(&error), "leases of deliveries were not ended; they end by themselves");
        }
    }

    /// Leases what is due, and begins to attempt it. Returns how many deliveries that were.
    async fn round(&self, jobs: &mut JoinSet<()>) -> Result<usize, Error> {
        let free = MAX_LEASED.saturating_sub(jobs.len()).min(BATCH);
        let (store, now) = (&self.0.options.store, self.0.options.clock.now());
        // An idle dispatcher only reads.
        if free == 0 || !store.has_due(now).await? {
            return Ok(0);
        }
        let leased = store.lease(self.0.lease, now, now + LEASE, free).await?;
        let count = leased.len();
        for job in leased {
            let (this, lane) = (Arc::clone(&self.0), self.0.lanes().join(&job.lane));
            jobs.spawn(async move { this.settle(job, lane, now).await });
        }
        Ok(count)
    }

    /// Attempts everything that is due, once. For tests.
    #[cfg(test)]
    pub(crate) async fn run_once(&self) -> usize {
        let mut jobs = JoinSet::new();
        let count = self.round(&mut jobs).await.expect("deliveries are leased");
        while let Some(job) = jobs.join_next().await {
            job.expect("an attempt does not panic");
        }
        count
    }
}

impl Inner {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts a delivery, and records what has become of it.
    async fn settle(self: Arc<Self>, job: Job, lane: Result<Slot, TimeDelta>, leased_at: Timestamp) {
        let outcome = self.decide(&job, lane, leased_at).await;
        self.options.metrics.record(job.channel, &outcome);
        match &outcome {
            Outcome::Dead { error } => {
                tracing::error!(delivery = %job.id, template = job.template, lane = job.lane, error, "message given up");
            }
            Outcome::Failed { error, .. } => tracing::warn!(
                delivery = %job.id,
                template = job.template,
                lane = job.lane,
                attempts = job.attempts,
                error,
                "message not delivered; it will be"
            ),
            Outcome::Delivered | Outcome::Deferred { .. } => {}
        }
        let now = self.options.clock.now();
        if let Err(error) = self.options.store.settle(self.lease, &job, &outcome, now).await {
            tracing::error!(delivery = %job.id, cause = %Chain(&error), "the outcome of a delivery was not recorded");
        }
    }

    async fn decide(&self, job: &Job, lane: Result<Slot, TimeDelta>, leased_at: Timestamp) -> Outcome {
        let Some(channel) = job.channel else {
            // An instance of a later release delivers it.
            return Outcome::Deferred { next: self.options.clock.now() + MIN_DELAY };
        };
        let lane = match lane {
            Ok(lane) => lane,
            Err(wait) => return self.deferred(wait),
        };
        let (Ok(_turn), Ok(_slot)) = (lane.turn().await, self.in_flight.acquire().await) else {
            return self.deferred(TimeDelta::zero());
        };
        let now = self.options.clock.now();
        if self.stop.is_cancelled() || now - leased_at > MAX_WAIT {
            return self.deferred(TimeDelta::zero());
        }
        if job.expires_at <= now {
            return Outcome::Dead { error: "it was not delivered before it expired".to_owned() };
        }
        // Each attempt that ends counts, so that more have ended a process or a task.
        if job.attempts > self.options.max_attempts {
            return Outcome::Dead { error: "its attempts ended without a result; the log may say why".to_owned() };
        }
        match self.lanes().begin(channel, &job.lane, now) {
            Permit::Go => {}
            Permit::Wait(until) => return Outcome::Deferred { next: until },
        }
        if let Some(wait) = self.rate_limit(channel, job, now).await {
            self.lanes().cancelled(channel, &job.lane);
            return Outcome::Deferred { next: wait };
        }
        let result = self.options.attempts.attempt(channel, job).await;
        self.lanes().ended(channel, &job.lane, &result, self.options.clock.now());
        self.outcome(job, result)
    }

    fn deferred(&self, wait: TimeDelta) -> Outcome {
        Outcome::Deferred { next: self.options.clock.now() + wait }
    }

    /// When a delivery is attempted that would exceed the rate of its lane.
    async fn rate_limit(&self, channel: Channel, job: &Job, now: Timestamp) -> Option<Timestamp> {
        let (_, limit, per_minute) = self.options.limits.iter().find(|(limited, _, _)| *limited == channel)?;
        let error = limit.check(Key::text(&job.lane)).await.err()?;
        let wait = error.retry_delay().unwrap_or(Duration::from_secs(1));
        let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::seconds(1));
        let interval = TimeDelta::minutes(1) / i32::try_from(*per_minute).unwrap_or(i32::MAX).max(1);
        Some(self.lanes().next_slot(&job.lane, now + wait, interval))
    }

    fn outcome(&self, job: &Job, result: Result<(), SendError>) -> Outcome {
        let (error, retry_after) = match result {
            Ok(()) => return Outcome::Delivered,
            Err(SendError::Permanent(error)) => return Outcome::Dead { error: shorten(&error) },
            Err(SendError::Temporary { text, retry_after }) => (text, retry_after),
            Err(SendError::Unreachable(error)) => (error, None),
        };
        if job.attempts >= self.options.max_attempts {
            let error = format!("given up after {} attempts: {error}", job.attempts);
            return Outcome::Dead { error: shorten(&error) };
        }
        let wait = retry_after.and_then(|wait| TimeDelta::from_std(wait).ok()).unwrap_or_default();
        let next = self.options.clock.now() + wait.max(delay(job.attempts));
        Outcome::Failed { error: shorten(&error), next }
    }
}

fn shorten(error: &str) -> String {
    drystone::status::shorten(error, MAX_ERROR_LENGTH).into_owned()
}

/// The delay after this many attempts: doubled each time, and shortened by up to half at random.
fn delay(attempts: u32) -> TimeDelta {
    let doubled = MIN_DELAY * 2_i32.saturating_pow(attempts.saturating_sub(1).min(20));
    doubled.min(MAX_DELAY) * fastrand::i32(50..=100) / 100
}
