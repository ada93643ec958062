//! One policy, three enforcers: a server over mutual TLS, the library for Python, and `drystone access explain` decide alike about
//! every RPC as every workload with tokens of every kind.
//!
//! No RPC of Drystone asks for factors yet. Rules that do are compared as shadow rules of a server.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use drystone::{
    Reason,
    contract::{Method, Subject},
};
use drystone_tests::{
    Home, Mesh,
    bad_tokens::GoodToken,
    binary,
    certs::TRUST_DOMAIN,
    contracts,
    fixture::compile,
    grpc::{call_raw, reason, with_token},
    logs, methods,
    process::{drystone, run_to_end},
    readme, services, wait, workloads,
};
use serde_json::{Value, json};
use tonic::{Request, Status, transport::Channel};
use uuid::{NoContext, Uuid};

/// Stricter rules for two RPCs that users may call through the edge.
const STRICTER: &str = r#"
    syntax = "proto3";
    package drystone.user.v1;
    import "drystone/access/v1/access.proto";
    message Request {}
    message User {}
    service UserService {
      option (drystone.access.v1.workload) = "user";
      rpc GetMe(Request) returns (User) {
        option idempotency_level = NO_SIDE_EFFECTS;
        option (drystone.access.v1.rule) = {
          callers: ["outside"]
          subject: SUBJECT_USER
          permission: "users:read"
          factors: FACTORS_TWO
          max_auth_age: {seconds: 600}
        };
      }
      rpc GetUser(Request) returns (User) {
        option idempotency_level = NO_SIDE_EFFECTS;
        option (drystone.access.v1.rule) = {
          callers: ["outside"]
          subject: SUBJECT_USER
          factors: FACTORS_PHISHING_RESISTANT
          max_auth_age: {seconds: 600}
        };
      }
    }
"#;

/// A message that cannot be decoded: an allowed call fails before its handler, and so changes nothing.
const UNDECODABLE: &[u8] = &[0xff];

/// How far tokens and ages are from their limits, in seconds.
const MARGIN: i64 = 5;

/// A kind of access token.
#[derive(Debug, Clone)]
enum TokenState {
    None,
    Expired,
    NotYetValid,
    WrongSignature,
    UnknownKey,
    WrongIssuer,
    WrongAudience,
    Valid { has_permissions: bool, amr: &'static [&'static str], age: i64 },
}

/// The decision about a call: the part that denies it, and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    part: Option<String>,
    reason: Option<String>,
}

/// One call, and what the server decided.
struct Cell {
    name: String,
    /// The call for the other enforcers.
    call: Value,
    request_id: String,
    server: Decision,
}

impl TokenState {
    /// Everything that can be wrong with a token, and one with which nothing is.
    fn basic() -> Vec<Self> {
        let best = Self::Valid { has_permissions: true, amr: &["hwk", "mfa"], age: 0 };
        let faults = [Self::Expired, Self::NotYetValid, Self::WrongSignature, Self::UnknownKey];
        [&[Self::None, best][..], &faults, &[Self::WrongIssuer, Self::WrongAudience]].concat()
    }

    /// Those, and valid tokens with and without permissions, of each proof, just below and above each maximum age.
    fn all() -> Vec<Self> {
        let limits: BTreeSet<i64> = methods().iter().filter_map(|method| method.max_auth_age).map(seconds).collect();
        let ages = [0].into_iter().chain(limits.into_iter().flat_map(|limit| [limit - MARGIN, limit + MARGIN]));
        let ages: Vec<i64> = ages.collect();
        let mut states = Self::basic();
        for has_permissions in [false, true] {
            for amr in [&["pwd"][..], &["pwd", "otp", "mfa"], &["hwk", "mfa"]] {
                states.extend(ages.iter().map(|&age| Self::Valid { has_permissions, amr, age }));
            }
        }
        states
    }

    /// A new token of a user and a session of its own, so that no call revokes those of another.
    fn mint(&self, good: &GoodToken, now: i64) -> Option<String> {
        let nothing = json!({});
        let claims = |issued: i64, age: i64, amr: &[&str], permissions: &[&str]| {
            let at = uuid::Timestamp::from_unix(NoContext, issued.try_into().unwrap(), 0);
            json!({
                "iat": issued, "exp": issued + 300, "auth_time": issued - age, "amr": amr, "perms": permissions,
                "jti": Uuid::new_v7(at).to_string(), "sub": Uuid::now_v7().to_string(), "roles": [],
                "sid": Uuid::now_v7().to_string(),
            })
        };
        let all: Vec<&str> = contracts().permissions().iter().map(|permission| permission.name.as_str()).collect();
        let best = |issued: i64| claims(issued, 0, &["hwk", "mfa"], &all);
        let with = |name: &str, value: Value| {
            let mut claims = best(now);
            claims[name] = value;
            good.with(&nothing, &claims)
        };
        Some(match self {
            Self::None => return None,
            Self::Expired => good.with(&nothing, &best(now - 300 - 2 * MARGIN)),
            Self::NotYetValid => with("nbf", json!(now + 60)),
            Self::WrongSignature => good.with_wrong_signature(&best(now)),
            Self::UnknownKey => good.with(&json!({ "kid": "unknown" }), &best(now)),
            Self::WrongIssuer => with("iss", json!("https://other.example")),
            Self::WrongAudience => with("aud", json!("other")),
            Self::Valid { has_permissions, amr, age } => {
                good.with(&nothing, &claims(now, *age, amr, if *has_permissions { &all } else { &[] }))
            }
        })
    }
}

impl Decision {
    const ALLOWED: Self = Self { part: None, reason: None };

    /// A line of the other enforcers.
    fn parse(line: &str) -> Self {
        let answer: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let decision = Self { part: text("part"), reason: text("reason") };
        assert_eq!(answer["allowed"], json!(decision.part.is_none()), "{line}");
        decision
    }

    /// What the answer of the server means.
    fn of(answer: Result<Vec<u8>, Status>, name: &str) -> Self {
        let Err(status) = answer else { return Self::ALLOWED };
        let reason = reason(&status).unwrap_or_else(|| panic!("{name}: {status:?}"));
        let part = match reason {
            Reason::MethodUnknown => "method",
            Reason::CallerNotAllowed | Reason::CallerExpired => "caller",
            Reason::TokenMissing | Reason::TokenInvalid | Reason::TokenExpired | Reason::TokenRevoked => "subject",
            Reason::PermissionMissing => "permission",
            Reason::FactorsRequired => "factors",
            Reason::ReauthenticationRequired => "max_auth_age",
            Reason::InvalidRequest => return Self::ALLOWED,
            _ => panic!("{name}: {status:?}"),
        };
        Self { part: Some(part.to_owned()), reason: Some(reason.name().to_owned()) }
    }
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap()
}

/// Calls an RPC as a workload with a new token.
async fn cell(channel: Channel, good: &GoodToken, workload: &str, method: &Method, state: &TokenState) -> Cell {
    let name = format!("{} as {workload} with {state:?}", method.path);
    let now = prost_types::Timestamp::from(SystemTime::now());
    let token = state.mint(good, now.seconds);
    let at = prost_types::Timestamp { nanos: now.nanos / 1000 * 1000, ..now }.to_string();
    let mut call = json!({ "caller": workload, "method": &method.path[1..], "at": at });
    let mut request = match &token {
        Some(token) => with_token(UNDECODABLE.to_vec(), token),
        None => Request::new(UNDECODABLE.to_vec()),
    };
    let request_id = Uuid::now_v7().to_string();
    request.metadata_mut().insert("x-request-id", request_id.parse().unwrap());
    if let Some(token) = token {
        call["token"] = json!(token);
    }
    let answer = call_raw(channel, &method.path, request, method.is_streaming()).await;
    Cell { server: Decision::of(answer, &name), name, call, request_id }
}

/// Every RPC as every workload. Where the token can matter, with tokens of every kind.
async fn call_all(mesh: &Mesh, good: &GoodToken) -> Vec<Cell> {
    let (basic, all) = (TokenState::basic(), TokenState::all());
    let mut cells = Vec::new();
    for service in services() {
        let own: Vec<&Method> =
            methods().iter().map(|method| &**method).filter(|method| *method.workload == *service).collect();
        let unknown = Method { path: format!("/{}/Missing", own[0].service()).into(), ..own[0].clone() };
        for workload in workloads() {
            let channel = mesh.channel(service, workload);
            for method in own.iter().copied().chain([&unknown]) {
                let has_user = method.subject != Subject::None && method.allows(workload);
                for state in if has_user { &all } else { &basic } {
                    cells.push(cell(channel.clone(), good, workload, method, state).await);
                }
            }
        }
    }
    cells
}

/// The decisions of `drystone access explain`.
fn explain(directory: &Path, issuer: &str) -> Vec<Decision> {
    let mut command = drystone(&["access", "explain", "--batch", "calls", "--keys", "keys.json"]);
    command.args(["--contracts", "contracts.binpb"]);
    let ended = run_to_end(command.env("DRYSTONE_ISSUER", issuer).current_dir(directory));
    assert!(ended.status.success(), "{}", ended.stderr);
    ended.stdout.lines().map(Decision::parse).collect()
}

/// The decisions of the library for Python.
fn python(directory: &Path) -> Vec<Decision> {
    let mut command = Command::new(readme::tool("python"));
    command.env("PYTHONPATH", binary::repository().join("clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(binary::repository().join("tests/python/decide_calls.py")).args(["settings.json", "calls"]);
    let output = command.current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(Decision::parse).collect()
}

#[tokio::test]
async fn server_python_and_explain_decide_alike_about_every_call() {
    // Its own mesh, since the counters must not include other tests.
    let mesh = Mesh::start();
    let good = GoodToken::of(&mesh).await;
    let cells = call_all(&mesh, &good).await;
    assert!(cells.len() >= 5000, "only {} cells", cells.len());

    // The counters of the servers have the same parts as their answers.
    let mut denied = BTreeMap::<&str, u32>::new();
    for part in cells.iter().filter_map(|cell| cell.server.part.as_deref()) {
        *denied.entry(part).or_default() += 1;
    }
    let parts: Vec<&str> = denied.keys().copied().collect();
    assert_eq!(parts, ["caller", "max_auth_age", "method", "permission", "subject"], "{denied:?}");
    let allowed = cells.iter().filter(|cell| cell.server == Decision::ALLOWED).count();
    assert!(allowed > 500, "only {allowed} calls were allowed");
    let metrics = mesh.metrics().await;
    for (part, count) in denied {
        let counted = metrics.sum("drystone_denials_total", &[("part", part)]);
        assert!((counted - f64::from(count)).abs() < 0.5, "{part}: {counted} counted, {count} answered");
    }

    assert_alike(&mesh, &good, &contracts().descriptor_set().unwrap(), &services(), &cells).await;
}

#[tokio::test]
async fn shadow_rules_python_and_explain_decide_alike_about_factors() {
    let home = Home::new();
    let (file, coming) = (home.path().join("coming.binpb"), compile(STRICTER).unwrap());
    fs::write(&file, &coming).unwrap();
    let setup = Mesh::setup().set("access.shadow_contracts", &json!([file]).to_string());
    let mesh = setup.set("log.format", "json").start();
    let good = GoodToken::of(&mesh).await;
    let mut cells = Vec::new();
    for method in methods().iter().filter(|method| ["GetMe", "GetUser"].contains(&method.name())) {
        for state in TokenState::all().iter().filter(|state| matches!(state, TokenState::Valid { .. })) {
            let cell = cell(mesh.channel("user", "edge"), &good, "edge", method, state).await;
            assert_eq!(cell.server, Decision::ALLOWED, "{}", cell.name);
            cells.push(cell);
        }
    }
    // What the shadow rules would have denied is in the log, which takes at most 100 such lines at a time.
    assert!((30..100).contains(&cells.len()), "{} cells", cells.len());
    let counted = mesh.metrics().await.sum("drystone_shadow_denials_total", &[]);
    let events = wait::until("every counted denial is in the log", async || {
        let mut events = logs::events(&mesh.log());
        events.retain(|event| event["message"] == "call would be denied by the shadow rules");
        let logged = u32::try_from(events.len()).unwrap();
        (f64::from(logged) > counted - 0.5).then_some(events)
    })
    .await;
    let denials: BTreeMap<&str, &Value> =
        events.iter().map(|event| (logs::field(event, "request_id"), event)).collect();
    for cell in &mut cells {
        if let Some(event) = denials.get(cell.request_id.as_str()) {
            let text = |name| Some(logs::field(event, name).to_owned());
            cell.server = Decision { part: text("rule"), reason: text("reason") };
        }
    }
    let parts: BTreeSet<Option<&str>> = cells.iter().map(|cell| cell.server.part.as_deref()).collect();
    let expected = [None, Some("factors"), Some("max_auth_age"), Some("permission")];
    assert_eq!(parts.into_iter().collect::<Vec<_>>(), expected);
    assert_alike(&mesh, &good, &coming, &["user"], &cells).await;
}

/// Asserts that the other enforcers decide about these calls as the server has done, by these contracts.
async fn assert_alike(mesh: &Mesh, good: &GoodToken, contracts: &[u8], services: &[&str], cells: &[Cell]) {
    let home = mesh.home();
    let issuer = good.claims["iss"].as_str().unwrap();
    let keys = mesh.rest().get("/.well-known/jwks.json").send().await.expect(200).text();
    let certificates: BTreeMap<&str, _> =
        workloads().into_iter().map(|name| (name, &mesh.certificates().files_of(name)[0])).collect();
    let settings = json!({
        "issuer": issuer, "audience": good.claims["aud"], "trust_domain": TRUST_DOMAIN, "services": services,
        "contracts": "contracts.binpb", "keys": "keys.json", "certificates": certificates,
    });
    let lines: Vec<String> = cells.iter().map(|cell| cell.call.to_string()).collect();
    fs::write(home.path().join("contracts.binpb"), contracts).unwrap();
    for (name, content) in [("keys.json", keys), ("settings.json", settings.to_string()), ("calls", lines.join("\n"))] {
        home.write(name, &content);
    }
    let explained = explain(home.path(), issuer);
    let in_python = python(home.path());
    assert_eq!((explained.len(), in_python.len()), (cells.len(), cells.len()));
    let answers = cells.iter().zip(explained.iter().zip(&in_python));
    let different: Vec<String> = answers
        .filter(|(cell, (explained, python))| cell.server != **explained || cell.server != **python)
        .map(|(Cell { name, server, .. }, (explained, python))| {
            format!("{name}:\n  server {server:?}\n  explain {explained:?}\n  python {python:?}")
        })
        .collect();
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different[..different.len().min(20)].join("\n"));
}
