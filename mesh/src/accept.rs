//! Accepting connections: bounded in number, and going on after a failure.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::{debug, warn};

use crate::backoff::Backoff;

/// The bounds of the backoff after a failing accept, such as for want of file handles.
const MIN_BACKOFF: Duration = Duration::from_millis(5);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A connection that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The address of the peer.
    pub remote: SocketAddr,
    /// Its share of the bound, given back when it is dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// The next connection, once one of `permits` is free; until then, connections wait in the kernel's queue. A failing accept
/// is retried with backoff. Cancel safe.
pub async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Accepted {
    // Never closed, so that there is always a permit.
    let permit = permits.clone().acquire_owned().await.ok();
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => return Accepted { stream, remote, permit },
            Err(error) if is_of_the_peer(&error) => debug!(%error, "connection ended before it was accepted"),
            Err(error) => {
                let delay = backoff.failed();
                warn!(%error, ?delay, "connection could not be accepted");
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// Whether the error concerns only one connection.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_more_connections_are_accepted_than_there_are_permits() {
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
