//! Why an identity cannot be loaded.

use std::{io, path::PathBuf};

use super::{bundle::BundleError, denylist::DenylistError, spiffe::SpiffeId, svid::SvidError, verifier::VerifyError};

/// An identity cannot be loaded, or a peer cannot be called with it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}; check the path, or issue development certificates with `drystone certs init`", path.display())]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not have the expected content.
    #[error("{} does not contain {what}: {reason}; replace it with a PEM file", path.display())]
    Content {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The private key is readable by other users.
    #[error(
        "the private key {path} is accessible to other users; run `chmod 600 {path}`, or have a mounted one owned by root and \
         readable by its group at most (mode 0440)",
        path = path.display()
    )]
    ExposedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The private key is encrypted; a service cannot ask for the passphrase.
    #[error(
        "the private key {path} is encrypted, and a service cannot ask for its passphrase; decrypt it with \
         `openssl pkey -in {path} -out NEW.key`, run `chmod 600 NEW.key`, and configure that file instead",
        path = path.display()
    )]
    EncryptedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error("the private key {} does not belong to the certificate {}; reissue both", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate does not conform to the profile.
    #[error("the certificate {} is not a valid X.509-SVID: {source}; reissue it", path.display())]
    Profile {
        /// The certificate's file.
        path: PathBuf,
        /// The rule that it breaks.
        source: SvidError,
    },
    /// The trust bundle is invalid.
    #[error("the trust bundle {} is invalid: {source}; it must contain the root certificates of the trust domain in PEM", path.display())]
    Bundle {
        /// The bundle's file.
        path: PathBuf,
        /// The cause.
        source: BundleError,
    },
    /// The denylist is invalid.
    #[error("the denylist {} is invalid: {source}", path.display())]
    Denylist {
        /// Its file.
        path: PathBuf,
        /// The cause.
        source: DenylistError,
    },
    /// The process's certificate is not valid under its own trust bundle, so no peer would accept it.
    #[error(
        "the certificate {} is not trusted by the trust bundle {}: {source}; reissue the certificate, or add its root to the bundle",
        certificate.display(), bundle.display()
    )]
    Untrusted {
        /// The certificate's file.
        certificate: PathBuf,
        /// The bundle's file.
        bundle: PathBuf,
        /// The cause.
        source: Box<VerifyError>,
    },
    /// The replacement is for another workload.
    #[error("the certificate {} is for {found}, but this process is {own}; issue one for {own}, or restart with the new one", path.display())]
    WorkloadMismatch {
        /// The certificate's file.
        path: PathBuf,
        /// The workload of this process.
        own: SpiffeId,
        /// The workload of the certificate.
        found: SpiffeId,
    },
    /// The trust bundle has no roots for the peer's trust domain.
    #[error("cannot connect to {0}: the trust bundle has no roots for its trust domain")]
    UntrustedDomain(SpiffeId),
    /// A handshake with ourselves failed.
    #[error("a TLS handshake with the certificate {} fails: {reason}; reissue it", path.display())]
    Handshake {
        /// The certificate's file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// A source other than files is unavailable.
    #[error("{source_name} is unavailable: {reason}")]
    Unavailable {
        /// The source.
        source_name: String,
        /// The cause, and what to do.
        reason: String,
    },
    /// A source other than files issues no certificate for this workload.
    #[error("{source_name} issues no certificate for {id}: {reason}")]
    NotIssued {
        /// The source.
        source_name: String,
        /// The workload of this process.
        id: SpiffeId,
        /// The cause, and what to do.
        reason: String,
    },
    /// What a source other than files delivers is malformed, or too large.
    #[error("{source_name} delivers credentials that cannot be used: {reason}")]
    Malformed {
        /// The source.
        source_name: String,
        /// The cause, and what to do.
        reason: String,
    },
    /// The TLS library rejects the configuration.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
}
