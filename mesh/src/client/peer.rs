//! Where a service is, and how it is called: addresses, breaker, health checks, and groups of instances.

use std::{collections::HashMap, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::consecutive_failures::FAILURE_THRESHOLD;

/// The services that can be called, by workload name.
pub type Peers = HashMap<String, Peer>;

/// A service: its addresses, and how it is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// Each `HOST:PORT`. A host name means all its addresses.
    pub addresses: Vec<String>,
    /// When an endpoint is ejected, and for how long.
    pub breaker: BreakerSettings,
    /// How often an endpoint is checked.
    pub probe: ProbeSettings,
    /// Further endpoints, each group with a share of the calls, such as those of a new release.
    pub groups: Vec<PeerGroup>,
}

/// The settings of the circuit breaker of each endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// How many consecutive failures open it. An unreachable endpoint opens it at once.
    pub failure_threshold: u32,
    /// How long it stays open after consecutive failures, at least.
    pub open_time: Duration,
    /// How many consecutive successful health checks close it.
    pub success_threshold: u32,
}

/// The settings of health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeSettings {
    /// The interval for an endpoint that is called; one that is ejected is checked every 250 ms if that is less.
    pub interval: Duration,
    /// The timeout of one check.
    pub timeout: Duration,
}

/// Endpoints that receive some of the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerGroup {
    /// The name, as in metrics and health reports.
    pub name: String,
    /// Each `HOST:PORT`.
    pub addresses: Vec<String>,
    /// The share of all calls that no header assigns to a group, in percent.
    pub percent: u8,
    /// A metadata entry: calls with exactly this value go to the group.
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failure_threshold: FAILURE_THRESHOLD, open_time: Duration::from_secs(1), success_threshold: 1 }
    }
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), timeout: Duration::from_secs(1) }
    }
}

impl From<Vec<String>> for Peer {
    fn from(addresses: Vec<String>) -> Self {
        Self { addresses, ..Self::default() }
    }
}
