//! The instances of one service: which there are, and which of them takes the next call.
//!
//! Of two that are drawn at random the one that is less busy takes it (the power of two choices): nearly as good as
//! asking all of them, and nobody is overrun for having been the best a moment ago.

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
    instance::{Condition, Instance, SendError},
    probe,
};
use crate::{
    clock::Clock,
    health::Component,
    identity::{Identity, SpiffeId},
};

/// How long a call waits for the first address of a service.
const FIRST_ADDRESS: Duration = Duration::from_secs(1);

/// How many calls may be sent again: as a share of all, and so many a second that a quiet service has some as well. It is
/// kept over this time.
const RETRY_RATIO: f32 = 0.2;
const MIN_RETRIES_PER_SECOND: u32 = 10;
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// The instances of one service, as one workload calls them.
pub(crate) struct Instances {
    service: Arc<str>,
    expected: SpiffeId,
    identity: Identity,
    pub(super) contracts: Contracts,
    clock: Clock,
    current: watch::Sender<Arc<[Arc<Instance>]>>,
    /// Why there are none, where an address cannot be found.
    missing: Mutex<Option<Arc<str>>>,
    pub(super) budget: TpsBudget,
    pub(super) retries: Counter,
    out: Gauge,
    component: OnceLock<Component>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the instances of a service are watched with.
pub(super) struct EndpointContext {
    pub(super) identity: Identity,
    /// What may be sent again.
    pub(super) contracts: Contracts,
    pub(super) clock: Clock,
    /// Counts calls that were sent again.
    pub(super) retries: Counter,
    /// How many instances are not called for now.
    pub(super) out: Gauge,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

impl Instances {
    pub(super) fn new(service: &str, expected: SpiffeId, context: EndpointContext) -> Arc<Self> {
        let EndpointContext { identity, contracts, clock, retries, out, tasks, stop } = context;
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
            out,
            component: OnceLock::new(),
            tasks,
            stop,
        })
    }

    /// The workload name of the service.
    pub(crate) fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// Which there are, from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<[Arc<Instance>]>> {
        self.current.subscribe()
    }

    /// Reports how the instances are, from now on.
    pub(super) fn report_to(&self, component: Component) {
        let _ = self.component.set(component);
        self.report();
    }

    /// There are these, and no others. Those that were there before keep their connections.
    pub(super) fn set(self: &Arc<Self>, addresses: &[SocketAddr]) {
        let before = self.current.borrow().clone();
        let kept = before.iter().filter(|instance| addresses.contains(&instance.address()));
        let mut all: Vec<Arc<Instance>> = kept.cloned().collect();
        for &address in addresses {
            if all.iter().all(|instance| instance.address() != address) {
                all.push(self.begin(address));
            }
        }
        for left in before.iter().filter(|instance| !addresses.contains(&instance.address())) {
            left.gone().cancel();
        }
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.current.send_replace(all.into());
        self.report();
    }

    /// None is known, and this is why.
    pub(super) fn set_missing(&self, why: String) {
        *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
        self.report();
    }

    fn begin(self: &Arc<Self>, address: SocketAddr) -> Arc<Instance> {
        let gone = self.stop.child_token();
        let (identity, expected, clock) = (self.identity.clone(), self.expected.clone(), self.clock.clone());
        let instance = Arc::new(Instance::new(identity, expected, address, clock, gone.clone()));
        let probing = probe::run(self.clone(), instance.clone());
        self.tasks.spawn(async move { gone.run_until_cancelled(probing).await });
        instance
    }

    /// The instance for a call that some have been tried for already.
    pub(super) async fn pick(&self, tried: &[Arc<Instance>]) -> Result<Arc<Instance>, SendError> {
        if let Some(instance) = choose(&self.current.borrow(), tried) {
            return Ok(instance);
        }
        let mut current = self.current.subscribe();
        let first = tokio::time::timeout(FIRST_ADDRESS, current.wait_for(|instances| !instances.is_empty())).await;
        let found = match first {
            Ok(Ok(instances)) => choose(&instances, tried),
            Ok(Err(_)) | Err(_) => None,
        };
        found.ok_or_else(|| {
            let why = self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let why = why.unwrap_or_else(|| "no address of it has been found yet".into());
            SendError { may_have_run: false, source: (*why).into() }
        })
    }

    /// Whether there is an instance that is not out.
    pub(super) fn has_any(&self) -> bool {
        self.has_another(&[])
    }

    /// Whether there is one that is not out beside those that have been tried.
    pub(super) fn has_another(&self, tried: &[Arc<Instance>]) -> bool {
        self.current.borrow().iter().any(|instance| !instance.breaker.is_open() && !is_among(tried, instance))
    }

    /// Says how all of them are.
    pub(super) fn report(&self) {
        let instances = self.current.borrow().clone();
        let out = instances.iter().filter(|instance| instance.breaker.is_open()).count();
        self.out.set(i64::try_from(out).unwrap_or(i64::MAX));
        let Some(component) = self.component.get() else { return };
        if instances.is_empty() {
            if let Some(why) = &*self.missing.lock().unwrap_or_else(PoisonError::into_inner) {
                component.down(&**why);
            }
            return;
        }
        let conditions: Vec<_> = instances.iter().map(|instance| (instance.address(), instance.condition())).collect();
        match summary(&conditions) {
            Summary::Unknown => {}
            Summary::Up => component.up(),
            Summary::Degraded(detail) => component.degraded(detail),
            Summary::Down(detail) => component.down(detail),
        }
    }
}

/// The better of two drawn at random, of the best kind that there is: not out and not tried yet; not out; not tried. The
/// last one is never out.
fn choose(instances: &[Arc<Instance>], tried: &[Arc<Instance>]) -> Option<Arc<Instance>> {
    // All that most services have, and nothing to choose.
    if let [only] = instances {
        return Some(only.clone());
    }
    let is_in = |instance: &&Arc<Instance>| !instance.breaker.is_open();
    let is_fresh = |instance: &&Arc<Instance>| !is_among(tried, instance);
    let all = || instances.iter();
    the_better_of_two(all().filter(is_in).filter(is_fresh))
        .or_else(|| the_better_of_two(all().filter(is_in)))
        .or_else(|| the_better_of_two(all().filter(is_fresh)))
        .or_else(|| the_better_of_two(all()))
        .cloned()
}

fn is_among(instances: &[Arc<Instance>], instance: &Arc<Instance>) -> bool {
    instances.iter().any(|other| Arc::ptr_eq(other, instance))
}

fn the_better_of_two<'a>(candidates: impl Iterator<Item = &'a Arc<Instance>>) -> Option<&'a Arc<Instance>> {
    let (first, second) = draw_two(candidates)?;
    let Some(second) = second else { return Some(first) };
    // Either way round, so that of two that are as good as each other not always the same is taken.
    let (one, other) = if fastrand::bool() { (first, second) } else { (second, first) };
    Some(if other.cost() < one.cost() { other } else { one })
}

/// Two of however many, each as likely as any other.
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

/// What the conditions of all instances come to.
#[derive(Debug, PartialEq, Eq)]
enum Summary {
    Unknown,
    Up,
    Degraded(String),
    Down(String),
}

fn summary(conditions: &[(SocketAddr, Condition)]) -> Summary {
    let serving = conditions.iter().filter(|(_, condition)| *condition == Condition::Serving).count();
    let trouble = conditions.iter().find_map(|(address, condition)| match condition {
        Condition::Ailing(detail) | Condition::Away(detail) => Some((address, detail)),
        Condition::Unknown | Condition::Serving => None,
    });
    let Some((address, detail)) = trouble else {
        return if serving == conditions.len() { Summary::Up } else { Summary::Unknown };
    };
    let detail = match conditions.len() {
        1 => format!("{address}: {detail}"),
        all => format!("{serving} of {all} instances serve; {address}: {detail}"),
    };
    let answers = |(_, condition): &(SocketAddr, Condition)| !matches!(condition, Condition::Away(_));
    if conditions.iter().any(answers) { Summary::Degraded(detail) } else { Summary::Down(detail) }
}

impl fmt::Debug for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instances").field("service", &self.service).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(conditions: impl IntoIterator<Item = Condition>) -> Vec<(SocketAddr, Condition)> {
        (1..).zip(conditions).map(|(port, condition)| (SocketAddr::from(([127, 0, 0, 1], port)), condition)).collect()
    }

    fn away() -> Condition {
        Condition::Away("connection refused".to_owned())
    }

    #[test]
    fn of_one_instance_it_is_said_what_it_says() {
        assert_eq!(summary(&conditions([Condition::Unknown])), Summary::Unknown);
        assert_eq!(summary(&conditions([Condition::Serving])), Summary::Up);
        assert_eq!(summary(&conditions([away()])), Summary::Down("127.0.0.1:1: connection refused".to_owned()));
        let ailing = Condition::Ailing("answers NOT_SERVING".to_owned());
        assert_eq!(summary(&conditions([ailing])), Summary::Degraded("127.0.0.1:1: answers NOT_SERVING".to_owned()));
    }

    #[test]
    fn with_one_of_several_away_it_is_said_which() {
        let detail = "1 of 2 instances serve; 127.0.0.1:2: connection refused".to_owned();
        assert_eq!(summary(&conditions([Condition::Serving, away()])), Summary::Degraded(detail));
        let detail = "0 of 2 instances serve; 127.0.0.1:1: connection refused".to_owned();
        assert_eq!(summary(&conditions([away(), away()])), Summary::Down(detail));
        assert_eq!(summary(&conditions([Condition::Serving, Condition::Unknown])), Summary::Unknown);
    }

    #[test]
    fn each_of_many_is_drawn_as_often_as_any_other() {
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
