//! The edge as its clients see it: a real server on a real socket, in front of a backend in the same process.

// A test that cannot go on says so by panicking.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod answers;
mod backend;
mod bad_input;
mod client;
mod connections;
mod duplicates;
mod house;
mod limit;
mod protocol;
mod proxies;
mod requests;
mod routes;
mod start;

use std::sync::Arc;

use drystone::contract::{Contracts, EncodedContract};
use drystone_edge::{Config, RequestLimit, Service};
use drystone_mesh::{health::Health, limit::LimiterFactory, telemetry::Metrics};
use drystone_tests::fixture;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{backend::FakeBackend, client::Client};

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
    /// One that answers every request with itself.
    async fn echo() -> Self {
        Self::over(FakeBackend::echo(), Config::default()).await
    }

    async fn over(backend: FakeBackend, config: Config) -> Self {
        Self::start(fixture_contract(), backend.clone(), backend, config).await
    }

    /// One that echoes so many requests a minute from one address.
    async fn limited(per_minute: u32, config: Config) -> Self {
        let backend = FakeBackend::echo();
        Self::start_limited(fixture_contract(), backend.clone(), backend, config, per_minute).await
    }

    /// One that serves `contract` through `channel`.
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
        let service =
            Service::with_channels(&contracts, |_| Ok(channel.clone()), &health, &metrics, config, limit).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let running = tokio::spawn(service.run(listener, stop.clone()));
        Self { address, backend, health, metrics, stop, running }
    }

    async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// The answer to one request on a connection of its own.
    async fn ask(&self, request: &str, body: &str) -> client::Reply {
        self.client().await.ask(request, body).await
    }

    /// The message that reached the backend, by that request.
    async fn received(&self, request: &str, body: &str) -> serde_json::Value {
        let reply = self.ask(request, body).await;
        assert_eq!(reply.status, 200, "{request}: {}", reply.text());
        self.backend.last().message
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// The fixture as a contract. Its package is one of Drystone's own.
fn fixture_contract() -> Contracts {
    Contracts::load([EncodedContract::platform("fixture", fixture::descriptor_set())]).unwrap()
}

/// A backend that answers each request with this error.
fn failing(status: tonic::Status) -> FakeBackend {
    FakeBackend::new(Arc::new(move |_| {
        let status = status.clone();
        Box::pin(async move { Err(status) })
    }))
}
