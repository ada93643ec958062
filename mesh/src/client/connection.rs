//! One HTTP/2 connection to one address, over mutual TLS with the expected identity. It is opened by the first call, shared
//! by all calls, and replaced when it breaks, one of the two certificates is about to expire, or ours has been replaced.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::Shared};
use http_body_util::Either;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::body::Body;
use tracing::{debug, warn};

use super::{io::Closer, message::UnaryMessage};
use crate::{
    clock::{Clock, Timestamp},
    error::{BoxError, Chain},
    identity::{ConnectionLifetime, Identity, SpiffeId, Svid},
};

/// The timeout for connecting, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause after a failed attempt to replace a connection that works.
const REPLACEMENT_DELAY: Duration = Duration::from_secs(1);

/// The HTTP/2 flow-control windows, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The maximum size of response headers, in bytes: more than any server of the mesh sends (8 KiB). A response with more fails
/// with the whole connection.
const MAX_HEADERS_SIZE: u32 = 32 * 1024;

/// How many calls that were given up are remembered, and for how long, so that what their server still sends for them is
/// ignored. Later such frames are answered with a reset, however many there are: the server is authenticated, and the
/// connection is shared by all callers.
const MAX_ABANDONED_CALLS: usize = 16 * 1024;
const ABANDONED_CALL_RETENTION: Duration = Duration::from_secs(5);

/// The interval and timeout of HTTP/2 pings. Together they bound how long a dead connection is kept.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request: one message, which can be resent, or a stream.
pub(super) type Payload = Either<UnaryMessage, Body>;

/// Sends requests over a connection.
pub(super) type Sender = http2::SendRequest<Payload>;

/// Why connecting failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotConnected(Arc<str>);

type Attempt = Shared<oneshot::Receiver<Result<Sender, NotConnected>>>;

/// A connection to one address.
pub(super) struct Connection {
    target: Arc<ConnectTarget>,
    state: Arc<Mutex<ConnectionState>>,
}

/// The peer of a connection, and the identity of the caller.
struct ConnectTarget {
    identity: Identity,
    expected: SpiffeId,
    address: SocketAddr,
    clock: Clock,
    /// Notified when a connection has ended.
    closed: Arc<Notify>,
}

enum ConnectionState {
    None,
    /// One caller has started connecting; the others wait for the same attempt.
    Connecting(Attempt),
    Connected(Connected),
}

/// An open connection.
#[derive(Clone)]
struct Connected {
    sender: Sender,
    lifetime: Arc<ConnectionLifetime>,
    replacement: Arc<Replacement>,
}

/// The replacement of a connection by one with new certificates.
#[derive(Debug, Default)]
struct Replacement {
    /// When it is tried next: in milliseconds of monotonic time, or [`Replacement::STARTED`].
    due: AtomicU64,
    /// Whether it has failed before.
    has_failed: AtomicBool,
}

impl Replacement {
    const STARTED: u64 = u64::MAX;

    /// Whether to start now, which only one caller is told.
    fn start(&self, clock: &Clock) -> bool {
        let due = self.due.load(Ordering::Acquire);
        due != Self::STARTED
            && millis(clock.monotonic()) >= due
            && self.due.compare_exchange(due, Self::STARTED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Records a failure. Whether it is the first one.
    fn fail(&self) -> bool {
        !self.has_failed.swap(true, Ordering::AcqRel)
    }
}

/// An attempt to replace a connection. When it is dropped, the next one is due after a pause: after a panic too.
struct ReplacementAttempt {
    replacement: Arc<Replacement>,
    clock: Clock,
}

impl ReplacementAttempt {
    /// Whether it is to replace this connection.
    fn is_of(&self, connected: &Connected) -> bool {
        Arc::ptr_eq(&connected.replacement, &self.replacement)
    }

    /// Logs a failure: the first one of a connection as a warning.
    fn fail(&self, target: &ConnectTarget, cause: &NotConnected) {
        let ConnectTarget { address, expected, .. } = target;
        if self.replacement.fail() {
            warn!(%address, %expected, %cause, "connection not replaced; the old one stays in use");
        } else {
            debug!(%address, %expected, %cause, "connection not replaced again");
        }
    }
}

impl Drop for ReplacementAttempt {
    fn drop(&mut self) {
        let due = millis(self.clock.monotonic() + REPLACEMENT_DELAY);
        self.replacement.due.store(due, Ordering::Release);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

/// An expired certificate.
#[derive(Debug, thiserror::Error)]
enum Expired {
    #[error("our own certificate for {id} expired at {at}; issue a new one")]
    Own { id: SpiffeId, at: Timestamp },
    #[error("the certificate of {id} expired at {at}; issue a new one")]
    Peer { id: SpiffeId, at: Timestamp },
}

impl Connection {
    pub(super) fn new(identity: Identity, expected: SpiffeId, address: SocketAddr, clock: Clock) -> Self {
        let target = Arc::new(ConnectTarget { identity, expected, address, clock, closed: Arc::default() });
        Self { target, state: Arc::new(Mutex::new(ConnectionState::None)) }
    }

    /// Waits until a connection ends. One that has ended since the last call of this counts.
    pub(super) async fn closed(&self) {
        self.target.closed.notified().await;
    }

    /// The sender of the open connection; connects if there is none.
    pub(super) async fn sender(&self) -> Result<Sender, NotConnected> {
        let attempt = {
            let mut state = lock(&self.state);
            match &*state {
                ConnectionState::Connected(connected) if connected.is_usable() => {
                    // A connection that works is used until there is another one.
                    if connected.is_replacement_due(&self.target.clock) {
                        self.start_replacing(connected.replacement.clone());
                    }
                    return Ok(connected.sender.clone());
                }
                ConnectionState::Connecting(attempt) => attempt.clone(),
                ConnectionState::None | ConnectionState::Connected(_) => {
                    let attempt = self.start_connecting();
                    *state = ConnectionState::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await.unwrap_or_else(|_| {
            // The task ended without a result: it panicked, or the process is stopping.
            *lock(&self.state) = ConnectionState::None;
            Err(NotConnected("connecting was aborted".into()))
        })
    }

    /// Connects in a separate task, so that a cancelled caller does not cancel the attempt for others.
    fn start_connecting(&self) -> Attempt {
        let (done, attempt) = oneshot::channel();
        let (target, state) = (self.target.clone(), self.state.clone());
        tokio::spawn(async move {
            let outcome = target.connect_in_time().await;
            *lock(&state) = match &outcome {
                Ok(connected) => ConnectionState::Connected(connected.clone()),
                Err(_) => ConnectionState::None,
            };
            // All callers may have been cancelled.
            let _ = done.send(outcome.map(|connected| connected.sender));
        });
        attempt.shared()
    }

    /// Connects in a separate task, and replaces the open connection if that succeeds.
    fn start_replacing(&self, replacement: Arc<Replacement>) {
        let (target, state) = (self.target.clone(), self.state.clone());
        let attempt = ReplacementAttempt { replacement, clock: target.clock.clone() };
        tokio::spawn(async move {
            match target.connect_in_time().await {
                Ok(connected) => {
                    let mut state = lock(&state);
                    // Unless it broke meanwhile, and another one was opened.
                    if matches!(&*state, ConnectionState::Connected(current) if attempt.is_of(current)) {
                        *state = ConnectionState::Connected(connected);
                    }
                }
                Err(cause) => attempt.fail(&target, &cause),
            }
        });
    }
}

fn lock(state: &Mutex<ConnectionState>) -> MutexGuard<'_, ConnectionState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connected {
    /// Whether new calls can use the connection: both ends check the peer's certificate on each call.
    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.lifetime.end().is_none()
    }

    /// Whether the caller should replace the connection.
    fn is_replacement_due(&self, clock: &Clock) -> bool {
        self.lifetime.is_outdated() && self.replacement.start(clock)
    }
}

impl ConnectTarget {
    async fn connect_in_time(&self) -> Result<Connected, NotConnected> {
        let Self { address, .. } = self;
        match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(Ok(connected)) => Ok(connected),
            Ok(Err(error)) => Err(NotConnected(Chain(&*error).to_string().into())),
            Err(_) => Err(NotConnected(format!("no connection to {address} within {CONNECT_TIMEOUT:?}").into())),
        }
    }

    async fn connect(&self) -> Result<Connected, BoxError> {
        // Read before the handshake: if the certificate is replaced meanwhile, the connection counts as outdated.
        let generation = self.identity.generation();
        let own = self.identity.svid();
        if own.has_expired(self.clock.now()) {
            return Err(Expired::Own { id: own.id.clone(), at: own.not_after }.into());
        }
        let (stream, closer) = self.handshake().await?;
        let peer = peer_of(&stream)?;
        if peer.has_expired(self.clock.now()) {
            return Err(Expired::Peer { id: peer.id, at: peer.not_after }.into());
        }
        let lifetime =
            ConnectionLifetime::new(self.identity.clone(), &own, generation, Arc::new(peer), self.clock.clone());
        let lifetime = Arc::new(lifetime);
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEADERS_SIZE)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_reset_streams(MAX_ABANDONED_CALLS)
            .reset_stream_duration(ABANDONED_CALL_RETENTION)
            .max_local_error_reset_streams(None)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(closer.track(stream)))
            .await?;
        let (address, ended) = (self.address, self.closed.clone());
        let ending = lifetime.clone();
        tokio::spawn(async move {
            let served = async {
                if let Err(error) = connection.await {
                    debug!(%address, cause = %Chain(&error), "connection broke");
                }
                ended.notify_one();
                // Streams may go on when no new call can be made.
                closer.closed().await;
            };
            tokio::select! {
                () = served => {}
                end = ending.ended() => {
                    debug!(%address, ?end, "connection ended");
                    closer.close();
                    ended.notify_one();
                }
            }
        });
        Ok(Connected { sender, lifetime, replacement: Arc::default() })
    }

    async fn handshake(&self) -> io::Result<(TlsStream<TcpStream>, Closer)> {
        let (stream, closer) = Closer::of(TcpStream::connect(self.address).await?)?;
        // With Nagle's algorithm, small frames would wait for delayed acknowledgements.
        stream.set_nodelay(true)?;
        let config = self.identity.client_config(&self.expected).map_err(io::Error::other)?;
        // The name is only sent as SNI. The peer is identified by its SPIFFE ID.
        let name = self.expected.workload().unwrap_or("service").to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok((stream, closer))
    }
}

/// The identity in the peer's certificate.
fn peer_of(stream: &TlsStream<TcpStream>) -> Result<Svid, BoxError> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or(rustls::Error::NoCertificatesPresented)?;
    Ok(Svid::parse(leaf)?)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.target.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(replacement: &Arc<Replacement>, clock: &Clock) -> ReplacementAttempt {
        ReplacementAttempt { replacement: replacement.clone(), clock: clock.clone() }
    }

    #[test]
    fn a_replacement_is_tried_again_after_a_pause() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let replacement = Arc::<Replacement>::default();
        assert!(replacement.start(&clock));
        let started = attempt(&replacement, &clock);
        clock.advance(2 * REPLACEMENT_DELAY);
        assert!(!replacement.start(&clock), "one at a time");
        drop(started);
        assert!(!replacement.start(&clock));
        clock.advance(REPLACEMENT_DELAY);
        assert!(replacement.start(&clock));
    }

    #[tokio::test]
    async fn a_panic_does_not_end_replacements() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let replacement = Arc::<Replacement>::default();
        assert!(replacement.start(&clock));
        let started = attempt(&replacement, &clock);
        let task = tokio::spawn(async move {
            let _started = started;
            panic!("a panic of the test");
        });
        assert!(task.await.unwrap_err().is_panic());
        clock.advance(REPLACEMENT_DELAY);
        assert!(replacement.start(&clock));
    }

    #[test]
    fn only_the_first_failure_of_a_connection_is_a_warning() {
        let replacement = Replacement::default();
        assert!(replacement.fail());
        assert!(!replacement.fail() && !replacement.fail());
        assert!(Replacement::default().fail(), "each connection has its own");
    }
}
