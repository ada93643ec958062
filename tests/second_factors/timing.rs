//! The time of an answer tells nobody which accounts have a second factor: an attacker would try leaked passwords where one suffices.
//! `services/auth/src/tests/second_factors/timing.rs` counts the work, also of unknown accounts and wrong codes.

use drystone::Reason;
use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{User, mails::setup, timing::assert_alike};
use serde_json::json;
use totp_rs::Totp;

use crate::{
    calls::{challenge, post},
    passkeys::verified,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_are_answered_in_the_same_time_with_and_without_a_second_factor() {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = setup(&smtp).set("auth.password.memory_kib", "8192").set("auth.password.iterations", "1").start();
    let without = User::register(&mesh).await;
    let (with, tokens) = verified(&mesh, &smtp).await;
    let token = Some(tokens.access.as_str());
    let begun = post(&mesh, "/v1/factors:beginTotp", json!({}), token).await.expect(200).json();
    let code = Totp::from_url(begun["uri"].as_str().unwrap()).unwrap().generate_current().to_string();
    let confirm = json!({"factorId": begun["factorId"], "code": code});
    post(&mesh, "/v1/factors:confirmTotp", confirm, token).await.expect(200);
    challenge(&mesh, &with, &with.password).await;

    let sign_in = async |email: &str| {
        let login = json!({"email": email, "password": "wrong horse"});
        post(&mesh, "/v1/auth/login", login, None).await.refused(Reason::InvalidCredentials);
    };
    let with_factor = async || sign_in(&with.email).await;
    assert_alike("with and without a second factor", &with_factor, async || sign_in(&without.email).await).await;
}
