//! Connections: accepted, held to their times, and let end when the edge stops.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

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
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{config::Config, exchange::Exchange, forward::Backend};

/// All of a request's headers: a token of 8 KiB, and room for the rest.
const LARGEST_HEAD: usize = 64 * 1024;
/// How long to wait after a failing accept, such as for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long whoever connected just before the stop has to say what they want: a connection that is closed before its
/// request was read is a call lost, and its client cannot know whether it was done.
const LAST_WORD: Duration = Duration::from_millis(250);

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
    let most = config.connections.min(Semaphore::MAX_PERMITS);
    let slots = Arc::new(Semaphore::new(most));
    let graceful = GracefulShutdown::new();

    let serve = |stream, client, slot| {
        let (exchange, watcher, http) = (exchange.clone(), graceful.watcher(), http.clone());
        let request_time = config.request_time.duration();
        tokio::spawn(async move {
            let connections = exchange.metrics.connections.clone();
            connections.inc();
            converse(exchange, &http, stream, client, request_time, watcher).await;
            connections.dec();
            drop(slot);
        });
    };
    while let Some((stream, client, slot)) = stop.run_until_cancelled(next(&listener, &slots)).await {
        serve(stream, client, slot);
    }
    // Some are connected as far as they know, and wait to be accepted. The system itself is asked, since the runtime may
    // not have heard of the last of them.
    let listener = listener.into_std()?;
    while let Ok(slot) = Arc::clone(&slots).try_acquire_owned()
        && let Ok((stream, client)) = listener.accept()
    {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            serve(stream, client, Some(slot));
        }
    }
    drop(listener);
    let is_connected = slots.available_permits() < most;
    if is_connected {
        time::sleep(LAST_WORD.min(config.stop_time.duration())).await;
    }
    if time::timeout(config.stop_time.duration(), graceful.shutdown()).await.is_err() {
        warn!(service = crate::NAME, "some requests did not end in time and were cut");
    }
    info!(service = crate::NAME, "stopped");
    Ok(())
}

/// The next connection, once there is room for it.
async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, client)) => return (stream, client, slot),
            Err(error) => {
                warn!(service = crate::NAME, %error, "connection could not be accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// HTTP/1.1, and HTTP/2 for whoever begins with it.
fn http(config: &Config) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // It runs while a connection waits for its next request, too.
        .header_read_timeout(config.idle_time.duration())
        .max_buf_size(LARGEST_HEAD);
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(LARGEST_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(100)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    http
}

async fn converse<C: Backend>(
    exchange: Arc<Exchange<C>>,
    http: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    client: SocketAddr,
    request_time: Duration,
    watcher: Watcher,
) {
    // Without it small answers wait for acknowledgements. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let has_asked = Arc::new(Notify::new());
    let asked = has_asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        asked.notify_one();
        let exchange = exchange.clone();
        async move { Ok::<_, Infallible>(exchange.answer(request, client).await) }
    });
    let connection = http.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        end = watcher.watch(connection) => {
            if let Err(error) = end {
                debug!(%client, %error, "connection ended early");
            }
        }
        () = silence(&has_asked, request_time) => debug!(%client, "connection closed, since no request came"),
    }
}

/// Ends where no request comes within `patience`, and never otherwise.
async fn silence(has_asked: &Notify, patience: Duration) {
    if time::timeout(patience, has_asked.notified()).await.is_ok() {
        std::future::pending::<()>().await;
    }
}
