//! What a certificate says of a workload, once it is seen to keep to our profile of X.509-SVID.
//!
//! These are the rules that a certificate must keep by itself. That somebody we trust has signed it, and that it is
//! in its time, is for [`verify`](super::verify()).

use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
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

        let not_after = Timestamp::from_timestamp(certificate.validity().not_after.timestamp(), 0)
            .ok_or_else(|| SvidError::Malformed("its end lies beyond the calendar".to_owned()))?;
        Ok(Self { id, not_after, serial: hexadecimal(certificate.raw_serial()) })
    }

    /// Whether the certificate's time is over, which it is from `not_after` on.
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
    if id.path().is_empty() { Err(SvidError::RootPath) } else { Ok(id) }
}

fn check_not_an_authority(certificate: &X509Certificate<'_>) -> Result<(), SvidError> {
    let constraints = certificate.basic_constraints().map_err(malformed)?;
    if constraints.is_some_and(|constraints| constraints.value.ca) { Err(SvidError::Authority) } else { Ok(()) }
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
    if usage.is_some_and(|usage| usage.value.server_auth && usage.value.client_auth) {
        Ok(())
    } else {
        Err(SvidError::ExtendedKeyUsage)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn malformed<E: ToString>(error: E) -> SvidError {
    SvidError::Malformed(error.to_string())
}

/// Bytes as lower-case hexadecimal.
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
    fn a_valid_certificate_says_who_it_is_for_and_how_long() {
        let leaf = TestCa::new("drystone.test").leaf("auth", |_| {});
        let svid = Svid::parse(leaf.der()).unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://drystone.test/service/auth");
        assert_eq!(svid.not_after, leaf.not_after);
        assert!(!svid.has_expired(leaf.not_after - chrono::TimeDelta::microseconds(1)));
        assert!(svid.has_expired(leaf.not_after));
        assert!(!svid.serial.is_empty() && svid.serial.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn exactly_one_uri_is_required_whatever_the_other_names() {
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
    fn the_uri_must_be_a_valid_id_of_a_workload() {
        use SpiffeIdError::{Path, Scheme, TrustDomain};
        assert_eq!(with_uri("spiffe://drystone.test"), Err(SvidError::RootPath));
        assert_eq!(with_uri("spiffe://drystone.test/"), Err(SvidError::Id(Path)));
        assert_eq!(with_uri("https://drystone.test/service/auth"), Err(SvidError::Id(Scheme)));
        assert_eq!(with_uri("spiffe://Drystone.test/service/auth"), Err(SvidError::Id(TrustDomain)));
        assert_eq!(with_uri("spiffe://drystone.test/service/a%75th"), Err(SvidError::Id(Path)));
        assert_eq!(with_uri("spiffe://drystone.test/service/auth?admin"), Err(SvidError::Id(Path)));
    }

    #[test]
    fn a_ca_is_no_workload() {
        let ca = TestCa::new("drystone.test");
        let constraints = IsCa::Ca(BasicConstraints::Unconstrained);
        assert_eq!(parse(|params| params.is_ca = constraints), Err(SvidError::Authority));
        assert_eq!(Svid::parse(ca.der()), Err(SvidError::RootPath));
    }

    #[test]
    fn the_key_may_sign_handshakes_and_nothing_that_vouches_for_others() {
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
    fn it_must_serve_both_ends() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, ServerAuth};
        let with = |usages: &[ExtendedKeyUsagePurpose]| parse(|params| params.extended_key_usages = usages.to_vec());
        assert_eq!(with(&[]), Err(SvidError::ExtendedKeyUsage));
        assert_eq!(with(&[ClientAuth]), Err(SvidError::ExtendedKeyUsage));
        assert_eq!(with(&[ServerAuth]), Err(SvidError::ExtendedKeyUsage));
        assert_eq!(with(&[Any]), Err(SvidError::ExtendedKeyUsage));
    }

    #[test]
    fn an_extension_that_stands_twice_is_refused() {
        let twice = parse(|params| {
            // A sequence with one URI, as a second list of alternative names.
            let mut content = vec![0x30, 0x0c, 0x86, 0x0a];
            content.extend(b"spiffe://x");
            params.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 17], content));
        });
        assert!(matches!(twice, Err(SvidError::Malformed(_))), "{twice:?}");
    }

    #[test]
    fn broken_bytes_are_refused() {
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
