//! The edge over real sockets, in front of a fake backend in the same process.

// Tests fail by panicking.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod backend;
mod client;
mod connection_limits;
mod connections;
mod drystone_contract;
mod duplicates;
mod invalid_requests;
mod limit;
mod protocol;
mod proxies;
mod proxy_protocol;
mod requests;
mod responses;
mod routes;
mod start;

use std::sync::Arc;

use drystone::contract::{Contracts, EncodedContract};
use drystone_edge::{Config, RequestLimit, Service};
use drystone_mesh::{
    clock::Clock,
    health::Health,
    limit::LimiterFactory,
    telemetry::Metrics,
    token::{KeySet, TokenVerifier, TokenVerifierConfig},
};
use drystone_tests::fixture;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{backend::FakeBackend, client::HttpClient};

/// A running edge over the fixture's contract.
struct Edge {
    address: std::net::SocketAddr,
    backend: FakeBackend,
    health: Health,
    metrics: Metrics,
    stop: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Edge {
    /// An edge whose backend echoes every request.
    async fn echo() -> Self {
        Self::with_backend(FakeBackend::echo(), Config::default()).await
    }

    async fn with_backend(backend: FakeBackend, config: Config) -> Self {
        Self::start(fixture_contract(), backend.clone(), backend, config).await
    }

    /// An edge whose backend echoes, with a rate limit of requests per minute and address.
    async fn limited(per_minute: u32, config: Config) -> Self {
        let backend = FakeBackend::echo();
        Self::start_limited(fixture_contract(), backend.clone(), backend, config, per_minute).await
    }

    /// An edge that serves `contracts` through `channel`.
    async fn start<C: drystone_edge::Backend>(
        contracts: Contracts,
        channel: C,
        backend: FakeBackend,
        config: Config,
    ) -> Self {
        Self::start_limited(contracts, channel, backend, config, 0).await
    }

    async fn start_limited<C: drystone_edge::Backend>(
        contracts: Contracts,
        channel: C,
        backend: FakeBackend,
        config: Config,
        per_minute: u32,
    ) -> Self {
        let (health, metrics, stop) = (Health::new(), Metrics::default(), CancellationToken::new());
        let limit = RequestLimit::new(&LimiterFactory::in_process(&metrics), per_minute);
        let connect = |_: &str| Ok(channel.clone());
        let service =
            Service::with_channels(&contracts, connect, &health, &metrics, config, limit, without_keys()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(service.run(listener, stop.clone()));
        Self { address, backend, health, metrics, stop, running }
    }

    async fn client(&self) -> HttpClient {
        HttpClient::connect(self.address).await
    }

    /// Sends a request on a new connection.
    async fn request(&self, request: &str, body: &str) -> client::Reply {
        self.client().await.request(request, body).await
    }

    /// Sends a request, and returns the message that the backend received.
    async fn received(&self, request: &str, body: &str) -> serde_json::Value {
        let reply = self.request(request, body).await;
        assert_eq!(reply.status, 200, "{request}: {}", reply.text());
        self.backend.last().message
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// A verifier that has no keys, so that the edge passes on every well-formed token.
fn without_keys() -> TokenVerifier {
    TokenVerifier::for_entry_point(TokenVerifierConfig::new("issuer", "audience"), KeySet::new(), Clock::system())
}

/// The fixture as a contract of the platform.
fn fixture_contract() -> Contracts {
    Contracts::load([EncodedContract::from_bytes("fixture", fixture::descriptor_set())]).unwrap()
}

/// A backend that fails with this status.
fn failing(status: tonic::Status) -> FakeBackend {
    FakeBackend::new(Arc::new(move |_| {
        let status = status.clone();
        Box::pin(async move { Err(status) })
    }))
}
