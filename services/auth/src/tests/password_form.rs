//! Password normalization, and the upgrade of raw hashes at sign-in.

use std::time::Duration;

use drystone_mesh::{
    error::{Reason, reason_of},
    id,
};
use tonic::Status;
use tonic_types::StatusExt;

use super::{
    fixture::{EMAIL, Fixture, fast_hashing},
    reason,
};
use crate::{
    credential::Credential,
    password::typed_password::PasswordForm,
    password::{Password, PasswordHasher},
};

/// One password in two encodings: decomposed with a no-break space, and composed with a space.
const DECOMPOSED: &str = "cafe\u{301}\u{a0}horse";
const COMPOSED: &str = "caf\u{e9} horse";

impl Fixture {
    /// A service with a user whose credential was stored by the previous release.
    async fn with_raw(password: &str) -> Self {
        let fixture = Self::new().await;
        let user = fixture.register(EMAIL, "another horse", "").await.unwrap();
        let user_id = user.id.parse().unwrap();
        let now = fixture.clock.now();
        let raw = Credential {
            user_id: id::v7_at(now),
            password_hash: PasswordHasher::new(fast_hashing().cost())
                .unwrap()
                .hash(&Password::new(password.to_owned()))
                .unwrap(),
            form: PasswordForm::Raw,
            request_id: None,
            pending_since: None,
            created_at: now,
            updated_at: now,
            reset_required_at: None,
            recovered_at: None,
            second_factor_since: None,
        };
        fixture.store.insert_credential(&raw).await.unwrap();
        // Moves the account to the id of the credential, which the fake user service allows.
        let mut state = fixture.upstreams.state();
        let mut user = state.users.remove(&user_id).unwrap();
        user.id = raw.user_id.to_string();
        state.users.insert(raw.user_id, user);
        drop(state);
        fixture
    }

    async fn only_credential(&self) -> Credential {
        let user_id = *self.upstreams.state().users.keys().next().unwrap();
        self.store.credential(user_id).await.unwrap().unwrap()
    }

    /// How many hashes have been computed.
    fn hashes(&self) -> u32 {
        let text = self.metrics.render();
        let count = text.lines().find_map(|line| line.strip_prefix("drystone_password_hash_duration_seconds_count "));
        count.unwrap().parse().unwrap()
    }

    /// Signs in until the credential has the normalized form: upgrades are skipped while the hashing threads are busy.
    async fn sign_in_until_upgraded(&self, password: &str) -> Credential {
        let upgraded = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                self.sign_in(EMAIL, password).await.unwrap();
                let credential = self.only_credential().await;
                if credential.form == PasswordForm::Opaque {
                    return credential;
                }
            }
        });
        upgraded.await.unwrap()
    }
}

/// The field of an `INVALID_REQUEST` error.
fn field(status: &Status) -> String {
    assert_eq!(reason_of(status), Some(Reason::InvalidRequest));
    status.get_details_bad_request().unwrap().field_violations[0].field.clone()
}

#[tokio::test]
async fn all_encodings_of_a_password_sign_in() {
    for (registered, other) in [(DECOMPOSED, COMPOSED), (COMPOSED, DECOMPOSED)] {
        let fixture = Fixture::new().await;
        fixture.register(EMAIL, registered, "").await.unwrap();
        assert_eq!(fixture.only_credential().await.form, PasswordForm::Opaque);
        for password in [registered, other] {
            fixture.sign_in(EMAIL, password).await.unwrap();
        }
        assert_eq!(reason(fixture.sign_in(EMAIL, "CAF\u{c9} horse").await), Reason::InvalidCredentials);
        assert_eq!(fixture.hashes(), 4, "one to register, and one for each sign-in");
    }
}

#[tokio::test]
async fn a_retried_registration_may_encode_the_password_differently() {
    let fixture = Fixture::new().await;
    let id = uuid::Uuid::now_v7().to_string();
    let first = fixture.register(EMAIL, DECOMPOSED, &id).await.unwrap();
    assert_eq!(fixture.register(EMAIL, COMPOSED, &id).await.unwrap(), first);
}

#[tokio::test]
async fn a_raw_hash_matches_only_the_raw_password_and_is_upgraded_at_sign_in() {
    let fixture = Fixture::with_raw(DECOMPOSED).await;
    assert_eq!(reason(fixture.sign_in(EMAIL, COMPOSED).await), Reason::InvalidCredentials);
    assert_eq!(fixture.only_credential().await.form, PasswordForm::Raw, "a wrong password upgrades nothing");

    let raw = fixture.only_credential().await;
    let upgraded = fixture.sign_in_until_upgraded(DECOMPOSED).await;
    assert_ne!(upgraded.password_hash, raw.password_hash);
    for password in [COMPOSED, DECOMPOSED] {
        fixture.sign_in(EMAIL, password).await.unwrap();
    }
}

#[tokio::test]
async fn a_raw_hash_of_a_normalized_password_is_upgraded_without_a_rehash() {
    let fixture = Fixture::with_raw(COMPOSED).await;
    let (raw, before) = (fixture.only_credential().await, fixture.hashes());
    fixture.sign_in(EMAIL, COMPOSED).await.unwrap();
    let upgraded = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let credential = fixture.only_credential().await;
            if credential.form == PasswordForm::Opaque {
                return credential;
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(upgraded.await.unwrap().password_hash, raw.password_hash);
    assert_eq!(fixture.hashes(), before + 1);
    fixture.sign_in(EMAIL, DECOMPOSED).await.unwrap();
}

#[tokio::test]
async fn every_sign_in_computes_one_hash_for_either_stored_form() {
    for fixture in [Fixture::with_raw(COMPOSED).await, {
        let fixture = Fixture::new().await;
        fixture.register(EMAIL, COMPOSED, "").await.unwrap();
        fixture
    }] {
        let attempts = [
            ("nobody@example.com", COMPOSED),
            ("nobody", DECOMPOSED),
            (EMAIL, "wrong horse"),
            (EMAIL, "wro\u{301}ng\u{a0}horse"),
            (EMAIL, COMPOSED),
        ];
        for (email, password) in attempts {
            let before = fixture.hashes();
            let result = fixture.sign_in(email, password).await;
            assert_eq!(result.is_ok(), (email, password) == (EMAIL, COMPOSED));
            assert_eq!(fixture.hashes(), before + 1, "{email}: {}", password.escape_unicode());
        }
    }
}

#[tokio::test]
async fn an_invalid_new_password_is_rejected_before_hashing() {
    let fixture = Fixture::new().await;
    for password in
        ["correct\thorse", "correct\0horse", "correct\u{378}horse", "correct\u{200b}horse", " correct  horse "]
    {
        let outcome = fixture.register(EMAIL, password, "").await;
        match outcome {
            Ok(_) => assert_eq!(password, " correct  horse "),
            Err(status) => {
                assert_eq!(field(&status), "password", "{}", password.escape_unicode());
                assert!(!status.message().contains("horse"), "{}", status.message());
            }
        }
    }
    for password in ["cafe\u{301}bar".to_owned(), "x".repeat(257)] {
        assert_eq!(field(&fixture.register("b@example.com", &password, "").await.unwrap_err()), "password");
    }
    assert_eq!(fixture.hashes(), 1);
}

#[tokio::test]
async fn an_existing_password_that_violates_the_current_rules_still_signs_in() {
    for password in ["short", "with\ttab", "\u{2764}\u{fe0f}"] {
        let fixture = Fixture::with_raw(password).await;
        fixture.sign_in(EMAIL, password).await.unwrap();
        fixture.sign_in_until_upgraded(password).await;
        fixture.sign_in(EMAIL, password).await.unwrap();
    }
    let long = "x".repeat(1024);
    let fixture = Fixture::with_raw(&long).await;
    fixture.sign_in(EMAIL, &long).await.unwrap();
}

#[tokio::test]
async fn invalid_names_and_email_addresses_are_rejected_before_hashing() {
    let fixture = Fixture::new().await;
    assert_eq!(field(&fixture.register("nobody", COMPOSED, "").await.unwrap_err()), "email");
    for name in ["\u{200b}", "Ada\nAdmin", &"x".repeat(201)] {
        let status = fixture.register_as(name, EMAIL, COMPOSED, "").await.unwrap_err();
        assert_eq!(field(&status), "display_name", "{}", name.escape_unicode());
    }
    assert_eq!(fixture.hashes(), 0);
    assert!(fixture.upstreams.state().calls.is_empty());
}
