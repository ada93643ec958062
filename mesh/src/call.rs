//! One call, as the handler sees it: who makes it, for whom, and how long there is.
//!
//! The server stack puts a [`Call`] into the request's extensions. A handler takes it out with [`Call::of`] and
//! makes its own calls with [`Call::request`], which hands on the deadline, the request id and the trace.

use std::{sync::Arc, time::Instant};

use http::HeaderValue;
use tonic::{Extensions, Request};
use uuid::Uuid;

use crate::{
    error::{Error, Reason, Result},
    identity::SpiffeId,
    telemetry::TraceContext,
    token::Principal,
};

/// The metadata keys that calls carry beside gRPC's own.
pub mod header {
    use http::HeaderName;

    /// Names one request through every service that it passes.
    pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
    /// The address that an outside client called from; believed only from a front door.
    pub const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("x-drystone-client-address");
    /// The `user-agent` of an outside client; believed only from a front door.
    pub const CLIENT_AGENT: HeaderName = HeaderName::from_static("x-drystone-client-agent");
    /// W3C Trace Context.
    pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    /// How long the caller waits, as gRPC writes it.
    pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
}

/// What is known of a call. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Call(Arc<Parts>);

/// What a call is made of. Fields that nobody outside the mesh may forge are filled by the server stack alone.
#[derive(Debug)]
pub struct Parts {
    /// The request id, safe to log and to hand on.
    pub request_id: HeaderValue,
    /// The place in the trace.
    pub trace: TraceContext,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// The workload that calls; absent only for a call that starts here.
    pub caller: Option<SpiffeId>,
    /// The end user, where the rule asks for one.
    pub principal: Option<Arc<Principal>>,
    /// The `authorization` value that proved the end user, to be handed on.
    pub authorization: Option<HeaderValue>,
    /// What a front door says of the client outside.
    pub client: Client,
}

/// The client outside, as a front door saw it. Empty where none said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The IP address.
    pub address: String,
    /// The `user-agent` header, cut to 256 characters.
    pub agent: String,
}

impl Call {
    /// A call of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// A call that starts here, for work that no request asked for.
    #[must_use]
    pub fn background(deadline: Option<Instant>) -> Self {
        Self::new(Parts {
            request_id: new_request_id(),
            trace: TraceContext::new_root(),
            deadline,
            caller: None,
            principal: None,
            authorization: None,
            client: Client::default(),
        })
    }

    /// The call that a request belongs to.
    ///
    /// # Errors
    /// `INTERNAL` if the request did not come through the server stack.
    pub fn of<T>(request: &Request<T>) -> Result<Self> {
        Self::from_extensions(request.extensions())
            .ok_or_else(|| Error::internal("the request did not pass the server stack"))
    }

    /// The call that these extensions carry.
    #[must_use]
    pub fn from_extensions(extensions: &Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }

    /// All that is known.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        &self.0
    }

    /// The end user for whom the call is made.
    ///
    /// # Errors
    /// `TOKEN_MISSING` if the rule did not ask for one: a handler that needs a user has a rule that says so.
    pub fn principal(&self) -> Result<&Principal> {
        self.0.principal.as_deref().ok_or_else(|| Error::new(Reason::TokenMissing, "the call needs an access token"))
    }

    /// A request of this call to another service, in the service's own name.
    pub fn request<T>(&self, message: T) -> Request<T> {
        self.outgoing(message, OnBehalf::Service)
    }

    /// A request of this call to another service, in the user's name: their token goes along.
    pub fn request_for_user<T>(&self, message: T) -> Request<T> {
        self.outgoing(message, OnBehalf::User)
    }

    fn outgoing<T>(&self, message: T, on_behalf: OnBehalf) -> Request<T> {
        let mut request = Request::new(message);
        request.extensions_mut().insert(Outgoing { call: self.clone(), on_behalf });
        request
    }
}

/// Notes that the call at hand concerns this user, for its log lines and its audit record. The server stack does so
/// for whoever a token proves; a handler that finds out by other means, as sign-in does, says it here.
pub fn record_user(user_id: Uuid) {
    tracing::Span::current().record("user", tracing::field::display(user_id));
}

/// What the client stack needs to know of an outgoing request.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) call: Call,
    pub(crate) on_behalf: OnBehalf,
}

/// In whose name a service calls another.
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

/// A request id that came along, if it is one that is safe to log: 1 to 64 characters of `A-Z a-z 0-9 - _ .`
#[must_use]
pub fn valid_request_id(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=64).contains(&bytes.len()) && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}
