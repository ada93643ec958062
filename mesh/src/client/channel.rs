//! A channel to one service, used by generated clients.

use std::{
    convert::Infallible,
    error::Error as StdError,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Request, Response, Uri,
    header::{AUTHORIZATION, USER_AGENT},
    uri::Scheme,
};
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body, codegen::BoxFuture};
use tonic_types::{ErrorDetails, StatusExt};
use tower::Service;
use tracing::{debug, warn};

use super::{
    endpoint::{Endpoint, SendError},
    endpoints::Endpoints,
    retry,
};
use crate::{
    body::TakeUntil,
    call::{Call, OnBehalf, Outgoing, header},
    deadline,
    error::{Chain, Error, Reason, reason_of},
};

/// The `user-agent` of requests.
const AGENT: &str = concat!("drystone/", env!("CARGO_PKG_VERSION"));

/// The retry delay that a status suggests when a service is unreachable.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A channel to one service. Clones share its connections.
///
/// Requests made with [`Call::request`] carry the call's deadline, request id and trace, and are cancelled at the
/// deadline. A call to an unreachable service returns UNAVAILABLE.
#[derive(Clone, Debug)]
pub struct Channel {
    service: Arc<str>,
    target: CallTarget,
}

/// The destination of calls.
#[derive(Clone, Debug)]
enum CallTarget {
    /// The best endpoint for each call.
    Any(Arc<Endpoints>),
    /// A given endpoint.
    One(Arc<Endpoint>),
}

impl Channel {
    pub(super) fn balanced(endpoints: Arc<Endpoints>) -> Self {
        Self { service: endpoints.service().clone(), target: CallTarget::Any(endpoints) }
    }

    /// A channel to one endpoint of a service.
    pub(crate) fn to(service: Arc<str>, endpoint: Arc<Endpoint>) -> Self {
        Self { service, target: CallTarget::One(endpoint) }
    }

    /// The workload name of the service.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl CallTarget {
    async fn call(&self, request: Request<Body>, deadline: Option<Instant>) -> Result<Response<Incoming>, SendError> {
        match self {
            Self::Any(endpoints) => retry::call(endpoints, request, deadline).await,
            Self::One(endpoint) => endpoint.send(request.map(Either::Right)).await,
        }
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // An unavailable service is reported by the call, as a status.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let outgoing = request.extensions_mut().remove::<Outgoing>();
        let deadline = outgoing.as_ref().and_then(|outgoing| outgoing.call.fields().deadline);
        if let Err(error) = apply_metadata(&mut request, &self.service, outgoing.as_ref()) {
            return Box::pin(async move { Ok(Status::from(error).into_http()) });
        }
        let Self { service, target } = self.clone();
        Box::pin(async move {
            let sending = target.call(request, deadline);
            let answer = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), sending).await,
                None => Ok(sending.await),
            };
            Ok(match answer {
                Ok(Ok(response)) if is_own_certificate_refused(&response) => {
                    own_certificate_refused(&service).into_http()
                }
                Ok(Ok(response)) => response.map(|body| {
                    let body = body.map_err(move |error| unreachable_status(&service, &error));
                    match deadline {
                        Some(deadline) => Body::new(TakeUntil::deadline(body, deadline)),
                        None => Body::new(body),
                    }
                }),
                Ok(Err(error)) => unreachable_status(&service, &*error.source).into_http(),
                Err(_) => Status::from(deadline::exceeded()).into_http(),
            })
        })
    }
}

/// Adds the metadata of every request, and that of the call.
fn apply_metadata(request: &mut Request<Body>, service: &str, outgoing: Option<&Outgoing>) -> Result<(), Error> {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(service.parse().map_err(Error::internal)?);
    *request.uri_mut() = Uri::from_parts(uri).map_err(Error::internal)?;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    match outgoing {
        Some(Outgoing { call, on_behalf }) => apply_call_metadata(request, call, *on_behalf),
        None => Ok(()),
    }
}

/// Adds the metadata of the call.
fn apply_call_metadata(request: &mut Request<Body>, call: &Call, on_behalf: OnBehalf) -> Result<(), Error> {
    let fields = call.fields();
    let headers = request.headers_mut();
    headers.insert(header::REQUEST_ID, fields.request_id.clone());
    headers.insert(header::TRACEPARENT, fields.trace.header());
    if let Some(deadline) = fields.deadline {
        headers.insert(header::GRPC_TIMEOUT, deadline::propagate(deadline).ok_or_else(deadline::exceeded)?);
    }
    if on_behalf == OnBehalf::User
        && let Some(authorization) = &fields.authorization
    {
        let mut authorization = authorization.clone();
        // Keeps the token out of HPACK's dynamic table and of `Debug`.
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }
    for (name, text) in [(header::CLIENT_ADDRESS, &fields.client.address), (header::CLIENT_AGENT, &fields.client.agent)]
    {
        if let Ok(value) = text.parse()
            && !text.is_empty()
        {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// Whether the service has rejected the caller's certificate.
fn is_own_certificate_refused<B>(response: &Response<B>) -> bool {
    let reason = Status::from_header_map(response.headers()).and_then(|status| reason_of(&status));
    matches!(reason, Some(Reason::CallerExpired | Reason::CallerRevoked))
}

/// The status for that case. It is not the fault of the original caller, so it is UNAVAILABLE and not a denial.
fn own_certificate_refused(service: &str) -> Status {
    warn!(service, "call refused, our own certificate has expired or is on the denylist; issue a new one");
    unavailable("the certificate of the calling workload is refused; issue a new one")
}

fn unavailable(message: impl Into<String>) -> Status {
    Status::with_error_details(Code::Unavailable, message, ErrorDetails::with_retry_info(Some(RETRY_AFTER)))
}

/// The status for an unreachable service. The cause is logged and not sent.
fn unreachable_status(service: &str, error: &(dyn StdError + 'static)) -> Status {
    // A status here comes from reading the request, before any endpoint was called.
    if let Some(status) = error.downcast_ref::<Status>() {
        return status.clone();
    }
    debug!(service, cause = %Chain(error), "call was not answered");
    unavailable(format!("the service `{service}` is unavailable; try again shortly"))
}
