//! TLS of the services.

use std::{collections::BTreeSet, fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use drystone::user::v1::{GetMeRequest, user_service_client::UserServiceClient};
use drystone_tests::{
    Mesh, User,
    certs::{LeafParams, TRUST_DOMAIN},
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
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

fn config(mesh: &Mesh, workload: &str, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    mesh.certificates().client_config(Some(mesh.certificates().of(workload)), versions)
}

async fn connect(mesh: &Mesh, service: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(mesh.grpc_address(service)).await?;
    let name = ServerName::try_from(service.to_owned()).unwrap();
    TlsConnector::from(config).connect(name, stream).await
}

/// Reads the first byte of the server, so that everything it sends right after the handshake has been received.
async fn read_first_byte(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    // The HTTP/2 preface and an empty SETTINGS frame.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    stream.flush().await?;
    stream.read_u8().await.map(drop)
}

#[tokio::test]
async fn only_tls_1_3_is_negotiated() {
    let mesh = Mesh::start();
    for service in services() {
        let mut stream = connect(&mesh, service, config(&mesh, "operator", &[&TLS13, &TLS12])).await.unwrap();
        read_first_byte(&mut stream).await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));

        let old = connect(&mesh, service, config(&mesh, "operator", &[&TLS12])).await;
        assert!(old.is_err(), "{service} negotiates TLS 1.2");
    }
    wait::until("the refused handshakes are counted", async || {
        let refused = mesh.metrics().await.sum("drystone_handshakes_refused_total", &[("reason", "protocol")]);
        (refused > 3.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_tls_session_is_resumed() {
    let mesh = Mesh::shared();
    for service in services() {
        // One configuration for all connections, which stores tickets.
        let config = config(mesh, "operator", &[&TLS13]);
        for _ in 0..3 {
            let mut stream = connect(mesh, service, config.clone()).await.unwrap();
            read_first_byte(&mut stream).await.unwrap();
            let (_, connection) = stream.get_ref();
            // A HelloRetryRequest is no resumption.
            let kind = connection.handshake_kind();
            assert!(kind != Some(HandshakeKind::Resumed) && kind.is_some(), "{kind:?}");
            assert_eq!(connection.tls13_tickets_received(), 0, "{service} issues tickets");
        }
    }
}

#[tokio::test]
async fn each_service_presents_a_valid_svid() {
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
        // BoringSSL treats a certificate whose issuer equals its subject as self-signed.
        assert_ne!(certificate.subject(), certificate.issuer());
        let validity = certificate.validity();
        let hours = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 3600;
        assert!((23..=25).contains(&hours), "valid for {hours} hours");
    }
}

#[tokio::test]
async fn non_tls_traffic_is_rejected() {
    let mesh = Mesh::start();
    let address = mesh.grpc_address("user");
    for bytes in
        [&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 2000], &[0xff; 2000]]
    {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _may_be_reset = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 100, "{answer:?}");
    }
    wait::until("the refused connections are counted", async || {
        let labels = [("service", "user"), ("reason", "protocol")];
        (mesh.metrics().await.sum("drystone_handshakes_refused_total", &labels) > 3.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn incomplete_handshakes_do_not_delay_other_clients() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    // Connections that never start their handshake, and some that never complete it.
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
async fn calls_fail_once_the_client_certificate_expires_on_an_open_connection() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let leaf = LeafParams { validity: (-60, 4), ..LeafParams::of(TRUST_DOMAIN, "edge") };
    let [short_lived, short_lived_again] = [0, 1].map(|_| mesh.certificates().authority().issue(&leaf));
    let mut users = UserServiceClient::new(mesh.channel_with("user", Some(short_lived)));
    users.get_me(with_token(GetMeRequest {}, &tokens.access)).await.unwrap();
    let mut watching = HealthClient::new(mesh.channel_with("user", Some(short_lived_again)));
    let request = HealthCheckRequest { service: String::new() };
    let mut stream = watching.watch(request).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let refused = wait::until("the certificate has expired", async || {
        users.clone().get_me(with_token(GetMeRequest {}, &tokens.access)).await.err()
    });
    // On the open connection, or in the handshake of the next one.
    let refused = refused.await;
    let reason = drystone_tests::grpc::reason(&refused);
    assert!(matches!(reason, None | Some(drystone::Reason::CallerExpired)), "{refused:?}");
    // Its open streams end as well.
    let end = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                end => return end,
            }
        }
    });
    assert!(end.await.expect("the stream ends").is_err(), "and not as if it was complete");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn private_keys_and_databases_have_mode_0600() {
    let mesh = Mesh::shared();
    User::signed_in(mesh).await;
    let certificates = mesh.certificates();
    let workloads: BTreeSet<&str> = certificates.workloads().collect();
    assert_eq!(
        workloads,
        drystone_tests::workloads().into_iter().collect::<BTreeSet<_>>(),
        "a certificate for every workload name"
    );
    for workload in workloads {
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
