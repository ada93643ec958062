//! The limit of calls in flight: of a server, and of each calling workload.
//!
//! A workload has at most [`ServerLimits::max_in_flight_per_workload`] calls in flight. That alone would not keep two busy
//! workloads from filling the server, so a quarter of the server's limit is a reserve of equal parts, one for each workload:
//!
//! - a workload with fewer calls than its part is refused at the limit of the server only;
//! - any other call has to leave the reserve free.
//!
//! Calls of the second kind end at three quarters of the present limit, which may be lower than the maximum, and those of the first
//! kind together take at most a quarter of the maximum, so a workload within its part is always served: also while calls of
//! others have made the limit fall. The parts are those of the workloads of the contracts, or of those that are
//! connected if they are more: then a part becomes smaller at once, and the promise holds when earlier calls have ended.
//!
//! Counts are atomics. That of a workload is looked up once per connection ([`Concurrency::share`]).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{ServerLimits, adaptive::Update};
use crate::{
    limit::Key,
    node::Node,
    telemetry::{CallerLabel, Label, Metrics},
};

/// The reserve is this fraction of the limit.
const RESERVE: i64 = 4;

/// How many essential calls of one workload may be in flight, over all its connections: probes are few, and so are operators.
const MAX_ESSENTIAL: i64 = 64;

/// The calls in flight of one server.
pub(super) struct Concurrency {
    server: Arc<ServerCounts>,
    /// By SPIFFE ID. A share lives as long as a connection or a call has it.
    shares: Mutex<HashMap<Key, Weak<Share>>>,
    metrics: Metrics,
    service: &'static str,
}

/// What all calls of a server count against.
#[derive(Debug)]
struct ServerCounts {
    /// The calls in flight, which are a metric.
    in_flight: Gauge,
    max: i64,
    max_per_workload: i64,
    /// The workloads of the contracts.
    known_workloads: usize,
    connected_workloads: AtomicUsize,
    thresholds: Thresholds,
    /// Held while the thresholds are replaced, so that the last ones are of the newest counts.
    replacing: Mutex<()>,
    refused: Family<RefusalLabels, Counter>,
    /// The limit, as a metric.
    limit: Gauge,
    /// The present latency as a multiple of the usual one, as a metric.
    latency_ratio: LatencyRatio,
    /// Whether a call has been refused because calls are slow.
    has_shed: AtomicBool,
}

/// How many calls may be in flight at present.
#[derive(Debug, Default)]
struct Thresholds {
    /// In all.
    limit: AtomicI64,
    /// Without the reserve.
    unreserved: AtomicI64,
    /// A workload with fewer may use the reserve.
    guaranteed: AtomicI64,
}

/// The share of one workload in a server, over all its connections.
#[derive(Debug)]
pub(super) struct Share {
    server: Arc<ServerCounts>,
    in_flight: AtomicI64,
    essential_in_flight: AtomicI64,
    service: &'static str,
    caller: Label,
    /// By [`ReachedLimit`].
    refused: [OnceLock<Counter>; 3],
}

/// A call in flight, until this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    share: Arc<Share>,
    kind: CallKind,
}

/// What limits a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Every limit.
    Ordinary,
    /// [`MAX_ESSENTIAL`] alone: a health check, which an overloaded caller needs as well, or a call of an operator, who is there
    /// to repair what is slow. It takes nothing of what other calls may use.
    Essential,
}

/// The limit at which a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReachedLimit {
    /// That of its workload.
    Workload,
    /// That of the server.
    Server,
    /// That of the server, as lowered because calls have become slow.
    Latency,
}

impl ReachedLimit {
    /// The label in metrics and logs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Workload => "workload",
            Self::Server => "server",
            Self::Latency => "latency",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    service: &'static str,
    caller: Label,
    limit: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: &'static str,
}

/// A metric with fractions.
type LatencyRatio = Gauge<f64, AtomicU64>;

/// The metrics of all servers of a process.
#[derive(Debug, Clone, Default)]
struct ConcurrencyMetrics {
    in_flight: Family<ServiceLabels, Gauge>,
    limit: Family<ServiceLabels, Gauge>,
    latency_ratio: Family<ServiceLabels, LatencyRatio>,
    refused: Family<RefusalLabels, Counter>,
}

impl ConcurrencyMetrics {
    fn register(registry: &mut Registry) -> Self {
        let this = Self::default();
        let help = "Calls in flight; streams until their response begins";
        registry.register("drystone_server_in_flight", help, this.in_flight.clone());
        let help = "Calls that may be in flight, as latency permits";
        registry.register("drystone_server_concurrency_limit", help, this.limit.clone());
        let help = "Present latency of calls, as a multiple of the usual one";
        registry.register("drystone_server_latency_ratio", help, this.latency_ratio.clone());
        let help = "Calls refused because too many were in flight, by the limit that was reached";
        registry.register("drystone_server_refused", help, this.refused.clone());
        this
    }
}

impl Concurrency {
    pub(super) fn new(node: &Node, limits: &ServerLimits) -> Self {
        let server = ServerCounts::new(limits, node.contracts.workloads().len(), &node.metrics, node.name);
        let (metrics, service) = (node.metrics.clone(), node.name);
        Self { server: Arc::new(server), shares: Mutex::default(), metrics, service }
    }

    /// Whether calls use half of the limit.
    pub(super) fn is_loaded(&self) -> bool {
        let in_flight = self.server.in_flight.get();
        self.server.has_shed.swap(false, Relaxed) || in_flight * 2 >= self.server.thresholds.limit.load(Relaxed)
    }

    /// Replaces the limit of the server.
    pub(super) fn update(&self, Update { limit, latency_ratio }: Update) {
        self.server.set_limit(signed(limit));
        self.server.latency_ratio.set(latency_ratio);
    }

    /// The share of the workload with this key, which its connections have in common.
    pub(super) fn share(&self, workload: Key, caller: CallerLabel) -> Arc<Share> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&workload).and_then(Weak::upgrade) {
            return share;
        }
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Share::new(self.server.clone(), self.service, self.metrics.label_of(caller));
        shares.insert(workload, Arc::downgrade(&share));
        share
    }
}

impl ServerCounts {
    fn new(limits: &ServerLimits, known_workloads: usize, metrics: &Metrics, service: &'static str) -> Self {
        let metrics = metrics.shared(ConcurrencyMetrics::register);
        let labels = ServiceLabels { service };
        let this = Self {
            in_flight: metrics.in_flight.get_or_create_owned(&labels),
            limit: metrics.limit.get_or_create_owned(&labels),
            latency_ratio: metrics.latency_ratio.get_or_create_owned(&labels),
            has_shed: AtomicBool::new(false),
            max: signed(limits.max_in_flight),
            max_per_workload: signed(limits.max_in_flight_per_workload),
            known_workloads,
            connected_workloads: AtomicUsize::new(0),
            thresholds: Thresholds::default(),
            replacing: Mutex::default(),
            refused: metrics.refused,
        };
        this.set_limit(this.max);
        this
    }

    /// Replaces the limit of the server.
    fn set_limit(&self, limit: i64) {
        self.replace_limit(|_| limit);
    }

    fn replace_limit(&self, replace: impl FnOnce(i64) -> i64) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = replace(self.thresholds.limit.load(Relaxed)).min(self.max);
        let Thresholds { limit: current, unreserved, guaranteed } = &self.thresholds;
        let workloads = signed(self.known_workloads.max(self.connected_workloads.load(Relaxed))).max(1);
        let part = self.max / RESERVE / workloads;
        self.limit.set(limit);
        current.store(limit, Relaxed);
        // At the maximum, what the parts leave over can be used as well.
        let reserve = if limit == self.max { part * workloads } else { limit / RESERVE };
        unreserved.store(limit - reserve, Relaxed);
        guaranteed.store(part, Relaxed);
    }

    /// Counts one more call, if there are fewer than `limit`.
    fn try_count(&self, limit: i64) -> bool {
        let increased = |count: i64| (count < limit).then_some(count + 1);
        self.in_flight.inner().fetch_update(Relaxed, Relaxed, increased).is_ok()
    }

    /// The number of connected workloads has changed.
    fn connections_changed(&self) {
        self.replace_limit(|limit| limit);
    }
}

impl Share {
    fn new(server: Arc<ServerCounts>, service: &'static str, caller: Label) -> Arc<Self> {
        server.connected_workloads.fetch_add(1, Relaxed);
        server.connections_changed();
        Arc::new(Self {
            server,
            in_flight: AtomicI64::new(0),
            essential_in_flight: AtomicI64::new(0),
            service,
            caller,
            refused: Default::default(),
        })
    }

    /// Counts a call until the permit is dropped.
    ///
    /// # Errors
    /// The limit at which it is refused.
    pub(super) fn try_acquire(self: &Arc<Self>, kind: CallKind) -> Result<Permit, ReachedLimit> {
        let ServerCounts { max, max_per_workload, thresholds, .. } = &*self.server;
        let (count, max_own) = match kind {
            CallKind::Essential => (&self.essential_in_flight, MAX_ESSENTIAL),
            CallKind::Ordinary => (&self.in_flight, *max_per_workload),
        };
        let own = count.fetch_add(1, Relaxed);
        if own >= max_own {
            count.fetch_sub(1, Relaxed);
            return Err(ReachedLimit::Workload);
        }
        let is_guaranteed = own < thresholds.guaranteed.load(Relaxed);
        let limit = if is_guaranteed { *max } else { thresholds.unreserved.load(Relaxed) };
        if kind == CallKind::Essential || self.server.try_count(limit) {
            return Ok(Permit { share: self.clone(), kind });
        }
        self.in_flight.fetch_sub(1, Relaxed);
        Err(if thresholds.limit.load(Relaxed) < *max { ReachedLimit::Latency } else { ReachedLimit::Server })
    }

    /// Counts a refused call.
    pub(super) fn refused(&self, limit: ReachedLimit) {
        if limit == ReachedLimit::Latency {
            self.server.has_shed.store(true, Relaxed);
        }
        let labels = || RefusalLabels { service: self.service, caller: self.caller.clone(), limit: limit.name() };
        self.refused[limit as usize].get_or_init(|| self.server.refused.get_or_create_owned(&labels())).inc();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.server.connected_workloads.fetch_sub(1, Relaxed);
        self.server.connections_changed();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match self.kind {
            CallKind::Essential => drop(self.share.essential_in_flight.fetch_sub(1, Relaxed)),
            CallKind::Ordinary => {
                self.share.in_flight.fetch_sub(1, Relaxed);
                self.share.server.in_flight.dec();
            }
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server with this limit and these known workloads.
    fn server(max_in_flight: usize, max_in_flight_per_workload: usize, known_workloads: usize) -> Arc<ServerCounts> {
        let limits = ServerLimits { max_in_flight, max_in_flight_per_workload, ..ServerLimits::default() };
        Arc::new(ServerCounts::new(&limits, known_workloads, &Metrics::default(), "user"))
    }

    fn share(server: &Arc<ServerCounts>) -> Arc<Share> {
        let metrics = Metrics::default();
        Share::new(server.clone(), "user", metrics.label_of(CallerLabel::UNKNOWN))
    }

    /// As many calls as the share may have.
    fn fill(share: &Arc<Share>) -> (Vec<Permit>, ReachedLimit) {
        let mut permits = Vec::new();
        loop {
            match share.try_acquire(CallKind::Ordinary) {
                Ok(permit) => permits.push(permit),
                Err(limit) => return (permits, limit),
            }
        }
    }

    #[test]
    fn a_workload_has_a_limit_of_its_own() {
        let server = server(100, 30, 4);
        let (edge, auth) = (share(&server), share(&server));
        let (of_edge, limit) = fill(&edge);
        assert_eq!((of_edge.len(), limit), (30, ReachedLimit::Workload));
        assert!(auth.try_acquire(CallKind::Ordinary).is_ok());
        assert!(edge.try_acquire(CallKind::Essential).is_ok(), "health checks of the busy one");
        drop(of_edge);
        assert_eq!(fill(&edge).0.len(), 30);
    }

    #[test]
    fn a_full_server_serves_every_workload_within_its_part() {
        let server = server(100, 100, 5);
        let workloads: Vec<_> = (0..5).map(|_| share(&server)).collect();
        let (of_first, limit) = fill(&workloads[0]);
        assert_eq!((of_first.len(), limit), (75, ReachedLimit::Server), "the reserve is left");
        let of_others: Vec<_> = workloads[1..].iter().map(|share| fill(share).0).collect();
        assert!(of_others.iter().all(|permits| permits.len() == 5), "a fifth of the reserve for each");
        assert_eq!(server.in_flight.get(), 95, "the part of the first is its own");
        drop(of_first);
        drop(of_others);
        assert_eq!(server.in_flight.get(), 0);
    }

    #[test]
    fn more_workloads_than_the_contracts_have_get_smaller_parts() {
        let server = server(100, 100, 1);
        let busy = share(&server);
        let (calls, _) = fill(&busy);
        assert_eq!(calls.len(), 75);
        let others: Vec<_> = (0..24).map(|_| share(&server)).collect();
        let answers: Vec<_> = others.iter().map(|share| share.try_acquire(CallKind::Ordinary)).collect();
        assert!(answers.iter().all(Result::is_ok), "each has a part of one call");
        drop((answers, others));
        assert_eq!(server.connected_workloads.load(Relaxed), 1);
    }

    #[test]
    fn a_small_server_has_no_reserve() {
        let server = server(1, 768, 9);
        let share = share(&server);
        let (permits, limit) = fill(&share);
        assert_eq!((permits.len(), limit), (1, ReachedLimit::Server));
    }

    #[test]
    fn a_lowered_limit_concerns_ordinary_calls_only() {
        let server = server(100, 100, 25);
        server.set_limit(20);
        let share = share(&server);
        let (permits, limit) = fill(&share);
        assert_eq!((permits.len(), limit), (15, ReachedLimit::Latency));
        let essential = (0..).map_while(|_| share.try_acquire(CallKind::Essential).ok());
        assert_eq!(essential.take(200).collect::<Vec<_>>().len(), 64);
    }

    #[test]
    fn a_workload_within_its_part_is_served_when_calls_of_others_have_lowered_the_limit() {
        let server = server(1024, 768, 8);
        let (busy, quiet) = (share(&server), share(&server));
        let (held, _) = fill(&busy);
        assert_eq!(held.len(), 768);
        server.set_limit(128);
        let (permits, limit) = fill(&quiet);
        assert_eq!((permits.len(), limit), (32, ReachedLimit::Latency));
        assert!(busy.try_acquire(CallKind::Ordinary).is_err());
    }

    #[test]
    fn health_checks_take_nothing_of_other_calls() {
        let server = server(100, 100, 1);
        let (prober, other) = (share(&server), share(&server));
        let checks: Vec<_> = (0..1000).map_while(|_| prober.try_acquire(CallKind::Essential).ok()).collect();
        assert_eq!((checks.len(), server.in_flight.get()), (64, 0));
        assert!(fill(&other).0.len() >= 75);
        drop(checks);
        assert_eq!(prober.essential_in_flight.load(Relaxed), 0);
    }

    proptest::proptest! {
        /// Whatever the others do, a workload within its part is served, and nothing exceeds a limit.
        #[test]
        fn a_workload_within_its_part_is_always_served(steps in proptest::collection::vec((0_usize..4, 0_usize..3), 1..400)) {
            let server = server(32, 20, 4);
            let workloads: Vec<_> = (0..4).map(|_| share(&server)).collect();
            let mut calls: Vec<Vec<Permit>> = (0..4).map(|_| Vec::new()).collect();
            for (workload, step) in steps {
                if step == 0 {
                    calls[workload].pop();
                } else if let Ok(permit) = workloads[workload].try_acquire(CallKind::Ordinary) {
                    calls[workload].push(permit);
                } else {
                    // A quarter of 32, for four workloads.
                    proptest::prop_assert!(calls[workload].len() >= 2);
                }
                let all: usize = calls.iter().map(Vec::len).sum();
                proptest::prop_assert!(all <= 32 && calls[workload].len() <= 20);
                proptest::prop_assert_eq!(server.in_flight.get(), signed(all));
            }
        }
    }

    #[test]
    fn concurrent_calls_never_exceed_the_limit() {
        let server = server(8, 8, 1);
        let shares = [share(&server), share(&server)];
        let most = AtomicI64::new(0);
        std::thread::scope(|scope| {
            for share in shares.iter().chain(&shares) {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let permit = share.try_acquire(CallKind::Ordinary);
                        most.fetch_max(server.in_flight.get(), Relaxed);
                        drop(permit);
                    }
                });
            }
        });
        assert!((1..=8).contains(&most.load(Relaxed)));
        assert_eq!(server.in_flight.get(), 0);
    }
}
