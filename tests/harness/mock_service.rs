//! A mock gRPC service that records the calls it receives.

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

/// A recorded call.
#[derive(Debug, Clone)]
pub struct RecordedCall {
    /// `/package.Service/Method`
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The encoded message, without the five-byte gRPC prefix.
    pub message: Bytes,
}

/// A gRPC server that records every call and answers each with the same response. Health checks are answered SERVING and
/// not recorded. It runs until the test's runtime ends.
#[derive(Debug, Clone)]
pub struct MockService {
    address: SocketAddr,
    response: Result<Bytes, Status>,
    calls: Arc<Mutex<Vec<RecordedCall>>>,
}

impl MockService {
    /// Starts it with this certificate. It asks for no client certificate, and answers with an empty message.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(credentials: Credentials) -> Self {
        Self::start_with_response(credentials, Ok(Bytes::new())).await
    }

    /// Starts it with this response: an encoded message, or an error status.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start_with_response(credentials: Credentials, response: Result<Bytes, Status>) -> Self {
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
        let address = listener.local_addr().expect("the listener is bound");
        let this = Self { address, response, calls: Arc::default() };
        let service = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(service.clone().serve_connection(acceptor.clone(), stream));
            }
        });
        this
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The calls so far, without health checks.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn serve_connection(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let service = service_fn(move |request: Request<Incoming>| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let _may_be_closed_by_the_client =
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
    ) -> Response<impl hyper::body::Body<Data = Bytes, Error = Infallible> + use<>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let path = head.uri.path().to_owned();
        let outcome = if path == "/grpc.health.v1.Health/Check" {
            // SERVING
            Ok(Bytes::from_static(&[8, 1]))
        } else {
            let call = RecordedCall { path, headers: head.headers, message: body.slice(body.len().min(5)..) };
            self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
            self.response.clone()
        };
        let status = outcome.as_ref().err().cloned().unwrap_or_else(|| Status::ok(""));
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).expect("the status fits into headers");
        let frames = outcome.ok().map(|message| Frame::data(length_prefixed(&message)));
        let frames: Vec<_> = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok).collect();
        let mut response = Response::new(StreamBody::new(tokio_stream::iter(frames)));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        response
    }
}

/// A gRPC length-prefixed message, not compressed.
fn length_prefixed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("the message is short").to_be_bytes();
    [&[0], &length[..], message].concat().into()
}
