//! Why there is no response.

use std::{io, path::PathBuf};

use rustls::pki_types::{InvalidDnsNameError, pem};

/// Why a URL cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    /// Neither `https://HOST` nor `http://HOST`.
    #[error("the URL is neither https://HOST nor http://HOST")]
    Url,
    /// The host cannot be in a certificate.
    #[error("the host of the URL is neither a DNS name nor an IP address")]
    Host(#[source] InvalidDnsNameError),
    /// The CA file cannot be read.
    #[error("the CA file {} cannot be read", .0.display())]
    CaFile(PathBuf, #[source] pem::Error),
    /// The CA file has no certificate.
    #[error("the CA file {} has no certificate; write root certificates to it in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The CA file has a certificate that is no root.
    #[error("the CA file {} has a certificate that cannot be a root", .0.display())]
    Root(PathBuf, #[source] rustls::Error),
    /// The system has no root certificates.
    #[error("the system has no root certificates; install them (`ca-certificates`), or configure a CA file")]
    NoSystemRoots,
    /// The cryptography library lacks the versions of TLS.
    #[error("TLS cannot be used")]
    Tls(#[source] rustls::Error),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no address to connect to.
    #[error("there is no address to connect to")]
    NoAddress,
    /// No address accepts a connection; the error is that of the last one.
    #[error("it cannot be connected to")]
    Tcp(#[source] io::Error),
    /// The last address did not answer in time.
    #[error("it does not accept a connection in time")]
    TcpTimeout,
    /// The TLS handshake failed, as with a certificate that is not trusted.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The TLS handshake took too long.
    #[error("the TLS handshake takes too long")]
    TlsTimeout,
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The response did not arrive in time.
    #[error("it does not respond in time")]
    Timeout,
    /// The connection ended before the response did.
    #[error("the connection failed before the response was complete")]
    Disconnected(#[source] hyper::Error),
    /// The response is not HTTP/1.1, or its head is too large.
    #[error("the response is not valid HTTP/1.1, or has over 64 headers or 16 KiB of them")]
    Invalid(#[source] hyper::Error),
    /// The body of the response is too large.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
}

impl From<hyper::Error> for ExchangeError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() { Self::Invalid(error) } else { Self::Disconnected(error) }
    }
}
