//! Why a response of a browser is refused.

/// Why a response of a browser is refused. The text is for developers of clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It does not have the form of the specification.
    #[error("{0} is missing or malformed; send what PublicKeyCredential.toJSON() returns")]
    Malformed(&'static str),
    /// It is of the other ceremony.
    #[error("it is of another ceremony: `type` of clientDataJSON must be `{0}`")]
    Type(&'static str),
    /// The challenge is not one of this server for this purpose, or has expired.
    #[error("its challenge is unknown, has expired, or is for something else; begin again")]
    Challenge,
    /// The origin is not one of the relying party.
    #[error("the origin {0} is not among those of auth.passkeys.origins")]
    Origin(String),
    /// It was made inside a frame of another origin.
    #[error("it was made in a frame of another origin, which is not allowed")]
    CrossOrigin,
    /// It is for another relying party.
    #[error("it is for another RP ID")]
    RelyingPartyId,
    /// Nobody touched the authenticator.
    #[error("the user was not present")]
    UserPresent,
    /// The authenticator did not verify the user.
    #[error("the authenticator did not verify the user by PIN or biometrics; ask for userVerification `required`")]
    UserVerified,
    /// The flags about backups contradict each other, or those of the registration.
    #[error("its backup flags contradict each other or those of its registration")]
    BackupFlags,
    /// The kind of key is not one that was asked for.
    #[error("its key is of a kind that was not asked for, or is invalid")]
    PublicKey,
    /// The format of the attestation is not supported.
    #[error(
        "its attestation has another format than `none` and `packed` (self attestation); ask for attestation `none`"
    )]
    AttestationFormat,
    /// The attestation does not verify.
    #[error("its attestation does not verify")]
    Attestation,
    /// The signature does not verify.
    #[error("its signature does not verify")]
    Signature,
    /// It names another user than the one of the credential.
    #[error("its user handle is that of another user")]
    UserHandle,
    /// The counter did not increase: there may be a copy of the authenticator.
    #[error("its signature counter did not increase: the passkey may have been copied; remove it")]
    Counter,
}
