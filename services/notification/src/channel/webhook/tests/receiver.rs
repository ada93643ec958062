//! A receiver of webhooks: a real socket, real TLS, and responses as a test writes them.

use std::{
    io::Write,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderMap;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// What a receiver does after it has read a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Sends these bytes, and closes the connection.
    Bytes(Vec<u8>),
    /// Sends these bytes, and keeps the connection open without a word.
    Hang(Vec<u8>),
    /// Sends these bytes, then zeros as long as the connection takes them.
    Endless(Vec<u8>),
}

impl Reply {
    /// A response without a body.
    pub fn status(line: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes())
    }
}

/// A request.
#[derive(Debug, Clone)]
pub struct Received {
    pub line: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    /// Verifies the signature as a receiver with this secret does, by the text of the specification.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let mut signed = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp")).into_bytes();
        signed.extend_from_slice(&self.body);
        self.header("webhook-signature").split(' ').any(|signature| {
            let (version, signature) = signature.split_once(',').unwrap();
            version == "v1" && hmac::verify(&key, &signed, &BASE64_STANDARD.decode(signature).unwrap()).is_ok()
        })
    }
}

/// A certificate for a name, which is its own root.
pub struct Certificate {
    pub ca: NamedTempFile,
    chain: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Certificate {
    pub fn new(name: &str) -> Self {
        let chain = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let mut ca = NamedTempFile::new().unwrap();
        ca.write_all(chain.cert.pem().as_bytes()).unwrap();
        Self { ca, chain }
    }

    fn acceptor(&self, versions: &[&'static SupportedProtocolVersion]) -> TlsAcceptor {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.chain.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.chain.cert.der().clone()], key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A running receiver. It ends with its test.
pub struct Receiver {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    /// How much an endless response came to, when the connection was closed.
    pub endless: Arc<Mutex<Option<usize>>>,
}

impl Receiver {
    pub async fn start(reply: Reply, certificate: &Certificate) -> Self {
        Self::bind("127.0.0.1:0", reply, Some(certificate.acceptor(rustls::ALL_VERSIONS))).await
    }

    pub async fn with_version(version: &'static SupportedProtocolVersion, certificate: &Certificate) -> Self {
        Self::bind("127.0.0.1:0", Reply::status("200 OK"), Some(certificate.acceptor(&[version]))).await
    }

    pub async fn plain(reply: Reply) -> Self {
        Self::plain_at("127.0.0.1:0", reply).await
    }

    pub async fn plain_at(address: &str, reply: Reply) -> Self {
        Self::bind(address, reply, None).await
    }

    pub fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    async fn bind(address: &str, reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            endless: Arc::default(),
        };
        let (requests, connections) = (Arc::clone(&receiver.requests), Arc::clone(&receiver.connections));
        let endless = Arc::clone(&receiver.endless);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, endless) = (Arc::clone(&requests), Arc::clone(&endless));
                let (reply, tls) = (reply.clone(), tls.clone());
                tokio::spawn(async move {
                    let written = accept(stream, tls, &requests, reply).await;
                    *endless.lock().unwrap() = written;
                });
            }
        });
        receiver
    }
}

async fn accept(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    requests: &Mutex<Vec<Received>>,
    reply: Reply,
) -> Option<usize> {
    match tls {
        Some(tls) => serve(tls.accept(stream).await.ok()?, requests, reply).await,
        None => serve(stream, requests, reply).await,
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    requests: &Mutex<Vec<Received>>,
    reply: Reply,
) -> Option<usize> {
    let request = read(&mut stream).await?;
    requests.lock().unwrap().push(request);
    let (Reply::Bytes(bytes) | Reply::Hang(bytes) | Reply::Endless(bytes)) = &reply;
    stream.write_all(bytes).await.ok()?;
    stream.flush().await.ok()?;
    match reply {
        Reply::Bytes(_) => {
            let _closed = stream.shutdown().await;
            None
        }
        Reply::Hang(_) => {
            let _end = stream.read(&mut [0]).await;
            None
        }
        Reply::Endless(_) => {
            let mut written = 0;
            while let Ok(size) = stream.write(&[b'0'; 1024]).await {
                written += size;
            }
            Some(written)
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Received> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let line = lines.next().unwrap().to_owned();
    let headers: HeaderMap = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = bytes[end + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received { line, headers, body })
}
