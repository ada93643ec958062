//! The section `[server]` of the configuration: the limits of each gRPC server of a process.

use serde::{Deserialize, Serialize};

use super::{ServerLimits, acceptor::AcceptLimits};
use crate::{config::ConfigDuration, connections::ConnectionLimits};

/// The upper bound of every number.
const MAX: usize = 1_000_000;

/// The upper bound of `handshake_timeout`.
const MAX_HANDSHAKE_TIMEOUT: ConfigDuration = ConfigDuration::minutes(1);

/// The bounds of `max_connection_age`.
const MIN_CONNECTION_AGE: ConfigDuration = ConfigDuration::seconds(1);
const MAX_CONNECTION_AGE: ConfigDuration = ConfigDuration::days(1);

/// The limits of each gRPC server of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Calls in flight.
    pub max_in_flight: usize,
    /// Calls in flight of one calling workload; by default three quarters of `max_in_flight`.
    pub max_in_flight_per_workload: Option<usize>,
    /// Whether the limit of calls in flight follows latency, from `min_in_flight` to `max_in_flight`.
    pub adaptive: bool,
    /// Calls in flight that are never refused because calls are slow; by default an eighth of `max_in_flight`.
    pub min_in_flight: Option<usize>,
    /// Open connections, handshakes included.
    pub max_connections: usize,
    /// Open connections of one workload.
    pub max_connections_per_workload: usize,
    /// Open connections of one address.
    pub max_connections_per_address: usize,
    /// Concurrent TLS handshakes.
    pub max_handshakes: usize,
    /// Concurrent TLS handshakes of one address.
    pub max_handshakes_per_address: usize,
    /// The timeout of a handshake.
    pub handshake_timeout: ConfigDuration,
    /// The age at which a connection is replaced, at random within a tenth of it.
    pub max_connection_age: ConfigDuration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let ServerLimits { accept, connections, max_in_flight, .. } = ServerLimits::default();
        Self {
            max_in_flight,
            max_in_flight_per_workload: None,
            adaptive: false,
            min_in_flight: None,
            max_connections: accept.max_connections,
            max_connections_per_workload: connections.max_per_peer,
            max_connections_per_address: accept.max_connections_per_address,
            max_handshakes: accept.max_handshakes,
            max_handshakes_per_address: accept.max_handshakes_per_address,
            handshake_timeout: ConfigDuration::seconds(5),
            max_connection_age: ConfigDuration::hours(1),
        }
    }
}

impl ServerConfig {
    /// Checks what types cannot express.
    ///
    /// # Errors
    /// A sentence that names the key and says what to write.
    pub fn check(&self) -> Result<(), String> {
        for (key, value, max, max_name) in self.numbers() {
            if value == 0 || value > max {
                return Err(format!("server.{key} must be from 1 to {max_name}, not {value}; correct it"));
            }
        }
        if self.handshake_timeout.duration().is_zero() || self.handshake_timeout > MAX_HANDSHAKE_TIMEOUT {
            let max = MAX_HANDSHAKE_TIMEOUT;
            return Err(format!("server.handshake_timeout must be more than 0 and at most {max}, such as `5s`"));
        }
        if !(MIN_CONNECTION_AGE..=MAX_CONNECTION_AGE).contains(&self.max_connection_age) {
            return Err(format!(
                "server.max_connection_age must be from {MIN_CONNECTION_AGE} to {MAX_CONNECTION_AGE}, such as `1h`"
            ));
        }
        Ok(())
    }

    /// Each number with its key, its upper bound and the name of that.
    fn numbers(&self) -> Vec<(&'static str, usize, usize, String)> {
        let most = |key, value, max: usize| (key, value, max, max.to_string());
        let at_most = |key, value, max: usize, of: &str| (key, value, max, format!("server.{of}, which is {max}"));
        let per_workload = self.max_in_flight_per_workload();
        vec![
            most("max_in_flight", self.max_in_flight, MAX),
            at_most("max_in_flight_per_workload", per_workload, self.max_in_flight, "max_in_flight"),
            at_most("min_in_flight", self.min_in_flight(), self.max_in_flight, "max_in_flight"),
            most("max_connections", self.max_connections, MAX),
            most("max_connections_per_workload", self.max_connections_per_workload, MAX),
            at_most(
                "max_connections_per_address",
                self.max_connections_per_address,
                self.max_connections,
                "max_connections",
            ),
            most("max_handshakes", self.max_handshakes, MAX),
            at_most(
                "max_handshakes_per_address",
                self.max_handshakes_per_address,
                self.max_handshakes,
                "max_handshakes",
            ),
        ]
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> ServerLimits {
        let defaults = ServerLimits::default();
        ServerLimits {
            accept: AcceptLimits {
                max_handshakes: self.max_handshakes,
                handshake_timeout: self.handshake_timeout.duration(),
                max_connections: self.max_connections,
                max_handshakes_per_address: self.max_handshakes_per_address,
                max_connections_per_address: self.max_connections_per_address,
            },
            connections: ConnectionLimits { max_per_peer: self.max_connections_per_workload, ..defaults.connections },
            max_in_flight: self.max_in_flight,
            max_in_flight_per_workload: self.max_in_flight_per_workload(),
            max_connection_age: Some(self.max_connection_age.duration()),
            min_in_flight: self.adaptive.then(|| self.min_in_flight()),
            ..defaults
        }
    }

    fn min_in_flight(&self) -> usize {
        self.min_in_flight.unwrap_or_else(|| (self.max_in_flight / 8).max(1))
    }

    fn max_in_flight_per_workload(&self) -> usize {
        self.max_in_flight_per_workload.unwrap_or_else(|| (self.max_in_flight - self.max_in_flight / 4).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut ServerConfig)) -> Result<(), String> {
        let mut config = ServerConfig::default();
        change(&mut config);
        config.check()
    }

    #[test]
    fn the_defaults_are_valid_and_those_of_the_limits() {
        let (config, defaults) = (ServerConfig::default(), ServerLimits::default());
        config.check().unwrap();
        let limits = config.limits();
        assert_eq!((limits.accept, limits.connections), (defaults.accept, defaults.connections));
        assert_eq!(limits.max_in_flight_per_workload, defaults.max_in_flight_per_workload);
        assert_eq!(limits.max_connection_age, defaults.max_connection_age);
        assert_eq!(limits.min_in_flight, defaults.min_in_flight);
        assert_eq!(ServerConfig { adaptive: true, ..config.clone() }.limits().min_in_flight, Some(128));
        let few = ServerConfig { max_connections: 2000, ..config.clone() };
        assert!(
            few.check()
                .unwrap_err()
                .starts_with("server.max_connections_per_address must be from 1 to server.max_connections")
        );
        let small = ServerConfig { max_in_flight: 1, ..config };
        small.check().unwrap();
        assert_eq!(small.limits().max_in_flight_per_workload, 1);
    }

    #[test]
    fn invalid_values_are_refused_by_their_key() {
        for (fault, expected) in [
            (check(|config| config.max_in_flight = 0), "server.max_in_flight must be from 1 to 1000000"),
            (
                check(|config| config.max_in_flight_per_workload = Some(1025)),
                "server.max_in_flight_per_workload must be from 1 to server.max_in_flight, which is 1024, not 1025",
            ),
            (check(|config| config.max_in_flight_per_workload = Some(0)), "server.max_in_flight_per_workload"),
            (check(|config| config.min_in_flight = Some(2000)), "server.min_in_flight must be from 1 to server.max"),
            (check(|config| config.max_connections = 0), "server.max_connections must"),
            (check(|config| config.max_connections_per_workload = 2_000_000), "server.max_connections_per_workload"),
            (check(|config| config.max_handshakes = 0), "server.max_handshakes must"),
            (check(|config| config.max_handshakes_per_address = 0), "server.max_handshakes_per_address must"),
            (check(|config| config.max_connections_per_address = 0), "server.max_connections_per_address must"),
            (check(|config| config.max_connection_age = ConfigDuration::days(2)), "server.max_connection_age must"),
            (check(|config| config.handshake_timeout = ConfigDuration::minutes(2)), "server.handshake_timeout must"),
        ] {
            let fault = fault.unwrap_err();
            assert!(fault.starts_with(expected), "{fault}");
        }
    }
}
