//! The key watcher against a key service in the same process.

use std::sync::{Arc, Mutex};

use drystone::auth::v1::{Jwk, JwkSet, key_service_server::KeyServiceServer};
use drystone_tests::PartialService;
use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinHandle};
use tonic::{Request, Response};

use super::*;
use crate::token::testing::Signer;

const SHORT: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_hours(1);
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns a configured response, and counts requests.
#[derive(Clone)]
struct FakeKeyService {
    response: Arc<Mutex<Result<Vec<Jwk>, Status>>>,
    requests: watch::Sender<u64>,
}

impl FakeKeyService {
    fn new(response: Result<Vec<Jwk>, Status>) -> Self {
        Self { response: Arc::new(Mutex::new(response)), requests: watch::Sender::new(0) }
    }

    fn client(&self) -> KeyServiceClient<PartialService<KeyServiceServer<()>>> {
        let fake = self.clone();
        KeyServiceClient::new(PartialService::new().unary("GetJwks", move |_: Request<GetJwksRequest>| {
            fake.requests.send_modify(|count| *count += 1);
            let response = fake.response.lock().unwrap().clone();
            async move { Ok(Response::new(JwkSet { keys: response? })) }
        }))
    }

    fn set_response(&self, response: Result<Vec<Jwk>, Status>) {
        *self.response.lock().unwrap() = response;
    }

    /// Waits for two more requests: the first may have started before the call, and when the second arrives the response
    /// to the first has been applied.
    async fn two_more_requests(&self) {
        let mut requests = self.requests.subscribe();
        let target = *requests.borrow() + 2;
        timeout(TEST_TIMEOUT, requests.wait_for(|count| *count >= target)).await.unwrap().unwrap();
    }

    fn watch(&self, keys: &KeySet, every: Duration) -> WatchTask {
        self.watch_with(keys, every, &WithdrawnKeys::default())
    }

    fn watch_with(&self, keys: &KeySet, every: Duration, withdrawn: &WithdrawnKeys) -> WatchTask {
        let schedule = FetchSchedule {
            interval: every,
            min_interval: SHORT,
            timeout: TEST_TIMEOUT,
            min_backoff: SHORT,
            max_backoff: SHORT,
            outdated_interval: SHORT,
        };
        WatchTask(tokio::spawn(run(self.client(), keys.clone(), withdrawn.clone(), schedule)))
    }
}

struct WatchTask(JoinHandle<()>);

impl Drop for WatchTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn wait_for_key(keys: &KeySet, kid: &str) {
    let found = async {
        while keys.get(kid).is_none() {
            sleep(SHORT).await;
        }
    };
    timeout(TEST_TIMEOUT, found).await.unwrap();
}

#[tokio::test]
async fn keys_are_fetched_at_startup_and_shutdown_ends_the_watch() {
    let (fake, keys, stop) =
        (FakeKeyService::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new(), CancellationToken::new());
    let watch_task = tokio::spawn(watch_keys(fake.client(), keys.clone(), WithdrawnKeys::default(), stop.clone()));
    timeout(TEST_TIMEOUT, keys.loaded()).await.unwrap();
    assert!(keys.get("1").is_some());
    stop.cancel();
    timeout(TEST_TIMEOUT, watch_task).await.unwrap().unwrap();
}

#[tokio::test]
async fn added_keys_are_fetched_and_removed_keys_are_dropped() {
    let (fake, keys) = (FakeKeyService::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new());
    let _watch = fake.watch(&keys, SHORT);
    wait_for_key(&keys, "1").await;
    fake.set_response(Ok(vec![Signer::new("2").jwk()]));
    wait_for_key(&keys, "2").await;
    assert!(keys.get("1").is_none());
}

#[tokio::test]
async fn an_unknown_kid_triggers_an_early_fetch() {
    let (fake, keys) = (FakeKeyService::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new());
    let _watch = fake.watch(&keys, LONG);
    wait_for_key(&keys, "1").await;
    fake.set_response(Ok(vec![Signer::new("2").jwk()]));
    keys.request_refresh();
    wait_for_key(&keys, "2").await;
}

#[tokio::test]
async fn unknown_kids_do_not_cause_fetches_within_the_minimum_interval() {
    let keys = KeySet::new();
    (0..1000).for_each(|_| keys.request_refresh());
    let schedule = FetchSchedule {
        interval: LONG,
        min_interval: LONG,
        timeout: TEST_TIMEOUT,
        min_backoff: SHORT,
        max_backoff: SHORT,
        outdated_interval: SHORT,
    };
    assert!(wait_for_next_fetch(&keys, &schedule).now_or_never().is_none());
}

/// However many clients send tokens of unknown keys, auth is asked once in the minimum interval.
#[tokio::test]
async fn a_storm_of_unknown_kids_causes_no_fetch_within_the_minimum_interval() {
    assert!(FETCH_SCHEDULE.min_interval >= Duration::from_secs(5));
    let (fake, keys) = (FakeKeyService::new(Ok(vec![Signer::new("1").jwk()])), KeySet::new());
    let _watch = WatchTask(tokio::spawn(run(fake.client(), keys.clone(), WithdrawnKeys::default(), FETCH_SCHEDULE)));
    wait_for_key(&keys, "1").await;
    for _ in 0..100 {
        (0..1000).for_each(|_| keys.request_refresh());
        tokio::task::yield_now().await;
    }
    assert_eq!(*fake.requests.borrow(), 1);
}

#[tokio::test]
async fn a_withdrawn_key_is_dropped_and_its_successor_fetched_at_once() {
    let (one, two) = (Signer::new("1").jwk(), Signer::new("2").jwk());
    let (fake, keys, withdrawn) = (FakeKeyService::new(Ok(vec![one.clone()])), KeySet::new(), WithdrawnKeys::default());
    let _watch = fake.watch_with(&keys, LONG, &withdrawn);
    wait_for_key(&keys, "1").await;
    withdrawn.insert("1");
    assert!(keys.is_older_than(withdrawn.count()));
    // The instance of auth that answers does not know of it at first.
    fake.two_more_requests().await;
    assert!(keys.get("1").is_none());
    fake.set_response(Ok(vec![two, one]));
    keys.request_refresh();
    wait_for_key(&keys, "2").await;
    assert!(keys.get("1").is_none());
    fake.set_response(Ok(vec![Signer::new("2").jwk()]));
    keys.request_refresh();
    let current = async {
        while keys.is_older_than(withdrawn.count()) {
            sleep(SHORT).await;
        }
    };
    timeout(TEST_TIMEOUT, current).await.unwrap();
}

/// Nobody is told that the tokens of its successor are invalid, for as long as the key set has the withdrawn key.
#[tokio::test]
async fn a_key_set_with_a_withdrawn_key_stays_outdated_however_often_it_is_fetched() {
    let (one, two) = (Signer::new("1").jwk(), Signer::new("2").jwk());
    let (fake, keys, withdrawn) = (FakeKeyService::new(Ok(vec![one, two])), KeySet::new(), WithdrawnKeys::default());
    let _watch = fake.watch_with(&keys, SHORT, &withdrawn);
    wait_for_key(&keys, "1").await;
    withdrawn.insert("1");
    for _ in 0..MAX_OUTDATED {
        fake.two_more_requests().await;
        assert!(keys.is_older_than(withdrawn.count()));
    }
    assert!(keys.get("1").is_none() && keys.get("2").is_some());
}

#[tokio::test]
async fn the_first_fetch_is_retried_until_it_succeeds() {
    let (fake, keys) = (FakeKeyService::new(Err(Status::unavailable("unavailable"))), KeySet::new());
    let _watch = fake.watch(&keys, LONG);
    for _ in 0..5 {
        fake.two_more_requests().await;
    }
    assert!(!keys.is_loaded());
    fake.set_response(Ok(vec![Signer::new("1").jwk()]));
    wait_for_key(&keys, "1").await;
}

#[tokio::test]
async fn keys_stay_while_the_service_is_unavailable_or_returns_no_usable_key() {
    let good = Signer::new("1").jwk();
    let (fake, keys) = (FakeKeyService::new(Ok(vec![good.clone()])), KeySet::new());
    let _watch = fake.watch(&keys, SHORT);
    wait_for_key(&keys, "1").await;
    let unknown = Jwk { alg: "HS256".to_owned(), ..good };
    for response in [Err(Status::unavailable("unavailable")), Ok(vec![]), Ok(vec![unknown])] {
        fake.set_response(response);
        fake.two_more_requests().await;
        assert!(keys.get("1").is_some());
    }
    assert_eq!(keys.withdrawals(), 0);
}

#[tokio::test]
async fn an_unsupported_key_does_not_affect_the_others() {
    let good = Signer::new("1").jwk();
    let unknown = Jwk { kid: "2".to_owned(), kty: "AKP".to_owned(), ..good.clone() };
    let (fake, keys) = (FakeKeyService::new(Ok(vec![unknown, good])), KeySet::new());
    let _watch = fake.watch(&keys, LONG);
    wait_for_key(&keys, "1").await;
    assert!(keys.get("2").is_none());
}
