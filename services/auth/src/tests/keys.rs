//! Signing keys and the refresh token secret.

use drystone::auth::v1::{GetDiscoveryRequest, key_service_server::KeyService};
use drystone_store::{Db, run};
use tonic::Request;

use super::fixture::{EMAIL, Fixture, ISSUER, PASSWORD, fast_hashing};
use crate::{
    StartError,
    token::{
        key_ring::{KeyRing, retry_while_unavailable},
        signing_key::StoredKey,
    },
};

#[tokio::test]
async fn the_first_start_generates_a_key_that_a_restart_keeps() {
    let fixture = Fixture::with_account().await;
    let before = fixture.jwks().await;
    assert_eq!(before.len(), 1);
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().access_token;

    let fixture = fixture.restart(fast_hashing()).await;
    assert_eq!(fixture.jwks().await, before);
    fixture.verify(&token).await;
}

#[tokio::test]
async fn instances_that_start_concurrently_use_one_key() {
    let fixture = Fixture::new().await;
    let stored = fixture.store.signing_keys().await.unwrap();
    let second = StoredKey::generate(fixture.clock.now()).unwrap();
    fixture.store.insert_first_signing_key(second).await.unwrap();
    assert_eq!(fixture.store.signing_keys().await.unwrap(), stored);
    let (one, other) =
        tokio::join!(KeyRing::open(&fixture.store, &fixture.clock), KeyRing::open(&fixture.store, &fixture.clock));
    assert_eq!(one.unwrap().signing().kid(), other.unwrap().signing().kid());
}

#[tokio::test]
async fn startup_retries_while_the_database_is_unavailable() {
    let mut outcomes = vec![Ok(7), Err(sqlx::Error::PoolTimedOut), Err(sqlx::Error::BeginFailed)];
    let mut read = || std::future::ready(outcomes.pop().unwrap().map_err(StartError::Store));
    assert_eq!(retry_while_unavailable(&mut read).await.unwrap(), 7);
    let broken =
        retry_while_unavailable(|| std::future::ready(Err::<(), _>(StartError::Store(sqlx::Error::RowNotFound)))).await;
    assert!(matches!(broken, Err(StartError::Store(sqlx::Error::RowNotFound))));
}

#[tokio::test]
async fn a_corrupt_secret_is_a_start_error() {
    let fixture = Fixture::new().await;
    let secret = fixture.store.secret("refresh_token", &[1; 32], fixture.clock.now()).await.unwrap();
    assert_ne!(*secret, [1; 32], "the secret of the first start is kept");
    let db = Db::open(&fixture.directory.path().join("auth.db"), crate::MIGRATIONS).await.unwrap();
    run!(db.writer(), |db| {
        sqlx::query("UPDATE secret SET value = $1").bind(&[0][..]).execute(db).await.unwrap();
    });
    let error = crate::token::key_ring::refresh_token_codec(&fixture.store, &fixture.clock).await.unwrap_err();
    assert!(matches!(error, StartError::CorruptSecret));
}

#[tokio::test]
async fn the_metadata_has_the_jwks_uri() {
    let fixture = Fixture::new().await;
    let request = Request::new(GetDiscoveryRequest {});
    let document = fixture.service.keys.get_discovery(request).await.unwrap().into_inner();
    assert_eq!(document.issuer, ISSUER);
    assert_eq!(document.jwks_uri, "http://127.0.0.1:8080/.well-known/jwks.json");
}
