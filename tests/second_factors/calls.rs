//! Calls of a user with a second factor.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone_backends::Smtp;
use drystone_tests::{Mesh, RestResponse, User, mails::wait_for_link};
use serde_json::{Value, json};

/// A call over REST, with a token if there is one.
pub async fn post(mesh: &Mesh, path: &str, body: Value, token: Option<&str>) -> RestResponse {
    let request = mesh.rest().post(path, body);
    match token {
        Some(token) => request.bearer(token).send().await,
        None => request.send().await,
    }
}

/// The claims of an access token.
pub fn claims(token: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// Verifies the address of a user with the link in their mail.
pub async fn verify_email(mesh: &Mesh, smtp: &Smtp, user: &User) {
    let token = wait_for_link(smtp, &user.email, "verify-email", 0).await;
    post(mesh, "/v1/email:verify", json!({"token": token}), None).await.expect(200);
}

/// The challenge of a sign-in whose password is right.
pub async fn challenge(mesh: &Mesh, user: &User, password: &str) -> Value {
    let login = json!({"email": user.email, "password": password});
    let response = post(mesh, "/v1/auth/login", login, None).await.expect(200).json();
    assert_eq!(response.as_object().unwrap().len(), 1, "{response}");
    response["challenge"].clone()
}

/// Completes a sign-in by this field of the request.
pub async fn complete(mesh: &Mesh, challenge: &Value, name: &str, proof: impl Into<Value>) -> RestResponse {
    let body = json!({"challengeToken": challenge["challengeToken"], name: proof.into()});
    post(mesh, "/v1/auth/login:complete", body, None).await
}
