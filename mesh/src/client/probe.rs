//! Health checks of an endpoint: periodically, after an ejection and after a disconnect. Readmits it when it serves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    Channel,
    endpoint::{Condition, Endpoint},
    endpoints::Endpoints,
    peer::ProbeSettings,
};
use crate::call::Call;

/// The interval of health checks of an ejected endpoint, if that of others is not less.
const EJECTED_PROBE_INTERVAL: Duration = Duration::from_millis(250);
/// How long an endpoint that has not served yet may answer NOT_SERVING without a report: it may be starting.
const STARTUP_GRACE: Duration = Duration::from_secs(3);
/// The interval of health checks during the startup grace, and the minimum interval after a disconnect.
const STARTUP_PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Probes until it is cancelled.
pub(super) async fn run(endpoints: Arc<Endpoints>, endpoint: Arc<Endpoint>) {
    let mut client = HealthClient::new(Channel::to(endpoints.service().clone(), endpoint.clone()));
    let ProbeSettings { interval, timeout } = endpoints.probe;
    let (started, mut has_served) = (Instant::now(), false);
    loop {
        if let Some(rest) = endpoint.breaker.remaining_ejection() {
            tokio::time::sleep(rest).await;
        }
        if endpoint.breaker.probe_starts() {
            endpoints.count_breakers();
        }
        let probed_at = Instant::now();
        let call = Call::background(Some(probed_at + timeout));
        let answer = client.check(call.request(HealthCheckRequest::default())).await;
        let condition = match answer.map(|answer| answer.into_inner().status()) {
            Ok(ServingStatus::Serving) => Condition::Serving,
            Ok(other) => Condition::NotServing(format!("answers {}", other.as_str_name())),
            // An overloaded endpoint serves; load balancing accounts for it.
            Err(status) if status.code() == Code::ResourceExhausted => Condition::Serving,
            Err(status) if status.code() == Code::DeadlineExceeded => {
                Condition::Unreachable(format!("no answer within {timeout:?}"))
            }
            Err(status) if status.code() == Code::Unavailable => Condition::Unreachable(endpoint.last_error()),
            Err(status) => Condition::NotServing(format!("answers {:?}: {}", status.code(), status.message())),
        };
        let is_called = if condition == Condition::Serving {
            endpoint.breaker.probe_succeeded()
        } else {
            endpoint.breaker.trip();
            false
        };
        has_served |= condition == Condition::Serving;
        endpoints.metrics.probed(endpoints.groups.name(endpoint.group()), condition.clone().describe().0);
        if !has_served && matches!(condition, Condition::NotServing(_)) && started.elapsed() < STARTUP_GRACE {
            tokio::time::sleep(STARTUP_PROBE_INTERVAL).await;
            continue;
        }
        if endpoint.set_condition(condition.clone()) != condition {
            tracing::debug!(service = &**endpoints.service(), address = %endpoint.address(), ?condition, "endpoint probed");
        }
        endpoints.report();
        tokio::select! {
            // The ejection may be this task's own.
            () = endpoint.breaker.tripped(), if is_called => endpoints.report(),
            // The endpoint may be restarting: it must not be called before it serves, even if no call has noticed that
            // it stopped.
            () = endpoint.disconnected(), if is_called => tokio::time::sleep_until((probed_at + STARTUP_PROBE_INTERVAL).into()).await,
            () = tokio::time::sleep(if is_called { interval } else { interval.min(EJECTED_PROBE_INTERVAL) }) => {}
        }
    }
}
