//! The outage of one service affects only calls that need it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone::Reason;
use drystone_tests::{Mesh, Setup, Tokens, User, logs};
use serde_json::{Value, json};

/// Counts sign-ins whose token has no property claims because the property service was unavailable.
const WITHOUT_CLAIMS: &str = "drystone_sign_ins_without_property_claims_total";

fn claims(tokens: &Tokens) -> Value {
    let payload = tokens.access.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn setup() -> Setup {
    Mesh::setup().set("log.format", "json")
}

async fn create_property(mesh: &Mesh, tokens: &Tokens) -> String {
    let body = json!({"displayName": "Barn"});
    let property = mesh.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200).json();
    property["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_carries_the_property_claims_of_its_user() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    assert_eq!(claims(&tokens)["props"], json!({}));
    let property = create_property(mesh, &tokens).await;
    let expected = json!({property: "owner"});
    assert_eq!(claims(&tokens.refresh(mesh.rest()).await)["props"], expected);
    assert_eq!(claims(&user.sign_in(mesh).await)["props"], expected);
    assert!(mesh.metrics().await.sum(WITHOUT_CLAIMS, &[]) < 0.5);
}

#[tokio::test]
async fn sign_in_works_without_the_property_service() {
    let mesh = setup().start();
    let (user, tokens) = User::signed_in(&mesh).await;
    create_property(&mesh, &tokens).await;
    let home = mesh.stop();
    let logged_before = std::fs::read_to_string(home.log()).unwrap().len();

    let mesh = setup().home(home).without("property").start();
    let before = mesh.metrics().await.sum(WITHOUT_CLAIMS, &[]);
    let tokens = user.sign_in(&mesh).await;
    let claims = claims(&tokens);
    assert_eq!(claims["sub"], user.id.as_str());
    assert_eq!(claims["roles"], json!(["member"]));
    assert!(claims["props"] == json!({}) || claims.get("props").is_none(), "{claims}");

    // It is counted, and logged once as a warning.
    let after = mesh.metrics().await.sum(WITHOUT_CLAIMS, &[]);
    assert!((after - before - 1.0).abs() < f64::EPSILON, "{before} -> {after}");
    let log = mesh.log();
    let events = logs::events(&log[logged_before..]);
    let warnings: Vec<_> = events
        .iter()
        .filter(|event| event["level"] == "WARN" && event["message"].as_str().unwrap().contains("property claims"))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(!logs::field(warnings[0], "request_id").is_empty(), "{:#?}", warnings[0]);

    // Everything else works.
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    let refreshed = tokens.refresh(mesh.rest()).await;
    User::register(&mesh).await;
    // Calls to the property service fail with `Retry-After`.
    let answer = mesh.rest().get("/v1/properties").bearer(&refreshed.access).send().await.refused(Reason::Unavailable);
    assert!(!answer.header("retry-after").is_empty(), "{:?}", answer.headers);
    mesh.rest().post("/v1/auth/logout", json!({})).bearer(&refreshed.access).send().await.expect(200);
}

#[tokio::test]
async fn health_is_degraded_without_the_property_service() {
    let mesh = setup().without("property").start();
    let report = drystone_tests::wait::until("the outage is reported", async || {
        let report = mesh.admin("/health/detailed").await.expect(200).json();
        (report["components"]["auth -> property"]["state"] == "down").then_some(report)
    })
    .await;
    assert_eq!(report["status"], "degraded", "{report:#}");
    assert!(report["components"]["auth -> property"]["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    // A degraded mesh is ready.
    mesh.admin("/ready").await.expect(200);
}
