//! The edge: REST for the outside world, in front of the mesh's gRPC.
//!
//! It holds no business rule, no database and no code for any route. At its start it reads the contract's descriptor:
//! each RPC with a `google.api.http` option becomes a route. A request is turned into the RPC's message, sent to the
//! service that owns the RPC, and the answer is turned back.
//!
//! ```text
//! http::serve -> exchange -> http::protocol      what HTTP itself demands: host, target, expectations
//!                         -> routing             which RPC: table, router, route (from the descriptor)
//!                         -> request_limit       whether this client may ask again already
//!                         -> http::body          bytes, within limits
//!                         -> transcode           message: json (body), text (path), query, mask
//!                         -> http::headers       the call: deadline, request id, trace, token, client
//!                         -> forward             gRPC
//!                         -> http::answer        JSON, or an error as google.rpc.Status
//! ```
//!
//! The user's token is handed on as it came; the edge has no opinion of it. Whatever else a client claims to be is
//! dropped: see `http/headers.rs` for the short list of what goes in.
//!
//! # How to add a REST call
//!
//! There is nothing to do here. Give the RPC a `google.api.http` option in its `.proto` file and list `outside` among the
//! callers of its rule; the build refuses what does not fit together, and the next start serves it. The same holds for a new
//! service: its contract says which workload the edge calls.
//!
//! # What is served how
//!
//! - Templates, bodies, queries and answers follow [`google/api/http.proto`]; JSON is [ProtoJSON]. Fields of
//!   default value are written.
//! - What would be ignored is refused: unknown members and parameters, members that are given twice, in one spelling or two, a body where none
//!   belongs. The error names the field as the client spells it.
//! - A PATCH without update mask gets one from the members of its body, without those that the path fills or the server alone
//!   sets.
//! - A path that ends in the verb of a custom method (`/v1/users/7:block`) means that method, whatever the HTTP method is; any
//!   other colon belongs to a value.
//! - HEAD is served by GET, OPTIONS answers `allow`, and `/health` is the edge's own.
//! - Bad input never ends a connection, as long as its body is not much larger than what is taken.
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
use crate::{exchange::Exchange, http::answer::Errors, metrics::EdgeMetrics, routing::table::Table};

/// The workload's name, as in its SPIFFE ID.
pub const NAME: &str = "edge";

/// What the edge needs of the world.
pub struct Deps {
    /// What it serves.
    pub contracts: Contracts,
    /// How it reaches the services.
    pub dialer: Dialer,
    /// Where it says how it is.
    pub health: Health,
    /// Where it counts.
    pub metrics: Metrics,
    /// How it runs.
    pub config: Config,
    /// How often one client may ask.
    pub requests: RequestLimit,
}

/// Why the edge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The contract cannot be served.
    #[error(transparent)]
    Contract(#[from] RouteError),
    /// A service cannot be reached, since nobody said where it is.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The program's own descriptors are damaged.
    #[error("the descriptors of google.rpc cannot be read; this is a fault of the program")]
    ErrorDescriptors,
}

/// The edge, over channels of kind `C`.
pub struct Service<C = Channel> {
    exchange: Arc<Exchange<C>>,
    config: Config,
    component: health::Component,
}

impl Service {
    /// The edge of a mesh. Each service that it depends on shows up among the components of its health.
    ///
    /// # Errors
    /// [`StartError`], for a contract that cannot be served or a service without address.
    pub fn new(deps: Deps) -> Result<Self, StartError> {
        let Deps { contracts, dialer, health, metrics, config, requests } = deps;
        let connect = |workload: &str| Ok(dialer.dependency(workload, health::Kind::Optional)?);
        Self::over(&contracts, connect, &health, &metrics, config, requests)
    }
}

impl<C: Backend> Service<C> {
    /// An edge for any contracts; `connect` makes the channel to the workload of a name, and is asked once for each.
    ///
    /// # Errors
    /// [`StartError`], for a contract that cannot be served, and whatever `connect` fails with.
    pub fn over(
        contracts: &Contracts,
        connect: impl FnMut(&str) -> Result<C, StartError>,
        health: &Health,
        metrics: &Metrics,
        config: Config,
        requests: RequestLimit,
    ) -> Result<Self, StartError> {
        let table = Table::build(contracts, connect)?;
        let errors = Errors::new().ok_or(StartError::ErrorDescriptors)?;
        let exchange = Exchange::new(table, errors, EdgeMetrics::new(metrics), &config, requests);
        let component = health.component("rest", health::Kind::Vital);
        Ok(Self { exchange: Arc::new(exchange), config, component })
    }

    /// Serves until `stop`, then lets running requests end within the configured time.
    ///
    /// # Errors
    /// The listener's own failure.
    pub async fn run(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        self.component.up();
        let end = http::serve::run(self.exchange, &self.config, listener, stop).await;
        self.component.down("stopped");
        end
    }
}

impl<C> fmt::Debug for Service<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

/// The service as a part of a binary.
#[must_use]
pub const fn module() -> Module {
    Module::of::<Service>()
}
