//! Keeps the key set in sync with the keys that auth publishes.

use std::time::{Duration, Instant};

use drystone::auth::v1::{GetJwksRequest, key_service_client::KeyServiceClient};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Transport;
use crate::{
    backoff::Backoff,
    call::Call,
    token::{KeySet, PublicKey},
};

/// The schedule of fetches.
struct FetchSchedule {
    /// The time between regular fetches.
    interval: Duration,
    /// The minimum time between fetches, however many tokens have an unknown `kid`: any client can send those.
    min_interval: Duration,
    /// How long one fetch may take.
    timeout: Duration,
    /// The bounds of the backoff after failures.
    min_backoff: Duration,
    max_backoff: Duration,
}

const FETCH_SCHEDULE: FetchSchedule = FetchSchedule {
    interval: Duration::from_mins(1),
    min_interval: Duration::from_secs(5),
    timeout: Duration::from_secs(5),
    min_backoff: Duration::from_millis(50),
    max_backoff: Duration::from_secs(5),
};

/// Fetches the keys at startup, then every minute, and earlier when a token has an unknown `kid`. A fetch that fails, or
/// returns no usable key, leaves the set unchanged.
pub async fn watch_keys<T: Transport>(client: KeyServiceClient<T>, keys: KeySet, stop: CancellationToken) {
    stop.run_until_cancelled(run(client, keys, FETCH_SCHEDULE)).await;
}

async fn run<T: Transport>(mut client: KeyServiceClient<T>, keys: KeySet, schedule: FetchSchedule) {
    let mut backoff = Backoff::new(schedule.min_backoff, schedule.max_backoff);
    loop {
        match fetch(&mut client, schedule.timeout).await {
            Ok(fetched) => {
                keys.replace(fetched);
                if backoff.succeeded() {
                    tracing::info!("token keys fetched again");
                }
                wait_for_next_fetch(&keys, &schedule).await;
            }
            Err(error) => {
                let delay = backoff.failed();
                if backoff.is_lasting() {
                    tracing::warn!(code = ?error.code(), error = error.message(), loaded = keys.is_loaded(), "token keys not fetched");
                }
                sleep(delay).await;
            }
        }
    }
}

/// Waits until the next fetch is due or requested, but at least the minimum interval.
async fn wait_for_next_fetch(keys: &KeySet, schedule: &FetchSchedule) {
    sleep(schedule.min_interval).await;
    let _ = timeout(schedule.interval.saturating_sub(schedule.min_interval), keys.refresh_requested()).await;
}

async fn fetch<T: Transport>(client: &mut KeyServiceClient<T>, time_limit: Duration) -> Result<Vec<PublicKey>, Status> {
    let call = Call::background(Some(Instant::now() + time_limit));
    let response = timeout(time_limit, client.get_jwks(call.request(GetJwksRequest {})))
        .await
        .map_err(|_| Status::deadline_exceeded("the fetch of keys timed out"))??;
    let keys: Vec<_> = response.into_inner().keys.iter().filter_map(parse_jwk).collect();
    if keys.is_empty() { Err(Status::not_found("the response has no usable key")) } else { Ok(keys) }
}

/// Skips an unsupported key, so that the others are used.
fn parse_jwk(jwk: &drystone::auth::v1::Jwk) -> Option<PublicKey> {
    PublicKey::from_jwk(jwk).inspect_err(|error| tracing::warn!(kid = jwk.kid, %error, "token key ignored")).ok()
}

#[cfg(test)]
mod tests;
