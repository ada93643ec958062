//! Shadow rules: what a coming contract would deny is counted and logged, and allowed.

use drystone_tests::{Home, Mesh, User, fixture::compile, matrix::call, wait};
use serde_json::json;

/// The user service of a coming release, with a stricter `GetMe` and nothing else.
const CONTRACT: &str = r#"
    syntax = "proto3";
    package drystone.user.v1;
    import "drystone/access/v1/access.proto";
    message GetMeRequest {}
    message User {}
    service UserService {
      option (drystone.access.v1.workload) = "user";
      rpc GetMe(GetMeRequest) returns (User) {
        option idempotency_level = NO_SIDE_EFFECTS;
        option (drystone.access.v1.rule) = {
          callers: ["edge"]
          subject: SUBJECT_USER
          factors: FACTORS_TWO
        };
      }
    }
"#;

#[tokio::test]
async fn shadow_rules_deny_nothing_and_are_counted() {
    let home = Home::new();
    let contract = home.path().join("shadow.binpb");
    std::fs::write(&contract, compile(CONTRACT).unwrap()).unwrap();
    let mesh = Mesh::setup().set("access.shadow_contracts", &json!([contract]).to_string()).start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let count = async |metric: &str, labels: &[(&str, &str)]| mesh.metrics().await.sum(metric, labels);
    let of_get_me = [("service", "user"), ("method", "GetMe"), ("caller", "edge"), ("part", "factors")];

    // A user with one factor, whom the new rule would deny.
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    wait::until("the denial by the shadow rule is counted", async || {
        (count("drystone_shadow_denials_total", &of_get_me).await > 0.5).then_some(())
    })
    .await;
    // An RPC that the new contract does not have.
    call(mesh.channel("user", "operator"), "/drystone.user.v1.UserService/ListUsers", false).await.unwrap();
    let of_list = [("service", "user"), ("method", "ListUsers"), ("caller", "operator"), ("part", "method")];
    assert!(count("drystone_shadow_denials_total", &of_list).await > 0.5);

    // Nothing was denied, and other services have no shadow rules.
    assert!(count("drystone_denials_total", &[]).await < 0.5);
    assert!(count("drystone_shadow_denials_total", &[("service", "auth")]).await < 0.5);
    let log = mesh.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("call would be denied by the shadow rules")).collect();
    assert!(lines.iter().any(|line| line.contains("FACTORS_REQUIRED") && line.contains("GetMe")), "{log}");
    assert!(lines.iter().any(|line| line.contains("METHOD_UNKNOWN") && line.contains("ListUsers")), "{log}");
    assert!(lines.iter().all(|line| line.contains("spiffe://drystone.local/service/")), "{log}");
    assert!(!log.contains(&tokens.access));
}
