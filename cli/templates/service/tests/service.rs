use drystone_testing::{Mesh, User, matrix};
use serde_json::json;

#[tokio::test]
async fn a_user_sees_their_own_{{plural}}() {
    let mesh = Mesh::setup().binary(env!("CARGO_BIN_EXE_{{name}}")).start();
    let (_, ada) = User::signed_in(&mesh).await;
    let (_, bob) = User::signed_in(&mesh).await;
    let body = json!({"displayName": "first"});
    mesh.rest().post("/v1/{{plural}}", body).bearer(&ada.access).send().await.expect(200);
    let list = async |user: &str| mesh.rest().get("/v1/{{plural}}").bearer(user).send().await.expect(200).json();
    assert_eq!(list(&ada.access).await["{{plural}}"][0]["displayName"], "first");
    assert_eq!(list(&bob.access).await["{{plural}}"], json!([]));
    // Calls every RPC of the mesh as every workload and checks its access rule.
    matrix::assert_rules_hold(&mesh, &drystone_testing::contracts_with(&{{name}}::CONTRACT)).await;
}
