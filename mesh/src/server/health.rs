//! What a server says of itself over gRPC (`grpc.health.v1`).

use std::time::Duration;

use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthApi, HealthServer},
    server::HealthReporter,
};

use crate::{health::Health, node::Node};

/// How often the vital components are looked at.
const PACE: Duration = Duration::from_millis(500);

/// Reports for every service of one server, and for the server as a whole, whose name is empty.
#[derive(Clone)]
pub(super) struct Reporter {
    wire: HealthReporter,
    names: Vec<&'static str>,
    components: Health,
    /// What the names of this node's components start with.
    prefix: String,
}

impl Reporter {
    /// A reporter that says SERVING, and the service that answers for it.
    pub(super) async fn new(node: &Node, mut names: Vec<&'static str>) -> (Self, HealthServer<impl HealthApi>) {
        names.push("");
        let (wire, service) = tonic_health::server::health_reporter();
        let prefix = format!("{} ", node.name);
        let reporter = Self { wire, names, components: node.health.clone(), prefix };
        reporter.say(ServingStatus::Serving).await;
        (reporter, service)
    }

    /// Says NOT_SERVING while something vital of the node is down, such as its database.
    pub(super) async fn follow(self) {
        let mut serving = true;
        loop {
            tokio::time::sleep(PACE).await;
            let up = !self.components.is_down(&self.prefix);
            if up != serving {
                self.say(if up { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
                serving = up;
            }
        }
    }

    /// Says NOT_SERVING for good.
    pub(super) async fn not_serving(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    async fn say(&self, status: ServingStatus) {
        for name in &self.names {
            self.wire.set_service_status(name, status).await;
        }
    }
}
