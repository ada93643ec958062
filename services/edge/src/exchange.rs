//! One request and its response: find the route, count the request, check the token, read the body, make the message, call, respond.

use std::{
    panic::AssertUnwindSafe,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use drystone::contract::{Deadline, Subject};
use drystone_mesh::{
    connections::{MeteredBody, Request as RequestInProgress, RequestBytes},
    deadline::{self, SetBy},
    error::{Error, Reason},
    limit::Key,
    token::TokenVerifier,
};
use futures_util::FutureExt;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{EXPECT, FORWARDED},
    request::Parts,
};
use http_body::Body;
use tokio::sync::SemaphorePermit;
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    config::Config,
    forward::{self, Backend},
    http::{
        body::{self, BodyReader},
        error::RequestError,
        error_response::ErrorEncoder,
        headers::{self, ClientRequest},
        protocol,
        proxies::{Peer, TrustedProxies},
        response::{self, EdgeResponse},
        token,
    },
    metrics::EdgeMetrics,
    request_limit::RequestLimit,
    routing::{
        route::Route,
        router::RouteMatch,
        table::{Destination, RouteTable},
    },
    transcode,
    transcode::json,
};

/// How long a request for a page waits for others of the same client.
const MAX_WAIT_FOR_TURN: Duration = Duration::from_secs(5);

/// How long a page has its turn. A call that takes longer waits for something, and keeps no thread.
const MAX_TURN: Duration = Duration::from_millis(100);

/// Responds to requests.
pub(crate) struct Exchange<C> {
    table: RouteTable<C>,
    requests: RequestLimit,
    tokens: TokenVerifier,
    bodies: BodyReader,
    errors: ErrorEncoder,
    pub(crate) metrics: EdgeMetrics,
    /// The default and maximum deadline of a call.
    deadline: Duration,
    pub(crate) trusted_proxies: TrustedProxies,
}

impl<C: Backend> Exchange<C> {
    pub(crate) fn new(
        table: RouteTable<C>,
        errors: ErrorEncoder,
        metrics: EdgeMetrics,
        config: &Config,
        requests: RequestLimit,
        tokens: TokenVerifier,
    ) -> Self {
        let (deadline, trusted_proxies) = (config.deadline.duration(), TrustedProxies::new(config));
        Self { table, requests, tokens, bodies: BodyReader::new(config), errors, metrics, deadline, trusted_proxies }
    }

    /// Responds to a request. Every request gets a response. `in_progress` counts it, and the bytes of its response until
    /// the client has taken them.
    pub(crate) async fn respond<B>(
        &self,
        request: Request<B>,
        peer: Peer,
        in_progress: RequestInProgress,
    ) -> Response<MeteredBody>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let received_at = Instant::now();
        let (mut head, body) = request.into_parts();
        let address = self.trusted_proxies.client(peer, &head.headers);
        // A proxy that states no client speaks for all of them.
        let in_progress = if address == peer.address().ip().to_canonical() {
            in_progress
        } else {
            in_progress.of_client(Key::client(address))
        };
        // Until the head and the body are dropped.
        let mut bytes = in_progress.bytes();
        let fits = bytes.add_head(&head.uri, &head.headers).is_ok();
        if !fits {
            forget_most(&mut head);
        }
        if head.version <= Version::HTTP_10 {
            // HTTP/1.0 clients do not wait for 100 Continue (RFC 9110, section 10.1.1).
            head.headers.remove(EXPECT);
        }
        let request_id = headers::request_id(&head.headers);
        let client_request = ClientRequest { headers: &head.headers, request_id: &request_id, address, received_at };
        let matched = self.table.find(&head.method, head.uri.path());
        let route = match matched {
            RouteMatch::Found(Destination::Route(index)) => Some(self.table.route(index)),
            _ => None,
        };
        let label = route.map(|(route, _)| &*route.label);
        let span = info_span!("request", request_id = request_id.to_str().unwrap_or_default(), route = label);

        let responding = async {
            let work = async {
                if !fits {
                    let closes = !self.bodies.discard(&head.headers, body).await;
                    return Err(body::overloaded().closing(closes));
                }
                let counted = match matched {
                    RouteMatch::Found(Destination::Health) => self.requests.check_health(address).await,
                    _ => self.requests.check(address).await,
                };
                if let Err(error) = counted {
                    let closes = !self.bodies.discard(&head.headers, body).await;
                    return Err(RequestError::from(error).closing(closes));
                }
                if in_progress.is_nearly_full() {
                    let closes = !self.bodies.discard(&head.headers, body).await;
                    return Err(too_much_unread().closing(closes));
                }
                if let Err(error) = protocol::check(&head) {
                    let closes = !self.bodies.discard(&head.headers, body).await;
                    return Err(error.closing(closes));
                }
                match route {
                    Some((route, channel)) => {
                        self.call((route, channel.clone()), &head, body, &client_request, &in_progress, &mut bytes)
                            .await
                    }
                    None => self.respond_without_call(matched, &head, body).await,
                }
            };
            // A panic fails one request, not the connection that it shares with others.
            let result = AssertUnwindSafe(work).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(Error::internal("the request's work panicked").into()));
            let route = route.map(|(route, _)| route);
            let response = result.unwrap_or_else(|error| self.errors.response(error, route, head.version));
            let response = response::finish(response, &head.method, &request_id);
            let response = self.meter(response, in_progress, &head, &request_id);
            self.metrics.record_response(route, response.status());
            if let Some(route) = route.filter(|_| response.status() == StatusCode::GATEWAY_TIMEOUT) {
                self.metrics.deadline_exceeded(route, self.deadline_set_by(route, &head));
            }
            debug!(status = response.status().as_u16(), elapsed = ?received_at.elapsed(), "request answered");
            response
        };
        responding.instrument(span).await
    }

    /// Counts the bytes of a response. A client that has too many unread ones gets an error instead, which is small enough
    /// always to be sent.
    fn meter(
        &self,
        response: EdgeResponse,
        in_progress: RequestInProgress,
        head: &Parts,
        request_id: &HeaderValue,
    ) -> Response<MeteredBody> {
        let (parts, body) = response.into_parts();
        let in_progress = match MeteredBody::whole(body, in_progress) {
            Ok(body) => return Response::from_parts(parts, body),
            Err(in_progress) => in_progress,
        };
        let response =
            response::finish(self.errors.response(too_much_unread(), None, head.version), &head.method, request_id);
        let (parts, body) = response.into_parts();
        let body = MeteredBody::whole(body, in_progress).unwrap_or_else(MeteredBody::empty);
        Response::from_parts(parts, body)
    }

    /// Whose deadline applies to a request.
    fn deadline_set_by(&self, route: &Route, head: &Parts) -> SetBy {
        let own = limit_deadline(route.deadline, self.deadline).default;
        SetBy::of(deadline::parse_timeout(&head.headers).ok().flatten().or(own), own)
    }

    /// Responds to a request that needs no service.
    async fn respond_without_call<B>(
        &self,
        matched: RouteMatch<Destination>,
        head: &Parts,
        body: B,
    ) -> Result<EdgeResponse, RequestError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let closes = !self.bodies.discard(&head.headers, body).await;
        let error = match matched {
            _ if protocol::is_for_server(head) => {
                return Ok(response::options(self.table.methods().iter().map(String::as_str)));
            }
            RouteMatch::Found(_) => {
                return Ok(response::json(StatusCode::OK, Bytes::from_static(b"{\"status\":\"ok\"}")));
            }
            RouteMatch::MethodNotAllowed(methods) if head.method == Method::OPTIONS => {
                return Ok(response::options(methods.iter().map(String::as_str)));
            }
            RouteMatch::MethodNotAllowed(methods) => RequestError::method_not_allowed(&head.method, methods),
            RouteMatch::NotFound => RequestError::route_not_found(),
        };
        Err(error.closing(closes))
    }

    /// Calls the RPC of a route.
    async fn call<B>(
        &self,
        (route, channel): (&Route, C),
        head: &Parts,
        body: B,
        client_request: &ClientRequest<'_>,
        in_progress: &RequestInProgress,
        counted: &mut RequestBytes,
    ) -> Result<EdgeResponse, RequestError>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let authorization = match token::authorization(&self.tokens, route.rpc.subject, &head.headers) {
            Ok(authorization) => authorization,
            Err(error) => {
                if self.metrics.denial_lines.allows() {
                    warn!(reason = error.reason().name(), client = %client_request.address, "request denied");
                }
                let closes = !self.bodies.discard(&head.headers, body).await;
                return Err(RequestError::from(error).closing(closes));
            }
        };
        let body = self.bodies.read(&head.headers, body, route.body_limit, counted).await?;
        let call = headers::call(client_request, authorization, limit_deadline(route.deadline, self.deadline))?;
        let message = transcode::request(route, head.uri.path(), head.uri.query(), &body)?;
        let request = match route.rpc.subject {
            Subject::User | Subject::UserOrOperator => call.request_for_user(message),
            Subject::None => call.request(message),
        };
        let latest = call.fields().deadline.unwrap_or_else(|| Instant::now() + self.deadline);
        let response = async {
            let turn = if route.has_pages { wait_for_turn(in_progress).await? } else { None };
            let mut call = pin!(forward::call(channel, route, request));
            let in_turn = match &turn {
                Some(_) => tokio::time::timeout(MAX_TURN, &mut call).await.ok(),
                None => None,
            };
            let message = if let Some(message) = in_turn {
                message?
            } else {
                drop(turn);
                call.await?
            };
            let _turn = if route.has_pages { in_progress.turn_to_write_page().await } else { None };
            Ok::<_, RequestError>(json::write(&message)?)
        };
        let response =
            tokio::time::timeout_at(latest.into(), response).await.map_err(|_elapsed| deadline::exceeded())??;
        let response = response::json(StatusCode::OK, response);
        Ok(match &route.cache_control {
            Some(cache_control) => response::public(response, cache_control),
            None => response,
        })
    }
}

/// Drops what is large of a head that does not fit, so that its body can be drained. Who sends it is kept, since it counts for their limit.
fn forget_most(head: &mut Parts) {
    head.uri = Uri::from_static("/");
    let kept = [EXPECT, FORWARDED, HeaderName::from_static("x-forwarded-for"), HeaderName::from_static("x-request-id")];
    let mut headers = HeaderMap::new();
    for name in kept {
        if let Some(value) = head.headers.get(&name).filter(|value| value.len() <= 256) {
            headers.insert(name, value.clone());
        }
    }
    head.headers = headers;
}

/// Pages are the most expensive calls: those of one client take turns.
async fn wait_for_turn(in_progress: &RequestInProgress) -> Result<Option<SemaphorePermit<'_>>, Error> {
    tokio::time::timeout(MAX_WAIT_FOR_TURN, in_progress.turn_for_page()).await.map_err(|_elapsed| {
        let text = "too many lists are read at once from this address; read fewer, then send this again";
        Error::new(Reason::Overloaded, text).retry_after(Duration::from_secs(1))
    })
}

fn too_much_unread() -> RequestError {
    Error::new(Reason::Overloaded, "too many responses are unread; read them, then send this again")
        .retry_after(Duration::from_secs(1))
        .into()
}

/// The deadline of a call: the contract's, within the configured one.
fn limit_deadline(policy: Deadline, configured: Duration) -> Deadline {
    let max = policy.max.map_or(configured, |max| max.min(configured));
    Deadline { default: Some(policy.default.map_or(max, |default| default.min(max))), max: Some(max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_deadline_applies() {
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
            assert_eq!(limit_deadline(policy, Duration::from_secs(10)), expected);
        }
    }
}
