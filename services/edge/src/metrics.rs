//! Metrics: requests by route and HTTP status, and open connections.

use std::sync::Arc;

use drystone_mesh::{
    deadline::SetBy,
    telemetry::{LogBudget, Metrics},
};
use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::routing::route::Route;

/// The edge's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub(crate) struct EdgeMetrics {
    requests: Family<RequestLabels, Counter>,
    deadlines: Family<DeadlineLabels, Counter>,
    /// The label of requests without route.
    no_route: Arc<str>,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// The budget of log lines of denied requests.
    pub(crate) denial_lines: LogBudget,
    registry: Metrics,
}

/// Both labels have a bounded number of values: the routes of the contracts, and HTTP statuses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Arc<str>,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadlineLabels {
    route: Arc<str>,
    set_by: &'static str,
}

impl EdgeMetrics {
    /// Metrics that are registered with `metrics`.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let own = Self {
            requests: Family::default(),
            deadlines: Family::default(),
            no_route: "none".into(),
            connections: Gauge::default(),
            denial_lines: metrics.log_budget("request denied"),
            registry: metrics.clone(),
        };
        metrics.register(|registry| {
            let EdgeMetrics { requests, deadlines, connections, .. } = own.clone();
            registry.register("drystone_edge_requests", "REST calls answered, by route and HTTP status", requests);
            registry.register(
                "drystone_edge_deadlines_exceeded",
                "REST calls answered 504, by who set the deadline: the caller, or contract and configuration",
                deadlines,
            );
            registry.register("drystone_edge_connections", "Open connections of clients", connections);
        });
        own
    }

    /// Adds the bytes of responses that clients have not taken, and of requests in progress.
    pub(crate) fn register_bytes(&self, unsent: Gauge, request_bytes: Gauge) {
        self.registry.register(|registry| {
            registry.register("drystone_edge_unsent_bytes", "Bytes of responses that clients have not taken", unsent);
            registry.register("drystone_edge_request_bytes", "Bytes of requests in progress", request_bytes);
        });
    }

    /// Counts a response after the deadline.
    pub(crate) fn deadline_exceeded(&self, route: &Route, set_by: SetBy) {
        let labels = DeadlineLabels { route: Arc::clone(&route.label), set_by: set_by.name() };
        self.deadlines.get_or_create(&labels).inc();
    }

    /// Counts a response.
    pub(crate) fn record_response(&self, route: Option<&Route>, status: StatusCode) {
        let route = Arc::clone(route.map_or(&self.no_route, |route| &route.label));
        self.requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }
}
