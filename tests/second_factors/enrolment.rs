//! Users whose role asks for a second factor, over REST.

use drystone::Reason;
use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{User, mails::setup};
use serde_json::json;

use crate::{
    authenticator::{Authenticator, ORIGIN},
    calls::{challenge, claims, complete, post, verify_email},
    passkeys::begin,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_whose_role_asks_for_it_adds_a_passkey_while_they_sign_in() {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = setup(&smtp)
        .set("auth.passkeys.rp_id", "example.com")
        .set("auth.passkeys.origins", &json!([ORIGIN]).to_string())
        .set("auth.mfa.required_roles", r#"["member"]"#)
        .start();
    let user = User::register(&mesh).await;
    let waiting = challenge(&mesh, &user, &user.password).await;
    assert_eq!((&waiting["enrolmentRequired"], &waiting["factors"]), (&json!(true), &json!([])));
    let of_challenge = json!({"challengeToken": waiting["challengeToken"]});
    let path = "/v1/passkeys:beginEnrolment";
    post(&mesh, path, of_challenge.clone(), None).await.refused(Reason::EmailNotVerified);
    post(&mesh, "/v1/factors:beginTotpEnrolment", of_challenge.clone(), None).await.refused(Reason::EmailNotVerified);
    verify_email(&mesh, &smtp, &user).await;

    let mut device = Authenticator::new();
    let options = begin(&mesh, "Enrolment", of_challenge.clone(), None).await;
    let enrol = |challenge: &str, credential: &serde_json::Value| json!({"challengeToken": challenge, "credential": credential});
    let credential = device.create(&options, &json!({}));
    // It is for this sign-in alone.
    let other = challenge(&mesh, &user, &user.password).await;
    let of_other = enrol(other["challengeToken"].as_str().unwrap(), &credential);
    post(&mesh, "/v1/passkeys:enrol", of_other, None).await.refused(Reason::PasskeyInvalid);
    let own = enrol(waiting["challengeToken"].as_str().unwrap(), &credential);
    let enrolled = post(&mesh, "/v1/passkeys:enrol", own, None).await.expect(200).json();
    assert_eq!(enrolled["backupCodes"].as_array().unwrap().len(), 10);
    post(&mesh, path, of_challenge.clone(), None).await.refused(Reason::SecondFactorRequired);

    let proof = device.get(&begin(&mesh, "SignIn", of_challenge, None).await, &json!({}));
    let completed = complete(&mesh, &waiting, "passkey", proof).await.expect(200).json();
    let access = completed["accessToken"].as_str().unwrap();
    assert_eq!(claims(access)["amr"], json!(["pwd", "hwk", "user", "mfa"]));
    post(&mesh, "/v1/factors:disable", json!({}), Some(access)).await.refused(Reason::LastFactor);
}
