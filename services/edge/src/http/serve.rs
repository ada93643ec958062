//! Connections: accepted, limited in time and number, and drained when the edge stops.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use drystone_mesh::{
    accept::accept,
    connections::{Connection, ConnectionLimits, Connections, MeteredIo, PeerKind, StreamExecutor},
    limit::Key,
    memory,
};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    config::Config,
    exchange::Exchange,
    forward::Backend,
    http::{
        proxies::Peer,
        proxy_protocol::{self, Source},
    },
};

/// How many connections are accepted before others have their turn. The runtime would allow 128, whose first requests then keep a thread
/// for milliseconds.
const MAX_ACCEPTED: usize = 8;

/// The maximum size of a request's head, of which a token may take 8 KiB.
const MAX_HEAD: usize = 16 * 1024;

/// The same for a trusted proxy: more than common proxies accept (Envoy: 60 KiB). A larger head can end an HTTP/2 connection,
/// which a proxy uses for many clients.
const MAX_HEAD_OF_PROXY: usize = 96 * 1024;

/// How much of a response HTTP/2 buffers for each stream, in bytes.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// The HTTP/2 flow-control windows, in bytes: how much of request bodies is buffered for each stream and connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;

/// How many connections may wait for their PROXY header at a time. Proxies send it at once.
const MAX_PENDING_HEADERS: usize = 1024;

/// How many connections of the kernel's queue are served at a stop; by default it holds no more.
const MAX_BACKLOG: usize = 4096;

/// The timeout for the request of a client that connected just before the stop. If the connection is closed before the
/// request is read, the client cannot know whether it was executed.
const FINAL_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

/// The server of one listener.
struct Listening<C> {
    exchange: Arc<Exchange<C>>,
    connections: Connections,
    request_timeout: Duration,
    idle_timeout: Duration,
    /// Where each connection begins with a header of the PROXY protocol: the permits to wait for one.
    headers: Option<Arc<Semaphore>>,
    stop: CancellationToken,
    /// Whether a connection that the PROXY protocol refuses has been reported.
    has_warned: AtomicBool,
}

/// Serves until `stop`, then lets running requests end.
pub(crate) async fn run<C: Backend>(
    exchange: Arc<Exchange<C>>,
    config: &Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let (address, memory) = (listener.local_addr()?, memory::available());
    let limits = limits(config, memory);
    let memory_mib = memory.map(|bytes| bytes >> 20);
    info!(service = crate::NAME, %address, max_connections = limits.max_connections, memory_mib, "serving");
    let listening = Arc::new(Listening {
        exchange,
        connections: Connections::new(limits),
        request_timeout: config.request_time.duration(),
        idle_timeout: config.idle_time.duration(),
        headers: config.proxy_protocol.then(|| Arc::new(Semaphore::new(MAX_PENDING_HEADERS))),
        stop: stop.clone(),
        has_warned: AtomicBool::new(false),
    });
    listening.exchange.metrics.register_bytes(listening.connections.unsent(), listening.connections.request_bytes());
    let accepting = async {
        loop {
            for _ in 0..MAX_ACCEPTED {
                let (stream, remote) = accept(&listener).await;
                listening.admit(stream, remote).await;
            }
            // However fast a stranger opens connections, those that are open have their turn.
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
        () = listening.connections.sweep() => {}
    }
    // Serve the connections in the backlog. The socket is polled directly, since the runtime may not have been notified of
    // the last of them.
    let listener = listener.into_std()?;
    for _ in 0..MAX_BACKLOG {
        let Ok((stream, remote)) = listener.accept() else { break };
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream))
            && !listening.try_admit(stream, remote)
        {
            break;
        }
    }
    drop(listener);
    let connections = &listening.connections;
    let is_waiting =
        listening.headers.as_ref().is_some_and(|headers| headers.available_permits() < MAX_PENDING_HEADERS);
    if connections.count() > 0 || is_waiting {
        time::sleep(FINAL_REQUEST_TIMEOUT.min(config.stop_time.duration())).await;
    }
    // Headers are not waited for any more: what has not been registered will not be.
    if let Some(headers) = &listening.headers {
        headers.close();
        while headers.available_permits() < MAX_PENDING_HEADERS {
            tokio::task::yield_now().await;
        }
    }
    if time::timeout(config.stop_time.duration(), connections.close()).await.is_err() {
        connections.evict_all();
        warn!(service = crate::NAME, "requests were cancelled at the stop timeout");
    }
    info!(service = crate::NAME, "stopped");
    Ok(())
}

/// HTTP/1.1, and HTTP/2 for clients that send its preface.
fn http(streams: StreamExecutor, idle_timeout: Duration, max_head: usize) -> auto::Builder<StreamExecutor> {
    let mut http = auto::Builder::new(streams);
    http.http1()
        .timer(TokioTimer::new())
        // This timeout also runs while a connection is idle.
        .header_read_timeout(idle_timeout)
        .max_buf_size(max_head);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(max_head).unwrap_or(u32::MAX))
        .max_concurrent_streams(100)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

fn limits(config: &Config, memory: Option<u64>) -> ConnectionLimits {
    let max_unsent = config.max_unread(memory);
    ConnectionLimits {
        max_connections: config.max_connections(memory),
        max_per_peer: config.connections_per_address,
        idle_timeout: Some(config.idle_time.duration()),
        send_timeout: config.send_time.duration(),
        max_unsent_per_connection: max_unsent / 8,
        max_unsent_per_peer: max_unsent / 4,
        max_unsent,
        max_request_bytes_per_peer: config.request_memory / 4,
        max_request_bytes: config.request_memory,
    }
}

impl<C: Backend> Listening<C> {
    fn kind(&self, peer: Peer) -> PeerKind {
        let key = Key::client(peer.address().ip());
        if self.exchange.trusted_proxies.trusts_peer(peer) { PeerKind::Proxy(key) } else { PeerKind::Client(key) }
    }

    /// Registers and serves a connection. Waits while there are too many.
    async fn admit(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let Some(headers) = &self.headers else {
            let peer = Peer::Socket(remote);
            if let Ok(connection) = self.connections.register(self.kind(peer)).await {
                self.spawn(self.clone().serve(stream, peer, connection));
            }
            return;
        };
        if self.may_connect(remote)
            && let Ok(permit) = headers.clone().acquire_owned().await
        {
            self.spawn(self.clone().serve_client_of_proxy(stream, remote, permit));
        }
    }

    /// The same without waiting. Returns false if there are too many.
    fn try_admit(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) -> bool {
        let Some(headers) = &self.headers else {
            let peer = Peer::Socket(remote);
            let Some(registered) = self.connections.try_register(self.kind(peer)) else { return false };
            if let Ok(connection) = registered {
                self.spawn(self.clone().serve(stream, peer, connection));
            }
            return true;
        };
        if !self.may_connect(remote) {
            return true;
        }
        let permit = headers.clone().try_acquire_owned();
        permit.map(|permit| self.spawn(self.clone().serve_client_of_proxy(stream, remote, permit))).is_ok()
    }

    fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        let gauge = self.exchange.metrics.connections.clone();
        tokio::spawn(async move {
            gauge.inc();
            serving.await;
            gauge.dec();
        });
    }

    /// A peer that speaks the PROXY protocol can state any client, so only trusted proxies may.
    fn may_connect(&self, remote: SocketAddr) -> bool {
        let may_connect = self.exchange.trusted_proxies.trusts(remote.ip());
        if !may_connect {
            self.warn_once(remote, "the peer is not in edge.trusted_proxies");
        }
        may_connect
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: Peer, connection: Connection) {
        let max_head = match self.kind(peer) {
            PeerKind::Client(_) | PeerKind::Workload(_) => MAX_HEAD,
            PeerKind::Proxy(_) => MAX_HEAD_OF_PROXY,
        };
        let http = http(StreamExecutor::new(connection.usage().clone()), self.idle_timeout, max_head);
        serve_connection(self.exchange.clone(), &http, stream, peer, &connection, self.request_timeout).await;
    }

    /// Serves a connection whose proxy states the client. Until then it is not registered, and holds a permit: it is
    /// nobody's, and no client can make it lose its place.
    async fn serve_client_of_proxy(
        self: Arc<Self>,
        mut stream: TcpStream,
        proxy: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) {
        let header = tokio::select! {
            header = time::timeout(self.request_timeout, proxy_protocol::read_header(&mut stream)) => header,
            () = self.stopped() => return,
        };
        let peer = match header {
            Ok(Ok(Source::Local)) => Peer::Socket(proxy),
            Ok(Ok(Source::Unknown)) => Peer::Unstated(proxy),
            Ok(Ok(Source::Client(client))) => Peer::Stated(SocketAddr::new(client.ip().to_canonical(), client.port())),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return self.warn_once(proxy, &error.to_string());
            }
            Ok(Err(error)) => return debug!(%proxy, %error, "connection failed within its PROXY header"),
            Err(_elapsed) => return debug!(%proxy, "connection closed: no PROXY header"),
        };
        let registered = tokio::select! {
            registered = self.connections.register(self.kind(peer)) => registered,
            () = self.stopped() => return,
        };
        drop(permit);
        if let Ok(connection) = registered {
            self.serve(stream, peer, connection).await;
        }
    }

    /// Waits until a stop waits no longer for connections that are not registered.
    async fn stopped(&self) {
        self.stop.cancelled().await;
        time::sleep(FINAL_REQUEST_TIMEOUT).await;
    }

    /// The first refusal is a warning, since it may be a proxy that is not configured; more of them are not news.
    fn warn_once(&self, peer: SocketAddr, cause: &str) {
        if self.has_warned.swap(true, Ordering::Relaxed) {
            debug!(%peer, cause, "connection closed");
        } else {
            warn!(
                %peer,
                cause,
                "connection closed: with edge.proxy_protocol, each connection comes from a proxy in edge.trusted_proxies and \
                 begins with a PROXY header; correct the proxy, or the setting"
            );
        }
    }
}

async fn serve_connection<C: Backend>(
    exchange: Arc<Exchange<C>>,
    http: &auto::Builder<StreamExecutor>,
    stream: TcpStream,
    peer: Peer,
    open: &Connection,
    request_timeout: Duration,
) {
    // Otherwise small responses wait for acknowledgements. A socket that fails here fails at its next use, too.
    let _ = stream.set_nodelay(true);
    let first_request = Arc::new(Notify::new());
    let (received, of_request) = (first_request.clone(), open.usage().clone());
    let service = service_fn(move |request: Request<Incoming>| {
        received.notify_one();
        let (exchange, in_progress) = (exchange.clone(), of_request.start_request());
        async move { Ok::<_, Infallible>(exchange.respond(request, peer, in_progress).await) }
    });
    let socket = TokioIo::new(MeteredIo::new(stream, open.usage().clone()));
    tokio::select! {
        end = open.serve(http.serve_connection(socket, service)) => {
            if let Err(error) = end {
                debug!(?peer, %error, "connection failed");
            }
        }
        () = first_request_timeout(&first_request, request_timeout) => debug!(?peer, "connection closed: no request"),
    }
}

/// Ends at the timeout if no request has been received, and never otherwise.
async fn first_request_timeout(first_request: &Notify, timeout: Duration) {
    if time::timeout(timeout, first_request.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
