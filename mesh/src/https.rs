//! A small HTTPS client: one request over a connection of its own, by HTTP/1.1 with TLS 1.2 or 1.3.
//!
//! It is for servers outside the mesh that are called rarely. It follows no redirects, uses no proxies, and resolves no
//! names: the caller says which addresses it may connect to, while the certificate is verified for the host of the URL.

mod error;
mod tls;

use std::{fmt, net::SocketAddr, path::Path, pin::pin, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use url::{Host, Url};

pub use self::{
    error::{ConnectError, ExchangeError, OriginError},
    tls::Tls,
};

/// The maximum size of a response's head in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The maximum number of headers of a response.
const MAX_HEADERS: usize = 64;
/// How much of a body that nobody needs is read.
const MAX_DRAIN: usize = 64 * 1024;

const USER_AGENT: HeaderValue = HeaderValue::from_static("drystone");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// The scheme, host and port of a URL, with what connecting to it needs.
#[derive(Clone)]
pub struct Origin {
    host: Host,
    port: u16,
    /// The `Host` header.
    authority: HeaderValue,
    /// `None`: HTTP without TLS.
    tls: Option<Tls>,
}

impl Origin {
    /// The origin of a URL. Certificates are verified with the roots in `ca`, a PEM file; if that is empty, with those
    /// of the system.
    ///
    /// This reads files: call it once.
    pub fn new(url: &Url, ca: &Path) -> Result<Self, OriginError> {
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(OriginError::Url);
        };
        let authority = url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        let authority = HeaderValue::try_from(authority).map_err(|_| OriginError::Url)?;
        let host = host.to_owned();
        let tls = match url.scheme() {
            "https" => Some(Tls::new(&host, ca, &[b"http/1.1"])?),
            "http" => None,
            _ => return Err(OriginError::Url),
        };
        Ok(Self { host, port, authority, tls })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connects to the first of these addresses that accepts a connection. Connecting by TCP and the TLS handshake may
    /// each take `limit`. If the handshake fails, no other address is tried.
    pub async fn connect(&self, addresses: &[SocketAddr], limit: Duration) -> Result<Connection, ConnectError> {
        let stream = tcp(addresses, limit).await?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some(tls) => {
                let result = timeout(limit, tls.connect(stream)).await.map_err(|_| ConnectError::TlsTimeout)?;
                Box::new(result.map_err(ConnectError::Tls)?)
            }
            None => Box::new(stream),
        };
        Ok(Connection { stream, authority: self.authority.clone() })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

/// A connection, for one request.
pub struct Connection {
    stream: Box<dyn Stream>,
    authority: HeaderValue,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Connection {
    /// Sends a request whose URI is a path and a query, and returns the response. Both take at most `limit`, and the
    /// response's body has at most `max_body` bytes. `Host`, `Connection` and `User-Agent` are added.
    pub async fn exchange(
        self,
        request: Request<Bytes>,
        limit: Duration,
        max_body: usize,
    ) -> Result<Response<Bytes>, ExchangeError> {
        let deadline = Instant::now() + limit;
        self.send(request, deadline, async |response| {
            let (head, body) = response.into_parts();
            let body = timeout_at(deadline, Limited::new(body, max_body).collect()).await;
            let body = body.map_err(|_| ExchangeError::Timeout)?.map_err(|error| {
                error.downcast::<hyper::Error>().map_or(ExchangeError::TooLarge(max_body), |error| (*error).into())
            })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        })
        .await
    }

    /// As [`Self::exchange`], for a response whose body nobody needs: the head arrives within `limit`, and whatever
    /// happens after it is no error.
    ///
    /// The body is read for up to `drain` and 64 KiB: many servers cancel a handler whose client disconnects.
    pub async fn exchange_head(
        self,
        request: Request<Bytes>,
        limit: Duration,
        drain: Duration,
    ) -> Result<Response<()>, ExchangeError> {
        self.send(request, Instant::now() + limit, async |response| {
            let (head, body) = response.into_parts();
            let _enough = timeout(drain, discard(body)).await;
            Ok(Response::from_parts(head, ()))
        })
        .await
    }

    async fn send<T>(
        self,
        request: Request<Bytes>,
        deadline: Instant,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, ExchangeError>,
    ) -> Result<T, ExchangeError> {
        let mut request = request.map(Full::new);
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.authority);
        headers.insert(header::CONNECTION, CLOSE);
        headers.insert(header::USER_AGENT, USER_AGENT);
        let mut client = http1::Builder::new();
        client.max_headers(MAX_HEADERS).max_header_size(MAX_HEAD).max_buf_size(MAX_HEAD);
        let (mut sender, connection) = client.handshake(TokioIo::new(self.stream)).await?;
        let mut exchange = pin!(async {
            let response = timeout_at(deadline, sender.send_request(request)).await;
            read(response.map_err(|_| ExchangeError::Timeout)??).await
        });
        tokio::select! {
            result = exchange.as_mut() => result,
            // The response may have arrived before the end.
            _end = connection => exchange.await,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("authority", &self.authority).finish_non_exhaustive()
    }
}

async fn discard(mut body: Incoming) {
    let mut size = 0;
    while let Some(Ok(frame)) = body.frame().await {
        size += frame.data_ref().map_or(0, Bytes::len);
        if size >= MAX_DRAIN {
            return;
        }
    }
}

async fn tcp(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + limit;
    let mut failure = ConnectError::NoAddress;
    for (index, address) in addresses.iter().enumerate() {
        // An address that does not answer leaves their share to the others.
        let others = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / others;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = ConnectError::Tcp(error),
            Err(_elapsed) => failure = ConnectError::TcpTimeout,
        }
    }
    Err(failure)
}

#[cfg(test)]
mod tests;
