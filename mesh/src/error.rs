//! How a call fails: one error type, one closed set of reasons, one way onto the wire.
//!
//! Domain code names a [`Reason`]; the reason decides the gRPC code and the HTTP status. What went wrong inside
//! travels as `source`: the log gets the chain, the caller gets the reason and the request id.

use std::{borrow::Cow, collections::HashMap, error::Error as StdError, fmt, time::Duration};

pub use drystone::Reason;
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// The result of an RPC's own work.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can stand behind an error.
pub type Source = Box<dyn StdError + Send + Sync>;

/// A refused or failed call.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Reason,
    message: Cow<'static, str>,
    fields: Vec<(String, String)>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// A failure for this reason; the message says what happened and what to do, and is shown to the caller.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { reason, message: message.into(), fields: Vec::new(), retry_after: None, source: None }))
    }

    /// Something went wrong inside. The caller learns no more than that.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::new(Reason::Internal, "something went wrong on our side; the log has it under this request id")
            .caused_by(source)
    }

    /// A part that the call needs is away for now.
    pub fn unavailable(what: &'static str, source: impl Into<Source>) -> Self {
        Self::new(Reason::Unavailable, format!("{what} is away for now; try again shortly"))
            .retry_after(Duration::from_secs(1))
            .caused_by(source)
    }

    /// A field of the request that is not as it should be.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let (field, description) = (field.into(), description.into());
        let mut error = Self::new(Reason::InvalidRequest, format!("{field}: {description}"));
        error.0.fields.push((field, description));
        error
    }

    /// Adds what went wrong underneath, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds when it is worth trying again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.reason.name(), self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// The way onto the wire. A failure that has a source is logged here, once, with its whole chain.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let Inner { reason, message, fields, retry_after, source } = *error.0;
        if let Some(source) = source {
            tracing::warn!(reason = reason.name(), cause = %Chain(source.as_ref()), "call failed");
        }
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.name(), Reason::DOMAIN, HashMap::new());
        if !fields.is_empty() {
            let violations = fields.into_iter().map(|(field, description)| FieldViolation::new(field, description));
            details.set_bad_request(violations.collect::<Vec<_>>());
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(reason.code(), message, details)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
                Self::unavailable("the database", error)
            }
            other => Self::internal(other),
        }
    }
}

/// The failure of a call to another service, as seen by the one who made it: its reason if it gave one that the
/// user may hear, else that the service is away.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match reason_of(&status) {
            Some(
                Reason::CallerNotAllowed | Reason::CallerUnidentified | Reason::CallerExpired | Reason::MethodUnknown,
            ) => Self::internal(status),
            Some(reason) => {
                let retry_after = status.get_details_retry_info().and_then(|info| info.retry_delay);
                let mut error = Self::new(reason, status.message().to_owned());
                error.0.retry_after = retry_after;
                error
            }
            None if status.code() == tonic::Code::DeadlineExceeded => {
                Self::new(Reason::DeadlineExceeded, "the deadline passed before the work was done")
            }
            None if status.code() == tonic::Code::Unavailable => Self::unavailable("a part of the mesh", status),
            None => Self::internal(status),
        }
    }
}

/// The reason that a status of ours carries.
#[must_use]
pub fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    if info.domain == Reason::DOMAIN { Reason::from_name(&info.reason) } else { None }
}

/// Shows an error and all that stands behind it, on one line.
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}
