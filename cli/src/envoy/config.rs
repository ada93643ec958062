//! The section `[envoy]`: what an exported Envoy configuration needs beyond the other sections.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// The settings of an exported Envoy configuration.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EnvoyConfig {
    /// Where Envoy listens for clients.
    pub(crate) listen: SocketAddr,
    /// Where Envoy's admin port listens.
    pub(crate) admin: SocketAddr,
    /// The certificate for clients, PEM. Without it, clients speak HTTP without TLS.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key.
    pub(crate) key: Option<PathBuf>,
    /// How many proxies in front of Envoy are trusted to append to `x-forwarded-for`.
    pub(crate) trusted_hops: u32,
    /// The origins of browsers that may call, such as `https://app.example.org`.
    pub(crate) cors_origins: Vec<String>,
    /// The address of a rate-limit service (`envoy.service.ratelimit.v3`), for limits that all instances share.
    pub(crate) rate_limit_service: Option<String>,
    /// Open connections at a time.
    pub(crate) max_connections: u32,
    /// The addresses of the edges, for Envoy in front of them.
    pub(crate) edges: Vec<String>,
}

impl Default for EnvoyConfig {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8443).into(),
            admin: (Ipv4Addr::LOCALHOST, 9901).into(),
            certificate: None,
            key: None,
            trusted_hops: 0,
            cors_origins: Vec::new(),
            rate_limit_service: None,
            max_connections: 10_000,
            edges: Vec::new(),
        }
    }
}

impl EnvoyConfig {
    /// Checks what types cannot express.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("envoy.certificate and envoy.key belong together; set both or neither".to_owned());
        }
        if self.max_connections == 0 {
            return Err("envoy.max_connections must be at least 1".to_owned());
        }
        let is_address = |text: &str| {
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        let addresses = self.edges.iter().map(|edge| ("edges", edge));
        let addresses = addresses.chain(self.rate_limit_service.iter().map(|address| ("rate_limit_service", address)));
        for (key, address) in addresses {
            if !is_address(address) {
                return Err(format!("envoy.{key} has `{address}`; write HOST:PORT, such as `10.0.0.7:8080`"));
            }
        }
        let is_origin = |origin: &str| {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| !host.is_empty() && !host.contains('/'))
        };
        match self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(format!(
                "envoy.cors_origins has `{origin}`; write scheme and host alone, such as `https://app.example.org`"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_rejected_with_their_keys() {
        EnvoyConfig::default().check().unwrap();
        let invalid = [
            (EnvoyConfig { key: Some("tls.key".into()), ..EnvoyConfig::default() }, "envoy.certificate"),
            (EnvoyConfig { max_connections: 0, ..EnvoyConfig::default() }, "envoy.max_connections"),
            (EnvoyConfig { edges: vec!["edge".to_owned()], ..EnvoyConfig::default() }, "envoy.edges"),
            (
                EnvoyConfig { rate_limit_service: Some(":8081".to_owned()), ..EnvoyConfig::default() },
                "envoy.rate_limit_service",
            ),
            (
                EnvoyConfig { cors_origins: vec!["https://a/b".to_owned()], ..EnvoyConfig::default() },
                "envoy.cors_origins",
            ),
        ];
        for (config, key) in invalid {
            assert!(config.check().unwrap_err().starts_with(key), "{key}");
        }
    }
}
