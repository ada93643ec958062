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
    connections::{Connection, ConnectionLimits, Connections, MeteredIo, PeerKind},
    limit::Key,
    memory,
};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{config::Config, exchange::Exchange, forward::Backend, http::proxy_protocol};

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

/// The timeout for the request of a client that connected just before the stop. If the connection is closed before the
/// request is read, the client cannot know whether it was executed.
const FINAL_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

/// The server of one listener.
struct Listening<C> {
    exchange: Arc<Exchange<C>>,
    connections: Connections,
    http: auto::Builder<TokioExecutor>,
    http_of_proxy: auto::Builder<TokioExecutor>,
    request_timeout: Duration,
    /// Whether each connection begins with a header of the PROXY protocol.
    has_proxy_protocol: bool,
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
        http: http(config, MAX_HEAD),
        http_of_proxy: http(config, MAX_HEAD_OF_PROXY),
        request_timeout: config.request_time.duration(),
        has_proxy_protocol: config.proxy_protocol,
        has_warned: AtomicBool::new(false),
    });
    listening.exchange.metrics.register_unsent(listening.connections.unsent());
    let accepting = async {
        loop {
            let (stream, remote) = accept(&listener).await;
            if listening.may_connect(remote)
                && let Ok(connection) = listening.connections.register(listening.peer(remote)).await
            {
                listening.serve(stream, remote, connection);
            }
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
    while let Ok((stream, remote)) = listener.accept() {
        if !listening.may_connect(remote) {
            continue;
        }
        let Some(registered) = listening.connections.try_register(listening.peer(remote)) else { break };
        if let Ok(connection) = registered
            && let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream))
        {
            listening.serve(stream, remote, connection);
        }
    }
    drop(listener);
    let connections = &listening.connections;
    if connections.count() > 0 {
        time::sleep(FINAL_REQUEST_TIMEOUT.min(config.stop_time.duration())).await;
    }
    if time::timeout(config.stop_time.duration(), connections.close()).await.is_err() {
        connections.evict_all();
        warn!(service = crate::NAME, "requests were cancelled at the stop timeout");
    }
    info!(service = crate::NAME, "stopped");
    Ok(())
}

/// HTTP/1.1, and HTTP/2 for clients that send its preface.
fn http(config: &Config, max_head: usize) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // This timeout also runs while a connection is idle.
        .header_read_timeout(config.idle_time.duration())
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
    }
}

impl<C: Backend> Listening<C> {
    fn peer(&self, remote: SocketAddr) -> PeerKind {
        let key = Key::client(remote.ip());
        if self.exchange.trusted_proxies.trusts(remote.ip()) { PeerKind::Proxy(key) } else { PeerKind::Single(key) }
    }

    /// Whoever speaks the PROXY protocol states any client, so only trusted proxies may.
    fn may_connect(&self, remote: SocketAddr) -> bool {
        let may_connect = !self.has_proxy_protocol || self.exchange.trusted_proxies.trusts(remote.ip());
        if !may_connect {
            self.warn_once(remote, "the peer is not in edge.trusted_proxies");
        }
        may_connect
    }

    fn serve(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr, connection: Connection) {
        let this = self.clone();
        tokio::spawn(async move {
            let gauge = this.exchange.metrics.connections.clone();
            gauge.inc();
            this.serve_client(stream, remote, connection).await;
            gauge.dec();
        });
    }

    async fn serve_client(&self, mut stream: TcpStream, mut peer: SocketAddr, mut connection: Connection) {
        if self.has_proxy_protocol {
            let Some(client) = self.client_of_proxy(&mut stream, peer, connection).await else { return };
            (peer, connection) = client;
        }
        let http = match self.peer(peer) {
            PeerKind::Single(_) => &self.http,
            PeerKind::Proxy(_) => &self.http_of_proxy,
        };
        serve_connection(self.exchange.clone(), http, stream, peer, &connection, self.request_timeout).await;
    }

    /// Reads the client that the proxy states, and registers the connection as the client's. `None` if it is to be closed.
    async fn client_of_proxy(
        &self,
        stream: &mut TcpStream,
        proxy: SocketAddr,
        connection: Connection,
    ) -> Option<(SocketAddr, Connection)> {
        let header = tokio::select! {
            header = time::timeout(self.request_timeout, proxy_protocol::read_header(stream)) => header,
            () = connection.closing() => return None,
        };
        match header {
            Ok(Ok(None)) => Some((proxy, connection)),
            Ok(Ok(Some(client))) => {
                // Its place is free for the client.
                drop(connection);
                let client = SocketAddr::new(client.ip().to_canonical(), client.port());
                let registered = self.connections.try_register(self.peer(client));
                registered.and_then(Result::ok).map(|connection| (client, connection))
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                self.warn_once(proxy, &error.to_string());
                None
            }
            Ok(Err(error)) => {
                debug!(%proxy, %error, "connection failed within its PROXY header");
                None
            }
            Err(_elapsed) => {
                debug!(%proxy, "connection closed: no PROXY header");
                None
            }
        }
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
    http: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
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
                debug!(%peer, %error, "connection failed");
            }
        }
        () = first_request_timeout(&first_request, request_timeout) => debug!(%peer, "connection closed: no request"),
    }
}

/// Ends at the timeout if no request has been received, and never otherwise.
async fn first_request_timeout(first_request: &Notify, timeout: Duration) {
    if time::timeout(timeout, first_request.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
