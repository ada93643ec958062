//! How this service fails, each failure with its reason.

use std::{io, time::Duration};

use drystone_mesh::error::{Error as MeshError, Reason};
use tonic::Status;

use crate::{password::HashError, password::hasher::HashingError, token::signing_key::KeyError};

/// When it is worth trying again after the hashing queue was full: a full queue is worked off in less.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A failure of a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown address or wrong password: the caller does not learn which.
    #[error("the e-mail address or the password is wrong")]
    InvalidCredentials,
    /// The refresh token is not one of ours, or damaged.
    #[error("the refresh token is damaged or not one of ours; sign in again")]
    RefreshTokenInvalid,
    /// The account is gone, and its sessions with it.
    #[error("the account of this session is gone; sign in with another")]
    SessionEnded,
    /// The request id belongs to a registration with another password.
    #[error("this request id was used for another registration; make a new one")]
    RequestIdReused,
    /// Too many attempts in a while.
    #[error(transparent)]
    Limited(MeshError),
    /// The password could not be hashed.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// No token could be signed.
    #[error("the access token could not be signed")]
    Signing(#[source] jsonwebtoken::errors::Error),
    /// Another service answered something that the contract does not allow.
    #[error("{0} answered without {1}")]
    Answer(&'static str, &'static str),
    /// Another service refused, or is away.
    #[error(transparent)]
    Neighbour(#[from] MeshError),
    /// The store failed.
    #[error("the store of credentials failed")]
    Store(#[from] sqlx::Error),
}

impl Error {
    /// The reason that the caller hears.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidCredentials => Reason::InvalidCredentials,
            Self::RefreshTokenInvalid => Reason::RefreshTokenInvalid,
            Self::SessionEnded => Reason::SessionEnded,
            Self::RequestIdReused => Reason::RequestIdReused,
            Self::Hashing(HashingError::QueueFull) => Reason::Overloaded,
            Self::Hashing(HashingError::DeadlinePassed) => Reason::DeadlineExceeded,
            Self::Hashing(HashingError::Stopped) => Reason::Unavailable,
            Self::Limited(error) | Self::Neighbour(error) => error.reason(),
            Self::Hashing(HashingError::Hash(_)) | Self::Signing(_) | Self::Answer(..) | Self::Store(_) => {
                Reason::Internal
            }
        }
    }
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let reason = error.reason();
        match error {
            Error::Limited(error) | Error::Neighbour(error) => error,
            Error::Store(error) => drystone_store::to_mesh_error(error),
            Error::Hashing(HashingError::QueueFull) => {
                Self::new(reason, "too many people sign in at once; try again in a second").retry_after(RETRY_AFTER)
            }
            Error::Hashing(HashingError::Stopped) => {
                Self::new(reason, "the service is shutting down; try again in a second").retry_after(RETRY_AFTER)
            }
            error if reason == Reason::Internal => Self::internal(error),
            error => Self::new(reason, error.to_string()),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        MeshError::from(error).into()
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its section of the configuration is wrong.
    #[error("{0}")]
    Config(String),
    /// The hashing threads cannot be started.
    #[error("the hashing threads cannot be started; lower `auth.hashing.threads`")]
    Threads(#[source] io::Error),
    /// The dummy hash for unknown accounts cannot be made.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store failed.
    #[error("the keys cannot be read from the database of auth")]
    Store(#[from] sqlx::Error),
    /// A signing key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no signing key, even after one was made.
    #[error("the database of auth lost the signing key that was just written to it; check its disk")]
    NoSigningKey,
    /// The secret of the refresh tokens has the wrong length.
    #[error("the secret of the refresh tokens in the database of auth is damaged; restore the database from a backup")]
    SecretDamaged,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    Random,
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn each_failure_has_its_reason() {
        let cases = [
            (Error::InvalidCredentials, Reason::InvalidCredentials),
            (Error::RefreshTokenInvalid, Reason::RefreshTokenInvalid),
            (Error::RequestIdReused, Reason::RequestIdReused),
            (Error::Hashing(HashingError::QueueFull), Reason::Overloaded),
            (Error::Hashing(HashingError::DeadlinePassed), Reason::DeadlineExceeded),
            (Error::Hashing(HashingError::Stopped), Reason::Unavailable),
            (Error::Signing(jsonwebtoken::errors::ErrorKind::InvalidEcdsaKey.into()), Reason::Internal),
            (Error::Store(sqlx::Error::RowNotFound), Reason::Internal),
            (Error::Store(sqlx::Error::PoolTimedOut), Reason::Unavailable),
        ];
        for (error, reason) in cases {
            let shown = error.to_string();
            assert_eq!(MeshError::from(error).reason(), reason, "{shown}");
        }
    }

    #[test]
    fn an_overload_says_when_to_come_back() {
        let status = Status::from(Error::Hashing(HashingError::QueueFull));
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    }

    #[test]
    fn what_went_wrong_inside_stays_inside() {
        let status = Status::from(Error::Store(sqlx::Error::Protocol("secret detail".into())));
        assert!(!status.message().contains("secret detail"), "{}", status.message());
    }
}
