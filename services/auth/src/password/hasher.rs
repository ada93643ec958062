//! The hashing pool: hashes passwords outside the async runtime, on a bounded number of threads.
//!
//! A fixed number of threads takes jobs from one bounded queue (`queue.rs`), in which clients take turns (`fair.rs`). When the
//! queue is full, the client with most jobs loses one. A job is dropped without hashing if its deadline has passed or its
//! caller has cancelled when a thread takes it.
//!
//! **Number of threads.** One per core by default: hashing is CPU-bound, and fewer threads would leave cores idle while
//! sign-ins wait. Async threads share those cores, and a call must not wait for a password: hashing threads have a lower
//! priority ([`NICENESS`]).

mod fair;
mod queue;

use std::{
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use drystone_mesh::{
    call::Client,
    limit::{Key, client_key},
};
use tokio::sync::oneshot;

use self::queue::{Job, NextJob, Queue, Task};
use crate::{
    metrics::HashingMetrics,
    password::{Cost, HashError, Password, PasswordHash, PasswordHasher, Verification},
};

/// By how much the priority of hashing threads is lower. A thread of the default priority that wakes up then takes a core from one of
/// them at once, and not after some milliseconds; where all cores are wanted, hashing still has a tenth of them. Measured on two cores
/// beside a flood of sign-ins (docs/performance.md).
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// How long an idle thread keeps its memory.
const MEMORY_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    /// The queue is full.
    #[error("the hashing queue is full")]
    QueueFull,
    /// The deadline passed while the job was queued.
    #[error("the deadline passed before the password was hashed")]
    DeadlineExceeded,
    /// The pool is shutting down.
    #[error("the hashing pool has stopped")]
    Stopped,
    /// Hashing failed.
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// The size of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolSize {
    /// Number of hashing threads.
    pub threads: NonZeroUsize,
    /// Maximum number of queued jobs.
    pub queue: usize,
}

/// Whom a job is for. Clients take turns, those with a known device first.
#[derive(Debug, Clone, Copy)]
pub struct JobOrigin {
    /// The client's address, or its network.
    pub client: Key,
    /// Whether the client has proved that its device has signed in to the account before.
    pub is_known: bool,
}

impl JobOrigin {
    /// A job for this client, which is not known.
    #[must_use]
    pub fn unknown(client: &Client) -> Self {
        // Callers without a client address, with a certificate of the mesh, share one turn.
        Self { client: client_key(client).unwrap_or_else(|| Key::text("")), is_known: false }
    }
}

/// A pool of hashing threads. Dropping it stops the threads and fails queued jobs with [`HashingError::Stopped`].
#[derive(Debug)]
pub struct HashingPool {
    queue: Arc<Queue>,
}

impl HashingPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the cost is out of range, or a thread cannot be spawned.
    pub fn start(size: PoolSize, cost: Cost, metrics: HashingMetrics) -> io::Result<Self> {
        // Created before the threads: if one cannot be spawned, dropping the pool stops the others.
        let pool = Self { queue: Arc::new(Queue::new(size.queue, metrics)) };
        for number in 0..size.threads.get() {
            let hasher = PasswordHasher::new(cost).map_err(io::Error::other)?;
            let queue = Arc::clone(&pool.queue);
            thread::Builder::new().name(format!("hashing-{number}")).spawn(move || run_worker(&queue, hasher))?;
        }
        Ok(pool)
    }

    /// Hashes a password.
    ///
    /// # Errors
    /// See [`HashingError`].
    pub async fn hash(
        &self,
        password: Password,
        origin: JobOrigin,
        deadline: Option<Instant>,
    ) -> Result<PasswordHash, HashingError> {
        let (reply, result) = oneshot::channel();
        self.queue.push(Job::new(Task::Hash { password, reply }, deadline), origin)?;
        result.await.unwrap_or(Err(HashingError::Stopped))
    }

    /// Hashes a password if a thread is idle; `None` if every thread is busy.
    ///
    /// # Errors
    /// See [`HashingError`].
    pub async fn hash_if_idle(&self, password: Password) -> Result<Option<PasswordHash>, HashingError> {
        let (reply, result) = oneshot::channel();
        if !self.queue.push_if_idle(Job::new(Task::Hash { password, reply }, None))? {
            return Ok(None);
        }
        result.await.unwrap_or(Err(HashingError::Stopped)).map(Some)
    }

    /// Verifies a password against a hash.
    ///
    /// # Errors
    /// See [`HashingError`].
    pub async fn verify(
        &self,
        password: Password,
        hash: PasswordHash,
        origin: JobOrigin,
        deadline: Option<Instant>,
    ) -> Result<Verification, HashingError> {
        let (reply, result) = oneshot::channel();
        self.queue.push(Job::new(Task::Verify { password, hash, reply }, deadline), origin)?;
        result.await.unwrap_or(Err(HashingError::Stopped))
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// The main function of a hashing thread. The thread survives a job that panics; the job's caller gets
/// [`HashingError::Stopped`].
fn run_worker(queue: &Queue, mut hasher: PasswordHasher) {
    lower_priority();
    while catch_unwind(AssertUnwindSafe(|| process_jobs(queue, &mut hasher))).is_err() {
        tracing::error!("a hashing job panicked");
        hasher.release_memory();
    }
}

/// Lowers the priority of this thread: on Linux, each has its own.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS) {
        // A failure costs others time only.
        tracing::debug!(%error, "the priority of a hashing thread is not lowered");
    }
}

/// Runs jobs until the queue is closed.
fn process_jobs(queue: &Queue, hasher: &mut PasswordHasher) {
    loop {
        match queue.next(hasher.holds_memory().then_some(MEMORY_IDLE_TIMEOUT)) {
            NextJob::Job(job) => job.run(hasher, &queue.metrics),
            NextJob::IdleTimeout => hasher.release_memory(),
            NextJob::Closed => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::telemetry::Metrics;

    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
    const TEST_TIMEOUT: Duration = Duration::from_secs(20);

    fn origin() -> JobOrigin {
        JobOrigin::unknown(&Client::default())
    }

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    fn pool(threads: usize, queue: usize) -> HashingPool {
        let size = PoolSize { threads: NonZeroUsize::new(threads).unwrap(), queue };
        HashingPool::start(size, CHEAP, HashingMetrics::new(&Metrics::default())).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_hashed_and_verified() {
        let pool = pool(2, 8);
        let hash = pool.hash(password("secret"), origin(), None).await.unwrap();
        assert_eq!(pool.verify(password("secret"), hash.clone(), origin(), None).await.unwrap(), Verification::Match);
        assert_eq!(pool.verify(password("guess"), hash, origin(), None).await.unwrap(), Verification::Mismatch);
    }

    #[tokio::test]
    async fn hash_if_idle_hashes_on_an_idle_thread() {
        let pool = pool(1, 8);
        let hash = tokio::time::timeout(TEST_TIMEOUT, async {
            loop {
                // The thread may not have started yet.
                match pool.hash_if_idle(password("secret")).await.unwrap() {
                    Some(hash) => return hash,
                    None => tokio::task::yield_now().await,
                }
            }
        });
        let hash = hash.await.unwrap();
        assert_eq!(pool.verify(password("secret"), hash, origin(), None).await.unwrap(), Verification::Match);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn all_of_many_concurrent_jobs_complete() {
        let pool = Arc::new(pool(2, 200));
        let hash = pool.hash(password("secret"), origin(), None).await.unwrap();
        let checks: Vec<_> = (0..200)
            .map(|number| {
                let (pool, hash) = (Arc::clone(&pool), hash.clone());
                let guess = password(if number % 2 == 0 { "secret" } else { "guess" });
                tokio::spawn(async move { pool.verify(guess, hash, origin(), None).await.unwrap().is_match() })
            })
            .collect();
        for (number, check) in checks.into_iter().enumerate() {
            assert_eq!(check.await.unwrap(), number % 2 == 0);
        }
    }

    #[tokio::test]
    async fn dropping_the_pool_stops_its_threads() {
        let pool = pool(2, 8);
        let queue = Arc::clone(&pool.queue);
        drop(pool);
        tokio::time::timeout(TEST_TIMEOUT, async {
            while Arc::strong_count(&queue) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
