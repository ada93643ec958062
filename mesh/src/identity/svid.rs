//! What a certificate says of a workload, once it is seen to keep to our profile of X.509-SVID.
//!
//! These are the rules that a certificate must keep by itself. That somebody we trust has signed it, and that it is
//! in its time, is for [`verify`](super::verify()).

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::GeneralName,
    oid_registry::OID_X509_EXT_KEY_USAGE,
    prelude::{FromDer, X509Version},
};

use super::spiffe::{SpiffeId, SpiffeIdError};
use crate::clock::Timestamp;

/// The identity that a certificate carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// The workload.
    pub id: SpiffeId,
    /// The last moment at which the certificate holds.
    pub not_after: Timestamp,
    /// SHA-256 of the certificate's DER, as tokens are bound to it (RFC 8705).
    pub thumbprint: [u8; 32],
    /// The serial number, in lower-case hexadecimal.
    pub serial: String,
}

/// The rule of the profile that a certificate breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The bytes are not one X.509 certificate of version 3, or hold an extension twice.
    #[error("it is not a well-formed X.509 v3 certificate: {0}")]
    Malformed(String),
    /// It does not carry exactly one URI among its names.
    #[error("it must carry exactly one URI in its subject alternative names, and carries {0}")]
    UriCount(usize),
    /// The URI is no SPIFFE ID.
    #[error("its URI is not a SPIFFE ID: {0}")]
    Id(#[from] SpiffeIdError),
    /// The ID names a trust domain, and no workload in it.
    #[error("its SPIFFE ID names a trust domain and no workload: the path is empty")]
    RootPath,
    /// It belongs to a CA.
    #[error("it belongs to a certificate authority, not to a workload")]
    Authority,
    /// There is no key usage extension, or it is not critical.
    #[error("its key usage must be present and critical")]
    KeyUsage,
    /// The key may not sign a handshake.
    #[error("its key usage must include digitalSignature")]
    NoDigitalSignature,
    /// The key may sign certificates or revocation lists.
    #[error("its key usage must not include keyCertSign or cRLSign")]
    SigningUsage,
    /// It is not meant for both ends of a connection.
    #[error("its extended key usage must include both serverAuth and clientAuth")]
    ExtendedKeyUsage,
}

impl Svid {
    /// Reads a certificate and holds it to the profile.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(malformed)?;
        if !rest.is_empty() || certificate.version() != X509Version::V3 {
            return Err(SvidError::Malformed("there is more or less than one certificate of version 3".to_owned()));
        }
        let id = only_id(&certificate)?;
        check_not_an_authority(&certificate)?;
        check_key_usage(&certificate)?;
        check_extended_key_usage(&certificate)?;

        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        let not_after = Timestamp::from_timestamp(certificate.validity().not_after.timestamp(), 0)
            .ok_or_else(|| SvidError::Malformed("its end lies beyond the calendar".to_owned()))?;
        Ok(Self { id, not_after, thumbprint, serial: hexadecimal(certificate.raw_serial()) })
    }

    /// Whether the certificate's time is over.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

fn only_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = certificate.subject_alternative_name().map_err(malformed_extension)?;
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(SvidError::Malformed("a subject alternative name cannot be read".to_owned()));
    }
    let uris: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    let [uri] = uris[..] else { return Err(SvidError::UriCount(uris.len())) };
    let id: SpiffeId = uri.parse()?;
    if id.path().is_empty() { Err(SvidError::RootPath) } else { Ok(id) }
}

fn check_not_an_authority(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = certificate.basic_constraints().map_err(malformed_extension)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) { Err(SvidError::Authority) } else { Ok(()) }
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_KEY_USAGE).map_err(malformed_extension)?;
    let usage = certificate.key_usage().map_err(malformed_extension)?.ok_or(SvidError::KeyUsage)?.value;
    if !extension.is_some_and(|extension| extension.critical) {
        return Err(SvidError::KeyUsage);
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::SigningUsage);
    }
    if usage.digital_signature() { Ok(()) } else { Err(SvidError::NoDigitalSignature) }
}

fn check_extended_key_usage(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let usage = certificate.extended_key_usage().map_err(malformed_extension)?;
    if usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
        Ok(())
    } else {
        Err(SvidError::ExtendedKeyUsage)
    }
}

fn malformed(error: x509_parser::nom::Err<X509Error>) -> SvidError {
    SvidError::Malformed(error.to_string())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn malformed_extension(error: X509Error) -> SvidError {
    SvidError::Malformed(error.to_string())
}

/// Bytes as lower-case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
