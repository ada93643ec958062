//! Why there are no new credentials.

use drystone_mesh::{
    error::Chain,
    identity::{IdentityError, SpiffeId},
};
use spiffe::WorkloadApiError;

use crate::endpoint::Endpoint;

/// The characters that an error shows of a text of the agent.
const MAX_CHARACTERS: usize = 300;

/// The field of a response that has the certificates.
const SVIDS: &str = "X509SVIDResponse.svids";

/// Why there are no new credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The agent cannot be reached, or ended the stream.
    Unavailable(String),
    /// The agent has no certificate for us.
    NotIssued(String),
    /// The agent's answer cannot be used.
    Malformed(String),
}

impl Failure {
    pub(crate) fn of(error: &WorkloadApiError) -> Self {
        match error {
            WorkloadApiError::NoIdentityIssued => Self::NotIssued("no entry matches this process".to_owned()),
            WorkloadApiError::PermissionDenied(message) => Self::NotIssued(shown(message)),
            WorkloadApiError::MissingRequiredField { field: SVIDS } => Self::NotIssued("it issues none".to_owned()),
            // Without its source, which repeats it.
            WorkloadApiError::Transport(error @ spiffe::transport::TransportError::Status(_)) => {
                Self::Unavailable(shown(&error.to_string()))
            }
            WorkloadApiError::Transport(error) => Self::Unavailable(shown(&Chain(error).to_string())),
            other => Self::Malformed(shown(&Chain(other).to_string())),
        }
    }

    /// Whether the agent has answered, so that waiting for it will not help.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Unavailable(_) => false,
            Self::NotIssued(_) | Self::Malformed(_) => true,
        }
    }

    /// The cause.
    pub(crate) fn cause(&self) -> &str {
        let (Self::Unavailable(cause) | Self::NotIssued(cause) | Self::Malformed(cause)) = self;
        cause
    }

    /// As an error that says what to do.
    pub(crate) fn into_error(self, endpoint: &Endpoint, id: &SpiffeId) -> IdentityError {
        let source_name = format!("the Workload API at {endpoint}");
        match self {
            Self::Unavailable(cause) => {
                let reason = format!("{cause}; check that the agent runs, and that this process may open its socket");
                IdentityError::Unavailable { source_name, reason }
            }
            Self::NotIssued(cause) => {
                let reason = format!(
                    "{cause}; register an entry with this SPIFFE ID, and selectors that match this process, at its server"
                );
                IdentityError::NotIssued { source_name, id: id.clone(), reason }
            }
            Self::Malformed(cause) => {
                IdentityError::Malformed { source_name, reason: format!("{cause}; see the log of the agent") }
            }
        }
    }
}

/// A text of the agent, on one line and not longer than a log line should be.
fn shown(text: &str) -> String {
    text.chars().take(MAX_CHARACTERS).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_the_agent_is_one_line_of_bounded_length() {
        let long = format!("denied\n{}", "x".repeat(10_000));
        let failure = Failure::of(&WorkloadApiError::PermissionDenied(long));
        assert!(failure.is_answer());
        assert_eq!(failure.cause().chars().count(), MAX_CHARACTERS);
        assert!(failure.cause().starts_with("denied x"), "{failure:?}");
    }
}
