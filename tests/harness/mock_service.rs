//! A mock gRPC service that records the calls it receives.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ServerConfig, version::TLS13};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
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

/// A gRPC server that records every call and answers each with the same response, or echoes. Health checks are answered
/// SERVING and not recorded. It runs until the test's runtime ends.
#[derive(Debug, Clone)]
pub struct MockService {
    address: SocketAddr,
    response: Arc<Mutex<MockResponse>>,
    calls: Arc<Mutex<Vec<RecordedCall>>>,
    open_streams: Arc<AtomicUsize>,
}

/// What a mock service answers.
#[derive(Debug, Clone)]
pub enum MockResponse {
    /// An encoded message, or an error.
    Unary(Result<Bytes, Status>),
    /// Each message of the client, twice, as soon as it arrives.
    Echo,
}

impl MockService {
    /// Starts it with this certificate. It asks for no client certificate, and answers with an empty message.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start(credentials: Credentials) -> Self {
        Self::start_with_response(credentials, MockResponse::Unary(Ok(Bytes::new()))).await
    }

    /// Starts it with this response.
    ///
    /// # Panics
    /// If it cannot be started.
    pub async fn start_with_response(credentials: Credentials, response: MockResponse) -> Self {
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
        let response = Arc::new(Mutex::new(response));
        let this = Self { address, response, calls: Arc::default(), open_streams: Arc::default() };
        let service = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(service.clone().serve_connection(acceptor.clone(), stream));
            }
        });
        this
    }

    /// Changes the response.
    pub fn respond_with(&self, response: MockResponse) {
        *lock(&self.response) = response;
    }

    /// How many echoed streams are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.open_streams.load(Ordering::SeqCst)
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The calls so far, without health checks.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        lock(&self.calls).clone()
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

    async fn respond(&self, request: Request<Incoming>) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        if path == "/grpc.health.v1.Health/Check" {
            // SERVING
            return unary(&Ok(Bytes::from_static(&[8, 1])));
        }
        let record = |message| {
            let call = RecordedCall { path: path.clone(), headers: head.headers.clone(), message };
            lock(&self.calls).push(call);
        };
        let response = lock(&self.response).clone();
        match response {
            MockResponse::Unary(outcome) => {
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                record(body.slice(body.len().min(5)..));
                unary(&outcome)
            }
            MockResponse::Echo => {
                record(Bytes::new());
                let (sender, receiver) = mpsc::channel(16);
                tokio::spawn(echo(body, sender, OpenStream::new(self.open_streams.clone())));
                response_of(StreamBody::new(ReceiverStream::new(receiver)).boxed_unsync())
            }
        }
    }
}

type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

fn unary(outcome: &Result<Bytes, Status>) -> Response<ResponseBody> {
    match outcome {
        Ok(message) => {
            let frames = [Frame::data(length_prefixed(message)), Frame::trailers(trailers())].map(Ok);
            response_of(StreamBody::new(tokio_stream::iter(frames)).boxed_unsync())
        }
        // As tonic does, in the headers.
        Err(status) => {
            let mut response = response_of(Empty::new().boxed_unsync());
            status.add_header(response.headers_mut()).expect("the status fits into headers");
            response
        }
    }
}

fn response_of(body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))])
}

/// Sends each message twice, until the client has sent its last or has gone.
async fn echo(mut body: Incoming, sender: mpsc::Sender<Result<Frame<Bytes>, Infallible>>, _open: OpenStream) {
    let mut received = BytesMut::new();
    loop {
        while let Some(message) = next_message(&mut received) {
            for _ in 0..2 {
                if sender.send(Ok(Frame::data(message.clone()))).await.is_err() {
                    return;
                }
            }
        }
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = sender.closed() => return,
        };
        match frame {
            Some(Ok(frame)) => received.extend_from_slice(&frame.into_data().unwrap_or_default()),
            // The client has gone.
            Some(Err(_)) => return,
            None => break,
        }
    }
    let _the_client_has_gone = sender.send(Ok(Frame::trailers(trailers()))).await;
}

/// Takes the next message with its prefix, if it is complete.
fn next_message(received: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(*received.get(1..)?.first_chunk()?) as usize + 5;
    (received.len() >= length).then(|| received.split_to(length).freeze())
}

/// Counts an open stream, until it is dropped.
struct OpenStream(Arc<AtomicUsize>);

impl OpenStream {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gRPC length-prefixed message, not compressed.
fn length_prefixed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("the message is short").to_be_bytes();
    [&[0], &length[..], message].concat().into()
}
