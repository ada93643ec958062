//! The process's own identity: certificate, key and roots, replaced atomically.
//!
//! New credentials are verified before they are published: the key matches the certificate, the certificate conforms to
//! the profile and is currently valid, and it chains to the roots. Invalid credentials leave the old ones in use. Existing
//! connections keep the credentials of their handshake; each new handshake uses the published ones. Our client reconnects
//! after a replacement, since a server closes a connection when the client's certificate of its handshake expires.

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
    verifier::{SvidClientVerifier, SvidServerVerifier, Usage, VerifyError, verify},
};

/// The paths of an identity's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityFiles {
    /// The workload's certificate in PEM, followed by intermediates.
    pub certificate: PathBuf,
    /// Its private key in PEM. Only its owner may read the file.
    pub key: PathBuf,
    /// The roots of the workload's trust domain, concatenated PEM.
    pub bundle: PathBuf,
}

/// The identity and trust bundle of this process. Clones share their state.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<VerifiedCredentials>,
    /// How often the credentials have been replaced.
    generation: AtomicU64,
}

/// Verified credentials.
#[derive(Debug)]
struct VerifiedCredentials {
    svid: Arc<Svid>,
    own: Arc<CertifiedKey>,
    bundle: Arc<TrustBundle>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
}

/// An identity cannot be loaded, or a peer cannot be called with it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {what} {}: {source}; check the path, or issue development certificates with `drystone certs`", path.display())]
    Read {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file does not have the expected content.
    #[error("{} does not contain {what}: {reason}; replace it with a PEM file", path.display())]
    Content {
        /// The expected content.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The private key is readable by other users.
    #[error("the private key {path} is accessible to other users; run `chmod 600 {path}`", path = path.display())]
    ExposedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The private key is encrypted; a service cannot ask for the passphrase.
    #[error(
        "the private key {path} is encrypted, and a service cannot ask for its passphrase; decrypt it with \
         `openssl pkey -in {path} -out NEW.key`, run `chmod 600 NEW.key`, and configure that file instead",
        path = path.display()
    )]
    EncryptedKey {
        /// The key's file.
        path: PathBuf,
    },
    /// The key belongs to another certificate.
    #[error("the private key {} does not belong to the certificate {}; reissue both", key.display(), certificate.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The certificate does not conform to the profile.
    #[error("the certificate {} is not a valid X.509-SVID: {source}; reissue it", path.display())]
    Profile {
        /// The certificate's file.
        path: PathBuf,
        /// The rule that it breaks.
        source: SvidError,
    },
    /// The trust bundle is invalid.
    #[error("the trust bundle {} is invalid: {source}; it must contain the root certificates of the trust domain in PEM", path.display())]
    Bundle {
        /// The bundle's file.
        path: PathBuf,
        /// The cause.
        source: BundleError,
    },
    /// The process's certificate is not valid under its own trust bundle, so no peer would accept it.
    #[error(
        "the certificate {} is not trusted by the trust bundle {}: {source}; reissue the certificate, or add its root to the bundle",
        certificate.display(), bundle.display()
    )]
    Untrusted {
        /// The certificate's file.
        certificate: PathBuf,
        /// The bundle's file.
        bundle: PathBuf,
        /// The cause.
        source: Box<VerifyError>,
    },
    /// The replacement is for another workload.
    #[error("the certificate {} is for {found}, but this process is {own}; issue one for {own}, or restart with the new one", path.display())]
    WorkloadMismatch {
        /// The certificate's file.
        path: PathBuf,
        /// The workload of this process.
        own: SpiffeId,
        /// The workload of the certificate.
        found: SpiffeId,
    },
    /// The trust bundle has no roots for the peer's trust domain.
    #[error("cannot connect to {0}: the trust bundle has no roots for its trust domain")]
    UntrustedDomain(SpiffeId),
    /// The TLS library rejects the configuration.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
}

impl Identity {
    /// Loads and verifies an identity.
    ///
    /// # Errors
    /// If a file cannot be read, the key is accessible to other users, or the files do not match; the message names the
    /// file and says what to do.
    pub fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        let current = ArcSwap::from_pointee(VerifiedCredentials::load(files)?);
        Ok(Self(Arc::new(Inner { current, generation: AtomicU64::new(0) })))
    }

    /// Loads and verifies new credentials, then replaces the old ones.
    ///
    /// # Errors
    /// As [`Identity::load`], and if the certificate is for another workload. The old credentials then stay in use.
    pub fn replace(&self, files: &IdentityFiles) -> Result<(), IdentityError> {
        let replacement = VerifiedCredentials::load(files)?;
        let own = self.id();
        if replacement.svid.id != own {
            let path = files.certificate.clone();
            return Err(IdentityError::WorkloadMismatch { path, own, found: replacement.svid.id.clone() });
        }
        self.0.current.store(Arc::new(replacement));
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The number of replacements so far. Connections of an earlier generation should be reconnected.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The SPIFFE ID of this process.
    #[must_use]
    pub fn id(&self) -> SpiffeId {
        self.0.current.load().svid.id.clone()
    }

    /// The trust domain of this process.
    #[must_use]
    pub fn trust_domain(&self) -> TrustDomain {
        self.0.current.load().svid.id.trust_domain().clone()
    }

    /// The process's own SVID.
    #[must_use]
    pub fn svid(&self) -> Arc<Svid> {
        self.0.current.load().svid.clone()
    }

    /// The TLS configuration of servers: TLS 1.3 only, HTTP/2, a client certificate required, and nothing that could
    /// outlive the certificates: no tickets, no resumption, no early data.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.0.current.load().server.clone()
    }

    /// The TLS configuration for connections to one workload: as [`Identity::server_config`], with our own certificate,
    /// accepting only the server with the ID `expected`. The TLS server name is ignored.
    ///
    /// # Errors
    /// If the trust bundle has no roots for the workload's trust domain.
    pub fn client_config(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, IdentityError> {
        self.0.current.load().client_config(expected)
    }
}

impl VerifiedCredentials {
    fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        let provider = Arc::new(provider());
        let chain = read_chain(&files.certificate)?;
        let key = read_key(&files.key)?;
        let leaf = &chain[0];
        let svid =
            Svid::parse(leaf).map_err(|source| IdentityError::Profile { path: files.certificate.clone(), source })?;
        let bundle = read_bundle(svid.id.trust_domain(), &files.bundle)?;
        for usage in [Usage::Server, Usage::Client] {
            verify(&bundle, leaf, &chain[1..], UnixTime::now(), usage).map_err(|source| IdentityError::Untrusted {
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
        let verifier = SvidServerVerifier {
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
    let verifier =
        SvidClientVerifier { bundle: bundle.clone(), algorithms: provider.signature_verification_algorithms };
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

/// The default provider, with the post-quantum key exchange preferred.
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

/// Reads a chain of at least one certificate.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    const WHAT: &str = "the certificate";
    let pem = files::read(path).map_err(|source| unreadable(WHAT, path, source))?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| content("a certificate", path, &error))?;
    if chain.is_empty() { Err(content("a certificate", path, &"it contains none")) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let pem = files::read_secret(path)
        .map_err(|source| unreadable("the private key", path, source))?
        .ok_or_else(|| IdentityError::ExposedKey { path: path.to_owned() })?;
    if is_encrypted(&pem) {
        return Err(IdentityError::EncryptedKey { path: path.to_owned() });
    }
    // The parser's error is not shown: it may quote the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| content("a private key", path, &"it is not a private key in PEM"))
}

/// Whether a key is encrypted, as PKCS#8 (RFC 5958) or in the older PEM format (RFC 1421) of OpenSSL.
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

fn content(what: &'static str, path: &Path, reason: &impl ToString) -> IdentityError {
    IdentityError::Content { what, path: path.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
