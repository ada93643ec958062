//! Sends messages through real sockets.

pub(crate) mod receiver;

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use drystone_mesh::config::Secret;

use self::receiver::{Certificate, Receiver, Reply};
use super::{destination::Resolving, *};

const HOST: &str = "hooks.test";
const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="];
const ID: Uuid = Uuid::from_u128(0x019a_3a1e_6c00_7000_8000_0000_0000_0001);

/// Short, for receivers that do not answer.
const SHORT: Limits =
    Limits { step: Duration::from_secs(5), response: Duration::from_millis(300), drain: Duration::from_millis(50) };

/// Answers with these addresses one after another, and with the last one again and again.
#[derive(Debug)]
struct Answers {
    answers: Mutex<Vec<SocketAddr>>,
    calls: AtomicUsize,
}

impl Answers {
    fn new(answers: impl Into<Vec<SocketAddr>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into()), calls: AtomicUsize::new(0) })
    }
}

impl Resolve for Answers {
    fn resolve<'a>(&'a self, name: &'a str, _port: u16) -> Resolving<'a> {
        assert_eq!(name, HOST);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0] };
        Box::pin(std::future::ready(Ok(vec![answer])))
    }
}

fn now() -> DateTime<Utc> {
    "2026-10-31T12:00:00.123456Z".parse().unwrap()
}

fn config(url: &str) -> EndpointConfig {
    EndpointConfig {
        name: "crm".to_owned(),
        url: url.to_owned(),
        secrets: vec![Secret::from(SECRETS[0].to_owned())],
        allow_private: true,
        ..EndpointConfig::default()
    }
}

/// An endpoint by the name [`HOST`], at this receiver.
fn endpoint(receiver: &Receiver, certificate: &Certificate) -> Webhook {
    let port = receiver.address.port();
    let config = EndpointConfig {
        ca: certificate.ca.path().to_owned(),
        ..config(&format!("https://{HOST}:{port}/hooks?from=drystone"))
    };
    Webhook::with_resolver(&config, Answers::new([receiver.address])).unwrap()
}

fn body() -> Bytes {
    payload("new_device", now(), Map::from_iter([("user".to_owned(), Value::from("Zoë"))]))
}

/// The result of a call to a receiver with this reply.
async fn outcome(reply: Reply) -> Result<(), SendError> {
    let receiver = Receiver::plain(reply).await;
    let mut webhook = Webhook::new(&config(&format!("http://{}/", receiver.address))).unwrap();
    webhook.limits = SHORT;
    let result = webhook.send(ID, now(), body()).await;
    assert_eq!(receiver.requests().len(), 1);
    result
}

#[tokio::test]
async fn a_message_is_a_signed_post() {
    let certificate = Certificate::new(HOST);
    let receiver = Receiver::start(Reply::status("204 No Content"), &certificate).await;
    let webhook = endpoint(&receiver, &certificate);
    // The service attempts deliveries in tasks.
    tokio::spawn(async move { webhook.send(ID, now(), body()).await }).await.unwrap().unwrap();

    let requests = receiver.requests();
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(request.line, "POST /hooks?from=drystone HTTP/1.1");
    for (name, value) in [
        ("host", format!("{HOST}:{}", receiver.address.port())),
        ("content-type", "application/json".to_owned()),
        ("user-agent", "drystone".to_owned()),
        ("connection", "close".to_owned()),
        ("webhook-id", ID.to_string()),
        ("webhook-timestamp", "1793448000".to_owned()),
        ("content-length", body().len().to_string()),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    assert_eq!(request.headers.len(), 8);
    assert_eq!(request.body, body());
    assert!(request.is_signed_with(SECRETS[0]));
    assert!(!request.is_signed_with(SECRETS[1]));
    let mut changed = request.clone();
    changed.body[0] ^= 1;
    assert!(!changed.is_signed_with(SECRETS[0]));
}

#[tokio::test]
async fn while_a_secret_is_rotated_a_receiver_may_have_either() {
    let receiver = Receiver::plain(Reply::status("200 OK")).await;
    let mut config = config(&format!("http://{}/", receiver.address));
    config.secrets = SECRETS.map(|secret| Secret::from(secret.to_owned())).to_vec();
    Webhook::new(&config).unwrap().send(ID, now(), body()).await.unwrap();
    assert!(SECRETS.iter().all(|secret| receiver.requests()[0].is_signed_with(secret)));
}

#[test]
fn a_payload_has_a_type_a_timestamp_and_data() {
    let json: Value = serde_json::from_slice(&body()).unwrap();
    let expected = serde_json::json!({
        "type": "new_device",
        "timestamp": "2026-10-31T12:00:00.123456Z",
        "data": {"user": "Zoë"},
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn the_status_decides() {
    for good in ["200 OK", "202 Accepted", "299 Good"] {
        outcome(Reply::status(good)).await.unwrap();
    }
    for failed in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Internal Server Error", "101 Switching"]
    {
        let error = outcome(Reply::status(failed)).await.unwrap_err();
        let SendError::Temporary { text, retry_after: None } = error else { panic!("{error:?}") };
        assert!(text.starts_with(&format!("127.0.0.1 responded with {}", &failed[..3])), "{text}");
    }
    assert!(matches!(outcome(Reply::status("410 Gone")).await, Err(SendError::Permanent(_))));
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    for (line, retry_after) in [
        ("429 Too Many Requests\r\nretry-after: 7", Some(7)),
        ("503 Service Unavailable\r\nretry-after: Sat, 31 Oct 2026 12:01:00 GMT", Some(59)),
        ("503 Service Unavailable\r\nretry-after: 86400", Some(3600)),
        ("503 Service Unavailable", None),
        ("500 Internal Server Error\r\nretry-after: 7", None),
    ] {
        let error = outcome(Reply::status(line)).await.unwrap_err();
        let SendError::Temporary { retry_after: actual, .. } = error else { panic!("{error:?}") };
        assert_eq!(actual.map(|wait| wait.as_secs()), retry_after, "{line}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Receiver::plain(Reply::status("200 OK")).await;
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let location = format!("{status}\r\nlocation: http://{}/", other.address);
        let error = outcome(Reply::status(&location)).await.unwrap_err();
        let SendError::Temporary { text, retry_after: None } = error else { panic!("{error:?}") };
        assert!(text.ends_with("set notification.webhooks.url of `crm` to the final URL"), "{text}");
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_body_is_not_waited_for() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0".to_vec();
    outcome(Reply::Hang(head.clone())).await.unwrap();
    // The connection fails within the body.
    outcome(Reply::Bytes(head)).await.unwrap();
    outcome(Reply::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz".to_vec())).await.unwrap();
    // The same with a failure.
    let error = outcome(Reply::Hang(b"HTTP/1.1 500 No\r\ncontent-length: 10\r\n\r\n".to_vec())).await.unwrap_err();
    assert!(matches!(error, SendError::Temporary { .. }), "{error:?}");
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let certificate = Certificate::new(HOST);
    let receiver = Receiver::start(Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()), &certificate).await;
    let mut webhook = endpoint(&receiver, &certificate);
    // Longer than the test may run: the size ends it.
    webhook.limits.drain = Duration::from_secs(30);
    webhook.send(ID, now(), body()).await.unwrap();
    let written = loop {
        if let Some(written) = *receiver.endless.lock().unwrap() {
            break written;
        }
        tokio::task::yield_now().await;
    };
    // What was read, and what the buffers of the sockets hold.
    assert!((64 * 1024..64 * 1024 * 1024).contains(&written), "{written}");
}

#[tokio::test]
async fn a_receiver_without_a_response_is_unreachable() {
    for (reply, text) in [
        (Reply::Bytes(Vec::new()), "connection failed"),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-".to_vec()), "connection failed"),
        (Reply::Hang(Vec::new()), "does not respond in time"),
        (Reply::Hang(b"HTTP/1.1 200 OK\r\n".to_vec()), "does not respond in time"),
        (Reply::Endless(b"HTTP/1.1 200 OK\r\nx: ".to_vec()), "16 KiB"),
        (Reply::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), "not valid HTTP/1.1"),
    ] {
        let error = outcome(reply).await.unwrap_err();
        let SendError::Unreachable(error) = error else { panic!("{error:?}") };
        assert!(error.starts_with("127.0.0.1: ") && error.contains(text), "{error}");
    }
    let headers = |count| "x: y\r\n".repeat(count);
    let with_headers =
        |headers: String| outcome(Reply::Bytes(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes()));
    with_headers(headers(64)).await.unwrap();
    assert!(matches!(with_headers(headers(65)).await, Err(SendError::Unreachable(_))));
    let one = |size| format!("x: {}\r\n", "y".repeat(size));
    with_headers(one(16_000)).await.unwrap();
    assert!(matches!(with_headers(one(16 * 1024)).await, Err(SendError::Unreachable(_))));
}

#[tokio::test]
async fn a_server_without_a_tls_handshake_is_unreachable_within_the_limit_of_the_attempt() {
    let receiver = Receiver::plain(Reply::status("200 OK")).await;
    let mut webhook = Webhook::new(&config(&format!("https://{}/", receiver.address))).unwrap();
    webhook.limits = Limits { step: Duration::from_mins(10), ..SHORT };
    let error = webhook.send(ID, now(), body()).await.unwrap_err();
    assert_eq!(error, SendError::Unreachable("127.0.0.1: it does not respond in time".to_owned()));
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let address = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let webhook = Webhook::new(&config(&format!("http://{address}/"))).unwrap();
    let error = webhook.send(ID, now(), body()).await.unwrap_err();
    assert!(matches!(error, SendError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_certificate_is_verified_for_the_host() {
    let (right, other) = (Certificate::new(HOST), Certificate::new("other.test"));
    let self_signed = Receiver::start(Reply::status("200 OK"), &Certificate::new(HOST)).await;
    let misnamed = Receiver::start(Reply::status("200 OK"), &other).await;
    for webhook in [endpoint(&self_signed, &right), endpoint(&misnamed, &other)] {
        let error = webhook.send(ID, now(), body()).await.unwrap_err();
        let SendError::Unreachable(text) = error else { panic!("{error:?}") };
        assert!(text.starts_with("hooks.test: the TLS handshake failed: invalid peer certificate"), "{text}");
    }
    assert!(self_signed.requests().is_empty() && misnamed.requests().is_empty());

    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let receiver = Receiver::with_version(version, &right).await;
        endpoint(&receiver, &right).send(ID, now(), body()).await.unwrap();
    }
}

#[tokio::test]
async fn an_attempt_resolves_once_and_connects_to_the_answer() {
    let first = Receiver::plain(Reply::status("200 OK")).await;
    let second = Receiver::plain_at(&format!("127.0.0.2:{}", first.address.port()), Reply::status("200 OK")).await;
    let config = config(&format!("http://{HOST}:{}/", first.address.port()));
    let resolver = Answers::new([first.address, second.address]);
    let webhook = Webhook::with_resolver(&config, resolver.clone()).unwrap();
    webhook.send(ID, now(), body()).await.unwrap();
    assert_eq!(resolver.calls.load(Ordering::SeqCst), 1);
    assert_eq!((first.connections(), second.connections()), (1, 0));
}

#[tokio::test]
async fn a_name_with_a_private_address_is_not_connected_to() {
    let receiver = Receiver::plain(Reply::status("200 OK")).await;
    let config = EndpointConfig { allow_private: false, ..config(&format!("https://{HOST}/")) };
    let webhook = Webhook::with_resolver(&config, Answers::new([receiver.address])).unwrap();
    let error = webhook.send(ID, now(), body()).await.unwrap_err();
    assert!(matches!(&error, SendError::Temporary { text, .. } if text.starts_with(HOST)), "{error:?}");
    assert_eq!(receiver.connections(), 0);
}

#[test]
fn a_webhook_is_shown_without_its_secrets_and_its_path() {
    let config = config("https://hooks.test/hooks?token=t0k3n");
    let shown = format!("{:?}", Webhook::new(&config).unwrap());
    assert!(shown.contains(HOST) && !shown.contains("t0k3n") && !shown.contains("whsec_"), "{shown}");
}

#[test]
fn a_ca_file_is_read_at_the_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let with_ca = |ca: &std::path::Path| {
        Webhook::new(&EndpointConfig { ca: ca.to_owned(), ..config("https://hooks.test/") }).unwrap_err()
    };
    assert!(with_ca(file.path()).contains("has no certificate"));
    let missing = with_ca(std::path::Path::new("/nowhere/ca.pem"));
    assert!(missing.contains("/nowhere/ca.pem cannot be read"), "{missing}");
}
