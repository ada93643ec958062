//! Certificates for tests, valid and invalid.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use chrono::{SubsecRound, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use uuid::Uuid;

pub(super) use super::authority::set_validity;
use super::{
    authority::leaf_params, bundle::TrustBundle, source::IdentityFiles, spiffe::SpiffeId, spiffe::TrustDomain,
};
use crate::clock::Timestamp;

/// Makes a leaf that expired an hour ago.
pub(crate) fn expired(params: &mut CertificateParams) {
    set_validity(params, Utc::now() - TimeDelta::hours(2), Utc::now() - TimeDelta::hours(1));
}

/// A CA without checks.
pub(crate) struct TestCa {
    pub(crate) domain: TrustDomain,
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A workload's certificate and key.
pub(crate) struct Leaf {
    pub(crate) not_after: Timestamp,
    certificate: Certificate,
    key: KeyPair,
}

impl TestCa {
    pub(crate) fn new(domain: &str) -> Self {
        let domain: TrustDomain = domain.parse().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.distinguished_name.push(DnType::OrganizationName, Uuid::now_v7().to_string());
        params.subject_alt_names = vec![SanType::URI(domain.id().as_str().try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        set_validity(&mut params, Utc::now() - TimeDelta::days(7), Utc::now() + TimeDelta::days(7));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { domain, certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(&self.domain, self.pem().as_bytes()).unwrap()
    }

    /// A valid certificate, modified by `change`.
    pub(crate) fn leaf(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        self.leaf_in_domain(&self.domain, name, change)
    }

    /// As [`TestCa::leaf`], for any trust domain.
    pub(crate) fn leaf_in_domain(
        &self,
        domain: &TrustDomain,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        issue(&self.issuer, domain, name, change).0
    }

    /// A leaf, and another leaf signed by the first.
    pub(crate) fn leaf_and_leaf_signed_by_it(&self, name: &str, forged: &str) -> (Leaf, Leaf) {
        let (leaf, params) = issue(&self.issuer, &self.domain, name, |_| {});
        let issuer = Issuer::from_params(&params, &leaf.key);
        let (forged, _) = issue(&issuer, &self.domain, forged, |_| {});
        (leaf, forged)
    }
}

fn issue(
    issuer: &Issuer<'_, impl rcgen::SigningKey>,
    domain: &TrustDomain,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> (Leaf, CertificateParams) {
    let id = SpiffeId::for_workload(domain, name).unwrap();
    let mut params = leaf_params(name, &id).unwrap();
    let not_after = (Utc::now() + TimeDelta::hours(1)).trunc_subsecs(0);
    set_validity(&mut params, Utc::now() - TimeDelta::hours(1), not_after);
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (Leaf { not_after, certificate, key }, params)
}

impl Leaf {
    pub(crate) fn der(&self) -> &CertificateDer<'static> {
        self.certificate.der()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_der(&self) -> rustls::pki_types::PrivateKeyDer<'static> {
        rustls::pki_types::PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    /// Writes the leaf's files to a directory, with the roots of these CAs.
    pub(crate) fn write(&self, dir: &Path, roots: &[&TestCa]) -> IdentityFiles {
        let files =
            IdentityFiles { certificate: dir.join("own.pem"), key: dir.join("own.key"), bundle: dir.join("roots.pem") };
        fs::write(&files.certificate, self.pem()).unwrap();
        fs::write(&files.key, self.key.serialize_pem()).unwrap();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&files.bundle, roots.iter().map(|ca| ca.pem()).collect::<String>()).unwrap();
        files
    }
}
