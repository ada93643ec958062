//! The time of an answer does not tell whether an address has an account. `tests/harness/timing.rs` states statistic and sample.

use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{timing::assert_alike, unique_email};
use serde_json::{Value, json};

use crate::{emails::verifying, passwords::post, server::wait_for_link};

/// A path, and the body for an address.
type Case = (&'static str, fn(&str) -> Value);

fn address(email: &str) -> Value {
    json!({"email": email})
}

fn register(email: &str) -> Value {
    json!({"email": email, "password": "correct horse of a test", "displayName": "Ada"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_and_unknown_addresses_are_answered_in_the_same_time() {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = verifying(&smtp).set("auth.password.memory_kib", "64").set("auth.password.iterations", "1").start();
    let known = unique_email();
    post(&mesh, "/v1/auth/register", register(&known), None).await.expect(200);
    let token = wait_for_link(&smtp, &known, "verify-email", 0).await;
    post(&mesh, "/v1/email:verify", json!({"token": token}), None).await.expect(200);

    let cases: [Case; 3] = [
        ("/v1/password:requestReset", address),
        ("/v1/email:resendVerification", address),
        ("/v1/auth/register", register),
    ];
    for (path, body) in cases {
        let send = async |email: &str| {
            post(&mesh, path, body(email), None).await.expect(200);
        };
        assert_alike(path, async || send(&known).await, async || send(&unique_email()).await).await;
    }
}
