//! The process's own identity: certificate, key and roots, replaced atomically.
//!
//! New credentials are verified before they are published: the key matches the certificate, the certificate conforms to
//! the profile and is currently valid, it chains to the roots, and a handshake with ourselves works. Invalid credentials leave
//! the old ones in use. Existing connections keep the credentials of their handshake; each new handshake uses the published
//! ones. Our client reconnects after a replacement, and a server closes connections gracefully before a certificate of
//! their handshake expires, or when a root has been removed.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{ServerName, UnixTime},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use tokio::sync::watch;

use super::{
    bundle::TrustBundle,
    denylist::Denylist,
    error::IdentityError,
    source::{IdentityFiles, UnverifiedCredentials},
    spiffe::{SpiffeId, TrustDomain},
    svid::Svid,
    verifier::{SvidClientVerifier, SvidServerVerifier, Usage, verify},
};

/// The identity and trust bundle of this process. Clones share their state.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    current: ArcSwap<VerifiedCredentials>,
    /// How often the credentials have been replaced.
    generation: AtomicU64,
    /// The generation of the last replacement that removed a root.
    distrust_generation: AtomicU64,
    denylist: Arc<ArcSwap<Denylist>>,
    /// Notified of each replacement of credentials or denylist.
    changes: watch::Sender<()>,
}

/// Verified credentials.
#[derive(Debug)]
struct VerifiedCredentials {
    svid: Arc<Svid>,
    own: Arc<CertifiedKey>,
    bundle: Arc<TrustBundle>,
    denylist: Arc<ArcSwap<Denylist>>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Reads and verifies an identity.
    ///
    /// # Errors
    /// If a file cannot be read, the key is accessible to other users, or the files do not match; the message names the
    /// file and says what to do.
    pub fn load(files: &IdentityFiles) -> Result<Self, IdentityError> {
        Self::new(files.read()?)
    }

    /// Verifies credentials.
    ///
    /// # Errors
    /// If they do not match each other, or no peer would accept them.
    pub fn new(credentials: UnverifiedCredentials) -> Result<Self, IdentityError> {
        let denylist = Arc::<ArcSwap<Denylist>>::default();
        let current = ArcSwap::from_pointee(VerifiedCredentials::verify(credentials, &denylist)?);
        Ok(Self(Arc::new(Inner {
            current,
            generation: AtomicU64::new(0),
            distrust_generation: AtomicU64::new(0),
            denylist,
            changes: watch::Sender::new(()),
        })))
    }

    /// Verifies new credentials, then replaces the old ones. Returns whether they differ.
    ///
    /// # Errors
    /// As [`Identity::new`], and if the certificate is for another workload. The old credentials then stay in use.
    pub fn replace(&self, credentials: UnverifiedCredentials) -> Result<bool, IdentityError> {
        let path = credentials.origin.certificate.clone();
        let replacement = VerifiedCredentials::verify(credentials, &self.0.denylist)?;
        let own = self.id();
        if replacement.svid.id != own {
            return Err(IdentityError::WorkloadMismatch { path, own, found: replacement.svid.id.clone() });
        }
        let current = self.0.current.load();
        if replacement.own.cert == current.own.cert && replacement.bundle == current.bundle {
            return Ok(false);
        }
        let removes_root = !replacement.bundle.contains_all(&current.bundle);
        self.0.current.store(Arc::new(replacement));
        let generation = self.0.generation.fetch_add(1, Ordering::AcqRel) + 1;
        if removes_root {
            self.0.distrust_generation.store(generation, Ordering::Release);
        }
        self.0.changes.send_replace(());
        Ok(true)
    }

    /// Replaces the denylist. Returns whether it differs.
    pub fn set_denylist(&self, denylist: Denylist) -> bool {
        if **self.0.denylist.load() == denylist {
            return false;
        }
        self.0.denylist.store(Arc::new(denylist));
        self.0.changes.send_replace(());
        true
    }

    /// Whether a workload or its certificate is on the denylist.
    #[must_use]
    pub fn denies(&self, svid: &Svid) -> bool {
        let denylist = self.0.denylist.load();
        !denylist.is_empty() && denylist.contains(svid)
    }

    /// The number of entries of the denylist.
    #[must_use]
    pub fn denylist_entries(&self) -> usize {
        self.0.denylist.load().len()
    }

    /// Notified of each replacement of the credentials or the denylist.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Whether a root has been removed since a connection of this generation was opened.
    #[must_use]
    pub fn has_removed_root_since(&self, generation: u64) -> bool {
        self.0.distrust_generation.load(Ordering::Acquire) > generation
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
    fn verify(credentials: UnverifiedCredentials, denylist: &Arc<ArcSwap<Denylist>>) -> Result<Self, IdentityError> {
        let UnverifiedCredentials { chain, key, bundle, origin } = credentials;
        let provider = Arc::new(provider());
        let Some(leaf) = chain.first() else {
            let (path, what, reason) = (origin.certificate, "a certificate", "it contains none".to_owned());
            return Err(IdentityError::Content { what, path, reason });
        };
        let svid =
            Svid::parse(leaf).map_err(|source| IdentityError::Profile { path: origin.certificate.clone(), source })?;
        for usage in [Usage::Server, Usage::Client] {
            verify(&bundle, leaf, &chain[1..], UnixTime::now(), usage).map_err(|source| IdentityError::Untrusted {
                certificate: origin.certificate.clone(),
                bundle: origin.bundle.clone(),
                source: Box::new(source),
            })?;
        }
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                IdentityError::KeyMismatch { key: origin.key.clone(), certificate: origin.certificate.clone() }
            }
            other => IdentityError::Content {
                what: "a private key that TLS can use",
                path: origin.key.clone(),
                reason: other.to_string(),
            },
        })?;
        let (own, bundle) = (Arc::new(own), Arc::new(bundle));
        let server = Arc::new(server_config(&provider, &own, &bundle, denylist)?);
        let this = Self { svid: Arc::new(svid), own, bundle, denylist: denylist.clone(), provider, server };
        this.check_handshake(&origin.certificate)?;
        Ok(this)
    }

    /// Connects to ourselves in memory: what the configurations are for is proved before they are used.
    fn check_handshake(&self, certificate: &Path) -> Result<(), IdentityError> {
        // Whether we are on the denylist is decided by peers.
        let denylist = Arc::default();
        let server = server_config(&self.provider, &self.own, &self.bundle, &denylist)?;
        let client = self.client_config_with(&self.svid.id, denylist)?;
        let failure = |reason: String| IdentityError::Handshake { path: certificate.to_owned(), reason };
        handshake(client, Arc::new(server)).map_err(|error| failure(error.to_string()))
    }

    fn client_config(&self, expected: &SpiffeId) -> Result<Arc<ClientConfig>, IdentityError> {
        if !self.bundle.trust_domains().any(|domain| domain == expected.trust_domain()) {
            return Err(IdentityError::UntrustedDomain(expected.clone()));
        }
        self.client_config_with(expected, self.denylist.clone()).map_err(IdentityError::from)
    }

    fn client_config_with(
        &self,
        expected: &SpiffeId,
        denylist: Arc<ArcSwap<Denylist>>,
    ) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = SvidServerVerifier {
            bundle: self.bundle.clone(),
            denylist,
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
    denylist: &Arc<ArcSwap<Denylist>>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = SvidClientVerifier {
        bundle: bundle.clone(),
        denylist: denylist.clone(),
        algorithms: provider.signature_verification_algorithms,
    };
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

/// A whole handshake in memory.
fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<(), Box<dyn std::error::Error>> {
    /// More than the flights of a handshake.
    const MAX_FLIGHTS: usize = 8;

    let mut client = ClientConnection::new(client, ServerName::try_from("localhost")?)?;
    let mut server = ServerConnection::new(server)?;
    let mut flight = Vec::new();
    for _ in 0..MAX_FLIGHTS {
        if !client.is_handshaking() && !server.is_handshaking() {
            return Ok(());
        }
        while client.wants_write() {
            client.write_tls(&mut flight)?;
        }
        let mut received = flight.as_slice();
        while !received.is_empty() {
            server.read_tls(&mut received)?;
            server.process_new_packets()?;
        }
        flight.clear();
        while server.wants_write() {
            server.write_tls(&mut flight)?;
        }
        let mut received = flight.as_slice();
        while !received.is_empty() {
            client.read_tls(&mut received)?;
            client.process_new_packets()?;
        }
        flight.clear();
    }
    Err("it does not complete".into())
}

#[cfg(test)]
mod tests;
