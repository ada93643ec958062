//! A server that stands where a service of the mesh should, to see what it is sent.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, version::TLS13};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::Status;

use crate::certs::Credentials;

/// What one call brought along.
#[derive(Debug, Clone)]
pub struct Seen {
    /// `/package.Service/Method`
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The message, without its length.
    pub message: Bytes,
}

/// A gRPC server that writes down every call and gives all of them one answer, or says that it is well where it is
/// asked for its health. It runs until the test's runtime ends.
#[derive(Debug, Clone)]
pub struct Impostor {
    address: SocketAddr,
    answer: Result<Bytes, Status>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Impostor {
    /// Starts it with this certificate. It believes every client, and answers an empty message.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(credentials: Credentials) -> Self {
        Self::answering(credentials, Ok(Bytes::new())).await
    }

    /// The same with this answer: an encoded message, or a refusal.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn answering(credentials: Credentials, answer: Result<Bytes, Status>) -> Self {
        let (chain, key) = credentials.into_parts();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the version is known")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key fits");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let this = Self { address: listener.local_addr().expect("it is bound"), answer, seen: Arc::default() };
        let impostor = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(impostor.clone().converse(acceptor.clone(), stream));
            }
        });
        this
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The calls so far, questions for its health left out.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn converse(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let service = service_fn(move |request: Request<Incoming>| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.answer(request).await) }
        });
        let _the_peer_may_go =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = head.uri.path().to_owned();
        let answer = if path == "/grpc.health.v1.Health/Check" {
            // SERVING
            Ok(Bytes::from_static(&[8, 1]))
        } else {
            let seen = Seen { path, headers: head.headers, message: body.slice(body.len().min(5)..) };
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            self.answer.clone()
        };
        let status = answer.as_ref().err().cloned().unwrap_or_else(|| Status::ok(""));
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("the status fits into headers");
        let frames = answer.ok().map(|message| Frame::data(framed(&message)));
        let frames: Vec<_> = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok).collect();
        let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        response
    }
}

/// A message with its prefix: not compressed, and so long.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("the message is short").to_be_bytes();
    [&[0], &length[..], message].concat().into()
}
