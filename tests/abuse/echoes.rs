//! Names of a request in its error: one request must not break the connection that the edge shares among all clients.

use drystone_tests::{Mesh, User};
use serde_json::{Map, Value, json};

use crate::beside_load;

#[tokio::test]
async fn names_in_errors_are_shortened_and_break_no_connection() {
    let mesh = Mesh::start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let rest = mesh.rest();
    let long_key = json!({"displayName": "x", "labels": {"k".repeat(30_000): "v"}});
    let many_keys: Map<String, Value> =
        (0..32).map(|index| (format!("{index:02}{}", "k".repeat(900)), json!("v"))).collect();
    let many_keys = json!({"displayName": "x", "labels": many_keys});
    let mask = format!("/v1/users/{}?updateMask={}", user.id, "m".repeat(10_000));
    beside_load(&mesh, async || {
        for _ in 0..60 {
            for body in [&long_key, &many_keys] {
                let answer = rest.post("/v1/properties", body.clone()).bearer(&tokens.access).send().await;
                assert_eq!((answer.status, answer.reason().as_str()), (400, "INVALID_REQUEST"), "{}", answer.text());
                assert!(answer.text().contains("labels"), "{}", answer.text());
                assert!(answer.text().len() < 12_000, "{}", answer.text().len());
            }
            let answer = rest.patch(&mask, json!({"displayName": "x"})).bearer(&tokens.access).send().await;
            assert_eq!((answer.status, answer.reason().as_str()), (400, "INVALID_REQUEST"), "{}", answer.text());
            assert!(
                answer.text().contains("displayName") || answer.text().contains("display_name"),
                "{}",
                answer.text()
            );
        }
    })
    .await;
}
