//! Counts of the edge's own: which REST calls are answered how, and how many connections there are.

use std::sync::Arc;

use drystone_mesh::telemetry::Metrics;
use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::routing::route::Route;

/// What the edge counts. Clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct EdgeMetrics {
    requests: Family<RequestLabels, Counter>,
    /// The label of a request that no route serves.
    no_route: Arc<str>,
    /// Open connections.
    pub(crate) connections: Gauge,
}

/// Both labels come from closed lists: the routes of the contract, and the statuses of HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Arc<str>,
    status: u16,
}

impl EdgeMetrics {
    /// Counts that show up among `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self { no_route: "none".into(), ..Self::default() };
        metrics.register(|registry| {
            let (requests, connections) = (own.requests.clone(), own.connections.clone());
            registry.register("drystone_edge_requests", "REST calls answered, by route and HTTP status", requests);
            registry.register("drystone_edge_connections", "Open connections of clients", connections);
        });
        own
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, route: Option<&Route>, status: StatusCode) {
        let route = Arc::clone(route.map_or(&self.no_route, |route| &route.label));
        self.requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }
}
