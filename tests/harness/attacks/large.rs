//! A user whose pages of properties are large.

use serde_json::json;

use crate::{Mesh, Tokens, User};

/// A user with so many properties, each with 8 KB of labels.
pub async fn many_properties(mesh: &Mesh, count: usize) -> Tokens {
    let (_, tokens) = User::signed_in(mesh).await;
    let labels: serde_json::Map<_, _> =
        (0..32).map(|index| (format!("label-{index}"), json!("v".repeat(250)))).collect();
    for index in 0..count {
        let body = json!({"displayName": format!("property {index}"), "labels": labels});
        mesh.rest().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200);
    }
    tokens
}
