//! One HTTP/2 connection to one address: TCP, then mutual TLS with the identity that we expect there. It is made with
//! the first call, shared by all, and made again after a break and when one of the two certificates has expired.

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

use super::message::Message;
use crate::{
    clock::{Clock, Timestamp},
    error::{Chain, Source},
    identity::{Identity, SpiffeId, Svid},
};

/// How long a connection may take, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The flow-control windows of HTTP/2, in bytes: how much a response may send ahead of its reader.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// How often an idle connection is tried out, and how long the other side has to answer. Between them they bound how long
/// a connection to a peer that vanished silently is kept.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The body of a request: one message, which can be sent again, or a stream.
pub(super) type Payload = Either<Message, Body>;

/// What sends requests over a connection.
pub(super) type Sender = http2::SendRequest<Payload>;

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotConnected(Arc<str>);

type Attempt = Shared<oneshot::Receiver<Result<Sender, NotConnected>>>;

/// A connection to one address.
pub(super) struct Connection {
    target: Arc<Target>,
    state: Arc<Mutex<State>>,
}

/// Who is to be reached, and by whom.
struct Target {
    identity: Identity,
    expected: SpiffeId,
    address: SocketAddr,
    clock: Clock,
    /// Notified when a connection has ended.
    closed: Arc<Notify>,
}

enum State {
    None,
    /// Somebody has begun; the others wait for the same.
    Connecting(Attempt),
    Connected(Connected),
}

/// A connection that stands.
#[derive(Clone)]
struct Connected {
    sender: Sender,
    /// Which of our certificates was shown. The other side holds the connection to its end.
    generation: u64,
    /// When the first of the two certificates ends that the connection was made with.
    expires_at: Timestamp,
}

/// A certificate that cannot be used any more.
#[derive(Debug, thiserror::Error)]
enum Expired {
    #[error("our own certificate for {id} expired at {at}; issue a new one")]
    Own { id: SpiffeId, at: Timestamp },
    #[error("the certificate of {id} expired at {at}; issue a new one")]
    Peer { id: SpiffeId, at: Timestamp },
}

impl Connection {
    pub(super) fn new(identity: Identity, expected: SpiffeId, address: SocketAddr, clock: Clock) -> Self {
        let target = Arc::new(Target { identity, expected, address, clock, closed: Arc::default() });
        Self { target, state: Arc::new(Mutex::new(State::None)) }
    }

    /// Waits until a connection ends. One that has ended since the last call of this counts.
    pub(super) async fn closed(&self) {
        self.target.closed.notified().await;
    }

    /// What sends over the connection, which is made if there is none.
    pub(super) async fn sender(&self) -> Result<Sender, NotConnected> {
        let attempt = {
            let mut state = lock(&self.state);
            match &*state {
                State::Connected(connected) if self.target.is_usable(connected) => {
                    return Ok(connected.sender.clone());
                }
                State::Connecting(attempt) => attempt.clone(),
                State::None | State::Connected(_) => {
                    let attempt = self.begin();
                    *state = State::Connecting(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await.unwrap_or_else(|_| {
            // The task is gone without a word: it panicked, or the process is stopping.
            *lock(&self.state) = State::None;
            Err(NotConnected("the attempt to connect was broken off".into()))
        })
    }

    /// Connects in a task of its own: a caller that gives up takes nothing from the others.
    fn begin(&self) -> Attempt {
        let (done, attempt) = oneshot::channel();
        let (target, state) = (self.target.clone(), self.state.clone());
        tokio::spawn(async move {
            let outcome = target.connect_in_time().await;
            *lock(&state) = match &outcome {
                Ok(connected) => State::Connected(connected.clone()),
                Err(_) => State::None,
            };
            // Nobody may be waiting any more.
            let _ = done.send(outcome.map(|connected| connected.sender));
        });
        attempt.shared()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Whether calls may go over a connection: both ends check the certificate of the other with each call.
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

    async fn connect(&self) -> Result<Connected, Source> {
        // Before the handshake: if it is swapped meanwhile, the connection is one too old rather than one too new.
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
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
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
        // Small frames that wait for each other cost a hundredfold.
        stream.set_nodelay(true)?;
        let config = self.identity.client_config(&self.expected).map_err(io::Error::other)?;
        // The name is sent as SNI and no more: who answers is decided by SPIFFE ID.
        let name = self.expected.workload().unwrap_or("service").to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        TlsConnector::from(config).connect(name, stream).await
    }
}

/// What the certificate says that the other side has shown.
fn peer_of(stream: &TlsStream<TcpStream>) -> Result<Svid, Source> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or(rustls::Error::NoCertificatesPresented)?;
    Ok(Svid::parse(leaf)?)
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("address", &self.target.address).finish_non_exhaustive()
    }
}
