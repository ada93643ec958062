//! One request and its answer: find the route, read the body, make the message, call, answer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use drystone::contract::Subject;
use drystone_mesh::{deadline, error::Chain};
use http::{Method, Request, StatusCode, request::Parts};
use http_body::Body;
use tracing::{debug, warn};

use crate::{
    answer::{self, Answer, Errors},
    body::{Intake, Payload},
    config::Config,
    forward::{self, Backend},
    headers, json,
    metrics::EdgeMetrics,
    refusal::Refusal,
    route::Route,
    router::{Found, Router},
    transcode,
};

/// The path that the edge answers by itself.
pub(crate) const HEALTH: &str = "/health";

/// All that is needed to answer requests.
pub(crate) struct Exchange<C> {
    pub(crate) router: Router<Target>,
    /// Each with a channel to the service that owns its RPC.
    pub(crate) routes: Vec<(Route, C)>,
    pub(crate) intake: Intake,
    pub(crate) errors: Errors,
    pub(crate) metrics: EdgeMetrics,
    /// How long a call may take.
    pub(crate) deadline: Duration,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The edge's own health.
    Health,
    /// The route of this number.
    Route(usize),
}

impl<C: Backend> Exchange<C> {
    pub(crate) fn new(
        router: Router<Target>,
        routes: Vec<(Route, C)>,
        errors: Errors,
        metrics: EdgeMetrics,
        config: &Config,
    ) -> Self {
        Self { router, routes, intake: Intake::new(config), errors, metrics, deadline: config.deadline.duration() }
    }

    /// Answers a request. Whatever it holds, there is an answer.
    pub(crate) async fn answer<B>(&self, request: Request<B>, client: SocketAddr) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let arrived = Instant::now();
        let (head, body) = request.into_parts();
        let request_id = headers::request_id(&head.headers);

        let found = self.router.find(&head.method, head.uri.path());
        let (route, answer) = match found {
            Found::Served(Target::Route(number)) => {
                let (route, channel) = &self.routes[number];
                let called = self.call(route, channel, &head, body, client, &request_id, arrived).await;
                (Some(route), called)
            }
            other => (None, self.answer_alone(other, &head, body).await),
        };
        let answer = answer.unwrap_or_else(|refusal| {
            warn_of(&refusal, route);
            self.errors.answer(refusal, route, head.version)
        });
        let answer = answer::finish(answer, &head.method, request_id);

        self.metrics.answered(route, answer.status());
        debug!(
            route = route.map(|route| &*route.label),
            status = answer.status().as_u16(),
            request_id = answer.headers().get(drystone_mesh::call::header::REQUEST_ID).and_then(|id| id.to_str().ok()),
            elapsed = ?arrived.elapsed(),
            "request answered"
        );
        answer
    }

    /// Answers what needs no service.
    async fn answer_alone<B>(&self, found: Found<Target>, head: &Parts, body: B) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let closes = !self.intake.discard(&head.headers, body).await;
        let refusal = match found {
            Found::Served(_) => return Ok(answer::json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ok\"}"))),
            Found::OtherMethods(methods) if head.method == Method::OPTIONS => {
                return Ok(answer::options(methods.iter().map(String::as_str)));
            }
            Found::OtherMethods(methods) => Refusal::method_not_allowed(&head.method, methods),
            Found::Nothing => Refusal::route_not_found(),
        };
        Err(refusal.closing(closes))
    }

    #[expect(clippy::too_many_arguments, reason = "each is one part of the request, and they have no other name")]
    async fn call<B>(
        &self,
        route: &Route,
        channel: &C,
        head: &Parts,
        body: B,
        client: SocketAddr,
        request_id: &http::HeaderValue,
        arrived: Instant,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let payload: Payload = self.intake.read(&head.headers, body).await?;
        let subject = route.rpc.subject;
        let call = headers::call(&head.headers, client.ip(), request_id.clone(), subject, arrived, self.deadline)?;
        let message = transcode::request(route, head.uri.path(), head.uri.query(), &payload.bytes)?;
        let request = match subject {
            Subject::User => call.request_for_user(message),
            Subject::None => call.request(message),
        };
        let calling = forward::call(channel.clone(), route, request);
        let called = match call.parts().deadline {
            Some(deadline) => {
                tokio::time::timeout_at(deadline.into(), calling).await.map_err(|_| deadline::exceeded())?
            }
            None => calling.await,
        };
        let message = called.map_err(Refusal::from_service)?;
        Ok(answer::json(StatusCode::OK, json::write(&message, route.response_body.as_ref())?))
    }
}

/// What went wrong on our side is for the operator to see.
fn warn_of(refusal: &Refusal, route: Option<&Route>) {
    use tonic::Code::{DataLoss, Internal, Unavailable, Unknown};
    let status = &refusal.status;
    if refusal.is_from_service && matches!(status.code(), DataLoss | Internal | Unavailable | Unknown) {
        warn!(route = route.map(|route| &*route.label), cause = %Chain(status), "service failed");
    }
}
