//! The latest credentials of one workload.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use drystone_mesh::identity::{CredentialSource, IdentityError, SpiffeId, UnverifiedCredentials};
use futures_util::future::BoxFuture;
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::{context::Credentials, endpoint::Endpoint, failure::Failure, watch::watch};

/// How long the first load waits. A new process may take an agent some seconds, such as one that has just started.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// The credentials of one workload from the Workload API, followed until the source is dropped.
///
/// Without an agent the last credentials stay. They also stay when the agent issues no certificate for the workload any more, or a
/// context that cannot be used; [`load`](CredentialSource::load) then fails with the cause, until the agent delivers a usable one.
pub struct WorkloadApiSource {
    shared: Arc<Shared>,
    /// The generation that was loaded last.
    loaded: AtomicU64,
    start_timeout: Duration,
    _task: AbortOnDropHandle<()>,
}

/// What the source and its task share.
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) id: SpiffeId,
    state: watch::Sender<State>,
}

/// What the agent has answered.
#[derive(Debug, Default)]
struct State {
    /// The last usable ones.
    credentials: Option<Credentials>,
    /// Why they are not of the last context, or why there are none.
    failure: Option<Failure>,
    /// How often that has changed.
    generation: u64,
}

impl WorkloadApiSource {
    /// Follows the agent at this endpoint for the certificate with this SPIFFE ID. Must be called within a Tokio runtime.
    #[must_use]
    pub fn connect(endpoint: Endpoint, id: SpiffeId) -> Self {
        let shared = Arc::new(Shared { endpoint, id, state: watch::Sender::default() });
        let task = AbortOnDropHandle::new(tokio::spawn(watch(shared.clone())));
        Self { shared, loaded: AtomicU64::new(0), start_timeout: START_TIMEOUT, _task: task }
    }

    /// Waits this long for the first context, and not 10 s.
    #[must_use]
    pub fn with_start_timeout(mut self, start_timeout: Duration) -> Self {
        self.start_timeout = start_timeout;
        self
    }

    fn current(&self) -> Result<UnverifiedCredentials, IdentityError> {
        let Shared { endpoint, id, state } = &*self.shared;
        let (credentials, failure) = {
            let state = state.borrow();
            self.loaded.store(state.generation, Ordering::Release);
            (state.credentials.clone(), state.failure.clone())
        };
        match (credentials, failure) {
            (Some(credentials), None) => credentials.to_unverified(endpoint, id),
            (_, Some(failure)) => Err(failure.into_error(endpoint, id)),
            (None, None) => {
                let cause = format!("no answer within {:?}", self.start_timeout);
                Err(Failure::Unavailable(cause).into_error(endpoint, id))
            }
        }
    }
}

impl CredentialSource for WorkloadApiSource {
    fn load(&self) -> BoxFuture<'_, Result<UnverifiedCredentials, IdentityError>> {
        Box::pin(async {
            let mut state = self.shared.state.subscribe();
            // Also after a refusal: an entry may be new, and on its way to the agent. What was missing is in the state.
            let first = state.wait_for(|state| state.credentials.is_some());
            let _ = timeout(self.start_timeout, first).await.map(|found| found.map(drop));
            self.current()
        })
    }

    fn changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let mut state = self.shared.state.subscribe();
            // The sender is our own and is not closed.
            let _ = state.wait_for(|state| state.generation != self.loaded.load(Ordering::Acquire)).await.map(drop);
        })
    }
}

impl Shared {
    /// Whether there are credentials.
    pub(crate) fn is_loaded(&self) -> bool {
        self.state.borrow().credentials.is_some()
    }

    /// Publishes what the agent has answered, if it differs.
    pub(crate) fn publish(&self, outcome: Result<Credentials, Failure>) {
        self.state.send_if_modified(|state| state.update(outcome));
    }
}

impl State {
    /// Whether anything has changed. An agent repeats a context when a stream begins, and when another workload's changes.
    fn update(&mut self, outcome: Result<Credentials, Failure>) -> bool {
        let (credentials, failure) = match outcome {
            Ok(credentials) => (Some(credentials), None),
            // Credentials outlive the connection that they came by.
            Err(failure) if self.credentials.is_some() && !failure.is_answer() => return false,
            Err(failure) => (self.credentials.clone(), Some(failure)),
        };
        if (&credentials, &failure) == (&self.credentials, &self.failure) {
            return false;
        }
        *self = Self { credentials, failure, generation: self.generation + 1 };
        true
    }
}

impl fmt::Debug for WorkloadApiSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { endpoint, id, .. } = &*self.shared;
        f.debug_struct("WorkloadApiSource").field("endpoint", endpoint).field("id", id).finish_non_exhaustive()
    }
}
