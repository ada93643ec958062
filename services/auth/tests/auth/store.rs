//! The contract of the store, tested on every database. To add one, list it in `contract!` at the end.

mod factors;
mod passkeys;
mod resets;
mod signing_keys;
mod trusted_devices;

use std::{any::Any, time::Duration};

use drystone_auth::{
    AuthStore, MIGRATIONS,
    credential::Credential,
    password::PasswordHash,
    password::typed_password::PasswordForm,
    store::{NewSecret, SealedKeys, SigningKeyRow},
};
use drystone_backends::Postgres;
use drystone_mesh::clock::Clock;
use drystone_store::{
    Db, Location, run,
    sealing::{Sealed, Stored},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::factors::{
    a_challenge_is_completed_once_and_all_or_nothing, a_code_is_used_up_once,
    a_sign_in_without_a_second_factor_is_stored_only_while_there_is_none, an_app_counts_once_it_is_confirmed,
    concurrent_tries_are_all_counted, secrets_are_read_in_batches_and_replaced, what_is_over_is_forgotten_in_batches,
    with_the_last_app_everything_goes,
};
use self::passkeys::{
    a_passkey_is_added_once_with_the_codes_of_the_first_factor, a_proof_is_used_up_once_and_its_counter_increases,
    a_sign_in_by_passkey_is_all_or_nothing, nothing_is_added_to_an_account_that_was_taken_back_or_removed_meanwhile,
    of_first_factors_at_once_one_has_the_codes, used_challenges_are_forgotten_once_they_have_expired,
};
use self::resets::{
    a_reset_is_cancelled_or_ends_with_the_last_factor, a_reset_waits_once_and_is_carried_out_once_when_it_is_due,
};
use self::signing_keys::{
    a_key_is_retired_only_where_a_stored_key_has_replaced_it, a_key_that_was_retired_before_is_recorded_as_withdrawn,
    a_retired_key_leaves_no_private_key_and_is_forgotten_after_a_year,
    a_withdrawal_is_stored_as_it_was_planned_or_not_at_all, of_concurrent_changes_of_when_a_key_signs_one_is_made,
    of_concurrent_rotations_one_inserts_its_key,
};
use self::trusted_devices::{
    a_device_is_trusted_by_a_completed_sign_in, a_device_that_is_trusted_anew_replaces_its_earlier_id,
    a_new_password_ends_trust_also_if_it_is_given_at_once,
    a_sign_in_on_a_trusted_device_is_stored_only_while_it_is_trusted,
    a_user_has_twenty_trusted_devices_also_if_they_are_added_at_once, expired_trust_is_forgotten_in_batches,
    trust_ends_with_the_password_the_last_factor_and_the_account,
};

/// An empty store and a manual clock.
struct Fixture {
    store: AuthStore,
    clock: Clock,
    /// Deletes the database on drop.
    _database: Box<dyn Any>,
}

impl Fixture {
    async fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let db = Db::open(&directory.path().join("auth.db"), MIGRATIONS).await.unwrap();
        Self::on(db, directory)
    }

    async fn postgres() -> Self {
        let database = Postgres::shared().await.database().await;
        let db = Db::open(Location::server("auth", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
        Self::on(db, database)
    }

    fn on(db: Db, database: impl Any) -> Self {
        let clock = Clock::manual(Clock::system().now());
        Self { store: AuthStore::new(db), clock, _database: Box::new(database) }
    }

    fn credential(&self, request_id: Option<Uuid>) -> Credential {
        let now = self.clock.now();
        Credential {
            user_id: Uuid::now_v7(),
            password_hash: hash("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            form: PasswordForm::Raw,
            request_id,
            pending_since: Some(now),
            created_at: now,
            updated_at: now,
            reset_required_at: None,
            recovered_at: None,
            second_factor_since: None,
        }
    }
}

fn hash(output: &str) -> PasswordHash {
    format!("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ${output}").parse().unwrap()
}

async fn an_inserted_credential_is_read_back(fixture: Fixture) {
    let request_id = Uuid::now_v7();
    let new = fixture.credential(Some(request_id));
    assert!(fixture.store.insert_credential(&new).await.unwrap());
    assert_eq!(fixture.store.credential(new.user_id).await.unwrap(), Some(new.clone()));
    let found = fixture.store.resume_credential(request_id, fixture.clock.now()).await.unwrap();
    assert_eq!(found, Some(new));
}

async fn a_missing_row_is_none(fixture: Fixture) {
    assert_eq!(fixture.store.credential(Uuid::now_v7()).await.unwrap(), None);
    assert_eq!(fixture.store.resume_credential(Uuid::now_v7(), fixture.clock.now()).await.unwrap(), None);
    assert!(fixture.store.pending_credentials(fixture.clock.now(), 10).await.unwrap().is_empty());
    assert!(!fixture.store.delete_pending_credential(Uuid::now_v7(), fixture.clock.now()).await.unwrap());
    fixture.store.confirm_credential(Uuid::now_v7()).await.unwrap();
}

async fn a_request_id_is_unique(fixture: Fixture) {
    let request_id = Uuid::now_v7();
    let (first, second) = (fixture.credential(Some(request_id)), fixture.credential(Some(request_id)));
    assert!(fixture.store.insert_credential(&first).await.unwrap());
    assert!(!fixture.store.insert_credential(&second).await.unwrap());
    assert_eq!(fixture.store.credential(second.user_id).await.unwrap(), None);
    let found = fixture.store.resume_credential(request_id, fixture.clock.now()).await.unwrap();
    assert_eq!(found, Some(first));
}

async fn several_credentials_may_have_no_request_id(fixture: Fixture) {
    for _ in 0..3 {
        assert!(fixture.store.insert_credential(&fixture.credential(None)).await.unwrap());
    }
}

async fn a_user_has_one_credential(fixture: Fixture) {
    let first = fixture.credential(None);
    let second = Credential { request_id: Some(Uuid::now_v7()), ..first.clone() };
    assert!(fixture.store.insert_credential(&first).await.unwrap());
    assert!(fixture.store.insert_credential(&second).await.is_err());
}

async fn deleting_a_credential_releases_its_request_id(fixture: Fixture) {
    let request_id = Some(Uuid::now_v7());
    let first = fixture.credential(request_id);
    fixture.store.insert_credential(&first).await.unwrap();
    assert!(fixture.store.delete_pending_credential(first.user_id, fixture.clock.now()).await.unwrap());
    assert_eq!(fixture.store.credential(first.user_id).await.unwrap(), None);
    assert!(fixture.store.insert_credential(&fixture.credential(request_id)).await.unwrap());
}

async fn credentials_are_pending_until_confirmed(fixture: Fixture) {
    let mut inserted = Vec::new();
    for _ in 0..4 {
        let new = fixture.credential(None);
        fixture.store.insert_credential(&new).await.unwrap();
        inserted.push(new);
        fixture.clock.advance(Duration::from_secs(1));
    }
    fixture.store.confirm_credential(inserted[1].user_id).await.unwrap();
    let confirmed = fixture.store.credential(inserted[1].user_id).await.unwrap().unwrap();
    assert_eq!(confirmed, Credential { pending_since: None, ..inserted[1].clone() });

    let cutoff = inserted[2].created_at;
    let pending = fixture.store.pending_credentials(cutoff, 10).await.unwrap();
    assert_eq!(pending, [inserted[0].user_id, inserted[2].user_id], "the last one has not been pending long enough");
    assert_eq!(fixture.store.pending_credentials(cutoff, 1).await.unwrap(), [inserted[0].user_id]);
}

async fn resuming_resets_pending_since_unless_confirmed(fixture: Fixture) {
    let request_id = Uuid::now_v7();
    let new = fixture.credential(Some(request_id));
    fixture.store.insert_credential(&new).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let later = fixture.clock.now();
    let resumed = Credential { pending_since: Some(later), ..new.clone() };
    assert_eq!(fixture.store.resume_credential(request_id, later).await.unwrap(), Some(resumed));

    fixture.store.confirm_credential(new.user_id).await.unwrap();
    let confirmed = Credential { pending_since: None, ..new };
    assert_eq!(fixture.store.resume_credential(request_id, later).await.unwrap(), Some(confirmed));
}

async fn only_credentials_pending_since_the_cutoff_are_deleted(fixture: Fixture) {
    let (resumed, confirmed) = (fixture.credential(Some(Uuid::now_v7())), fixture.credential(None));
    fixture.store.insert_credential(&resumed).await.unwrap();
    fixture.store.insert_credential(&confirmed).await.unwrap();
    let then = fixture.clock.now();
    fixture.clock.advance(Duration::from_secs(1));
    let now = fixture.clock.now();

    fixture.store.resume_credential(resumed.request_id.unwrap(), now).await.unwrap();
    assert!(!fixture.store.delete_pending_credential(resumed.user_id, then).await.unwrap());
    assert!(fixture.store.delete_pending_credential(resumed.user_id, now).await.unwrap());

    fixture.store.confirm_credential(confirmed.user_id).await.unwrap();
    assert!(!fixture.store.delete_pending_credential(confirmed.user_id, now).await.unwrap());
    assert!(fixture.store.credential(confirmed.user_id).await.unwrap().is_some());
}

async fn a_hash_is_replaced_only_if_the_old_one_is_stored(fixture: Fixture) {
    let new = fixture.credential(None);
    fixture.store.insert_credential(&new).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let later = fixture.clock.now();
    let [second, third] = ["B", "C"].map(|letter| hash(&format!("{}A", letter.repeat(42))));

    let replaced = fixture
        .store
        .replace_password_hash(new.user_id, &new.password_hash, &second, PasswordForm::Opaque, later)
        .await;
    assert!(replaced.unwrap());
    let replaced =
        fixture.store.replace_password_hash(new.user_id, &new.password_hash, &third, PasswordForm::Opaque, later).await;
    assert!(!replaced.unwrap(), "the stored hash has changed");

    let expected = Credential { password_hash: second, form: PasswordForm::Opaque, updated_at: later, ..new };
    assert_eq!(fixture.store.credential(expected.user_id).await.unwrap(), Some(expected));
}

/// A value that a master key has sealed.
fn sealed(bytes: &[u8]) -> Sealed {
    Sealed { envelope: bytes.to_vec(), key_id: "k1".to_owned() }
}

async fn only_the_first_signing_key_is_inserted(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    assert_eq!(store.keys().await.unwrap().signing, []);
    for kid in ["one", "two"] {
        store.insert_first_signing_key(kid, "ES256", &sealed(kid.as_bytes()), now).await.unwrap();
    }
    let expected = SigningKeyRow {
        kid: "one".to_owned(),
        algorithm: "ES256".to_owned(),
        private_key: Stored::Sealed(sealed(b"one")),
        created_at: now,
        signs_from: now,
    };
    assert_eq!(store.keys().await.unwrap().signing, [expected]);
}

async fn concurrent_inserts_of_a_first_signing_key_store_one(fixture: Fixture) {
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let (store, now) = (fixture.store.clone(), fixture.clock.now());
        tasks.spawn(
            async move { store.insert_first_signing_key(&number.to_string(), "ES256", &sealed(b"key"), now).await },
        );
    }
    while let Some(inserted) = tasks.join_next().await {
        inserted.unwrap().unwrap();
    }
    assert_eq!(fixture.store.keys().await.unwrap().signing.len(), 1);
}

async fn a_secret_is_inserted_once(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_secret("one", &sealed(&[1, 2, 3]), now).await.unwrap();
    store.insert_secret("one", &sealed(&[4, 5, 6]), now).await.unwrap();
    store.insert_secret("other", &sealed(&[7]), now).await.unwrap();
    let secrets = store.keys().await.unwrap().secrets;
    let expected = [("one", &[1, 2, 3][..]), ("other", &[7])];
    assert_eq!(secrets.len(), expected.len());
    for (row, (name, value)) in secrets.iter().zip(expected) {
        assert_eq!((&*row.name, &row.value), (name, &Stored::Sealed(sealed(value))));
    }
}

async fn keys_are_sealed_and_replaced_all_or_nothing(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_first_signing_key("one", "ES256", &sealed(b"one"), now).await.unwrap();
    let keys = |secret: &str| SealedKeys {
        secrets: vec![(secret.to_owned(), sealed(b"new"))],
        new_secrets: vec![NewSecret { name: "a/1".to_owned(), value: sealed(b"next"), signs_from: now }],
        now,
        ..SealedKeys::default()
    };
    // What is sealed already, or is not there, is not replaced.
    store.insert_secret("a", &sealed(b"a"), now).await.unwrap();
    let before = store.keys().await.unwrap();
    assert!(!store.seal_keys(&keys("a")).await.unwrap() && !store.seal_keys(&keys("b")).await.unwrap());
    assert_eq!(store.keys().await.unwrap(), before);
    store.scrub_keys().await.unwrap();
    assert_eq!(store.keys().await.unwrap(), before);
    // An envelope is replaced if it is the expected one.
    assert!(store.replace_secret_envelope("a", &sealed(b"a"), &sealed(b"b")).await.unwrap());
    assert!(!store.replace_secret_envelope("a", &sealed(b"a"), &sealed(b"c")).await.unwrap());
    assert!(store.replace_signing_key_envelope("one", &sealed(b"one"), &sealed(b"b")).await.unwrap());
    assert!(!store.replace_signing_key_envelope("two", &sealed(b"one"), &sealed(b"b")).await.unwrap());
}

/// Opens a database of the previous release that has a credential.
async fn a_credential_without_a_form_is_raw(location: Location) {
    let (user_id, password_hash) = (Uuid::now_v7(), hash("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    let before = Db::open(location.clone(), &MIGRATIONS[..1]).await.unwrap();
    run!(before.writer(), |db| {
        sqlx::query("INSERT INTO credential (user_id, password_hash, created_at, updated_at) VALUES ($1, $2, 1, 1)")
            .bind(user_id)
            .bind(password_hash.as_str())
            .execute(db)
            .await
            .unwrap();
    });
    drop(before);
    let store = AuthStore::new(Db::open(location, MIGRATIONS).await.unwrap());
    let found = store.credential(user_id).await.unwrap().unwrap();
    assert_eq!((found.form, found.password_hash), (PasswordForm::Raw, password_hash));
}

macro_rules! contract {
    ($backend:ident: $($test:ident,)+) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(super::Fixture::$backend().await).await;
                }
            )+
        }
    };
    ($($backend:ident),+) => {
        $(contract! { $backend:
            an_inserted_credential_is_read_back,
            a_missing_row_is_none,
            a_request_id_is_unique,
            several_credentials_may_have_no_request_id,
            a_user_has_one_credential,
            deleting_a_credential_releases_its_request_id,
            credentials_are_pending_until_confirmed,
            resuming_resets_pending_since_unless_confirmed,
            only_credentials_pending_since_the_cutoff_are_deleted,
            a_hash_is_replaced_only_if_the_old_one_is_stored,
            only_the_first_signing_key_is_inserted,
            concurrent_inserts_of_a_first_signing_key_store_one,
            a_secret_is_inserted_once,
            keys_are_sealed_and_replaced_all_or_nothing,
            of_concurrent_rotations_one_inserts_its_key,
            a_retired_key_leaves_no_private_key_and_is_forgotten_after_a_year,
            a_withdrawal_is_stored_as_it_was_planned_or_not_at_all,
            a_key_is_retired_only_where_a_stored_key_has_replaced_it,
            a_key_that_was_retired_before_is_recorded_as_withdrawn,
            of_concurrent_changes_of_when_a_key_signs_one_is_made,
            an_app_counts_once_it_is_confirmed,
            a_code_is_used_up_once,
            concurrent_tries_are_all_counted,
            a_challenge_is_completed_once_and_all_or_nothing,
            a_sign_in_without_a_second_factor_is_stored_only_while_there_is_none,
            with_the_last_app_everything_goes,
            what_is_over_is_forgotten_in_batches,
            secrets_are_read_in_batches_and_replaced,
            a_passkey_is_added_once_with_the_codes_of_the_first_factor,
            of_first_factors_at_once_one_has_the_codes,
            nothing_is_added_to_an_account_that_was_taken_back_or_removed_meanwhile,
            a_proof_is_used_up_once_and_its_counter_increases,
            a_sign_in_by_passkey_is_all_or_nothing,
            used_challenges_are_forgotten_once_they_have_expired,
            a_reset_waits_once_and_is_carried_out_once_when_it_is_due,
            a_reset_is_cancelled_or_ends_with_the_last_factor,
            a_device_is_trusted_by_a_completed_sign_in,
            a_sign_in_on_a_trusted_device_is_stored_only_while_it_is_trusted,
            a_user_has_twenty_trusted_devices_also_if_they_are_added_at_once,
            a_device_that_is_trusted_anew_replaces_its_earlier_id,
            a_new_password_ends_trust_also_if_it_is_given_at_once,
            trust_ends_with_the_password_the_last_factor_and_the_account,
            expired_trust_is_forgotten_in_batches,
        })+
    };
}

contract!(sqlite, postgres);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_without_a_form_is_raw_in_sqlite() {
    let directory = TempDir::new().unwrap();
    a_credential_without_a_form_is_raw(Location::File(directory.path().join("auth.db"))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_without_a_form_is_raw_in_postgres() {
    let database = Postgres::shared().await.database().await;
    a_credential_without_a_form_is_raw(Location::server("auth", database.as_str()).unwrap()).await;
}
