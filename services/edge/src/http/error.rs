//! Errors of requests: a mesh error or the status of a service, and what HTTP adds to it.

use std::collections::BTreeSet;

use drystone_mesh::error::{Error, Reason, reason_of};
use http::{Method, StatusCode};
use tonic::{Code, Status};

/// The maximum length of a method in an error, in characters: a method can be as long as a request line.
const MAX_METHOD_LENGTH: usize = 32;

/// Why a request fails. It is made where the fault is found, and becomes a response in `error_response.rs`.
#[derive(Debug)]
pub(crate) struct RequestError {
    pub(crate) cause: Cause,
    /// The HTTP status, if it is not the reason's own.
    pub(crate) http_status: Option<StatusCode>,
    /// The methods of the path, for 405.
    pub(crate) allow: Option<BTreeSet<String>>,
    /// What a body must be, for 415.
    pub(crate) accepts: Option<Accepts>,
    /// Whether the connection must be closed, since part of the body is unread.
    pub(crate) closes: bool,
}

/// Where an error comes from.
#[derive(Debug)]
pub(crate) enum Cause {
    /// The edge found it.
    Edge(Error),
    /// A service returned it. Its details are passed on, with fields in proto names.
    Upstream { status: Status, reason: Option<Reason> },
}

/// What a body must be, in a response with status 415 (RFC 9110, section 15.5.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Another media type: JSON.
    Json,
    /// Another content coding: none.
    Identity,
}

impl RequestError {
    /// The status of a service. Its own failures, the mesh's access errors and connection errors are replaced, since they
    /// are not for clients; the originals are logged.
    pub(crate) fn upstream(status: Status) -> Self {
        let reason = reason_of(&status);
        if is_public(reason, status.code()) {
            Self::new(Cause::Upstream { status, reason })
        } else {
            Error::from(status).into()
        }
    }

    fn new(cause: Cause) -> Self {
        Self { cause, http_status: None, allow: None, accepts: None, closes: false }
    }

    /// No route has the path.
    pub(crate) fn route_not_found() -> Self {
        Error::new(Reason::RouteNotFound, "nothing is served at this path; check its spelling and a slash at its end")
            .into()
    }

    /// The path has other methods.
    pub(crate) fn method_not_allowed(method: &Method, allow: BTreeSet<String>) -> Self {
        let method: String = method.as_str().chars().take(MAX_METHOD_LENGTH).collect();
        let allowed: Vec<&str> = allow.iter().map(String::as_str).collect();
        let message = format!("{method} is not served at this path; use {}", allowed.join(", "));
        Self { allow: Some(allow), ..Error::new(Reason::MethodNotAllowed, message).into() }
    }

    /// Sets an HTTP status that is not the reason's own.
    pub(crate) fn with_http_status(self, status: StatusCode) -> Self {
        Self { http_status: Some(status), ..self }
    }

    /// Sets what a body must be.
    pub(crate) fn accepting(self, accepts: Accepts) -> Self {
        Self { accepts: Some(accepts), ..self }
    }

    /// Closes the connection if `closes`, or if it is to be closed already.
    pub(crate) fn closing(self, closes: bool) -> Self {
        Self { closes: self.closes || closes, ..self }
    }
}

impl From<Error> for RequestError {
    fn from(error: Error) -> Self {
        Self::new(Cause::Edge(error))
    }
}

/// Whether a service's status is for clients.
fn is_public(reason: Option<Reason>, code: Code) -> bool {
    use Code::{Cancelled, DataLoss, DeadlineExceeded, Internal, Ok, Unavailable, Unknown};
    use Reason::{CallerExpired, CallerNotAllowed, CallerRevoked, CallerUnidentified, MethodUnknown};
    match reason {
        Some(CallerExpired | CallerRevoked | CallerNotAllowed | CallerUnidentified | MethodUnknown) => false,
        Some(_) => true,
        None => !matches!(code, Ok | Cancelled | Unknown | DeadlineExceeded | Internal | Unavailable | DataLoss),
    }
}
