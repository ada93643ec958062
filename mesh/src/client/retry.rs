//! Retries of a call.
//!
//! - A call that no server has started is retried, whatever its idempotency.
//! - A call that may have been started, or was answered UNAVAILABLE, is retried if its contract declares it idempotent, at an
//!   untried endpoint if there is one, and within a budget: when everything fails, retries make it worse.

use std::time::Instant;

use bytes::Bytes;
use drystone::contract::{Contracts, Idempotency};
use http::{Request, Response, request::Parts};
use http_body::Body as _;
use http_body_util::{BodyExt, Either};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body};
use tower::retry::budget::Budget;

use super::{
    connection::Payload,
    endpoint::{SendError, has_code},
    endpoints::Endpoints,
    message::UnaryMessage,
};
use crate::{call::header, deadline};

/// The maximum number of attempts, the first included.
const MAX_ATTEMPTS: usize = 3;

/// The retry policy of an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RetryPolicy {
    /// One message, which can be buffered and resent.
    Unary { is_idempotent: bool },
    /// A stream of messages, which can be sent only once.
    Stream,
}

/// Sends a call until it is answered or cannot be retried.
pub(super) async fn call(
    endpoints: &Endpoints,
    request: Request<Body>,
    deadline: Option<Instant>,
) -> Result<Response<Incoming>, SendError> {
    let (mut head, body) = request.into_parts();
    // Once, so that a retry stays in the group.
    let group = endpoints.groups.choose(&head.headers);
    let RetryPolicy::Unary { is_idempotent } = RetryPolicy::of(&endpoints.contracts, head.uri.path()) else {
        let endpoint = endpoints.pick(group, &[]).await?;
        return endpoint.call(Request::from_parts(head, Either::Right(body))).await;
    };
    let message = read(body).await.map_err(|status| SendError { may_have_run: false, source: status.into() })?;
    let message = UnaryMessage::new(message);
    if is_idempotent {
        endpoints.budget.deposit();
    }
    let mut tried = Vec::new();
    loop {
        let endpoint = endpoints.pick(group, &tried).await?;
        let outcome = endpoint.call(copy(&head, &message)).await;
        tried.push(endpoint);
        let again = tried.len() < MAX_ATTEMPTS
            && match &outcome {
                // An unreachable endpoint is ejected; one that closed its connection gracefully is not.
                Err(error) if !error.may_have_run => endpoints.has_any(group),
                Err(_) => is_idempotent && endpoints.budget.withdraw(),
                Ok(response) => {
                    is_idempotent
                        && has_code(response, Code::Unavailable)
                        && endpoints.has_another(group, &tried)
                        && endpoints.budget.withdraw()
                }
            };
        let time = deadline.map(deadline::propagate);
        if !again || time == Some(None) {
            return outcome;
        }
        if let Some(Some(left)) = time {
            head.headers.insert(header::GRPC_TIMEOUT, left);
        }
        endpoints.retries.inc();
    }
}

/// The one encoded message of a unary call.
async fn read(mut body: Body) -> Result<Bytes, Status> {
    let mut message = next(&mut body).await?.unwrap_or_default();
    // Usually a message is one frame.
    while let Some(more) = next(&mut body).await? {
        message = message.iter().chain(&more).copied().collect();
    }
    Ok(message)
}

async fn next(body: &mut Body) -> Result<Option<Bytes>, Status> {
    while !body.is_end_stream() {
        match body.frame().await {
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
            None => break,
        }
    }
    Ok(None)
}

fn copy(head: &Parts, message: &UnaryMessage) -> Request<Payload> {
    let mut request = Request::new(Either::Left(message.clone()));
    request.method_mut().clone_from(&head.method);
    request.uri_mut().clone_from(&head.uri);
    request.headers_mut().clone_from(&head.headers);
    request
}

impl RetryPolicy {
    fn of(contracts: &Contracts, path: &str) -> Self {
        match contracts.method(path) {
            Some(method) if !method.is_streaming() => {
                Self::Unary { is_idempotent: method.idempotency != Idempotency::Unknown }
            }
            // A method without a contract is not buffered.
            Some(_) | None => Self::Stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_determines_the_retry_policy() {
        let contracts = drystone::contracts().unwrap();
        let policy = |path| RetryPolicy::of(&contracts, path);
        assert_eq!(policy("/drystone.user.v1.UserService/GetMe"), RetryPolicy::Unary { is_idempotent: true });
        assert_eq!(policy("/drystone.auth.v1.AuthService/SignIn"), RetryPolicy::Unary { is_idempotent: false });
        assert_eq!(policy("/drystone.session.v1.SessionService/WatchRevocations"), RetryPolicy::Stream);
        assert_eq!(policy("/grpc.health.v1.Health/Check"), RetryPolicy::Stream);
    }

    #[tokio::test]
    async fn a_message_in_several_frames_is_joined() {
        let frames = ["one", "", "two", "three"].map(|text| Ok::<_, Status>(http_body::Frame::data(Bytes::from(text))));
        let body = Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)));
        assert_eq!(read(body).await.unwrap(), "onetwothree");
        assert_eq!(read(Body::empty()).await.unwrap(), "");
    }
}
