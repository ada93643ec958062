//! One request and its answer: find the route, count, read the body, make the message, call, answer.

use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use bytes::Bytes;
use drystone::contract::{Deadline, Subject};
use drystone_mesh::{deadline, error::Error};
use futures_util::FutureExt;
use http::{Method, Request, StatusCode, Version, header::EXPECT, request::Parts};
use http_body::Body;
use tracing::{Instrument, debug, info_span};

use crate::{
    config::Config,
    forward::{self, Backend},
    http::{
        answer::{self, Answer, Errors},
        body::Intake,
        headers::{self, Arrival},
        protocol,
        proxies::TrustedProxies,
        refusal::Refusal,
    },
    metrics::EdgeMetrics,
    request_limit::RequestLimit,
    routing::{
        route::Route,
        router::Found,
        table::{Table, Target},
    },
    transcode,
    transcode::json,
};

/// All that is needed to answer requests.
pub(crate) struct Exchange<C> {
    table: Table<C>,
    requests: RequestLimit,
    intake: Intake,
    errors: Errors,
    /// What is counted.
    pub(crate) metrics: EdgeMetrics,
    /// How long a call may take.
    deadline: Duration,
    /// Whose word is taken for who called.
    trusted_proxies: TrustedProxies,
}

impl<C: Backend> Exchange<C> {
    pub(crate) fn new(
        table: Table<C>,
        errors: Errors,
        metrics: EdgeMetrics,
        config: &Config,
        requests: RequestLimit,
    ) -> Self {
        let (deadline, trusted_proxies) = (config.deadline.duration(), TrustedProxies::new(config));
        Self { table, requests, intake: Intake::new(config), errors, metrics, deadline, trusted_proxies }
    }

    /// Answers a request. Whatever it holds, there is an answer.
    pub(crate) async fn answer<B>(&self, request: Request<B>, client: SocketAddr) -> Answer
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let at = Instant::now();
        let (mut head, body) = request.into_parts();
        if head.version <= Version::HTTP_10 {
            // Such a client does not know it, so that it does not wait for leave (RFC 9110, section 10.1.1).
            head.headers.remove(EXPECT);
        }
        let request_id = headers::request_id(&head.headers);
        let address = self.trusted_proxies.client(client.ip(), &head.headers);
        let arrival = Arrival { headers: &head.headers, request_id: &request_id, address, at };
        let found = self.table.find(&head.method, head.uri.path());
        let route = match found {
            Found::Served(Target::Route(number)) => Some(self.table.route(number)),
            _ => None,
        };
        let label = route.map(|(route, _)| &*route.label);
        let span = info_span!("request", request_id = request_id.to_str().unwrap_or_default(), route = label);

        let answering = async {
            let work = async {
                let is_counted = !matches!(found, Found::Served(Target::Health));
                if is_counted && let Err(error) = self.requests.check(address).await {
                    let closes = !self.intake.discard(&head.headers, body).await;
                    return Err(Refusal::from(error).closing(closes));
                }
                if let Err(refusal) = protocol::check(&head) {
                    let closes = !self.intake.discard(&head.headers, body).await;
                    return Err(refusal.closing(closes));
                }
                match route {
                    Some((route, channel)) => self.call(route, channel.clone(), &head, body, &arrival).await,
                    None => self.answer_alone(found, &head, body).await,
                }
            };
            // A fault of ours costs one request, not the connection that others share.
            let answered = AssertUnwindSafe(work).catch_unwind().await;
            let answered = answered.unwrap_or_else(|_| Err(Error::internal("the request's work panicked").into()));
            let route = route.map(|(route, _)| route);
            let answer = answered.unwrap_or_else(|refusal| self.errors.answer(refusal, route, head.version));
            self.metrics.answered(route, answer.status());
            debug!(status = answer.status().as_u16(), elapsed = ?at.elapsed(), "request answered");
            answer
        };
        let answer = answering.instrument(span).await;
        answer::finish(answer, &head.method, request_id)
    }

    /// Answers what needs no service.
    async fn answer_alone<B>(&self, found: Found<Target>, head: &Parts, body: B) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let closes = !self.intake.discard(&head.headers, body).await;
        let refusal = match found {
            _ if protocol::is_for_server(head) => {
                return Ok(answer::options(self.table.methods().iter().map(String::as_str)));
            }
            Found::Served(_) => return Ok(answer::json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ok\"}"))),
            Found::OtherMethods(methods) if head.method == Method::OPTIONS => {
                return Ok(answer::options(methods.iter().map(String::as_str)));
            }
            Found::OtherMethods(methods) => Refusal::method_not_allowed(&head.method, methods),
            Found::Nothing => Refusal::route_not_found(),
        };
        Err(refusal.closing(closes))
    }

    /// Answers what a service does.
    async fn call<B>(
        &self,
        route: &Route,
        channel: C,
        head: &Parts,
        body: B,
        arrival: &Arrival<'_>,
    ) -> Result<Answer, Refusal>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let payload = self.intake.read(&head.headers, body).await?;
        let call = headers::call(arrival, route.rpc.subject, time_for(route.deadline, self.deadline))?;
        let message = transcode::request(route, head.uri.path(), head.uri.query(), &payload.bytes)?;
        let request = match route.rpc.subject {
            Subject::User => call.request_for_user(message),
            Subject::None => call.request(message),
        };
        let latest = call.parts().deadline.unwrap_or_else(|| Instant::now() + self.deadline);
        let calling = forward::call(channel, route, request);
        let called = tokio::time::timeout_at(latest.into(), calling).await.map_err(|_elapsed| deadline::exceeded())?;
        let message = called.map_err(Refusal::from_service)?;
        let answer = answer::json(StatusCode::OK, json::write(&message)?);
        Ok(match &route.cache_control {
            Some(cache_control) => answer::public(answer, cache_control),
            None => answer,
        })
    }
}

/// How long a call may take: what the contract says, within what the configuration allows.
fn time_for(policy: Deadline, configured: Duration) -> Deadline {
    let max = policy.max.map_or(configured, |max| max.min(configured));
    Deadline { default: Some(policy.default.map_or(max, |default| default.min(max))), max: Some(max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_edge_allows_the_shorter_time() {
        let deadline = |default: Option<u64>, max: Option<u64>| Deadline {
            default: default.map(Duration::from_secs),
            max: max.map(Duration::from_secs),
        };
        for (policy, expected) in [
            (deadline(None, None), deadline(Some(10), Some(10))),
            (deadline(Some(2), Some(5)), deadline(Some(2), Some(5))),
            (deadline(None, Some(5)), deadline(Some(5), Some(5))),
            (deadline(Some(20), Some(30)), deadline(Some(10), Some(10))),
        ] {
            assert_eq!(time_for(policy, Duration::from_secs(10)), expected);
        }
    }
}
