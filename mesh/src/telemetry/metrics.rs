//! Prometheus metrics of calls, denials and refused handshakes.
//!
//! Every label value is from a closed set, so that callers cannot increase the cardinality.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use drystone::contract::Contracts;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tonic::Code;

use super::{LogBudget, histogram::DurationHistogram};
use crate::deadline::SetBy;

/// The caller label of an authenticated workload that no contract lists.
pub const UNKNOWN_CALLER: &str = "other";
/// The caller label of an unauthenticated caller.
pub const NO_CALLER: &str = "none";

/// The names of the gRPC codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The metrics of a process. Clones share their counts.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Mutex<Registry>,
    contracts: Contracts,
    /// Every value of the caller label.
    callers: Vec<Label>,
    calls: Family<CallLabels, Counter>,
    durations: Family<MethodLabels, DurationHistogram>,
    denials: Family<DenialLabels, Counter>,
    shadow_denials: Family<DenialLabels, Counter>,
    deadlines: Family<DeadlineLabels, Counter>,
    handshakes: Family<HandshakeLabels, Counter>,
    retries: Family<ClientLabels, Counter>,
    ejected_endpoints: Family<ClientLabels, Gauge>,
    suppressed_lines: Family<EventLabels, Counter>,
    /// By type: see [`Metrics::shared`].
    shared: Mutex<HashMap<TypeId, Box<dyn Any + Send>>>,
}

/// A label value that is known once the contracts are loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Label(Arc<str>);

impl EncodeLabelValue for Label {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        (&*self.0).encode(encoder)
    }
}

/// The caller label of a connection, as an index into the label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerLabel(usize);

impl CallerLabel {
    /// A workload that no contract lists.
    pub const UNKNOWN: Self = Self(0);
    /// An unauthenticated caller.
    pub const NONE: Self = Self(1);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    service: Label,
    method: Label,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    service: Label,
    method: Label,
    caller: Label,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    service: Label,
    method: Label,
    caller: Label,
    part: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadlineLabels {
    service: Label,
    method: Label,
    set_by: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    service: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClientLabels {
    caller: &'static str,
    service: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

impl Metrics {
    /// Metrics with the RPCs and workloads of these contracts as label values.
    #[must_use]
    pub fn new(contracts: &Contracts) -> Self {
        let calls = Family::<CallLabels, Counter>::default();
        let durations = Family::<MethodLabels, DurationHistogram>::default();
        let denials = Family::<DenialLabels, Counter>::default();
        let shadow_denials = Family::<DenialLabels, Counter>::default();
        let deadlines = Family::<DeadlineLabels, Counter>::default();
        let handshakes = Family::<HandshakeLabels, Counter>::default();
        let retries = Family::<ClientLabels, Counter>::default();
        let ejected_endpoints = Family::<ClientLabels, Gauge>::default();
        let suppressed_lines = Family::<EventLabels, Counter>::default();

        let mut registry = Registry::default();
        registry.register("drystone_calls", "Completed calls, by caller and gRPC code", calls.clone());
        registry.register("drystone_call_duration_seconds", "Time from request to response", durations.clone());
        registry.register(
            "drystone_denials",
            "Calls denied, by the part of the rule that denied them",
            denials.clone(),
        );
        registry.register(
            "drystone_shadow_denials",
            "Calls allowed that the shadow rules would deny, by the part of the rule",
            shadow_denials.clone(),
        );
        registry.register(
            "drystone_deadlines_exceeded",
            "Calls answered DEADLINE_EXCEEDED, by who set the deadline",
            deadlines.clone(),
        );
        registry.register("drystone_handshakes_refused", "TLS handshakes that were refused", handshakes.clone());
        registry.register(
            "drystone_log_lines_suppressed",
            "Log lines that were not written, since there were too many of their kind",
            suppressed_lines.clone(),
        );
        registry.register("drystone_client_retries", "Retries of calls to a service", retries.clone());
        registry.register(
            "drystone_client_ejected_endpoints",
            "Instances of a service that are ejected because of failures",
            ejected_endpoints.clone(),
        );

        let (registry, callers) = (Mutex::new(registry), caller_labels(contracts));
        let contracts = contracts.clone();
        Self(Arc::new(Inner {
            registry,
            contracts,
            callers,
            calls,
            durations,
            denials,
            shadow_denials,
            deadlines,
            handshakes,
            retries,
            ejected_endpoints,
            suppressed_lines,
            shared: Mutex::default(),
        }))
    }

    /// The metrics of one RPC, by its path `/package.Service/Method`. Look them up once, at startup.
    #[must_use]
    pub fn method(&self, path: &str) -> MethodMetrics {
        let labels = MethodLabels::of(&self.0.contracts, path);
        let duration = self.0.durations.get_or_create_owned(&labels);
        let calls = std::iter::repeat_with(OnceLock::new).take(self.0.callers.len() * CODES.len()).collect();
        MethodMetrics(Arc::new(MethodMetricsInner { metrics: self.clone(), labels, duration, calls }))
    }

    /// The label of a workload by its name; `None` for a caller of another trust domain.
    #[must_use]
    pub fn caller(&self, workload: Option<&str>) -> CallerLabel {
        let index = workload.and_then(|name| self.0.callers.iter().position(|label| *label.0 == *name));
        index.map_or(CallerLabel::UNKNOWN, CallerLabel)
    }

    /// The value of a caller label.
    pub(crate) fn label_of(&self, caller: CallerLabel) -> Label {
        self.0.callers[caller.0].clone()
    }

    /// Counts a TLS handshake that `service` refused.
    pub fn handshake_refused(&self, service: &str, reason: &'static str) {
        let labels = HandshakeLabels { service: service.to_owned(), reason };
        self.0.handshakes.get_or_create(&labels).inc();
    }

    /// The retries of calls from `caller` to `service`, and its ejected endpoints.
    pub(crate) fn client(&self, caller: &'static str, service: &str) -> (Counter, Gauge) {
        let labels = ClientLabels { caller, service: service.to_owned() };
        (self.0.retries.get_or_create_owned(&labels), self.0.ejected_endpoints.get_or_create_owned(&labels))
    }

    /// The budget of log lines for events of this kind.
    #[must_use]
    pub fn log_budget(&self, event: &'static str) -> LogBudget {
        LogBudget::new(event, self.0.suppressed_lines.get_or_create_owned(&EventLabels { event }))
    }

    /// Registers further metrics. Names have the prefix `drystone_`, but not the suffix `_total`, which the format adds to
    /// counters.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.0.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Metrics that several services of a process have in common, such as families with a label for the service. The first call
    /// with a type registers them.
    pub fn shared<T: Clone + Send + 'static>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(metrics) = shared.get(&TypeId::of::<T>()).and_then(|metrics| metrics.downcast_ref::<T>()) {
            return metrics.clone();
        }
        let metrics = register(&mut self.0.registry.lock().unwrap_or_else(PoisonError::into_inner));
        shared.insert(TypeId::of::<T>(), Box::new(metrics.clone()));
        metrics
    }

    /// All metrics in the [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/) text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.0.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = text::encode(&mut text, &registry) {
            tracing::error!(%error, "metrics cannot be encoded");
        }
        text
    }
}

/// Metrics without contracts: every caller counts as unknown.
impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Contracts::default())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The metrics of one RPC. Cheap to clone; the request path uses only atomics.
#[derive(Debug, Clone)]
pub struct MethodMetrics(Arc<MethodMetricsInner>);

#[derive(Debug)]
struct MethodMetricsInner {
    metrics: Metrics,
    labels: MethodLabels,
    duration: DurationHistogram,
    /// A counter for each caller and code, created on first use, so that no empty series are exported.
    calls: Vec<OnceLock<Counter>>,
}

impl MethodMetrics {
    /// Counts a completed call.
    pub fn observe(&self, caller: CallerLabel, code: Code, elapsed: Duration) {
        let MethodMetricsInner { metrics, labels, duration, calls } = &*self.0;
        duration.observe(elapsed);

        let code_index = usize::try_from(i32::from(code)).unwrap_or_default();
        if let Some(slot) = calls.get(caller.0 * CODES.len() + code_index) {
            let counter = || {
                let MethodLabels { service, method } = labels.clone();
                let caller = metrics.0.callers[caller.0].clone();
                metrics.0.calls.get_or_create_owned(&CallLabels { service, method, caller, code: CODES[code_index] })
            };
            slot.get_or_init(counter).inc();
        }
    }

    /// Counts a call whose deadline has passed.
    pub fn deadline_exceeded(&self, set_by: SetBy) {
        let MethodMetricsInner { metrics, labels, .. } = &*self.0;
        let MethodLabels { service, method } = labels.clone();
        metrics.0.deadlines.get_or_create(&DeadlineLabels { service, method, set_by: set_by.name() }).inc();
    }

    /// Counts a denied call by the part of the rule that it failed: `caller`, `subject`, `permission`, ...
    pub fn denied(&self, part: &'static str, caller: CallerLabel) {
        self.0.metrics.0.denials.get_or_create(&self.denial_labels(part, caller)).inc();
    }

    /// Counts a call that the shadow rules would deny, by the part of the rule.
    pub fn shadow_denied(&self, part: &'static str, caller: CallerLabel) {
        self.0.metrics.0.shadow_denials.get_or_create(&self.denial_labels(part, caller)).inc();
    }

    fn denial_labels(&self, part: &'static str, caller: CallerLabel) -> DenialLabels {
        let MethodMetricsInner { metrics, labels, .. } = &*self.0;
        let MethodLabels { service, method } = labels.clone();
        DenialLabels { service, method, caller: metrics.0.callers[caller.0].clone(), part }
    }
}

impl MethodLabels {
    /// The service label is the workload that serves the RPC; for RPCs that every workload serves, such as health, it is
    /// the full name of the service.
    fn of(contracts: &Contracts, path: &str) -> Self {
        let (full, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
        let service = contracts.method(path).map_or_else(|| full.into(), |method| Arc::clone(&method.workload));
        Self { service: Label(service), method: Label(method.into()) }
    }
}

/// All workloads, after the two labels for other callers.
fn caller_labels(contracts: &Contracts) -> Vec<Label> {
    let workloads = contracts.workloads().iter().map(String::as_str);
    [UNKNOWN_CALLER, NO_CALLER].into_iter().chain(workloads).map(|name| Label(name.into())).collect()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    const GET_ME: &str = "/drystone.user.v1.UserService/GetMe";

    fn metrics() -> Metrics {
        Metrics::new(&drystone::contracts().unwrap())
    }

    fn has_line(metrics: &Metrics, line: &str) -> bool {
        metrics.render().lines().any(|rendered| rendered == line)
    }

    #[test]
    fn calls_are_counted_by_caller_and_code() {
        let metrics = metrics();
        let get_me = metrics.method(GET_ME);
        get_me.observe(metrics.caller(Some("edge")), Code::Ok, Duration::from_millis(3));
        get_me.observe(metrics.caller(Some("edge")), Code::Ok, Duration::from_millis(3));
        // A second lookup returns the same counters.
        metrics.method(GET_ME).observe(metrics.caller(Some("operator")), Code::NotFound, Duration::from_mins(1));
        for line in [
            r#"drystone_calls_total{service="user",method="GetMe",caller="edge",code="OK"} 2"#,
            r#"drystone_calls_total{service="user",method="GetMe",caller="operator",code="NOT_FOUND"} 1"#,
            r#"drystone_call_duration_seconds_bucket{le="0.0025",service="user",method="GetMe"} 0"#,
            r#"drystone_call_duration_seconds_bucket{le="0.005",service="user",method="GetMe"} 2"#,
            r#"drystone_call_duration_seconds_bucket{le="10.0",service="user",method="GetMe"} 2"#,
            r#"drystone_call_duration_seconds_bucket{le="+Inf",service="user",method="GetMe"} 3"#,
            r#"drystone_call_duration_seconds_count{service="user",method="GetMe"} 3"#,
            r#"drystone_call_duration_seconds_sum{service="user",method="GetMe"} 60.006"#,
        ] {
            assert!(has_line(&metrics, line), "{line}\n{}", metrics.render());
        }
    }

    #[test]
    fn every_code_has_a_label() {
        let metrics = metrics();
        let get_me = metrics.method(GET_ME);
        for code in 0..17 {
            get_me.observe(metrics.caller(Some("edge")), Code::from_i32(code), Duration::ZERO);
        }
        for name in CODES {
            let line =
                format!(r#"drystone_calls_total{{service="user",method="GetMe",caller="edge",code="{name}"}} 1"#);
            assert!(has_line(&metrics, &line), "{line}");
        }
        assert_eq!(CODES[Code::Unauthenticated as usize], "UNAUTHENTICATED");
    }

    #[test]
    fn a_caller_that_no_contract_lists_has_the_label_other() {
        let metrics = metrics();
        metrics.method(GET_ME).observe(metrics.caller(Some("mallory")), Code::PermissionDenied, Duration::ZERO);
        metrics.method(GET_ME).denied("caller", metrics.caller(Some("mallory")));
        metrics.method(GET_ME).denied("caller", CallerLabel::NONE);
        let rendered = metrics.render();
        assert!(!rendered.contains("mallory"), "{rendered}");
        for line in [
            r#"drystone_calls_total{service="user",method="GetMe",caller="other",code="PERMISSION_DENIED"} 1"#,
            r#"drystone_denials_total{service="user",method="GetMe",caller="other",part="caller"} 1"#,
            r#"drystone_denials_total{service="user",method="GetMe",caller="none",part="caller"} 1"#,
        ] {
            assert!(has_line(&metrics, line), "{line}\n{rendered}");
        }
    }

    #[test]
    fn every_workload_of_the_contracts_has_a_label() {
        let metrics = metrics();
        for workload in drystone::contracts().unwrap().workloads() {
            assert_ne!(metrics.caller(Some(workload)), CallerLabel::UNKNOWN, "{workload}");
        }
        assert_eq!(metrics.caller(Some("mallory")), CallerLabel::UNKNOWN);
        assert_eq!(metrics.caller(None), CallerLabel::UNKNOWN);
    }

    #[test]
    fn an_rpc_of_every_workload_is_labelled_with_its_full_service_name() {
        let metrics = metrics();
        metrics.method("/grpc.health.v1.Health/Check").observe(
            metrics.caller(Some("operator")),
            Code::Ok,
            Duration::ZERO,
        );
        let line =
            r#"drystone_calls_total{service="grpc.health.v1.Health",method="Check",caller="operator",code="OK"} 1"#;
        assert!(has_line(&metrics, line), "{}", metrics.render());
    }

    #[test]
    fn refused_handshakes_and_registered_metrics_are_rendered() {
        let metrics = metrics();
        metrics.handshake_refused("user", "certificate");
        let depth = Gauge::<i64>::default();
        metrics.register(|registry| registry.register("drystone_hashing_queue", "Jobs that wait", depth.clone()));
        depth.set(7);
        assert!(has_line(&metrics, r#"drystone_handshakes_refused_total{service="user",reason="certificate"} 1"#));
        assert!(has_line(&metrics, "drystone_hashing_queue 7"));
        assert!(metrics.render().ends_with("# EOF\n"));
    }

    #[test]
    fn concurrent_calls_are_all_counted() {
        let metrics = metrics();
        let (get_me, edge) = (metrics.method(GET_ME), metrics.caller(Some("edge")));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| get_me.observe(edge, Code::Ok, Duration::from_micros(1))));
            }
        });
        let line = r#"drystone_calls_total{service="user",method="GetMe",caller="edge",code="OK"} 4000"#;
        assert!(has_line(&get_me.0.metrics, line));
    }
}
