//! The acceptor over real sockets: accepted and rejected peers, slow peers, and changes of certificates.

mod limits;

use std::{future::Future, sync::Mutex};

use futures_util::{StreamExt, future};
use rustls::{
    ClientConfig, HandshakeKind, ServerConnection,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_rustls::{TlsConnector, client};

use super::*;
use crate::identity::{
    IdentityFiles, SpiffeId,
    testing::{Leaf, TestCa, expired},
};

const BOUND: Duration = Duration::from_secs(20);

/// Waits, though not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(BOUND, what).await.expect("it should have happened by now")
}

/// An acceptor whose connections are answered by an echo.
struct Echo {
    address: SocketAddr,
    identity: Identity,
    peers: mpsc::UnboundedReceiver<PeerInfo>,
    refusals: mpsc::UnboundedReceiver<RefusedHandshake>,
    stop: CancellationToken,
    ended: JoinHandle<()>,
    _files: TempDir,
}

impl Echo {
    async fn start(ca: &TestCa) -> Self {
        Self::with_limits(ca, AcceptLimits::default()).await
    }

    async fn with_limits(ca: &TestCa, limits: AcceptLimits) -> Self {
        let files = TempDir::new().unwrap();
        let identity = Identity::load(&ca.leaf("auth", |_| {}).write(files.path(), &[ca])).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (refused, refusals) = mpsc::unbounded_channel();
        let (known, peers) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let report = move |failure| drop(refused.send(failure));
        let mut connections = accept_peers(listener, identity.clone(), limits, report, stop.clone());
        let ended = tokio::spawn(async move {
            while let Some(connection) = connections.next().await {
                let connection = connection.unwrap();
                assert!(connection.stream.get_ref().0.nodelay().unwrap());
                let _ = known.send(connection.peer());
                tokio::spawn(echo(connection));
            }
        });
        Self { address, identity, peers, refusals, stop, ended, _files: files }
    }

    async fn failure(&mut self) -> HandshakeFailure {
        soon(self.refusals.recv()).await.unwrap().cause
    }

    fn replace(&self, leaf: &Leaf, roots: &[&TestCa]) {
        replace(&self.identity, leaf, roots);
    }
}

async fn echo(mut connection: PeerConnection) -> io::Result<()> {
    let mut byte = [0];
    while connection.read(&mut byte).await? > 0 {
        connection.write_all(&byte).await?;
        connection.flush().await?;
    }
    connection.shutdown().await
}

fn files(leaf: &Leaf, roots: &[&TestCa]) -> (TempDir, IdentityFiles) {
    let dir = TempDir::new().unwrap();
    let files = leaf.write(dir.path(), roots);
    (dir, files)
}

fn identity(leaf: &Leaf, roots: &[&TestCa]) -> Identity {
    let (_dir, files) = files(leaf, roots);
    Identity::load(&files).unwrap()
}

fn replace(identity: &Identity, leaf: &Leaf, roots: &[&TestCa]) {
    let (_dir, files) = files(leaf, roots);
    identity.replace(files.read().unwrap()).unwrap();
}

/// How the workload `name` of this CA dials `auth`.
fn dialling_auth(ca: &TestCa, name: &str) -> Arc<ClientConfig> {
    let auth = SpiffeId::for_workload(&ca.domain, "auth").unwrap();
    identity(&ca.leaf(name, |_| {}), &[ca]).client_config(&auth).unwrap()
}

/// How a client dials that believes every server, and shows whatever certificate it is given.
fn dialling_blindly(leaf: Option<&Leaf>) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll));
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(vec![leaf.der().clone()], leaf.key_der()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct BelievesAll;

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

type Dialled = client::TlsStream<TcpStream>;

async fn dial(address: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> io::Result<Dialled> {
    let socket = TcpStream::connect(address).await?;
    // A name that no certificate has: only the SPIFFE ID is verified.
    let name = ServerName::try_from("nobody.invalid").unwrap();
    TlsConnector::from(config.into()).connect(name, socket).await
}

/// Sends a byte and reads it back, which proves that both ends accept each other.
async fn speak(stream: &mut Dialled) -> io::Result<()> {
    stream.write_all(b"x").await?;
    stream.flush().await?;
    let mut answer = [0];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"x");
    Ok(())
}

async fn call(address: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> io::Result<Dialled> {
    let attempt = async {
        let mut stream = dial(address, config).await?;
        speak(&mut stream).await?;
        Ok(stream)
    };
    soon(attempt).await
}

fn tls_error(error: &io::Error) -> &rustls::Error {
    let inner = error.get_ref().and_then(|error| error.downcast_ref());
    inner.unwrap_or_else(|| panic!("expected an error of TLS, not {error:?}"))
}

#[tokio::test]
async fn a_connection_carries_its_peers_identity() {
    let ca = TestCa::new("drystone.test");
    let mut server = Echo::start(&ca).await;
    let stream = call(server.address, dialling_auth(&ca, "edge")).await.unwrap();

    let peer = soon(server.peers.recv()).await.unwrap();
    assert_eq!(peer.svid.id.workload(), Some("edge"));
    assert_eq!(peer.remote, stream.get_ref().0.local_addr().unwrap());
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_rejected_and_receives_the_alert() {
    let ca = TestCa::new("drystone.test");
    let mut server = Echo::start(&ca).await;
    // Under TLS 1.3 the client's end looks fine at first.
    let mut stream = dial(server.address, dialling_blindly(None)).await.unwrap();
    assert_eq!(server.failure().await, HandshakeFailure::NoCertificate);
    // The client sends before it reads. If the socket were closed by now, a reset would discard the alert.
    for _ in 0..3 {
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
    }
    let error = soon(stream.read(&mut [0])).await.unwrap_err();
    assert_eq!(*tls_error(&error), rustls::Error::AlertReceived(AlertDescription::CertificateRequired));
}

#[tokio::test]
async fn each_invalid_certificate_is_rejected_for_its_own_cause() {
    let ca = TestCa::new("drystone.test");
    let mut server = Echo::start(&ca).await;
    let other_ca = TestCa::new("drystone.test");
    let other_domain = TestCa::new("other.test");
    let cases = [
        (other_ca.leaf("edge", |_| {}), HandshakeFailure::UnknownIssuer),
        (other_domain.leaf("edge", |_| {}), HandshakeFailure::UntrustedDomain),
        (ca.leaf_in_domain(&other_domain.domain, "edge", |_| {}), HandshakeFailure::UntrustedDomain),
        (ca.leaf("edge", expired), HandshakeFailure::OutOfTime),
        (ca.leaf("edge", |params| params.subject_alt_names.clear()), HandshakeFailure::NoSvid("svid_uri_count")),
        (ca.leaf("edge", |params| params.key_usages.clear()), HandshakeFailure::NoSvid("svid_key_usage")),
    ];
    for (leaf, expected) in cases {
        let error = call(server.address, dialling_blindly(Some(&leaf))).await.unwrap_err();
        assert!(matches!(tls_error(&error), rustls::Error::AlertReceived(_)), "{expected:?}: {error}");
        assert_eq!(server.failure().await, expected);
    }
    assert!(server.peers.try_recv().is_err(), "no peer was accepted");
}

#[tokio::test]
async fn only_tls_1_3_and_http_2_are_spoken() {
    let ca = TestCa::new("drystone.test");
    let mut server = Echo::start(&ca).await;
    let leaf = ca.leaf("edge", |_| {});

    let old = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(BelievesAll))
        .with_client_auth_cert(vec![leaf.der().clone()], leaf.key_der())
        .unwrap();
    let error = call(server.address, old).await.unwrap_err();
    assert_eq!(*tls_error(&error), rustls::Error::AlertReceived(AlertDescription::ProtocolVersion));
    assert_eq!(server.failure().await, HandshakeFailure::Protocol);

    let mut other = dialling_blindly(Some(&leaf));
    other.alpn_protocols = vec![b"http/1.1".to_vec()];
    call(server.address, other).await.unwrap_err();
    assert_eq!(server.failure().await, HandshakeFailure::Protocol);

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(server.failure().await, HandshakeFailure::Protocol);

    drop(TcpStream::connect(server.address).await.unwrap());
    assert_eq!(server.failure().await, HandshakeFailure::Closed);
}

#[tokio::test]
async fn a_client_rejects_a_server_with_another_spiffe_id() {
    let ca = TestCa::new("drystone.test");
    let mut server = Echo::start(&ca).await;
    let edge = identity(&ca.leaf("edge", |_| {}), &[&ca]);
    let session = SpiffeId::for_workload(&ca.domain, "session").unwrap();

    let error = call(server.address, edge.client_config(&session).unwrap()).await.unwrap_err();
    let rustls::Error::InvalidCertificate(CertificateError::Other(cause)) = tls_error(&error) else {
        panic!("unexpected: {error:?}")
    };
    let found = SpiffeId::for_workload(&ca.domain, "auth").unwrap();
    assert_eq!(cause.0.downcast_ref(), Some(&VerifyError::UnexpectedWorkload { expected: session, found }));
    assert_eq!(server.failure().await, HandshakeFailure::Distrusted);
}

#[tokio::test]
async fn a_client_rejects_a_server_of_another_ca() {
    let (ca, other_ca) = (TestCa::new("drystone.test"), TestCa::new("drystone.test"));
    let mut server = Echo::start(&other_ca).await;
    let error = call(server.address, dialling_auth(&ca, "edge")).await.unwrap_err();
    assert_eq!(*tls_error(&error), rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
    assert_eq!(server.failure().await, HandshakeFailure::Distrusted);
}

#[tokio::test]
async fn no_session_tickets_are_issued_and_no_session_is_resumed() {
    let ca = TestCa::new("drystone.test");
    let server = Echo::start(&ca).await;
    let mut willing = dialling_blindly(Some(&ca.leaf("edge", |_| {})));
    willing.resumption = Resumption::in_memory_sessions(16);
    let willing = Arc::new(willing);
    for _ in 0..3 {
        let stream = call(server.address, willing.clone()).await.unwrap();
        let session = stream.get_ref().1;
        assert_ne!(session.handshake_kind(), Some(HandshakeKind::Resumed));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
}

#[tokio::test]
async fn the_client_never_resumes_a_session() {
    let ca = TestCa::new("drystone.test");
    let mut config = (*identity(&ca.leaf("auth", |_| {}), &[&ca]).server_config()).clone();
    config.send_tls13_tickets = 2;
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(16);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let kinds: Arc<Mutex<Vec<Option<HandshakeKind>>>> = Arc::default();
    let seen = kinds.clone();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
            let session: &ServerConnection = stream.get_ref().1;
            seen.lock().unwrap().push(session.handshake_kind());
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            stream.write_all(&byte).await.unwrap();
        }
    });
    let dialling = dialling_auth(&ca, "edge");
    for _ in 0..3 {
        call(address, dialling.clone()).await.unwrap();
    }
    let kinds = kinds.lock().unwrap();
    assert_eq!(kinds.len(), 3);
    assert!(!kinds.contains(&Some(HandshakeKind::Resumed)), "{kinds:?}");
}

#[tokio::test]
async fn slow_handshakes_do_not_delay_others() {
    let ca = TestCa::new("drystone.test");
    let limits = AcceptLimits { handshake_timeout: Duration::from_hours(1), ..AcceptLimits::default() };
    let server = Echo::with_limits(&ca, limits).await;
    let slow = (0..20).map(async |number| {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        // Half of them say nothing at all, the others begin a record and never end it.
        if number % 2 == 0 {
            socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
        }
        socket
    });
    let _slow = future::join_all(slow).await;
    for _ in 0..5 {
        call(server.address, dialling_auth(&ca, "edge")).await.unwrap();
    }
}

#[tokio::test]
async fn a_handshake_timeout_releases_its_permit() {
    let ca = TestCa::new("drystone.test");
    let limits =
        AcceptLimits { max_handshakes: 1, handshake_timeout: Duration::from_millis(200), ..AcceptLimits::default() };
    let mut server = Echo::with_limits(&ca, limits).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    call(server.address, dialling_auth(&ca, "edge")).await.unwrap();
    assert_eq!(server.failure().await, HandshakeFailure::Timeout);
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap_or_default(), 0, "the silent one is cut off");
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_permit() {
    let ca = TestCa::new("drystone.test");
    let mut server = Echo::with_limits(&ca, AcceptLimits { max_connections: 1, ..AcceptLimits::default() }).await;
    let first = call(server.address, dialling_auth(&ca, "edge")).await.unwrap();
    let second = tokio::spawn(call(server.address, dialling_auth(&ca, "operator")));
    assert_eq!(soon(server.peers.recv()).await.unwrap().svid.id.workload(), Some("edge"));
    // The second is connected as far as the kernel goes, and no further.
    timeout(Duration::from_millis(100), server.peers.recv()).await.unwrap_err();
    drop(first);
    soon(second).await.unwrap().unwrap();
    assert_eq!(soon(server.peers.recv()).await.unwrap().svid.id.workload(), Some("operator"));
}

#[tokio::test]
async fn a_stop_ends_accepting_and_keeps_connections() {
    let ca = TestCa::new("drystone.test");
    let server = Echo::start(&ca).await;
    let mut stream = call(server.address, dialling_auth(&ca, "edge")).await.unwrap();
    let mut half_way = TcpStream::connect(server.address).await.unwrap();
    server.stop.cancel();
    soon(server.ended).await.unwrap();
    speak(&mut stream).await.unwrap();
    assert_eq!(soon(half_way.read(&mut [0])).await.unwrap_or_default(), 0, "a handshake under way is dropped");
    TcpStream::connect(server.address).await.unwrap_err();
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_old_ones_stay_open() {
    let ca = TestCa::new("drystone.test");
    let server = Echo::start(&ca).await;
    let dialling = dialling_auth(&ca, "edge");
    let shown = |stream: &Dialled| stream.get_ref().1.peer_certificates().unwrap()[0].clone();

    let mut before = call(server.address, dialling.clone()).await.unwrap();
    let renewed = ca.leaf("auth", |_| {});
    server.replace(&renewed, &[&ca]);
    let after = call(server.address, dialling).await.unwrap();

    assert_eq!(shown(&after), *renewed.der());
    assert_ne!(shown(&before), shown(&after));
    speak(&mut before).await.unwrap();
}

/// Old roots, then both, then new: each end changes when it comes to it, and no call fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_rotate_without_a_failed_connection() {
    let (old, new) = (TestCa::new("drystone.test"), TestCa::new("drystone.test"));
    let mut server = Echo::start(&old).await;
    let edge = identity(&old.leaf("edge", |_| {}), &[&old]);
    let auth = SpiffeId::for_workload(&old.domain, "auth").unwrap();

    let (made, mut calls) = watch::channel(0_u64);
    let made = Arc::new(made);
    let stop = CancellationToken::new();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (edge, auth, made, stop, address) =
                (edge.clone(), auth.clone(), made.clone(), stop.clone(), server.address);
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    call(address, edge.client_config(&auth).unwrap()).await?;
                    made.send_modify(|made| *made += 1);
                }
                io::Result::Ok(())
            })
        })
        .collect();
    // Enough for every caller to have started and completed a call since.
    let mut more_calls = async || {
        let target = *calls.borrow() + 20;
        soon(calls.wait_for(|made| *made >= target)).await.map(drop).expect("the callers have failed");
    };

    let both = [&old, &new];
    more_calls().await;
    server.replace(&old.leaf("auth", |_| {}), &both);
    more_calls().await;
    replace(&edge, &old.leaf("edge", |_| {}), &both);
    more_calls().await;
    server.replace(&new.leaf("auth", |_| {}), &both);
    more_calls().await;
    replace(&edge, &new.leaf("edge", |_| {}), &both);
    more_calls().await;
    server.replace(&new.leaf("auth", |_| {}), &[&new]);
    more_calls().await;
    replace(&edge, &new.leaf("edge", |_| {}), &[&new]);
    more_calls().await;

    stop.cancel();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
    assert!(server.refusals.try_recv().is_err(), "no handshake was refused");

    // The old root has lost its say.
    call(server.address, dialling_blindly(Some(&old.leaf("edge", |_| {})))).await.unwrap_err();
    assert_eq!(server.failure().await, HandshakeFailure::UnknownIssuer);
}
