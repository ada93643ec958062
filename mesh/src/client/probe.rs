//! Asks a service that we depend on how it is, every few seconds, and reports what it says.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::Channel;
use crate::{call::Call, health::Component};

/// How often a service that is up is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often one that is away is asked.
const RETRY: Duration = Duration::from_millis(250);
/// How long it may take to answer.
const TIME: Duration = Duration::from_secs(1);

/// Probes until `stop`.
pub(super) async fn run(channel: Channel, component: Component, stop: CancellationToken) {
    let mut client = HealthClient::new(channel);
    loop {
        let call = Call::background(Some(Instant::now() + TIME));
        let answer = client.check(call.request(HealthCheckRequest::default())).await;
        let pause = match answer.map(|answer| answer.into_inner().status()) {
            Ok(ServingStatus::Serving) => {
                component.up();
                INTERVAL
            }
            Ok(other) => {
                component.degraded(format!("answers {}", other.as_str_name()));
                RETRY
            }
            Err(status) => {
                component.down(status.message());
                RETRY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
