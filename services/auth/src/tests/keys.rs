//! Signing keys and the refresh token secret.

use drystone::auth::v1::{GetDiscoveryRequest, key_service_server::KeyService};
use drystone_store::{Db, run, sealing::Stored};
use tonic::Request;

use super::fixture::{EMAIL, Fixture, ISSUER, PASSWORD, fast_hashing, sealer};
use crate::{
    StartError, store,
    token::{
        key_ring::{self, KeyRing, retry_while_unavailable},
        refresh_token::{RefreshToken, RefreshTokenCodec},
        signing_key::{ALGORITHM, StoredKey},
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
    let (store, sealer, clock) = (&fixture.store, sealer(), &fixture.clock);
    let value = sealer.seal(store::signing_key_place("second"), b"key").await.unwrap();
    store.insert_first_signing_key("second", "ES256", &value, clock.now()).await.unwrap();
    assert_eq!(store.signing_keys().await.unwrap(), stored);
    let (one, other) = tokio::join!(KeyRing::open(store, &sealer, clock), KeyRing::open(store, &sealer, clock));
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

/// Replaces all keys and secrets with those of a release without sealing.
async fn unseal_all(fixture: &Fixture, key: &StoredKey, secret: &[u8]) {
    let db = Db::open(&fixture.directory.path().join("auth.db"), crate::MIGRATIONS).await.unwrap();
    run!(db.writer(), |db| {
        sqlx::query("UPDATE signing_key SET kid = $1, private_key = $2, sealed_by = NULL")
            .bind(&key.kid)
            .bind(key.private_key.as_slice())
            .execute(db)
            .await
            .unwrap();
    });
    run!(db.writer(), |db| {
        sqlx::query("UPDATE secret SET value = $1, sealed_by = NULL").bind(secret).execute(db).await.unwrap();
    });
}

#[tokio::test]
async fn keys_of_a_release_without_sealing_are_read() {
    let fixture = Fixture::with_account().await;
    let key = StoredKey::generate(fixture.clock.now()).unwrap();
    unseal_all(&fixture, &key, &[7; 32]).await;
    let fixture = fixture.restart(fast_hashing()).await;
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.verify(&token.access_token).await;
    assert_eq!(fixture.jwks().await[0].kid, key.kid);
    let session_id = token.session_id.parse().unwrap();
    let user_id = token.user_id.parse().unwrap();
    let expected = RefreshTokenCodec::new(&[7; 32]).encode(RefreshToken { session_id, user_id, counter: 0 });
    assert_eq!(token.refresh_token.len(), expected.len());
    assert!(RefreshTokenCodec::new(&[7; 32]).decode(&token.refresh_token).is_some());
}

#[tokio::test]
async fn stored_keys_and_secrets_are_sealed() {
    let fixture = Fixture::new().await;
    for row in fixture.store.signing_keys().await.unwrap() {
        let Stored::Sealed(value) = &row.private_key else { panic!("{row:?} is not sealed") };
        let private_key = sealer().open(store::signing_key_place(&row.kid), &value.envelope).await.unwrap();
        assert_eq!((&*row.algorithm, &*value.key_id), (ALGORITHM, "test"));
        let moved = sealer().open(store::signing_key_place("other"), &value.envelope).await;
        assert!(moved.is_err() && !private_key.is_empty());
    }
    for name in ["refresh_token", "device_token"] {
        let stored = fixture.store.secret(name).await.unwrap().unwrap();
        assert!(matches!(&stored, Stored::Sealed(value) if value.key_id == "test"), "{name}: {stored:?}");
    }
}

#[tokio::test]
async fn a_corrupt_secret_is_a_start_error() {
    let fixture = Fixture::new().await;
    let key = StoredKey::generate(fixture.clock.now()).unwrap();
    unseal_all(&fixture, &key, &[0]).await;
    let open = key_ring::refresh_token_codec;
    let error = open(&fixture.store, &sealer(), &fixture.clock).await.unwrap_err();
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
