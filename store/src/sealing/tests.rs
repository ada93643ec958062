//! Sealing with master keys, and with a double of Vault's transit engine.

use std::{collections::BTreeMap, net::SocketAddr, sync::Mutex};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::Db;

const MIGRATIONS: &[Migration] = &[migration(1)];

const PLACE: Place<'static> = Place { table: "secret", row: b"refresh", column: "value" };

/// A key of these bytes, as a line of a key file.
fn line(id: &str, byte: u8) -> String {
    format!("{id} {}\n", BASE64_STANDARD.encode([byte; 32]))
}

fn sealer(lines: &[String]) -> Sealer {
    Sealer::new(Arc::new(MasterKeys::parse(&lines.concat()).unwrap()))
}

#[tokio::test]
async fn a_value_opens_at_its_place_only() {
    let sealer = sealer(&[line("k1", 1)]);
    let value = sealer.seal(PLACE, b"a secret").await.unwrap();
    assert_eq!(value.key_id, "k1");
    assert!(!value.envelope.windows(8).any(|window| window == b"a secret"));
    assert_eq!(sealer.open(PLACE, &value.envelope).await.unwrap().as_slice(), b"a secret");
    for place in [
        Place { table: "other", ..PLACE },
        Place { row: b"other", ..PLACE },
        Place { column: "other", ..PLACE },
        // The same bytes, divided in another way.
        Place { table: "secre", row: b"trefresh", column: "value" },
    ] {
        assert!(matches!(sealer.open(place, &value.envelope).await, Err(SealError::Invalid(_))), "{place:?}");
    }
    // An empty value is one, too.
    let empty = sealer.seal(PLACE, b"").await.unwrap();
    assert!(sealer.open(PLACE, &empty.envelope).await.unwrap().is_empty());
    assert_ne!(sealer.seal(PLACE, b"a secret").await.unwrap(), value, "each value has a key and a nonce of its own");
}

#[tokio::test]
async fn a_changed_byte_is_noticed() {
    let sealer = sealer(&[line("k1", 1)]);
    let value = sealer.seal(PLACE, b"a secret").await.unwrap();
    for index in 0..value.envelope.len() {
        let mut changed = value.envelope.clone();
        changed[index] ^= 1;
        assert!(sealer.open(PLACE, &changed).await.is_err(), "byte {index}");
    }
    for length in 0..value.envelope.len() {
        assert!(sealer.open(PLACE, &value.envelope[..length]).await.is_err(), "{length} bytes");
    }
}

#[tokio::test]
async fn an_earlier_master_key_opens_until_values_are_rewrapped() {
    let old = sealer(&[line("k1", 1)]);
    let value = old.seal(PLACE, b"a secret").await.unwrap();
    let both = sealer(&[line("k2", 2), line("k1", 1)]);
    assert_eq!(both.open(PLACE, &value.envelope).await.unwrap().as_slice(), b"a secret");
    let rewrapped = both.rewrap(PLACE, &value.envelope).await.unwrap();
    assert_eq!(rewrapped.key_id, "k2");
    let new = sealer(&[line("k2", 2)]);
    assert_eq!(new.open(PLACE, &rewrapped.envelope).await.unwrap().as_slice(), b"a secret");
    let missing = new.open(PLACE, &value.envelope).await.unwrap_err();
    assert!(missing.to_string().contains("`k1` is missing"), "{missing}");
    // The same id does not make it the same key.
    let wrong = sealer(&[line("k1", 9)]).open(PLACE, &value.envelope).await.unwrap_err();
    assert!(matches!(wrong, SealError::Invalid(_)), "{wrong}");
}

#[tokio::test]
async fn a_key_file_is_read_anew_for_a_key_that_it_did_not_have() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("master.key");
    let write = |lines: &[String]| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(&path, lines.concat()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&[line("k1", 1)]);
    let file = Sealer::new(Arc::new(MasterKeyFile::open(&path).unwrap()));
    let value = sealer(&[line("k2", 2)]).seal(PLACE, b"a secret").await.unwrap();
    assert!(file.open(PLACE, &value.envelope).await.is_err());
    write(&[line("k2", 2), line("k1", 1)]);
    assert_eq!(file.key_id(), "k1");
    assert_eq!(file.open(PLACE, &value.envelope).await.unwrap().as_slice(), b"a secret");
    assert_eq!(file.key_id(), "k2");
    // A key that the file lost still opens what is not rewrapped; one that has changed is refused.
    write(&[line("k3", 3)]);
    file.refresh().await.unwrap();
    let rewrapped = file.rewrap(PLACE, &value.envelope).await.unwrap();
    assert_eq!(rewrapped.key_id, "k3");
    write(&[line("k3", 4)]);
    let changed = file.refresh().await.unwrap_err().to_string();
    assert!(changed.starts_with("the master key `k3` has other bytes"), "{changed}");
    // What cannot be read changes nothing.
    write(&["broken".to_owned()]);
    assert!(matches!(file.refresh().await, Err(SealError::KeyFile(_))));
    assert_eq!(file.open(PLACE, &value.envelope).await.unwrap().as_slice(), b"a secret");
}

#[tokio::test]
async fn a_database_is_refused_with_another_master_key() {
    let directory = tempfile::tempdir().unwrap();
    let db = Db::open(&directory.path().join("test.db"), MIGRATIONS).await.unwrap();
    assert!(!is_in_use(&db).await.unwrap());
    check(&db, &sealer(&[line("k1", 1)])).await.unwrap();
    assert!(is_in_use(&db).await.unwrap());
    check(&db, &sealer(&[line("k1", 1)])).await.unwrap();
    let both = sealer(&[line("k2", 2), line("k1", 1)]);
    check(&db, &both).await.unwrap();
    let missing = check(&db, &sealer(&[line("k2", 2)])).await.unwrap_err().to_string();
    assert!(missing.starts_with("the master key `k1` is missing"), "{missing}");
    let wrong = check(&db, &sealer(&[line("k1", 2)])).await.unwrap_err().to_string();
    assert!(wrong.contains("is not the one that sealed it"), "{wrong}");
    rewrap_check(&db, &both).await.unwrap();
    check(&db, &sealer(&[line("k2", 2)])).await.unwrap();
    let missing = check(&db, &sealer(&[line("k1", 1)])).await.unwrap_err().to_string();
    assert!(missing.starts_with("the master key `k2` is missing"), "{missing}");
}

/// A double of the transit engine, by its documented API: ciphertexts are handles that it remembers with their associated
/// data, as an AEAD would authenticate it.
struct Transit {
    address: SocketAddr,
    state: Arc<Mutex<TransitState>>,
}

#[derive(Default)]
struct TransitState {
    values: BTreeMap<String, (String, String)>,
    calls: Vec<String>,
    /// A status and body instead of an answer.
    failure: Option<(u16, String)>,
}

impl Transit {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<Mutex<TransitState>>::default());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, state }
    }

    fn fail(&self, status: u16, body: &str) {
        self.state.lock().unwrap().failure = Some((status, body.to_owned()));
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<TransitState>>) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if Some(body.len()) == length {
            break (head, body.to_owned());
        }
    };
    let (status, answer) = state.lock().unwrap().answer(&head, &serde_json::from_str(&body).unwrap());
    let response = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
    let _the_client_may_be_gone = stream.write_all(response.as_bytes()).await;
}

impl TransitState {
    fn answer(&mut self, head: &str, body: &Value) -> (u16, String) {
        self.calls.push(head.to_owned());
        if let Some(failure) = self.failure.clone() {
            return failure;
        }
        if !head.contains("x-vault-token: s.token") {
            return (403, json!({"errors": ["permission denied"]}).to_string());
        }
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        let path = head.split(' ').nth(1).unwrap();
        let data = match path {
            "/v1/transit/encrypt/drystone" => {
                let ciphertext = format!("vault:v1:{:08}", self.values.len());
                self.values.insert(ciphertext.clone(), (text("plaintext"), text("associated_data")));
                json!({"ciphertext": ciphertext, "key_version": 1})
            }
            "/v1/transit/decrypt/drystone" => match self.values.get(&text("ciphertext")) {
                Some((plaintext, associated)) if *associated == text("associated_data") => {
                    json!({"plaintext": plaintext})
                }
                _ => return (400, json!({"errors": ["cipher: message authentication failed"]}).to_string()),
            },
            _ => return (404, json!({"errors": []}).to_string()),
        };
        (200, json!({"request_id": "1", "lease_id": "", "renewable": false, "data": data}).to_string())
    }
}

fn vault(transit: &Transit, token_file: &std::path::Path) -> Sealer {
    let config = VaultConfig {
        address: format!("http://{}", transit.address),
        token_file: token_file.to_owned(),
        ..VaultConfig::default()
    };
    Sealer::new(Arc::new(Vault::new(&config).unwrap()))
}

#[tokio::test]
async fn the_transit_engine_of_vault_keeps_the_master_key() {
    let (transit, token) = (Transit::start().await, tempfile::NamedTempFile::new().unwrap());
    std::fs::write(token.path(), "s.token\n").unwrap();
    let sealer = vault(&transit, token.path());
    let value = sealer.seal(PLACE, b"a secret").await.unwrap();
    assert_eq!(value.key_id, "vault:transit/drystone");
    assert_eq!(sealer.open(PLACE, &value.envelope).await.unwrap().as_slice(), b"a secret");
    let moved = sealer.open(Place { row: b"other", ..PLACE }, &value.envelope).await.unwrap_err();
    assert!(matches!(&moved, SealError::Refused(text) if text.contains("authentication failed")), "{moved}");
    // Vault has seen the data key, and never the value.
    let state = transit.state.lock().unwrap();
    assert!(state.calls.iter().all(|head| head.contains("x-vault-request: true")), "{:?}", state.calls);
    assert!(!state.values.values().any(|(plaintext, _)| plaintext.contains(&BASE64_STANDARD.encode("a secret"))));
}

/// A certificate for these names, signed by itself: the PEM file to trust, and a server with it.
fn certificate(names: &[&str]) -> (tempfile::NamedTempFile, TlsAcceptor) {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cert.pem()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    (file, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn vault_is_called_over_tls_and_has_to_prove_its_name() {
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "s.token").unwrap();
    let (of_host, server) = certificate(&["127.0.0.1", "localhost"]);
    let (of_other, other_server) = certificate(&["vault.example.org"]);
    let (transit, other) = (Transit::start_with(Some(server)).await, Transit::start_with(Some(other_server)).await);
    let sealer = |transit: &Transit, host: &str, ca: &std::path::Path| {
        let config = VaultConfig {
            address: format!("https://{host}:{}", transit.address.port()),
            token_file: token.path().to_owned(),
            ca: ca.to_owned(),
            ..VaultConfig::default()
        };
        Sealer::new(Arc::new(Vault::new(&config).unwrap()))
    };
    for host in ["127.0.0.1", "localhost"] {
        let sealer = sealer(&transit, host, of_host.path());
        let value = sealer.seal(PLACE, b"a secret").await.unwrap();
        assert_eq!(sealer.open(PLACE, &value.envelope).await.unwrap().as_slice(), b"a secret");
    }
    // An unknown issuer, and another name.
    for (transit, ca) in [(&transit, &of_other), (&other, &of_other)] {
        let error = sealer(transit, "127.0.0.1", ca.path()).seal(PLACE, b"a secret").await.unwrap_err();
        assert!(matches!(&error, SealError::Unavailable(text) if text.contains("certificate")), "{error}");
    }
    assert!(other.state.lock().unwrap().calls.is_empty(), "nothing is sent to a server of another name");
    // HTTP to a port that speaks TLS.
    assert!(vault(&transit, token.path()).seal(PLACE, b"a secret").await.is_err());
}

#[tokio::test]
async fn a_fault_of_vault_is_named_and_no_secret_is_shown() {
    let (transit, token) = (Transit::start().await, tempfile::NamedTempFile::new().unwrap());
    std::fs::write(token.path(), "s.other").unwrap();
    let sealer = vault(&transit, token.path());
    let denied = sealer.seal(PLACE, b"a secret").await.unwrap_err().to_string();
    assert!(denied.contains("403") && denied.contains("permission denied") && !denied.contains("s.other"), "{denied}");
    // The token is read anew.
    std::fs::write(token.path(), "s.token").unwrap();
    sealer.seal(PLACE, b"a secret").await.unwrap();
    for (status, body) in
        [(503, r#"{"errors":["Vault is sealed"]}"#), (200, "no JSON"), (200, r#"{"data":{}}"#), (500, "")]
    {
        transit.fail(status, body);
        let error = sealer.seal(PLACE, b"a secret").await.unwrap_err();
        assert!(matches!(error, SealError::Unavailable(_)), "{status} {body}: {error}");
    }
    transit.fail(200, &format!(r#"{{"data":{{"ciphertext":"{}"}}}}"#, "x".repeat(100_000)));
    let error = sealer.seal(PLACE, b"a secret").await.unwrap_err();
    assert!(matches!(error, SealError::Unavailable(_)), "a response is bounded: {error}");
    std::fs::remove_file(token.path()).unwrap();
    let error = sealer.seal(PLACE, b"a secret").await.unwrap_err().to_string();
    assert!(error.contains("token file"), "{error}");
}
