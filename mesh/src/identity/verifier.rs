//! One proof of a peer, for both ends of a connection.
//!
//! First the profile (cheap, and it says which trust domain the peer claims), then the chain to a root of that very
//! trust domain. A client asks for one workload by its ID; DNS names and addresses in certificates mean nothing here.

use std::sync::Arc;

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
    spiffe::{SpiffeId, TrustDomain},
    svid::{Svid, SvidError},
};

/// Which end of a connection the certificate stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The one who dials.
    Client,
    /// The one who answers.
    Server,
}

/// Why a peer's certificate is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It does not keep to the profile.
    #[error("the certificate is no SVID: {0}")]
    Profile(#[from] SvidError),
    /// Its trust domain is not one of ours.
    #[error("the certificate belongs to the trust domain {0}, which is not trusted here")]
    TrustDomain(TrustDomain),
    /// No root of its trust domain vouches for it, or its time is not now.
    #[error("the certificate of {id} is not vouched for: {source}")]
    Chain {
        /// Whom the certificate names.
        id: SpiffeId,
        /// What WebPKI says.
        source: webpki::Error,
    },
    /// It proves another workload than the one asked for.
    #[error("{expected} was dialled, but {found} answered")]
    OtherWorkload {
        /// Who was dialled.
        expected: SpiffeId,
        /// Who answered.
        found: SpiffeId,
    },
}

/// Proves who the holder of a certificate is.
///
/// # Errors
/// The first thing that speaks against it.
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

/// The alert that the peer gets names the cause as far as TLS has a word for it; the rest travels along for our log.
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

/// Proves a server to be the one workload that was dialled.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) bundle: Arc<TrustBundle>,
    pub(super) expected: SpiffeId,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

/// Proves a client to be some workload of a trusted domain; what it may do is for the access layer.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) bundle: Arc<TrustBundle>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let found = verify(&self.bundle, end_entity, intermediates, now, Usage::Server)?.id;
        if found == self.expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(VerifyError::OtherWorkload { expected: self.expected.clone(), found }.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
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

impl ClientCertVerifier for ClientVerifier {
    /// None: a client then shows the certificate that it has, and learns what is wrong with it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        verify(&self.bundle, end_entity, intermediates, now, Usage::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(only_tls13())
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

fn only_tls13() -> TlsError {
    TlsError::General("only TLS 1.3 is spoken inside the mesh".to_owned())
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
        assert_eq!(client, verify(bundle, leaf.der(), &[], now, Usage::Server), "both ends must agree");
        client
    }

    fn chain_error(result: Result<Svid, VerifyError>) -> webpki::Error {
        match result {
            Err(VerifyError::Chain { source, .. }) => source,
            other => panic!("expected a refusal of the chain, not {other:?}"),
        }
    }

    #[test]
    fn a_certificate_of_a_trusted_root_is_believed() {
        let ca = TestCa::new("drystone.test");
        let svid = check(&ca.bundle(), &ca.leaf("auth", |_| {})).unwrap();
        assert_eq!(svid.id.workload(), Some("auth"));
    }

    #[test]
    fn another_ca_is_not_believed_whatever_it_calls_itself() {
        let (ours, theirs) = (TestCa::new("drystone.test"), TestCa::new("drystone.test"));
        let refused = check(&ours.bundle(), &theirs.leaf("auth", |_| {}));
        assert_eq!(chain_error(refused), webpki::Error::UnknownIssuer);
    }

    #[test]
    fn a_trust_domain_without_roots_is_not_believed() {
        let (ours, theirs) = (TestCa::new("drystone.test"), TestCa::new("other.test"));
        let refused = check(&ours.bundle(), &theirs.leaf("auth", |_| {}));
        assert_eq!(refused, Err(VerifyError::TrustDomain(theirs.domain)));
    }

    #[test]
    fn a_root_vouches_only_for_its_own_trust_domain() {
        let (ours, theirs) = (TestCa::new("drystone.test"), TestCa::new("other.test"));
        let both = ours.bundle().merge(theirs.bundle());
        assert!(check(&both, &ours.leaf("auth", |_| {})).is_ok());
        assert!(check(&both, &theirs.leaf("auth", |_| {})).is_ok());
        // The other domain's root signs a certificate that claims ours.
        let forged = theirs.leaf_of(&ours.domain, "auth", |_| {});
        assert_eq!(chain_error(check(&both, &forged)), webpki::Error::UnknownIssuer);
    }

    #[test]
    fn a_certificate_holds_only_in_its_time() {
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
    fn a_root_whose_time_is_over_vouches_for_nobody() {
        let ca = TestCa::new("drystone.test");
        let century = TimeDelta::days(36_500);
        let leaf = ca.leaf("auth", |params| set_validity(params, Utc::now(), Utc::now() + century));
        let year = Duration::from_hours(365 * 24);
        let later = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + year);
        let refused = verify(&ca.bundle(), leaf.der(), &[], later, Usage::Client);
        assert_eq!(chain_error(refused), webpki::Error::UnknownIssuer);
    }

    #[test]
    fn the_profile_is_held_although_the_chain_is_right() {
        let ca = TestCa::new("drystone.test");
        let refused = check(&ca.bundle(), &ca.leaf("auth", |params| params.extended_key_usages.clear()));
        assert_eq!(refused, Err(VerifyError::Profile(SvidError::ExtendedKeyUsage)));
    }

    #[test]
    fn a_leaf_cannot_issue() {
        let ca = TestCa::new("drystone.test");
        let (leaf, forged) = ca.leaf_and_what_it_issues("auth", "operator");
        let chain = [leaf.der().clone()];
        let refused = verify(&ca.bundle(), forged.der(), &chain, UnixTime::now(), Usage::Client);
        assert!(matches!(chain_error(refused), webpki::Error::EndEntityUsedAsCa | webpki::Error::UnknownIssuer));
    }
}
