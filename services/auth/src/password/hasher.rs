//! The hashing pool: password hashing off the async threads, bounded, and never for nobody.
//!
//! A fixed number of threads takes jobs from one bounded queue (`queue.rs`). A job is turned away at the door when the
//! queue is full, and dropped unhashed when its turn comes after its deadline, or after its caller has gone.
//!
//! **How many threads.** As many as cores by default: hashing is pure computation, and fewer threads would leave cores
//! idle while people wait to sign in. Async threads share those cores, and the scheduler lets them in as soon as they
//! wake, since they sleep much and hashing threads never do. Measured on two cores of Linux 6.18: with both hashing
//! without a pause, a round trip over loopback between two tasks takes 0.17 ms at the 99th percentile, against 0.13 ms
//! on an idle machine. A lower priority for the hashing threads changed neither that nor the median, so that they have
//! none: it is not portable, and there is nothing to gain.

mod queue;

use std::{
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use self::queue::{Job, Queue, Task, Turn};
use crate::{
    metrics::HashingMetrics,
    password::{Cost, HashError, Password, PasswordHash, PasswordHasher, Verdict},
};

/// How long a thread without work keeps its memory.
const KEEP_MEMORY: Duration = Duration::from_secs(10);

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum HashingError {
    /// The queue is full.
    #[error("the hashing queue is full")]
    QueueFull,
    /// The job's deadline passed before its turn came.
    #[error("the deadline passed before the password was hashed")]
    DeadlinePassed,
    /// The pool is shutting down.
    #[error("the hashing pool has stopped")]
    Stopped,
    /// The hash itself failed.
    #[error(transparent)]
    Hash(#[from] HashError),
}

/// How a pool is laid out.
#[derive(Debug, Clone, Copy)]
pub struct PoolSize {
    /// Threads that hash.
    pub threads: NonZeroUsize,
    /// Jobs that may wait, in all.
    pub queue: usize,
}

/// The pool. It stops when it is dropped: jobs that wait are answered with [`HashingError::Stopped`].
#[derive(Debug)]
pub struct HashingPool {
    queue: Arc<Queue>,
}

impl HashingPool {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the cost is out of range, or the system gives no thread.
    pub fn start(size: PoolSize, cost: Cost, metrics: HashingMetrics) -> io::Result<Self> {
        // Made before the threads, so that those that did start end with it if one does not.
        let pool = Self { queue: Arc::new(Queue::new(size.queue, metrics)) };
        for number in 0..size.threads.get() {
            let hasher = PasswordHasher::new(cost).map_err(io::Error::other)?;
            let queue = Arc::clone(&pool.queue);
            thread::Builder::new().name(format!("hashing-{number}")).spawn(move || keep_working(&queue, hasher))?;
        }
        Ok(pool)
    }

    /// Hashes a new password.
    ///
    /// # Errors
    /// See [`HashingError`].
    pub async fn hash(&self, password: Password, deadline: Option<Instant>) -> Result<PasswordHash, HashingError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job::new(Task::Hash { password, reply }, deadline))?;
        answer.await.unwrap_or(Err(HashingError::Stopped))
    }

    /// Hashes a password anew if nobody has to wait for it: `None` if every thread is busy.
    ///
    /// # Errors
    /// See [`HashingError`].
    pub async fn hash_if_idle(&self, password: Password) -> Result<Option<PasswordHash>, HashingError> {
        let (reply, answer) = oneshot::channel();
        if !self.queue.push_if_idle(Job::new(Task::Hash { password, reply }, None))? {
            return Ok(None);
        }
        answer.await.unwrap_or(Err(HashingError::Stopped)).map(Some)
    }

    /// Checks a password against a hash.
    ///
    /// # Errors
    /// See [`HashingError`].
    pub async fn verify(
        &self,
        password: Password,
        hash: PasswordHash,
        deadline: Option<Instant>,
    ) -> Result<Verdict, HashingError> {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Job::new(Task::Verify { password, hash, reply }, deadline))?;
        answer.await.unwrap_or(Err(HashingError::Stopped))
    }
}

impl Drop for HashingPool {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// A hashing thread. A job that panics, which none should, costs its caller the answer, and not the pool a thread.
fn keep_working(queue: &Queue, mut hasher: PasswordHasher) {
    while catch_unwind(AssertUnwindSafe(|| work(queue, &mut hasher))).is_err() {
        tracing::error!("a hashing job panicked");
        hasher.release_memory();
    }
}

/// Does one job after the other until the queue is closed.
fn work(queue: &Queue, hasher: &mut PasswordHasher) {
    loop {
        match queue.next(hasher.holds_memory().then_some(KEEP_MEMORY)) {
            Turn::Job(job) => job.run(hasher, &queue.metrics),
            Turn::NothingForLong => hasher.release_memory(),
            Turn::Closed => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use drystone_mesh::telemetry::Metrics;

    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, iterations: 1, parallelism: 1 };
    const SOON: Duration = Duration::from_secs(20);

    fn password(text: &str) -> Password {
        Password::new(text.to_owned())
    }

    fn pool(threads: usize, queue: usize) -> HashingPool {
        let size = PoolSize { threads: NonZeroUsize::new(threads).unwrap(), queue };
        HashingPool::start(size, CHEAP, HashingMetrics::new(&Metrics::default())).unwrap()
    }

    #[tokio::test]
    async fn a_password_is_hashed_and_checked() {
        let pool = pool(2, 8);
        let hash = pool.hash(password("secret"), None).await.unwrap();
        assert_eq!(pool.verify(password("secret"), hash.clone(), None).await.unwrap(), Verdict::Right);
        assert_eq!(pool.verify(password("guess"), hash, None).await.unwrap(), Verdict::Wrong);
    }

    #[tokio::test]
    async fn an_idle_thread_takes_what_nobody_waits_for() {
        let pool = pool(1, 8);
        let hash = tokio::time::timeout(SOON, async {
            loop {
                // The thread may not have come to the queue yet.
                match pool.hash_if_idle(password("secret")).await.unwrap() {
                    Some(hash) => return hash,
                    None => tokio::task::yield_now().await,
                }
            }
        });
        let hash = hash.await.unwrap();
        assert_eq!(pool.verify(password("secret"), hash, None).await.unwrap(), Verdict::Right);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_are_all_answered() {
        let pool = Arc::new(pool(2, 200));
        let hash = pool.hash(password("secret"), None).await.unwrap();
        let checks: Vec<_> = (0..200)
            .map(|number| {
                let (pool, hash) = (Arc::clone(&pool), hash.clone());
                let guess = password(if number % 2 == 0 { "secret" } else { "guess" });
                tokio::spawn(async move { pool.verify(guess, hash, None).await.unwrap().is_right() })
            })
            .collect();
        for (number, check) in checks.into_iter().enumerate() {
            assert_eq!(check.await.unwrap(), number % 2 == 0);
        }
    }

    #[tokio::test]
    async fn a_pool_that_is_dropped_ends_its_threads() {
        let pool = pool(2, 8);
        let queue = Arc::clone(&pool.queue);
        drop(pool);
        tokio::time::timeout(SOON, async {
            while Arc::strong_count(&queue) > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}
