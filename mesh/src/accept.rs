//! Accepts TCP connections, and retries after failures.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::backoff::Backoff;

/// Backoff after a failed accept, such as when file descriptors run out.
const MIN_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// Waits for the next connection. A failed accept is retried with backoff. Cancel safe.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_peer_error(&error) => debug!(%error, "connection closed before it was accepted"),
            Err(error) => {
                let delay = backoff.failed();
                warn!(%error, ?delay, "accept failed");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Whether the error concerns one connection only, so that the next accept needs no delay.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
