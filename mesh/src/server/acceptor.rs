//! The accept loop: TCP in, proven peers out.
//!
//! It is our own because tonic's cannot change certificates, and handles no more than it can: handshakes are bounded
//! in number and time and run beside each other, connections are bounded in number, and the peer's identity is read
//! once and travels with the connection.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, stream};
use rustls::{AlertDescription, CertificateError};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{
    accept::{Accepted, accept},
    identity::{Identity, Svid, VerifyError},
};

/// How long a refused peer may take to read the alert.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How many bytes are still read from it.
const MAX_LINGER_BYTES: u64 = 64 << 10;

/// Who is at the other end of a connection. It stands in the extensions of each request.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// What the peer's certificate says.
    pub svid: Arc<Svid>,
    /// Where the peer calls from.
    pub remote: SocketAddr,
}

/// How much an acceptor takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Handshakes at a time; more wait in the kernel's queue.
    pub handshakes: usize,
    /// The longest that one handshake may take.
    pub handshake_time: Duration,
    /// Connections at a time, handshakes included; more wait in the kernel's queue.
    pub connections: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { handshakes: 256, handshake_time: Duration::from_secs(5), connections: 10_000 }
    }
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub struct RefusedHandshake {
    /// Who tried.
    pub remote: SocketAddr,
    /// Why, out of a closed set.
    pub why: HandshakeFailure,
    /// What exactly was wrong, for the log.
    pub source: io::Error,
}

impl RefusedHandshake {
    /// The name under which it is counted; see [`HandshakeFailure::label`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.why.label()
    }
}

impl fmt::Display for RefusedHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The peer showed no certificate.
    NoCertificate,
    /// No root of ours vouches for the certificate.
    UnknownIssuer,
    /// The certificate belongs to a trust domain that is not ours.
    UntrustedDomain,
    /// The certificate's time is over, or has not begun.
    OutOfTime,
    /// The certificate breaks the profile.
    NoSvid,
    /// The certificate cannot be believed for another cause.
    BadCertificate,
    /// The peer does not speak TLS 1.3 and HTTP/2, or no TLS at all.
    Protocol,
    /// The peer does not believe us.
    Distrusted,
    /// The peer took too long.
    Timeout,
    /// The peer went away.
    Closed,
}

impl HandshakeFailure {
    /// The name under which it is counted.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UntrustedDomain => "untrusted_domain",
            Self::OutOfTime => "out_of_time",
            Self::NoSvid => "no_svid",
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
            Self::Distrusted => "distrusted",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
        }
    }

    fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
            return if error.kind() == io::ErrorKind::TimedOut { Self::Timeout } else { Self::Closed };
        };
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::AlertReceived(alert) if speaks_of_our_certificate(*alert) => Self::Distrusted,
            _ => Self::Protocol,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. } => Self::OutOfTime,
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(VerifyError::Profile(_)) => Self::NoSvid,
                Some(VerifyError::TrustDomain(_)) => Self::UntrustedDomain,
                _ => Self::BadCertificate,
            },
            _ => Self::BadCertificate,
        }
    }
}

fn speaks_of_our_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

/// A connection whose peer is proven.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    /// The connection's share of [`AcceptLimits::connections`], given back when it ends.
    _permit: Option<OwnedSemaphorePermit>,
}

/// Accepts connections until `stop`, each with the identity that is published when it arrives.
///
/// The stream ends after `stop`; handshakes that are under way then are dropped, connections that were handed out go
/// on. `refused` hears of each handshake that came to nothing.
pub fn accept_peers(
    listener: TcpListener,
    identity: Identity,
    limits: AcceptLimits,
    refused: impl Fn(RefusedHandshake) + Send + Sync + 'static,
    stop: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> + Send + Unpin + 'static {
    // One place: whoever takes the connections sets the pace.
    let (proven, connections) = mpsc::channel(1);
    let handshaker = Arc::new(Handshaker { identity, time: limits.handshake_time, refused: Box::new(refused), proven });
    tokio::spawn(run(listener, limits, handshaker, stop));
    Box::pin(stream::unfold(connections, async |mut connections| {
        connections.recv().await.map(|connection| (Ok(connection), connections))
    }))
}

async fn run(listener: TcpListener, limits: AcceptLimits, handshaker: Arc<Handshaker>, stop: CancellationToken) {
    let turns = Arc::new(Semaphore::new(limits.handshakes.min(Semaphore::MAX_PERMITS)));
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    // Dropped at the end, and the handshakes with it.
    let mut under_way = JoinSet::new();
    let ended = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = handshaker.proven.closed() => {}
        }
    };
    tokio::pin!(ended);
    loop {
        let next = async {
            // Never closed, so that there is always a permit.
            let turn = turns.clone().acquire_owned().await.ok();
            (accept(&listener, &places).await, turn)
        };
        tokio::select! {
            () = &mut ended => return,
            Some(_) = under_way.join_next() => {}
            (accepted, turn) = next => drop(under_way.spawn(handshaker.clone().serve(accepted, turn))),
        }
    }
}

struct Handshaker {
    identity: Identity,
    time: Duration,
    refused: Box<dyn Fn(RefusedHandshake) + Send + Sync>,
    proven: mpsc::Sender<Connection>,
}

impl Handshaker {
    /// One handshake from start to end. `turn` is held as long as it lasts, the permit as long as the connection does.
    async fn serve(
        self: Arc<Self>,
        Accepted { stream: socket, remote, permit }: Accepted,
        turn: Option<OwnedSemaphorePermit>,
    ) {
        let (outcome, socket) = self.shake_hands(socket).await;
        drop(turn);
        match outcome {
            Ok((stream, svid)) => {
                let peer = PeerInfo { svid: Arc::new(svid), remote };
                // Nobody takes connections any more: the server is at its end.
                let _ = self.proven.send(Connection { stream, peer, _permit: permit }).await;
            }
            Err(source) => {
                (self.refused)(RefusedHandshake { remote, why: HandshakeFailure::of(&source), source });
                if let Some(socket) = socket {
                    linger(socket).await;
                }
            }
        }
    }

    /// The peer, or what was wrong and, where there may be an alert to read, the socket.
    async fn shake_hands(&self, socket: TcpStream) -> (io::Result<(TlsStream<TcpStream>, Svid)>, Option<TcpStream>) {
        // Without it, small answers wait for the peer's acknowledgement of the one before.
        if let Err(error) = socket.set_nodelay(true) {
            return (Err(error), None);
        }
        let handshake = TlsAcceptor::from(self.identity.server_config()).accept(socket).into_fallible();
        match timeout(self.time, handshake).await {
            Err(_) => (Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")), None),
            Ok(Err((error, socket))) => (Err(error), Some(socket)),
            Ok(Ok(stream)) => match peer_of(&stream) {
                Ok(svid) => (Ok((stream, svid)), None),
                Err(error) => (Err(error), None),
            },
        }
    }
}

fn peer_of(stream: &TlsStream<TcpStream>) -> io::Result<Svid> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| io::Error::other(rustls::Error::NoCertificatesPresented))?;
    Svid::parse(leaf).map_err(|error| io::Error::other(rustls::Error::from(VerifyError::from(error))))
}

/// Reads what the peer has still sent, for a moment. Under TLS 1.3 a client speaks before it learns that it is refused,
/// and a socket that is closed with unread bytes takes the alert that says why down with it.
async fn linger(mut socket: TcpStream) {
    let drained = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut (&mut socket).take(MAX_LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER_TIMEOUT, drained).await;
}

impl Connection {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerInfo {
        self.peer.clone()
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TlsStream<TcpStream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Connected for Connection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
