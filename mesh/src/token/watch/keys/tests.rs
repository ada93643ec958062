//! The key watcher against a key service in the same process.

use std::sync::{Arc, Mutex};

use drystone::auth::v1::{
    AuthorizationServerMetadata, GetDiscoveryRequest, Jwk, JwkSet,
    key_service_server::{KeyService, KeyServiceServer},
};
use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Request, Response};

use super::*;
use crate::token::testing::Signer;

const SOON: Duration = Duration::from_millis(1);
const NEVER: Duration = Duration::from_hours(1);
const BOUND: Duration = Duration::from_secs(20);

/// Answers what it is told to, and counts how often it was asked.
#[derive(Clone)]
struct FakeKeys {
    answer: Arc<Mutex<Result<Vec<Jwk>, Status>>>,
    asked: watch::Sender<u64>,
}

#[tonic::async_trait]
impl KeyService for FakeKeys {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<JwkSet>, Status> {
        self.asked.send_modify(|times| *times += 1);
        let keys = self.answer.lock().unwrap().clone()?;
        Ok(Response::new(JwkSet { keys }))
    }

    async fn get_discovery(
        &self,
        _: Request<GetDiscoveryRequest>,
    ) -> Result<Response<AuthorizationServerMetadata>, Status> {
        Err(Status::unimplemented(""))
    }
}

impl FakeKeys {
    fn new(answer: Result<Vec<Jwk>, Status>) -> Self {
        Self { answer: Arc::new(Mutex::new(answer)), asked: watch::Sender::new(0) }
    }

    fn client(&self) -> KeyServiceClient<KeyServiceServer<Self>> {
        KeyServiceClient::new(KeyServiceServer::new(self.clone()))
    }

    fn answers(&self, answer: Result<Vec<Jwk>, Status>) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Waits until two more questions have come: the first may have been on its way, the outcome of the second's
    /// forerunner is in place.
    async fn asked_twice_more(&self) {
        let mut asked = self.asked.subscribe();
        let aim = *asked.borrow() + 2;
        timeout(BOUND, asked.wait_for(|times| *times >= aim)).await.unwrap().unwrap();
    }

    fn watched(&self, keys: &KeySet, every: Duration) -> Watching {
        let pace = Pace { interval: every, min_interval: SOON, timeout: BOUND, min_backoff: SOON, max_backoff: SOON };
        Watching(tokio::spawn(keep(self.client(), keys.clone(), pace)))
    }
}

struct Watching(JoinHandle<()>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn holds(keys: &KeySet, kid: &str) {
    let found = async {
        while keys.get(kid).is_none() {
            sleep(SOON).await;
        }
    };
    timeout(BOUND, found).await.unwrap();
}

#[tokio::test]
async fn keys_are_fetched_at_once_and_a_stop_ends_the_watch() {
    let (fake, keys, stop) = (FakeKeys::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new(), CancellationToken::new());
    let watching = tokio::spawn(watch_keys(fake.client(), keys.clone(), stop.clone()));
    timeout(BOUND, keys.loaded()).await.unwrap();
    assert!(keys.get("1").is_some());
    stop.cancel();
    timeout(BOUND, watching).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_key_that_comes_later_is_found_in_time_and_one_that_goes_is_dropped() {
    let (fake, keys) = (FakeKeys::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new());
    let _watching = fake.watched(&keys, SOON);
    holds(&keys, "1").await;
    fake.answers(Ok(vec![Signer::new("2").jwk()]));
    holds(&keys, "2").await;
    assert!(keys.get("1").is_none());
}

#[tokio::test]
async fn a_token_with_an_unknown_key_brings_a_fetch_forward() {
    let (fake, keys) = (FakeKeys::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new());
    let _watching = fake.watched(&keys, NEVER);
    holds(&keys, "1").await;
    fake.answers(Ok(vec![Signer::new("2").jwk()]));
    keys.want();
    holds(&keys, "2").await;
}

#[tokio::test]
async fn many_tokens_with_unknown_keys_bring_no_fetch_before_its_time() {
    let keys = KeySet::new();
    (0..1000).for_each(|_| keys.want());
    let pace = Pace { interval: NEVER, min_interval: NEVER, timeout: BOUND, min_backoff: SOON, max_backoff: SOON };
    assert!(rest(&keys, &pace).now_or_never().is_none());
}

#[tokio::test]
async fn the_first_keys_come_however_often_the_fetch_fails_before() {
    let (fake, keys) = (FakeKeys::new(Err(Status::unavailable("away"))), KeySet::new());
    let _watching = fake.watched(&keys, NEVER);
    for _ in 0..5 {
        fake.asked_twice_more().await;
    }
    assert!(!keys.is_loaded());
    fake.answers(Ok(vec![Signer::new("1").jwk()]));
    holds(&keys, "1").await;
}

#[tokio::test]
async fn old_keys_stay_while_the_service_is_away_or_answers_nothing_of_use() {
    let good = Signer::new("1").jwk();
    let (fake, keys) = (FakeKeys::new(Ok(vec![good.clone()])), KeySet::new());
    let _watching = fake.watched(&keys, SOON);
    holds(&keys, "1").await;
    let unknown = Jwk { alg: "HS256".to_owned(), ..good };
    for answer in [Err(Status::unavailable("away")), Ok(vec![]), Ok(vec![unknown])] {
        fake.answers(answer);
        fake.asked_twice_more().await;
        assert!(keys.get("1").is_some());
    }
    assert_eq!(keys.withdrawals(), 0);
}

#[tokio::test]
async fn a_key_of_an_unknown_kind_does_not_cost_the_others() {
    let good = Signer::new("1").jwk();
    let unknown = Jwk { kid: "2".to_owned(), kty: "AKP".to_owned(), ..good.clone() };
    let (fake, keys) = (FakeKeys::new(Ok(vec![unknown, good])), KeySet::new());
    let _watching = fake.watched(&keys, NEVER);
    holds(&keys, "1").await;
    assert!(keys.get("2").is_none());
}
