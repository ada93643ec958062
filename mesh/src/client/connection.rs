//! One HTTP/2 connection to one address, over mutual TLS with the expected identity. It is opened by the first call, shared
//! by all calls, and replaced when it breaks or one of the two certificates expires.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

use super::message::UnaryMessage;
use crate::{
    clock::{Clock, Timestamp},
    error::{BoxError, Chain},
    identity::{Identity, SpiffeId, Svid},
};

/// The timeout for connecting, TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

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
    /// The generation of the caller's certificate. The server checks its expiry on each call.
    generation: u64,
    /// When the first of the two certificates of the handshake expires.
    expires_at: Timestamp,
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
                ConnectionState::Connected(connected) if self.target.is_usable(connected) => {
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
}

fn lock(state: &Mutex<ConnectionState>) -> MutexGuard<'_, ConnectionState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectTarget {
    /// Whether the connection can be used: both ends check the peer's certificate on each call.
    fn is_usable(&self, connected: &Connected) -> bool {
        let Connected { sender, generation, expires_at } = connected;
        !sender.is_closed() && *generation == self.identity.generation() && self.clock.now() < *expires_at
    }

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
        let stream = self.handshake().await?;
        let peer = peer_of(&stream)?;
        if peer.has_expired(self.clock.now()) {
            return Err(Expired::Peer { id: peer.id, at: peer.not_after }.into());
        }
        let expires_at = own.not_after.min(peer.not_after);
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
            .handshake(TokioIo::new(stream))
            .await?;
        let (address, closed) = (self.address, self.closed.clone());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, cause = %Chain(&error), "connection broke");
            }
            closed.notify_one();
        });
        Ok(Connected { sender, generation, expires_at })
    }

    async fn handshake(&self) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        // With Nagle's algorithm, small frames would wait for delayed acknowledgements.
        stream.set_nodelay(true)?;
        let config = self.identity.client_config(&self.expected).map_err(io::Error::other)?;
        // The name is only sent as SNI. The peer is identified by its SPIFFE ID.
        let name = self.expected.workload().unwrap_or("service").to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
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
