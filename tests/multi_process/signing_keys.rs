//! Signing keys of access tokens, which an operator rotates and withdraws while the mesh serves.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone::{
    Reason,
    contract::{Method, Subject, method::OUTSIDE},
};
use drystone_tests::{
    Mesh, Tokens, User,
    grpc::{assert_refused, call_raw, reason, with_token},
    methods,
    process::{ProcessOutput, drystone, run_to_end},
    services, wait,
};
use serde_json::Value;
use tonic::Status;

/// Runs a command of an operator of this mesh, which succeeds.
fn operator(mesh: &Mesh, command: &[&str]) -> String {
    let output = run(mesh, command);
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

fn run(mesh: &Mesh, command: &[&str]) -> ProcessOutput {
    let mut command = drystone(command);
    command.env("DRYSTONE_CERTS_DIR", mesh.certificates().ca().parent().unwrap());
    run_to_end(command.env("DRYSTONE_PEERS__AUTH", mesh.grpc_address("auth").to_string()))
}

/// The keys with their states, as `keys list` shows them.
fn listed(mesh: &Mesh) -> Vec<(String, String)> {
    let keys: Vec<Value> = serde_json::from_str(&operator(mesh, &["keys", "list", "--json"])).unwrap();
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    keys.iter().map(|key| (text(key, "kid"), text(key, "state"))).collect()
}

/// The text between the first two backticks.
fn quoted(text: &str) -> String {
    text.split('`').nth(1).unwrap_or_else(|| panic!("no kid in: {text}")).to_owned()
}

/// `alg` and `kid` of a token.
fn header(token: &str) -> (String, String) {
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    (header["alg"].as_str().unwrap().to_owned(), header["kid"].as_str().unwrap().to_owned())
}

/// Calls an RPC of this service for users, as the edge does.
async fn call(mesh: &Mesh, service: &str, token: &str) -> Result<Vec<u8>, Status> {
    let is_outside = |method: &Method| method.callers.iter().any(|caller| caller == OUTSIDE);
    let is_for_users =
        |method: &&Method| *method.workload == *service && method.subject == Subject::User && is_outside(method);
    let path = methods().iter().map(|method| &**method).find(is_for_users).unwrap().path.clone();
    call_raw(mesh.channel(service, "edge"), &path, with_token(Vec::new(), token), false).await
}

/// Asserts that every service accepts the token: a call succeeds, or its empty message is invalid.
async fn assert_accepted(mesh: &Mesh, token: &str) {
    for service in services() {
        if let Err(status) = call(mesh, service, token).await {
            assert_eq!(reason(&status), Some(Reason::InvalidRequest), "{service}: {status:?}");
        }
    }
}

/// Calls at the edge until the token is accepted. Nobody is told meanwhile that it is invalid.
async fn until_accepted(mesh: &Mesh, tokens: &Tokens) {
    wait::until("the successor is known", async || {
        let answer = mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await;
        assert!([200, 503].contains(&answer.status), "{answer:?}");
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_key_ends_its_tokens_at_every_service_at_once_and_users_go_on() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let first = header(&tokens.access).1;
    assert_accepted(&mesh, &tokens.access).await;

    let rotated = operator(&mesh, &["keys", "rotate"]);
    assert!(rotated.starts_with("published the key `"), "{rotated}");
    let second = quoted(&rotated);
    let again = operator(&mesh, &["keys", "rotate"]);
    assert!(again.starts_with(&format!("a rotation had begun already: the key `{second}`")), "{again}");
    let states =
        |states: [&str; 2]| vec![(second.clone(), states[0].to_owned()), (first.clone(), states[1].to_owned())];
    assert_eq!(listed(&mesh), states(["published", "signing"]));
    assert_accepted(&mesh, &tokens.access).await;

    // The published key signs at once.
    let withdrawn = operator(&mesh, &["keys", "withdraw", &first]);
    assert!(withdrawn.contains("connected services refuse its tokens now"), "{withdrawn}");
    for service in services() {
        assert_refused(call(&mesh, service, &tokens.access).await, Reason::TokenRevoked);
    }
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
    assert_eq!(listed(&mesh), states(["signing", "withdrawn"]));
    let tokens = tokens.refresh(mesh.rest()).await;
    assert_eq!(header(&tokens.access).1, second);
    until_accepted(&mesh, &tokens).await;

    // There is no other one: a new key signs at once.
    let withdrawn = operator(&mesh, &["keys", "withdraw", &second]);
    let tokens = {
        let refreshed = tokens.refresh(mesh.rest()).await;
        mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
        refreshed
    };
    assert!(withdrawn.contains(&format!("`{}` signs now", header(&tokens.access).1)), "{withdrawn}");
    until_accepted(&mesh, &tokens).await;

    // Also after a restart.
    let published = mesh.rest().get("/.well-known/jwks.json").send().await.expect(200).json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
    let mesh = Mesh::setup().home(mesh.stop()).start();
    assert_eq!(listed(&mesh).len(), 3);

    let unknown = run(&mesh, &["keys", "withdraw", "unknown"]);
    assert!(unknown.stderr.contains("SIGNING_KEY_NOT_FOUND"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_of_several_algorithms_are_valid_side_by_side() {
    let setup = |algorithm: &str| {
        Mesh::setup().set("issuer", "https://id.example.com").set("auth.signing_keys.algorithm", algorithm)
    };
    let mut mesh = setup("RS256").set("auth.signing_keys.rsa_bits", "3072").start();
    let (_, mut tokens) = User::signed_in(&mesh).await;
    let mut issued = vec![tokens.clone()];
    assert_eq!(header(&tokens.access).0, "RS256");
    for algorithm in ["EdDSA", "ES256"] {
        mesh = setup(algorithm).home(mesh.stop()).start();
        let rotated = operator(&mesh, &["keys", "rotate"]);
        assert!(rotated.contains(&format!("({algorithm})")), "{rotated}");
        // It takes the place of the one that signs, without the five minutes.
        let signing = header(&tokens.access).1;
        let published = mesh.rest().get("/.well-known/jwks.json").send().await.expect(200).json();
        assert_eq!(published["keys"][0]["alg"], algorithm, "{published}");
        for tokens in &issued {
            assert_accepted(&mesh, &tokens.access).await;
        }
        operator(&mesh, &["keys", "withdraw", &signing]);
        issued.pop();
        tokens = tokens.refresh(mesh.rest()).await;
        assert_eq!(header(&tokens.access).0, algorithm);
        until_accepted(&mesh, &tokens).await;
        issued.push(tokens.clone());
    }
}
