//! The sign-ins of a user, and the mail about a new device.

use std::{sync::Arc, time::Duration};

use drystone::auth::v1::{SignIn, SignInMethod, SignInOutcome};
use drystone_mesh::{error::Reason, token::Principal};

use super::{
    fixture::{EMAIL, Fixture, PASSWORD, fast_hashing},
    reason,
    running::Running,
};
use crate::Config;

const NEW_PASSWORD: &str = "a new horse in the stable";

impl Running {
    /// The outcomes, newest first, once there are so many: failures are stored after they were answered.
    async fn outcomes(&self, by: &Arc<Principal>, count: usize) -> Vec<SignInOutcome> {
        loop {
            let sign_ins = self.sign_ins(by, 0).await;
            if sign_ins.len() >= count {
                return sign_ins.iter().map(SignIn::outcome).collect();
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_ins_are_listed_with_time_address_device_method_and_outcome() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(
        reason(running.fixture.sign_in_from("198.51.100.9", EMAIL, "wrong horse").await),
        Reason::InvalidCredentials
    );
    let outcomes = running.outcomes(&user, 2).await;
    assert_eq!(outcomes, [SignInOutcome::WrongPassword, SignInOutcome::Succeeded]);
    let sign_ins = running.sign_ins(&user, 1).await;
    let (failed, succeeded) = (&sign_ins[0], &sign_ins[1]);
    assert_eq!(
        (failed.address.as_str(), failed.device.as_str(), failed.session_id.as_str()),
        ("198.51.100.9", "test", "")
    );
    assert_eq!((succeeded.address.as_str(), succeeded.method()), ("192.0.2.7", SignInMethod::Password));
    assert_eq!(succeeded.session_id, user.session_id.to_string());
    assert!(succeeded.is_new_device);
    let seconds = |sign_in: &SignIn| sign_in.create_time.unwrap().seconds;
    assert_eq!(seconds(failed) - seconds(succeeded), 60);
    // Somebody else sees nothing of it.
    running.fixture.register("bob@example.com", "another horse", "").await.unwrap();
    let tokens = running.fixture.sign_in("bob@example.com", "another horse").await.unwrap().into_inner();
    let bob = running.fixture.verify(&tokens.access_token).await;
    assert_eq!(running.sign_ins(&bob, 0).await.len(), 1);
    running.fixture.clock.advance(Duration::from_hours(90 * 24));
    assert!(running.sign_ins(&user, 0).await.is_empty(), "for 90 days");
    running.fixture.store.forget_sign_ins(running.fixture.clock.now() - Duration::from_hours(1)).await.unwrap();
    let left: i64 = drystone_store::run!(running.fixture.store.db().reader(), |db| {
        sqlx::query_scalar("SELECT COUNT(*) FROM sign_in").fetch_one(db).await.unwrap()
    });
    assert_eq!(left, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_after_the_password_is_listed_as_that() {
    let config = Config { require_verified_email: true, ..fast_hashing() };
    let running = Running::of(Fixture::with_account().await.restart(config).await);
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::EmailNotVerified);
    // A disabled account is sent no link.
    running.settle().await;
    running.fixture.upstreams.state().is_disabled = true;
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::AccountDisabled);
    running.fixture.upstreams.state().is_disabled = false;
    let link = running.link_in("email_verification", "verify-email").await;
    running.verify_email(&link).await.unwrap();
    let user = running.sign_in(PASSWORD).await.unwrap();
    let mut outcomes = running.outcomes(&user, 3).await;
    outcomes.sort_unstable();
    assert_eq!(outcomes, [SignInOutcome::Succeeded, SignInOutcome::AccountDisabled, SignInOutcome::EmailNotVerified]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_of_strangers_push_out_no_success() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let history = &running.fixture.service.sign_ins.history;
    let call = drystone_mesh::call::Call::background(None);
    for number in 0..130_usize {
        running.fixture.clock.advance(Duration::from_millis(1));
        history.failed(
            &call,
            user.user_id,
            crate::sign_in_history::Method::Password,
            crate::sign_in_history::Outcome::WrongPassword,
            true,
        );
        running.outcomes(&user, (number + 2).min(101)).await;
    }
    let outcomes = running.outcomes(&user, 101).await;
    assert_eq!(outcomes.len(), 101);
    assert_eq!(outcomes.last(), Some(&SignInOutcome::Succeeded));
    let credential = running.fixture.store.credential(user.user_id).await.unwrap().unwrap();
    for _ in 0..103 {
        assert!(history.succeeded(&call, &credential, EMAIL, user.session_id, false, None).await.unwrap());
    }
    let outcomes = running.outcomes(&user, 200).await;
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == SignInOutcome::Succeeded).count(), 100);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_told_of_a_new_device_and_not_of_their_first_or_known_one() {
    let running = Running::with_account().await;
    let known = running.fixture.sign_in_on("192.0.2.7", PASSWORD, "").await.unwrap();
    running.fixture.sign_in_on("192.0.2.7", PASSWORD, &known).await.unwrap();
    assert!(running.messages("new_device").await.is_empty());
    running.fixture.sign_in_on("198.51.100.9", PASSWORD, "").await.unwrap();
    let told = running.messages("new_device").await;
    assert_eq!(told.len(), 1);
    let parameters = &told[0].parameters;
    let shown = [&parameters["address"], &parameters["device"], &parameters["method"]];
    assert_eq!(shown, ["198.51.100.9", "test", "password"]);
    assert_eq!(running.messages("new_device_notice").await.len(), 1);
    for _ in 0..8 {
        running.fixture.sign_in_on("198.51.100.9", PASSWORD, "").await.unwrap();
    }
    assert_eq!(running.messages("new_device").await.len(), 5, "not too much");
    assert_eq!(running.messages("new_device_notice").await.len(), 9, "the inbox has all");
    // The first sign-in to an account that is older may be that of somebody else.
    let other = Running::with_account().await;
    other.fixture.clock.advance(Duration::from_hours(1));
    other.sign_in(PASSWORD).await.unwrap();
    assert_eq!(other.messages("new_device").await.len(), 1);
    other.stop().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_was_not_me_ends_the_sessions_and_asks_for_a_new_password() {
    let running = Running::with_account().await;
    running.verify_email(&running.link_in("email_verification", "verify-email").await).await.unwrap();
    let known = running.fixture.sign_in_on("192.0.2.7", PASSWORD, "").await.unwrap();
    let owner = running.sign_in(PASSWORD).await.unwrap();
    let thief = running.sign_in(PASSWORD).await.unwrap();
    let link = running.link_in("new_device", "report-sign-in").await;
    // The thief changes the address as well.
    running.change_email(&thief, PASSWORD, "thief@example.net").await.unwrap();
    running.verify_email(&running.link_in("email_change", "verify-email").await).await.unwrap();
    running.fixture.upstreams.state().ended.clear();

    assert!(running.report_sign_in(&link).await.unwrap());
    assert_eq!(running.fixture.upstreams.state().ended, [(owner.user_id, None)]);
    let reset = running.link().await;
    assert_eq!(running.messages("password_reset").await[0].recipient.as_ref().unwrap().email, EMAIL);
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::PasswordResetRequired);
    assert_eq!(reason(running.sign_in("wrong horse").await), Reason::InvalidCredentials);
    assert_eq!(reason(running.report_sign_in(&link).await), Reason::LinkInvalid, "once");
    running.reset(&reset, NEW_PASSWORD).await.unwrap();
    let user = running.sign_in(NEW_PASSWORD).await.unwrap();
    // A device from before is a new one, since it may be the thief's.
    let told = running.messages("new_device").await.len();
    running.fixture.clock.advance(Duration::from_hours(1));
    let again = running.fixture.sign_in_on("192.0.2.7", NEW_PASSWORD, &known).await.unwrap();
    assert_eq!(running.messages("new_device").await.len(), told + 1);
    running.fixture.sign_in_on("192.0.2.7", NEW_PASSWORD, &again).await.unwrap();
    assert_eq!(running.messages("new_device").await.len(), told + 1);
    assert!(running.outcomes(&user, 8).await.contains(&SignInOutcome::PasswordResetRequired));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ratio_of_failures_is_a_metric_that_falls_again() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    assert!(fixture.has_metric("drystone_sign_in_failure_ratio 0.0"), "{}", fixture.metrics.render());
    running.sign_in(PASSWORD).await.unwrap();
    for email in [EMAIL, "unknown@example.com", "no address"] {
        assert_eq!(reason(fixture.sign_in(email, "wrong horse").await), Reason::InvalidCredentials);
    }
    assert!(fixture.has_metric("drystone_sign_in_failure_ratio 0.75"), "{}", fixture.metrics.render());
    assert!(fixture.has_metric("drystone_sign_ins_total{outcome=\"failed\"} 3"));
    assert!(fixture.has_metric("drystone_sign_ins_total{outcome=\"succeeded\"} 1"));
    fixture.clock.advance(Duration::from_mins(5));
    assert!(fixture.has_metric("drystone_sign_in_failure_ratio 0.0"));
    running.stop().await;
}

/// What is kept for a time is what is live at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn simulated_days_leave_only_what_is_live() {
    const DAYS: u32 = 120;
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    for _ in 0..DAYS {
        fixture.clock.advance(Duration::from_hours(24));
        running.sign_in(PASSWORD).await.unwrap();
        assert_eq!(reason(running.sign_in("wrong horse").await), Reason::InvalidCredentials);
        running.request(EMAIL).await;
        running.resend(EMAIL).await;
        running.settle().await;
        let now = fixture.clock.now();
        fixture.store.forget_links(now).await.unwrap();
        fixture.store.forget_sign_ins(now - crate::sign_in_history::RETENTION).await.unwrap();
    }
    let count = async |table: &str| -> i64 {
        let sql = format!("SELECT COUNT(*) FROM {table}");
        drystone_store::run!(fixture.store.db().reader(), |db| {
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db).await.unwrap()
        })
    };
    // Links to report the sign-ins of a week, the last of which expires now, and those of the last day; a sign-in and a failure of each
    // of 90 days.
    assert!(count("link").await <= 8 + 4, "{}", count("link").await);
    assert!(count("sign_in").await <= 2 * 91, "{}", count("sign_in").await);
    assert_eq!((count("outbox").await, count("credential").await), (0, 1));
    running.stop().await;
}
