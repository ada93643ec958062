//! Signing keys and the refresh token secret.

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use drystone::auth::v1::{GetDiscoveryRequest, SealKeysRequest, key_service_server::KeyService};
use drystone_mesh::health::{Health, Kind, State};
use drystone_store::{
    Db, run,
    sealing::{MasterKeys, Sealer, Stored},
};
use drystone_testing::wait;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::fixture::{EMAIL, Fixture, ISSUER, PASSWORD, fast_hashing, sealer};
use crate::{
    StartError, store,
    token::{
        key_ring::{KeyRing, LEAD, RELOAD_INTERVAL, retry_while_unavailable},
        key_rotation::KeyRotation,
        key_spec::KeySpec,
        mac_keys::MacKeys,
        refresh_token::RefreshTokenCodec,
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

async fn ring(fixture: &Fixture) -> KeyRing {
    open(fixture, sealer()).await.unwrap()
}

async fn open(fixture: &Fixture, sealer: Sealer) -> Result<KeyRing, StartError> {
    let (store, clock) = (fixture.store.clone(), fixture.clock.clone());
    KeyRing::open(store, sealer, clock, KeySpec::Es256, fixture.revocations.withdrawn_keys().clone()).await
}

fn new_key(fixture: &Fixture) -> StoredKey {
    StoredKey::generate(KeySpec::Es256, fixture.clock.now()).unwrap()
}

fn kid(ring: &KeyRing) -> String {
    ring.current().signing(ring.now()).unwrap().kid().to_owned()
}

#[tokio::test]
async fn instances_that_start_concurrently_use_one_key() {
    let fixture = Fixture::new().await;
    let (store, sealer, clock) = (&fixture.store, sealer(), &fixture.clock);
    let stored = store.keys().await.unwrap();
    let value = sealer.seal(store::signing_key_place("second"), b"key").await.unwrap();
    store.insert_first_signing_key("second", "ES256", &value, clock.now()).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), stored);
    let (one, other) = tokio::join!(ring(&fixture), ring(&fixture));
    assert_eq!(kid(&one), kid(&other));
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
    let key = new_key(&fixture);
    unseal_all(&fixture, &key, &[7; 32]).await;
    let fixture = fixture.restart(fast_hashing()).await;
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    fixture.verify(&token.access_token).await;
    assert_eq!(fixture.jwks().await[0].kid, key.kid);
    let of_secret = RefreshTokenCodec::new(MacKeys::single(*b"drt", &[7; 32]));
    assert!(of_secret.decode(&token.refresh_token).is_some());
}

/// A fixture with the keys of a release without sealing, and the refresh token of a session that it began.
async fn unsealed() -> (Fixture, String) {
    let fixture = Fixture::with_account().await;
    let key = new_key(&fixture);
    unseal_all(&fixture, &key, &[7; 32]).await;
    let fixture = fixture.restart(fast_hashing()).await;
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().refresh_token;
    (fixture, token)
}

#[tokio::test]
async fn sealing_replaces_the_keys_after_everybody_has_read_them() {
    let (fixture, old_token) = unsealed().await;
    let service = &fixture.service.keys;
    let old = kid(&service.keys);
    let response = service.seal_keys(Request::new(SealKeysRequest {})).await.unwrap().into_inner();
    assert_eq!(response.sealed, 5, "a signing key and four secrets");

    // Published, but not used yet.
    let published = || async { fixture.jwks().await.into_iter().map(|jwk| jwk.kid).collect::<Vec<_>>() };
    let both = published().await;
    assert_eq!((both.len(), kid(&service.keys)), (2, old.clone()));
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().refresh_token;
    assert_eq!(token.len(), 102);

    fixture.clock.advance(LEAD.to_std().unwrap());
    assert_ne!(kid(&service.keys), old);
    let after = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    assert_eq!(after.refresh_token.len(), 107);
    fixture.verify(&after.access_token).await;
    for token in [&old_token, &token, &after.refresh_token] {
        let refreshed = fixture.refresh(token).await.unwrap();
        assert_eq!(refreshed.into_inner().refresh_token.len(), 107);
    }

    // The replaced key is published until the last token that it may have signed has expired.
    fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(published().await, both);
    fixture.clock.advance(Duration::from_secs(121));
    assert_eq!(published().await, [kid(&service.keys)]);

    // A second time there is nothing to do.
    let response = service.seal_keys(Request::new(SealKeysRequest {})).await.unwrap().into_inner();
    assert_eq!((response.sealed, published().await.len()), (0, 1));
}

const COMPONENT: &str = "auth keys";

/// A task that follows the store in a short interval.
struct Follower(CancellationToken, JoinHandle<()>);

impl Follower {
    fn start(ring: &Arc<KeyRing>, health: &Health) -> Self {
        let (stop, component) = (CancellationToken::new(), health.component(COMPONENT, Kind::Vital));
        let follow = Arc::clone(ring).follow(Duration::from_millis(5), component, stop.clone());
        Self(stop, tokio::spawn(follow))
    }

    async fn stop(self) {
        self.0.cancel();
        self.1.await.unwrap();
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    wait::until(what, async || condition().then_some(())).await;
}

/// An instance without the new master key must not tell clients that their new tokens are invalid.
#[tokio::test]
async fn an_instance_that_cannot_open_new_keys_says_so_and_is_taken_out_of_service() {
    let fixture = Fixture::with_account().await;
    let (ring, health) = (Arc::clone(&fixture.service.keys.keys), Health::new());
    let follower = Follower::start(&ring, &health);
    until("the keys are current", || health.state(COMPONENT) == Some(State::Up)).await;
    let token = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().refresh_token;
    let invalid = fixture.refresh("x").await.unwrap_err();
    assert_eq!(invalid.code(), Code::Unauthenticated);

    // Another instance has a new master key, and rewraps the keys under it.
    let lines = format!("new {}\ntest AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", BASE64_STANDARD.encode([9; 32]));
    let sealer = Sealer::new(Arc::new(MasterKeys::parse(&lines).unwrap()));
    let (keys, store, clock) = (Arc::clone(&ring), fixture.store.clone(), fixture.clock.clone());
    let rotation = KeyRotation { keys, store, sealer, clock, spec: KeySpec::Es256 };
    rotation.rewrap().await.unwrap();
    until("the keys are stale", || health.state(COMPONENT) == Some(State::Degraded)).await;
    assert!(health.report().components[COMPONENT].detail.contains("`new` is missing"));
    let unknown = fixture.refresh("x").await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unavailable);
    assert_eq!(unknown.get_details_retry_info().unwrap().retry_delay, Some(RELOAD_INTERVAL));
    fixture.refresh(&token).await.unwrap();

    // Before others sign with new keys.
    fixture.clock.advance(LEAD.to_std().unwrap() / 2);
    until("the keys are stale for too long", || health.state(COMPONENT) == Some(State::Down)).await;
    follower.stop().await;
}

#[tokio::test]
async fn an_unsealed_key_is_refused_where_all_were_sealed() {
    let fixture = Fixture::with_account().await;
    let ring = &fixture.service.keys.keys;
    let before = kid(ring);
    let key = new_key(&fixture);
    unseal_all(&fixture, &key, &[7; 32]).await;
    let error = ring.reload().await.unwrap_err().to_string();
    assert!(error.starts_with("an unencrypted key appeared"), "{error}");
    assert_eq!(kid(ring), before);
}

#[tokio::test]
async fn other_instances_read_replaced_keys_within_seconds() {
    let (fixture, _) = unsealed().await;
    let (other, health) = (Arc::new(ring(&fixture).await), Health::new());
    let follower = Follower::start(&other, &health);
    fixture.service.keys.seal_keys(Request::new(SealKeysRequest {})).await.unwrap();
    until("both keys are read", || other.current().published(other.now()).len() == 2).await;
    fixture.clock.advance(LEAD.to_std().unwrap());
    assert_eq!(kid(&other), kid(&fixture.service.keys.keys));
    assert_eq!(health.state(COMPONENT), Some(State::Up));
    follower.stop().await;
}

#[tokio::test]
async fn two_operators_who_seal_at_once_replace_the_keys_once() {
    let (fixture, _) = unsealed().await;
    let service = &fixture.service.keys;
    let seal = || service.seal_keys(Request::new(SealKeysRequest {}));
    let (one, other) = tokio::join!(seal(), seal());
    one.unwrap();
    other.unwrap();
    let rows = fixture.store.keys().await.unwrap();
    assert_eq!((rows.signing.len(), rows.secrets.len()), (2, 8));
}

#[tokio::test]
async fn rewrapped_keys_open_with_the_new_master_key_alone() {
    let fixture = Fixture::with_account().await;
    let before = fixture.store.keys().await.unwrap();
    let line = |id: &str, byte: u8| format!("{id} {}\n", BASE64_STANDARD.encode([byte; 32]));
    let old = "test AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n".to_owned();
    let sealer = |lines: String| Sealer::new(Arc::new(MasterKeys::parse(&lines).unwrap()));
    let both = sealer(line("new", 9) + &old);
    let (keys, store) = (Arc::clone(&fixture.service.keys.keys), fixture.store.clone());
    let rotation = KeyRotation { keys, store, sealer: both, clock: fixture.clock.clone(), spec: KeySpec::Es256 };
    assert_eq!(rotation.rewrap().await.unwrap(), 5);
    assert_ne!(fixture.store.keys().await.unwrap(), before);
    let ring = open(&fixture, sealer(line("new", 9))).await.unwrap();
    assert_eq!(kid(&ring), kid(&fixture.service.keys.keys));
    let error = open(&fixture, sealer(old)).await.unwrap_err().to_string();
    assert!(error.contains("the master key `new` is missing"), "{error}");
}

#[tokio::test]
async fn stored_keys_and_secrets_are_sealed() {
    let fixture = Fixture::new().await;
    let rows = fixture.store.keys().await.unwrap();
    for row in rows.signing {
        let Stored::Sealed(value) = &row.private_key else { panic!("{row:?} is not sealed") };
        let private_key = sealer().open(store::signing_key_place(&row.kid), &value.envelope).await.unwrap();
        assert_eq!((&*row.algorithm, &*value.key_id), ("ES256", "test"));
        let moved = sealer().open(store::signing_key_place("other"), &value.envelope).await;
        assert!(moved.is_err() && !private_key.is_empty());
    }
    let names: Vec<_> = rows.secrets.iter().map(|row| &*row.name).collect();
    assert_eq!(names, ["device_token", "link_token", "passkey_challenge", "refresh_token"]);
    for row in rows.secrets {
        assert!(matches!(&row.value, Stored::Sealed(value) if value.key_id == "test"), "{row:?}");
    }
}

#[tokio::test]
async fn a_corrupt_secret_is_a_start_error() {
    let fixture = Fixture::new().await;
    let key = new_key(&fixture);
    unseal_all(&fixture, &key, &[0]).await;
    let error = open(&fixture, sealer()).await.unwrap_err();
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
