//! The health service of a server (`grpc.health.v1`).
//!
//! It uses the types of tonic-health. The service of tonic-health ends a watch of an unknown service with NOT_FOUND, where
//! the protocol requires SERVICE_UNKNOWN and a stream that stays open.

mod list;

use std::{pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health as HealthApi, HealthServer},
};

use self::list::HealthService;
use crate::{
    error::Error,
    health::{Health, State},
    node::{Node, TOKEN_CHECKS},
};

/// The maximum length of a service name, in bytes.
const MAX_NAME_LENGTH: usize = 512;

/// The health of every service of one server, and of the server itself under the empty name. Clones share it.
#[derive(Clone)]
pub(super) struct HealthReporter {
    statuses: Arc<watch::Sender<Statuses>>,
    components: Health,
    /// The prefix of the names of this node's components.
    prefix: String,
    /// The name of the component that reports whether the node can verify tokens.
    token_checks: String,
}

/// The health of a server's services, which all share its state.
#[derive(Debug)]
struct Statuses {
    names: Vec<&'static str>,
    is_serving: bool,
    /// Whether the server is stopping: NOT_SERVING is final.
    is_stopping: bool,
}

impl HealthReporter {
    /// A reporter for these services, and its gRPC service.
    pub(super) fn new(node: &Node, mut names: Vec<&'static str>) -> (Self, HealthService) {
        names.push("");
        let prefix = format!("{} ", node.name);
        let token_checks = format!("{}{TOKEN_CHECKS}", node.name);
        let (statuses, receiver) = watch::channel(Statuses { names, is_serving: false, is_stopping: false });
        let reporter = Self { statuses: Arc::new(statuses), components: node.health.clone(), prefix, token_checks };
        reporter.set(reporter.can_serve());
        let api = HealthHandler(receiver);
        (reporter, HealthService::new(HealthServer::new(api.clone()), api))
    }

    /// Reports NOT_SERVING while a vital component of the node is down, such as its database, and until it can verify tokens:
    /// it rejects most calls until then, and clients should call another instance.
    pub(super) async fn run(self) {
        let mut changes = self.components.changes();
        loop {
            // Before reading, so that a concurrent change is not missed.
            changes.mark_unchanged();
            self.set(self.can_serve());
            // The sender is kept alive by `components`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn can_serve(&self) -> bool {
        let can_check = self.components.state(&self.token_checks).is_none_or(|state| state != State::Down);
        can_check && !self.components.is_down(&self.prefix)
    }

    /// Reports NOT_SERVING from now on.
    pub(super) fn stop(&self) {
        self.statuses.send_modify(|statuses| {
            statuses.is_stopping = true;
            statuses.is_serving = false;
        });
    }

    fn set(&self, is_serving: bool) {
        self.statuses.send_if_modified(|statuses| {
            let is_serving = is_serving && !statuses.is_stopping;
            std::mem::replace(&mut statuses.is_serving, is_serving) != is_serving
        });
    }
}

impl Statuses {
    /// `None` for an unknown service.
    fn of(&self, name: &str) -> Option<ServingStatus> {
        let status = if self.is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        self.names.contains(&name).then_some(status)
    }
}

/// `grpc.health.v1.Health`.
#[derive(Debug, Clone)]
pub(super) struct HealthHandler(watch::Receiver<Statuses>);

#[tonic::async_trait]
impl HealthApi for HealthHandler {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let status = self.0.borrow().of(&request.get_ref().service);
        let status = status.ok_or_else(|| Status::not_found("this server does not serve a service of this name"))?;
        Ok(Response::new(response(status)))
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        if name.len() > MAX_NAME_LENGTH {
            let text = format!("must be at most {MAX_NAME_LENGTH} bytes long");
            return Err(Error::invalid_field("service", text).into());
        }
        Ok(Response::new(Box::pin(watch_of(self.0.clone(), name))))
    }
}

/// The status of a service now, and after each change. An unknown service can become known.
fn watch_of(
    statuses: watch::Receiver<Statuses>,
    name: String,
) -> impl Stream<Item = Result<HealthCheckResponse, Status>> + Send {
    stream::unfold((statuses, name, None), |(mut statuses, name, last)| async move {
        loop {
            let status = statuses.borrow_and_update().of(&name).unwrap_or(ServingStatus::ServiceUnknown);
            if last != Some(status) {
                return Some((Ok(response(status)), (statuses, name, Some(status))));
            }
            // The server has stopped.
            statuses.changed().await.ok()?;
        }
    })
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn channel() -> (watch::Sender<Statuses>, watch::Receiver<Statuses>) {
        watch::channel(Statuses { names: vec!["", "acme.v1.Known"], is_serving: true, is_stopping: false })
    }

    async fn next(stream: &mut (impl Stream<Item = Result<HealthCheckResponse, Status>> + Unpin)) -> ServingStatus {
        stream.next().await.unwrap().unwrap().status()
    }

    #[tokio::test]
    async fn a_watch_reports_the_current_state_and_then_changes_only() {
        let (sender, receiver) = channel();
        let mut stream = Box::pin(watch_of(receiver, "acme.v1.Known".to_owned()));
        assert_eq!(next(&mut stream).await, ServingStatus::Serving);
        // An unrelated change.
        sender.send_modify(|statuses| statuses.names.push("acme.v1.Other"));
        assert!(futures_util::poll!(stream.next()).is_pending());
        sender.send_modify(|statuses| statuses.is_serving = false);
        assert_eq!(next(&mut stream).await, ServingStatus::NotServing);
        drop(sender);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn an_unknown_service_that_becomes_known_is_reported() {
        let (sender, receiver) = channel();
        let mut stream = Box::pin(watch_of(receiver, "acme.v1.Later".to_owned()));
        assert_eq!(next(&mut stream).await, ServingStatus::ServiceUnknown);
        sender.send_modify(|statuses| statuses.is_serving = false);
        assert!(futures_util::poll!(stream.next()).is_pending());
        sender.send_modify(|statuses| statuses.names.push("acme.v1.Later"));
        assert_eq!(next(&mut stream).await, ServingStatus::NotServing);
    }
}
