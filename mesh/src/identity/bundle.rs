//! Trust bundles: the root certificates of each trust domain.

use std::{borrow::Cow, collections::BTreeMap};

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use super::spiffe::TrustDomain;

/// The root certificates by trust domain. A root is trusted only for workloads of its own trust domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundle {
    domains: BTreeMap<TrustDomain, Roots>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    /// The validity of each anchor, in seconds since the Unix epoch. WebPKI does not check a root's validity.
    validities: Vec<(i64, i64)>,
}

/// An invalid trust bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It cannot be read as PEM.
    #[error("it is not PEM: {0}")]
    Pem(String),
    /// It has no certificate.
    #[error("it contains no certificate")]
    Empty,
    /// A certificate in it cannot be read.
    #[error("its certificate {position} is malformed: {reason}")]
    Malformed {
        /// Its position in the bundle, from 1.
        position: usize,
        /// The cause.
        reason: String,
    },
    /// A certificate in it is not a CA certificate.
    #[error("its certificate {0} is not a CA certificate")]
    NotCa(usize),
}

impl TrustBundle {
    /// Parses the roots of one trust domain from PEM.
    ///
    /// # Errors
    /// If it contains no certificate, or one that cannot be a root.
    pub fn from_pem(domain: &TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| BundleError::Pem(error.to_string()))?;
        Self::from_certificates(domain, &certificates)
    }

    /// The roots of one trust domain.
    ///
    /// # Errors
    /// If there is none, or one that cannot be a root.
    pub fn from_certificates(domain: &TrustDomain, certificates: &[CertificateDer<'_>]) -> Result<Self, BundleError> {
        if certificates.is_empty() {
            return Err(BundleError::Empty);
        }
        let mut roots = Roots::default();
        for (position, certificate) in (1..).zip(certificates) {
            roots.add(position, certificate)?;
        }
        Ok(Self { domains: BTreeMap::from([(domain.clone(), roots)]) })
    }

    /// Adds the roots of another bundle.
    #[cfg(test)]
    pub(super) fn merge(mut self, other: Self) -> Self {
        for (domain, roots) in other.domains {
            let own = self.domains.entry(domain).or_default();
            own.anchors.extend(roots.anchors);
            own.validities.extend(roots.validities);
        }
        self
    }

    /// The trust domains that this bundle has roots for.
    pub fn trust_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.domains.keys()
    }

    /// Whether every root of another bundle is in this one.
    pub(super) fn contains_all(&self, other: &Self) -> bool {
        other.domains.iter().all(|(domain, roots)| {
            let own = self.domains.get(domain).map_or(&[][..], |own| &own.anchors);
            roots.anchors.iter().all(|anchor| own.contains(anchor))
        })
    }

    /// The currently valid roots of a trust domain; `None` if the domain is not trusted at all.
    pub(super) fn roots_at(&self, domain: &TrustDomain, now: UnixTime) -> Option<Cow<'_, [TrustAnchor<'static>]>> {
        let roots = self.domains.get(domain)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let is_valid = |&(begin, end): &(i64, i64)| (begin..=end).contains(&now);
        if roots.validities.iter().all(is_valid) {
            return Some(Cow::Borrowed(&roots.anchors));
        }
        let valid = roots.anchors.iter().zip(&roots.validities).filter(|(_, validity)| is_valid(validity));
        Some(Cow::Owned(valid.map(|(anchor, _)| anchor.clone()).collect()))
    }
}

impl Roots {
    fn add(&mut self, position: usize, der: &CertificateDer<'_>) -> Result<(), BundleError> {
        let malformed = |reason: String| BundleError::Malformed { position, reason };
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| malformed(error.to_string()))?;
        let may_sign = certificate
            .key_usage()
            .map_err(|error| malformed(error.to_string()))?
            .is_none_or(|usage| usage.value.key_cert_sign());
        if !certificate.is_ca() || !may_sign {
            return Err(BundleError::NotCa(position));
        }
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|error| malformed(error.to_string()))?;
        let validity = certificate.validity();
        self.anchors.push(anchor.to_owned());
        self.validities.push((validity.not_before.timestamp(), validity.not_after.timestamp()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::identity::testing::TestCa;

    #[test]
    fn roots_are_chosen_by_trust_domain() {
        let ca = TestCa::new("drystone.test");
        let other_ca = TestCa::new("other.test");
        let bundle = ca.bundle().merge(other_ca.bundle());

        let now = UnixTime::now();
        assert_eq!(bundle.trust_domains().collect::<Vec<_>>(), [&ca.domain, &other_ca.domain]);
        assert_eq!(bundle.roots_at(&ca.domain, now).unwrap().len(), 1);
        assert!(bundle.roots_at(&"unknown.test".parse().unwrap(), now).is_none());
        assert_ne!(bundle.roots_at(&ca.domain, now), bundle.roots_at(&other_ca.domain, now));
    }

    #[test]
    fn a_trust_domain_can_have_several_roots() {
        let (old, new) = (TestCa::new("drystone.test"), TestCa::new("drystone.test"));
        let pem = format!("{}{}", old.pem(), new.pem());
        let bundle = TrustBundle::from_pem(&old.domain, pem.as_bytes()).unwrap();
        assert_eq!(bundle.roots_at(&old.domain, UnixTime::now()).unwrap().len(), 2);
        assert_eq!(old.bundle().merge(new.bundle()).roots_at(&old.domain, UnixTime::now()).unwrap().len(), 2);
    }

    #[test]
    fn an_expired_root_is_not_returned() {
        let ca = TestCa::new("drystone.test");
        let year = Duration::from_hours(365 * 24);
        let later = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + year);
        assert!(ca.bundle().roots_at(&ca.domain, later).unwrap().is_empty());
    }

    #[test]
    fn an_invalid_bundle_is_rejected() {
        let ca = TestCa::new("drystone.test");
        let parse = |pem: &str| TrustBundle::from_pem(&ca.domain, pem.as_bytes()).unwrap_err();
        assert_eq!(parse(""), BundleError::Empty);
        assert_eq!(parse("not a certificate"), BundleError::Empty);
        let garbled = "-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n";
        assert!(matches!(parse(garbled), BundleError::Pem(_)));
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(parse(nonsense), BundleError::Malformed { position: 1, .. }));
        let leaf = ca.leaf("auth", |_| {});
        assert_eq!(parse(&format!("{}{}", ca.pem(), leaf.pem())), BundleError::NotCa(2));
    }
}
