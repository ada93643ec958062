//! A connection to a service: TCP, then mutual TLS with the identity that we expect there.

use std::{future::Future, io, pin::Pin, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::Uri;
use tower::{Service, service_fn};

use crate::identity::{Identity, SpiffeId};

/// How long a connection may take, handshake included.
const CONNECT_TIME: Duration = Duration::from_secs(1);

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

/// Connects to `address`, whoever asks for whatever URI, and requires `expected` there.
pub(super) fn connector(
    identity: Identity,
    expected: SpiffeId,
    address: String,
) -> impl Service<Uri, Response = TokioIo<TlsStream<TcpStream>>, Error = io::Error, Future = Connecting> + Clone + Send
{
    service_fn(move |_: Uri| -> Connecting {
        let (identity, expected, address) = (identity.clone(), expected.clone(), address.clone());
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIME, connect(&identity, &expected, &address)).await;
            let timed_out = |_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("no connection to {address} within {CONNECT_TIME:?}"))
            };
            connected.map_err(timed_out)?.map(TokioIo::new)
        })
    })
}

async fn connect(identity: &Identity, expected: &SpiffeId, address: &str) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    // Small frames that wait for each other cost a hundredfold.
    stream.set_nodelay(true)?;
    // Read at each connection, so that a swapped identity is used from the next one on.
    let config = identity.client_config(expected).map_err(io::Error::other)?;
    // The name is sent as SNI and no more: who answers is decided by SPIFFE ID.
    let name = ServerName::try_from(expected.workload().unwrap_or("service").to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}
