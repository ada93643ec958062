//! E-mail addresses that are verified, changed and got back, over REST, with the mails that users get.

use std::time::Duration;

use drystone::Reason;
use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{Mesh, Setup, User, unique_email, wait};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    kills::rounds,
    passwords::{post, signs_in},
    server::{Engine, links, setup, start, wait_for_link, wait_for_subject},
};

const PASSWORD: &str = "correct horse of this test";
const NEW: &str = "a new horse in the stable";

/// A mesh where addresses have to be verified.
pub fn verifying(smtp: &Smtp) -> Setup {
    setup(smtp).set("auth.require_verified_email", "true")
}

/// Registers an address; with the same request id, a repetition changes nothing.
async fn register(mesh: &Mesh, email: &str, password: &str, request_id: &str) -> Value {
    let body = json!({"email": email, "password": password, "displayName": "Ada", "requestId": request_id});
    post(mesh, "/v1/auth/register", body, None).await.expect(200).json()
}

async fn verify(mesh: &Mesh, token: &str) -> drystone_tests::RestResponse {
    post(mesh, "/v1/email:verify", json!({"token": token}), None).await
}

async fn me(mesh: &Mesh, token: &str) -> Value {
    mesh.rest().get("/v1/users/me").bearer(token).send().await.expect(200).json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_addresses_are_verified_a_registration_tells_nothing_and_a_sign_in_waits() {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = verifying(&smtp).start();
    let email = unique_email();
    let id = Uuid::now_v7().to_string();
    let first = register(&mesh, &email, PASSWORD, &id).await;
    assert_eq!(first, json!({"verificationRequired": true}));
    assert_eq!(register(&mesh, &email, PASSWORD, &id).await, first);
    let login = json!({"email": email, "password": PASSWORD});
    wait::until("the account is created", async || {
        let login = post(&mesh, "/v1/auth/login", login.clone(), None).await;
        (login.status == 403).then(|| login.refused(Reason::EmailNotVerified))
    })
    .await;
    let token = wait_for_link(&smtp, &email, "verify-email", 0).await;
    verify(&mesh, "no token").await.refused(Reason::LinkInvalid);
    let verified = verify(&mesh, &token).await.expect(200).json();
    assert_eq!(verified, json!({"email": email, "emailVerified": true}));
    verify(&mesh, &token).await.refused(Reason::LinkInvalid);
    let tokens = post(&mesh, "/v1/auth/login", login, None).await.expect(200).json();
    assert_eq!(me(&mesh, tokens["accessToken"].as_str().unwrap()).await["emailVerified"], true);
    // Its owner is told of further registrations.
    assert_eq!(register(&mesh, &email, "somebody else's password", "").await, first);
    wait_for_subject(&smtp, &email, "already have").await;
    assert_eq!(links(&smtp, &email, "verify-email").len(), 1);
    assert!(!signs_in(&mesh, &email, "somebody else's password").await);
    // Another link is sent to those who have not verified theirs alone.
    let other = unique_email();
    register(&mesh, &other, PASSWORD, "").await;
    wait_for_link(&smtp, &other, "verify-email", 0).await;
    let known = links(&smtp, &email, "verify-email").len();
    for email in [&email, &other, &unique_email()] {
        let answer = post(&mesh, "/v1/email:resendVerification", json!({"email": email}), None).await.expect(200);
        assert_eq!(answer.json(), json!({}));
    }
    wait_for_link(&smtp, &other, "verify-email", 1).await;
    assert_eq!(links(&smtp, &email, "verify-email").len(), known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_address_is_verified_told_to_both_and_undone_by_the_one_before() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    verify(&mesh, &wait_for_link(&smtp, &user.email, "verify-email", 0).await).await.expect(200);
    let new = unique_email();
    let change = |password: &str| json!({"newEmail": new, "currentPassword": password});
    post(&mesh, "/v1/email:change", change(&user.password), None).await.refused(Reason::TokenMissing);
    let wrong = post(&mesh, "/v1/email:change", change("wrong horse"), Some(&tokens.access)).await;
    wrong.refused(Reason::InvalidCredentials);
    post(&mesh, "/v1/email:change", change(&user.password), Some(&tokens.access)).await.expect(200);
    wait_for_subject(&smtp, &user.email, "change of your").await;
    let token = wait_for_link(&smtp, &new, "verify-email", 0).await;
    assert_eq!(me(&mesh, &tokens.access).await["email"], user.email.as_str());
    let verified = verify(&mesh, &token).await.expect(200).json();
    assert_eq!(verified, json!({"email": new, "emailVerified": true}));
    assert_eq!(me(&mesh, &tokens.access).await["email"], new.as_str());
    assert!(signs_in(&mesh, &new, &user.password).await && !signs_in(&mesh, &user.email, &user.password).await);
    // Nobody else gets the address meanwhile.
    let body = json!({"email": user.email, "password": PASSWORD, "displayName": "Eve"});
    post(&mesh, "/v1/auth/register", body, None).await.refused(Reason::EmailTaken);

    let undo = wait_for_link(&smtp, &user.email, "undo-email-change", 0).await;
    let undone = post(&mesh, "/v1/email:undoChange", json!({"token": undo}), None).await.expect(200).json();
    assert_eq!(undone, json!({"sessionsEnded": true}));
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
    post(&mesh, "/v1/email:undoChange", json!({"token": undo}), None).await.refused(Reason::LinkInvalid);
    let reset = wait_for_link(&smtp, &user.email, "reset-password", 0).await;
    let login = json!({"email": user.email, "password": user.password});
    post(&mesh, "/v1/auth/login", login, None).await.refused(Reason::PasswordResetRequired);
    post(&mesh, "/v1/password:reset", json!({"token": reset, "newPassword": NEW}), None).await.expect(200);
    assert!(signs_in(&mesh, &user.email, NEW).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_and_uses_of_links_are_limited() {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = setup(&smtp).with_default_rate_limits().set("limits.email_per_minute", "3").start();
    let requests = [
        ("/v1/email:verify", json!({"token": "x"})),
        ("/v1/email:undoChange", json!({"token": "x"})),
        ("/v1/signIns:report", json!({"token": "x"})),
    ];
    for (path, body) in requests {
        post(&mesh, path, body, None).await.refused(Reason::LinkInvalid);
    }
    let body = json!({"email": "ada@example.com"});
    post(&mesh, "/v1/email:resendVerification", body, None).await.refused(Reason::RateLimited);
}

/// Killed at any moment, a registration has happened as a whole or not at all.
async fn register_and_kill(engine: Engine) {
    let smtp = Smtp::start(SmtpOptions::default());
    let setup = || engine.restartable(verifying(&smtp));
    let mut mesh = setup().start();
    let mut happened = 0;
    for round in 0..rounds() {
        let (email, id) = (unique_email(), Uuid::now_v7().to_string());
        let body = json!({"email": email, "password": PASSWORD, "displayName": "Ada", "requestId": id});
        let rest = mesh.rest();
        let answer = tokio::spawn(async move {
            rest.post("/v1/auth/register", body).try_send().await.is_ok_and(|answer| answer.status == 200)
        });
        sleep(Duration::from_micros(round * 6_151 % 70_000)).await;
        mesh = setup().home(mesh.kill()).start();
        if answer.await.unwrap() {
            happened += 1;
        } else {
            // It may have happened all the same: the client repeats it.
            register(&mesh, &email, PASSWORD, &id).await;
        }
        let token = wait_for_link(&smtp, &email, "verify-email", 0).await;
        verify(&mesh, &token).await.expect(200);
        // At once, or when the lease of the killed process has ended that created the account.
        wait::until("the account has its password", async || {
            let login = json!({"email": email, "password": PASSWORD});
            let login = post(&mesh, "/v1/auth/login", login, None).await;
            assert!(login.status == 200 || login.reason() == "EMAIL_NOT_VERIFIED", "{login:?}");
            (login.status == 200).then_some(())
        })
        .await;
    }
    println!("{happened} of {} registrations were answered", rounds());
}

/// Killed at any moment, a change of the address has happened, and the one before is told, or not at all.
async fn change_and_kill(engine: Engine) {
    let smtp = Smtp::start(SmtpOptions::default());
    let setup = || engine.restartable(setup(&smtp));
    let mut mesh = setup().start();
    let mut happened = 0;
    for round in 0..rounds() {
        let (user, tokens) = User::signed_in(&mesh).await;
        verify(&mesh, &wait_for_link(&smtp, &user.email, "verify-email", 0).await).await.expect(200);
        let new = unique_email();
        let change = json!({"newEmail": new, "currentPassword": user.password});
        post(&mesh, "/v1/email:change", change, Some(&tokens.access)).await.expect(200);
        let token = wait_for_link(&smtp, &new, "verify-email", 0).await;
        let (rest, body) = (mesh.rest(), json!({"token": token}));
        let answer = tokio::spawn(async move {
            rest.post("/v1/email:verify", body).try_send().await.is_ok_and(|answer| answer.status == 200)
        });
        sleep(Duration::from_micros(round * 5_231 % 60_000)).await;
        mesh = setup().home(mesh.kill()).start();
        let has_succeeded = answer.await.unwrap();
        let again = verify(&mesh, &token).await;
        if again.status == 200 {
            assert!(!has_succeeded, "a link serves once");
        } else {
            again.refused(Reason::LinkInvalid);
            happened += 1;
        }
        wait::until("the account has the new address", async || {
            (signs_in(&mesh, &new, &user.password).await && !signs_in(&mesh, &user.email, &user.password).await)
                .then_some(())
        })
        .await;
        wait_for_link(&smtp, &user.email, "undo-email-change", 0).await;
    }
    println!("{happened} of {} changes had happened", rounds());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_leaves_no_half_of_a_registration() {
    register_and_kill(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_leaves_no_half_of_a_registration_on_postgres() {
    register_and_kill(Engine::postgres().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_leaves_no_half_of_a_changed_address() {
    change_and_kill(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_mesh_leaves_no_half_of_a_changed_address_on_postgres() {
    change_and_kill(Engine::postgres().await).await;
}
