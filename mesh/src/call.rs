//! The context of a call: caller, user, deadline, request id and trace.
//!
//! The server stack adds a [`Call`] to the request's extensions. A handler reads it with [`Call::of`] and makes its own
//! calls with [`Call::request`], which propagates the deadline, the request id and the trace.

use std::{sync::Arc, time::Instant};

use drystone::contract::method::OPERATOR;
use http::HeaderValue;
use tonic::{Extensions, Request};
use uuid::Uuid;

use crate::{
    error::{Error, Reason, Result},
    identity::SpiffeId,
    telemetry::TraceContext,
    token::Principal,
};

/// The metadata keys of calls.
pub mod header {
    use http::HeaderName;

    /// Identifies a request in every service that it reaches.
    pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    /// The address of an outside client; trusted only from an entry point.
    pub const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-drystone-client-address");
    /// The `user-agent` of an outside client; trusted only from an entry point.
    pub const CLIENT_AGENT: HeaderName = HeaderName::from_static("x-drystone-client-agent");
    /// W3C Trace Context.
    pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    /// The caller's timeout, in the format of gRPC.
    pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
}

/// The context of a call. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Call(Arc<CallFields>);

/// The fields of a [`Call`]. Only the server stack fills those that a client must not forge.
#[derive(Debug)]
pub struct CallFields {
    /// The request id, safe to log and to propagate.
    pub request_id: HeaderValue,
    /// The trace context.
    pub trace: TraceContext,
    /// The deadline.
    pub deadline: Option<Instant>,
    /// The calling workload; `None` for a call that originates in this process.
    pub caller: Option<SpiffeId>,
    /// The end user, if the rule requires one.
    pub principal: Option<Arc<Principal>>,
    /// The `authorization` value of the end user, to be propagated.
    pub authorization: Option<HeaderValue>,
    /// The outside client, as reported by an entry point.
    pub client: Client,
}

/// An outside client, as reported by an entry point. Empty if none reported it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The IP address.
    pub address: String,
    /// The `user-agent` header, cut to 256 characters.
    pub agent: String,
}

/// Who acts by a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    /// An end user.
    User(&'a Principal),
    /// The operator, by certificate and without a token.
    Operator,
}

impl Call {
    /// A call with these fields.
    #[must_use]
    pub fn new(fields: CallFields) -> Self {
        Self(Arc::new(fields))
    }

    /// A call that originates in this process, for background work.
    #[must_use]
    pub fn background(deadline: Option<Instant>) -> Self {
        Self::new(CallFields {
            request_id: new_request_id(),
            trace: TraceContext::new_root(),
            deadline,
            caller: None,
            principal: None,
            authorization: None,
            client: Client::default(),
        })
    }

    /// The call of a request.
    ///
    /// # Errors
    /// `INTERNAL` if the request did not come through the server stack.
    pub fn of<T>(request: &Request<T>) -> Result<Self> {
        Self::from_extensions(request.extensions())
            .ok_or_else(|| Error::internal("the request did not pass the server stack"))
    }

    /// The call in these extensions.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }

    /// All fields.
    #[must_use]
    pub fn fields(&self) -> &CallFields {
        &self.0
    }

    /// The end user of the call.
    ///
    /// # Errors
    /// `TOKEN_MISSING` if the rule requires no user.
    pub fn principal(&self) -> Result<&Principal> {
        self.0.principal.as_deref().ok_or_else(|| Error::new(Reason::TokenMissing, "the call needs an access token"))
    }

    /// Who acts: the end user, or the operator where the rule has SUBJECT_USER_OR_OPERATOR.
    ///
    /// # Errors
    /// `TOKEN_MISSING` if it is neither.
    pub fn actor(&self) -> Result<Actor<'_>> {
        match (&self.0.principal, &self.0.caller) {
            (Some(principal), _) => Ok(Actor::User(principal)),
            // The server stack has checked the trust domain.
            (None, Some(caller)) if caller.workload() == Some(OPERATOR) => Ok(Actor::Operator),
            (None, _) => self.principal().map(Actor::User),
        }
    }

    /// A request to another service within this call, without the user's token.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.outgoing(message, OnBehalf::Service)
    }

    /// A request to another service within this call, with the user's token.
    pub fn request_for_user<T>(&self, message: T) -> Request<T> {
        self.outgoing(message, OnBehalf::User)
    }

    fn outgoing<T>(&self, message: T, on_behalf: OnBehalf) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Outgoing { call: self.clone(), on_behalf });
        request
    }
}

/// Records the user of the current call for its log lines and audit record. The server stack does so for the user of a
/// token; a handler that identifies the user otherwise, such as sign-in, calls this.
pub fn record_user(user_id: Uuid) {
    tracing::Span::current().record("user", tracing::field::display(user_id));
}

/// Records the user whom the current call concerns, where that is not the one who makes it, for its log lines and audit record.
pub fn record_target(user_id: Uuid) {
    tracing::Span::current().record("target_user", tracing::field::display(user_id));
}

/// What the client needs to know about an outgoing request.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) call: Call,
    pub(crate) on_behalf: OnBehalf,
}

/// Whether a request carries the user's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnBehalf {
    Service,
    User,
}

/// A new request id.
#[must_use]
pub fn new_request_id() -> HeaderValue {
    let mut buffer = Uuid::encode_buffer();
    let text = Uuid::now_v7().simple().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("none"))
}

/// Whether a received request id is safe to log: 1 to 64 characters of `A-Z a-z 0-9 - _ .`
#[must_use]
pub fn valid_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=64).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
