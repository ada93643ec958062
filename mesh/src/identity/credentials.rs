//! Our own identity: certificate, key and roots, held together and swapped as a whole.
//!
//! A new set is proven before it is published: the key fits the certificate, the certificate keeps to the profile
//! and is in its time, and the roots vouch for it. A bad set leaves the old one in place. Connections that exist
//! keep what they were made with; each new handshake takes the set that is published then. Our client makes its
//! connections anew, since the other side holds them to the end of the certificate that they were made with.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use serde::{Deserialize, Serialize};

use super::{
    bundle::{BundleError, TrustBundle},
    files,
    spiffe::{SpiffeId, TrustDomain},
    svid::{Svid, SvidError},
    verifier::{ClientVerifier, ServerVerifier, Usage, VerifyError, verify},
};

/// Where an identity lies on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The workload's certificate in PEM, intermediates after it.
    pub certificate: PathBuf,
    /// Its private key in PEM. Only its owner may read the file.
    pub key: PathBuf,
    /// The roots of the workload's trust domain, in PEM, one after the other.
    pub bundle: PathBuf,
}

/// Who we are, and whom we believe. Clones share one identity.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    published: ArcSwap<Published>,
    /// How often the set has been replaced.
    generation: AtomicU64,
}

/// One proven set.
#[derive(Debug)]
struct Published {
    svid: Arc<Svid>,
    own: Arc<CertifiedKey>,
    bundle: Arc<TrustBundle>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
}

/// Why a set of files is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}; check the path, or make a development set with `drystone certs`", path.display())]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold {what}: {why}; write it anew in PEM", path.display())]
    Content {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The private key lies open.
    #[error("others may read the private key {path}; run `chmod 600 {path}`", path = path.display())]
    ExposedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The private key is encrypted, and there is nobody to ask for its passphrase.
    #[error(
        "the private key {path} is encrypted, and a service cannot ask for its passphrase; decrypt it with \
         `openssl pkey -in {path} -out NEW.key`, run `chmod 600 NEW.key`, and name that file instead",
        path = path.display()
    )]
    EncryptedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error("the private key {} does not belong to the certificate {}; issue both anew", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate does not keep to the profile.
    #[error("the certificate {} is no SVID: {source}; issue it anew", path.display())]
    Profile {
        /// The certificate's file.
        path: PathBuf,
        /// The rule that it breaks.
        source: SvidError,
    },
    /// The roots cannot be used.
    #[error("the trust bundle {} cannot be used: {source}; it holds the roots of the trust domain in PEM", path.display())]
    Bundle {
        /// The bundle's file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// Our own roots do not vouch for our own certificate now, so no peer would believe it.
    #[error(
        "the roots in {} do not vouch for the certificate {}: {source}; issue the certificate anew, or add its root to the bundle",
        bundle.display(), certificate.display()
    )]
    Unproven {
        /// The certificate's file.
        certificate: PathBuf,
        /// The bundle's file.
        bundle: PathBuf,
        /// What speaks against it.
        source: Box<VerifyError>,
    },
    /// A swap must not turn one workload into another.
    #[error("the certificate {} is for {found}, and this process is {own}; issue one for {own}, or restart with the new one", path.display())]
    OtherWorkload {
        /// The certificate's file.
        path: PathBuf,
        /// Who we are.
        own: SpiffeId,
        /// Whom the certificate names.
        found: SpiffeId,
    },
    /// A peer was asked for whose trust domain we have no roots for.
    #[error("{0} cannot be dialled: there are no roots for its trust domain in the trust bundle")]
    UntrustedDomain(SpiffeId),
    /// The TLS library cannot do what we ask of it.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

impl Identity {
    /// Reads an identity and proves it.
    ///
    /// # Errors
    /// If a file cannot be read, the key is open to others, or the set does not hold together; the text says which
    /// file it is and what to do.
    pub fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        let published = ArcSwap::from_pointee(Published::load(files)?);
        Ok(Self(Arc::new(Inner { published, generation: AtomicU64::new(0) })))
    }

    /// Reads a new set and, once it is proven, puts it in the place of the old one.
    ///
    /// # Errors
    /// As [`Identity::load`], and if the set names another workload. The old set then stays in use.
    pub fn replace(&self, files: &IdentityFiles) -> Result<(), IdentityError> {
        let new = Published::load(files)?;
        let own = self.id();
        if new.svid.id != own {
            let path = files.certificate.clone();
            return Err(IdentityError::OtherWorkload { path, own, found: new.svid.id.clone() });
        }
        self.0.published.store(Arc::new(new));
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Which set this is: one more with each that is replaced. What was made with an earlier one should be made anew.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Who we are.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.0.published.load().svid.id.clone()
    }

    /// The trust domain that we belong to.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        self.0.published.load().svid.id.trust_domain().clone()
    }

    /// What our certificate says, its end among it.
    #[must_use]
    pub fn svid(&self) -> Arc<Svid> {
        self.0.published.load().svid.clone()
    }

    /// How to answer a handshake: TLS 1.3 only, a client certificate required, HTTP/2, and nothing that would
    /// outlive the certificates: no tickets, no resumption, no early data.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.0.published.load().server.clone()
    }

    /// How to dial one workload: as [`Identity::server_config`], with our own certificate, and believing nobody but
    /// the holder of `expected`. The name that TLS dials is not looked at.
    ///
    /// # Errors
    /// If nothing in the bundle could vouch for that workload.
    pub fn client_config(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, IdentityError> {
        self.0.published.load().client_config(expected)
    }
}

impl Published {
    fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        let provider = Arc::new(provider());
        let chain = read_chain(&files.certificate)?;
        let key = read_key(&files.key)?;
        let leaf = &chain[0];
        let svid =
            Svid::parse(leaf).map_err(|source| IdentityError::Profile { path: files.certificate.clone(), source })?;
        let bundle = read_bundle(svid.id.trust_domain(), &files.bundle)?;
        for usage in [Usage::Server, Usage::Client] {
            verify(&bundle, leaf, &chain[1..], UnixTime::now(), usage).map_err(|source| IdentityError::Unproven {
                certificate: files.certificate.clone(),
                bundle: files.bundle.clone(),
                source: Box::new(source),
            })?;
        }
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                IdentityError::KeyMismatch { key: files.key.clone(), certificate: files.certificate.clone() }
            }
            other => content("a private key that TLS can use", &files.key, &other),
        })?;
        let (own, bundle) = (Arc::new(own), Arc::new(bundle));
        let server = Arc::new(server_config(&provider, &own, &bundle)?);
        Ok(Self { svid: Arc::new(svid), own, bundle, provider, server })
    }

    fn client_config(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, IdentityError> {
        if !self.bundle.trust_domains().any(|domain| domain == expected.trust_domain()) {
            return Err(IdentityError::UntrustedDomain(expected.clone()));
        }
        let verifier = ServerVerifier {
            bundle: self.bundle.clone(),
            expected: expected.clone(),
            algorithms: self.provider.signature_verification_algorithms,
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.own.clone())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(Arc::new(config))
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    own: &Arc<CertifiedKey>,
    bundle: &Arc<TrustBundle>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = ClientVerifier { bundle: bundle.clone(), algorithms: provider.signature_verification_algorithms };
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.clone())));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The library's own choice, with the key exchange that stands against quantum computers put first.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    provider
}

/// At least one certificate.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    const WHAT: &str = "the certificate";
    let pem = files::read(path).map_err(|source| unreadable(WHAT, path, source))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content("a certificate", path, &error))?;
    if chain.is_empty() { Err(content("a certificate", path, &"there is none in it")) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let pem = files::read_secret(path)
        .map_err(|source| unreadable("the private key", path, source))?
        .ok_or_else(|| IdentityError::ExposedKey { path: path.to_owned() })?;
    if is_encrypted(&pem) {
        return Err(IdentityError::EncryptedKey { path: path.to_owned() });
    }
    // What the parser says of a broken key is not shown: it may quote from it.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| content("a private key", path, &"it is not PEM of a private key"))
}

/// Whether a key is encrypted, as PKCS#8 (RFC 5958) or in the older form of PEM (RFC 1421) that OpenSSL writes.
fn is_encrypted(pem: &[u8]) -> bool {
    let mut lines = pem.split(|byte| matches!(byte, b'\n' | b'\r')).map(<[u8]>::trim_ascii);
    lines.any(|line| {
        line == b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
            || line.strip_prefix(b"Proc-Type:").is_some_and(|kind| kind.trim_ascii_start() == b"4,ENCRYPTED")
    })
}

fn read_bundle(domain: &TrustDomain, path: &Path) -> Result<TrustBundle, IdentityError> {
    let pem = files::read(path).map_err(|source| unreadable("the trust bundle", path, source))?;
    TrustBundle::from_pem(domain, &pem).map_err(|source| IdentityError::Bundle { path: path.to_owned(), source })
}

fn unreadable(what: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Read { what, path: path.to_owned(), source }
}

fn content(what: &'static str, path: &Path, why: &impl ToString) -> IdentityError {
    IdentityError::Content { what, path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
mod tests;
