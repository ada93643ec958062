//! TLS of a client: the roots of its server's certificate.

use std::{fmt, io, net::IpAddr, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::Host;

use super::OriginError;

/// TLS to a server, also for other protocols than HTTP.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// TLS to the server of this host. Its certificate is verified with the roots in `ca`, a PEM file; if that is empty, with those of
    /// the system. `alpn` are the protocols that are offered.
    pub fn new(host: &Host, ca: &Path, alpn: &[&[u8]]) -> Result<Self, OriginError> {
        Ok(Self { connector: connector(ca, alpn)?, name: server_name(host)? })
    }

    /// The handshake on a connection.
    ///
    /// # Errors
    /// As with a certificate that is not trusted.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, OriginError> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone()).map_err(OriginError::Host),
        Host::Ipv4(address) => Ok(ServerName::from(IpAddr::from(*address))),
        Host::Ipv6(address) => Ok(ServerName::from(IpAddr::from(*address))),
    }
}

fn connector(ca: &Path, alpn: &[&[u8]]) -> Result<TlsConnector, OriginError> {
    let roots = if ca.as_os_str().is_empty() { system_roots()? } else { file_roots(ca)? };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OriginError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(client)))
}

fn system_roots() -> Result<RootCertStore, OriginError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(OriginError::NoSystemRoots) } else { Ok(roots) }
}

fn file_roots(path: &Path) -> Result<RootCertStore, OriginError> {
    let unreadable = |error| OriginError::CaFile(path.to_owned(), error);
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        roots.add(certificate).map_err(|error| OriginError::Root(path.to_owned(), error))?;
    }
    if roots.is_empty() { Err(OriginError::NoCertificate(path.to_owned())) } else { Ok(roots) }
}
