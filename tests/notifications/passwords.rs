//! Passwords that are changed and forgotten, over REST, with the mails that users get.

use std::time::Duration;

use drystone::Reason;
use drystone_backends::Smtp;
use drystone_tests::{Mesh, RestResponse, User, wait};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    kills::rounds,
    server::{Engine, links, setup, start, wait_for_link, wait_for_subject},
};

const NEW: &str = "a new horse in the stable";

pub async fn post(mesh: &Mesh, path: &str, body: Value, token: Option<&str>) -> RestResponse {
    let request = mesh.rest().post(path, body);
    match token {
        Some(token) => request.bearer(token).send().await,
        None => request.send().await,
    }
}

/// Has a link sent, and returns its token.
async fn link(mesh: &Mesh, smtp: &Smtp, email: &str) -> String {
    let before = links(smtp, email, "reset-password").len();
    post(mesh, "/v1/password:requestReset", json!({"email": email}), None).await.expect(200);
    wait_for_link(smtp, email, "reset-password", before).await
}

pub async fn signs_in(mesh: &Mesh, email: &str, password: &str) -> bool {
    let response = post(mesh, "/v1/auth/login", json!({"email": email, "password": password}), None).await;
    if response.status == 200 {
        return true;
    }
    response.refused(Reason::InvalidCredentials);
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_password_is_reset_and_its_owner_is_told() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let token = link(&mesh, &smtp, &user.email).await;
    let weak = post(&mesh, "/v1/password:reset", json!({"token": token, "newPassword": "12345678"}), None).await;
    weak.refused(Reason::PasswordTooWeak);
    let reset = post(&mesh, "/v1/password:reset", json!({"token": token, "newPassword": NEW}), None).await.expect(200);
    assert_eq!(reset.json()["sessionsEnded"], true);
    let again = post(&mesh, "/v1/password:reset", json!({"token": token, "newPassword": NEW}), None).await;
    again.refused(Reason::LinkInvalid);

    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
    let refresh = post(&mesh, "/v1/auth/refresh", json!({"refreshToken": tokens.refresh}), None).await;
    refresh.refused(Reason::SessionEnded);
    assert!(!signs_in(&mesh, &user.email, &user.password).await);
    assert!(signs_in(&mesh, &user.email, NEW).await);
    wait_for_subject(&smtp, &user.email, "changed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_ends_the_other_sessions() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let other = user.sign_in_at(mesh.rest()).await;
    let body = |current: &str| json!({"currentPassword": current, "newPassword": NEW});
    post(&mesh, "/v1/password:change", body("wrong horse"), Some(&tokens.access))
        .await
        .refused(Reason::InvalidCredentials);
    post(&mesh, "/v1/password:change", body(&user.password), None).await.refused(Reason::TokenMissing);
    let changed = post(&mesh, "/v1/password:change", body(&user.password), Some(&tokens.access)).await.expect(200);
    assert_eq!(changed.json()["sessionsEnded"], true);
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.expect(200);
    mesh.rest().get("/v1/users/me").bearer(&other.access).send().await.refused(Reason::TokenRevoked);
    let mail = wait_for_subject(&smtp, &user.email, "changed").await;
    assert!(mail.text.unwrap().contains("password"), "the owner is told");
    // And in the inbox.
    wait::until("a message in the inbox", async || {
        let inbox = mesh.rest().get("/v1/messages").bearer(&tokens.access).send().await.expect(200).json();
        let titles = inbox["messages"].as_array().unwrap().iter().map(|message| message["title"].as_str().unwrap());
        (titles.filter(|title| title.contains("password")).count() == 1).then_some(())
    })
    .await;
}

/// The answer is the same, and nothing is sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_without_an_account_is_answered_alike() {
    let (smtp, mesh) = start();
    let (user, _) = User::signed_in(&mesh).await;
    let request = async |email: &str| {
        let response = post(&mesh, "/v1/password:requestReset", json!({"email": email}), None).await.expect(200);
        (response.json(), response.headers.len())
    };
    let known = request(&user.email).await;
    for unknown in ["nobody@example.com", "no address at all"] {
        assert_eq!(request(unknown).await, known);
    }
    wait_for_link(&smtp, &user.email, "reset-password", 0).await;
    assert!(smtp.mails().iter().all(|mail| mail.rcpt_to == [user.email.clone()]));
}

/// Killed at any moment, a reset has happened as a whole or not at all.
async fn reset_and_kill(engine: Engine) {
    let smtp = Smtp::start(drystone_backends::SmtpOptions::default());
    let setup = || engine.restartable(setup(&smtp));
    let mut mesh = setup().start();
    let mut happened = 0;
    for round in 0..rounds() {
        let (user, tokens) = User::signed_in(&mesh).await;
        let token = link(&mesh, &smtp, &user.email).await;
        let (rest, body) = (mesh.rest(), json!({"token": token, "newPassword": NEW}));
        let answer = tokio::spawn(async move {
            rest.post("/v1/password:reset", body).try_send().await.is_ok_and(|answer| answer.status == 200)
        });
        sleep(Duration::from_micros(round * 7_919 % 80_000)).await;
        mesh = setup().home(mesh.kill()).start();
        let has_succeeded = answer.await.unwrap();
        let (new, old) = (signs_in(&mesh, &user.email, NEW).await, signs_in(&mesh, &user.email, &user.password).await);
        assert_ne!(new, old, "one password signs in");
        assert!(new || !has_succeeded, "a reset that succeeded is stored");
        let again = post(&mesh, "/v1/password:reset", json!({"token": token, "newPassword": NEW}), None).await;
        if new {
            happened += 1;
            again.refused(Reason::LinkInvalid);
            wait::until("the session from before has ended", async || {
                let refreshed = post(&mesh, "/v1/auth/refresh", json!({"refreshToken": tokens.refresh}), None).await;
                (refreshed.status != 200).then_some(())
            })
            .await;
            wait_for_subject(&smtp, &user.email, "changed").await;
        } else {
            again.expect(200);
        }
    }
    println!("{happened} of {} resets had happened", rounds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_leaves_no_half_of_a_reset() {
    reset_and_kill(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_leaves_no_half_of_a_reset_on_postgres() {
    reset_and_kill(Engine::postgres().await).await;
}
