//! The section `[edge]` of the configuration.

use drystone_mesh::config::ConfigDuration;
use serde::{Deserialize, Serialize};

use crate::http::proxies::{ClientAddressHeader, Network};

/// The edge's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The proxies in front of the edge, such as a TLS terminator, that report the client's address. Without them the
    /// client is the peer of the connection.
    pub trusted_proxies: Vec<Network>,
    /// Whether each connection begins with a header of the PROXY protocol (version 1 or 2), which states its client. Then only
    /// `trusted_proxies` may connect.
    pub proxy_protocol: bool,
    /// The header in which those proxies report the client.
    pub client_address_header: ClientAddressHeader,
    /// The deadline of a call, from when its body is read; a client can set an earlier one with `grpc-timeout`.
    pub deadline: ConfigDuration,
    /// The maximum size of a body, in bytes. A larger one is refused with 413.
    pub body_limit: usize,
    /// How much of a refused body is drained, in bytes, so that the client can read the response and keep its connection.
    pub drain_limit: usize,
    /// The maximum memory of all requests in progress together, heads and bodies, in bytes. One address may use a quarter; trusted
    /// proxies may use all of it. What does not fit is refused with 429, except for a small request that is alone on its connection.
    pub request_memory: usize,
    /// The timeout for reading a body. A slower one is refused with 408.
    pub body_time: ConfigDuration,
    /// The timeout for the first request of a new connection.
    pub request_time: ConfigDuration,
    /// The timeout for each later request, idle time included. It is longer than the idle timeouts of clients and load
    /// balancers, so that they close idle connections and not the edge.
    pub idle_time: ConfigDuration,
    /// The maximum number of open connections; by default as many as fit in a quarter of the memory, and at most 10,000. At
    /// the limit, the connection that has been idle longest is closed for a new one.
    pub connections: Option<usize>,
    /// The maximum number of open connections of one address. Trusted proxies are exempt.
    pub connections_per_address: usize,
    /// The maximum memory of all responses together that clients have not read, in bytes; by default a quarter of the memory,
    /// and at most 128 MiB. One connection may use an eighth of
    /// it, and one address a quarter. Behind a trusted proxy that is the client that it states; the connection has no limit then.
    pub response_memory: Option<usize>,
    /// How long a client may take none of the response that is ready for it.
    pub send_time: ConfigDuration,
    /// The timeout for running requests when the edge stops.
    pub stop_time: ConfigDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            client_address_header: ClientAddressHeader::default(),
            deadline: ConfigDuration::seconds(10),
            body_limit: 1024 * 1024,
            drain_limit: 16 * 1024 * 1024,
            request_memory: 64 * 1024 * 1024,
            body_time: ConfigDuration::seconds(10),
            request_time: ConfigDuration::seconds(10),
            idle_time: ConfigDuration::seconds(75),
            connections: None,
            connections_per_address: 1000,
            response_memory: None,
            send_time: ConfigDuration::seconds(30),
            stop_time: ConfigDuration::seconds(10),
        }
    }
}

/// The maximum number of connections without a setting.
const MAX_CONNECTIONS: usize = 10_000;
/// The minimum of them, however small the memory.
const MIN_CONNECTIONS: usize = 64;
/// The maximum memory of unread responses without a setting.
const MAX_RESPONSE_MEMORY: usize = 128 << 20;
/// What a connection can use at most besides bodies and responses: an unfinished request head, and the buffers and tasks of
/// HTTP.
const MEMORY_PER_CONNECTION: u64 = 64 << 10;

impl Config {
    /// The maximum number of open connections, for a process with this much memory.
    #[must_use]
    pub fn max_connections(&self, memory: Option<u64>) -> usize {
        self.connections.unwrap_or_else(|| {
            let fitting = memory.map_or(u64::MAX, |memory| memory / 4 / MEMORY_PER_CONNECTION);
            usize::try_from(fitting).unwrap_or(usize::MAX).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
        })
    }

    /// The maximum memory of unread responses in bytes, for a process with this much memory.
    #[must_use]
    pub fn max_unread(&self, memory: Option<u64>) -> usize {
        self.response_memory.unwrap_or_else(|| {
            let share = memory.map_or(u64::MAX, |memory| memory / 4);
            usize::try_from(share).unwrap_or(usize::MAX).min(MAX_RESPONSE_MEMORY)
        })
    }

    /// Checks what the types of the values do not.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("body_limit", self.body_limit),
            ("connections", self.connections.unwrap_or(1)),
            ("connections_per_address", self.connections_per_address),
            ("response_memory", self.response_memory.unwrap_or(1)),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(format!("edge.{key} must be at least 1"));
        }
        if self.proxy_protocol && self.trusted_proxies.is_empty() {
            return Err(
                "edge.proxy_protocol needs the proxies that speak it; list them in edge.trusted_proxies".to_owned()
            );
        }
        if self.request_memory / 4 < self.body_limit {
            return Err(
                "edge.request_memory must be at least four times edge.body_limit, or no body of that size is accepted"
                    .to_owned(),
            );
        }
        let times = [
            ("deadline", self.deadline),
            ("body_time", self.body_time),
            ("request_time", self.request_time),
            ("idle_time", self.idle_time),
            ("send_time", self.send_time),
        ];
        match times.into_iter().find(|(_, time)| time.duration().is_zero()) {
            Some((key, _)) => Err(format!("edge.{key} must be longer than 0, such as `10s`")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn limits_follow_from_the_memory() {
        let config = Config::default();
        assert_eq!(config.max_connections(None), 10_000);
        assert_eq!(config.max_connections(Some(8 << 30)), 10_000);
        assert_eq!(config.max_connections(Some(512 << 20)), 2048);
        assert_eq!(config.max_connections(Some(1 << 20)), 64);
        assert_eq!(config.max_unread(Some(8 << 30)), 128 << 20);
        assert_eq!(config.max_unread(Some(256 << 20)), 64 << 20);
        assert_eq!(Config { connections: Some(7), ..config }.max_connections(Some(1 << 20)), 7);
    }

    #[test]
    fn invalid_values_are_named() {
        let error = |config: Config| config.check().unwrap_err();
        assert!(error(Config { connections: Some(0), ..Config::default() }).starts_with("edge.connections"));
        assert!(error(Config { request_memory: 5, ..Config::default() }).starts_with("edge.request_memory"));
        assert!(error(Config { proxy_protocol: true, ..Config::default() }).starts_with("edge.proxy_protocol"));
        assert!(
            error(Config { idle_time: ConfigDuration::seconds(0), ..Config::default() }).starts_with("edge.idle_time")
        );
    }
}
