//! A steady load of virtual users, who record every call and what the mesh has acknowledged.
//!
//! Afterwards every acknowledged write must be there ([`LoadReport::assert_no_lost_writes`]), and every failed call must
//! have been answered with an error that says when to retry ([`LoadReport::assert_failures_are_retryable`]).

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use self::virtual_user::VirtualUser;
use crate::{Edges, RestRequest, RestResponse, wait};

mod virtual_user;

/// Pause between two calls of a virtual user: the load must not use up the machine.
const THINK_TIME: Duration = Duration::from_millis(10);
/// Pause after a failed call. Shorter than the advised `Retry-After`, so that an outage is sampled more often.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Running virtual users.
#[derive(Debug)]
pub struct Load {
    log: CallLog,
    stop: Arc<AtomicBool>,
    users: Vec<JoinHandle<VirtualUser>>,
}

/// The result of a load.
#[derive(Debug)]
pub struct LoadReport {
    users: Vec<VirtualUser>,
    /// Every call.
    pub calls: Vec<CallRecord>,
}

/// A call that has been answered or has failed.
#[derive(Debug, Clone)]
pub struct CallRecord {
    /// The operation, such as "create".
    pub operation: &'static str,
    /// When the request was sent.
    pub start: Instant,
    /// When the response was complete, or the call failed.
    pub end: Instant,
    /// The HTTP status; 0 if there was no complete response.
    pub status: u16,
    /// The reason of an error response.
    pub reason: String,
    /// `Retry-After` in seconds.
    pub retry_after: Option<u32>,
    /// Request id and body of an error response, or the error of the connection.
    pub text: String,
}

/// All calls of a load. Clones share the calls.
#[derive(Debug, Clone, Default)]
struct CallLog(Arc<Mutex<Vec<CallRecord>>>);

impl Load {
    /// Registers and signs in `count` virtual users, and starts them.
    pub async fn start(edges: &Edges, count: usize) -> Self {
        let (log, stop) = (CallLog::default(), Arc::new(AtomicBool::new(false)));
        let mut users = Vec::new();
        for _ in 0..count {
            let mut user = VirtualUser::signed_in(edges.clone(), log.clone()).await;
            let stop = stop.clone();
            users.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let succeeded = user.run_step().await;
                    tokio::time::sleep(if succeeded { THINK_TIME } else { RETRY_DELAY }).await;
                }
                user
            }));
        }
        let this = Self { log, stop, users };
        // Every virtual user has run every operation once.
        this.wait_for_successes("the load has started", 20 * count).await;
        this
    }

    /// Waits for `count` successful calls in a row, counted from now.
    pub async fn wait_for_successes(&self, description: &str, count: usize) {
        let mut seen = self.log.lock().len();
        let mut successes = 0;
        wait::until(description, async || {
            let log = self.log.lock();
            for call in &log[seen..] {
                successes = if call.is_failure() { 0 } else { successes + 1 };
            }
            seen = log.len();
            (successes >= count).then_some(())
        })
        .await;
    }

    /// Waits until `count` more calls have failed.
    pub async fn wait_for_failures(&self, description: &str, count: usize) {
        let before = self.failure_count();
        wait::until(description, async || (self.failure_count() >= before + count).then_some(())).await;
    }

    /// How many calls have failed so far.
    #[must_use]
    pub fn failure_count(&self) -> usize {
        self.log.lock().iter().filter(|call| call.is_failure()).count()
    }

    /// Stops the load after the calls in flight.
    ///
    /// # Panics
    /// If an assertion of a virtual user has failed.
    pub async fn stop(self) -> LoadReport {
        self.stop.store(true, Ordering::Relaxed);
        let mut users = Vec::new();
        for user in self.users {
            users.push(user.await.expect("no assertion of a virtual user has failed"));
        }
        let calls = self.log.lock().clone();
        LoadReport { users, calls }
    }
}

impl LoadReport {
    /// The calls that failed.
    pub fn failures(&self) -> impl Iterator<Item = &CallRecord> {
        self.calls.iter().filter(|call| call.is_failure())
    }

    /// Asserts that no call failed.
    #[track_caller]
    pub fn assert_no_failures(&self) {
        let failures: Vec<_> = self.failures().collect();
        assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), self.calls.len());
    }

    /// Asserts that each failure was UNAVAILABLE, OVERLOADED or DATABASE_FULL, with `Retry-After`.
    #[track_caller]
    pub fn assert_failures_are_retryable(&self) {
        let is_retryable = |call: &&CallRecord| {
            let is_known = matches!(
                (call.status, &*call.reason),
                (503, "UNAVAILABLE") | (429, "OVERLOADED") | (507, "DATABASE_FULL")
            );
            is_known && call.retry_after.is_some_and(|seconds| seconds >= 1)
        };
        let invalid: Vec<_> = self.failures().filter(|call| !is_retryable(call)).collect();
        assert!(invalid.is_empty(), "{} of {}: {invalid:#?}", invalid.len(), self.calls.len());
    }

    /// Excludes sessions whose revocation was in flight at some time during this period: if the store lost its data then,
    /// the revocation may have reached no service.
    pub fn ignore_revocations_in_flight_during(&mut self, period: &Range<Instant>) {
        for user in &mut self.users {
            user.ignore_revocations_in_flight_during(period);
        }
    }

    /// Asserts that every acknowledged write is there, and nothing is there twice. Virtual users whose session was lost
    /// sign in again first.
    pub async fn assert_no_lost_writes(&mut self) {
        for user in &mut self.users {
            user.assert_no_lost_writes().await;
        }
    }

    /// Call counts by status, reason and operation; the slowest success, and the slowest failure.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut counts = BTreeMap::<_, usize>::new();
        for call in &self.calls {
            *counts.entry((call.status, &*call.reason, call.operation)).or_default() += 1;
        }
        let slowest = |failed: bool| {
            let calls = self.calls.iter().filter(|call| call.is_failure() == failed);
            calls.map(|call| call.end - call.start).max().unwrap_or_default()
        };
        format!(
            "{} calls, slowest success {:?}, slowest failure {:?}: {counts:?}",
            self.calls.len(),
            slowest(false),
            slowest(true)
        )
    }
}

impl CallRecord {
    /// Whether the call got no response, a 5xx status or 429.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        self.status == 0 || self.status >= 500 || self.status == 429
    }
}

impl CallLog {
    /// Makes a call and records its result; `None` if it failed.
    async fn call(&self, edges: &Edges, operation: &'static str, call: RestRequest) -> Option<RestResponse> {
        let start = Instant::now();
        let answer = edges.try_send(call).await;
        let end = Instant::now();
        let mut record = CallRecord {
            operation,
            start,
            end,
            status: 0,
            reason: String::new(),
            retry_after: None,
            text: String::new(),
        };
        match &answer {
            Ok(answer) => {
                record.status = answer.status;
                if answer.status >= 400 {
                    record.reason = answer.reason();
                    record.retry_after = answer.header("retry-after").parse().ok();
                    record.text = format!("{} {}", answer.header("x-request-id"), answer.text());
                }
            }
            Err(error) => record.text = error.to_string(),
        }
        let is_failure = record.is_failure();
        self.lock().push(record);
        answer.ok().filter(|_| !is_failure)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<CallRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
