//! Delivers messages: leases deliveries that are due, attempts them, and records what has become of them.
//!
//! Several instances share one queue. A delivery is leased to one of them at a time; what an instance had leased when it was killed is
//! attempted again when the lease has ended. An attempt begins early in its lease and takes less than what is left of it. A delivery
//! whose attempt was recorded as successful is never attempted again; between the receiver's answer and that record a kill can cause a
//! second attempt, with the same id, by which a receiver can tell.

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
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::attempt::Attempts;
use self::lanes::{Lanes, Permit};
use crate::{
    Error,
    channel::{Channel, SendError},
    message::Job,
    metrics::DeliveryMetrics,
    store::{NotificationStore, Outcome},
};

/// How long a delivery is leased. A killed instance holds it up for so long.
pub(crate) const LEASE: TimeDelta = TimeDelta::seconds(60);

/// How long after its lease an attempt may begin, and how long it may take: together less than the lease, since the clocks of instances
/// differ.
const MAX_WAIT: TimeDelta = TimeDelta::seconds(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(40);

/// How often a delivery is leased without an attempt that ends: it may kill the process.
pub(crate) const MAX_LEASES: u32 = 20;

/// How often deliveries are looked for that another instance has accepted, or whose time has come.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long attempts may take after the stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The bounds of the delay after a failure, which doubles.
const MIN_DELAY: TimeDelta = TimeDelta::seconds(5);
const MAX_DELAY: TimeDelta = TimeDelta::hours(1);

/// The delay of what something of this service has to be mended for.
const NOT_READY_DELAY: TimeDelta = TimeDelta::seconds(30);

/// The maximum length of a stored error in bytes.
const MAX_ERROR_LENGTH: usize = 512;

/// What is delivered over one channel.
#[derive(Debug, Clone)]
pub(crate) struct ChannelOptions {
    pub(crate) channel: Channel,
    /// How many attempts are made at once.
    pub(crate) max_in_flight: usize,
    /// The rate of one lane, and what counts it.
    pub(crate) per_minute: u32,
    pub(crate) limit: Limit,
}

/// What the dispatcher needs.
pub(crate) struct DispatcherOptions {
    pub(crate) store: NotificationStore,
    pub(crate) attempts: Attempts,
    pub(crate) clock: Clock,
    pub(crate) metrics: DeliveryMetrics,
    pub(crate) channels: Vec<ChannelOptions>,
    pub(crate) max_attempts: u32,
}

/// Delivers the messages of one database. Clones share it.
#[derive(Clone)]
pub(crate) struct Dispatcher(Arc<Inner>);

struct Inner {
    store: NotificationStore,
    attempts: Arc<Attempts>,
    clock: Clock,
    metrics: DeliveryMetrics,
    queues: Vec<Queue>,
    max_attempts: u32,
    stop: CancellationToken,
}

/// The deliveries of one channel.
struct Queue {
    options: ChannelOptions,
    in_flight: Arc<Semaphore>,
    lanes: Mutex<Lanes>,
    wake: Notify,
}

impl Queue {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dispatcher {
    pub(crate) fn new(options: DispatcherOptions, stop: CancellationToken) -> Self {
        let DispatcherOptions { store, attempts, clock, metrics, channels, max_attempts } = options;
        let queues = channels.into_iter().map(|options| Queue {
            in_flight: Arc::new(Semaphore::new(options.max_in_flight)),
            lanes: Mutex::new(Lanes::new(options.max_in_flight)),
            wake: Notify::new(),
            options,
        });
        let queues = queues.collect();
        Self(Arc::new(Inner { store, attempts: Arc::new(attempts), clock, metrics, queues, max_attempts, stop }))
    }

    /// Messages were accepted: looks for them at once.
    pub(crate) fn wake(&self) {
        self.0.queues.iter().for_each(|queue| queue.wake.notify_one());
    }

    /// Delivers what this process has to itself: an SQLite file has one process, and leases in it are those of a killed one.
    pub(crate) async fn take_over(self) -> Self {
        if let Err(error) = self.0.store.release_file(self.0.clock.now()).await {
            tracing::warn!(cause = %Chain(&error), "leases of a killed process were not ended; they end by themselves");
        }
        self
    }

    /// Delivers until the stop, and then waits for the attempts that have begun.
    pub(crate) async fn run(self) {
        let mut running = JoinSet::new();
        for number in 0..self.0.queues.len() {
            running.spawn(Arc::clone(&self.0).deliver(number));
        }
        while running.join_next().await.is_some() {}
    }

    /// Attempts what is due, once. For tests.
    #[cfg(test)]
    pub(crate) async fn run_once(&self) -> usize {
        let mut count = 0;
        for number in 0..self.0.queues.len() {
            let mut jobs = JoinSet::new();
            loop {
                let leased = self.0.round(number, &mut jobs).await.expect("deliveries are leased");
                count += leased;
                while let Some(job) = jobs.join_next().await {
                    job.expect("an attempt does not panic");
                }
                if leased == 0 {
                    break;
                }
            }
        }
        count
    }
}

impl Inner {
    /// Delivers the messages of one channel.
    async fn deliver(self: Arc<Self>, number: usize) {
        let Some(queue) = self.queues.get(number) else { return };
        let mut jobs = JoinSet::new();
        while !self.stop.is_cancelled() {
            let leased = self.round(number, &mut jobs).await.unwrap_or_else(|error| {
                tracing::warn!(cause = %Chain(&error), "deliveries could not be leased; they will be");
                0
            });
            tokio::select! {
                () = self.stop.cancelled() => {}
                // As many were leased as there are free permits: there may be more.
                Some(ended) = jobs.join_next(), if leased > 0 || queue.in_flight.available_permits() == 0 => report(ended),
                () = queue.wake.notified() => {}
                () = tokio::time::sleep(POLL_INTERVAL) => {}
            }
            while let Some(ended) = jobs.try_join_next() {
                report(ended);
            }
        }
        let drained = timeout(DRAIN_TIMEOUT, async { while jobs.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            // Their leases end by themselves: whether they have sent something is not known.
            jobs.shutdown().await;
        }
    }

    /// Leases as many deliveries as there are free permits, and begins to attempt them. Returns how many.
    async fn round(self: &Arc<Self>, number: usize, jobs: &mut JoinSet<()>) -> Result<usize, Error> {
        let Some(queue) = self.queues.get(number) else { return Ok(0) };
        let (channel, free, now) = (queue.options.channel, queue.in_flight.available_permits(), self.clock.now());
        // An idle dispatcher only reads.
        if free == 0 || !self.store.has_due(channel, now).await? {
            return Ok(0);
        }
        let lease = Uuid::now_v7();
        let leased = self.store.lease(lease, channel, now, now + LEASE, free).await?;
        let count = leased.len();
        for job in leased {
            let this = Arc::clone(self);
            // There are as many as were free, and nobody else takes them.
            let permit = Arc::clone(&queue.in_flight).try_acquire_owned().ok();
            jobs.spawn(async move { this.settle(number, job, lease, now, permit).await });
        }
        Ok(count)
    }

    /// Attempts a delivery, and records what has become of it.
    async fn settle(
        self: Arc<Self>,
        number: usize,
        job: Job,
        lease: Uuid,
        leased_at: Timestamp,
        _in_flight: Option<OwnedSemaphorePermit>,
    ) {
        let Some(queue) = self.queues.get(number) else { return };
        let job = Arc::new(job);
        let outcome = self.decide(queue, &job, leased_at).await;
        self.metrics.record(queue.options.channel, &outcome);
        match &outcome {
            Outcome::Dead { error } => {
                tracing::error!(delivery = %job.id, template = job.template, error, "message given up");
            }
            Outcome::Failed { error, .. } | Outcome::Deferred { error: Some(error), .. } => {
                let attempts = job.attempts;
                tracing::warn!(delivery = %job.id, template = job.template, attempts, error, "message not delivered; it will be");
            }
            Outcome::Delivered | Outcome::Deferred { error: None, .. } => {}
        }
        let now = self.clock.now();
        let settle = || self.store.settle(lease, &job, &outcome, now);
        // Again once: otherwise what was sent is sent again.
        let recorded = match settle().await {
            Ok(()) => Ok(()),
            Err(_) => settle().await,
        };
        if let Err(error) = recorded {
            tracing::error!(delivery = %job.id, cause = %Chain(&error), "the outcome of a delivery was not recorded");
        }
    }

    async fn decide(&self, queue: &Queue, job: &Arc<Job>, leased_at: Timestamp) -> Outcome {
        let now = self.clock.now();
        if self.stop.is_cancelled() || now - leased_at > MAX_WAIT {
            return Outcome::Deferred { next: now, error: None };
        }
        if job.expires_at <= now {
            return Outcome::Dead { error: "it was not delivered before it expired".to_owned() };
        }
        if job.leases > MAX_LEASES {
            return Outcome::Dead { error: "its attempts ended without a result; the log may say why".to_owned() };
        }
        let (channel, lane) = (queue.options.channel, job.lane.as_str());
        match queue.lanes().begin(channel, lane, now) {
            Permit::Go => {}
            Permit::Wait(next) => return Outcome::Deferred { next, error: None },
        }
        if let Some(next) = self.rate_limit(queue, lane, now).await {
            queue.lanes().cancelled(channel, lane);
            return Outcome::Deferred { next, error: None };
        }
        let started = tokio::time::Instant::now();
        let result = self.attempt(channel, Arc::clone(job)).await;
        queue.lanes().ended(channel, lane, &result, started.elapsed(), self.clock.now());
        self.outcome(job, result)
    }

    async fn attempt(&self, channel: Channel, job: Arc<Job>) -> Result<(), SendError> {
        let attempts = Arc::clone(&self.attempts);
        in_own_task(ATTEMPT_TIMEOUT, async move { attempts.attempt(channel, &job).await }).await
    }

    /// When a delivery is attempted that would exceed the rate of its lane.
    async fn rate_limit(&self, queue: &Queue, lane: &str, now: Timestamp) -> Option<Timestamp> {
        let ChannelOptions { limit, per_minute, .. } = &queue.options;
        let error = limit.check(Key::text(lane)).await.err()?;
        let wait = error.retry_delay().unwrap_or(Duration::from_secs(1));
        let wait = TimeDelta::from_std(wait).unwrap_or(TimeDelta::seconds(1));
        let interval = TimeDelta::minutes(1) / i32::try_from(*per_minute).unwrap_or(i32::MAX).max(1);
        Some(queue.lanes().next_slot(lane, now + wait, interval))
    }

    fn outcome(&self, job: &Job, result: Result<(), SendError>) -> Outcome {
        let (error, retry_after) = match result {
            Ok(()) => return Outcome::Delivered,
            Err(SendError::Permanent(error)) => return Outcome::Dead { error: shorten(&error) },
            Err(SendError::NotReady(error)) => {
                let next = self.clock.now() + NOT_READY_DELAY;
                return Outcome::Deferred { next, error: Some(shorten(&error)) };
            }
            Err(SendError::Temporary { text, retry_after }) => (text, retry_after),
            Err(SendError::Unreachable(error)) => (error, None),
        };
        if job.attempts >= self.max_attempts {
            let error = format!("given up after {} attempts: {error}", job.attempts);
            return Outcome::Dead { error: shorten(&error) };
        }
        let wait = retry_after.and_then(|wait| TimeDelta::from_std(wait).ok()).unwrap_or_default();
        let next = self.clock.now() + wait.max(delay(job.attempts));
        Outcome::Failed { error: shorten(&error), next }
    }
}

/// Runs an attempt for a bounded time, in a task of its own: what panics in it is an error like others.
async fn in_own_task(
    max_time: Duration,
    attempt: impl Future<Output = Result<(), SendError>> + Send + 'static,
) -> Result<(), SendError> {
    match tokio::spawn(timeout(max_time, attempt)).await {
        Ok(Ok(result)) => result,
        Ok(Err(_elapsed)) => Err(SendError::Unreachable(format!("no result within {max_time:?}"))),
        Err(_panicked) => Err(SendError::temporary("the attempt failed within this service; the log says where")),
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a delivery ended without an outcome; it is attempted again");
    }
}

/// As it is stored, logged and shown in terminals.
fn shorten(error: &str) -> String {
    let shown: String =
        error.chars().map(|c| if c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric() { c } else { '?' }).collect();
    drystone::status::shorten(&shown, MAX_ERROR_LENGTH).into_owned()
}

/// The delay after this many attempts: doubled each time, and shortened by up to half at random.
fn delay(attempts: u32) -> TimeDelta {
    let doubled = MIN_DELAY * 2_i32.saturating_pow(attempts.saturating_sub(1).min(20));
    doubled.min(MAX_DELAY) * fastrand::i32(50..=100) / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_or_does_not_end_fails() {
        let ended = in_own_task(Duration::MAX, async { Ok(()) }).await;
        assert!(ended.is_ok());
        let panicked = in_own_task(Duration::MAX, async { panic!("a fault of this test") }).await;
        assert!(
            matches!(&panicked, Err(SendError::Temporary { text, retry_after: None }) if text.contains("the log")),
            "{panicked:?}"
        );
        let hangs = in_own_task(Duration::from_millis(1), std::future::pending()).await;
        assert!(matches!(&hangs, Err(SendError::Unreachable(text)) if text.contains("1ms")), "{hangs:?}");
    }
}
