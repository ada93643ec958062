//! The queue of hashing jobs, and how a thread runs a job.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use drystone_mesh::call::Client;

use super::{HashingError, JobOrigin, fair::FairQueue};
use crate::{
    metrics::HashingMetrics,
    password::{Password, PasswordHash, PasswordHasher, Verification},
};

/// How many jobs of known devices are taken in a row while others wait.
const KNOWN_IN_A_ROW: u32 = 3;

/// A queued hash or verification.
#[derive(Debug)]
pub(super) struct Job {
    task: Task,
    deadline: Option<Instant>,
    queued: Instant,
}

/// What to compute, and where to send the result.
#[derive(Debug)]
pub(super) enum Task {
    Hash { password: Password, reply: oneshot::Sender<Result<PasswordHash, HashingError>> },
    Verify { password: Password, hash: PasswordHash, reply: oneshot::Sender<Result<Verification, HashingError>> },
}

impl Job {
    pub(super) fn new(task: Task, deadline: Option<Instant>) -> Self {
        Self { task, deadline, queued: Instant::now() }
    }

    /// Computes and sends the result, unless the caller has cancelled or the deadline has passed.
    pub(super) fn run(self, hasher: &mut PasswordHasher, metrics: &HashingMetrics) {
        let started = Instant::now();
        metrics.observe_queue_wait(started - self.queued);
        if self.task.is_cancelled() {
            metrics.count_cancelled();
            return;
        }
        if self.deadline.is_some_and(|deadline| deadline <= started) {
            metrics.count_deadline_exceeded();
            self.task.fail(HashingError::DeadlineExceeded);
            return;
        }
        match self.task {
            Task::Hash { password, reply } => {
                let hash = hasher.hash(&password);
                metrics.observe_hash(started.elapsed());
                drop(reply.send(hash.map_err(HashingError::from)));
            }
            Task::Verify { password, hash, reply } => {
                let verification = hasher.verify(&password, &hash);
                metrics.observe_hash(started.elapsed());
                drop(reply.send(verification.map_err(HashingError::from)));
            }
        }
    }
}

impl Task {
    fn is_cancelled(&self) -> bool {
        match self {
            Self::Hash { reply, .. } => reply.is_closed(),
            Self::Verify { reply, .. } => reply.is_closed(),
        }
    }

    fn fail(self, error: HashingError) {
        match self {
            Self::Hash { reply, .. } => drop(reply.send(Err(error))),
            Self::Verify { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// A bounded queue of jobs.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    not_empty: Condvar,
    capacity: usize,
    pub(super) metrics: HashingMetrics,
}

#[derive(Debug, Default)]
struct State {
    /// Jobs of clients with a known device.
    known: FairQueue<Job>,
    others: FairQueue<Job>,
    /// How many jobs of known devices have been taken since the last other one.
    known_in_a_row: u32,
    /// Threads waiting for a job.
    idle: usize,
    closed: bool,
}

impl State {
    fn len(&self) -> usize {
        self.known.len() + self.others.len()
    }

    /// The next job: of a known device, but now and then of another, so that those never starve.
    fn pop(&mut self) -> Option<Job> {
        if self.known_in_a_row < KNOWN_IN_A_ROW
            && let Some(job) = self.known.pop()
        {
            self.known_in_a_row += 1;
            return Some(job);
        }
        self.known_in_a_row = 0;
        self.others.pop().or_else(|| self.known.pop())
    }

    /// Removes a job in favour of one of this origin; `None` if every client has its fair share.
    fn displace(&mut self, origin: JobOrigin) -> Option<Job> {
        let JobOrigin { client, is_known } = origin;
        let own = self.known.len_of(client) + self.others.len_of(client) + 1;
        if is_known && let Some(job) = self.others.pop_of_largest(0) {
            return Some(job);
        }
        // A client with more jobs than this one loses one, also with known devices.
        self.others.pop_of_largest(own).or_else(|| self.known.pop_of_largest(own))
    }
}

/// The result of [`Queue::next`].
pub(super) enum NextJob {
    Job(Job),
    IdleTimeout,
    Closed,
}

impl Queue {
    pub(super) fn new(capacity: usize, metrics: HashingMetrics) -> Self {
        Self { state: Mutex::default(), not_empty: Condvar::new(), capacity, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement, so a panic while it is locked leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. If the queue is full, the newest job of the client with most jobs fails instead, or this one.
    pub(super) fn push(&self, job: Job, origin: JobOrigin) -> Result<(), HashingError> {
        let mut state = self.lock();
        if state.closed {
            return Err(HashingError::Stopped);
        }
        if state.len() >= self.capacity {
            self.metrics.count_queue_full();
            let Some(displaced) = state.displace(origin) else { return Err(HashingError::QueueFull) };
            displaced.task.fail(HashingError::QueueFull);
        }
        self.enqueue(state, job, origin);
        Ok(())
    }

    /// Queues a job only if a thread is idle for it.
    pub(super) fn push_if_idle(&self, job: Job) -> Result<bool, HashingError> {
        let state = self.lock();
        if state.closed {
            return Err(HashingError::Stopped);
        }
        if state.len() >= state.idle {
            return Ok(false);
        }
        self.enqueue(state, job, JobOrigin::unknown(&Client::default()));
        Ok(true)
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, job: Job, origin: JobOrigin) {
        let JobOrigin { client, is_known } = origin;
        if is_known { &mut state.known } else { &mut state.others }.push(client, job);
        self.metrics.set_queue_length(state.len());
        let has_idle_thread = state.idle > 0;
        drop(state);
        if has_idle_thread {
            self.not_empty.notify_one();
        }
    }

    /// Waits for a job, for at most `idle_timeout`.
    pub(super) fn next(&self, idle_timeout: Option<Duration>) -> NextJob {
        let mut state = self.lock();
        let mut timed_out = false;
        loop {
            if state.closed {
                return NextJob::Closed;
            }
            if let Some(job) = state.pop() {
                self.metrics.set_queue_length(state.len());
                return NextJob::Job(job);
            }
            if timed_out {
                return NextJob::IdleTimeout;
            }
            state.idle += 1;
            state = match idle_timeout {
                None => self.not_empty.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(timeout) => {
                    let (state, wait) =
                        self.not_empty.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner);
                    timed_out = wait.timed_out();
                    state
                }
            };
            state.idle -= 1;
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let remaining = state.known.take_all().into_iter().chain(state.others.take_all());
        let remaining: Vec<Job> = remaining.collect();
        self.metrics.set_queue_length(0);
        drop(state);
        self.not_empty.notify_all();
        for job in remaining {
            job.task.fail(HashingError::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::{limit::Key, telemetry::Metrics};

    use super::*;
    use crate::password::Cost;

    const CHEAP: Cost = Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    type ResultReceiver<T> = oneshot::Receiver<Result<T, HashingError>>;

    /// A queue without threads, so that a test decides when each job runs.
    struct Fixture {
        queue: Queue,
        hasher: PasswordHasher,
        metrics: Metrics,
    }

    impl Fixture {
        fn new(capacity: usize) -> Self {
            let metrics = Metrics::default();
            let queue = Queue::new(capacity, HashingMetrics::new(&metrics));
            Self { queue, hasher: PasswordHasher::new(CHEAP).unwrap(), metrics }
        }

        fn push(&self, deadline: Option<Instant>) -> Result<ResultReceiver<PasswordHash>, HashingError> {
            let (reply, result) = oneshot::channel();
            self.queue
                .push(Job::new(Task::Hash { password: password("secret"), reply }, deadline), origin("a", false))?;
            Ok(result)
        }

        fn run_one(&mut self) {
            match self.queue.next(Some(Duration::ZERO)) {
                NextJob::Job(job) => job.run(&mut self.hasher, &self.queue.metrics),
                NextJob::IdleTimeout | NextJob::Closed => panic!("the queue is empty"),
            }
        }

        fn has_metric(&self, line: &str) -> bool {
            self.metrics.render().lines().any(|found| found == line)
        }
    }

    fn origin(client: &str, is_known: bool) -> JobOrigin {
        JobOrigin { client: Key::text(client), is_known }
    }

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[test]
    fn a_full_queue_rejects_jobs_until_one_is_done() {
        let mut fixture = Fixture::new(2);
        let mut first = fixture.push(None).unwrap();
        let _second = fixture.push(None).unwrap();
        assert!(matches!(fixture.push(None), Err(HashingError::QueueFull)));
        assert!(fixture.has_metric("drystone_password_hash_queue_length 2"));
        assert!(fixture.has_metric("drystone_password_hashes_dropped_total{reason=\"queue_full\"} 1"));

        fixture.run_one();
        assert!(first.try_recv().unwrap().is_ok());
        assert!(fixture.push(None).is_ok());
    }

    #[test]
    fn a_job_past_its_deadline_is_not_hashed() {
        let mut fixture = Fixture::new(2);
        let mut late = fixture.push(Some(Instant::now())).unwrap();
        let mut early = fixture.push(Some(Instant::now() + TEST_TIMEOUT)).unwrap();

        fixture.run_one();
        assert!(matches!(late.try_recv().unwrap(), Err(HashingError::DeadlineExceeded)));
        assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 0"));
        assert!(fixture.has_metric("drystone_password_hashes_dropped_total{reason=\"deadline_exceeded\"} 1"));

        fixture.run_one();
        assert!(early.try_recv().unwrap().is_ok());
        assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 1"));
    }

    #[test]
    fn a_cancelled_job_is_not_hashed() {
        let mut fixture = Fixture::new(1);
        drop(fixture.push(None).unwrap());
        fixture.run_one();
        assert!(fixture.has_metric("drystone_password_hash_duration_seconds_count 0"));
        assert!(fixture.has_metric("drystone_password_hashes_dropped_total{reason=\"cancelled\"} 1"));
        assert!(fixture.has_metric("drystone_password_hash_queue_length 0"));
    }

    #[test]
    fn push_if_idle_rejects_a_job_while_no_thread_is_idle() {
        let fixture = Fixture::new(8);
        let (reply, _result) = oneshot::channel();
        let job = Job::new(Task::Hash { password: password("secret"), reply }, None);
        assert!(!fixture.queue.push_if_idle(job).unwrap());
        assert!(fixture.has_metric("drystone_password_hash_queue_length 0"));
    }

    #[test]
    fn next_times_out_while_the_queue_is_empty() {
        let fixture = Fixture::new(1);
        assert!(matches!(fixture.queue.next(Some(Duration::from_millis(1))), NextJob::IdleTimeout));
    }

    #[test]
    fn closing_the_queue_fails_queued_and_new_jobs() {
        let fixture = Fixture::new(2);
        let mut waiting = fixture.push(None).unwrap();
        fixture.queue.close();
        assert!(matches!(waiting.try_recv().unwrap(), Err(HashingError::Stopped)));
        assert!(matches!(fixture.push(None), Err(HashingError::Stopped)));
        assert!(matches!(fixture.queue.next(None), NextJob::Closed));
    }

    /// Queues a job of this client; its result tells which job was run or displaced.
    fn push_of(fixture: &Fixture, client: &str, is_known: bool) -> Result<ResultReceiver<PasswordHash>, HashingError> {
        let (reply, result) = oneshot::channel();
        let job = Job::new(Task::Hash { password: password("secret"), reply }, None);
        fixture.queue.push(job, origin(client, is_known)).map(|()| result)
    }

    #[test]
    fn known_devices_are_first_and_others_do_not_starve() {
        let mut fixture = Fixture::new(64);
        let mut stranger = push_of(&fixture, "stranger", false).unwrap();
        let mut known: Vec<_> = (0..8).map(|_| push_of(&fixture, "owner", true).unwrap()).collect();
        let done = |receiver: &mut ResultReceiver<PasswordHash>| receiver.try_recv().is_ok();
        for receiver in &mut known[..3] {
            fixture.run_one();
            assert!(done(receiver));
        }
        fixture.run_one();
        assert!(done(&mut stranger), "after three known devices");
        assert!(!done(&mut known[3]));
    }

    #[test]
    fn a_full_queue_displaces_the_client_with_most_jobs() {
        let fixture = Fixture::new(4);
        let mut flood: Vec<_> = (0..4).map(|_| push_of(&fixture, "flood", false).unwrap()).collect();
        assert!(matches!(push_of(&fixture, "flood", false), Err(HashingError::QueueFull)), "not its own");
        let _one = push_of(&fixture, "honest", false).unwrap();
        let _other = push_of(&fixture, "another", false).unwrap();
        for displaced in flood.drain(2..) {
            let mut displaced = displaced;
            assert!(matches!(displaced.try_recv().unwrap(), Err(HashingError::QueueFull)));
        }
        // Everybody has a fair share now.
        assert!(matches!(push_of(&fixture, "honest", false), Err(HashingError::QueueFull)));
        // A known device displaces anybody.
        let _known: Vec<_> = (0..4).map(|_| push_of(&fixture, "owner", true).unwrap()).collect();
        assert!(matches!(push_of(&fixture, "owner", true), Err(HashingError::QueueFull)));
        assert!(fixture.has_metric("drystone_password_hash_queue_length 4"));
        // One network with many accounts does not keep others out.
        let _new = push_of(&fixture, "honest", false).unwrap();
        assert!(fixture.has_metric("drystone_password_hash_queue_length 4"));
    }
}
