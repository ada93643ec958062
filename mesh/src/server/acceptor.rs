//! The acceptor: accepts TCP connections and performs TLS handshakes.
//!
//! tonic's acceptor cannot replace certificates and has no bounds. Here, concurrent handshakes are bounded in number and
//! time, connections in number, both also for each address, and the peer's identity is parsed once per connection.

mod address;

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
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use self::address::{Addresses, ConnectionPermit};
use crate::{
    accept::accept,
    identity::{Identity, Svid, VerifyError},
};

/// How long the acceptor lingers, so that a rejected peer can read the alert.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// How many bytes it reads meanwhile.
const MAX_LINGER_BYTES: u64 = 64 << 10;

/// The peer of a connection, in the extensions of each request.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// The peer's SVID.
    pub svid: Arc<Svid>,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// The limits of an acceptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Concurrent handshakes; more connections wait in the kernel's queue.
    pub max_handshakes: usize,
    /// The timeout of a handshake.
    pub handshake_timeout: Duration,
    /// Open connections, handshakes included; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Concurrent handshakes of one address; one more ends the oldest of them.
    pub max_handshakes_per_address: usize,
    /// Open connections of one address, handshakes included; more are closed.
    pub max_connections_per_address: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self {
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(5),
            max_connections: 10_000,
            max_handshakes_per_address: 128,
            max_connections_per_address: 5000,
        }
    }
}

/// A failed handshake.
#[derive(Debug)]
pub struct RefusedHandshake {
    /// The peer's address.
    pub remote: SocketAddr,
    /// The kind of failure, from a closed set.
    pub cause: HandshakeFailure,
    /// The cause, for the log.
    pub source: io::Error,
}

impl RefusedHandshake {
    /// The label in metrics; see [`HandshakeFailure::label`].
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.cause.label()
    }
}

impl fmt::Display for RefusedHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

/// The kinds of failed handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The peer sent no certificate.
    NoCertificate,
    /// No trusted root issued the certificate.
    UnknownIssuer,
    /// The certificate is from an untrusted trust domain.
    UntrustedDomain,
    /// The certificate has expired or is not valid yet.
    OutOfTime,
    /// The workload or its certificate is on the denylist.
    Denied,
    /// The certificate violates this rule of the X.509-SVID profile ([`label`](crate::identity::SvidError::label)).
    NoSvid(&'static str),
    /// The certificate is invalid for another cause.
    BadCertificate,
    /// The peer does not support TLS 1.3 and HTTP/2.
    Protocol,
    /// The peer rejected the server's certificate.
    Distrusted,
    /// The handshake timed out.
    Timeout,
    /// The peer disconnected.
    Closed,
    /// The peer's address has too many unfinished handshakes.
    AddressHandshakes,
    /// The peer's address has too many connections.
    AddressConnections,
}

impl HandshakeFailure {
    /// The label in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UntrustedDomain => "untrusted_domain",
            Self::OutOfTime => "out_of_time",
            Self::Denied => "denied",
            Self::NoSvid(rule) => rule,
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
            Self::Distrusted => "distrusted",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::AddressHandshakes => "address_handshakes",
            Self::AddressConnections => "address_connections",
        }
    }

    fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) else {
            return if error.kind() == io::ErrorKind::TimedOut { Self::Timeout } else { Self::Closed };
        };
        match error {
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::AlertReceived(alert) if is_about_own_certificate(*alert) => Self::Distrusted,
            _ => Self::Protocol,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. } => Self::OutOfTime,
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(VerifyError::Profile(error)) => Self::NoSvid(error.label()),
                Some(VerifyError::Denied { .. }) => Self::Denied,
                Some(VerifyError::TrustDomain(_)) => Self::UntrustedDomain,
                _ => Self::BadCertificate,
            },
            _ => Self::BadCertificate,
        }
    }
}

fn is_about_own_certificate(alert: AlertDescription) -> bool {
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

/// The own certificate of a handshake.
#[derive(Debug, Clone)]
pub(super) struct OwnCertificate {
    pub(super) svid: Arc<Svid>,
    /// [`Identity::generation`].
    pub(super) generation: u64,
}

/// A connection with an authenticated peer.
#[derive(Debug)]
pub struct PeerConnection {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    own: OwnCertificate,
    /// Released when the connection ends.
    _permit: ConnectionPermit,
}

/// Accepts connections until `stop`, each with the identity that is current when it arrives.
///
/// The stream ends after `stop`: pending handshakes are dropped, returned connections stay open. `on_refused` receives each
/// failed handshake.
pub fn accept_peers(
    listener: TcpListener,
    identity: Identity,
    limits: AcceptLimits,
    on_refused: impl Fn(RefusedHandshake) + Send + Sync + 'static,
    stop: CancellationToken,
) -> impl Stream<Item = io::Result<PeerConnection>> + Send + Unpin + 'static {
    // Capacity 1: the consumer applies backpressure.
    let (accepted_tx, connections) = mpsc::channel(1);
    let handshaker = Arc::new(Handshaker {
        identity,
        handshake_timeout: limits.handshake_timeout,
        on_refused: Box::new(on_refused),
        accepted_tx,
    });
    tokio::spawn(run(listener, limits, handshaker, stop));
    Box::pin(stream::unfold(connections, async |mut connections| {
        connections.recv().await.map(|connection| (Ok(connection), connections))
    }))
}

async fn run(listener: TcpListener, limits: AcceptLimits, handshaker: Arc<Handshaker>, stop: CancellationToken) {
    let handshake_permits = Arc::new(Semaphore::new(limits.max_handshakes.min(Semaphore::MAX_PERMITS)));
    let connection_permits = Arc::new(Semaphore::new(limits.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut addresses = Addresses::new(&limits);
    // Aborts pending handshakes when dropped.
    let mut pending = JoinSet::new();
    let ended = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = handshaker.accepted_tx.closed() => {}
        }
    };
    tokio::pin!(ended);
    loop {
        let next = async {
            // Never closed, so that there is always a permit.
            let handshake_permit = handshake_permits.clone().acquire_owned().await.ok();
            // Further connections wait in the kernel's queue.
            let permit = connection_permits.clone().acquire_owned().await.ok();
            let (stream, remote) = accept(&listener).await;
            (stream, remote, permit, handshake_permit)
        };
        tokio::select! {
            () = &mut ended => return,
            Some(_) = pending.join_next() => {}
            (stream, remote, permit, handshake_permit) = next => {
                let Some(permit) = addresses.open(remote, permit) else {
                    handshaker.refuse(remote, HandshakeFailure::AddressConnections);
                    continue;
                };
                let accepted = Accepted { stream, remote, permit };
                let task = pending.spawn(handshaker.clone().serve(accepted, handshake_permit));
                if let Some(oldest) = addresses.start_handshake(remote, task) {
                    handshaker.refuse(oldest, HandshakeFailure::AddressHandshakes);
                }
            }
        }
    }
}

/// An accepted connection, and its permit.
struct Accepted {
    stream: TcpStream,
    remote: SocketAddr,
    permit: ConnectionPermit,
}

struct Handshaker {
    identity: Identity,
    handshake_timeout: Duration,
    on_refused: Box<dyn Fn(RefusedHandshake) + Send + Sync>,
    accepted_tx: mpsc::Sender<PeerConnection>,
}

impl Handshaker {
    /// Reports a connection that is closed because its address has too many.
    fn refuse(&self, remote: SocketAddr, cause: HandshakeFailure) {
        let source = io::Error::other("too many connections or unfinished handshakes of one address");
        (self.on_refused)(RefusedHandshake { remote, cause, source });
    }

    /// One handshake. `handshake_permit` is held during the handshake, the permit during the connection.
    async fn serve(
        self: Arc<Self>,
        Accepted { stream: socket, remote, permit }: Accepted,
        handshake_permit: Option<tokio::sync::OwnedSemaphorePermit>,
    ) {
        // Read before the handshake: if the certificate is replaced meanwhile, the connection counts as older.
        let own = OwnCertificate { generation: self.identity.generation(), svid: self.identity.svid() };
        let (outcome, socket) = self.handshake(socket).await;
        drop(handshake_permit);
        match outcome {
            Ok((stream, svid)) => {
                let peer = PeerInfo { svid: Arc::new(svid), remote };
                // The consumer has ended: the server stops.
                let _ = self.accepted_tx.send(PeerConnection { stream, peer, own, _permit: permit }).await;
            }
            Err(source) => {
                (self.on_refused)(RefusedHandshake { remote, cause: HandshakeFailure::of(&source), source });
                if let Some(socket) = socket {
                    lingering_close(socket).await;
                }
            }
        }
    }

    /// Performs the handshake. On failure, also returns the socket if there may be an alert to read.
    async fn handshake(&self, socket: TcpStream) -> (io::Result<(TlsStream<TcpStream>, Svid)>, Option<TcpStream>) {
        // With Nagle's algorithm, small frames would wait for delayed acknowledgements.
        if let Err(error) = socket.set_nodelay(true) {
            return (Err(error), None);
        }
        let handshake = TlsAcceptor::from(self.identity.server_config()).accept(socket).into_fallible();
        match timeout(self.handshake_timeout, handshake).await {
            Err(_) => (Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake timed out")), None),
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

/// Reads what the peer has sent, with bounds. Under TLS 1.3 a client sends data before it receives the alert, and closing a
/// socket with unread data resets it, so that the alert would be lost.
async fn lingering_close(mut socket: TcpStream) {
    let drained = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut (&mut socket).take(MAX_LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER_TIMEOUT, drained).await;
}

impl PeerConnection {
    /// The peer.
    #[must_use]
    pub fn peer(&self) -> PeerInfo {
        self.peer.clone()
    }

    /// The own certificate of the handshake.
    pub(super) fn own(&self) -> OwnCertificate {
        self.own.clone()
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut TlsStream<TcpStream>> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Connected for PeerConnection {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer()
    }
}

impl AsyncRead for PeerConnection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for PeerConnection {
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
