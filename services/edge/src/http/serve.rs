//! Connections: accepted, limited in time and number, and drained when the edge stops.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use drystone_mesh::accept::{Accepted, accept};
use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{config::Config, exchange::Exchange, forward::Backend};

/// The maximum size of a request's headers, of which a token may take 8 KiB.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The timeout for the request of a client that connected just before the stop. If the connection is closed before the
/// request is read, the client cannot know whether it was executed.
const FINAL_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);

/// Serves until `stop`, then lets running requests end.
pub(crate) async fn run<C: Backend>(
    exchange: Arc<Exchange<C>>,
    config: &Config,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    info!(service = crate::NAME, %address, "serving");
    let http = http(config);
    let max_connections = config.connections.min(Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();

    let serve = |Accepted { stream, remote, permit }: Accepted| {
        let (exchange, watcher, http) = (exchange.clone(), graceful.watcher(), http.clone());
        let request_timeout = config.request_time.duration();
        tokio::spawn(async move {
            let connections = exchange.metrics.connections.clone();
            connections.inc();
            serve_connection(exchange, &http, stream, remote, request_timeout, watcher).await;
            connections.dec();
            drop(permit);
        });
    };
    while let Some(accepted) = stop.run_until_cancelled(accept(&listener, &slots)).await {
        serve(accepted);
    }
    // Serve the connections in the backlog. The socket is polled directly, since the runtime may not have been notified of
    // the last of them.
    let listener = listener.into_std()?;
    while let Ok(permit) = Arc::clone(&slots).try_acquire_owned()
        && let Ok((stream, remote)) = listener.accept()
    {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            serve(Accepted { stream, remote, permit: Some(permit) });
        }
    }
    drop(listener);
    let is_connected = slots.available_permits() < max_connections;
    if is_connected {
        time::sleep(FINAL_REQUEST_TIMEOUT.min(config.stop_time.duration())).await;
    }
    if time::timeout(config.stop_time.duration(), graceful.shutdown()).await.is_err() {
        warn!(service = crate::NAME, "requests were cancelled at the stop timeout");
    }
    info!(service = crate::NAME, "stopped");
    Ok(())
}

/// HTTP/1.1, and HTTP/2 for clients that send its preface.
fn http(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // This timeout also runs while a connection is idle.
        .header_read_timeout(config.idle_time.duration())
        .max_buf_size(MAX_HEADER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

async fn serve_connection<C: Backend>(
    exchange: Arc<Exchange<C>>,
    http: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    request_timeout: Duration,
    watcher: Watcher,
) {
    // Otherwise small responses wait for acknowledgements. A socket that fails here fails at its next use, too.
    let _ = stream.set_nodelay(true);
    let first_request = Arc::new(Notify::new());
    let received = first_request.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        received.notify_one();
        let exchange = exchange.clone();
        async move { Ok::<_, Infallible>(exchange.respond(request, peer).await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        end = watcher.watch(connection) => {
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
