//! What every store of credentials and keys promises. A new backend joins with one line at the end.

#![allow(clippy::unwrap_used, reason = "what goes wrong here is for the test to tell")]

use std::{any::Any, sync::Arc, time::Duration};

use drystone_auth::{
    AuthStore, MIGRATIONS, SqlStore, credential::Credential, password::PasswordHash, signing_key::StoredKey,
};
use drystone_backends::Postgres;
use drystone_mesh::{
    clock::Clock,
    store::{Db, Place},
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use uuid::Uuid;

/// A store with nothing in it, and a clock that stands still.
struct Fixture {
    store: Arc<dyn AuthStore>,
    clock: Clock,
    /// The database goes when this does.
    _keep: Box<dyn Any>,
}

impl Fixture {
    async fn sqlite() -> Self {
        let directory = TempDir::new().unwrap();
        let db = Db::open(&directory.path().join("auth.db"), MIGRATIONS).await.unwrap();
        Self::on(db, directory)
    }

    async fn postgres() -> Self {
        let database = Postgres::shared().await.database().await;
        let db = Db::open(Place::server("auth", database.as_str()).unwrap(), MIGRATIONS).await.unwrap();
        Self::on(db, database)
    }

    fn on(db: Db, keep: impl Any) -> Self {
        let clock = Clock::manual(Clock::system().now());
        Self { store: Arc::new(SqlStore::new(db)), clock, _keep: Box::new(keep) }
    }

    fn credential(&self, request_id: Option<Uuid>) -> Credential {
        let now = self.clock.now();
        Credential {
            user_id: Uuid::now_v7(),
            password_hash: hash("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            request_id,
            created_at: now,
            updated_at: now,
        }
    }
}

fn hash(output: &str) -> PasswordHash {
    format!("$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ${output}").parse().unwrap()
}

async fn a_credential_is_found_as_it_was_put_in(fixture: Fixture) {
    let request_id = Uuid::now_v7();
    let new = fixture.credential(Some(request_id));
    assert!(fixture.store.insert_credential(&new).await.unwrap());
    assert_eq!(fixture.store.credential(new.user_id).await.unwrap(), Some(new.clone()));
    assert_eq!(fixture.store.credential_of_request(request_id).await.unwrap(), Some(new));
}

async fn what_is_not_there_is_none(fixture: Fixture) {
    assert_eq!(fixture.store.credential(Uuid::now_v7()).await.unwrap(), None);
    assert_eq!(fixture.store.credential_of_request(Uuid::now_v7()).await.unwrap(), None);
    fixture.store.delete_credential(Uuid::now_v7()).await.unwrap();
}

async fn a_request_id_is_taken_once(fixture: Fixture) {
    let request_id = Uuid::now_v7();
    let (first, second) = (fixture.credential(Some(request_id)), fixture.credential(Some(request_id)));
    assert!(fixture.store.insert_credential(&first).await.unwrap());
    assert!(!fixture.store.insert_credential(&second).await.unwrap());
    assert_eq!(fixture.store.credential(second.user_id).await.unwrap(), None);
    assert_eq!(fixture.store.credential_of_request(request_id).await.unwrap(), Some(first));
}

async fn any_number_of_credentials_have_no_request_id(fixture: Fixture) {
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

async fn a_credential_that_is_deleted_frees_its_request_id(fixture: Fixture) {
    let request_id = Some(Uuid::now_v7());
    let first = fixture.credential(request_id);
    fixture.store.insert_credential(&first).await.unwrap();
    fixture.store.delete_credential(first.user_id).await.unwrap();
    assert_eq!(fixture.store.credential(first.user_id).await.unwrap(), None);
    assert!(fixture.store.insert_credential(&fixture.credential(request_id)).await.unwrap());
}

async fn a_hash_is_replaced_only_while_the_old_one_is_there(fixture: Fixture) {
    let new = fixture.credential(None);
    fixture.store.insert_credential(&new).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    let later = fixture.clock.now();
    let [second, third] = ["B", "C"].map(|letter| hash(&format!("{}A", letter.repeat(42))));

    let replaced = fixture.store.replace_password_hash(new.user_id, &new.password_hash, &second, later).await;
    assert!(replaced.unwrap());
    let replaced = fixture.store.replace_password_hash(new.user_id, &new.password_hash, &third, later).await;
    assert!(!replaced.unwrap(), "somebody was faster");

    let expected = Credential { password_hash: second, updated_at: later, ..new };
    assert_eq!(fixture.store.credential(expected.user_id).await.unwrap(), Some(expected));
}

async fn the_first_signing_key_stays_the_first(fixture: Fixture) {
    assert_eq!(fixture.store.signing_keys().await.unwrap(), []);
    let keys = [0, 1].map(|_| StoredKey::generate(fixture.clock.now()).unwrap());
    for key in keys.clone() {
        fixture.store.insert_first_signing_key(key).await.unwrap();
    }
    assert_eq!(fixture.store.signing_keys().await.unwrap(), [keys[0].clone()]);
}

async fn of_many_first_signing_keys_at_once_one_stays(fixture: Fixture) {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let (store, now) = (Arc::clone(&fixture.store), fixture.clock.now());
        tasks.spawn(async move { store.insert_first_signing_key(StoredKey::generate(now).unwrap()).await });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(fixture.store.signing_keys().await.unwrap().len(), 1);
}

async fn a_secret_is_what_it_was_at_first(fixture: Fixture) {
    let now = fixture.clock.now();
    assert_eq!(*fixture.store.secret("one", &[1, 2, 3], now).await.unwrap(), [1, 2, 3]);
    assert_eq!(*fixture.store.secret("one", &[4, 5, 6], now).await.unwrap(), [1, 2, 3]);
    assert_eq!(*fixture.store.secret("other", &[7], now).await.unwrap(), [7]);
}

macro_rules! contract {
    ($backend:ident: $($promise:ident,)+) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$promise(super::Fixture::$backend().await).await;
                }
            )+
        }
    };
    ($($backend:ident),+) => {
        $(contract! { $backend:
            a_credential_is_found_as_it_was_put_in,
            what_is_not_there_is_none,
            a_request_id_is_taken_once,
            any_number_of_credentials_have_no_request_id,
            a_user_has_one_credential,
            a_credential_that_is_deleted_frees_its_request_id,
            a_hash_is_replaced_only_while_the_old_one_is_there,
            the_first_signing_key_stays_the_first,
            of_many_first_signing_keys_at_once_one_stays,
            a_secret_is_what_it_was_at_first,
        })+
    };
}

contract!(sqlite, postgres);
