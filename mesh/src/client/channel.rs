//! A channel to one service: what a generated client stands on.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Code, Status, body::Body, codegen::BoxFuture, transport};
use tower::Service;
use tracing::debug;

use crate::{
    call::{Call, OnBehalf, Outgoing, header},
    deadline::{self, DeadlineBody},
    error::Error,
};

/// What is kept back of a deadline that is handed on, so that there is time to answer with what came of it.
const MARGIN: Duration = Duration::from_millis(5);

/// A channel to one service. Clones share its connection.
///
/// Requests made with [`Call::request`] carry the call's deadline, request id and trace, and end in time. A
/// service that cannot be reached is answered as UNAVAILABLE.
#[derive(Clone, Debug)]
pub struct Channel {
    service: Arc<str>,
    inner: transport::Channel,
}

impl Channel {
    pub(super) fn new(service: &str, inner: transport::Channel) -> Self {
        Self { service: service.into(), inner }
    }

    /// The workload name of the service.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A channel that is broken says so when it is called, as a status.
        self.inner.poll_ready(cx).map(|_| Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let outgoing = request.extensions_mut().remove::<Outgoing>();
        let deadline = outgoing.as_ref().and_then(|outgoing| outgoing.call.parts().deadline);
        if let Some(Outgoing { call, on_behalf }) = &outgoing
            && let Err(error) = dress(&mut request, call, *on_behalf)
        {
            return Box::pin(async move { Ok(Status::from(error).into_http()) });
        }
        let answer = self.inner.call(request);
        let service = self.service.clone();
        Box::pin(async move {
            let answer = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), answer).await,
                None => Ok(answer.await),
            };
            Ok(match (answer, deadline) {
                (Ok(Ok(response)), Some(deadline)) => response.map(|body| Body::new(DeadlineBody::new(body, deadline))),
                (Ok(Ok(response)), None) => response,
                (Ok(Err(error)), _) if !has_timed_out(&error) => away(&service, &error).into_http(),
                (Ok(Err(_)) | Err(_), _) => Status::from(deadline::exceeded()).into_http(),
            })
        })
    }
}

/// Puts on what the call carries.
fn dress(request: &mut Request<Body>, call: &Call, on_behalf: OnBehalf) -> Result<(), Error> {
    let parts = call.parts();
    let headers = request.headers_mut();
    headers.insert(header::REQUEST_ID, parts.request_id.clone());
    headers.insert(header::TRACEPARENT, parts.trace.header());
    if let Some(deadline) = parts.deadline {
        let left =
            deadline::remaining(deadline).and_then(|left| left.checked_sub(MARGIN)).ok_or_else(deadline::exceeded)?;
        headers.insert(header::GRPC_TIMEOUT, deadline::format_timeout(left));
    }
    if on_behalf == OnBehalf::User
        && let Some(authorization) = &parts.authorization
    {
        let mut authorization = authorization.clone();
        // Keeps the token out of HPACK's tables and of anybody's `Debug`.
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }
    for (name, said) in [(header::CLIENT_ADDRESS, &parts.client.address), (header::CLIENT_AGENT, &parts.client.agent)] {
        if let Ok(value) = said.parse()
            && !said.is_empty()
        {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// Whether it was the deadline: tonic's transport reads the `grpc-timeout` that goes by, and keeps it too.
fn has_timed_out(error: &transport::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if error.is::<tonic::TimeoutExpired>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The answer of a service that cannot be reached. What the matter was stays in the log.
fn away(service: &str, error: &transport::Error) -> Status {
    debug!(service, cause = %crate::error::Chain(error), "call did not arrive");
    Status::new(Code::Unavailable, format!("the service `{service}` is away for now; try again shortly"))
}
