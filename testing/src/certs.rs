//! Certificates: those of the mesh, and test certificates issued by its CA or an untrusted one.
//!
//! Does not use the mesh's own code, so that a bug there cannot hide itself.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, SanType,
};
pub use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::process;

/// The default trust domain of a mesh.
pub const TRUST_DOMAIN: &str = "drystone.local";

/// The certificates of a mesh.
#[derive(Debug)]
pub struct Certificates {
    ca: PathBuf,
    workloads: BTreeMap<String, [PathBuf; 2]>,
}

/// A certificate chain and its private key.
#[derive(Debug)]
pub struct Credentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Credentials {
    /// The chain, leaf first, and the key.
    #[must_use]
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }

    /// The same with more certificates at the end of the chain.
    #[must_use]
    pub fn extended(mut self, certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        self.chain.extend(certificates);
        self
    }
}

impl Certificates {
    /// The certificates in these files: the CA's certificate, and the certificate and key of each workload.
    #[must_use]
    pub fn new(ca: PathBuf, workloads: BTreeMap<String, [PathBuf; 2]>) -> Self {
        Self { ca, workloads }
    }

    /// Generates certificates in this directory with `drystone certs init`.
    ///
    /// # Panics
    /// If the command fails.
    #[must_use]
    pub fn generate_in(directory: &Path) -> Self {
        let output = process::run_to_end(process::drystone(&["certs", "init", "--certs-dir"]).arg(directory));
        assert!(output.status.success(), "{output:?}");
        let files = |name: &str| [".pem", ".key"].map(|end| directory.join(format!("{name}{end}")));
        let workloads = crate::workloads().into_iter().map(|name| (name.to_owned(), files(name))).collect();
        Self::new(directory.join("ca.pem"), workloads)
    }

    /// Issues new certificates for the same workloads from the same CA, in another directory.
    ///
    /// # Panics
    /// If they cannot be issued.
    #[must_use]
    pub fn reissue_in(&self, directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("the directory can be created");
        for file in [self.ca.clone(), self.ca.with_extension("key")] {
            let name = file.file_name().expect("the path names a file");
            fs::copy(&file, directory.join(name)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
        Self::generate_in(directory)
    }

    /// The path of the CA's certificate.
    #[must_use]
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The directory of the files.
    ///
    /// # Panics
    /// If the CA's certificate is in none.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.ca.parent().expect("the CA's certificate is in a directory")
    }

    /// The workloads that have a certificate.
    pub fn workloads(&self) -> impl Iterator<Item = &str> {
        self.workloads.keys().map(String::as_str)
    }

    /// The paths of a workload's certificate and key.
    ///
    /// # Panics
    /// If the workload has none.
    #[must_use]
    pub fn files_of(&self, workload: &str) -> &[PathBuf; 2] {
        self.workloads.get(workload).unwrap_or_else(|| panic!("the ready file has no certificate of `{workload}`"))
    }

    /// The credentials of a workload.
    ///
    /// # Panics
    /// If the files cannot be read.
    #[must_use]
    pub fn of(&self, workload: &str) -> Credentials {
        let [certificate, key] = self.files_of(workload);
        let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect);
        let key = PrivateKeyDer::from_pem_file(key);
        Credentials { chain: chain.expect("the certificate is PEM"), key: key.expect("the key is PEM") }
    }

    /// The CA of the mesh, to issue certificates that `drystone certs init` does not.
    ///
    /// # Panics
    /// If the CA's key is not in the directory of its certificate.
    #[must_use]
    pub fn authority(&self) -> CertificateAuthority {
        let key_file = self.ca.with_extension("key");
        let key = fs::read_to_string(&key_file).unwrap_or_else(|error| panic!("{}: {error}", key_file.display()));
        let certificate = CertificateDer::from_pem_file(&self.ca).expect("the CA's certificate is PEM");
        let (_, parsed) = X509Certificate::from_der(&certificate).expect("the CA's certificate is X.509");
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        let key = KeyPair::from_pem(&key).expect("the CA's key is PEM");
        CertificateAuthority(Issuer::new(named(name.expect("the CA has a common name")), key))
    }

    /// The TLS configuration of a standard WebPKI client of this mesh, with session resumption enabled.
    #[must_use]
    pub fn client_config(
        &self,
        credentials: Option<Credentials>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(&self.ca).expect("the CA's certificate can be read") {
            roots.add(root.expect("the CA's certificate is PEM")).expect("the CA is a valid root");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the versions are supported")
            .with_root_certificates(roots);
        let mut config = match credentials {
            Some(Credentials { chain, key }) => builder.with_client_auth_cert(chain, key).expect("the key matches"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Arc::new(config)
    }
}

/// A CA that issues any certificate a test needs.
pub struct CertificateAuthority(Issuer<'static, KeyPair>);

/// The parameters of a leaf certificate. [`LeafParams::of`] returns those that conform to the mesh's profile.
#[derive(Debug, Clone)]
pub struct LeafParams {
    /// URI subject alternative names.
    pub uris: Vec<String>,
    /// `notBefore` and `notAfter`, in seconds from now.
    pub validity: (i64, i64),
    /// Whether it is a CA certificate.
    pub is_ca: bool,
    /// Key usages.
    pub usages: Vec<KeyUsagePurpose>,
    /// Extended key usages.
    pub extended_usages: Vec<ExtendedKeyUsagePurpose>,
}

impl LeafParams {
    /// A valid certificate of a workload in a trust domain.
    #[must_use]
    pub fn of(trust_domain: &str, workload: &str) -> Self {
        let uris = vec![format!("spiffe://{trust_domain}/service/{workload}")];
        let extended_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let usages = vec![KeyUsagePurpose::DigitalSignature];
        Self { uris, validity: (-60, 3600), is_ca: false, usages, extended_usages }
    }
}

impl CertificateAuthority {
    /// A new CA that the mesh does not trust.
    ///
    /// # Panics
    /// If no key can be generated.
    #[must_use]
    pub fn untrusted() -> Self {
        let mut params = named("Untrusted CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(Issuer::new(params, new_key()))
    }

    /// Issues a certificate.
    ///
    /// # Panics
    /// If it cannot be issued.
    #[must_use]
    pub fn issue(&self, leaf: &LeafParams) -> Credentials {
        let (certificate, key) = self.sign(leaf);
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("the key is PKCS#8");
        Credentials { chain: vec![certificate.der().clone()], key }
    }

    /// Issues a certificate into the files of a workload, `NAME.pem` and `NAME.key`, which are overwritten.
    ///
    /// # Panics
    /// If it cannot be issued or written.
    pub fn issue_in(&self, directory: &Path, workload: &str, leaf: &LeafParams) {
        let (certificate, key) = self.sign(leaf);
        for (end, text) in [("pem", certificate.pem()), ("key", key.serialize_pem())] {
            let file = directory.join(format!("{workload}.{end}"));
            // The mesh rejects a key file that other users may read.
            let written =
                fs::write(&file, text).and_then(|()| fs::set_permissions(&file, Permissions::from_mode(0o600)));
            written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }

    fn sign(&self, leaf: &LeafParams) -> (Certificate, KeyPair) {
        let mut params = named("leaf");
        let uris = leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().expect("the URI is ASCII")));
        params.subject_alt_names = uris.collect();
        params.subject_alt_names.push(SanType::DnsName("localhost".try_into().expect("the name is ASCII")));
        set_validity(&mut params, leaf.validity);
        params.use_authority_key_identifier_extension = true;
        params.is_ca = if leaf.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages.clone_from(&leaf.usages);
        params.extended_key_usages.clone_from(&leaf.extended_usages);
        let key = new_key();
        (params.signed_by(&key, &self.0).expect("the certificate can be signed"), key)
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key can be generated")
}

/// Sets `notBefore` and `notAfter`, in seconds from now.
fn set_validity(params: &mut CertificateParams, (not_before, not_after): (i64, i64)) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let timestamp = |offset: i64| {
        let seconds = now.checked_add_signed(offset).expect("the offset is small");
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    (params.not_before, params.not_after) = (timestamp(not_before), timestamp(not_after));
}
