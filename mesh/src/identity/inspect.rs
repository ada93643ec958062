//! A certificate as an operator reads it, from a file or from a server.

use std::{fmt, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use ::aws_lc_rs::digest;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, public_key::PublicKey};

use super::{
    error::IdentityError,
    source::read_chain,
    svid::{Svid, SvidError, hexadecimal},
    verifier::tls12_not_supported,
};
use crate::clock::Timestamp;

/// The timeout of a handshake.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The fields of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// The subject, with control characters escaped: a server chooses it.
    pub subject: String,
    /// The issuer, likewise.
    pub issuer: String,
    /// The serial number, in lower-case hexadecimal, as in a denylist.
    pub serial: String,
    /// The start of the validity.
    pub not_before: Timestamp,
    /// Its end.
    pub not_after: Timestamp,
    /// The kind of the public key.
    pub key: String,
    /// Whether it is the certificate of a CA.
    pub is_ca: bool,
    /// The SHA-256 of the public key, as in a denylist.
    pub key_sha256: String,
    /// The SHA-256 of the certificate, in lower-case hexadecimal.
    pub fingerprint: String,
    /// The workload, or the violated rule of the profile.
    pub svid: Result<Svid, SvidError>,
}

/// The certificate cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not an X.509 certificate: {0}")]
pub struct MalformedCertificate(String);

impl CertificateSummary {
    /// Reads a certificate.
    ///
    /// # Errors
    /// If it is malformed.
    pub fn of(der: &CertificateDer<'_>) -> Result<Self, MalformedCertificate> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| MalformedCertificate(error.to_string()))?;
        let time = |seconds| {
            Timestamp::from_timestamp(seconds, 0)
                .ok_or_else(|| MalformedCertificate("its validity is out of range".to_owned()))
        };
        let validity = parsed.validity();
        Ok(Self {
            subject: escaped(&parsed.subject().to_string()),
            issuer: escaped(&parsed.issuer().to_string()),
            serial: hexadecimal(parsed.raw_serial()),
            not_before: time(validity.not_before.timestamp())?,
            not_after: time(validity.not_after.timestamp())?,
            key: key(&parsed),
            is_ca: parsed.is_ca(),
            key_sha256: hexadecimal(digest::digest(&digest::SHA256, parsed.public_key().raw).as_ref()),
            fingerprint: hexadecimal(digest::digest(&digest::SHA256, der).as_ref()),
            svid: Svid::parse(der),
        })
    }
}

/// Escapes what is not visible on a terminal, or changes it.
fn escaped(name: &str) -> String {
    let is_plain = |character: char| character == ' ' || (!character.is_whitespace() && !is_invisible(character));
    name.chars().fold(String::new(), |mut text, character| {
        if is_plain(character) {
            text.push(character);
        } else {
            text.extend(character.escape_unicode());
        }
        text
    })
}

/// Control characters, and those that change the direction of a text.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn key(certificate: &X509Certificate<'_>) -> String {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => format!("ECDSA, {} bits", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
        _ if certificate.public_key().algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => format!("algorithm {}", certificate.public_key().algorithm.algorithm),
    }
}

/// The certificates in a PEM file.
///
/// # Errors
/// It cannot be read, or contains none.
pub fn certificates_in(path: &Path) -> Result<Vec<CertificateSummary>, IdentityError> {
    let summary = |der: &CertificateDer<'_>| {
        CertificateSummary::of(der).map_err(|error| IdentityError::Content {
            what: "a certificate",
            path: path.to_owned(),
            reason: error.to_string(),
        })
    };
    read_chain(path)?.iter().map(summary).collect()
}

/// The chain that a server shows, leaf first. Nothing is sent to it, and nothing about it is verified but that it has the key.
///
/// # Errors
/// It does not answer, or not with TLS 1.3.
pub async fn server_chain(address: SocketAddr) -> io::Result<Vec<CertificateSummary>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(NotVerified(provider.signature_verification_algorithms));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    let connected = async {
        let socket = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    };
    let timed_out = || io::Error::new(io::ErrorKind::TimedOut, format!("no handshake within {TIMEOUT:?}"));
    let stream = tokio::time::timeout(TIMEOUT, connected).await.map_err(|_| timed_out())??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.iter().map(|certificate| CertificateSummary::of(certificate).map_err(io::Error::other)).collect()
}

/// Accepts every certificate, to look at it.
struct NotVerified(WebPkiSupportedAlgorithms);

impl fmt::Debug for NotVerified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotVerified")
    }
}

impl ServerCertVerifier for NotVerified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
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
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::DnType;

    use super::*;
    use crate::identity::testing::TestCa;

    #[test]
    fn a_summary_has_the_fields_of_the_certificate() {
        let ca = TestCa::new("drystone.test");
        let leaf = ca.leaf("auth", |_| {});
        let summary = CertificateSummary::of(leaf.der()).unwrap();
        assert_eq!(summary.subject, "CN=auth");
        assert!(summary.issuer.contains("CN=test CA"), "{}", summary.issuer);
        assert_eq!(summary.not_after, leaf.not_after);
        assert_eq!((summary.key.as_str(), summary.is_ca), ("ECDSA, 256 bits", false));
        assert_eq!(summary.fingerprint.len(), 64);
        let svid = summary.svid.unwrap();
        assert_eq!((svid.id.workload(), svid.serial), (Some("auth"), summary.serial));

        assert_eq!(svid.key_sha256, summary.key_sha256);

        let hostile =
            ca.leaf("auth", |params| params.distinguished_name.push(DnType::OrganizationName, "a\x1b[2J\nb\u{202e}"));
        let summary = CertificateSummary::of(hostile.der()).unwrap();
        assert_eq!(summary.subject, "CN=auth, O=a\\u{1b}[2J\\u{a}b\\u{202e}");

        let root = CertificateSummary::of(ca.der()).unwrap();
        assert!(root.is_ca && root.svid.is_err());
        assert!(CertificateSummary::of(&CertificateDer::from(vec![1, 2])).is_err());
    }
}
