//! Calls that ask for a recent authentication (RFC 9470), over REST.

use drystone::Reason;
use drystone_tests::{Home, Mesh, Tokens, User};
use serde_json::json;
use sqlx::{ConnectOptions, sqlite::SqliteConnectOptions};

use crate::calls::post;

/// Sets when the users of all sessions have authenticated to an hour ago.
async fn age_sessions(home: &Home) {
    let options = SqliteConnectOptions::new().filename(home.data().join("session.db"));
    let mut db = options.connect().await.unwrap();
    let aged = "UPDATE session SET authentication = (CAST(substr(authentication, 1, instr(authentication, ' ') - 1) AS INTEGER)
                    - 3600000000) || substr(authentication, instr(authentication, ' '))";
    assert!(sqlx::query(aged).execute(&mut db).await.unwrap().rows_affected() > 0);
}

async fn refresh(mesh: &Mesh, tokens: &Tokens) -> Tokens {
    let response = post(mesh, "/v1/auth/refresh", json!({"refreshToken": tokens.refresh}), None).await;
    Tokens::of(&response.expect(200).json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_asks_for_a_recent_authentication_says_so_and_is_answered_after_one() {
    let mesh = Mesh::setup().set("issuer", "https://id.example.com").start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let home = mesh.kill();
    age_sessions(&home).await;
    let mesh = Mesh::setup().set("issuer", "https://id.example.com").home(home).start();
    let tokens = refresh(&mesh, &tokens).await;
    let change = json!({"currentPassword": user.password, "newPassword": "a new horse in the stable"});
    let refused = post(&mesh, "/v1/password:change", change.clone(), Some(&tokens.access)).await;
    let refused = refused.refused(Reason::ReauthenticationRequired);
    let challenge = refused.header("www-authenticate");
    assert!(challenge.starts_with("Bearer error=\"insufficient_user_authentication\""), "{challenge}");
    assert!(challenge.contains("max_age=\"600\""), "{challenge}");

    post(&mesh, "/v1/auth/verify", json!({"password": user.password}), Some(&tokens.access)).await.expect(200);
    // The next token has it.
    post(&mesh, "/v1/password:change", change.clone(), Some(&tokens.access))
        .await
        .refused(Reason::ReauthenticationRequired);
    let tokens = refresh(&mesh, &tokens).await;
    post(&mesh, "/v1/password:change", change, Some(&tokens.access)).await.expect(200);
}
