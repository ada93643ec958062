//! Changing and resetting passwords.

use std::{sync::Arc, time::Duration};

use drystone_mesh::error::Reason;
use tokio::sync::Notify;

use super::{
    fake::Availability,
    fixture::{EMAIL, Fixture, PASSWORD},
    reason,
    running::Running,
};
use crate::password::typed_password::{PasswordForm, TypedPassword};

const NEW: &str = "a new horse in the stable";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_changed_by_who_knows_it_and_the_other_sessions_end() {
    let running = Running::with_account().await;
    let other = running.sign_in(PASSWORD).await.unwrap();
    let user = running.sign_in(PASSWORD).await.unwrap();
    assert_eq!(reason(running.change(&user, "wrong horse", NEW).await), Reason::InvalidCredentials);
    assert!(running.change(&user, PASSWORD, NEW).await.unwrap());
    assert_eq!(running.fixture.upstreams.state().ended, [(user.user_id, Some(user.session_id))]);
    assert!(!running.fixture.upstreams.state().sessions.contains_key(&other.session_id));
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::InvalidCredentials);
    running.sign_in(NEW).await.unwrap();
    let told = running.messages("password_changed").await;
    assert_eq!(told.len(), 1);
    let recipient = told[0].recipient.as_ref().unwrap();
    assert_eq!(
        (recipient.email.as_str(), recipient.display_name.as_str(), recipient.locale.as_str()),
        (EMAIL, "Ada", "de")
    );
    assert_eq!((told[0].parameters["device"].as_str(), told[0].parameters["address"].as_str()), ("test", "192.0.2.7"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_weak_password_is_refused_with_what_would_help() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.request(EMAIL).await;
    let link = running.link().await;
    for weak in ["password", "12345678", "ada@example.com", "qwertyuiop"] {
        for refused in [running.change(&user, PASSWORD, weak).await, running.reset(&link, weak).await] {
            let status = refused.unwrap_err();
            assert!(status.message().starts_with("the password is"), "{}", status.message());
            assert!(weak == "password" || !status.message().contains(weak), "{}", status.message());
            assert_eq!(reason::<()>(Err(status)), Reason::PasswordTooWeak, "{weak}");
        }
    }
    for weak in ["password", "12345678", "bob@example.com"] {
        assert_eq!(reason(running.fixture.register("bob@example.com", weak, "").await), Reason::PasswordTooWeak);
    }
    for short in ["1234567", ""] {
        assert_eq!(reason(running.change(&user, PASSWORD, short).await), Reason::InvalidRequest);
    }
    running.reset(&link, NEW).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_of_the_current_password_are_limited() {
    let fixture = Fixture::limited(3).await;
    fixture.register(EMAIL, PASSWORD, "").await.unwrap();
    let running = Running::of(fixture);
    let user = running.sign_in(PASSWORD).await.unwrap();
    for _ in 0..3 {
        assert_eq!(reason(running.change(&user, "wrong horse", NEW).await), Reason::InvalidCredentials);
    }
    assert_eq!(reason(running.change(&user, PASSWORD, NEW).await), Reason::RateLimited);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_password_is_reset_by_a_link_that_serves_once() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.request(" ADA@Example.com ").await;
    let link = running.link().await;
    let sent = running.messages("password_reset").await.remove(0);
    assert_eq!(sent.parameters["minutes"], "30");
    assert_eq!(sent.expire_time.unwrap().seconds, running.fixture.clock.now().timestamp() + 1800);
    assert!(running.reset(&link, NEW).await.unwrap());
    assert_eq!(running.fixture.upstreams.state().ended, [(user.user_id, None)]);
    assert_eq!(reason(running.reset(&link, "yet another horse").await), Reason::LinkInvalid);
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::InvalidCredentials);
    running.sign_in(NEW).await.unwrap();
    assert_eq!(running.messages("password_changed").await.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_expires_and_is_void_after_a_change_of_the_password() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.request(EMAIL).await;
    let first = running.link().await;
    running.fixture.clock.advance(Duration::from_mins(1));
    running.request(EMAIL).await;
    let second = running.link().await;
    assert_ne!(first, second);
    running.reset(&first, NEW).await.unwrap();
    assert_eq!(
        reason(running.reset(&second, "yet another horse").await),
        Reason::LinkInvalid,
        "the others end with it"
    );

    running.request(EMAIL).await;
    let third = running.link().await;
    running.change(&user, NEW, "changed by its owner").await.unwrap();
    assert_eq!(reason(running.reset(&third, "yet another horse").await), Reason::LinkInvalid);

    running.request(EMAIL).await;
    let fourth = running.link().await;
    running.fixture.clock.advance(Duration::from_mins(30));
    assert_eq!(reason(running.reset(&fourth, "yet another horse").await), Reason::LinkInvalid);
    running.sign_in("changed by its owner").await.unwrap();
    for forged in ["", "x", &fourth.replace('A', "B"), &fourth[1..]] {
        assert_eq!(reason(running.reset(forged, NEW).await), Reason::LinkInvalid);
    }
    running.fixture.store.forget_links(running.fixture.clock.now()).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_resets_at_once_one_wins() {
    let running = Running::with_account().await;
    running.request(EMAIL).await;
    let link = running.link().await;
    let (one, other) = tokio::join!(running.reset(&link, NEW), running.reset(&link, "another stable horse"));
    assert_ne!(one.is_ok(), other.is_ok());
    let (winner, loser) = if one.is_ok() { (NEW, other) } else { ("another stable horse", one) };
    assert_eq!(reason(loser), Reason::LinkInvalid);
    running.sign_in(winner).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_or_disabled_account_is_sent_nothing_and_a_known_one_not_too_much() {
    let running = Running::with_account().await;
    for unknown in ["bob@example.com", "no address", "ada@example.com\u{0}"] {
        running.request(unknown).await;
    }
    assert!(running.messages("password_reset").await.is_empty());
    running.fixture.upstreams.state().is_disabled = true;
    running.request(EMAIL).await;
    assert!(running.messages("password_reset").await.is_empty());
    running.fixture.upstreams.state().is_disabled = false;
    for _ in 0..8 {
        running.request(EMAIL).await;
        running.fixture.clock.advance(Duration::from_millis(5));
    }
    assert_eq!(running.messages("password_reset").await.len(), 5);
    running.fixture.clock.advance(Duration::from_hours(1));
    running.request(EMAIL).await;
    assert_eq!(running.messages("password_reset").await.len(), 6);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_a_session_to_a_reused_token_is_told() {
    let running = Running::with_account().await;
    let first = running.fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    running.fixture.refresh(&first.refresh_token).await.unwrap();
    assert!(running.messages("session_ended_reuse").await.is_empty());
    assert_eq!(reason(running.fixture.refresh(&first.refresh_token).await), Reason::RefreshTokenReused);
    let told = running.messages("session_ended_reuse").await;
    assert_eq!(told.len(), 1);
    let (recipient, parameters) = (told[0].recipient.as_ref().unwrap(), &told[0].parameters);
    assert_eq!((recipient.email.as_str(), recipient.user_id.as_str()), (EMAIL, first.user_id.as_str()));
    assert_eq!((parameters["device"].as_str(), parameters["address"].as_str()), ("test", "192.0.2.7"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_seems_to_share_a_session_is_told_once_a_day() {
    let running = Running::with_account().await;
    let first = running.fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    running.fixture.refresh(&first.refresh_token).await.unwrap();
    running.fixture.upstreams.state().sessions_are_shared = true;
    for _ in 0..3 {
        running.fixture.refresh(&first.refresh_token).await.unwrap();
        assert_eq!(running.messages("session_shared").await.len(), 1);
    }
    running.fixture.clock.advance(Duration::from_hours(25));
    running.fixture.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(running.messages("session_shared").await.len(), 2);
    running.stop().await;
}

/// A sign-in with the old password that is under way may start its session after all others have ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_with_a_password_that_is_changed_meanwhile_gets_no_tokens() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let gate = Arc::new(Notify::new());
    running.fixture.upstreams.state().session_gate = Some(Arc::clone(&gate));
    running.fixture.upstreams.state().calls.clear();
    let late = async {
        let outcome = running.fixture.sign_in(EMAIL, PASSWORD).await;
        reason(outcome)
    };
    let change = async {
        while !running.fixture.upstreams.state().calls.contains(&"start_session") {
            tokio::task::yield_now().await;
        }
        running.change(&user, PASSWORD, NEW).await.unwrap();
        gate.notify_one();
    };
    let (late, ()) = tokio::join!(late, change);
    assert_eq!(late, Reason::InvalidCredentials);

    // A hash that is replaced by another one of the same password changes nothing.
    let credential = running.fixture.store.credential(user.user_id).await.unwrap().unwrap();
    let copy = running.fixture.service.passwords.change.check.hashing.clone();
    let same = copy.hash_if_idle(TypedPassword::new(NEW.to_owned()).in_form(PasswordForm::Opaque).clone());
    let same = same.await.unwrap().unwrap();
    running.fixture.upstreams.state().calls.clear();
    let upgrade = async {
        while !running.fixture.upstreams.state().calls.contains(&"start_session") {
            tokio::task::yield_now().await;
        }
        let (store, now) = (&running.fixture.store, running.fixture.clock.now());
        let old = &credential.password_hash;
        assert!(store.replace_password_hash(user.user_id, old, &same, PasswordForm::Opaque, now).await.unwrap());
        gate.notify_one();
    };
    let (signed_in, ()) = tokio::join!(running.fixture.sign_in(EMAIL, NEW), upgrade);
    signed_in.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_elsewhere_at_once_is_done_later() {
    let running = Running::with_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    {
        let mut state = running.fixture.upstreams.state();
        (state.notification_service, state.session_service) = (Availability::Down, Availability::Down);
    }
    running.request(EMAIL).await;
    assert!(!running.change(&user, PASSWORD, NEW).await.unwrap(), "the sessions have not ended yet");
    running.sign_in(NEW).await.unwrap();
    {
        let mut state = running.fixture.upstreams.state();
        (state.notification_service, state.session_service) = (Availability::Up, Availability::Up);
    }
    running.fixture.clock.advance(Duration::from_mins(6));
    assert_eq!(running.messages("password_changed").await.len(), 1);
    assert_eq!(running.fixture.upstreams.state().ended, [(user.user_id, Some(user.session_id))]);
    running.stop().await;
}
