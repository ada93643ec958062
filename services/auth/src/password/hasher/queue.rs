//! The jobs that wait for a hashing thread, and what becomes of each when its turn comes.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::HashingError;
use crate::{
    metrics::HashingMetrics,
    password::{Password, PasswordHash, PasswordHasher, Verdict},
};

/// Something to compute, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    task: Task,
    deadline: Option<Instant>,
    queued: Instant,
}

/// What to compute, and for whom.
#[derive(Debug)]
pub(super) enum Task {
    Hash { password: Password, reply: oneshot::Sender<Result<PasswordHash, HashingError>> },
    Verify { password: Password, hash: PasswordHash, reply: oneshot::Sender<Result<Verdict, HashingError>> },
}

impl Job {
    pub(super) fn new(task: Task, deadline: Option<Instant>) -> Self {
        Self { task, deadline, queued: Instant::now() }
    }

    /// Does the work, unless nobody can use it any more. Whoever has gone does not hear the answer.
    pub(super) fn run(self, hasher: &mut PasswordHasher, metrics: &HashingMetrics) {
        let started = Instant::now();
        metrics.waited(started - self.queued);
        if self.task.caller_is_gone() {
            metrics.caller_gone();
            return;
        }
        if self.deadline.is_some_and(|deadline| deadline <= started) {
            metrics.deadline_passed();
            self.task.refuse(HashingError::DeadlinePassed);
            return;
        }
        match self.task {
            Task::Hash { password, reply } => {
                let hash = hasher.hash(&password);
                metrics.hashed(started.elapsed());
                drop(reply.send(hash.map_err(HashingError::from)));
            }
            Task::Verify { password, hash, reply } => {
                let verdict = hasher.verify(&password, &hash);
                metrics.hashed(started.elapsed());
                drop(reply.send(verdict.map_err(HashingError::from)));
            }
        }
    }
}

impl Task {
    fn caller_is_gone(&self) -> bool {
        match self {
            Self::Hash { reply, .. } => reply.is_closed(),
            Self::Verify { reply, .. } => reply.is_closed(),
        }
    }

    fn refuse(self, error: HashingError) {
        match self {
            Self::Hash { reply, .. } => drop(reply.send(Err(error))),
            Self::Verify { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// The jobs that wait.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
    capacity: usize,
    pub(super) metrics: HashingMetrics,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

/// What a thread finds at the queue.
pub(super) enum Turn {
    Job(Job),
    NothingForLong,
    Closed,
}

impl Queue {
    pub(super) fn new(capacity: usize, metrics: HashingMetrics) -> Self {
        Self { state: Mutex::default(), work: Condvar::new(), capacity, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two lines that change it, so that a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, job: Job) -> Result<(), HashingError> {
        let state = self.lock();
        if state.closed {
            return Err(HashingError::Stopped);
        }
        if state.jobs.len() >= self.capacity {
            self.metrics.queue_full();
            return Err(HashingError::QueueFull);
        }
        self.accept(state, job);
        Ok(())
    }

    /// Takes a job only if a thread is free for it.
    pub(super) fn push_if_idle(&self, job: Job) -> Result<bool, HashingError> {
        let state = self.lock();
        if state.closed {
            return Err(HashingError::Stopped);
        }
        if state.jobs.len() >= state.idle {
            return Ok(false);
        }
        self.accept(state, job);
        Ok(true)
    }

    fn accept(&self, mut state: MutexGuard<'_, State>, job: Job) {
        state.jobs.push_back(job);
        self.metrics.queued(state.jobs.len());
        let somebody_waits = state.idle > 0;
        drop(state);
        if somebody_waits {
            self.work.notify_one();
        }
    }

    /// Waits for a job, or only so long.
    pub(super) fn next(&self, patience: Option<Duration>) -> Turn {
        let mut state = self.lock();
        let mut out_of_patience = false;
        loop {
            if state.closed {
                return Turn::Closed;
            }
            if let Some(job) = state.jobs.pop_front() {
                self.metrics.queued(state.jobs.len());
                return Turn::Job(job);
            }
            if out_of_patience {
                return Turn::NothingForLong;
            }
            state.idle += 1;
            state = match patience {
                None => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let (state, wait) = self.work.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
                    out_of_patience = wait.timed_out();
                    state
                }
            };
            state.idle -= 1;
        }
    }

    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.jobs);
        self.metrics.queued(0);
        drop(state);
        self.work.notify_all();
        for job in left {
            job.task.refuse(HashingError::Stopped);
        }
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::telemetry::Metrics;

    use super::*;
    use crate::password::Cost;

    const CHEAP: Cost = Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
    const SOON: Duration = Duration::from_secs(20);

    type Answer<T> = oneshot::Receiver<Result<T, HashingError>>;

    /// A queue that no thread serves, so that a test decides when each job has its turn.
    struct Bench {
        queue: Queue,
        hasher: PasswordHasher,
        metrics: Metrics,
    }

    impl Bench {
        fn new(capacity: usize) -> Self {
            let metrics = Metrics::default();
            let queue = Queue::new(capacity, HashingMetrics::new(&metrics));
            Self { queue, hasher: PasswordHasher::new(CHEAP).unwrap(), metrics }
        }

        fn push(&self, deadline: Option<Instant>) -> Result<Answer<PasswordHash>, HashingError> {
            let (reply, answer) = oneshot::channel();
            self.queue.push(Job::new(Task::Hash { password: password("secret"), reply }, deadline))?;
            Ok(answer)
        }

        fn run_one(&mut self) {
            match self.queue.next(Some(Duration::ZERO)) {
                Turn::Job(job) => job.run(&mut self.hasher, &self.queue.metrics),
                Turn::NothingForLong | Turn::Closed => panic!("no job waits"),
            }
        }

        fn counts(&self, line: &str) -> bool {
            self.metrics.render().lines().any(|found| found == line)
        }
    }

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    #[test]
    fn a_full_queue_turns_the_next_job_away_until_one_is_done() {
        let mut bench = Bench::new(2);
        let mut first = bench.push(None).unwrap();
        let _second = bench.push(None).unwrap();
        assert!(matches!(bench.push(None), Err(HashingError::QueueFull)));
        assert!(bench.counts("drystone_hashing_queue_jobs 2"));
        assert!(bench.counts("drystone_hashing_dropped_total{why=\"queue_full\"} 1"));

        bench.run_one();
        assert!(first.try_recv().unwrap().is_ok());
        assert!(bench.push(None).is_ok());
    }

    #[test]
    fn a_job_whose_deadline_has_passed_is_not_hashed() {
        let mut bench = Bench::new(2);
        let mut late = bench.push(Some(Instant::now())).unwrap();
        let mut early = bench.push(Some(Instant::now() + SOON)).unwrap();

        bench.run_one();
        assert!(matches!(late.try_recv().unwrap(), Err(HashingError::DeadlinePassed)));
        assert!(bench.counts("drystone_hashing_seconds_count 0"));
        assert!(bench.counts("drystone_hashing_dropped_total{why=\"deadline_passed\"} 1"));

        bench.run_one();
        assert!(early.try_recv().unwrap().is_ok());
        assert!(bench.counts("drystone_hashing_seconds_count 1"));
    }

    #[test]
    fn a_job_whose_caller_has_gone_is_not_hashed() {
        let mut bench = Bench::new(1);
        drop(bench.push(None).unwrap());
        bench.run_one();
        assert!(bench.counts("drystone_hashing_seconds_count 0"));
        assert!(bench.counts("drystone_hashing_dropped_total{why=\"caller_gone\"} 1"));
        assert!(bench.counts("drystone_hashing_queue_jobs 0"));
    }

    #[test]
    fn a_job_for_idle_threads_is_not_taken_while_there_are_none() {
        let bench = Bench::new(8);
        let (reply, _answer) = oneshot::channel();
        let job = Job::new(Task::Hash { password: password("secret"), reply }, None);
        assert!(!bench.queue.push_if_idle(job).unwrap());
        assert!(bench.counts("drystone_hashing_queue_jobs 0"));
    }

    #[test]
    fn a_thread_without_work_hears_that_it_has_waited_for_long() {
        let bench = Bench::new(1);
        assert!(matches!(bench.queue.next(Some(Duration::from_millis(1))), Turn::NothingForLong));
    }

    #[test]
    fn a_queue_that_is_closed_answers_those_who_wait_and_takes_no_more() {
        let bench = Bench::new(2);
        let mut waiting = bench.push(None).unwrap();
        bench.queue.close();
        assert!(matches!(waiting.try_recv().unwrap(), Err(HashingError::Stopped)));
        assert!(matches!(bench.push(None), Err(HashingError::Stopped)));
        assert!(matches!(bench.queue.next(None), Turn::Closed));
    }
}
