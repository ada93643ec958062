//! The time of an answer does not tell whether an address has an account.
//!
//! The statistic is that of Mann and Whitney: how often one of two random answers, of a known and of an unknown address, takes longer. It
//! compares ranks of requests that alternate, so that the load of the machine concerns both alike. 0.5 is no difference; with 150
//! requests of each kind its standard error is 0.033, and five of these are allowed.

use std::time::Instant;

use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::unique_email;
use serde_json::{Value, json};

use crate::{emails::verifying, passwords::post, server::wait_for_link};

/// A path, and the body for an address.
type Case = (&'static str, fn(&str) -> Value);

const SAMPLES: usize = 150;
const MAX_DIFFERENCE: f64 = 5.0 * 0.033;

/// The share of pairs in which the first is greater; half of those that are equal.
fn mann_whitney(first: &[f64], second: &[f64]) -> f64 {
    let mut greater = 0.0;
    for one in first {
        for other in second {
            greater += if one > other {
                1.0
            } else if one < other {
                0.0
            } else {
                0.5
            };
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand pairs")]
    let pairs = (first.len() * second.len()) as f64;
    greater / pairs
}

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
        let (mut of_known, mut of_unknown) = (Vec::new(), Vec::new());
        for round in 0..SAMPLES {
            let unknown = unique_email();
            let mut pair = [(&known, &mut of_known), (&unknown, &mut of_unknown)];
            if round % 2 == 1 {
                pair.reverse();
            }
            for (email, times) in pair {
                let started = Instant::now();
                post(&mesh, path, body(email), None).await.expect(200);
                times.push(started.elapsed().as_secs_f64());
            }
        }
        let statistic = mann_whitney(&of_known, &of_unknown);
        println!("{path}: {statistic:.3} of {SAMPLES} requests each");
        assert!((statistic - 0.5).abs() < MAX_DIFFERENCE, "{path}: {statistic}");
    }
}
