//! Certificates, as an agent issues them.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::agent::X509Svid;

/// The root of a trust domain.
pub struct Ca {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }

    /// A certificate with a new key for this SPIFFE ID, with this root.
    pub fn svid(&self, id: &str) -> X509Svid {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a workload");
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        X509Svid {
            spiffe_id: id.to_owned(),
            chain: certificate.der().to_vec(),
            key: key.serialize_der(),
            bundle: self.der(),
            hint: String::new(),
        }
    }
}

/// A bundle of these roots.
pub fn bundle(roots: &[&Ca]) -> Vec<u8> {
    roots.iter().flat_map(|root| root.der()).collect()
}
