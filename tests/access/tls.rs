//! The sockets of the mesh, as TLS sees them.

use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use drystone::user::v1::{GetMeRequest, user_service_client::UserServiceClient};
use drystone_tests::{
    Mesh, User,
    certs::{Leaf, TRUST_DOMAIN},
    grpc::with_token,
    services, wait,
};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

fn config(mesh: &Mesh, workload: &str, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    mesh.certificates().client_config(Some(mesh.certificates().of(workload)), versions)
}

async fn connect(mesh: &Mesh, service: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(mesh.grpc_address(service)).await?;
    let name = ServerName::try_from(service.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// Reads what the server says first, so that whatever it sends after the handshake has come.
async fn hear(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    // The preface of HTTP/2 and empty settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.flush().await?;
    stream.read_u8().await.map(drop)
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let mesh = Mesh::start();
    for service in services() {
        let mut stream = connect(&mesh, service, config(&mesh, "operator", &[&TLS13, &TLS12])).await.unwrap();
        hear(&mut stream).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));

        let old = connect(&mesh, service, config(&mesh, "operator", &[&TLS12])).await;
        assert!(old.is_err(), "{service} speaks TLS 1.2");
    }
    wait::until("the old protocol is counted", async || {
        let refused = mesh.metrics().await.sum("drystone_handshakes_refused_total", &[("reason", "protocol")]);
        (refused > 3.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_session_is_resumed() {
    let mesh = Mesh::shared();
    for service in services() {
        // One configuration for both, which keeps what it needs to resume.
        let config = config(mesh, "operator", &[&TLS13]);
        for _ in 0..3 {
            let mut stream = connect(mesh, service, config.clone()).await.unwrap();
            hear(&mut stream).await.unwrap();
            let (_, connection) = stream.get_ref();
            // Where the first key share was not to the server's liking it asks for another; that is no resumption.
            let kind = connection.handshake_kind();
            assert!(kind != Some(HandshakeKind::Resumed) && kind.is_some(), "{kind:?}");
            assert_eq!(connection.tls13_tickets_received(), 0, "{service} hands out tickets");
        }
    }
}

#[tokio::test]
async fn each_service_proves_who_it_is() {
    let mesh = Mesh::shared();
    for service in services() {
        let stream = connect(mesh, service, config(mesh, "operator", &[&TLS13])).await.unwrap();
        let (_, connection) = stream.get_ref();
        let leaf = &connection.peer_certificates().unwrap()[0];
        let (_, certificate) = X509Certificate::from_der(leaf).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        assert_eq!(uris.collect::<Vec<_>>(), [format!("spiffe://{TRUST_DOMAIN}/service/{service}")]);
        assert!(!certificate.is_ca());
        let usage = certificate.key_usage().unwrap().unwrap();
        assert!(usage.critical && usage.value.digital_signature() && !usage.value.key_cert_sign());
        let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.server_auth && purposes.client_auth);
        // BoringSSL takes a certificate whose issuer has its own name for one that signed itself.
        assert_ne!(certificate.subject(), certificate.issuer());
        let validity = certificate.validity();
        let hours = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 3600;
        assert!((23..=25).contains(&hours), "it lives for {hours} hours");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_turned_away() {
    let mesh = Mesh::start();
    let address = mesh.grpc_address("user");
    for rubbish in
        [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 2000], &[0xff; 2000]]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        let mut answer = Vec::new();
        let _it_may_be_reset = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 100, "{answer:?}");
    }
    wait::until("they are counted", async || {
        let labels = [("service", "user"), ("reason", "protocol")];
        (mesh.metrics().await.sum("drystone_handshakes_refused_total", &labels) > 3.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn those_who_dawdle_keep_nobody_waiting() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    // Connections that never begin their handshake, and some that never end it.
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut stream = TcpStream::connect(mesh.grpc_address("user")).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
        }
        idle.push(stream);
    }
    for _ in 0..10 {
        let mut users = UserServiceClient::new(mesh.channel("user", "edge"));
        users.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap();
    }
    drop(idle);
}

#[tokio::test]
async fn a_certificate_that_ends_during_a_connection_ends_its_calls() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let brief = mesh.certificates().authority().issue(&Leaf { validity: (-60, 3), ..Leaf::of(TRUST_DOMAIN, "edge") });
    let mut users = UserServiceClient::new(mesh.channel_with("user", Some(brief)));
    users.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap();
    let refused = wait::until("the certificate has ended", async || {
        users.clone().get_me(with_token(GetMeRequest {}, &tokens.access)).await.err()
    });
    drystone_tests::grpc::assert_refused(Err::<(), _>(refused.await), drystone::Reason::CallerExpired);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_is_secret_on_disk_is_for_its_owner_alone() {
    let mesh = Mesh::shared();
    User::signed_in(mesh).await;
    let certificates = mesh.certificates();
    let named: BTreeSet<&str> = certificates.workloads().collect();
    assert_eq!(
        named,
        drystone_tests::workloads().into_iter().collect::<BTreeSet<_>>(),
        "a certificate for every workload name"
    );
    for workload in named {
        assert_eq!(mode(&certificates.files_of(workload)[1]), 0o600, "the key of {workload}");
    }
    assert_eq!(mode(&certificates.ca().with_extension("key")), 0o600, "the key of the CA");
    let databases = fs::read_dir(mesh.home().data()).unwrap().map(|entry| entry.unwrap().path());
    let databases: Vec<_> = databases.filter(|path| path.to_string_lossy().contains(".db")).collect();
    assert!(databases.len() >= services().len(), "{databases:?}");
    for database in databases {
        assert_eq!(mode(&database), 0o600, "{}", database.display());
    }
}
