//! Keeps a key set like the one that auth publishes.

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

/// When to fetch.
struct Pace {
    /// How often without a reason.
    interval: Duration,
    /// The least time between two fetches, however many tokens name an unknown key: anybody can send those.
    min_interval: Duration,
    /// How long one fetch may take.
    timeout: Duration,
    /// The bounds of the backoff after failures.
    min_backoff: Duration,
    max_backoff: Duration,
}

const PACE: Pace = Pace {
    interval: Duration::from_mins(1),
    min_interval: Duration::from_secs(5),
    timeout: Duration::from_secs(5),
    min_backoff: Duration::from_millis(50),
    max_backoff: Duration::from_secs(5),
};

/// Fetches the keys at once, then every minute, and sooner when a token names a key that is not there. A fetch that
/// fails, or that brings no key of use, leaves the set as it is.
pub async fn watch_keys<T: Transport>(client: KeyServiceClient<T>, keys: KeySet, stop: CancellationToken) {
    stop.run_until_cancelled(keep(client, keys, PACE)).await;
}

async fn keep<T: Transport>(mut client: KeyServiceClient<T>, keys: KeySet, pace: Pace) {
    let mut backoff = Backoff::new(pace.min_backoff, pace.max_backoff);
    loop {
        match fetch(&mut client, pace.timeout).await {
            Ok(found) => {
                keys.replace(found);
                if backoff.succeeded() {
                    tracing::info!("token keys fetched again");
                }
                rest(&keys, &pace).await;
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

/// Waits until the next fetch is due, or wanted and not too soon.
async fn rest(keys: &KeySet, pace: &Pace) {
    sleep(pace.min_interval).await;
    let _ = timeout(pace.interval.saturating_sub(pace.min_interval), keys.wanted()).await;
}

async fn fetch<T: Transport>(client: &mut KeyServiceClient<T>, patience: Duration) -> Result<Vec<PublicKey>, Status> {
    let call = Call::background(Some(Instant::now() + patience));
    let answer = timeout(patience, client.get_jwks(call.request(GetJwksRequest {})))
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    let keys: Vec<_> = answer.into_inner().keys.iter().filter_map(usable).collect();
    if keys.is_empty() { Err(Status::not_found("the answer has no key that can be used here")) } else { Ok(keys) }
}

/// A key of a kind that this version does not know must not cost the others.
fn usable(jwk: &drystone::auth::v1::Jwk) -> Option<PublicKey> {
    PublicKey::from_jwk(jwk).inspect_err(|error| tracing::warn!(kid = jwk.kid, %error, "token key passed over")).ok()
}

#[cfg(test)]
mod tests;
