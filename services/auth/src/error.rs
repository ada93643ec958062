//! The errors of this service and the reason code of each.

use std::{io, time::Duration};

use drystone_mesh::error::{Error as MeshError, Reason};
use drystone_store::sealing::{CheckError, SealError};
use tonic::Status;

use crate::{
    challenge::MAX_TRIES,
    factor::MAX_FACTORS,
    link::{LINK_INTERVAL, MAX_LINKS},
    password::{
        HashError,
        hasher::HashingError,
        policy::{CheckError as CheckPasswordError, PolicyError, Weakness},
    },
    token::{
        key_ring::RELOAD_INTERVAL,
        signing_key::{KeyError, SignError},
    },
};

/// The retry delay after the hashing queue was full: a full queue is processed in less.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Unknown email address or wrong password; the caller is not told which.
    #[error("the email address or the password is wrong")]
    InvalidCredentials,
    /// The new password is easy to guess, or is in a list of leaked ones.
    #[error(transparent)]
    PasswordTooWeak(#[from] Weakness),
    /// A list of leaked passwords cannot be read, so that no new one is accepted.
    #[error("the list of leaked passwords cannot be read")]
    Policy(#[source] io::Error),
    /// The service stops.
    #[error("the service is shutting down; retry in a second")]
    PolicyStopped,
    /// The link is unknown, was used, or has expired.
    #[error("the link is unknown, was used, or has expired; request a new one")]
    LinkInvalid,
    /// A message for another service cannot be written.
    #[error("a message for another service cannot be written")]
    FollowUp(#[source] serde_json::Error),
    /// An administrator has disabled the account, whose password was right.
    #[error("the account is disabled; ask an administrator")]
    AccountDisabled,
    /// The password was right, and the address has to be verified first.
    #[error(
        "verify the e-mail address first, with the link in the mail; POST /v1/email:resendVerification sends it again"
    )]
    EmailNotVerified,
    /// The password was right, and no longer serves: the owner has taken the account back.
    #[error("choose a new password first, with the link in the mail; POST /v1/password:requestReset sends another one")]
    PasswordResetRequired,
    /// Another account has the address.
    #[error("another account has this e-mail address; use a different one")]
    EmailTaken,
    /// The user has been sent as many links of a kind as they are sent in an hour.
    #[error("you have been sent {MAX_LINKS} links within an hour; use the last one, or wait")]
    TooManyLinks,
    /// The code of a second factor is wrong, or was used.
    #[error("the code is wrong or was used; wait for the next one")]
    CodeInvalid,
    /// The challenge is unknown, was used, has expired, or had too many wrong codes.
    #[error("the sign-in has expired, was completed, or had {MAX_TRIES} wrong codes; sign in again")]
    ChallengeInvalid,
    /// Too many wrong codes were tried.
    #[error("too many wrong codes; wait, or use a device that you have signed in on before")]
    TooManyTries(Duration),
    /// The passkey does not prove who the user is.
    #[error("the passkey was not accepted: {0}")]
    PasskeyInvalid(#[from] drystone_webauthn::Failure),
    /// The challenge of the passkey was used.
    #[error("the passkey was not accepted: its challenge was used; begin again")]
    PasskeyChallengeUsed,
    /// No account has the passkey.
    #[error("no account has this passkey, or it was removed; sign in by other means and register it")]
    PasskeyUnknown,
    /// The passkey is registered.
    #[error("the passkey is registered already")]
    PasskeyRegistered,
    /// There are no passkeys.
    #[error("this server has no passkeys; its operator switches them on with auth.passkeys.rp_id")]
    PasskeysDisabled,
    /// The password alone does not suffice.
    #[error("the account has a second factor; verify with it")]
    SecondFactorRequired,
    /// The user has a role that asks for a second factor, and has none: they sign in anew.
    #[error("your role needs a second factor; sign in again, and add one then")]
    EnrolmentRequired,
    /// The user has a role that asks for a second factor.
    #[error("your role needs a second factor; add another one first")]
    LastFactor,
    /// Another second factor was added or removed meanwhile.
    #[error("another second factor was added or removed meanwhile; try again")]
    FactorsChanged,
    /// The user has no second factor.
    #[error(
        "the account has no second factor; add one first: POST /v1/factors:beginTotp or /v1/passkeys:beginRegistration"
    )]
    NoSecondFactor,
    /// There is no such second factor.
    #[error("the account has no such second factor; GET /v1/factors lists them")]
    FactorNotFound,
    /// An administrator wants to reset their own second factors.
    #[error(
        "you cannot reset your own second factors; remove them in a session with one, or ask another administrator"
    )]
    OwnFactors,
    /// There is no such trusted device.
    #[error("the account has no such trusted device; GET /v1/trustedDevices lists them")]
    DeviceNotFound,
    /// The user has as many second factors as they may have.
    #[error("an account may have {MAX_FACTORS} authenticator apps and passkeys; remove one first")]
    TooManyFactors,
    /// The secret of a second factor cannot be sealed or opened.
    #[error("the secret of a second factor cannot be used")]
    Seal(#[source] SealError),
    /// The QR code of a secret cannot be drawn.
    #[error("the QR code cannot be drawn")]
    QrCode,
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
    /// The refresh token is malformed or has an invalid MAC.
    #[error("the refresh token is invalid; sign in again")]
    RefreshTokenInvalid,
    /// The refresh token does not verify, and this instance may not know the key that signed it.
    #[error("the keys of this instance are not current; retry in a few seconds")]
    KeysStale,
    /// The account no longer exists or is disabled, which ends its sessions.
    #[error("the account of this session no longer exists or is disabled; sign in with another account")]
    SessionEnded,
    /// The request id belongs to a registration with another password.
    #[error("the request id was used for another registration; send a new one")]
    RequestIdReused,
    /// The rate limit was exceeded.
    #[error(transparent)]
    Limited(MeshError),
    /// The password could not be hashed.
    #[error(transparent)]
    Hashing(#[from] HashingError),
    /// The access token could not be signed.
    #[error("the access token could not be signed")]
    Signing(#[source] SignError),
    /// There is no signing key.
    #[error("there is no signing key")]
    NoSigningKey,
    /// There never was such a signing key, or it is forgotten.
    #[error("there is no such signing key; `drystone keys list` shows all")]
    SigningKeyNotFound,
    /// Other instances changed the signing keys each time that a change was tried.
    #[error("other instances are changing the signing keys; try again")]
    KeysBusy,
    /// Stored keys could not be changed.
    #[error("the stored keys could not be changed")]
    Keys(#[source] StartError),
    /// The named service sent a response that lacks the named field, which the contract requires.
    #[error("the response of {0} lacks {1}")]
    InvalidResponse(&'static str, &'static str),
    /// A call to another service failed.
    #[error(transparent)]
    Upstream(#[from] MeshError),
    /// The store failed.
    #[error("the credential store failed")]
    Store(#[from] sqlx::Error),
}

impl Error {
    /// Whether a proof of a second factor was refused. Other errors say nothing about the proof.
    pub(crate) const fn is_refused_proof(&self) -> bool {
        matches!(self, Self::CodeInvalid | Self::PasskeyInvalid(_) | Self::PasskeyChallengeUsed | Self::PasskeyUnknown)
    }

    /// The reason code in the response.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::InvalidCredentials => Reason::InvalidCredentials,
            Self::AccountDisabled => Reason::AccountDisabled,
            Self::EmailNotVerified => Reason::EmailNotVerified,
            Self::PasswordResetRequired => Reason::PasswordResetRequired,
            Self::EmailTaken => Reason::EmailTaken,
            Self::TooManyLinks | Self::TooManyTries(_) => Reason::RateLimited,
            Self::PasswordTooWeak(_) => Reason::PasswordTooWeak,
            Self::LinkInvalid => Reason::LinkInvalid,
            Self::CodeInvalid => Reason::CodeInvalid,
            Self::PasskeyInvalid(_) | Self::PasskeyChallengeUsed => Reason::PasskeyInvalid,
            Self::PasskeyUnknown => Reason::PasskeyUnknown,
            Self::PasskeyRegistered => Reason::PasskeyRegistered,
            Self::PasskeysDisabled => Reason::PasskeysDisabled,
            Self::ChallengeInvalid => Reason::ChallengeInvalid,
            Self::LastFactor => Reason::LastFactor,
            Self::SecondFactorRequired | Self::EnrolmentRequired => Reason::SecondFactorRequired,
            Self::NoSecondFactor => Reason::NoSecondFactor,
            Self::FactorNotFound => Reason::FactorNotFound,
            Self::OwnFactors => Reason::AuthorityExceeded,
            Self::DeviceNotFound => Reason::DeviceNotFound,
            Self::FactorsChanged => Reason::StaleEtag,
            Self::TooManyFactors => Reason::TooManyFactors,
            Self::RefreshTokenInvalid => Reason::RefreshTokenInvalid,
            Self::SessionEnded => Reason::SessionEnded,
            Self::RequestIdReused => Reason::RequestIdReused,
            Self::Hashing(HashingError::QueueFull) => Reason::Overloaded,
            Self::Hashing(HashingError::DeadlineExceeded) => Reason::DeadlineExceeded,
            Self::SigningKeyNotFound => Reason::SigningKeyNotFound,
            Self::KeysStale
            | Self::KeysBusy
            | Self::PolicyStopped
            | Self::Hashing(HashingError::Stopped)
            | Self::Seal(SealError::Unavailable(_))
            | Self::Keys(StartError::Scrub(_) | StartError::Seal(SealError::Unavailable(_))) => Reason::Unavailable,
            Self::Limited(error) | Self::Upstream(error) => error.reason(),
            Self::Hashing(HashingError::Hash(_))
            | Self::Signing(_)
            | Self::Policy(_)
            | Self::FollowUp(_)
            | Self::NoSigningKey
            | Self::Seal(_)
            | Self::QrCode
            | Self::Random
            | Self::Keys(_)
            | Self::InvalidResponse(..)
            | Self::Store(_) => Reason::Internal,
        }
    }
}

impl From<Error> for MeshError {
    fn from(error: Error) -> Self {
        let reason = error.reason();
        match error {
            Error::Limited(error) | Error::Upstream(error) => error,
            Error::Store(error) | Error::Keys(StartError::Store(error)) => drystone_store::to_mesh_error(error),
            // For the operator, who alone changes keys.
            Error::Keys(StartError::Seal(error)) => Self::new(reason, error.to_string()).caused_by(error),
            Error::Keys(error @ (StartError::Scrub(_) | StartError::UnsealedKey)) => {
                Self::new(reason, error.to_string()).caused_by(error)
            }
            Error::KeysStale => Self::new(reason, error.to_string()).retry_after(RELOAD_INTERVAL),
            Error::Hashing(HashingError::QueueFull) => {
                Self::new(reason, "too many concurrent sign-ins; retry in a second").retry_after(RETRY_AFTER)
            }
            Error::TooManyTries(wait) => Self::new(reason, Error::TooManyTries(wait).to_string()).retry_after(wait),
            Error::Seal(error @ SealError::Unavailable(_)) => {
                Self::new(reason, "second factors cannot be checked now; retry in a few seconds")
                    .caused_by(error)
                    .retry_after(RETRY_AFTER)
            }
            error @ Error::TooManyLinks => Self::new(reason, error.to_string()).retry_after(LINK_INTERVAL),
            error @ Error::PolicyStopped => Self::new(reason, error.to_string()).retry_after(RETRY_AFTER),
            Error::Hashing(HashingError::Stopped) => {
                Self::new(reason, "the service is shutting down; retry in a second").retry_after(RETRY_AFTER)
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

impl From<CheckPasswordError> for Error {
    fn from(error: CheckPasswordError) -> Self {
        match error {
            CheckPasswordError::Weak(weakness) => Self::PasswordTooWeak(weakness),
            CheckPasswordError::Blocklist(error) => Self::Policy(error),
        }
    }
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration section `[auth]` is invalid.
    #[error("{0}")]
    Config(String),
    /// The policy of new passwords cannot be applied.
    #[error("auth.password_policy: {0}")]
    Policy(#[from] PolicyError),
    /// The hashing threads cannot be started.
    #[error("cannot start the hashing threads; lower `auth.hashing.threads`")]
    Threads(#[source] io::Error),
    /// The dummy hash for unknown accounts cannot be generated.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store failed.
    #[error("cannot read the signing keys from the auth database")]
    Store(#[from] sqlx::Error),
    /// Keys were sealed, but their earlier bytes could not be removed.
    #[error(
        "the keys are encrypted and replaced, but the files of the database still have their earlier bytes: {0}; run `drystone keys \
         seal` again"
    )]
    Scrub(#[source] sqlx::Error),
    /// A key that is not sealed appeared where all were.
    #[error(
        "an unencrypted key appeared in the auth database, where all keys were encrypted; somebody else wrote it: remove it, and find out who"
    )]
    UnsealedKey,
    /// A key or secret cannot be sealed or opened.
    #[error("the keys in the auth database cannot be used: {0}")]
    Seal(#[from] SealError),
    /// A signing key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no signing key, even after one was inserted.
    #[error("the auth database lost a signing key that was just written; check its disk")]
    NoSigningKey,
    /// The secret of the refresh tokens has an invalid length.
    #[error("the refresh token secret in the auth database is corrupt; restore the database from a backup")]
    CorruptSecret,
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    Random,
}

impl From<CheckError> for StartError {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Store(error) => Self::Store(error),
            CheckError::Seal(error) => Self::Seal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn each_error_has_its_reason() {
        let cases = [
            (Error::InvalidCredentials, Reason::InvalidCredentials),
            (Error::AccountDisabled, Reason::AccountDisabled),
            (Error::RefreshTokenInvalid, Reason::RefreshTokenInvalid),
            (Error::RequestIdReused, Reason::RequestIdReused),
            (Error::Hashing(HashingError::QueueFull), Reason::Overloaded),
            (Error::Hashing(HashingError::DeadlineExceeded), Reason::DeadlineExceeded),
            (Error::Hashing(HashingError::Stopped), Reason::Unavailable),
            (Error::Signing(SignError::Key), Reason::Internal),
            (Error::SigningKeyNotFound, Reason::SigningKeyNotFound),
            (Error::Store(sqlx::Error::RowNotFound), Reason::Internal),
            (Error::Store(sqlx::Error::PoolTimedOut), Reason::Unavailable),
            (Error::KeysStale, Reason::Unavailable),
            (Error::Keys(StartError::Scrub(sqlx::Error::PoolTimedOut)), Reason::Unavailable),
        ];
        for (error, reason) in cases {
            let shown = error.to_string();
            assert_eq!(MeshError::from(error).reason(), reason, "{shown}");
        }
    }

    #[test]
    fn a_full_hashing_queue_has_a_retry_delay() {
        let status = Status::from(Error::Hashing(HashingError::QueueFull));
        assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    }

    #[test]
    fn internal_details_are_not_in_the_status() {
        let status = Status::from(Error::Store(sqlx::Error::Protocol("secret detail".into())));
        assert!(!status.message().contains("secret detail"), "{}", status.message());
    }
}
