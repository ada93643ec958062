//! The endpoints of one service, and load balancing between them.
//!
//! Of two endpoints drawn at random, the less loaded one takes a call (power of two choices). That is nearly as good as
//! comparing all, and does not overload the one that was best at the last measurement.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use drystone::contract::Contracts;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::retry::budget::TpsBudget;

use super::{
    breaker::BreakerState,
    endpoint::{Condition, Endpoint, SendError},
    group::{GroupId, Groups},
    metrics::EndpointMetrics,
    peer::{BreakerSettings, Peer, ProbeSettings},
    probe,
};
use crate::{
    clock::Clock,
    health::{Component, EndpointReport},
    identity::{Identity, SpiffeId},
};

/// How long a call waits for the first address of a service.
const FIRST_ADDRESS_TIMEOUT: Duration = Duration::from_secs(1);

/// The retry budget: a share of all calls plus a minimum per second, over a window.
const RETRY_RATIO: f32 = 0.2;
const MIN_RETRIES_PER_SECOND: u32 = 10;
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// The endpoints of one service, as called by one workload.
pub(crate) struct Endpoints {
    service: Arc<str>,
    expected: SpiffeId,
    identity: Identity,
    pub(super) contracts: Contracts,
    clock: Clock,
    current: watch::Sender<Arc<[Arc<Endpoint>]>>,
    /// Why no address is known.
    missing: Mutex<Option<Arc<str>>>,
    pub(super) budget: TpsBudget,
    pub(super) retries: Counter,
    ejected: Gauge,
    pub(super) groups: Groups,
    breaker: BreakerSettings,
    pub(super) probe: ProbeSettings,
    pub(super) metrics: EndpointMetrics,
    component: OnceLock<Component>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The dependencies of the endpoints of a service.
pub(super) struct EndpointContext {
    pub(super) identity: Identity,
    /// The contracts, for retries.
    pub(super) contracts: Contracts,
    pub(super) clock: Clock,
    /// Counts retries.
    pub(super) retries: Counter,
    /// The number of ejected endpoints.
    pub(super) ejected: Gauge,
    /// Counts breakers and health checks.
    pub(super) metrics: EndpointMetrics,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Endpoints {
    pub(super) fn new(service: &str, expected: SpiffeId, peer: &Peer, context: EndpointContext) -> Arc<Self> {
        let EndpointContext { identity, contracts, clock, retries, ejected, metrics, tasks, stop } = context;
        Arc::new(Self {
            service: service.into(),
            expected,
            identity,
            contracts,
            clock,
            current: watch::Sender::new(Arc::new([])),
            missing: Mutex::default(),
            budget: TpsBudget::new(RETRY_WINDOW, MIN_RETRIES_PER_SECOND, RETRY_RATIO),
            retries,
            ejected,
            groups: Groups::new(&peer.groups),
            breaker: peer.breaker,
            probe: peer.probe,
            metrics,
            component: OnceLock::new(),
            tasks,
            stop,
        })
    }

    /// The workload name of the service.
    pub(crate) fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// Watches the set of endpoints.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<[Arc<Endpoint>]>> {
        self.current.subscribe()
    }

    /// Reports the health of the endpoints to this component.
    pub(super) fn report_to(self: &Arc<Self>, component: Component) {
        let this = Arc::downgrade(self);
        component.describe_endpoints(move || this.upgrade().map(|this| this.endpoint_reports()).unwrap_or_default());
        let _ = self.component.set(component);
        self.report();
    }

    /// Replaces the set of endpoints. Endpoints that stay keep their connections.
    pub(super) fn set(self: &Arc<Self>, addresses: &[(SocketAddr, GroupId)]) {
        let before = self.current.borrow().clone();
        let is_kept = |endpoint: &&Arc<Endpoint>| addresses.contains(&(endpoint.address(), endpoint.group()));
        let mut all: Vec<Arc<Endpoint>> = before.iter().filter(is_kept).cloned().collect();
        for &(address, group) in addresses {
            if all.iter().all(|endpoint| endpoint.address() != address) {
                all.push(self.begin(address, group));
            }
        }
        for left in before.iter().filter(|endpoint| !is_kept(endpoint)) {
            left.removed().cancel();
        }
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.current.send_replace(all.into());
        self.report();
    }

    /// Records why no address is known.
    pub(super) fn set_missing(&self, why: String) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
        self.report();
    }

    fn begin(self: &Arc<Self>, address: SocketAddr, group: GroupId) -> Arc<Endpoint> {
        let removed = self.stop.child_token();
        let (identity, expected, clock) = (self.identity.clone(), self.expected.clone(), self.clock.clone());
        let settings = (group, self.breaker);
        let endpoint = Arc::new(Endpoint::new(identity, expected, address, clock, settings, removed.clone()));
        let probing = probe::run(self.clone(), endpoint.clone());
        self.tasks.spawn(async move { removed.run_until_cancelled(probing).await });
        endpoint
    }

    /// Picks the endpoint for a call of this group, after these have been tried.
    pub(super) async fn pick(&self, group: GroupId, tried: &[Arc<Endpoint>]) -> Result<Arc<Endpoint>, SendError> {
        if let Some(endpoint) = choose(&self.current.borrow(), group, tried) {
            return Ok(endpoint);
        }
        let mut current = self.current.subscribe();
        let is_known = |endpoints: &Arc<[Arc<Endpoint>]>| choose(endpoints, group, tried).is_some();
        let first = tokio::time::timeout(FIRST_ADDRESS_TIMEOUT, current.wait_for(is_known)).await;
        let found = match first {
            Ok(Ok(endpoints)) => choose(&endpoints, group, tried),
            Ok(Err(_)) | Err(_) => None,
        };
        found.ok_or_else(|| {
            let why = self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let why = why.unwrap_or_else(|| "its address has not been resolved yet".into());
            SendError { may_have_run: false, source: (*why).into() }
        })
    }

    /// Whether an endpoint for calls of this group is not ejected.
    pub(super) fn has_any(&self, group: GroupId) -> bool {
        self.has_another(group, &[])
    }

    /// Whether an endpoint for calls of this group is neither ejected nor tried.
    pub(super) fn has_another(&self, group: GroupId, tried: &[Arc<Endpoint>]) -> bool {
        let endpoints = self.current.borrow();
        let group = effective(&endpoints, group, tried);
        endpoints.iter().any(|endpoint| endpoint.group() == group && is_usable(endpoint, tried))
    }

    /// Updates the metrics of breakers.
    pub(super) fn count_breakers(&self) {
        let endpoints = self.current.borrow().clone();
        let states: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.group(), endpoint.breaker.state())).collect();
        for group in self.groups.all() {
            for state in BreakerState::ALL {
                let count = states.iter().filter(|of_endpoint| **of_endpoint == (group, state)).count();
                self.metrics.set_breakers(self.groups.name(group), state, count);
            }
        }
        let ejected = states.iter().filter(|(_, state)| *state != BreakerState::Closed).count();
        self.ejected.set(i64::try_from(ejected).unwrap_or(i64::MAX));
    }

    /// The state of each endpoint, for operators.
    fn endpoint_reports(&self) -> Vec<EndpointReport> {
        let report = |endpoint: &Arc<Endpoint>| {
            let (probe, detail) = endpoint.condition().describe();
            EndpointReport {
                address: endpoint.address(),
                group: self.groups.name(endpoint.group()).to_string(),
                breaker: endpoint.breaker.state(),
                probe,
                detail,
            }
        };
        let endpoints = self.current.borrow().clone();
        endpoints.iter().map(report).collect()
    }

    /// Reports the health of the endpoints.
    pub(super) fn report(&self) {
        self.count_breakers();
        let endpoints = self.current.borrow().clone();
        let Some(component) = self.component.get() else { return };
        if endpoints.is_empty() {
            if let Some(why) = &*self.missing.lock().unwrap_or_else(PoisonError::into_inner) {
                component.down(&**why);
            }
            return;
        }
        let conditions: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.address(), endpoint.condition())).collect();
        match summary(&conditions) {
            Summary::Unknown => {}
            Summary::Up => component.up(),
            Summary::Degraded(detail) => component.degraded(detail),
            Summary::Down(detail) => component.down(detail),
        }
    }
}

/// The better of two drawn at random from the best available ones: neither ejected nor tried; not ejected; not tried; any. The
/// last endpoint of the default group is never ejected.
fn choose(endpoints: &[Arc<Endpoint>], group: GroupId, tried: &[Arc<Endpoint>]) -> Option<Arc<Endpoint>> {
    let group = effective(endpoints, group, tried);
    // The common case.
    if let [only] = endpoints
        && only.group() == group
    {
        return Some(only.clone());
    }
    let is_admitted = |endpoint: &&Arc<Endpoint>| !endpoint.breaker.is_open();
    let is_fresh = |endpoint: &&Arc<Endpoint>| !is_among(tried, endpoint);
    let all = || endpoints.iter().filter(|endpoint| endpoint.group() == group);
    the_better_of_two(all().filter(is_admitted).filter(is_fresh))
        .or_else(|| the_better_of_two(all().filter(is_admitted)))
        .or_else(|| the_better_of_two(all().filter(is_fresh)))
        .or_else(|| the_better_of_two(all()))
        .cloned()
}

/// The group that takes a call of `group`: itself, if it has an endpoint that is neither ejected nor tried, else the default one.
fn effective(endpoints: &[Arc<Endpoint>], group: GroupId, tried: &[Arc<Endpoint>]) -> GroupId {
    let takes = |endpoint: &Arc<Endpoint>| endpoint.group() == group && is_usable(endpoint, tried);
    if group == GroupId::DEFAULT || endpoints.iter().any(takes) { group } else { GroupId::DEFAULT }
}

/// Whether an endpoint is neither ejected nor tried.
fn is_usable(endpoint: &Arc<Endpoint>, tried: &[Arc<Endpoint>]) -> bool {
    !endpoint.breaker.is_open() && !is_among(tried, endpoint)
}

fn is_among(endpoints: &[Arc<Endpoint>], endpoint: &Arc<Endpoint>) -> bool {
    endpoints.iter().any(|other| Arc::ptr_eq(other, endpoint))
}

fn the_better_of_two<'a>(candidates: impl Iterator<Item = &'a Arc<Endpoint>>) -> Option<&'a Arc<Endpoint>> {
    let (first, second) = draw_two(candidates)?;
    let Some(second) = second else { return Some(first) };
    // In random order, so that equal endpoints share the calls.
    let (one, other) = if fastrand::bool() { (first, second) } else { (second, first) };
    Some(if other.cost() < one.cost() { other } else { one })
}

/// Draws two at random, each with equal probability (reservoir sampling).
fn draw_two<T>(mut candidates: impl Iterator<Item = T>) -> Option<(T, Option<T>)> {
    let mut first = candidates.next()?;
    let mut second = candidates.next();
    for (seen, candidate) in (2..).zip(candidates) {
        match fastrand::usize(..=seen) {
            0 => first = candidate,
            1 => second = Some(candidate),
            _ => {}
        }
    }
    Some((first, second))
}

/// The health of all endpoints together.
#[derive(Debug, PartialEq, Eq)]
enum Summary {
    Unknown,
    Up,
    Degraded(String),
    Down(String),
}

fn summary(conditions: &[(SocketAddr, Condition)]) -> Summary {
    let serving = conditions.iter().filter(|(_, condition)| *condition == Condition::Serving).count();
    let last_error = conditions.iter().find_map(|(address, condition)| match condition {
        Condition::NotServing(detail) | Condition::Unreachable(detail) => Some((address, detail)),
        Condition::Unknown | Condition::Serving => None,
    });
    let Some((address, detail)) = last_error else {
        return if serving == conditions.len() { Summary::Up } else { Summary::Unknown };
    };
    let detail = match conditions.len() {
        1 => format!("{address}: {detail}"),
        all => format!("{serving} of {all} instances serve; {address}: {detail}"),
    };
    let answers = |(_, condition): &(SocketAddr, Condition)| !matches!(condition, Condition::Unreachable(_));
    if conditions.iter().any(answers) { Summary::Degraded(detail) } else { Summary::Down(detail) }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(conditions: impl IntoIterator<Item = Condition>) -> Vec<(SocketAddr, Condition)> {
        (1..).zip(conditions).map(|(port, condition)| (SocketAddr::from(([127, 0, 0, 1], port)), condition)).collect()
    }

    fn unreachable() -> Condition {
        Condition::Unreachable("connection refused".to_owned())
    }

    #[test]
    fn a_single_endpoint_is_reported_with_its_own_detail() {
        assert_eq!(summary(&conditions([Condition::Unknown])), Summary::Unknown);
        assert_eq!(summary(&conditions([Condition::Serving])), Summary::Up);
        assert_eq!(summary(&conditions([unreachable()])), Summary::Down("127.0.0.1:1: connection refused".to_owned()));
        let not_serving = Condition::NotServing("answers NOT_SERVING".to_owned());
        assert_eq!(
            summary(&conditions([not_serving])),
            Summary::Degraded("127.0.0.1:1: answers NOT_SERVING".to_owned())
        );
    }

    #[test]
    fn an_unreachable_endpoint_is_reported_by_its_address() {
        let detail = "1 of 2 instances serve; 127.0.0.1:2: connection refused".to_owned();
        assert_eq!(summary(&conditions([Condition::Serving, unreachable()])), Summary::Degraded(detail));
        let detail = "0 of 2 instances serve; 127.0.0.1:1: connection refused".to_owned();
        assert_eq!(summary(&conditions([unreachable(), unreachable()])), Summary::Down(detail));
        assert_eq!(summary(&conditions([Condition::Serving, Condition::Unknown])), Summary::Unknown);
    }

    #[test]
    fn each_endpoint_is_drawn_with_equal_probability() {
        let mut drawn = [0_u32; 5];
        for _ in 0..10_000 {
            let (first, second) = draw_two(0..5_usize).unwrap();
            let second = second.unwrap();
            assert_ne!(first, second);
            drawn[first] += 1;
            drawn[second] += 1;
        }
        assert!(drawn.iter().all(|times| (3600..4400).contains(times)), "{drawn:?}");
        assert_eq!(draw_two(0..1), Some((0, None)));
        assert_eq!(draw_two(0..0), None);
    }
}
