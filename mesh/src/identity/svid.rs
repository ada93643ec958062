//! Parses a certificate and checks that it conforms to our profile of X.509-SVID.
//!
//! [`verify`](super::verify()) checks the chain and the validity period.

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    oid_registry::OID_X509_EXT_KEY_USAGE,
    prelude::{FromDer, X509Version},
};

use super::spiffe::{SpiffeId, SpiffeIdError};
use crate::clock::Timestamp;

/// The workload identity in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Svid {
    /// The workload.
    pub id: SpiffeId,
    /// The start of the validity.
    pub not_before: Timestamp,
    /// The end of the validity; the certificate is expired from this time on.
    pub not_after: Timestamp,
    /// The serial number, in lower-case hexadecimal.
    pub serial: String,
    /// The SHA-256 of the public key (SubjectPublicKeyInfo), in lower-case hexadecimal.
    pub key_sha256: String,
}

/// The violated rule of the profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The bytes are not one X.509 v3 certificate, or an extension is duplicate.
    #[error("it is not a well-formed X.509 v3 certificate: {0}")]
    Malformed(String),
    /// It does not have exactly one URI SAN.
    #[error("it must have exactly one URI in its subject alternative names, but has {0}")]
    UriCount(usize),
    /// The URI is not a SPIFFE ID.
    #[error("its URI is not a SPIFFE ID: {0}")]
    Id(#[from] SpiffeIdError),
    /// The ID is that of a trust domain, not of a workload.
    #[error("its SPIFFE ID has an empty path, so it names a trust domain and not a workload")]
    EmptyPath,
    /// It is a CA certificate.
    #[error("it is a CA certificate, not one of a workload")]
    CaCertificate,
    /// There is no key usage extension, or it is not critical.
    #[error("its key usage must be present and critical")]
    KeyUsage,
    /// The key usage does not allow to sign a handshake.
    #[error("its key usage must include digitalSignature")]
    NoDigitalSignature,
    /// The key usage allows to sign certificates or revocation lists.
    #[error("its key usage must not include keyCertSign or cRLSign")]
    SigningUsage,
    /// It has an extended key usage that is not for both servers and clients.
    #[error("its extended key usage, which is optional, must include both serverAuth and clientAuth if it is present")]
    ExtendedKeyUsage,
}

impl SvidError {
    /// The label in metrics, from a closed set.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "svid_malformed",
            Self::UriCount(_) => "svid_uri_count",
            Self::Id(_) => "svid_spiffe_id",
            Self::EmptyPath => "svid_empty_path",
            Self::CaCertificate => "svid_ca",
            Self::KeyUsage => "svid_key_usage",
            Self::NoDigitalSignature => "svid_digital_signature",
            Self::SigningUsage => "svid_signing_usage",
            Self::ExtendedKeyUsage => "svid_extended_key_usage",
        }
    }
}

impl Svid {
    /// Parses a certificate and checks the profile.
    ///
    /// # Errors
    /// The first violated rule.
    pub fn parse(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(malformed)?;
        if !rest.is_empty() || certificate.version() != X509Version::V3 {
            return Err(SvidError::Malformed("expected exactly one certificate of version 3".to_owned()));
        }
        let id = only_id(&certificate)?;
        check_not_ca(&certificate)?;
        check_key_usage(&certificate)?;
        check_extended_key_usage(&certificate)?;

        let time = |seconds| {
            Timestamp::from_timestamp(seconds, 0)
                .ok_or_else(|| SvidError::Malformed("its validity is out of range".to_owned()))
        };
        let validity = certificate.validity();
        Ok(Self {
            id,
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            serial: hexadecimal(certificate.raw_serial()),
            key_sha256: hexadecimal(digest::digest(&digest::SHA256, certificate.public_key().raw).as_ref()),
        })
    }

    /// Whether the certificate has expired, which it has from `not_after` on.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.not_after
    }
}

fn only_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = certificate.subject_alternative_name().map_err(malformed)?;
    let names = names.map_or(&[][..], |names| names.value.general_names.as_slice());
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
        return Err(SvidError::Malformed("a subject alternative name cannot be read".to_owned()));
    }
    let uris: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    let [uri] = uris[..] else { return Err(SvidError::UriCount(uris.len())) };
    let id: SpiffeId = uri.parse()?;
    if id.path().is_empty() { Err(SvidError::EmptyPath) } else { Ok(id) }
}

fn check_not_ca(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) { Err(SvidError::CaCertificate) } else { Ok(()) }
}

fn check_key_usage(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_KEY_USAGE).map_err(malformed)?;
    let usage = certificate.key_usage().map_err(malformed)?.ok_or(SvidError::KeyUsage)?.value;
    if !extension.is_some_and(|extension| extension.critical) {
        return Err(SvidError::KeyUsage);
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(SvidError::SigningUsage);
    }
    if usage.digital_signature() { Ok(()) } else { Err(SvidError::NoDigitalSignature) }
}

fn check_extended_key_usage(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let usage = certificate.extended_key_usage().map_err(malformed)?;
    if usage.is_none_or(|usage| usage.value.server_auth && usage.value.client_auth) {
        Ok(())
    } else {
        Err(SvidError::ExtendedKeyUsage)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of map_err")]
fn malformed<E: ToString>(error: E) -> SvidError {
    SvidError::Malformed(error.to_string())
}

/// Encodes bytes as lower-case hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    };

    use super::*;
    use crate::identity::testing::TestCa;

    fn parse(change: impl FnOnce(&mut CertificateParams)) -> Result<Svid, SvidError> {
        Svid::parse(TestCa::new("drystone.test").leaf("auth", change).der())
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn without_uris(params: &mut CertificateParams) {
        params.subject_alt_names.retain(|name| !matches!(name, SanType::URI(_)));
    }

    fn with_uri(text: &str) -> Result<Svid, SvidError> {
        parse(|params| {
            without_uris(params);
            params.subject_alt_names.push(uri(text));
        })
    }

    #[test]
    fn a_valid_certificate_has_an_id_an_expiry_and_a_serial() {
        let leaf = TestCa::new("drystone.test").leaf("auth", |_| {});
        let svid = Svid::parse(leaf.der()).unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://drystone.test/service/auth");
        assert_eq!(svid.not_after, leaf.not_after);
        assert!(!svid.has_expired(leaf.not_after - chrono::TimeDelta::microseconds(1)));
        assert!(svid.has_expired(leaf.not_after));
        assert!(!svid.serial.is_empty() && svid.serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn exactly_one_uri_san_is_required() {
        assert_eq!(parse(without_uris), Err(SvidError::UriCount(0)));
        assert_eq!(parse(|params| params.subject_alt_names.clear()), Err(SvidError::UriCount(0)));
        let second = parse(|params| params.subject_alt_names.push(uri("spiffe://drystone.test/service/user")));
        assert_eq!(second, Err(SvidError::UriCount(2)));
        let same = parse(|params| params.subject_alt_names.push(uri("spiffe://drystone.test/service/auth")));
        assert_eq!(same, Err(SvidError::UriCount(2)));
        let other_scheme = parse(|params| params.subject_alt_names.push(uri("https://drystone.test")));
        assert_eq!(other_scheme, Err(SvidError::UriCount(2)));
    }

    #[test]
    fn the_uri_must_be_a_valid_workload_id() {
        use SpiffeIdError::{Path, Scheme, TrustDomain};
        assert_eq!(with_uri("spiffe://drystone.test"), Err(SvidError::EmptyPath));
        assert_eq!(with_uri("spiffe://drystone.test/"), Err(SvidError::Id(Path)));
        assert_eq!(with_uri("https://drystone.test/service/auth"), Err(SvidError::Id(Scheme)));
        assert_eq!(with_uri("spiffe://Drystone.test/service/auth"), Err(SvidError::Id(TrustDomain)));
        assert_eq!(with_uri("spiffe://drystone.test/service/a%75th"), Err(SvidError::Id(Path)));
        assert_eq!(with_uri("spiffe://drystone.test/service/auth?admin"), Err(SvidError::Id(Path)));
    }

    #[test]
    fn a_ca_certificate_is_rejected() {
        let ca = TestCa::new("drystone.test");
        let constraints = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(parse(|params| params.is_ca = constraints), Err(SvidError::CaCertificate));
        assert_eq!(Svid::parse(ca.der()), Err(SvidError::EmptyPath));
    }

    #[test]
    fn key_usage_must_allow_handshakes_and_forbid_signing_certificates() {
        use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment};
        let with = |usages: &[KeyUsagePurpose]| parse(|params| params.key_usages = usages.to_vec());
        assert_eq!(with(&[]), Err(SvidError::KeyUsage));
        assert_eq!(with(&[KeyAgreement]), Err(SvidError::NoDigitalSignature));
        assert_eq!(with(&[DigitalSignature, KeyCertSign]), Err(SvidError::SigningUsage));
        assert_eq!(with(&[DigitalSignature, CrlSign]), Err(SvidError::SigningUsage));
        assert!(with(&[DigitalSignature, KeyEncipherment]).is_ok());
    }

    #[test]
    fn key_usage_must_be_critical() {
        let not_critical = parse(|params| {
            params.key_usages.clear();
            // A bit string with digitalSignature set.
            let content = vec![0x03, 0x02, 0x07, 0x80];
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 15], content));
        });
        assert_eq!(not_critical, Err(SvidError::KeyUsage));
    }

    #[test]
    fn extended_key_usage_is_optional_and_must_include_server_and_client_auth() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
        let with = |usages: &[ExtendedKeyUsagePurpose]| parse(|params| params.extended_key_usages = usages.to_vec());
        assert!(with(&[]).is_ok());
        assert_eq!(with(&[ClientAuth]), Err(SvidError::ExtendedKeyUsage));
        assert_eq!(with(&[ServerAuth]), Err(SvidError::ExtendedKeyUsage));
        assert_eq!(with(&[Any]), Err(SvidError::ExtendedKeyUsage));
    }

    #[test]
    fn a_duplicate_extension_is_rejected() {
        let duplicate = parse(|params| {
            // A sequence with one URI, as a second list of alternative names.
            let mut content = vec![0x30, 0x0c, 0x86, 0x0a];
            content.extend(b"spiffe://x");
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
        });
        assert!(matches!(duplicate, Err(SvidError::Malformed(_))), "{duplicate:?}");
    }

    #[test]
    fn a_malformed_certificate_is_rejected() {
        let leaf = TestCa::new("drystone.test").leaf("auth", |_| {});
        for cut in [0, 1, 40, leaf.der().len() - 1] {
            let broken = CertificateDer::from(&leaf.der()[..cut]);
            assert!(matches!(Svid::parse(&broken), Err(SvidError::Malformed(_))), "{cut}");
        }
        let mut longer = leaf.der().to_vec();
        longer.push(0);
        assert!(matches!(Svid::parse(&longer.into()), Err(SvidError::Malformed(_))));
    }
}
