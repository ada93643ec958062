//! Asks an instance how it is, every few seconds and whenever it has been put out, and puts it back when it serves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    Channel,
    instance::{Condition, Instance},
    instances::Instances,
};
use crate::call::Call;

/// How often an instance that serves is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// How often one that does not is asked.
const RETRY: Duration = Duration::from_millis(250);
/// For how long one that has not served yet may say so without being reported: it starts, as we may do ourselves.
const START: Duration = Duration::from_secs(3);
/// How often it is asked meanwhile.
const START_RETRY: Duration = Duration::from_millis(50);
/// How long it may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Probes for ever.
pub(super) async fn run(instances: Arc<Instances>, instance: Arc<Instance>) {
    let mut client = HealthClient::new(Channel::to(instances.service().clone(), instance.clone()));
    let (begun, mut has_served) = (Instant::now(), false);
    loop {
        if let Some(hold) = instance.breaker.hold() {
            tokio::time::sleep(hold).await;
        }
        let asked = Instant::now();
        let call = Call::background(Some(asked + PROBE_TIMEOUT));
        let answer = client.check(call.request(HealthCheckRequest::default())).await;
        let condition = match answer.map(|answer| answer.into_inner().status()) {
            Ok(ServingStatus::Serving) => Condition::Serving,
            Ok(other) => Condition::Ailing(format!("answers {}", other.as_str_name())),
            // It has more to do than it can, and says so; that is what the load is for.
            Err(status) if status.code() == Code::ResourceExhausted => Condition::Serving,
            Err(status) if status.code() == Code::DeadlineExceeded => {
                Condition::Away(format!("no answer within {PROBE_TIMEOUT:?}"))
            }
            Err(status) if status.code() == Code::Unavailable => Condition::Away(instance.trouble()),
            Err(status) => Condition::Ailing(format!("answers {:?}: {}", status.code(), status.message())),
        };
        let is_called = if condition == Condition::Serving {
            instance.breaker.close()
        } else {
            instance.breaker.trip();
            false
        };
        has_served |= condition == Condition::Serving;
        if !has_served && matches!(condition, Condition::Ailing(_)) && begun.elapsed() < START {
            tokio::time::sleep(START_RETRY).await;
            continue;
        }
        if instance.set_condition(condition.clone()) != condition {
            tracing::debug!(service = &**instances.service(), address = %instance.address(), ?condition, "instance probed");
        }
        instances.report();
        tokio::select! {
            // The trip may be our own.
            () = instance.breaker.tripped(), if is_called => instances.report(),
            // The instance may be restarting: it is not to be called before it says that it serves, even if no call
            // has noticed that it stopped.
            () = instance.disconnected(), if is_called => tokio::time::sleep_until((asked + START_RETRY).into()).await,
            () = tokio::time::sleep(if is_called { INTERVAL } else { RETRY }) => {}
        }
    }
}
