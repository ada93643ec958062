//! The gRPC server: accepting, checks, and shutdown.
//!
//! ```text
//! accept -> TLS handshake (acceptor) -> HTTP/2 (hyper) -> the stack (stack) -> the RPC (tonic)
//! ```

pub mod acceptor;
mod adaptive;
mod concurrency;
mod config;
mod health;
mod lifetime;
mod reflection;
mod request;
mod response;
mod stack;

use std::{collections::HashMap, convert::Infallible, io, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, codegen::BoxFuture, server::NamedService};
use tower::Service;
use tracing::{debug, info, warn};

pub use self::config::ServerConfig;
use self::{
    acceptor::{AcceptLimits, PeerConnection, PeerInfo},
    stack::Stack,
};
use crate::{
    access,
    connections::{Connection, ConnectionLimits, Connections, MeteredIo, PeerKind, StreamExecutor},
    error::Error,
    identity::ConnectionLifetime,
    limit::Key,
    node::Node,
};

/// The limits of one server.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections and handshakes.
    pub accept: AcceptLimits,
    /// Connections of each workload, and the bytes of responses that it has not read.
    pub connections: ConnectionLimits,
    /// The age at which a connection is replaced, within a tenth; its calls complete. `None`: when a certificate is about to expire.
    pub max_connection_age: Option<Duration>,
    /// Maximum calls in flight; more are answered OVERLOADED.
    pub max_in_flight: usize,
    /// Maximum calls in flight of one calling workload.
    pub max_in_flight_per_workload: usize,
    /// The lower bound of calls in flight for a limit that follows latency, up to `max_in_flight`; `None` for a fixed limit.
    pub min_in_flight: Option<usize>,
    /// Maximum size of a request message, in bytes. tonic's own limit of 4 MiB per service applies too.
    pub max_message_size: usize,
    /// The default deadline of a unary call.
    pub default_deadline: Duration,
    /// The maximum deadline of a unary call.
    pub max_deadline: Duration,
    /// The time for running calls to complete after a stop.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            accept: AcceptLimits::default(),
            connections: ConnectionLimits {
                // The acceptor limits those of all workloads together, handshakes included.
                max_connections: usize::MAX,
                max_per_peer: 1024,
                // Clients keep their connections.
                idle_timeout: None,
                send_timeout: Duration::from_secs(30),
                max_unsent_per_connection: 64 << 20,
                max_unsent_per_peer: 128 << 20,
                max_unsent: 256 << 20,
                max_request_bytes_per_peer: 128 << 20,
                max_request_bytes: 256 << 20,
            },
            max_connection_age: Some(Duration::from_hours(1)),
            max_in_flight: 1024,
            max_in_flight_per_workload: 768,
            min_in_flight: None,
            max_message_size: 4 << 20,
            default_deadline: Duration::from_secs(30),
            max_deadline: Duration::from_mins(1),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A server under construction.
pub struct Server {
    node: Node,
    limits: ServerLimits,
    services: HashMap<&'static str, Arc<dyn DynService>>,
    /// The descriptors for reflection.
    descriptors: reflection::DescriptorIndex,
}

impl Server {
    /// A server for this node and with its limits, with health and reflection (v1 and v1alpha).
    ///
    /// # Errors
    /// `INTERNAL` if the embedded descriptor set cannot be read.
    pub fn new(node: &Node) -> Result<Self, Error> {
        let descriptors = reflection::descriptors(&node.contracts)?;
        let limits = node.server_limits.clone();
        Ok(Self { node: node.clone(), limits, services: HashMap::new(), descriptors })
    }

    /// Adds a generated server.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: TonicService + NamedService,
    {
        self.services.insert(S::NAME, Arc::new(service));
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Serves until `stop`, then completes running calls within the drain timeout.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn run(mut self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        // Built-in services such as reflection are not reported by name.
        let reported = self.services.keys().copied().filter(|name| !name.starts_with("grpc."));
        let (health, health_service) = health::HealthReporter::new(&self.node, reported.collect());
        self = self.add_service(health_service);
        let served: Vec<&'static str> = self.services.keys().copied().collect();
        self.services.extend(reflection::services(Arc::new(self.descriptors), served));
        let health_task = self.node.tasks.spawn(health.clone().run());

        let names: Vec<&str> = self.services.keys().copied().collect();
        let stack = Arc::new(Stack::new(
            &self.node,
            &self.limits,
            access::rules_of(&self.node.contracts, &names),
            &self.services,
        ));
        let adaptive = self.node.tasks.spawn(stack.clone().follow_latency(self.limits.clone()));
        let address = listener.local_addr()?;
        info!(service = self.node.name, %address, "serving");

        let (metrics, service) = (self.node.metrics.clone(), self.node.name);
        let lines = metrics.log_budget("handshake refused");
        let on_refused = move |refusal: acceptor::RefusedHandshake| {
            metrics.handshake_refused(service, refusal.reason());
            if !lines.allows() {
                return;
            }
            warn!(service, remote = %refusal.remote, reason = refusal.reason(), cause = %refusal, "handshake refused");
        };
        let refused_lines = self.node.metrics.log_budget("connection refused");
        let accept_limits = self.limits.accept;
        let connections =
            acceptor::accept_peers(listener, self.node.identity.clone(), accept_limits, on_refused, stop.clone());
        tokio::pin!(connections);

        let open = Connections::of_service(self.limits.connections, &self.node.metrics, self.node.name);
        let sweeper = self.node.tasks.spawn({
            let open = open.clone();
            async move { open.sweep().await }
        });
        while let Some(connection) = connections.next().await {
            let connection = connection?;
            let PeerInfo { svid, remote } = connection.peer();
            let key = Key::text(&svid.id.to_string());
            let Ok(registered) = open.register(PeerKind::Workload(key)).await else {
                self.node.metrics.handshake_refused(self.node.name, "workload_connections");
                if refused_lines.allows() {
                    warn!(service = self.node.name, caller = %svid.id, %remote, "connection refused, the workload has too many");
                }
                continue;
            };
            let lifetime = lifetime::of(&connection, &self.node, self.limits.max_connection_age);
            // A certificate that has expired during the handshake, or by this clock alone.
            if let Some(end) = lifetime.end() {
                debug!(service = self.node.name, caller = %svid.id, %remote, ?end, "connection refused");
                continue;
            }
            self.node.tasks.spawn(serve_connection(stack.clone(), connection, registered, lifetime));
        }

        // NOT_SERVING first, so that clients call other instances while running calls complete.
        health_task.abort();
        health.stop();
        stack.stop_streams();
        if tokio::time::timeout(self.limits.drain_timeout, open.close()).await.is_err() {
            open.evict_all();
            warn!(service = self.node.name, "some calls did not complete within the drain timeout and were aborted");
        }
        sweeper.abort();
        adaptive.abort();
        info!(service = self.node.name, "stopped");
        Ok(())
    }
}

async fn serve_connection(
    stack: Arc<Stack>,
    connection: PeerConnection,
    registered: Connection,
    lifetime: ConnectionLifetime,
) {
    let usage = registered.usage().clone();
    let peer = Arc::new(stack.peer(connection.peer(), usage.peer_key()));
    let streams_stop = peer.streams().clone();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (stack, peer, in_progress) = (stack.clone(), peer.clone(), usage.start_request());
        async move { Ok::<_, Infallible>(stack.serve(&peer, request, in_progress).await) }
    });
    let socket = TokioIo::new(MeteredIo::new(connection, registered.usage().clone()));
    let streams = StreamExecutor::new(registered.usage().clone());
    let usage = registered.usage().clone();
    tokio::select! {
        outcome = registered.serve(http2(streams).serve_connection(socket, service)) => if let Err(error) = outcome {
            debug!(%error, "connection ended");
        },
        end = lifetime::limit(lifetime, &usage, &streams_stop) => debug!(?end, "connection ended"),
    }
}

/// The HTTP/2 settings of every server.
fn http2(streams: StreamExecutor) -> http2::Builder<StreamExecutor> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(1024)
        // An entry point gives up as many calls as its clients do; those of a moment arrive at once.
        .max_pending_accept_reset_streams(1024)
        // A token of 8 KiB, and other metadata.
        .max_header_list_size(32 * 1024)
        .max_send_buf_size(64 * 1024)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// A service generated by tonic.
pub trait TonicService:
    Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> TonicService for S where
    S: Service<
            Request<Body>,
            Response = Response<Body>,
            Error = Infallible,
            Future = BoxFuture<Response<Body>, Infallible>,
        > + Clone
        + Send
        + Sync
        + 'static
{
}

/// A type-erased service. A clone is a reference count, and the future is already boxed.
pub(crate) trait DynService: Send + Sync {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible>;
}

impl<S: TonicService> DynService for S {
    fn call(&self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        Service::call(&mut self.clone(), request)
    }
}
