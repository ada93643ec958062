//! The health of a process and its components.
//!
//! Each part of a process reports through a [`Component`]. If a [`Kind::Vital`] component is down, the process is down; if a
//! [`Kind::Optional`] one is, the process is degraded.

mod probe;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::sync::watch;

pub use self::probe::{ProbeIntervals, probe};
use crate::{
    client::BreakerState,
    clock::{Clock, Timestamp},
};

/// The detail of a component that has not reported yet.
const STARTING: &str = "starting";

/// The health of a process. Clones share it.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    components: Mutex<BTreeMap<String, ComponentEntry>>,
    status: watch::Sender<Status>,
    /// Notified by every report, also if the overall status does not change.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct ComponentEntry {
    kind: Kind,
    state: State,
    detail: String,
    since: Timestamp,
    endpoints: Option<EndpointSource>,
}

/// Reads the endpoints of a called service when a report is made: breakers change more often than components report.
#[derive(Clone)]
struct EndpointSource(Arc<dyn Fn() -> Vec<EndpointReport> + Send + Sync>);

impl fmt::Debug for EndpointSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointSource").finish_non_exhaustive()
    }
}

/// The importance of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The process does not work without it.
    Vital,
    /// The process works without it, degraded.
    Optional,
}

/// The state of a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Working.
    Up,
    /// Partly working.
    Degraded,
    /// Not working.
    Down,
}

/// The status of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All components are up.
    Ok,
    /// No vital component is down.
    Degraded,
    /// A vital component is down.
    Down,
}

/// The status of a process and its components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The overall status.
    pub status: Status,
    /// The components by name.
    pub components: BTreeMap<String, ComponentReport>,
}

/// The state of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentReport {
    /// The state.
    pub state: State,
    /// The cause; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The time of the last change of state.
    pub since: Timestamp,
    /// The endpoints of a called service; empty for other components.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointReport>,
}

/// The state of one endpoint of a called service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointReport {
    /// Its address.
    pub address: SocketAddr,
    /// The group that it belongs to.
    pub group: String,
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
    /// The last health check: `unknown`, `serving`, `not_serving` or `unreachable`.
    pub probe: &'static str,
    /// The cause; empty if there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Health {
    /// The health of a process without components: ok.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// The same, with this clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        let (status, changes) = (watch::Sender::new(Status::Ok), watch::Sender::new(()));
        Self(Arc::new(Inner { clock, components: Mutex::default(), status, changes }))
    }

    /// Adds a component, which is down until its first report. It replaces one with the same name.
    #[must_use = "the component stays down until it reports"]
    pub fn component(&self, name: impl Into<String>, kind: Kind) -> Component {
        let name = name.into();
        let (detail, since) = (STARTING.to_owned(), self.0.clock.now());
        let entry = ComponentEntry { kind, state: State::Down, detail, since, endpoints: None };
        self.change(|components| drop(components.insert(name.clone(), entry)));
        Component { health: self.clone(), name }
    }

    /// The status of a process.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.0.status.borrow()
    }

    /// Whether no vital component is down.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status() != Status::Down
    }

    /// Whether a vital component is down among those whose names start with `prefix`.
    #[must_use]
    pub fn is_down(&self, prefix: &str) -> bool {
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_prefix = components.iter().filter(|(name, _)| name.starts_with(prefix));
        of_prefix.any(|(_, entry)| entry.kind == Kind::Vital && entry.state == State::Down)
    }

    /// The state of the component with this name.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<State> {
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.get(name).map(|entry| entry.state)
    }

    /// A report of all components.
    #[must_use]
    pub fn report(&self) -> Report {
        let (mut report, sources) = {
            let entries = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
            let component = |(name, entry): (&String, &ComponentEntry)| {
                let ComponentEntry { state, detail, since, .. } = entry;
                let (detail, endpoints) = (detail.clone(), Vec::new());
                (name.clone(), ComponentReport { state: *state, detail, since: *since, endpoints })
            };
            let sources = entries.iter().filter_map(|(name, entry)| Some((name.clone(), entry.endpoints.clone()?)));
            let sources: Vec<_> = sources.collect();
            (Report { status: overall(&entries), components: entries.iter().map(component).collect() }, sources)
        };
        // Without the lock, which those who report hold together with others.
        for (name, EndpointSource(read)) in sources {
            if let Some(component) = report.components.get_mut(&name) {
                component.endpoints = read();
            }
        }
        report
    }

    /// Watches the overall status.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    /// Notifies of every report of a component.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeMap<String, ComponentEntry>)) {
        let mut components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut components);
        // Notified under the lock, so that notifications are in the order of changes.
        let status = overall(&components);
        self.0.status.send_if_modified(|current| std::mem::replace(current, status) != status);
        self.0.changes.send_replace(());
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Reports the state of one part of a process. Clones share it.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: String,
}

impl Component {
    /// Names what reads the endpoints of a called service, for reports.
    pub(crate) fn describe_endpoints(&self, read: impl Fn() -> Vec<EndpointReport> + Send + Sync + 'static) {
        let source = EndpointSource(Arc::new(read));
        self.health.change(|components| {
            if let Some(entry) = components.get_mut(&self.name) {
                entry.endpoints = Some(source);
            }
        });
    }

    /// Working.
    pub fn up(&self) {
        self.set(State::Up, String::new());
    }

    /// Reports that it works in part; `detail` says what does not.
    pub fn degraded(&self, detail: impl Into<String>) {
        self.set(State::Degraded, detail.into());
    }

    /// Reports that it does not work; `detail` says why.
    pub fn down(&self, detail: impl Into<String>) {
        self.set(State::Down, detail.into());
    }

    fn set(&self, state: State, detail: String) {
        let now = self.health.0.clock.now();
        self.health.change(|components| {
            let Some(entry) = components.get_mut(&self.name) else { return };
            if entry.state != state {
                match state {
                    // The first report after the start is not a recovery.
                    State::Up if entry.detail == STARTING => tracing::debug!(component = self.name, "component is up"),
                    State::Up => tracing::info!(component = self.name, "component is up"),
                    State::Degraded => tracing::warn!(component = self.name, detail, "component is degraded"),
                    State::Down => tracing::warn!(component = self.name, detail, "component is down"),
                }
                (entry.state, entry.since) = (state, now);
            }
            entry.detail = detail;
        });
    }
}

fn overall(components: &BTreeMap<String, ComponentEntry>) -> Status {
    let is_down = |entry: &ComponentEntry| entry.kind == Kind::Vital && entry.state == State::Down;
    if components.values().any(is_down) {
        Status::Down
    } else if components.values().any(|entry| entry.state != State::Up) {
        Status::Degraded
    } else {
        Status::Ok
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_component_is_down_until_its_first_report() {
        let health = Health::new();
        assert!(health.is_ready());
        let store = health.component("store", Kind::Vital);
        assert!(!health.is_ready());
        assert_eq!(health.report().components["store"].detail, "starting");
        store.up();
        assert_eq!(health.report().status, Status::Ok);
    }

    #[test]
    fn an_optional_component_that_is_down_degrades_a_ready_process() {
        let health = Health::new();
        health.component("store", Kind::Vital).up();
        health.component("property", Kind::Optional).down("connection refused");
        assert_eq!(health.status(), Status::Degraded);
        assert!(health.is_ready());
    }

    #[test]
    fn a_degraded_vital_component_leaves_the_process_ready() {
        let health = Health::new();
        health.component("store", Kind::Vital).degraded("slow");
        assert_eq!(health.status(), Status::Degraded);
        assert!(health.is_ready());
    }

    #[test]
    fn since_is_when_the_state_changed_and_not_when_it_was_last_nested() {
        let clock = Clock::manual(Timestamp::default());
        let health = Health::with_clock(clock.clone());
        let store = health.component("store", Kind::Vital);
        clock.advance(Duration::from_secs(1));
        store.up();
        let since = clock.now();
        clock.advance(Duration::from_secs(1));
        store.up();
        assert_eq!(health.report().components["store"].since, since);
        store.down("disconnected");
        assert_eq!(health.report().components["store"].since, clock.now());
    }

    #[tokio::test]
    async fn a_watcher_receives_every_change() {
        let health = Health::new();
        let mut watch = health.watch();
        let store = health.component("store", Kind::Vital);
        assert_eq!(*watch.wait_for(|status| *status == Status::Down).await.unwrap(), Status::Down);
        store.up();
        assert_eq!(*watch.wait_for(|status| *status == Status::Ok).await.unwrap(), Status::Ok);
        store.up();
        assert!(!watch.has_changed().unwrap());
    }

    #[test]
    fn the_report_has_the_documented_format() {
        let health = Health::with_clock(Clock::manual(Timestamp::default()));
        health.component("property", Kind::Optional).down("connection refused");
        health.component("store", Kind::Vital).up();
        let expected = serde_json::json!({"status": "degraded", "components": {
            "property": {"state": "down", "detail": "connection refused", "since": "1970-01-01T00:00:00Z"},
            "store": {"state": "up", "since": "1970-01-01T00:00:00Z"},
        }});
        assert_eq!(serde_json::to_value(health.report()).unwrap(), expected);
    }
}
