//! What a server says of itself over gRPC (`grpc.health.v1`).

use std::time::Duration;

use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthApi, HealthServer},
    server::HealthReporter,
};

use crate::{
    health::{Health, State},
    node::{Node, TOKEN_CHECKS},
};

/// How often the components are looked at while the server serves.
const PACE: Duration = Duration::from_millis(500);

/// How often while it does not: whoever waits for it is to hear of it soon.
const WAITING_PACE: Duration = Duration::from_millis(50);

/// Reports for every service of one server, and for the server as a whole, whose name is empty.
#[derive(Clone)]
pub(super) struct Reporter {
    wire: HealthReporter,
    names: Vec<&'static str>,
    components: Health,
    /// What the names of this node's components start with.
    prefix: String,
    /// The name of the component that says whether the node can check tokens.
    token_checks: String,
}

impl Reporter {
    /// A reporter, and the service that answers for it.
    pub(super) async fn new(node: &Node, mut names: Vec<&'static str>) -> (Self, HealthServer<impl HealthApi>) {
        names.push("");
        let (wire, service) = tonic_health::server::health_reporter();
        let prefix = format!("{} ", node.name);
        let token_checks = format!("{}{TOKEN_CHECKS}", node.name);
        let reporter = Self { wire, names, components: node.health.clone(), prefix, token_checks };
        reporter.say(reporter.serves()).await;
        (reporter, service)
    }

    /// Says NOT_SERVING while something vital of the node is down, such as its database, and until it has been able to
    /// check tokens: it refuses most calls until then, and whoever has a choice is to call another instance.
    pub(super) async fn follow(self) {
        let mut said = None;
        loop {
            let serves = self.serves();
            if said != Some(serves) {
                self.say(serves).await;
                said = Some(serves);
            }
            tokio::time::sleep(if serves { PACE } else { WAITING_PACE }).await;
        }
    }

    fn serves(&self) -> bool {
        let can_check = self.components.state(&self.token_checks).is_none_or(|state| state != State::Down);
        can_check && !self.components.is_down(&self.prefix)
    }

    /// Says NOT_SERVING for good.
    pub(super) async fn not_serving(&self) {
        self.say(false).await;
    }

    async fn say(&self, serves: bool) {
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in &self.names {
            self.wire.set_service_status(name, status).await;
        }
    }
}
