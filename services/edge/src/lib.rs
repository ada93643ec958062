//! The edge: a REST API in front of the mesh's gRPC services.
//!
//! It has no business logic, no database and no code for single routes. At its start it reads the contracts' descriptors:
//! each RPC with a `google.api.http` option becomes a route. A request is transcoded to the RPC's message and sent to the
//! service that owns the RPC; the response is transcoded back.
//!
//! ```text
//! http::serve -> exchange -> routing              which RPC: table, router, route (from the descriptor)
//!                         -> request_limit        the client's rate limit
//!                         -> http::protocol       the rules of HTTP itself: host, target, expectations
//!                         -> http::token          the access token: missing, forged and expired ones end here
//!                         -> http::body           the body, within limits
//!                         -> http::headers        the call: deadline, request id, trace, client
//!                         -> transcode            the message: json (body), text (path), query, mask
//!                         -> forward              gRPC
//!                         -> http::response       JSON
//!                         -> http::error_response errors as google.rpc.Status
//! ```
//!
//! The user's token is checked and passed on; the services verify it again. All other identity headers of a client are
//! dropped; `http/headers.rs` lists what is passed on.
//!
//! # How to add a REST route
//!
//! Nothing is to be done here. Give the RPC a `google.api.http` option in its `.proto` file and list `outside` among the
//! callers of its rule; the build checks both, and the next start serves the route. The same holds for a new service: its
//! contract names the workload that the edge calls.
//!
//! # Behaviour
//!
//! - Templates, bodies, queries and responses follow [`google/api/http.proto`]; JSON is [ProtoJSON]. Fields with their
//!   default value are written.
//! - Input that would be ignored is an error: unknown members and parameters, duplicate members in one spelling or two, a
//!   body where there is none. The error names the field as the client spells it.
//! - A PATCH without update mask gets one from the members of its body, without those that the path sets or that only the
//!   server sets.
//! - A path that ends in the verb of a custom method (`/v1/users/7:block`) denotes that method, for every HTTP method; any
//!   other colon is part of a value.
//! - HEAD is served by GET, OPTIONS responds with `allow`, and `/health` is the edge's own.
//! - Invalid input does not close a connection, unless its body is much larger than the limit.
//! - An error is made once, where the fault is found, and encoded once, in `http/error_response.rs`.
//!
//! [`google/api/http.proto`]: https://github.com/googleapis/googleapis/blob/master/google/api/http.proto
//! [ProtoJSON]: https://protobuf.dev/programming-guides/json/

mod config;
mod exchange;
mod forward;
mod http;
mod metrics;
mod module;
mod request_limit;
mod routing;
mod transcode;

use std::{fmt, io, sync::Arc};

use drystone::contract::Contracts;
use drystone_mesh::{
    client::{Channel, DialError, Dialer},
    health::{self, Health},
    module::Module,
    telemetry::Metrics,
    token::TokenVerifier,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use crate::{
    config::Config,
    forward::Backend,
    http::proxies::{ClientAddressHeader, Network, NetworkError},
    request_limit::RequestLimit,
    routing::route::RouteError,
};
use crate::{exchange::Exchange, http::error_response::ErrorEncoder, metrics::EdgeMetrics, routing::table::RouteTable};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "edge";

/// The dependencies of the edge.
pub struct Deps {
    /// The contracts of the services.
    pub contracts: Contracts,
    /// Opens channels to the services.
    pub dialer: Dialer,
    /// Component health.
    pub health: Health,
    /// The metrics registry.
    pub metrics: Metrics,
    /// The configuration.
    pub config: Config,
    /// The rate limit of requests.
    pub requests: RequestLimit,
    /// Verifies access tokens before anything else is done for a request.
    pub tokens: TokenVerifier,
}

/// Why the edge fails to start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The contract cannot be served.
    #[error(transparent)]
    Contract(#[from] RouteError),
    /// A service has no address.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The compiled descriptors of `google.rpc` are invalid.
    #[error("the compiled descriptors of google.rpc are invalid; this is a bug")]
    ErrorDescriptors,
}

/// The edge, with channels of type `C`.
pub struct Service<C = Channel> {
    exchange: Arc<Exchange<C>>,
    config: Config,
    component: health::Component,
}

impl Service {
    /// The edge of a mesh. Each service that it calls is a component of its health.
    ///
    /// # Errors
    /// [`StartError`], for a contract that cannot be served or a service without address.
    pub fn new(deps: Deps) -> Result<Self, StartError> {
        let Deps { contracts, dialer, health, metrics, config, requests, tokens } = deps;
        let connect = |workload: &str| Ok(dialer.dependency(workload, health::Kind::Optional)?);
        Self::with_channels(&contracts, connect, &health, &metrics, config, requests, tokens)
    }
}

impl<C: Backend> Service<C> {
    /// An edge for any contracts; `connect` opens the channel to a workload, and is called once for each.
    ///
    /// # Errors
    /// [`StartError`], for a contract that cannot be served, or the error of `connect`.
    pub fn with_channels(
        contracts: &Contracts,
        connect: impl FnMut(&str) -> Result<C, StartError>,
        health: &Health,
        metrics: &Metrics,
        config: Config,
        requests: RequestLimit,
        tokens: TokenVerifier,
    ) -> Result<Self, StartError> {
        let table = RouteTable::build(contracts, connect)?;
        let errors = ErrorEncoder::new().ok_or(StartError::ErrorDescriptors)?;
        let exchange = Exchange::new(table, errors, EdgeMetrics::new(metrics), &config, requests, tokens);
        let component = health.component("rest", health::Kind::Vital);
        Ok(Self { exchange: Arc::new(exchange), config, component })
    }

    /// Serves until `stop`, then waits for running requests up to the configured timeout.
    ///
    /// # Errors
    /// An error of the listener.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        self.component.up();
        let result = http::serve::run(self.exchange, &self.config, listener, stop).await;
        self.component.down("stopped");
        result
    }
}

impl<C> fmt::Debug for Service<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The service as a module of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
