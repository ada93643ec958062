//! One running instance of a service: how to reach it, how busy it is, and whether it is called at all.

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
    load::{InFlight, Load},
};
use crate::{
    clock::Clock,
    error::Chain,
    identity::{Identity, SpiffeId},
};

/// A call that is cancelled after so long without an answer counts as a failure of the instance.
const UNRESPONSIVE_AFTER: Duration = Duration::from_secs(1);

/// One running instance of a service.
#[derive(Debug)]
pub(crate) struct Instance {
    address: SocketAddr,
    connection: Connection,
    load: Load,
    pub(super) breaker: Breaker,
    condition: Mutex<Condition>,
    /// Why it was not reached the last time.
    trouble: Mutex<String>,
    /// Cancelled when nobody names the instance any more.
    gone: CancellationToken,
}

/// What an instance said when it was last asked how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// It has not been asked yet.
    Unknown,
    /// It serves.
    Serving,
    /// It answers, and does not serve.
    Ailing(String),
    /// It does not answer.
    Away(String),
}

/// A call that was not answered.
#[derive(Debug)]
pub(super) struct SendError {
    /// Whether the instance may have begun with it.
    pub(super) may_have_run: bool,
    pub(super) source: Box<dyn StdError + Send + Sync>,
}

impl Instance {
    pub(super) fn new(
        identity: Identity,
        expected: SpiffeId,
        address: SocketAddr,
        clock: Clock,
        gone: CancellationToken,
    ) -> Self {
        Self {
            address,
            connection: Connection::new(identity, expected, address, clock),
            load: Load::new(),
            breaker: Breaker::default(),
            condition: Mutex::new(Condition::Unknown),
            trouble: Mutex::default(),
            gone,
        }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends when nobody names the instance any more.
    pub(crate) fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// What one call more would wait for.
    pub(super) fn cost(&self) -> f64 {
        self.load.cost()
    }

    pub(super) fn condition(&self) -> Condition {
        lock(&self.condition).clone()
    }

    /// Takes down how it is; answers how it was.
    pub(super) fn set_condition(&self, condition: Condition) -> Condition {
        std::mem::replace(&mut *lock(&self.condition), condition)
    }

    /// Why it was not reached the last time, for an operator: callers are told no more than that it is away.
    pub(super) fn trouble(&self) -> String {
        lock(&self.trouble).clone()
    }

    /// Waits until the connection to the instance ends.
    pub(super) async fn disconnected(&self) {
        self.connection.closed().await;
    }

    /// Sends a request, and waits for the head of the answer. What comes of it counts for or against the instance.
    pub(super) async fn call(&self, request: Request<Payload>) -> Result<Response<Incoming>, SendError> {
        let answer = self.ask(request).await?;
        if has_code(&answer, Code::Unavailable) {
            self.breaker.failed();
        } else {
            self.breaker.succeeded();
        }
        Ok(answer)
    }

    /// The same for health checks and the like: that they are answered says nothing of other calls.
    pub(super) async fn ask(&self, request: Request<Payload>) -> Result<Response<Incoming>, SendError> {
        let in_flight = self.load.take_on();
        let mut sender = self.connection.sender().await.map_err(|error| {
            self.breaker.trip();
            *lock(&self.trouble) = error.to_string();
            SendError { may_have_run: false, source: error.into() }
        })?;
        // Connecting is not what an answer takes.
        let mut exchange = Exchange { instance: self, in_flight, begun: Instant::now(), is_over: false };
        let outcome = sender.try_send_request(request).await;
        exchange.is_over = true;
        outcome.map_err(|error| {
            let error = SendError::from(error);
            *lock(&self.trouble) = Chain(&*error.source).to_string();
            // A connection that is let go in order says nothing of the instance: others may stand already.
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

/// Whether an answer is a refusal with this code. One that came with a message has its code after that.
pub(super) fn has_code<B>(response: &Response<B>, code: Code) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == code)
}

/// A request that is on its way.
struct Exchange<'a> {
    instance: &'a Instance,
    in_flight: InFlight<'a>,
    begun: Instant,
    is_over: bool,
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let time = self.begun.elapsed();
        self.in_flight.took(time);
        if !self.is_over && time >= UNRESPONSIVE_AFTER {
            self.instance.breaker.failed();
        }
    }
}

impl From<TrySendError<Request<Payload>>> for SendError {
    fn from(error: TrySendError<Request<Payload>>) -> Self {
        let was_kept = error.message().is_some();
        let source = error.into_error();
        Self { may_have_run: !was_kept && !was_refused_unseen(&source), source: source.into() }
    }
}

/// Whether the other side has said that it did not begin with the request: by a GOAWAY that leaves it out, or by refusing
/// the stream (RFC 9113, sections 6.8 and 8.7).
fn was_refused_unseen(error: &(dyn StdError + 'static)) -> bool {
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
