//! Accepts TCP connections up to a limit, and retries after failures.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

use crate::backoff::Backoff;

/// Backoff after a failed accept, such as when file descriptors run out.
const MIN_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The address of the peer.
    pub remote: SocketAddr,
    /// Counts the connection towards the limit until it is dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Waits for one of `permits`, then for the next connection; until then, connections wait in the kernel's queue. A failed
/// accept is retried with backoff. Cancel safe.
pub async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Accepted {
    // The semaphore is never closed.
    let permit = permits.clone().acquire_owned().await.ok();
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return Accepted { stream, remote, permit },
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

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn connections_over_the_permit_limit_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let permits = Arc::new(Semaphore::new(1));
        let (_one, _other) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let first = accept(&listener, &permits).await;
        let mut second = pin!(accept(&listener, &permits));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.await;
    }
}
