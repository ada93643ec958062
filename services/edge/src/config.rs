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
    /// The header in which those proxies report the client.
    pub client_address_header: ClientAddressHeader,
    /// The deadline of a call, from when its body is read; a client can set an earlier one with `grpc-timeout`.
    pub deadline: ConfigDuration,
    /// The maximum size of a body, in bytes. A larger one is refused with 413.
    pub body_limit: usize,
    /// How much of a refused body is drained, in bytes, so that the client can read the response and keep its connection.
    pub drain_limit: usize,
    /// The maximum memory of all bodies together, in bytes. A body that does not fit is refused with 429.
    pub body_memory: usize,
    /// The timeout for reading a body. A slower one is refused with 408.
    pub body_time: ConfigDuration,
    /// The timeout for the first request of a new connection.
    pub request_time: ConfigDuration,
    /// The timeout for each later request, idle time included. It is longer than the idle timeouts of clients and load
    /// balancers, so that they close idle connections and not the edge.
    pub idle_time: ConfigDuration,
    /// The maximum number of open connections.
    pub connections: usize,
    /// The timeout for running requests when the edge stops.
    pub stop_time: ConfigDuration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            trusted_proxies: Vec::new(),
            client_address_header: ClientAddressHeader::default(),
            deadline: ConfigDuration::seconds(10),
            body_limit: 1024 * 1024,
            drain_limit: 16 * 1024 * 1024,
            body_memory: 64 * 1024 * 1024,
            body_time: ConfigDuration::seconds(10),
            request_time: ConfigDuration::seconds(10),
            idle_time: ConfigDuration::seconds(75),
            connections: 10_000,
            stop_time: ConfigDuration::seconds(10),
        }
    }
}

impl Config {
    /// Checks what the types of the values do not.
    ///
    /// # Errors
    /// A sentence that names the key and a valid value.
    pub fn check(&self) -> Result<(), String> {
        let counts = [("body_limit", self.body_limit), ("connections", self.connections)];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(format!("edge.{key} must be at least 1"));
        }
        if self.body_memory < self.body_limit {
            return Err(
                "edge.body_memory must be at least edge.body_limit, or no body of that size is accepted".to_owned()
            );
        }
        let times = [
            ("deadline", self.deadline),
            ("body_time", self.body_time),
            ("request_time", self.request_time),
            ("idle_time", self.idle_time),
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
    fn invalid_values_are_named() {
        let error = |config: Config| config.check().unwrap_err();
        assert!(error(Config { connections: 0, ..Config::default() }).starts_with("edge.connections"));
        assert!(error(Config { body_memory: 5, ..Config::default() }).starts_with("edge.body_memory"));
        assert!(
            error(Config { idle_time: ConfigDuration::seconds(0), ..Config::default() }).starts_with("edge.idle_time")
        );
    }
}
