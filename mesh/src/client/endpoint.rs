//! One endpoint of a service: its connection, load, breaker and health.

use std::{
    error::Error as StdError,
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::TrySendError};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::{
    breaker::Breaker,
    connection::{Connection, Payload},
    group::GroupId,
    load::{InFlight, Load},
    peer::BreakerSettings,
};
use crate::{
    clock::Clock,
    error::Chain,
    identity::{Identity, SpiffeId},
};

/// A call cancelled after this time without a response counts as a failure of the endpoint.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(1);

/// One endpoint of a service.
#[derive(Debug)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    group: GroupId,
    connection: Connection,
    load: Load,
    pub(super) breaker: Breaker,
    condition: Mutex<Condition>,
    /// The last connection error.
    last_error: Mutex<String>,
    /// Cancelled when discovery removes the endpoint.
    removed: CancellationToken,
}

/// The result of the last health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// No health check yet.
    Unknown,
    /// It answered SERVING.
    Serving,
    /// It answered, and not SERVING.
    NotServing(String),
    /// It did not answer.
    Unreachable(String),
}

impl Condition {
    /// The result in one word, and its detail.
    pub(super) fn describe(self) -> (&'static str, String) {
        match self {
            Self::Unknown => ("unknown", String::new()),
            Self::Serving => ("serving", String::new()),
            Self::NotServing(detail) => ("not_serving", detail),
            Self::Unreachable(detail) => ("unreachable", detail),
        }
    }
}

/// A call without a response.
#[derive(Debug)]
pub(super) struct SendError {
    /// Whether the server may have started it.
    pub(super) may_have_run: bool,
    pub(super) source: Box<dyn StdError + Send + Sync>,
}

impl Endpoint {
    pub(super) fn new(
        identity: Identity,
        expected: SpiffeId,
        address: SocketAddr,
        clock: Clock,
        (group, breaker): (GroupId, BreakerSettings),
        removed: CancellationToken,
    ) -> Self {
        Self {
            address,
            group,
            connection: Connection::new(identity, expected, address, clock),
            load: Load::new(),
            breaker: Breaker::new(breaker),
            condition: Mutex::new(Condition::Unknown),
            last_error: Mutex::default(),
            removed,
        }
    }

    /// Its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The group that it belongs to.
    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    /// Cancelled when discovery removes the endpoint.
    pub(crate) fn removed(&self) -> &CancellationToken {
        &self.removed
    }

    /// The expected wait of one more call.
    pub(super) fn cost(&self) -> f64 {
        self.load.cost()
    }

    pub(super) fn condition(&self) -> Condition {
        lock(&self.condition).clone()
    }

    /// Replaces the condition, and returns the previous one.
    pub(super) fn set_condition(&self, condition: Condition) -> Condition {
        std::mem::replace(&mut *lock(&self.condition), condition)
    }

    /// The last connection error, for operators: callers only learn that the service is unavailable.
    pub(super) fn last_error(&self) -> String {
        lock(&self.last_error).clone()
    }

    /// Waits until the connection to the endpoint ends.
    pub(super) async fn disconnected(&self) {
        self.connection.closed().await;
    }

    /// Sends a request and waits for the response head. The outcome is recorded in the breaker.
    pub(super) async fn call(&self, request: Request<Payload>) -> Result<Response<Incoming>, SendError> {
        let answer = self.send(request).await?;
        if has_code(&answer, Code::Unavailable) {
            self.breaker.failed();
        } else {
            self.breaker.succeeded();
        }
        Ok(answer)
    }

    /// Sends a request without recording a response in the breaker: an answered health check says nothing about other calls.
    pub(super) async fn send(&self, request: Request<Payload>) -> Result<Response<Incoming>, SendError> {
        let in_flight = self.load.start_call();
        let mut sender = self.connection.sender().await.map_err(|error| {
            self.breaker.trip();
            *lock(&self.last_error) = error.to_string();
            SendError { may_have_run: false, source: error.into() }
        })?;
        // The time to connect is not part of the response time.
        let mut pending = PendingCall { endpoint: self, in_flight, started: Instant::now(), is_over: false };
        let outcome = sender.try_send_request(request).await;
        pending.is_over = true;
        outcome.map_err(|error| {
            let error = SendError::from(error);
            *lock(&self.last_error) = Chain(&*error.source).to_string();
            // A connection that was closed gracefully says nothing about the endpoint.
            if error.may_have_run {
                self.breaker.trip();
            }
            error
        })
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a response is an error with this code and without a message (trailers-only).
pub(super) fn has_code<B>(response: &Response<B>, code: Code) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == code)
}

/// A request without a response yet.
struct PendingCall<'a> {
    endpoint: &'a Endpoint,
    in_flight: InFlight<'a>,
    started: Instant,
    is_over: bool,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        let time = self.started.elapsed();
        self.in_flight.observe_response(time);
        if !self.is_over && time >= UNRESPONSIVE_AFTER {
            self.endpoint.breaker.failed();
        }
    }
}

impl From<TrySendError<Request<Payload>>> for SendError {
    fn from(error: TrySendError<Request<Payload>>) -> Self {
        let was_not_sent = error.message().is_some();
        let source = error.into_error();
        Self { may_have_run: !was_not_sent && !was_rejected_unprocessed(&source), source: source.into() }
    }
}

/// Whether the server did not process the request: it sent a GOAWAY with a lower stream id, or refused the stream
/// (RFC 9113, sections 6.8 and 8.7).
fn was_rejected_unprocessed(error: &(dyn StdError + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            let left_out = error.is_go_away() && error.is_remote();
            return left_out || error.reason() == Some(h2::Reason::REFUSED_STREAM);
        }
        source = error.source();
    }
    false
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.source()
    }
}
