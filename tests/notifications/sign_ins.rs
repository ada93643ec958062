//! What users see of the sign-ins to their accounts.

use drystone::{
    Reason,
    auth::v1::{ListSignInsRequest, SignIn, SignInOutcome, sign_in_service_client::SignInServiceClient},
};
use drystone_tests::{User, grpc::with_token};
use serde_json::json;

use crate::{
    passwords::{post, signs_in},
    server::{start, wait_for_link, wait_for_subject},
};

const NEW: &str = "a new horse in the stable";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_of_somebody_else_is_told_and_reported() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let thief = user.sign_in(&mesh).await;
    let told = wait_for_subject(&smtp, &user.email, "New sign-in").await;
    let text = told.text.unwrap();
    assert!(text.contains("127.0.0.1") && text.contains("password"), "{text}");
    let inbox = mesh.rest().get("/v1/messages").bearer(&tokens.access).send().await.expect(200).json();
    assert!(inbox.to_string().contains("new device") && !inbox.to_string().contains("#token="), "{inbox}");

    let token = wait_for_link(&smtp, &user.email, "report-sign-in", 0).await;
    let reported = post(&mesh, "/v1/signIns:report", json!({"token": token}), None).await.expect(200).json();
    assert_eq!(reported, json!({"sessionsEnded": true}));
    for tokens in [&thief, &tokens] {
        mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
        let refresh = post(&mesh, "/v1/auth/refresh", json!({"refreshToken": tokens.refresh}), None).await;
        refresh.refused(Reason::SessionEnded);
    }
    let login = json!({"email": user.email, "password": user.password});
    post(&mesh, "/v1/auth/login", login, None).await.refused(Reason::PasswordResetRequired);
    let reset = wait_for_link(&smtp, &user.email, "reset-password", 0).await;
    post(&mesh, "/v1/password:reset", json!({"token": reset, "newPassword": NEW}), None).await.expect(200);
    assert!(signs_in(&mesh, &user.email, NEW).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ins_are_listed_over_rest_and_grpc() {
    let (_smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    assert!(!signs_in(&mesh, &user.email, "wrong horse").await);
    mesh.rest().get("/v1/signIns").send().await.refused(Reason::TokenMissing);
    let list =
        async || mesh.rest().get("/v1/signIns?pageSize=1").bearer(&tokens.access).send().await.expect(200).json();
    let page = drystone_tests::wait::until("the failure is listed", async || {
        let page = list().await;
        (page["signIns"][0]["outcome"] == "SIGN_IN_OUTCOME_WRONG_PASSWORD").then_some(page)
    })
    .await;
    let next = format!("/v1/signIns?pageSize=1&pageToken={}", page["nextPageToken"].as_str().unwrap());
    let page = mesh.rest().get(&next).bearer(&tokens.access).send().await.expect(200).json();
    let succeeded = &page["signIns"][0];
    assert_eq!(succeeded["sessionId"], tokens.session_id.as_str());
    assert_eq!((&succeeded["address"], &succeeded["method"]), (&json!("127.0.0.1"), &json!("SIGN_IN_METHOD_PASSWORD")));
    let (_, other) = User::signed_in(&mesh).await;
    mesh.rest().get(&next).bearer(&other.access).send().await.refused(Reason::InvalidPageToken);

    let channel = mesh.channel("auth", "operator");
    let request = with_token(ListSignInsRequest::default(), &tokens.access);
    let listed = SignInServiceClient::new(channel).list_sign_ins(request).await.unwrap().into_inner().sign_ins;
    let outcomes: Vec<_> = listed.iter().map(SignIn::outcome).collect();
    assert_eq!(outcomes, [SignInOutcome::WrongPassword, SignInOutcome::Succeeded]);
}
