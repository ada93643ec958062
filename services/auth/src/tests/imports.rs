//! Imports of accounts with the hashes of their passwords.

use drystone::{
    auth::v1::{ImportOutcome, ImportUsersRequest, ImportedUser},
    user::v1::User,
};
use drystone_mesh::error::Reason;

use super::{
    fake::CreationFailure,
    fixture::{EMAIL, Fixture, PASSWORD},
    reason,
};
use crate::{orphan_sweep::OrphanSweep, password::typed_password::PasswordForm};

/// Of the password "correct horse": by bcrypt 5.0 of Python, passlib 1.7, hashlib of Python 3.11, and Django 5.2.
const HASHES: [&str; 4] = [
    "$2a$04$VXVggmLAzxJ6fbcnC56teufijtUDgsYNxNzBG4K/.8pkp.VM5iKC2",
    "$pbkdf2-sha256$1000$f28tBYDwHmMshVBqbU0JIQ$.ISCAQUcNIyxF7OKqI9iuqIkFsOguo/ilooma3qEUOs",
    "$pbkdf2-sha256$i=1000,l=32$8PHy8/T19vf4+fr7/P3+/w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
    "pbkdf2_sha256$1000$seasalt1A2b3C4d5E6f7G8$X4nieDmlxjx2mq6w7X6+XomNr4GJG06LYBFGECon4MY=",
];

fn account(email: &str, password_hash: &str) -> ImportedUser {
    ImportedUser {
        user: Some(User { email: email.to_owned(), display_name: "Ada".to_owned(), ..User::default() }),
        password_hash: password_hash.to_owned(),
        ..ImportedUser::default()
    }
}

impl Fixture {
    /// The outcomes and refusals.
    async fn import(&self, users: &[ImportedUser]) -> Result<Vec<(ImportOutcome, String)>, tonic::Status> {
        let request = ImportUsersRequest { source: "old".to_owned(), users: users.to_vec() };
        let results = self.service.auth.import.import(request).await?;
        Ok(results.into_iter().map(|result| (result.outcome(), result.refusal)).collect())
    }

    async fn pending(&self) -> usize {
        self.store.pending_credentials(self.clock.now(), 1000).await.unwrap().len()
    }
}

#[tokio::test]
async fn an_imported_user_signs_in_and_the_hash_is_upgraded() {
    for hash in HASHES {
        let fixture = Fixture::new().await;
        let imported = fixture.import(&[account(EMAIL, hash)]).await.unwrap();
        assert_eq!(imported, [(ImportOutcome::Imported, String::new())]);
        assert_eq!(fixture.pending().await, 0);
        assert_eq!(reason(fixture.sign_in(EMAIL, "correct horsf").await), Reason::InvalidCredentials);
        let upgraded = tokio::time::timeout(std::time::Duration::from_secs(20), async {
            loop {
                fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
                let user_id = *fixture.upstreams.state().users.keys().next().unwrap();
                let credential = fixture.store.credential(user_id).await.unwrap().unwrap();
                if credential.form == PasswordForm::Opaque {
                    return credential;
                }
            }
        });
        let upgraded = upgraded.await.unwrap();
        assert!(upgraded.password_hash.as_str().starts_with("$argon2id$v=19$"), "{hash}");
        fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
    }
}

#[tokio::test]
async fn each_account_is_imported_or_refused_by_itself() {
    let fixture = Fixture::with_account().await;
    let users = [
        account(EMAIL, HASHES[0]),
        account("bob@example.com", "$2a$31$VXVggmLAzxJ6fbcnC56teufijtUDgsYNxNzBG4K/.8pkp.VM5iKC2"),
        account("carl@example.com", "5f4dcc3b5aa765d61d8327deb882cf99"),
        account("dora@example.com", ""),
    ];
    let outcomes = fixture.import(&users).await.unwrap();
    assert_eq!(outcomes[0], (ImportOutcome::Refused, "taken".to_owned()));
    for ((outcome, refusal), text) in outcomes[1..3].iter().zip(["takes too long to check", "must be a hash by Argon2"])
    {
        assert_eq!(*outcome, ImportOutcome::Refused);
        assert!(refusal.starts_with(&format!("password_hash: {text}")), "{refusal}");
    }
    assert_eq!(outcomes[3].0, ImportOutcome::Imported);
    // The password of the account that has the address is the one that it had.
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
    assert_eq!(fixture.pending().await, 0);
    assert_eq!(reason(fixture.sign_in("dora@example.com", "").await), Reason::InvalidCredentials);
}

#[tokio::test]
async fn an_import_is_repeated_from_any_point() {
    for failure in [CreationFailure::Unavailable, CreationFailure::ResponseLost] {
        let fixture = Fixture::new().await;
        let users = [account("ada@example.com", HASHES[0]), account("bob@example.com", HASHES[1])];
        fixture.upstreams.state().next_creation_failure = Some(failure);
        assert_eq!(reason(fixture.import(&users).await), Reason::Unavailable);
        assert_eq!(fixture.pending().await, 2);

        let again = fixture.import(&users).await.unwrap();
        let expected = match failure {
            CreationFailure::ResponseLost => ImportOutcome::Existed,
            _ => ImportOutcome::Imported,
        };
        assert!(again.iter().all(|(outcome, _)| *outcome == expected), "{again:?}");
        for email in ["ada@example.com", "bob@example.com"] {
            fixture.sign_in(email, PASSWORD).await.unwrap();
        }
        // What was left over is confirmed or removed.
        fixture.clock.advance(std::time::Duration::from_hours(2));
        let sweep = OrphanSweep {
            upstreams: fixture.upstreams.clone(),
            store: fixture.store.clone(),
            clock: fixture.clock.clone(),
            factor_metrics: crate::metrics::FactorMetrics::new(&drystone_mesh::telemetry::Metrics::default()),
        };
        sweep.sweep().await.unwrap();
        assert_eq!(fixture.pending().await, 0);
        for email in ["ada@example.com", "bob@example.com"] {
            fixture.sign_in(email, PASSWORD).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_account_is_recognized_by_its_id_in_the_source() {
    let fixture = Fixture::new().await;
    let with_id = |email: &str, id: &str| ImportedUser { external_id: id.to_owned(), ..account(email, HASHES[0]) };
    fixture.import(&[with_id("ada@example.com", "17")]).await.unwrap();
    // The address has changed there since.
    let again = fixture.import(&[with_id("countess@example.com", "17")]).await.unwrap();
    assert_eq!(again[0].0, ImportOutcome::Existed);
    assert_eq!(fixture.upstreams.state().users.len(), 1);
}

/// Of 72 bytes and more bcrypt knows the first 72: what was typed beyond may be wrong, and does not become the password.
#[tokio::test]
async fn a_long_password_does_not_replace_a_hash_of_its_beginning() {
    let fixture = Fixture::new().await;
    let hash = "$2b$04$2PsffA0O0TcCs6mD2yDprusotGBZbVL3KCmkDzj16CRMqRZWXrUw2";
    fixture.import(&[account(EMAIL, hash)]).await.unwrap();
    let password = "a".repeat(72);
    for typed in [format!("{password} mistyped"), password.clone(), format!("{password} right")] {
        for _ in 0..3 {
            fixture.sign_in(EMAIL, &typed).await.unwrap();
        }
    }
    assert_eq!(reason(fixture.sign_in(EMAIL, &password[1..]).await), Reason::InvalidCredentials);
    let user_id = *fixture.upstreams.state().users.keys().next().unwrap();
    assert_eq!(fixture.store.credential(user_id).await.unwrap().unwrap().password_hash.as_str(), hash);
}
