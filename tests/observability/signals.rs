//! Health, metrics, logs and audit records.

use drystone::Reason;
use drystone_tests::{Mesh, MetricsSnapshot, RestClient, RestResponse, User, logs, services, wait};
use serde_json::{Value, json};

/// Runs a user journey from sign-up to sign-out with some failed calls, and returns every secret that was sent or received.
async fn traffic(mesh: &Mesh, request_id: &str) -> Vec<String> {
    let rest = mesh.rest();
    let user = User::register(mesh).await;
    let wrong = "not the right password";
    let body = json!({"email": user.email, "password": wrong});
    rest.post("/v1/auth/login", body).send().await.refused(Reason::InvalidCredentials);
    // Too short: validation refuses it before the handler runs.
    let short = "hunter2";
    let body = json!({"email": user.email, "password": short, "displayName": "Ada"});
    rest.post("/v1/auth/register", body).send().await.refused(Reason::InvalidRequest);

    let body = json!({"email": user.email, "password": user.password});
    let call = rest.post("/v1/auth/login", body).header("x-request-id", request_id);
    let first = drystone_tests::Tokens::of(&call.send().await.expect(200).json());
    rest.get("/v1/users/me").bearer(&first.access).send().await.expect(200);
    rest.get("/v1/users").bearer(&first.access).send().await.refused(Reason::PermissionMissing);
    let second = first.refresh(rest).await;
    let damaged = format!("{}x", second.refresh);
    rest.post("/v1/auth/refresh", json!({"refreshToken": damaged})).send().await.refused(Reason::RefreshTokenInvalid);
    let damaged = format!("{}x", second.access);
    rest.get("/v1/users/me").bearer(&damaged).send().await.refused(Reason::TokenInvalid);
    rest.post("/v1/auth/logout", json!({})).bearer(&second.access).send().await.expect(200);
    rest.get("/v1/users/me").bearer(&second.access).send().await.refused(Reason::TokenRevoked);

    let signature = |token: &str| token.rsplit('.').next().unwrap().to_owned();
    let signatures = [signature(&first.access), signature(&second.access)];
    let secrets =
        [user.password, wrong.into(), short.into(), first.access, first.refresh, second.access, second.refresh];
    secrets.into_iter().chain(signatures).collect()
}

#[tokio::test]
async fn health_is_reported_in_summary_and_in_detail() {
    let mesh = Mesh::shared();
    assert_eq!(mesh.admin("/ready").await.expect(200).json(), json!({"ready": true}));
    // A mesh is ready once it can serve, and degraded until all services are connected to each other.
    wait::until("the mesh is healthy", async || {
        let health = mesh.admin("/health").await.expect(200).json();
        (health == json!({"status": "ok"})).then_some(())
    })
    .await;
    let report = mesh.admin("/health/detailed").await.expect(200).json();
    assert_eq!(report["status"], "ok", "{report:#}");
    let components = report["components"].as_object().unwrap();
    for component in components.values() {
        assert_eq!(component["state"], "up", "{report:#}");
        assert!(component["since"].as_str().unwrap().ends_with('Z'), "{report:#}");
    }
    // Each service reports its database and its upstreams.
    for service in services() {
        let database = format!("{service} database");
        assert!(components.contains_key(&database), "`{database}` is not reported: {report:#}");
    }
    for dependency in ["auth -> user", "auth -> session", "auth -> property", "user -> session", "property -> auth"] {
        assert!(components.contains_key(dependency), "`{dependency}` is not reported: {report:#}");
    }
}

#[tokio::test]
async fn the_admin_port_allows_only_get_and_head() {
    let mesh = Mesh::shared();
    let admin = |method: http::Method, path: &str| RestClient::at(mesh.admin_address()).request(method, path).send();
    for path in ["/health", "/health/detailed", "/ready", "/metrics"] {
        let answer = admin(http::Method::POST, path).await.expect(405);
        assert_eq!(answer.header("allow"), "GET, HEAD");
        assert!(admin(http::Method::HEAD, path).await.expect(200).body.is_empty());
    }
    for path in ["/", "/v1/users", "/metrics/", "/health/.."] {
        admin(http::Method::GET, path).await.expect(404);
    }
}

fn is_prometheus(answer: &RestResponse) -> bool {
    answer.header("content-type").starts_with("application/openmetrics-text") && answer.text().ends_with("# EOF\n")
}

#[tokio::test]
async fn metrics_cover_calls_denials_hashing_and_sessions() {
    let mesh = Mesh::setup().start();
    let before = mesh.metrics().await;
    traffic(&mesh, "metrics").await;
    // A call is counted when it ends, possibly after the caller has the response.
    wait::until("every call is counted", async || {
        let calls = mesh.metrics().await.sum("drystone_calls_total", &[("method", "GetMe")]);
        (calls > 1.5).then_some(())
    })
    .await;
    assert!(is_prometheus(&mesh.admin("/metrics").await.expect(200)));
    let after = mesh.metrics().await;
    let delta = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let assert_delta = |name: &str, labels: &[(&str, &str)], by: f64| {
        assert!((delta(name, labels) - by).abs() < f64::EPSILON, "{name} {labels:?} grew by {}", delta(name, labels));
    };

    // Calls by caller, method and code, with their durations.
    let calls = "drystone_calls_total";
    let call = |method, caller, code| [("method", method), ("caller", caller), ("code", code)];
    assert_delta(calls, &call("SignIn", "edge", "OK"), 1.0);
    assert_delta(calls, &call("SignIn", "edge", "UNAUTHENTICATED"), 1.0);
    assert_delta(calls, &call("Register", "edge", "OK"), 1.0);
    assert_delta(calls, &call("Register", "edge", "INVALID_ARGUMENT"), 1.0);
    assert_delta(calls, &call("GetMe", "edge", "OK"), 1.0);
    assert_delta(calls, &call("GetMe", "edge", "UNAUTHENTICATED"), 1.0);
    assert_delta(calls, &call("ListUsers", "edge", "PERMISSION_DENIED"), 1.0);
    assert_delta(calls, &call("StartSession", "auth", "OK"), 1.0);
    assert_delta(calls, &call("RotateSession", "auth", "OK"), 1.0);
    assert_delta("drystone_call_duration_seconds_count", &[("service", "user"), ("method", "GetMe")], 2.0);
    assert_delta("drystone_call_duration_seconds_bucket", &[("method", "GetMe"), ("le", "+Inf")], 2.0);

    // The edge refuses a damaged token itself, and the user service a revoked one.
    assert_delta("drystone_edge_requests_total", &[("route", "GET /v1/users/me"), ("status", "401")], 2.0);

    // Denials by part of the rule.
    let denials = "drystone_denials_total";
    assert_delta(denials, &[("method", "GetMe"), ("part", "subject"), ("caller", "edge")], 1.0);
    assert_delta(denials, &[("method", "ListUsers"), ("part", "permission")], 1.0);

    // Hashing: one for the registration, two for the sign-ins.
    assert_delta("drystone_password_hash_duration_seconds_count", &[], 3.0);
    assert_delta("drystone_password_hash_queue_wait_seconds_count", &[], 3.0);
    assert!(after.has("drystone_password_hash_queue_length", &[]));

    // Sessions.
    let names: Vec<&str> = after.names().filter(|name| name.contains("session")).collect();
    assert!(increased_by_one(&before, &after, "created"), "no counter of sessions created: {names:?}");
    assert!(increased_by_one(&before, &after, "ended"), "no counter of sessions ended: {names:?}");
}

/// Whether a session counter with this word in its name increased by one.
fn increased_by_one(before: &MetricsSnapshot, after: &MetricsSnapshot, word: &str) -> bool {
    let mut names = after.names().filter(|name| name.contains("session") && name.contains(word));
    names.any(|name| (after.sum(name, &[]) - before.sum(name, &[]) - 1.0).abs() < f64::EPSILON)
}

#[tokio::test]
async fn a_request_id_is_propagated_to_all_services() {
    let mesh = Mesh::setup().set("log.format", "json").set("log.filter", "info,drystone_mesh=debug").start();
    traffic(&mesh, "one-request-id").await;
    let calls = async || -> Vec<String> {
        let events = logs::events(&mesh.log());
        let own = events.iter().filter(|event| logs::field(event, "request_id") == "one-request-id");
        own.map(|event| logs::field(event, "method").to_owned()).collect()
    };
    for method in [
        "/drystone.auth.v1.AuthService/SignIn",
        "/drystone.user.v1.UserService/LookUpForSignIn",
        "/drystone.property.v1.PropertyService/ListPropertyClaims",
        "/drystone.session.v1.SessionService/StartSession",
    ] {
        let description = format!("{method} is in the log");
        wait::until(&description, async || calls().await.iter().any(|logged| logged == method).then_some(())).await;
    }
}

#[tokio::test]
async fn a_denial_is_logged_with_caller_method_and_rule() {
    let mesh = Mesh::setup().set("log.format", "json").start();
    let mut sessions =
        drystone::session::v1::session_service_client::SessionServiceClient::new(mesh.channel("session", "user"));
    let answer = sessions.start_session(drystone::session::v1::StartSessionRequest::default()).await;
    drystone_tests::grpc::assert_refused(answer, Reason::CallerNotAllowed);
    let log = mesh.log();
    let events = logs::events(&log);
    let denial = events.iter().find(|event| event["message"] == "call denied").expect("the denial is in the log");
    assert_eq!(denial["level"], "WARN");
    assert_eq!(logs::field(denial, "caller"), "spiffe://drystone.local/service/user");
    assert_eq!(logs::field(denial, "method"), "/drystone.session.v1.SessionService/StartSession");
    assert_eq!((&denial["rule"], &denial["reason"]), (&json!("caller"), &json!("CALLER_NOT_ALLOWED")));
    // The RPC is audited, including denied calls.
    let record = events.iter().find(|event| event["target"] == "audit").expect("the denial is in the audit trail");
    assert_eq!(record["code"], "PermissionDenied", "{record:#}");
    assert_eq!(logs::field(record, "caller"), "spiffe://drystone.local/service/user", "{record:#}");
}

#[tokio::test]
async fn audit_records_can_have_a_file_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.log");
    let mesh = Mesh::setup().set("log.audit_file", file.to_str().unwrap()).start();
    let (user, _) = User::signed_in(&mesh).await;
    wait::until("the sign-in is recorded", async || {
        let records = logs::events(&std::fs::read_to_string(&file).unwrap());
        assert!(records.iter().all(|record| record["target"] == "audit"), "{records:#?}");
        let is_sign_in = |record: &&Value| logs::field(record, "method").ends_with("/SignIn");
        let sign_in = records.iter().find(is_sign_in)?;
        assert_eq!(logs::field(sign_in, "user"), user.id, "{sign_in:#}");
        Some(())
    })
    .await;
    assert!(!mesh.log().contains("audited call"), "{}", mesh.log());
}

#[tokio::test]
async fn an_audited_call_leaves_a_record() {
    let mesh = Mesh::setup().set("log.format", "json").start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let tokens = tokens.refresh(mesh.rest()).await;
    mesh.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
    wait::until("every call is recorded", async || {
        let records = logs::events(&mesh.log()).into_iter().filter(|event| event["target"] == "audit");
        let of_method = |event: &Value, name: &str| logs::field(event, "method").ends_with(name);
        let records: Vec<Value> = records.collect();
        let sign_out = records.iter().find(|event| of_method(event, "/SignOut"))?;
        assert_eq!(sign_out["client"], "127.0.0.1", "{sign_out:#}");
        // Calls between services carry no token, so their handlers set the user of the record. A call is recorded when it
        // ends, possibly after the caller has the response.
        for name in [
            "/Register",
            "/ProvisionUser",
            "/SignIn",
            "/LookUpForSignIn",
            "/ListPropertyClaims",
            "/StartSession",
            "/RotateSession",
            "/SignOut",
        ] {
            let record = records.iter().find(|event| of_method(event, name))?;
            assert_eq!(logs::field(record, "user"), user.id, "{record:#}");
        }
        assert!(!records.iter().any(|event| of_method(event, "/GetMe")), "{records:#?}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn log_messages_follow_the_style_rules() {
    let mesh = Mesh::setup().set("log.format", "json").set("log.filter", "info,drystone_mesh=debug").start();
    traffic(&mesh, "style").await;
    let home = tokio::task::spawn_blocking(|| mesh.stop()).await.unwrap();
    let log = std::fs::read_to_string(home.log()).unwrap();
    for event in logs::events(&log) {
        let message = event["message"].as_str().unwrap_or_else(|| panic!("no message: {event}"));
        let first = message.chars().next().unwrap_or_default();
        assert!(!first.is_uppercase() && !message.ends_with('.'), "violates the style rules: {message}");
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{event}");
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_debug_level() {
    for format in ["json", "text"] {
        let mesh = Mesh::setup().set("log.format", format).set("log.filter", "debug").start();
        let secrets = traffic(&mesh, "secrets").await;
        let home = tokio::task::spawn_blocking(|| mesh.stop()).await.unwrap();
        let log = std::fs::read_to_string(home.log()).unwrap();
        assert!(log.to_lowercase().contains("debug"), "the log has no debug messages");
        for secret in secrets {
            if let Some(line) = log.lines().find(|line| line.contains(&secret)) {
                panic!("`{secret}` is in the log: {line}");
            }
        }
        // The PEM header of every kind of private key.
        assert!(!log.contains("PRIVATE KEY"), "a private key is in the log");
    }
}

#[tokio::test]
async fn a_healthy_mesh_logs_nothing_at_error_level() {
    let mesh = Mesh::setup().set("log.filter", "error").start();
    traffic(&mesh, "silence").await;
    let home = tokio::task::spawn_blocking(|| mesh.stop()).await.unwrap();
    assert_eq!(std::fs::read_to_string(home.log()).unwrap(), "", "the log must be empty");
}
