//! Rotation and withdrawal of signing keys.

mod schedule;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use drystone::{
    auth::v1::{
        GetJwksRequest, ListSigningKeysRequest, RotateSigningKeyRequest, RotateSigningKeyResponse, SigningKeyState,
        WithdrawSigningKeyRequest, WithdrawSigningKeyResponse, key_service_server::KeyService,
    },
    session::v1::{Revocation, revocation::Scope},
};
use drystone_mesh::{
    config::ConfigDuration,
    error::Reason,
    health::{Health, Kind},
    time::to_proto,
};
use drystone_store::sealing::{DataKey, KeyEncryption, MasterKeys, SealError, Sealer};
use drystone_testing::wait;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::{
    fake::Availability,
    fixture::{EMAIL, Fixture, PASSWORD, fast_hashing, sealer},
    reason,
    running::Running,
};
use crate::{
    Config,
    config::SigningKeyConfig,
    token::{
        key_ring::{KeyRing, LEAD},
        key_rotation::KeyRotation,
        key_spec::{KeyAlgorithm, KeySpec},
        signing_keys::{SigningKeys, Withdrawn},
    },
};

const PERIOD: Duration = Duration::from_hours(30 * 24);

fn lead() -> Duration {
    LEAD.to_std().unwrap()
}

fn with_algorithm(algorithm: KeyAlgorithm) -> Config {
    let signing_keys = SigningKeyConfig { algorithm, ..SigningKeyConfig::default() };
    Config { signing_keys, ..fast_hashing() }
}

async fn tick(fixture: &Fixture) {
    fixture.service.keys.signing_keys.tick().await.unwrap();
}

/// `alg` and `kid` of a token.
fn header(token: &str) -> (String, String) {
    let header = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    (header["alg"].as_str().unwrap().to_owned(), header["kid"].as_str().unwrap().to_owned())
}

async fn access_token(fixture: &Fixture) -> String {
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner().access_token
}

async fn signing_kid(fixture: &Fixture) -> String {
    header(&access_token(fixture).await).1
}

async fn published(fixture: &Fixture) -> Vec<String> {
    fixture.jwks().await.into_iter().map(|jwk| jwk.kid).collect()
}

async fn stored(fixture: &Fixture) -> Vec<String> {
    fixture.store.keys().await.unwrap().signing.into_iter().map(|row| row.kid).collect()
}

async fn rotate(fixture: &Fixture) -> RotateSigningKeyResponse {
    let request = Request::new(RotateSigningKeyRequest {});
    fixture.service.keys.rotate_signing_key(request).await.unwrap().into_inner()
}

async fn withdraw(fixture: &Fixture, kid: &str) -> Result<WithdrawSigningKeyResponse, Status> {
    let request = Request::new(WithdrawSigningKeyRequest { kid: kid.to_owned() });
    Ok(fixture.service.keys.withdraw_signing_key(request).await?.into_inner())
}

/// The listed keys with their states.
async fn listed(fixture: &Fixture) -> Vec<(String, SigningKeyState)> {
    let listed = fixture.service.keys.list_signing_keys(Request::new(ListSigningKeysRequest {})).await.unwrap();
    listed.into_inner().keys.into_iter().map(|key| (key.kid.clone(), key.state())).collect()
}

/// As the session service does with every service that is connected.
fn apply(fixture: &Fixture, kid: &str) {
    let expire_time = Some(to_proto(fixture.clock.now()));
    fixture.revocations.apply(&[Revocation { scope: Some(Scope::KeyId(kid.to_owned())), expire_time }]);
}

/// The keys of which the session service was told.
fn voided(fixture: &Fixture) -> BTreeSet<String> {
    fixture.upstreams.state().voided_keys.iter().cloned().collect()
}

/// The signing keys of another instance on the same database.
async fn other_instance(fixture: &Fixture) -> Arc<SigningKeys> {
    instance_with(fixture, sealer()).await
}

async fn instance_with(fixture: &Fixture, sealer: Sealer) -> Arc<SigningKeys> {
    let (store, clock, spec) = (fixture.store.clone(), fixture.clock.clone(), KeySpec::Es256);
    let withdrawn = fixture.revocations.withdrawn_keys().clone();
    let keys = Arc::new(KeyRing::open(store.clone(), sealer.clone(), clock.clone(), spec, withdrawn).await.unwrap());
    let rotation = KeyRotation { keys, store, sealer, clock, spec };
    let relay = fixture.service.relay.clone();
    SigningKeys::new(&rotation, relay, Arc::clone(&fixture.upstreams) as _, &SigningKeyConfig::default())
}

/// The master key of the fixture, in a key management service that may be unavailable.
#[derive(Debug)]
struct KeyManagement {
    keys: MasterKeys,
    is_available: AtomicBool,
}

impl KeyManagement {
    fn new() -> Arc<Self> {
        let keys = MasterKeys::parse("test AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        Arc::new(Self { keys, is_available: AtomicBool::new(true) })
    }

    fn check(&self) -> Result<(), SealError> {
        let is_available = self.is_available.load(Ordering::SeqCst);
        if is_available { Ok(()) } else { Err(SealError::Unavailable("a test".into())) }
    }
}

#[async_trait]
impl KeyEncryption for KeyManagement {
    fn key_id(&self) -> String {
        self.keys.key_id()
    }

    async fn encrypt(&self, key: &DataKey, context: &[u8]) -> Result<(String, Vec<u8>), SealError> {
        self.check()?;
        self.keys.encrypt(key, context).await
    }

    async fn decrypt(&self, key_id: &str, encrypted: &[u8], context: &[u8]) -> Result<DataKey, SealError> {
        self.check()?;
        self.keys.decrypt(key_id, encrypted, context).await
    }
}

#[tokio::test]
async fn a_key_is_published_signs_and_is_retired_on_schedule() {
    let fixture = Fixture::with_account().await;
    let first = signing_kid(&fixture).await;
    // A few minutes before it signs.
    fixture.clock.advance(PERIOD.checked_sub(lead() + Duration::from_secs(1)).unwrap());
    tick(&fixture).await;
    assert_eq!(published(&fixture).await, [first.as_str()]);

    // Published, but not used yet.
    fixture.clock.advance(Duration::from_secs(1));
    tick(&fixture).await;
    tick(&fixture).await;
    let both = published(&fixture).await;
    assert_eq!((both.len(), both[1].as_str()), (2, first.as_str()));
    assert_eq!(signing_kid(&fixture).await, first);
    let states = [(both[0].clone(), SigningKeyState::Published), (first.clone(), SigningKeyState::Signing)];
    assert_eq!(listed(&fixture).await, states);

    fixture.clock.advance(lead());
    tick(&fixture).await;
    let token = access_token(&fixture).await;
    assert_eq!(header(&token), ("ES256".to_owned(), both[0].clone()));
    fixture.verify(&token).await;
    let states = [(both[0].clone(), SigningKeyState::Signing), (first.clone(), SigningKeyState::Retired)];
    assert_eq!(listed(&fixture).await, states);

    // Until the last token that it may have signed has expired.
    fixture.clock.advance(Duration::from_hours(1));
    tick(&fixture).await;
    assert_eq!(published(&fixture).await, both);
    fixture.clock.advance(Duration::from_mins(2));
    tick(&fixture).await;
    assert_eq!((published(&fixture).await, stored(&fixture).await), (both[..1].to_vec(), both[..1].to_vec()));
    assert_eq!(listed(&fixture).await, states, "without its private key");

    // A year later nothing is known of it.
    fixture.clock.advance(PERIOD * 13);
    tick(&fixture).await;
    fixture.clock.advance(lead() + Duration::from_mins(62));
    tick(&fixture).await;
    assert!(!listed(&fixture).await.iter().any(|(kid, _)| *kid == first));
}

#[tokio::test]
async fn concurrent_instances_make_one_new_key() {
    let fixture = Fixture::with_account().await;
    let (one, other) = (Arc::clone(&fixture.service.keys.signing_keys), other_instance(&fixture).await);
    fixture.clock.advance(PERIOD);
    let (first, second) = tokio::join!(one.tick(), other.tick());
    first.unwrap();
    second.unwrap();
    assert_eq!(stored(&fixture).await.len(), 2);
    let (first, second) = tokio::join!(one.rotate(), other.rotate());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert!(first.was_pending && second.was_pending && first.kid == second.kid);
    assert_eq!(stored(&fixture).await.len(), 2);
}

#[tokio::test]
async fn a_rotation_by_command_returns_the_pending_one_when_it_is_repeated() {
    let fixture = Fixture::with_account().await;
    let first = signing_kid(&fixture).await;
    let begun = rotate(&fixture).await;
    assert!(!begun.was_pending && begun.kid != first && begun.algorithm == "ES256");
    assert_eq!(begun.sign_time, Some(to_proto(fixture.clock.now() + LEAD)));
    fixture.clock.advance(Duration::from_mins(1));
    assert_eq!(rotate(&fixture).await, RotateSigningKeyResponse { was_pending: true, ..begun.clone() });
    fixture.clock.advance(lead().checked_sub(Duration::from_mins(1)).unwrap());
    assert_eq!(signing_kid(&fixture).await, begun.kid);
    assert!(!rotate(&fixture).await.was_pending);
    assert_eq!(published(&fixture).await.len(), 3);
}

/// It has not heard that the successor was withdrawn meanwhile.
#[tokio::test]
async fn an_instance_with_outdated_keys_does_not_delete_the_one_that_signs() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let first = signing_kid(fixture).await;
    let second = rotate(fixture).await.kid;
    let other = other_instance(fixture).await;
    withdraw(fixture, &second).await.unwrap();
    fixture.clock.advance(lead() + Duration::from_mins(62));
    other.tick().await.unwrap();
    assert_eq!((stored(fixture).await, signing_kid(fixture).await), (vec![first.clone()], first));
}

#[tokio::test]
async fn another_algorithm_is_introduced_beside_the_former_one() {
    let mut fixture = Fixture::with_account().await;
    let mut tokens = vec![access_token(&fixture).await];
    for (algorithm, name) in [(KeyAlgorithm::EdDsa, "EdDSA"), (KeyAlgorithm::Rs256, "RS256")] {
        fixture = fixture.restart(with_algorithm(algorithm)).await;
        tick(&fixture).await;
        assert_eq!(published(&fixture).await.len(), tokens.len(), "the process has just started");
        fixture.clock.advance(Duration::from_hours(1));
        tokens = vec![access_token(&fixture).await];
        tick(&fixture).await;
        let keys = fixture.jwks().await;
        assert_eq!(keys[0].alg, name);
        assert_ne!(header(&access_token(&fixture).await).0, name);
        fixture.clock.advance(lead());
        tick(&fixture).await;
        tokens.push(access_token(&fixture).await);
        assert_eq!(header(tokens.last().unwrap()), (name.to_owned(), keys[0].kid.clone()));
        for token in &tokens {
            fixture.verify(token).await;
        }
        tokens = published(&fixture).await;
    }
    // Another size is another key as well.
    let mut config = with_algorithm(KeyAlgorithm::Rs256);
    config.signing_keys.rsa_bits = 3072;
    fixture = fixture.restart(config).await;
    fixture.clock.advance(Duration::from_hours(1));
    tick(&fixture).await;
    assert_eq!(fixture.jwks().await[0].n.as_ref().unwrap().len(), 512);
}

#[tokio::test]
async fn the_successor_of_a_withdrawn_signing_key_signs_at_once() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let tokens = fixture.sign_in(EMAIL, PASSWORD).await.unwrap().into_inner();
    let first = header(&tokens.access_token).1;
    let withdrawn = withdraw(fixture, &first).await.unwrap();
    assert!(withdrawn.applied && withdrawn.signing_kid != first);
    assert_eq!(voided(fixture), BTreeSet::from([first.clone()]));
    apply(fixture, &first);
    let next = [withdrawn.signing_kid.clone()];
    assert_eq!((published(fixture).await, stored(fixture).await), (next.to_vec(), next.to_vec()));
    assert_eq!(signing_kid(fixture).await, next[0]);
    let states = [(next[0].clone(), SigningKeyState::Signing), (first.clone(), SigningKeyState::Withdrawn)];
    assert_eq!(listed(fixture).await, states);

    // The session goes on.
    let refreshed = fixture.refresh(&tokens.refresh_token).await.unwrap().into_inner();
    fixture.verify(&refreshed.access_token).await;

    // Again: its revocation is repeated.
    fixture.upstreams.state().voided_keys.clear();
    let again = withdraw(fixture, &first).await.unwrap();
    assert_eq!(again, WithdrawSigningKeyResponse { signing_kid: next[0].clone(), applied: true });
    assert_eq!(voided(fixture), BTreeSet::from([first]));
    assert_eq!(listed(fixture).await, states);
}

#[tokio::test]
async fn a_pending_key_takes_the_place_of_a_withdrawn_one() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let first = signing_kid(fixture).await;
    fixture.clock.advance(Duration::from_hours(2));
    let pending = rotate(fixture).await.kid;
    let withdrawn = withdraw(fixture, &first).await.unwrap();
    assert_eq!(withdrawn.signing_kid, pending);
    assert_eq!((stored(fixture).await, signing_kid(fixture).await), (vec![pending.clone()], pending.clone()));
    tick(fixture).await;
    assert_eq!(stored(fixture).await, [pending], "no other rotation is due");
}

#[tokio::test]
async fn retired_and_pending_keys_are_withdrawn_and_unknown_ones_are_not() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let first = signing_kid(fixture).await;
    let second = rotate(fixture).await.kid;
    fixture.clock.advance(lead());
    let third = rotate(fixture).await.kid;
    for kid in [&first, &third] {
        let withdrawn = withdraw(fixture, kid).await.unwrap();
        assert_eq!(withdrawn, WithdrawSigningKeyResponse { signing_kid: second.clone(), applied: true });
    }
    assert_eq!((stored(fixture).await, signing_kid(fixture).await), (vec![second.clone()], second.clone()));
    assert_eq!(reason(withdraw(fixture, "unknown").await), Reason::SigningKeyNotFound);
    assert_eq!(voided(fixture), BTreeSet::from([first, third]));

    // One that has left the key set before.
    let fourth = rotate(fixture).await.kid;
    fixture.clock.advance(lead() + Duration::from_mins(62));
    tick(fixture).await;
    assert_eq!(stored(fixture).await, [fourth]);
    assert!(withdraw(fixture, &second).await.unwrap().applied);
    assert!(listed(fixture).await.contains(&(second, SigningKeyState::Withdrawn)));
}

#[tokio::test]
async fn a_withdrawal_is_completed_once_the_session_service_is_available() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let first = signing_kid(fixture).await;
    fixture.upstreams.state().session_service = Availability::Down;
    let withdrawn = withdraw(fixture, &first).await.unwrap();
    assert!(!withdrawn.applied);
    assert_eq!(
        (published(fixture).await, signing_kid(fixture).await),
        (vec![withdrawn.signing_kid.clone()], withdrawn.signing_kid)
    );
    fixture.upstreams.state().session_service = Availability::Up;
    assert!(withdraw(fixture, &first).await.unwrap().applied);
    assert!(fixture.upstreams.state().voided_keys.contains(&first));
}

#[tokio::test]
async fn an_instance_signs_with_no_key_that_another_one_has_withdrawn() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let other = Arc::clone(&other_instance(fixture).await.keys);
    let first = signing_kid(fixture).await;
    let next = withdraw(fixture, &first).await.unwrap().signing_kid;
    assert_eq!(other.signing_key(&other.current()).unwrap().kid(), first, "it has not heard of it");
    apply(fixture, &first);
    assert_eq!(reason(other.signing_key(&other.current()).map_err(Status::from)), Reason::Unavailable);
    let keys = other.ready_to_sign().await.unwrap();
    assert_eq!(other.signing_key(&keys).unwrap().kid(), next);
}

#[tokio::test]
async fn an_instance_reads_its_keys_at_once_when_one_is_withdrawn() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let other = Arc::clone(&other_instance(fixture).await.keys);
    let (stop, health) = (CancellationToken::new(), Health::new());
    let component = health.component("keys", Kind::Vital);
    // The first read at once, the next one in an hour.
    let follow = tokio::spawn(Arc::clone(&other).follow(Duration::from_hours(1), component, stop.clone()));
    wait::until("the keys are read", async || health.state("keys").map(drop)).await;
    let first = signing_kid(fixture).await;
    let next = withdraw(fixture, &first).await.unwrap().signing_kid;
    apply(fixture, &first);
    let signs = || other.current().signing(other.now()).is_some_and(|key| key.kid() == next);
    wait::until("the successor is read", async || signs().then_some(())).await;
    stop.cancel();
    follow.await.unwrap();
}

/// A backup from before the withdrawal has the key again. Its tokens would be refused everywhere.
#[tokio::test]
async fn a_withdrawn_key_from_a_restored_database_is_withdrawn_again() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let first = signing_kid(fixture).await;
    apply(fixture, &first);
    assert_eq!(reason(fixture.sign_in(EMAIL, PASSWORD).await), Reason::Unavailable);
    tick(fixture).await;
    assert_ne!(signing_kid(fixture).await, first);
    assert_eq!(listed(fixture).await[1], (first, SigningKeyState::Withdrawn));
}

/// An instance that is cut off from its database, or has a restored one, publishes no key whose tokens are refused.
#[tokio::test]
async fn a_withdrawn_key_is_never_published_and_leaves_the_store_also_if_it_does_not_sign() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let first = signing_kid(fixture).await;
    let second = rotate(fixture).await.kid;
    fixture.clock.advance(lead());
    assert_eq!(published(fixture).await, [second.as_str(), &first]);
    apply(fixture, &first);
    assert_eq!((published(fixture).await, stored(fixture).await.len()), (vec![second.clone()], 2));
    tick(fixture).await;
    assert_eq!(stored(fixture).await, [second.as_str()]);
    assert_eq!(listed(fixture).await[1], (first, SigningKeyState::Withdrawn));
    // Without a key that signs there is no key set: verifiers ask again.
    apply(fixture, &second);
    let request = Request::new(GetJwksRequest {});
    assert_eq!(reason(fixture.service.keys.get_jwks(request).await), Reason::Unavailable);
}

#[tokio::test]
async fn a_withdrawal_does_not_wait_for_the_outbox() {
    let fixture = Fixture::with_account().await;
    let first = signing_kid(&fixture).await;
    assert!(withdraw(&fixture, &first).await.unwrap().applied, "no message is delivered here");
    assert_eq!(voided(&fixture), BTreeSet::from([first]));
}

#[tokio::test]
async fn a_key_is_withdrawn_without_the_master_key_and_its_successor_made_once_there_is_one() {
    let running = Running::with_account().await;
    let fixture = &running.fixture;
    let (first, management) = (signing_kid(fixture).await, KeyManagement::new());
    let instance = instance_with(fixture, Sealer::new(Arc::clone(&management) as _)).await;
    management.is_available.store(false, Ordering::SeqCst);
    let withdrawn = instance.withdraw(&first).await.unwrap();
    assert_eq!(withdrawn, Withdrawn { signing_kid: None, is_applied: true });
    assert_eq!((stored(fixture).await, voided(fixture)), (vec![], BTreeSet::from([first.clone()])));
    let keys = instance.keys.current();
    assert!(instance.keys.signing_key(&keys).is_err() && instance.keys.published(&keys).is_empty());
    instance.tick().await.unwrap_err();

    management.is_available.store(true, Ordering::SeqCst);
    instance.tick().await.unwrap();
    let keys = instance.keys.current();
    let next = instance.keys.signing_key(&keys).unwrap().kid().to_owned();
    assert_ne!(next, first);
    tick(fixture).await;
    assert_eq!((stored(fixture).await, signing_kid(fixture).await), (vec![next.clone()], next));
}

#[tokio::test]
async fn metrics_have_the_age_of_the_signing_key_and_the_next_rotation() {
    let fixture = Fixture::with_account().await;
    let start = fixture.clock.now();
    fixture.clock.advance(Duration::from_hours(1));
    assert!(fixture.has_metric("drystone_signing_key_age_seconds 3600"), "{}", fixture.metrics.render());
    let next = (start + PERIOD - LEAD).timestamp();
    let name = "drystone_signing_key_next_rotation_timestamp_seconds";
    assert!(fixture.has_metric(&format!("{name} {next}")), "{}", fixture.metrics.render());
}
