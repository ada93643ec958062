//! Where other services are, and how they are called.

mod address;
mod group;

use std::fmt;

use drystone_mesh::{
    client::{BreakerSettings, Peer, ProbeSettings},
    config::ConfigDuration,
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{
        self, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use self::{address::PeerAddresses, group::GroupConfig};

/// The upper bound of the thresholds.
const MAX_THRESHOLD: u32 = 1000;

/// One entry of `[peers]`: an address, a list of addresses, or a table with settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerConfig(PeerTable);

/// The table of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PeerTable {
    /// Where its instances are; none for the address of the service's own section.
    #[serde(skip_serializing_if = "PeerAddresses::is_empty")]
    addresses: PeerAddresses,
    /// How many consecutive failures eject an instance.
    failure_threshold: u32,
    /// How long it is ejected then, at least.
    open_time: ConfigDuration,
    /// How many consecutive health checks have to succeed before an ejected instance is called again.
    success_threshold: u32,
    /// The interval of health checks.
    probe_interval: ConfigDuration,
    /// The timeout of a health check.
    probe_timeout: ConfigDuration,
    /// Further instances with a share of the calls.
    groups: Vec<GroupConfig>,
}

impl Default for PeerTable {
    fn default() -> Self {
        let BreakerSettings { failure_threshold, success_threshold, .. } = BreakerSettings::default();
        Self {
            addresses: PeerAddresses::default(),
            failure_threshold,
            open_time: ConfigDuration::seconds(1),
            success_threshold,
            probe_interval: ConfigDuration::seconds(5),
            probe_timeout: ConfigDuration::seconds(1),
            groups: Vec::new(),
        }
    }
}

impl PeerConfig {
    /// Whether it says where the service is.
    pub(crate) fn has_addresses(&self) -> bool {
        !self.0.addresses.is_empty()
    }

    /// The peer. Without addresses of its own it is at `listen`, the address in the section of its service.
    pub(crate) fn peer(&self, listen: Option<String>) -> Peer {
        let table = &self.0;
        let addresses = if self.has_addresses() { table.addresses.to_strings() } else { listen.into_iter().collect() };
        Peer {
            addresses,
            breaker: BreakerSettings {
                failure_threshold: table.failure_threshold,
                open_time: table.open_time.duration(),
                success_threshold: table.success_threshold,
            },
            probe: ProbeSettings { interval: table.probe_interval.duration(), timeout: table.probe_timeout.duration() },
            groups: table.groups.iter().filter_map(GroupConfig::group).collect(),
        }
    }

    /// Checks what types cannot express; `name` is the service.
    pub(crate) fn check(&self, name: &str) -> Result<(), String> {
        let table = &self.0;
        for (key, value) in
            [("failure_threshold", table.failure_threshold), ("success_threshold", table.success_threshold)]
        {
            if value == 0 || value > MAX_THRESHOLD {
                return Err(format!("peers.{name}.{key} must be from 1 to {MAX_THRESHOLD}, not {value}; correct it"));
            }
        }
        let (millis, minutes) = (ConfigDuration::millis, ConfigDuration::minutes);
        for (key, value, min, max) in [
            ("open_time", table.open_time, millis(10), minutes(10)),
            ("probe_interval", table.probe_interval, millis(50), minutes(5)),
            ("probe_timeout", table.probe_timeout, millis(10), minutes(1)),
        ] {
            if value < min || value > max {
                return Err(format!("peers.{name}.{key} must be from {min} to {max}, not {value}; correct it"));
            }
        }
        group::check(&table.groups, &table.addresses, name)
    }
}

impl Serialize for PeerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plain = PeerTable { addresses: self.0.addresses.clone(), ..PeerTable::default() };
        if self.has_addresses() && self.0 == plain {
            return self.0.addresses.serialize(serializer);
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PeerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressesOrTable)
    }
}

struct AddressesOrTable;

impl<'de> Visitor<'de> for AddressesOrTable {
    type Value = PeerConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HOST:PORT, or a list of them, or a table with `addresses` and settings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<PeerConfig, E> {
        PeerAddresses::of(text).map(PeerConfig::from).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<PeerConfig, A::Error> {
        PeerAddresses::deserialize(SeqAccessDeserializer::new(list)).map(PeerConfig::from)
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<PeerConfig, A::Error> {
        PeerTable::deserialize(MapAccessDeserializer::new(table)).map(PeerConfig)
    }
}

impl From<PeerAddresses> for PeerConfig {
    fn from(addresses: PeerAddresses) -> Self {
        Self(PeerTable { addresses, ..PeerTable::default() })
    }
}
