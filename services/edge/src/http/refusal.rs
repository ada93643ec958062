//! A request that is answered with an error: why, and what HTTP has to say beside it.

use std::collections::BTreeSet;

use drystone_mesh::error::{Error, Reason};
use http::{Method, StatusCode};
use tonic::Status;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What is answered.
    pub(crate) status: Status,
    /// Whether the status came from a service, whose fields go by the contract's names.
    pub(crate) is_from_service: bool,
    /// The HTTP status, where it is another than the reason's.
    pub(crate) http: Option<StatusCode>,
    /// The methods that the path has.
    pub(crate) allow: Option<BTreeSet<String>>,
    /// What would have been accepted instead of the body that came.
    pub(crate) accepts: Option<Accepts>,
    /// Whether the connection cannot go on, since part of the body is still to come.
    pub(crate) closes: bool,
}

/// What a body has to be, where it is refused with 415 (RFC 9110, section 15.5.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// Another media type: JSON.
    Json,
    /// Another content coding: none.
    Identity,
}

impl Refusal {
    /// The answer of a service.
    pub(crate) fn from_service(status: Status) -> Self {
        Self { is_from_service: true, ..Self::of(status) }
    }

    fn of(status: Status) -> Self {
        Self { status, is_from_service: false, http: None, allow: None, accepts: None, closes: false }
    }

    /// No REST call has this path.
    pub(crate) fn route_not_found() -> Self {
        Error::new(Reason::RouteNotFound, "nothing is served at this path; mind its spelling and a slash at its end")
            .into()
    }

    /// The path has other methods.
    pub(crate) fn method_not_allowed(method: &Method, allow: BTreeSet<String>) -> Self {
        // A method can be as long as a header; who sent it knows the rest.
        let method: String = method.as_str().chars().take(32).collect();
        let offered: Vec<&str> = allow.iter().map(String::as_str).collect();
        let message = format!("{method} is not served at this path; use {}", offered.join(", "));
        Self { allow: Some(allow), ..Error::new(Reason::MethodNotAllowed, message).into() }
    }

    /// The body did not arrive in time.
    pub(crate) fn too_slow() -> Self {
        let error = Error::new(Reason::BodyTooSlow, "the body did not arrive in time; send it again");
        Self { closes: true, ..error.into() }
    }

    /// The same, with an HTTP status that is not the reason's own.
    pub(crate) fn with_http(self, status: StatusCode) -> Self {
        Self { http: Some(status), ..self }
    }

    /// The same, which says what would have been accepted.
    pub(crate) fn accepting(self, accepts: Accepts) -> Self {
        Self { accepts: Some(accepts), ..self }
    }

    /// The same, on a connection that cannot go on.
    pub(crate) fn closing(self, closes: bool) -> Self {
        Self { closes: self.closes || closes, ..self }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::of(error.into())
    }
}
