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
    token::{KeySet, PublicKey, WithdrawnKeys},
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
    /// The time between fetches while keys are received that were withdrawn.
    outdated_interval: Duration,
}

const FETCH_SCHEDULE: FetchSchedule = FetchSchedule {
    interval: Duration::from_mins(1),
    min_interval: Duration::from_secs(5),
    timeout: Duration::from_secs(5),
    min_backoff: Duration::from_millis(50),
    max_backoff: Duration::from_secs(5),
    outdated_interval: Duration::from_millis(100),
};

/// How often in a row keys are fetched again at once because one of them was withdrawn: auth learns of it by the same revocation.
const MAX_OUTDATED: u32 = 20;

/// Fetches the keys at startup, then every minute, and earlier when a token has an unknown `kid` or a key was withdrawn, whose
/// successor signs at once. A fetch that fails, or returns no usable key, leaves the set unchanged.
///
/// `withdrawn` are the keys that were withdrawn, of [`RevocationView`](crate::token::RevocationView); an entry point knows of none.
pub async fn watch_keys<T: Transport>(
    client: KeyServiceClient<T>,
    keys: KeySet,
    withdrawn: WithdrawnKeys,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(run(client, keys, withdrawn, FETCH_SCHEDULE)).await;
}

async fn run<T: Transport>(
    mut client: KeyServiceClient<T>,
    keys: KeySet,
    withdrawn: WithdrawnKeys,
    schedule: FetchSchedule,
) {
    let mut backoff = Backoff::new(schedule.min_backoff, schedule.max_backoff);
    let (mut withdrawals, mut outdated) = (withdrawn.watch(), 0);
    loop {
        let withdrawn_before = *withdrawals.borrow_and_update();
        match fetch(&mut client, schedule.timeout).await {
            Ok(mut fetched) => {
                let count = fetched.len();
                fetched.retain(|key| !withdrawn.contains(key.kid()));
                let is_outdated = fetched.len() < count;
                keys.replace(fetched);
                if backoff.succeeded() {
                    tracing::info!("token keys fetched again");
                }
                outdated = if is_outdated { outdated + 1 } else { 0 };
                if (1..MAX_OUTDATED).contains(&outdated) {
                    // From an instance of auth that does not know yet.
                    sleep(schedule.outdated_interval).await;
                    continue;
                }
                // Otherwise tokens of the successor, which is unknown here, would be rejected as invalid.
                if !is_outdated {
                    keys.set_withdrawn_before(withdrawn_before);
                }
                tokio::select! {
                    () = wait_for_next_fetch(&keys, &schedule) => {}
                    _ = withdrawals.changed() => {}
                }
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
