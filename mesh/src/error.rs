//! Errors of calls, with a closed set of reasons, and their conversion to gRPC statuses.
//!
//! Domain code names a [`Reason`], which determines the gRPC code and the HTTP status. The internal cause is the `source`: it
//! is logged with its chain, while the caller receives the reason and the request id.

use std::{borrow::Cow, error::Error as StdError, fmt, time::Duration};

pub use drystone::Reason;
use drystone::status::{self, StepUp};
use tonic::Status;
use tonic_types::{FieldViolation, StatusExt};

/// The result of an RPC.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The cause of an error.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// A rejected or failed call.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Reason,
    message: Cow<'static, str>,
    fields: Vec<(String, String)>,
    retry_after: Option<Duration>,
    step_up: StepUp,
    source: Option<BoxError>,
}

impl Error {
    /// An error with this reason. The message says what happened and what to do, and is shown to the caller.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            reason,
            message: message.into(),
            fields: Vec::new(),
            retry_after: None,
            step_up: StepUp::default(),
            source: None,
        }))
    }

    /// An internal error. Its cause is not shown to the caller.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::new(Reason::Internal, "something went wrong on our side; the log has it under this request id")
            .caused_by(source)
    }

    /// A service or store that the call needs is unavailable.
    pub fn unavailable(what: &'static str, source: impl Into<BoxError>) -> Self {
        Self::new(Reason::Unavailable, format!("{what} is unavailable; try again shortly"))
            .retry_after(Duration::from_secs(1))
            .caused_by(source)
    }

    /// An invalid field of the request.
    pub fn invalid_field(field: impl Into<String>, description: impl Into<String>) -> Self {
        let field = status::shorten(&field.into(), status::MAX_FIELD_LENGTH).into_owned();
        let description = status::shorten(&description.into(), status::MAX_DESCRIPTION_LENGTH).into_owned();
        let mut error = Self::new(Reason::InvalidRequest, format!("{field}: {description}"));
        error.0.fields.push((field, description));
        error
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The retry delay, if there is one.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Adds a retry delay.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Adds the authentication that the call requires.
    #[must_use]
    pub fn step_up(mut self, step_up: StepUp) -> Self {
        self.0.step_up = step_up;
        self
    }

    /// The message that the caller sees.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The reason.
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

/// The conversion to a status. A cause is logged here, once, with its chain.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let Inner { reason, message, fields, retry_after, step_up, source } = *error.0;
        if let Some(source) = &source {
            tracing::warn!(reason = reason.name(), cause = %Chain(source.as_ref()), "call failed");
        }
        let violations = fields.into_iter().map(|(field, description)| FieldViolation::new(field, description));
        let mut status = status::with_step_up(reason, &message, violations.collect(), retry_after, step_up);
        if let Some(source) = source {
            // For tests that print a failed call. It is not part of the response.
            status.set_source(source.into());
        }
        status
    }
}

/// The error of a call to another service: its reason, if the user may see it, else DEADLINE_EXCEEDED, UNAVAILABLE or
/// INTERNAL.
impl From<Status> for Error {
    fn from(status: Status) -> Self {
        match reason_of(&status) {
            // The own certificate has expired and will be renewed.
            Some(Reason::CallerExpired | Reason::CallerRevoked) => Self::unavailable("an upstream service", status),
            Some(Reason::CallerNotAllowed | Reason::CallerUnidentified | Reason::MethodUnknown) => {
                Self::internal(status)
            }
            Some(reason) => {
                let details = status.get_error_details();
                let mut error = Self::new(reason, status.message().to_owned());
                error.0.retry_after = details.retry_info().and_then(|info| info.retry_delay);
                error.0.step_up = StepUp::of(&status);
                let fields = details.bad_request().map(|request| request.field_violations.as_slice());
                let of = |violation: &FieldViolation| (violation.field.clone(), violation.description.clone());
                error.0.fields = fields.unwrap_or_default().iter().map(of).collect();
                error
            }
            None if status.code() == tonic::Code::DeadlineExceeded => {
                Self::new(Reason::DeadlineExceeded, "the deadline passed before the work was done")
            }
            None if status.code() == tonic::Code::Unavailable => Self::unavailable("an upstream service", status),
            None => Self::internal(status),
        }
    }
}

/// The reason of a status from Drystone.
#[must_use]
pub fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    if info.domain == Reason::DOMAIN { Reason::from_name(&info.reason) } else { None }
}

/// Displays an error and its causes on one line. A cause that is part of the previous text is not repeated.
pub struct Chain<'a>(pub &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.to_string();
        f.write_str(&shown)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !shown.contains(&text) {
                write!(f, ": {text}")?;
                shown = text;
            }
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(fields: &[(&str, &str)]) -> Status {
        let mut error = Error::new(Reason::InvalidRequest, "two fields are not as they should be");
        error.0.fields = fields.iter().map(|&(field, text)| (field.to_owned(), text.to_owned())).collect();
        error.into()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct NestedError {
        text: &'static str,
        source: Option<Box<NestedError>>,
    }

    #[test]
    fn each_cause_is_shown_once() {
        let nested = |text, source| NestedError { text, source };
        let cause = || Some(Box::new(nested("no such file", None)));
        let chain = |error: &NestedError| Chain(error).to_string();
        assert_eq!(chain(&nested("the key cannot be read", cause())), "the key cannot be read: no such file");
        let error = nested("the key cannot be read: no such file; check the path", cause());
        assert_eq!(chain(&error), "the key cannot be read: no such file; check the path");
        let error = nested("it does not start", Some(Box::new(error)));
        assert_eq!(chain(&error), "it does not start: the key cannot be read: no such file; check the path");
    }

    fn fields(status: &Status) -> Vec<(String, String)> {
        let violations = status.get_details_bad_request().unwrap().field_violations;
        violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
    }

    #[test]
    fn a_status_prints_its_cause_and_does_not_send_it() {
        let status = Status::from(Error::internal("no such table"));
        assert!(format!("{status:?}").contains("no such table"));
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let received = Status::from_header_map(&headers).unwrap();
        assert_eq!(reason_of(&received), Some(Reason::Internal));
        assert!(!format!("{headers:?}{received:?}{:?}", received.details()).contains("no such table"));
    }

    #[test]
    fn invalid_fields_survive_a_hop() {
        let given = invalid(&[("email", "must be an e-mail address"), ("name.first", "must not be empty")]);
        let handed_on = Status::from(Error::from(given.clone()));
        assert_eq!((handed_on.code(), reason_of(&handed_on)), (given.code(), Some(Reason::InvalidRequest)));
        assert_eq!((fields(&handed_on), handed_on.message()), (fields(&given), given.message()));
    }

    #[test]
    fn a_required_authentication_survives_a_hop() {
        let step_up = StepUp::new(Some(Duration::from_mins(10)), None);
        let given = Error::new(Reason::ReauthenticationRequired, "sign in again").step_up(step_up);
        let handed_on = Status::from(Error::from(Status::from(given)));
        assert_eq!((reason_of(&handed_on), StepUp::of(&handed_on)), (Some(Reason::ReauthenticationRequired), step_up));
    }

    #[test]
    fn an_expired_own_certificate_is_unavailable() {
        let status = Status::from(Error::new(Reason::CallerExpired, "the certificate has expired"));
        let handed_on = Status::from(Error::from(status));
        assert_eq!(reason_of(&handed_on), Some(Reason::Unavailable));
        assert!(handed_on.get_details_retry_info().unwrap().retry_delay.is_some());
        assert!(!handed_on.message().contains("certificate"), "{}", handed_on.message());
    }
}
