//! One call, sent to one instance after another until one answers or it may not be sent again.
//!
//! - A call that no instance has begun with is sent again, whatever it does.
//! - One that may have been begun with, or that an instance refused with UNAVAILABLE, is sent again if its contract says
//!   that twice is as good as once, to an instance that has not been tried if there is one, and only as long as few calls
//!   need it: when everything fails, repeating it makes it worse.

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
    instance::{SendError, has_code},
    instances::Instances,
    message::Message,
};
use crate::{call::header, deadline};

/// How often a call is sent at most.
const MAX_ATTEMPTS: usize = 3;

/// What may be done with the calls of an RPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// One message, which can be kept and sent again. Whether twice is as good as once.
    Unary { is_idempotent: bool },
    /// Messages come as they are made: they can be sent but once.
    Stream,
}

/// Calls until somebody answers.
pub(super) async fn call(
    instances: &Instances,
    request: Request<Body>,
    deadline: Option<Instant>,
) -> Result<Response<Incoming>, SendError> {
    let (mut head, body) = request.into_parts();
    let Policy::Unary { is_idempotent } = Policy::of(&instances.contracts, head.uri.path()) else {
        let instance = instances.pick(&[]).await?;
        return instance.call(Request::from_parts(head, Either::Right(body))).await;
    };
    let message = read(body).await.map_err(|status| SendError { may_have_run: false, source: status.into() })?;
    let message = Message::new(message);
    if is_idempotent {
        instances.budget.deposit();
    }
    let mut tried = Vec::new();
    loop {
        let instance = instances.pick(&tried).await?;
        let outcome = instance.call(copy(&head, &message)).await;
        tried.push(instance);
        let again = tried.len() < MAX_ATTEMPTS
            && match &outcome {
                // One that could not be reached is out; one that let its connection go in order is not.
                Err(error) if !error.may_have_run => instances.has_any(),
                Err(_) => is_idempotent && instances.budget.withdraw(),
                Ok(response) => {
                    is_idempotent
                        && has_code(response, Code::Unavailable)
                        && instances.has_another(&tried)
                        && instances.budget.withdraw()
                }
            };
        let time = deadline.map(deadline::hand_on);
        if !again || time == Some(None) {
            return outcome;
        }
        if let Some(Some(left)) = time {
            head.headers.insert(header::GRPC_TIMEOUT, left);
        }
        instances.retries.inc();
    }
}

/// The one message of a unary call, as it goes over the wire.
async fn read(mut body: Body) -> Result<Bytes, Status> {
    let mut message = next(&mut body).await?.unwrap_or_default();
    // A message comes in one piece, as a rule.
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

fn copy(head: &Parts, message: &Message) -> Request<Payload> {
    let mut request = Request::new(Either::Left(message.clone()));
    request.method_mut().clone_from(&head.method);
    request.uri_mut().clone_from(&head.uri);
    request.headers_mut().clone_from(&head.headers);
    request
}

impl Policy {
    fn of(contracts: &Contracts, path: &str) -> Self {
        match contracts.method(path) {
            Some(method) if !method.is_streaming() => {
                Self::Unary { is_idempotent: method.idempotency != Idempotency::Unknown }
            }
            // What the contracts do not know is sent as it comes.
            Some(_) | None => Self::Stream,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_sent_again_is_what_the_contract_says() {
        let contracts = drystone::contracts().unwrap();
        let policy = |path| Policy::of(&contracts, path);
        assert_eq!(policy("/drystone.user.v1.UserService/GetMe"), Policy::Unary { is_idempotent: true });
        assert_eq!(policy("/drystone.auth.v1.AuthService/SignIn"), Policy::Unary { is_idempotent: false });
        assert_eq!(policy("/drystone.session.v1.SessionService/WatchRevocations"), Policy::Stream);
        assert_eq!(policy("/grpc.health.v1.Health/Check"), Policy::Stream);
    }

    #[tokio::test]
    async fn a_message_in_pieces_is_put_together() {
        let pieces =
            ["one", "", "two", "three"].map(|piece| Ok::<_, Status>(http_body::Frame::data(Bytes::from(piece))));
        let body = Body::new(http_body_util::StreamBody::new(futures_util::stream::iter(pieces)));
        assert_eq!(read(body).await.unwrap(), "onetwothree");
        assert_eq!(read(Body::empty()).await.unwrap(), "");
    }
}
