//! What is up, and what that means for the whole.
//!
//! Each part of a process reports itself through a [`Component`]. A part that is [`Kind::Vital`] takes the whole down
//! with it; without an [`Kind::Optional`] one the process goes on, degraded.

mod probe;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::sync::watch;

pub use self::probe::{ProbeIntervals, probe};
use crate::clock::{Clock, Timestamp};

/// Why a component is down that has not reported yet.
const STARTING: &str = "starting";

/// The health of a process. Clones are the same health.
#[derive(Debug, Clone)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    components: Mutex<BTreeMap<String, Known>>,
    status: watch::Sender<Status>,
    /// Told whenever a component reports, whether or not that changes the whole.
    changes: watch::Sender<()>,
}

#[derive(Debug)]
struct Known {
    kind: Kind,
    state: State,
    detail: String,
    since: Timestamp,
}

/// What a component means to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing works without it.
    Vital,
    /// The rest works without it.
    Optional,
}

/// How one component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It works.
    Up,
    /// It works in part.
    Degraded,
    /// It does not work.
    Down,
}

/// How the whole is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything works.
    Ok,
    /// The most important things work.
    Degraded,
    /// A vital component is down.
    Down,
}

/// How the whole is, and each of its components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The whole.
    pub status: Status,
    /// The components by name.
    pub components: BTreeMap<String, ComponentReport>,
}

/// How one component is, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentReport {
    /// How it is.
    pub state: State,
    /// Why; empty where there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// When it came to be so.
    pub since: Timestamp,
}

impl Health {
    /// The health of a process without components: it is well.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Clock::system())
    }

    /// The same, with times from this clock.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        let (status, changes) = (watch::Sender::new(Status::Ok), watch::Sender::new(()));
        Self(Arc::new(Inner { clock, components: Mutex::default(), status, changes }))
    }

    /// Adds a component, which is down until it says otherwise. One of the same name is replaced.
    #[must_use = "the component stays down until it is told to be up"]
    pub fn component(&self, name: impl Into<String>, kind: Kind) -> Component {
        let name = name.into();
        let known = Known { kind, state: State::Down, detail: STARTING.to_owned(), since: self.0.clock.now() };
        self.change(|components| drop(components.insert(name.clone(), known)));
        Component { health: self.clone(), name }
    }

    /// How the whole is.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.0.status.borrow()
    }

    /// Whether every vital component works, at least in part.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status() != Status::Down
    }

    /// Whether a vital component is down among those whose names start with `prefix`.
    #[must_use]
    pub fn is_down(&self, prefix: &str) -> bool {
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let mut of_prefix = components.iter().filter(|(name, _)| name.starts_with(prefix));
        of_prefix.any(|(_, known)| known.kind == Kind::Vital && known.state == State::Down)
    }

    /// How the component of this name is, if there is one.
    #[must_use]
    pub fn state(&self, name: &str) -> Option<State> {
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.get(name).map(|known| known.state)
    }

    /// How everything is.
    #[must_use]
    pub fn report(&self) -> Report {
        let known = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let components = known
            .iter()
            .map(|(name, Known { state, detail, since, .. })| {
                (name.clone(), ComponentReport { state: *state, detail: detail.clone(), since: *since })
            })
            .collect();
        Report { status: overall(&known), components }
    }

    /// How the whole is, from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.0.status.subscribe()
    }

    /// Changes with every report of a component, from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    fn change(&self, edit: impl FnOnce(&mut BTreeMap<String, Known>)) {
        let mut components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        edit(&mut components);
        // Told under the lock, so that the last change is the last to be told.
        let status = overall(&components);
        self.0.status.send_if_modified(|told| std::mem::replace(told, status) != status);
        self.0.changes.send_replace(());
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// One part of a process, and its way to say how it is. Clones are the same component.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    name: String,
}

impl Component {
    /// It works.
    pub fn up(&self) {
        self.set(State::Up, String::new());
    }

    /// It works in part; `detail` says what does not.
    pub fn degraded(&self, detail: impl Into<String>) {
        self.set(State::Degraded, detail.into());
    }

    /// It does not work; `detail` says why.
    pub fn down(&self, detail: impl Into<String>) {
        self.set(State::Down, detail.into());
    }

    fn set(&self, state: State, detail: String) {
        let now = self.health.0.clock.now();
        self.health.change(|components| {
            let Some(known) = components.get_mut(&self.name) else { return };
            if known.state != state {
                match state {
                    // What has not been down in earnest has not come back either.
                    State::Up if known.detail == STARTING => tracing::debug!(component = self.name, "component is up"),
                    State::Up => tracing::info!(component = self.name, "component is up"),
                    State::Degraded => tracing::warn!(component = self.name, detail, "component is degraded"),
                    State::Down => tracing::warn!(component = self.name, detail, "component is down"),
                }
                (known.state, known.since) = (state, now);
            }
            known.detail = detail;
        });
    }
}

fn overall(components: &BTreeMap<String, Known>) -> Status {
    let is_down = |known: &Known| known.kind == Kind::Vital && known.state == State::Down;
    if components.values().any(is_down) {
        Status::Down
    } else if components.values().any(|known| known.state != State::Up) {
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
    fn a_component_is_down_until_it_says_otherwise() {
        let health = Health::new();
        assert!(health.is_ready());
        let store = health.component("store", Kind::Vital);
        assert!(!health.is_ready());
        assert_eq!(health.report().components["store"].detail, "starting");
        store.up();
        assert_eq!(health.report().status, Status::Ok);
    }

    #[test]
    fn without_an_optional_component_the_whole_is_degraded_and_ready() {
        let health = Health::new();
        health.component("store", Kind::Vital).up();
        health.component("property", Kind::Optional).down("connection refused");
        assert_eq!(health.status(), Status::Degraded);
        assert!(health.is_ready());
    }

    #[test]
    fn a_degraded_vital_component_leaves_the_whole_ready() {
        let health = Health::new();
        health.component("store", Kind::Vital).degraded("slow");
        assert_eq!(health.status(), Status::Degraded);
        assert!(health.is_ready());
    }

    #[test]
    fn since_is_when_the_state_changed_and_not_when_it_was_last_told() {
        let clock = Clock::manual(Timestamp::default());
        let health = Health::with_clock(clock.clone());
        let store = health.component("store", Kind::Vital);
        clock.advance(Duration::from_secs(1));
        store.up();
        let since = clock.now();
        clock.advance(Duration::from_secs(1));
        store.up();
        assert_eq!(health.report().components["store"].since, since);
        store.down("gone");
        assert_eq!(health.report().components["store"].since, clock.now());
    }

    #[tokio::test]
    async fn a_watcher_hears_of_every_turn() {
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
    fn the_report_reads_as_promised() {
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
