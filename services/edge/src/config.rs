//! The section `[edge]` of the configuration.

use drystone_mesh::config::ConfigDuration;
use serde::{Deserialize, Serialize};

use crate::http::proxies::{ClientAddressHeader, Network};

/// How the edge runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The proxies before the edge, such as a TLS front, whose word is taken for the client's address. Without them, the
    /// address of the peer is taken for the client's.
    pub trusted_proxies: Vec<Network>,
    /// The header in which those proxies name the client.
    pub client_address_header: ClientAddressHeader,
    /// How long a call may take once its body is there; a client may ask for less with `grpc-timeout`.
    pub deadline: ConfigDuration,
    /// How large a body may be, in bytes. More is refused with 413.
    pub body_limit: usize,
    /// How much of a body that is refused anyway is still read, in bytes, so that the client gets to read the answer and
    /// can go on with its connection.
    pub drain_limit: usize,
    /// How much memory all bodies may take together, in bytes. A body that does not fit is refused with 429.
    pub body_memory: usize,
    /// How long a body may take to arrive. A slower one is refused with 408.
    pub body_time: ConfigDuration,
    /// How long a new connection may take to send its first request.
    pub request_time: ConfigDuration,
    /// How long a connection may take over any later request, waiting for its client included. It is longer than
    /// clients and load balancers keep their idle connections, so that they end them and not we.
    pub idle_time: ConfigDuration,
    /// How many connections may be open at a time.
    pub connections: usize,
    /// How long running calls may go on after the edge has been told to stop.
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
    /// What types cannot say of the values.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        let counts = [("body_limit", self.body_limit), ("connections", self.connections)];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(format!("edge.{key} must be at least 1"));
        }
        if self.body_memory < self.body_limit {
            return Err(
                "edge.body_memory must be at least edge.body_limit, or no body of that size is taken".to_owned()
            );
        }
        let times = [
            ("deadline", self.deadline),
            ("body_time", self.body_time),
            ("request_time", self.request_time),
            ("idle_time", self.idle_time),
        ];
        match times.into_iter().find(|(_, time)| time.duration().is_zero()) {
            Some((key, _)) => Err(format!("edge.{key} must be longer than nothing, such as `10s`")),
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
    fn what_would_serve_nobody_is_named() {
        let complaint = |config: Config| config.check().unwrap_err();
        assert!(complaint(Config { connections: 0, ..Config::default() }).starts_with("edge.connections"));
        assert!(complaint(Config { body_memory: 5, ..Config::default() }).starts_with("edge.body_memory"));
        assert!(
            complaint(Config { idle_time: ConfigDuration::seconds(0), ..Config::default() })
                .starts_with("edge.idle_time")
        );
    }
}
