//! Verifying and changing e-mail addresses, and getting them back.

use std::time::Duration;

use drystone::notification::v1::SendRequest;
use drystone_mesh::error::Reason;

use super::{
    fake::Availability,
    fixture::{EMAIL, Fixture, PASSWORD, fast_hashing},
    reason,
    running::Running,
};
use crate::Config;

const NEW_EMAIL: &str = "Ada@new.example";
const NEW_PASSWORD: &str = "a new horse in the stable";

impl Running {
    /// A service where addresses have to be verified.
    async fn verifying() -> Self {
        let config = Config { require_verified_email: true, ..fast_hashing() };
        Self::of(Fixture::new().await.restart(config).await)
    }

    async fn verification_link(&self) -> String {
        self.link_in("email_verification", "verify-email").await
    }

    /// A service with an account whose address is verified.
    async fn verified() -> Self {
        let running = Self::with_account().await;
        running.verify_email(&running.verification_link().await).await.unwrap();
        running
    }

    async fn change_link(&self) -> String {
        self.link_in("email_change", "verify-email").await
    }

    async fn undo_link(&self) -> String {
        self.link_in("email_changed", "undo-email-change").await
    }

    /// The address of the only account.
    fn email(&self) -> (String, bool) {
        let state = self.fixture.upstreams.state();
        let user = state.users.values().next().unwrap();
        (user.email.clone(), user.email_verified)
    }

    fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.fixture.upstreams.state().calls)
    }
}

fn to(message: &SendRequest) -> &str {
    &message.recipient.as_ref().unwrap().email
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_verified_by_the_link_of_the_registration() {
    let running = Running::with_account().await;
    let sent = running.messages("email_verification").await;
    assert_eq!((sent.len(), to(&sent[0]), sent[0].parameters["hours"].as_str()), (1, EMAIL, "24"));
    assert_eq!(sent[0].expire_time.unwrap().seconds, running.fixture.clock.now().timestamp() + 86_400);
    assert_eq!(running.email(), (EMAIL.to_owned(), false));
    let link = running.verification_link().await;
    let verified = running.verify_email(&link).await.unwrap();
    assert_eq!((verified.email.as_str(), verified.email_verified), (EMAIL, true));
    assert_eq!(running.email(), (EMAIL.to_owned(), true));
    assert_eq!(reason(running.verify_email(&link).await), Reason::LinkInvalid, "once");
    running.resend(EMAIL).await;
    assert_eq!(running.messages("email_verification").await.len(), 1, "it is verified");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_is_sent_again_expires_and_is_for_one_thing() {
    let running = Running::with_account().await;
    for unknown in ["bob@example.com", "no address"] {
        running.resend(unknown).await;
    }
    let first = running.verification_link().await;
    running.fixture.clock.advance(Duration::from_hours(24));
    assert_eq!(reason(running.verify_email(&first).await), Reason::LinkInvalid);
    for _ in 0..8 {
        running.resend(" ADA@example.com").await;
        running.fixture.clock.advance(Duration::from_millis(5));
    }
    assert_eq!(running.messages("email_verification").await.len(), 6, "five within an hour");
    let link = running.verification_link().await;
    assert_eq!(reason(running.reset(&link, NEW_PASSWORD).await), Reason::LinkInvalid);
    assert_eq!(reason(running.undo_email_change(&link).await), Reason::LinkInvalid);
    assert_eq!(reason(running.report_sign_in(&link).await), Reason::LinkInvalid);
    running.request(EMAIL).await;
    assert_eq!(reason(running.verify_email(&running.link().await).await), Reason::LinkInvalid);
    let (one, other) = tokio::join!(running.verify_email(&link), running.verify_email(&link));
    assert_ne!(one.is_ok(), other.is_ok(), "of two at once one wins");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_is_to_be_verified_does_not_tell_whether_the_address_is_taken() {
    let running = Running::verifying().await;
    running.fixture.register_unverified(EMAIL, PASSWORD).await.unwrap();
    let answered = running.calls();
    let link = running.verification_link().await;
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::EmailNotVerified);
    assert_eq!(reason(running.sign_in("wrong horse").await), Reason::InvalidCredentials);
    running.calls();
    assert_eq!(answered, Vec::<&str>::new(), "nothing is looked up before the answer");
    assert!(running.verify_email(&link).await.unwrap().email_verified);
    running.sign_in(PASSWORD).await.unwrap();
    // Somebody else with the same address.
    // A verified owner is told.
    running.fixture.register_unverified(EMAIL, "somebody else's").await.unwrap();
    let told = running.messages("address_taken").await;
    assert_eq!((told.len(), to(&told[0])), (1, EMAIL));
    assert_eq!(told[0].parameters["link"], "https://id.example.com/sign-in");
    for _ in 0..8 {
        running.fixture.register_unverified(EMAIL, "somebody else's").await.unwrap();
    }
    assert_eq!(running.messages("address_taken").await.len(), 5, "not too much");
    let credentials: i64 = drystone_store::run!(running.fixture.store.db().reader(), |db| {
        sqlx::query_scalar("SELECT COUNT(*) FROM credential").fetch_one(db).await.unwrap()
    });
    assert_eq!(credentials, 1, "none is left of those that were not accounts");
    running.stop().await;
}

/// A stranger who registers an address in advance, and knows the password of that account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_two_have_registered_an_address_its_owner_chooses_a_password() {
    let running = Running::verifying().await;
    running.fixture.register_unverified(EMAIL, "the stranger's").await.unwrap();
    let first = running.verification_link().await;
    running.fixture.clock.advance(Duration::from_mins(1));
    running.fixture.register_unverified("ADA@example.com", "the owner's password").await.unwrap();
    let reset = running.link().await;
    // Whichever link is used.
    running.verify_email(&first).await.unwrap();
    assert_eq!(reason(running.sign_in("the stranger's").await), Reason::PasswordResetRequired);
    assert_eq!(reason(running.sign_in("the owner's password").await), Reason::InvalidCredentials);
    running.reset(&reset, NEW_PASSWORD).await.unwrap();
    running.sign_in(NEW_PASSWORD).await.unwrap();
    assert_eq!(running.email(), (EMAIL.to_owned(), true));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_is_completed_when_the_user_service_has_recovered() {
    let running = Running::verifying().await;
    running.fixture.upstreams.state().next_creation_failure = Some(super::fake::CreationFailure::ResponseLost);
    running.fixture.upstreams.state().notification_service = Availability::Down;
    running.fixture.register_unverified(EMAIL, PASSWORD).await.unwrap();
    assert_eq!(
        reason(running.fixture.register_unverified("bob@example.com", "password").await),
        Reason::PasswordTooWeak
    );
    while !running.fixture.upstreams.state().calls.contains(&"send_message") {
        running.fixture.clock.advance(Duration::from_secs(1));
        running.fixture.service.relay.wake();
        tokio::task::yield_now().await;
    }
    running.fixture.upstreams.state().notification_service = Availability::Up;
    running.settle_over_time().await;
    let link = running.verification_link().await;
    assert!(running.verify_email(&link).await.unwrap().email_verified);
    running.sign_in(PASSWORD).await.unwrap();
    assert_eq!(running.fixture.upstreams.state().users.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_by_a_link_verifies_the_address_that_it_was_sent_to() {
    let running = Running::verifying().await;
    running.fixture.register_unverified(EMAIL, PASSWORD).await.unwrap();
    running.verification_link().await;
    running.request(EMAIL).await;
    running.reset(&running.link().await, NEW_PASSWORD).await.unwrap();
    assert_eq!(running.email(), (EMAIL.to_owned(), true));
    running.sign_in(NEW_PASSWORD).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_asked_for_with_the_password_and_both_addresses_are_told() {
    let running = Running::verified().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    assert_eq!(reason(running.change_email(&user, "wrong horse", NEW_EMAIL).await), Reason::InvalidCredentials);
    assert_eq!(reason(running.change_email(&user, PASSWORD, "no address").await), Reason::InvalidRequest);
    assert_eq!(reason(running.change_email(&user, PASSWORD, EMAIL).await), Reason::InvalidRequest);
    running.change_email(&user, PASSWORD, NEW_EMAIL).await.unwrap();
    let (sent, told) = (running.messages("email_change").await, running.messages("email_change_notice").await);
    assert_eq!((sent.len(), to(&sent[0]), told.len(), to(&told[0])), (1, NEW_EMAIL, 1, EMAIL));
    assert_eq!((told[0].parameters["new_email"].as_str(), told[0].parameters["device"].as_str()), (NEW_EMAIL, "test"));
    assert_eq!(running.email().0, EMAIL, "not yet");

    let link = running.change_link().await;
    let verified = running.verify_email(&link).await.unwrap();
    assert_eq!((verified.email.as_str(), verified.email_verified), (NEW_EMAIL, true));
    assert_eq!(running.email(), (NEW_EMAIL.to_owned(), true));
    let (undo, notice) = (running.messages("email_changed").await, running.messages("email_changed_notice").await);
    assert_eq!((undo.len(), to(&undo[0]), undo[0].parameters["days"].as_str()), (1, EMAIL, "7"));
    assert_eq!((notice.len(), notice[0].parameters["new_email"].as_str()), (1, NEW_EMAIL));
    assert_eq!(reason(running.verify_email(&link).await), Reason::LinkInvalid);
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::InvalidCredentials, "by the address before");
    running.fixture.sign_in(NEW_EMAIL, PASSWORD).await.unwrap();
    for _ in 0..4 {
        running.change_email(&user, PASSWORD, "third@example.com").await.unwrap();
    }
    let limited = running.change_email(&user, PASSWORD, "third@example.com").await;
    assert_eq!(reason(limited), Reason::RateLimited, "five within an hour");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_to_an_address_with_an_account_tells_its_owner_alone() {
    let running = Running::with_account().await;
    running.fixture.register("bob@example.com", "another horse", "").await.unwrap();
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.change_email(&user, PASSWORD, "BOB@example.com").await.unwrap();
    assert!(running.messages("email_change").await.is_empty());
    let links = running.messages("email_verification").await;
    assert_eq!(links.iter().filter(|link| to(link) == "bob@example.com").count(), 2, "bob had not verified it");
    // It becomes taken between the mail and the link.
    running.change_email(&user, PASSWORD, "eve@example.com").await.unwrap();
    let link = running.change_link().await;
    running.fixture.register("eve@example.com", "another horse", "").await.unwrap();
    assert_eq!(reason(running.verify_email(&link).await), Reason::EmailTaken);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_was_sent_to_the_address_before_does_not_serve() {
    let running = Running::with_account().await;
    let verification = running.verification_link().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.request(EMAIL).await;
    let reset = running.link().await;
    running.change_email(&user, PASSWORD, NEW_EMAIL).await.unwrap();
    running.verify_email(&running.change_link().await).await.unwrap();
    assert_eq!(reason(running.reset(&reset, NEW_PASSWORD).await), Reason::LinkInvalid);
    assert_eq!(reason(running.verify_email(&verification).await), Reason::LinkInvalid);
    // Also one that is made while the change is under way.
    running.request(NEW_EMAIL).await;
    let reset = running.link().await;
    running.fixture.upstreams.state().users.get_mut(&user.user_id).unwrap().email = "moved@example.com".to_owned();
    assert_eq!(reason(running.reset(&reset, NEW_PASSWORD).await), Reason::LinkInvalid);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_undone_by_the_address_before_for_seven_days() {
    let running = Running::verified().await;
    let thief = running.sign_in(PASSWORD).await.unwrap();
    running.change_email(&thief, PASSWORD, "thief@example.net").await.unwrap();
    running.verify_email(&running.change_link().await).await.unwrap();
    let owners = running.undo_link().await;
    // The thief goes on: another password and another address do not help.
    running.change(&thief, PASSWORD, "the thief's password").await.unwrap();
    running.fixture.clock.advance(Duration::from_mins(1));
    running.change_email(&thief, "the thief's password", "thief@example.org").await.unwrap();
    running.verify_email(&running.change_link().await).await.unwrap();
    let thiefs = running.undo_link().await;
    assert_ne!(owners, thiefs);
    // A link of the thief's own, to report a sign-in.
    running.fixture.sign_in("thief@example.org", "the thief's password").await.unwrap();
    let report = running.link_in("new_device", "report-sign-in").await;
    assert_eq!(to(running.messages("new_device").await.last().unwrap()), "thief@example.org");
    running.fixture.upstreams.state().ended.clear();

    running.fixture.clock.advance(Duration::from_hours(6 * 24));
    assert!(running.undo_email_change(&owners).await.unwrap());
    assert_eq!(running.fixture.upstreams.state().ended, [(thief.user_id, None)]);
    let reset = running.link().await;
    assert_eq!(to(running.messages("password_reset").await.last().unwrap()), EMAIL);
    assert_eq!(running.email(), (EMAIL.to_owned(), true));
    assert_eq!(reason(running.undo_email_change(&thiefs).await), Reason::LinkInvalid);
    assert_eq!(reason(running.report_sign_in(&report).await), Reason::LinkInvalid);
    assert_eq!(reason(running.undo_email_change(&owners).await), Reason::LinkInvalid, "once");
    assert_eq!(reason(running.sign_in("the thief's password").await), Reason::PasswordResetRequired);
    let late = running.change(&thief, "the thief's password", NEW_PASSWORD).await;
    assert_eq!(reason(late), Reason::PasswordResetRequired);
    let late = running.change_email(&thief, "the thief's password", "thief@example.com").await;
    assert_eq!(reason(late), Reason::PasswordResetRequired);
    running.reset(&reset, NEW_PASSWORD).await.unwrap();
    running.sign_in(NEW_PASSWORD).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_cannot_be_undone_after_seven_days() {
    let running = Running::verified().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.change_email(&user, PASSWORD, NEW_EMAIL).await.unwrap();
    running.verify_email(&running.change_link().await).await.unwrap();
    let undo = running.undo_link().await;
    let kept = running.fixture.upstreams.state().kept_emails[EMAIL];
    assert_eq!(kept, (user.user_id, running.fixture.clock.now() + Duration::from_hours(7 * 24)));
    running.fixture.clock.advance(Duration::from_hours(7 * 24));
    assert_eq!(reason(running.undo_email_change(&undo).await), Reason::LinkInvalid);
    assert_eq!(running.email().0, NEW_EMAIL);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_set_when_the_user_service_has_recovered() {
    let running = Running::verified().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.change_email(&user, PASSWORD, NEW_EMAIL).await.unwrap();
    let link = running.change_link().await;
    running.fixture.upstreams.state().fails_to_set_email = true;
    assert!(!running.verify_email(&link).await.unwrap().email_verified, "not yet");
    running.fixture.upstreams.state().fails_to_set_email = false;
    running.settle_over_time().await;
    assert_eq!(running.messages("email_changed").await.len(), 1);
    assert_eq!(running.email(), (NEW_EMAIL.to_owned(), true));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_verified_is_kept_from_nobody_and_got_back_by_nobody() {
    let running = Running::with_account().await;
    running.sign_in(PASSWORD).await.unwrap();
    let user = running.sign_in(PASSWORD).await.unwrap();
    let report = running.link_in("new_device", "report-sign-in").await;
    running.change_email(&user, PASSWORD, NEW_EMAIL).await.unwrap();
    running.verify_email(&running.change_link().await).await.unwrap();
    assert!(running.messages("email_changed").await.is_empty(), "no link to undo it");
    assert!(running.fixture.upstreams.state().kept_emails.is_empty());
    assert_eq!(reason(running.report_sign_in(&report).await), Reason::LinkInvalid);
    running.stop().await;
}

/// Before the address is set back, the thief still reads the mails of the account.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_recovery_a_link_to_another_address_sets_no_password() {
    let running = Running::verified().await;
    let thief = running.sign_in(PASSWORD).await.unwrap();
    running.change_email(&thief, PASSWORD, "thief@example.net").await.unwrap();
    running.verify_email(&running.change_link().await).await.unwrap();
    let owners = running.undo_link().await;
    // All five links of an hour.
    for _ in 0..5 {
        running.request("thief@example.net").await;
    }
    running.settle().await;
    running.fixture.upstreams.state().fails_to_set_email = true;
    running.undo_email_change(&owners).await.unwrap();
    running.fixture.clock.advance(Duration::from_hours(2));
    let before = running.fixture.upstreams.state().messages.len();
    running.request("thief@example.net").await;
    while running.fixture.upstreams.state().messages.len() == before {
        tokio::task::yield_now().await;
    }
    let newest = |running: &Running, to: &str| {
        let state = running.fixture.upstreams.state();
        let of = |message: &&SendRequest| {
            message.template == "password_reset" && message.recipient.as_ref().unwrap().email == to
        };
        let link = state.messages.values().filter(of).map(|message| message.parameters["link"].clone()).next_back();
        link.map(|link| link.split_once("#token=").unwrap().1.to_owned())
    };
    let thiefs = newest(&running, "thief@example.net").unwrap();
    assert_eq!(reason(running.reset(&thiefs, "the thief's password").await), Reason::LinkInvalid);
    running.fixture.upstreams.state().fails_to_set_email = false;
    running.settle_over_time().await;
    // However many links there were.
    let reset = newest(&running, EMAIL).unwrap();
    running.reset(&reset, NEW_PASSWORD).await.unwrap();
    running.sign_in(NEW_PASSWORD).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_cannot_be_mailed_holds_up_no_other_message() {
    let running = Running::verified().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.fixture.upstreams.state().refused_address = Some("a..b@example.com".to_owned());
    running.change_email(&user, PASSWORD, "a..b@example.com").await.unwrap();
    running.change(&user, PASSWORD, NEW_PASSWORD).await.unwrap();
    assert_eq!(running.messages("password_changed").await.len(), 1);
    assert_eq!(running.messages("email_change_notice").await.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_accounts_do_not_flood_one_address() {
    let running = Running::with_account().await;
    let mut refused = 0;
    for number in 0..7 {
        let email = format!("user{number}@example.com");
        running.fixture.register(&email, PASSWORD, "").await.unwrap();
        let tokens = running.fixture.sign_in(&email, PASSWORD).await.unwrap().into_inner();
        let user = running.fixture.verify(&tokens.access_token).await;
        let asked =
            running.change_email(&user, PASSWORD, if number % 2 == 0 { "v@a.example" } else { "V@a.example" }).await;
        refused += usize::from(asked.is_err_and(|status| reason::<()>(Err(status)) == Reason::RateLimited));
    }
    assert_eq!(refused, 2);
    assert_eq!(running.messages("email_change").await.len(), 5);
    running.stop().await;
}

/// The password is changed after it was verified, and before the link is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_address_does_not_outlive_the_password_that_asked_for_it() {
    let running = Running::verified().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let verified = running.fixture.store.credential(user.user_id).await.unwrap().unwrap().password_hash;
    running.change(&user, PASSWORD, NEW_PASSWORD).await.unwrap();
    let now = running.fixture.clock.now();
    let link = crate::link::Link::new(
        uuid::Uuid::now_v7(),
        crate::link::Purpose::EmailChange,
        user.user_id,
        NEW_EMAIL.to_owned(),
        now,
    );
    let late = running.fixture.store.insert_link_with(&link, &verified, &[], 5, now - Duration::from_hours(1)).await;
    assert!(matches!(late, Err(crate::Error::InvalidCredentials)));
    running.stop().await;
}
