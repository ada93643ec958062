//! Verification of a peer's certificate, for clients and servers.
//!
//! The profile is checked first (cheap, and it yields the trust domain that the peer claims), then the chain to a root of
//! that trust domain. A client expects one workload by its SPIFFE ID; DNS and IP SANs are ignored.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::{EndEntityCert, KeyUsage};

use super::{
    bundle::TrustBundle,
    denylist::Denylist,
    spiffe::{SpiffeId, TrustDomain},
    svid::{Svid, SvidError},
};

/// The peer's role in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer is a client.
    Client,
    /// The peer is a server.
    Server,
}

/// Why a peer's certificate is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It does not conform to the profile.
    #[error("the certificate is not a valid X.509-SVID: {0}")]
    Profile(#[from] SvidError),
    /// Its trust domain is not in the trust bundle.
    #[error("the trust domain {0} of the certificate is not trusted")]
    TrustDomain(TrustDomain),
    /// The workload or the certificate is on the denylist.
    #[error("the certificate {serial} of {id} is on the denylist")]
    Denied {
        /// The workload in the certificate.
        id: SpiffeId,
        /// The serial number of the certificate.
        serial: String,
    },
    /// It does not chain to a root of its trust domain, or is not currently valid.
    #[error("the certificate of {id} is not trusted: {source}")]
    Chain {
        /// The workload in the certificate.
        id: SpiffeId,
        /// The error of WebPKI.
        source: webpki::Error,
    },
    /// The server is another workload than the expected one.
    #[error("expected the workload {expected}, but the server is {found}")]
    UnexpectedWorkload {
        /// The workload that the client connects to.
        expected: SpiffeId,
        /// The workload in the server's certificate.
        found: SpiffeId,
    },
}

/// Verifies a peer's certificate and returns its identity.
///
/// # Errors
/// The first failed check.
pub fn verify(
    bundle: &TrustBundle,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: Usage,
) -> Result<Svid, VerifyError> {
    let svid = Svid::parse(leaf)?;
    let domain = svid.id.trust_domain();
    let roots = bundle.roots_at(domain, now).ok_or_else(|| VerifyError::TrustDomain(domain.clone()))?;
    let usage = match usage {
        Usage::Client => KeyUsage::client_auth(),
        Usage::Server => KeyUsage::server_auth(),
    };
    EndEntityCert::try_from(leaf)
        .and_then(|certificate| {
            certificate.verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &roots,
                intermediates,
                now,
                usage,
                None,
                None,
            )?;
            Ok(())
        })
        .map_err(|source| VerifyError::Chain { id: svid.id.clone(), source })?;
    Ok(svid)
}

/// Maps to the TLS alert that is closest to the cause; other causes are kept as a source, for our log.
impl From<VerifyError> for TlsError {
    fn from(error: VerifyError) -> Self {
        let certificate = match error {
            VerifyError::Chain { source: webpki::Error::CertExpired { time, not_after }, .. } => {
                CertificateError::ExpiredContext { time, not_after }
            }
            VerifyError::Chain { source: webpki::Error::CertNotValidYet { time, not_before }, .. } => {
                CertificateError::NotValidYetContext { time, not_before }
            }
            VerifyError::Chain { source: webpki::Error::UnknownIssuer, .. } => CertificateError::UnknownIssuer,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self::InvalidCertificate(certificate)
    }
}

/// Accepts a server only if it is the expected workload.
#[derive(Debug)]
pub(super) struct SvidServerVerifier {
    pub(super) bundle: Arc<TrustBundle>,
    pub(super) denylist: Arc<ArcSwap<Denylist>>,
    pub(super) expected: SpiffeId,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// Accepts a client that is any workload of a trusted domain; the access layer authorizes its calls.
#[derive(Debug)]
pub(super) struct SvidClientVerifier {
    pub(super) bundle: Arc<TrustBundle>,
    pub(super) denylist: Arc<ArcSwap<Denylist>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SvidServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let found = verify(&self.bundle, end_entity, intermediates, now, Usage::Server)?;
        let found = check_denylist(&self.denylist, found)?.id;
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(VerifyError::UnexpectedWorkload { expected: self.expected.clone(), found }.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(tls12_not_supported())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for SvidClientVerifier {
    /// No hints: a client then sends the certificate that it has, and gets an alert with the cause.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let found = verify(&self.bundle, end_entity, intermediates, now, Usage::Client)?;
        check_denylist(&self.denylist, found)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(tls12_not_supported())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn check_denylist(denylist: &ArcSwap<Denylist>, svid: Svid) -> Result<Svid, VerifyError> {
    if denylist.load().contains(&svid) {
        return Err(VerifyError::Denied { id: svid.id, serial: svid.serial });
    }
    Ok(svid)
}

pub(super) fn tls12_not_supported() -> TlsError {
    TlsError::General("TLS 1.2 is not supported; use TLS 1.3".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::{TimeDelta, Utc};
    use rcgen::CertificateParams;

    use super::*;
    use crate::identity::testing::{Leaf, TestCa, set_validity};

    fn check(bundle: &TrustBundle, leaf: &Leaf) -> Result<Svid, VerifyError> {
        let now = UnixTime::now();
        let client = verify(bundle, leaf.der(), &[], now, Usage::Client);
        assert_eq!(client, verify(bundle, leaf.der(), &[], now, Usage::Server), "both roles must agree");
        client
    }

    fn chain_error(result: Result<Svid, VerifyError>) -> webpki::Error {
        match result {
            Err(VerifyError::Chain { source, .. }) => source,
            other => panic!("expected a chain error, not {other:?}"),
        }
    }

    #[test]
    fn a_certificate_of_a_trusted_root_is_accepted() {
        let ca = TestCa::new("drystone.test");
        let svid = check(&ca.bundle(), &ca.leaf("auth", |_| {})).unwrap();
        assert_eq!(svid.id.workload(), Some("auth"));
    }

    #[test]
    fn a_certificate_of_another_ca_with_the_same_name_is_rejected() {
        let (ca, other_ca) = (TestCa::new("drystone.test"), TestCa::new("drystone.test"));
        let result = check(&ca.bundle(), &other_ca.leaf("auth", |_| {}));
        assert_eq!(chain_error(result), webpki::Error::UnknownIssuer);
    }

    #[test]
    fn a_trust_domain_without_roots_is_rejected() {
        let (ca, other_ca) = (TestCa::new("drystone.test"), TestCa::new("other.test"));
        let result = check(&ca.bundle(), &other_ca.leaf("auth", |_| {}));
        assert_eq!(result, Err(VerifyError::TrustDomain(other_ca.domain)));
    }

    #[test]
    fn a_root_is_trusted_only_for_its_own_trust_domain() {
        let (ca, other_ca) = (TestCa::new("drystone.test"), TestCa::new("other.test"));
        let both = ca.bundle().merge(other_ca.bundle());
        assert!(check(&both, &ca.leaf("auth", |_| {})).is_ok());
        assert!(check(&both, &other_ca.leaf("auth", |_| {})).is_ok());
        // The other domain's root signs a certificate that claims this one.
        let forged = other_ca.leaf_in_domain(&ca.domain, "auth", |_| {});
        assert_eq!(chain_error(check(&both, &forged)), webpki::Error::UnknownIssuer);
    }

    #[test]
    fn expired_and_not_yet_valid_certificates_are_rejected() {
        let ca = TestCa::new("drystone.test");
        let now = Utc::now();
        let during = |from: TimeDelta, to: TimeDelta| {
            let leaf = ca.leaf("auth", |params: &mut CertificateParams| set_validity(params, now + from, now + to));
            chain_error(check(&ca.bundle(), &leaf))
        };
        let expired = during(-TimeDelta::hours(2), -TimeDelta::hours(1));
        assert!(matches!(expired, webpki::Error::CertExpired { .. }), "{expired:?}");
        let early = during(TimeDelta::hours(1), TimeDelta::hours(2));
        assert!(matches!(early, webpki::Error::CertNotValidYet { .. }), "{early:?}");
    }

    #[test]
    fn an_expired_root_is_not_trusted() {
        let ca = TestCa::new("drystone.test");
        let century = TimeDelta::days(36_500);
        let leaf = ca.leaf("auth", |params| set_validity(params, Utc::now(), Utc::now() + century));
        let year = Duration::from_hours(365 * 24);
        let later = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + year);
        let result = verify(&ca.bundle(), leaf.der(), &[], later, Usage::Client);
        assert_eq!(chain_error(result), webpki::Error::UnknownIssuer);
    }

    #[test]
    fn the_profile_is_checked_even_if_the_chain_is_valid() {
        let ca = TestCa::new("drystone.test");
        let result = check(&ca.bundle(), &ca.leaf("auth", |params| params.key_usages.clear()));
        assert_eq!(result, Err(VerifyError::Profile(SvidError::KeyUsage)));
    }

    #[test]
    fn a_certificate_signed_by_a_leaf_is_rejected() {
        let ca = TestCa::new("drystone.test");
        let (leaf, forged) = ca.leaf_and_leaf_signed_by_it("auth", "operator");
        let chain = [leaf.der().clone()];
        let result = verify(&ca.bundle(), forged.der(), &chain, UnixTime::now(), Usage::Client);
        assert!(matches!(chain_error(result), webpki::Error::EndEntityUsedAsCa | webpki::Error::UnknownIssuer));
    }
}
