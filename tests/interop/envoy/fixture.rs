//! A service of another team behind Envoy, which records what reaches it: streams, headers and errors.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use drystone::{
    Reason,
    contract::Factors,
    status::{self, StepUp},
};
use drystone_tests::{
    Envoy, Home, Mesh,
    binary::repository,
    certs::{LeafParams, TRUST_DOMAIN},
    fixture,
    grpc::{call_raw, stream_raw},
    mock_service::{MockResponse, MockService},
    process, readme, unique_email, wait,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Streaming,
    transport::{Channel, Endpoint},
};

const CHAT: &str = "/acme.fixture.v1.FixtureService/Chat";
const WATCH: &str = "/acme.fixture.v1.FixtureService/Watch";

/// Encoded messages with the texts `one` and `two`.
const ONE: &[u8] = b"\x0a\x03one";
const TWO: &[u8] = b"\x0a\x03two";

/// A mesh, a service with the contract `fixture.proto`, and Envoy in front of both.
struct Behind {
    service: MockService,
    envoy: Envoy,
    mesh: Mesh,
    home: Home,
}

impl Behind {
    async fn start(response: MockResponse) -> Self {
        Self::with_tls(response, false).await
    }

    async fn with_tls(response: MockResponse, has_tls: bool) -> Self {
        Self::with_identity("fixture", response, has_tls).await
    }

    /// The service has the certificate of this workload.
    async fn with_identity(workload: &str, response: MockResponse, has_tls: bool) -> Self {
        let (mesh, home) = (Mesh::start(), Home::new());
        let authority = mesh.certificates().authority();
        let leaf = LeafParams::of(TRUST_DOMAIN, workload);
        let service = MockService::start_with_response(authority.issue(&leaf), response).await;
        let contract = home.path().join("fixture.binpb");
        fs::write(&contract, fixture::descriptor_set()).unwrap();
        let mut settings = vec![
            ("contracts", json!([contract]).to_string()),
            ("peers.fixture", service.address().to_string()),
            ("limits.requests_per_minute", "0".to_owned()),
            ("limits.registration_per_minute", "0".to_owned()),
            ("limits.password_reset_per_minute", "0".to_owned()),
            ("limits.email_per_minute", "0".to_owned()),
            ("limits.factor_per_minute", "0".to_owned()),
        ];
        if has_tls {
            authority.issue_in(home.path(), "tls", &leaf);
            let file = |name: &str| home.path().join(name).display().to_string();
            settings.extend([("envoy.certificate", file("tls.pem")), ("envoy.key", file("tls.key"))]);
        }
        let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let envoy = Envoy::of(&mesh, &settings).await;
        Self { service, envoy, mesh, home }
    }

    fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.envoy.address)).unwrap().connect_lazy()
    }

    /// How often Envoy has checked the health of the service.
    async fn health_checks(&self) -> u64 {
        let stats = self.envoy.admin.get("/stats?filter=cluster.fixture.health_check.attempt").send().await.text();
        stats.trim().rsplit_once(": ").and_then(|(_, count)| count.parse().ok()).unwrap_or_default()
    }
}

async fn next_two(stream: &mut Streaming<Vec<u8>>) -> [Option<Vec<u8>>; 2] {
    [stream.message().await.unwrap(), stream.message().await.unwrap()]
}

#[tokio::test]
async fn a_stream_passes_message_by_message_for_longer_than_a_deadline() {
    let behind = Behind::start(MockResponse::Echo).await;
    for path in [CHAT, WATCH] {
        let (sender, receiver) = mpsc::channel(1);
        sender.send(ONE.to_vec()).await.unwrap();
        let mut stream = stream_raw(behind.channel(), path, ReceiverStream::new(receiver)).await.unwrap();
        assert_eq!(next_two(&mut stream).await, [Some(ONE.to_vec()), Some(ONE.to_vec())]);
        // Envoy checks every two seconds. The deadline of a unary RPC with the policy of `Watch` would be 1.1 s later.
        let before = behind.health_checks().await;
        wait::until("Envoy checks health twice", async || (behind.health_checks().await >= before + 2).then_some(()))
            .await;
        sender.send(TWO.to_vec()).await.unwrap();
        assert_eq!(next_two(&mut stream).await, [Some(TWO.to_vec()), Some(TWO.to_vec())]);
        drop(sender);
        assert_eq!(stream.message().await.unwrap(), None);
    }
}

/// Connect's client for Node.js, with the exported descriptor set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_web_client_signs_in_reads_a_stream_and_the_reason_of_a_refusal() {
    let behind = Behind::start(MockResponse::Echo).await;
    let email = unique_email();
    let mut client = Command::new("node");
    client.arg(repository().join("tests/clients/grpc-web.mjs")).arg(format!("http://{}", behind.envoy.address));
    client.arg(behind.envoy.directory.join("drystone.binpb")).arg(&email);
    client.env("NODE_PACKAGES", repository().join("target/npm"));
    let output = process::run_to_end(&mut client);
    assert!(output.status.success(), "run scripts/setup first: {output:?}");
    let found: Value = serde_json::from_str(&output.stdout).unwrap();
    let expected =
        json!({"stream": ["one", "one"], "email": email, "code": "Unauthenticated", "reason": "TOKEN_MISSING"});
    assert_eq!(found, expected);
}

/// grpcio, over TLS without a client certificate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_without_a_certificate_signs_in_and_streams() {
    let behind = Behind::with_tls(MockResponse::Echo, true).await;
    let output = readme::run(&readme::section("python-client"), behind.home.path());
    assert!(output.status.success(), "{output:?}");
    let mut client = Command::new(readme::tool("python"));
    client.arg(repository().join("tests/clients/ingress.py")).arg(behind.envoy.address.to_string());
    client.arg(behind.mesh.certificates().ca());
    client.env("PYTHONPATH", readme::generated_python(behind.home.path())).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(client.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "all checks passed\n");
    // It has given up its last stream, and holds the connection.
    wait::until("the service sees the end", async || (behind.service.open_streams() == 0).then_some(())).await;
    drop(client.stdin.take());
    assert!(client.wait().unwrap().success());
}

#[tokio::test]
async fn a_server_with_the_identity_of_another_service_is_not_called() {
    let response = MockResponse::Unary(Ok(bytes::Bytes::new()));
    let behind = Behind::with_identity("property", response, false).await;
    let answer = behind.envoy.rest().get("/v1/things/one").send().await;
    answer.refused(Reason::Unavailable);
    assert!(behind.service.calls().is_empty());
}

#[tokio::test]
async fn only_idempotent_calls_are_tried_again() {
    let error = status::new(Reason::Unavailable, "starting", Vec::new(), None);
    let behind = Behind::start(MockResponse::Unary(Err(error))).await;
    behind.envoy.rest().post("/v1/things", json!({})).send().await.expect(503);
    assert_eq!(behind.service.calls().len(), 1, "Create may have begun");
    behind.envoy.rest().get("/v1/things/one").send().await.expect(503);
    assert!(behind.service.calls().len() > 2, "Get is tried again");
}

/// What a service trusts because an entry point says it, a client cannot say.
#[tokio::test]
async fn metadata_of_entry_points_is_removed_from_what_clients_send() {
    let behind = Behind::start(MockResponse::Unary(Ok(bytes::Bytes::new()))).await;
    let forged = [
        ("x-drystone-client-address", "192.0.2.66"),
        ("X-Drystone-Client-Agent", "forged"),
        ("x-drystone-anything", "forged"),
        ("x-forwarded-client-cert", "URI=spiffe://drystone.local/service/operator"),
        ("x-user-id", "forged"),
        ("x-user-roles", "forged"),
        ("x-user-permissions", "forged"),
        ("user-agent", "an agent"),
    ];
    let rest = forged
        .into_iter()
        .fold(behind.envoy.rest().get("/v1/things/one"), |call, (name, value)| call.header(name, value));
    rest.send().await.expect(200);
    let mut grpc = Request::new(Vec::new());
    for (name, value) in forged {
        let name: tonic::metadata::MetadataKey<_> = name.to_ascii_lowercase().parse().unwrap();
        grpc.metadata_mut().insert(name, value.parse().unwrap());
    }
    call_raw(behind.channel(), "/acme.fixture.v1.FixtureService/Get", grpc, false).await.unwrap();

    let calls = behind.service.calls();
    assert_eq!(calls.len(), 2);
    for call in calls {
        let seen = |name: &str| call.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(seen("x-drystone-client-address"), Some("127.0.0.1"));
        assert!(seen("x-drystone-client-agent").is_some_and(|agent| agent.contains("an agent")), "{:?}", call.headers);
        let text = format!("{:?}", call.headers);
        assert!(!text.contains("forged") && !text.contains("operator") && !text.contains("192.0.2.66"), "{text}");
    }
}

/// Envoy derives the status of a response from the gRPC code, and passes on the headers that a service sends with an error.
#[tokio::test]
async fn errors_have_the_status_and_headers_of_the_edge_but_for_six_reasons() {
    let behind = Behind::start(MockResponse::Echo).await;
    let mut differing = Vec::new();
    for reason in Reason::ALL {
        let error = status::new(*reason, "some message", Vec::new(), Some(Duration::from_millis(2100)));
        behind.service.respond_with(MockResponse::Unary(Err(error)));
        // Not idempotent, so that Envoy does not try again.
        let answer = behind.envoy.rest().post("/v1/things", json!({})).send().await;
        assert_eq!(answer.reason(), reason.name(), "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "3", "{}", reason.name());
        let challenge =
            if reason.http() == 401 { status::challenge(Some(*reason), StepUp::default()) } else { "".into() };
        assert_eq!(answer.header("www-authenticate"), challenge, "{}", reason.name());
        if answer.status != reason.http() {
            differing.push((reason.name(), answer.status));
        }
    }
    // What the edge itself answers never comes from a service, except the full disk.
    let expected = [
        ("BODY_TOO_LARGE", 400),
        ("BODY_TOO_SLOW", 504),
        ("UNSUPPORTED_MEDIA_TYPE", 400),
        ("METHOD_NOT_ALLOWED", 501),
        ("METHOD_UNKNOWN", 501),
        ("DATABASE_FULL", 429),
    ];
    assert_eq!(differing, expected);
}

#[tokio::test]
async fn a_step_up_challenge_is_passed_on() {
    let step_up = StepUp::new(Some(Duration::from_mins(10)), Some(Factors::Two));
    let error = status::with_step_up(Reason::FactorsRequired, "two factors", Vec::new(), None, step_up);
    let behind = Behind::start(MockResponse::Unary(Err(error))).await;
    let answer = behind.envoy.rest().post("/v1/things", json!({})).send().await;
    assert_eq!((answer.status, answer.reason().as_str()), (401, "FACTORS_REQUIRED"));
    assert_eq!(answer.header("www-authenticate"), status::challenge(Some(Reason::FactorsRequired), step_up));
}
