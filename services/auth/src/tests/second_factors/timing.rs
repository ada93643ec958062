//! What wrong passwords and codes cost: as much whatever the account has, so that the time of an answer tells nothing about it.
//!
//! What takes long is counted: password hashes, of tens of milliseconds with the default cost, and calls to other services. What is left
//! are the codes of apps, whose time is compared.

use std::{mem, time::Instant};

use super::*;

const BOB: &str = "bob@example.com";
const BOBS_PASSWORD: &str = "another horse";

/// As long as a code, and never one.
const NO_CODE: &str = "abcdef";

/// The work of a call.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    hashes: u64,
    calls: Vec<&'static str>,
}

/// Why a call is refused, and its work.
async fn work<T>(running: &Running, refused: impl Future<Output = Result<T, Status>>) -> (Reason, Work) {
    // What follows from earlier calls makes calls as well.
    running.settle().await;
    running.fixture.upstreams.state().calls.clear();
    let before = hashes(running);
    let reason = reason(refused.await);
    let calls = mem::take(&mut running.fixture.upstreams.state().calls);
    (reason, Work { hashes: hashes(running) - before, calls })
}

fn hashes(running: &Running) -> u64 {
    let metrics = running.fixture.metrics.render();
    let mut lines = metrics.lines();
    let count = lines.find_map(|line| line.strip_prefix("drystone_password_hash_duration_seconds_count "));
    count.unwrap().parse().unwrap()
}

/// The challenge of a sign-in, a day after earlier ones: nobody waits because of the wrong codes of those.
async fn fresh_challenge(running: &Running, email: &str, password: &str) -> SignInChallenge {
    running.fixture.clock.advance(Duration::from_hours(25));
    let request = SignInRequest { email: email.to_owned(), password: password.to_owned(), ..SignInRequest::default() };
    let response = running.fixture.service.auth.sign_in(from_outside(request, None)).await.unwrap();
    running.settle().await;
    response.into_inner().challenge.unwrap()
}

/// Bob, beside Ada. His address is verified.
async fn register_bob(running: &Running) -> Arc<Principal> {
    running.fixture.register(BOB, BOBS_PASSWORD, "").await.unwrap();
    for user in running.fixture.upstreams.state().users.values_mut() {
        user.email_verified = true;
    }
    let tokens = running.fixture.sign_in(BOB, BOBS_PASSWORD).await.unwrap().into_inner();
    running.fixture.verify(&tokens.access_token).await
}

/// Otherwise anybody could tell which addresses have an account, and for which of these a password suffices: those to attack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_costs_the_same_with_and_without_a_second_factor_and_an_account() {
    let running = Running::with_verified_account().await;
    running.with_app().await;
    register_bob(&running).await;
    for email in [EMAIL, BOB, "nobody@example.com"] {
        let cost = work(&running, running.fixture.sign_in_from("192.0.2.7", email, "wrong horse")).await;
        let expected = Work { hashes: 1, calls: vec!["account_by_email", "property_claims"] };
        assert_eq!(cost, (Reason::InvalidCredentials, expected), "{email}");
    }
    running.stop().await;
}

/// Otherwise who knows the password could tell which of the ten codes are left, by the number that each begins with, and that a code
/// which they have found was right once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_backup_code_costs_one_hash_whichever_are_left() {
    let running = Running::with_verified_account().await;
    let (_, _, codes) = running.with_app().await;
    let assert_cost = async |code: &str| {
        let challenge = fresh_challenge(&running, EMAIL, PASSWORD).await;
        let cost = work(&running, running.complete_with(&challenge, "", code)).await;
        assert_eq!(cost, (Reason::CodeInvalid, Work { hashes: 1, calls: Vec::new() }), "{code}");
    };
    let (first, last) = ("0000-0000-0000", "9000-0000-0000");
    assert_cost(first).await;
    running.complete_with(&running.challenge("").await, "", &codes[0]).await.unwrap();
    for code in [first, last, &codes[0]] {
        assert_cost(code).await;
    }
    for code in &codes[1..] {
        running.complete_with(&running.challenge("").await, "", code).await.unwrap();
    }
    for code in [first, last, &codes[9]] {
        assert_cost(code).await;
    }
    running.stop().await;
}

/// Otherwise who knows the password could tell how many apps there are, and so who is worth the effort. With a master key in a file that
/// is some microseconds an app, far less than what the rest of a call differs by; the bounds are wide.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_code_costs_the_same_with_three_apps_as_with_one() {
    let running = Running::with_verified_account().await;
    running.with_app().await;
    let mut bob = register_bob(&running).await;
    for _ in 0..3 {
        running.add_app(&bob).await;
        bob = running.refreshed(&bob);
    }
    for (email, password) in [(EMAIL, PASSWORD), (BOB, BOBS_PASSWORD)] {
        let challenge = fresh_challenge(&running, email, password).await;
        let cost = work(&running, running.complete(&challenge, NO_CODE)).await;
        assert_eq!(cost, (Reason::CodeInvalid, Work { hashes: 0, calls: Vec::new() }), "{email}");
    }

    let (mut with_one, mut with_three) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        for (email, password, times) in [(EMAIL, PASSWORD, &mut with_one), (BOB, BOBS_PASSWORD, &mut with_three)] {
            let challenge = fresh_challenge(&running, email, password).await;
            let started = Instant::now();
            let refused = running.complete(&challenge, NO_CODE).await;
            times.push(started.elapsed());
            assert_eq!(reason(refused), Reason::CodeInvalid);
        }
    }
    let ratio = median(with_three).as_secs_f64() / median(with_one).as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "{ratio}");
    running.stop().await;
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
