//! An agent that serves the Workload API on a socket.

use std::{
    collections::HashMap,
    convert::Infallible,
    fs,
    future::{Ready, ready},
    path::{Path, PathBuf},
    time::Duration,
};

use drystone_workload_api::Endpoint;
use futures_util::{StreamExt as _, stream, stream::BoxStream};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::UnixListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, ServerStreamingService},
};
use tonic_prost::ProstCodec;

/// What a process is: the message of the standard.
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// A certificate, its key and its roots, in DER.
#[derive(Clone, PartialEq, prost::Message)]
pub struct X509Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct X509SvidRequest {}

/// What every stream receives, at its beginning and on each change.
type Answer = Result<X509SvidResponse, Status>;

/// A running agent.
pub struct Agent {
    answer: watch::Sender<Answer>,
    /// How many answers streams have received.
    delivered: watch::Sender<usize>,
    server: JoinHandle<()>,
    socket: PathBuf,
}

impl Agent {
    pub fn start(socket: &Path, answer: Answer) -> Self {
        let (sender, receiver) = watch::channel(answer);
        let delivered = watch::Sender::new(0);
        let listener = UnixListener::bind(socket).unwrap();
        let server = tokio::spawn(serve(listener, WorkloadApi { answer: receiver, delivered: delivered.clone() }));
        Self { answer: sender, delivered, server, socket: socket.to_owned() }
    }

    /// An agent that issues these.
    pub fn issuing(socket: &Path, svids: &[X509Svid]) -> Self {
        Self::start(socket, Ok(context(svids)))
    }

    pub fn issue(&self, svids: &[X509Svid]) {
        self.answer(Ok(context(svids)));
    }

    pub fn answer(&self, answer: Answer) {
        drop(self.answer.send_replace(answer));
    }

    /// Waits until streams have received this many answers.
    pub async fn delivered(&self, count: usize) {
        let mut delivered = self.delivered.subscribe();
        let waited = timeout(Duration::from_secs(20), delivered.wait_for(|delivered| *delivered >= count)).await;
        assert!(waited.is_ok(), "{count} answers");
    }

    /// Closes all connections, and removes the socket.
    pub async fn stop(self) {
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
        fs::remove_file(self.socket).unwrap();
    }
}

/// The endpoint of an agent.
pub fn endpoint(socket: &Path) -> Endpoint {
    format!("unix://{}", socket.display()).parse().unwrap()
}

pub fn context(svids: &[X509Svid]) -> X509SvidResponse {
    X509SvidResponse { svids: svids.to_vec(), ..X509SvidResponse::default() }
}

/// Serves until the task is aborted, and its connections with it.
async fn serve(listener: UnixListener, api: WorkloadApi) {
    let mut connections = JoinSet::new();
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let api = api.clone();
        let service = service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.respond(request).await) }
        });
        let server = http2::Builder::new(TokioExecutor::new());
        connections.spawn(server.serve_connection(TokioIo::new(connection), service));
    }
}

#[derive(Clone)]
struct WorkloadApi {
    answer: watch::Receiver<Answer>,
    delivered: watch::Sender<usize>,
}

impl WorkloadApi {
    async fn respond(self, request: http::Request<Incoming>) -> http::Response<Body> {
        if request.uri().path() != "/SpiffeWorkloadAPI/FetchX509SVID" {
            return Status::unimplemented("the agent of the tests has one RPC").into_http();
        }
        Grpc::new(ProstCodec::default()).server_streaming(self, request).await
    }
}

impl ServerStreamingService<X509SvidRequest> for WorkloadApi {
    type Response = X509SvidResponse;
    type ResponseStream = BoxStream<'static, Answer>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        // The standard requires it, against requests that a process was made to send.
        if request.metadata().get("workload.spiffe.io").is_none_or(|value| value != "true") {
            return ready(Err(Status::invalid_argument("security header missing from request")));
        }
        let delivered = self.delivered.clone();
        let answers = stream::unfold((self.answer.clone(), true), |(mut answer, is_first)| async move {
            if !is_first {
                answer.changed().await.ok()?;
            }
            let current = answer.borrow_and_update().clone();
            Some((current, (answer, false)))
        });
        let answers = answers.inspect(move |_| delivered.send_modify(|count| *count += 1));
        ready(Ok(Response::new(answers.boxed())))
    }
}
