//! The configuration of Envoy, from contracts, peers and configuration.
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | the section `[envoy]` |
//! | `listener.rs` | the listener of clients: TLS, HTTP, filters, access log, errors of Envoy's own |
//! | `routes.rs` | a route for each RPC that lists `outside` |
//! | `clusters.rs` | the services, by mutual TLS as the workload `ingress`; the edge |
//! | `secrets.rs` | certificates by file-based SDS, so that a rotation needs no restart |
//!
//! Everything is built as JSON values in the form of Envoy's API (v3) and written as YAML.

mod clusters;
mod config;
mod listener;
mod routes;
mod secrets;

use std::{collections::BTreeMap, path::PathBuf};

use drystone::contract::{Contracts, Method, method::OUTSIDE};
use drystone_mesh::{
    client::Peers,
    identity::{IdentityFiles, TrustDomain},
};
use serde_json::{Value, json};

pub(crate) use self::config::EnvoyConfig;

/// The workload that Envoy is in the mesh.
pub(crate) const INGRESS: &str = "ingress";

/// The name of the descriptor set beside the configuration.
pub(crate) const DESCRIPTORS: &str = "drystone.binpb";

/// The name of the file with the certificate of the listener.
pub(crate) const LISTENER_SECRET: &str = "sds-listener.yaml";

/// The name of the file with the certificate of the workload.
pub(crate) const INGRESS_SECRET: &str = "sds-ingress.yaml";

/// The name of the file with the roots of the mesh.
pub(crate) const ROOTS_SECRET: &str = "sds-roots.yaml";

/// What the configuration is made from.
pub(crate) struct Input<'a> {
    pub(crate) contracts: &'a Contracts,
    pub(crate) envoy: &'a EnvoyConfig,
    pub(crate) peers: Peers,
    pub(crate) domain: &'a TrustDomain,
    /// The `iss` of access tokens.
    pub(crate) issuer: String,
    /// Calls a minute by class, and `default` for all requests.
    pub(crate) per_minute: BTreeMap<String, u32>,
    /// Whether the edge expects the PROXY protocol.
    pub(crate) has_proxy_protocol: bool,
    /// Where Envoy finds the written files.
    pub(crate) directory: PathBuf,
    /// Where Envoy finds its certificate for the mesh, and the roots.
    pub(crate) certificates: IdentityFiles,
}

impl Input<'_> {
    /// The path of a written file, as Envoy sees it.
    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Requests a minute from one address, if they are limited.
    fn request_limit(&self) -> Option<u32> {
        self.per_minute.get("default").copied().filter(|requests| *requests > 0)
    }

    /// The RPCs that outside clients may call, by service.
    fn methods(&self) -> Vec<&Method> {
        let methods = self.contracts.methods().iter().map(AsRef::as_ref);
        methods.filter(|method| method.callers.iter().any(|caller| caller == OUTSIDE)).collect()
    }

    /// The workloads that serve them.
    fn workloads(&self) -> Vec<&str> {
        let mut workloads: Vec<&str> = self.methods().iter().map(|method| &*method.workload).collect();
        workloads.sort_unstable();
        workloads.dedup();
        workloads
    }
}

/// The files of Envoy in front of the services, by name.
pub(crate) fn in_front_of_services(input: &Input<'_>) -> Vec<(&'static str, Value)> {
    let mut clusters: Vec<Value> =
        input.workloads().into_iter().map(|workload| clusters::service(input, workload)).collect();
    clusters.push(clusters::keys(input));
    clusters.extend(input.envoy.rate_limit_service.as_deref().map(|address| clusters::rate_limit(input, address)));
    let bootstrap = bootstrap(input, &[listener::of_services(input), listener::of_keys(input)], &clusters);
    let mut files = vec![
        ("envoy.yaml", bootstrap),
        (INGRESS_SECRET, secrets::ingress(input)),
        (ROOTS_SECRET, secrets::roots(input)),
    ];
    files.extend(secrets::listener(input).map(|secret| (LISTENER_SECRET, secret)));
    files
}

/// The files of Envoy in front of the edge, by name.
pub(crate) fn in_front_of_edge(input: &Input<'_>, edge: &[String]) -> Vec<(&'static str, Value)> {
    let bootstrap = bootstrap(input, &[listener::of_edge(input)], &[clusters::edge(input, edge)]);
    let mut files = vec![("envoy.yaml", bootstrap)];
    files.extend(secrets::listener(input).map(|secret| (LISTENER_SECRET, secret)));
    files
}

fn bootstrap(input: &Input<'_>, listeners: &[Value], clusters: &[Value]) -> Value {
    json!({
        "node": {"id": "drystone-ingress", "cluster": "drystone"},
        "admin": {"address": socket_address(&input.envoy.admin.to_string())},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        // More connections than this are refused, as at the edge.
        "overload_manager": {
            "resource_monitors": [{
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": type_url("resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"),
                    "max_active_downstream_connections": input.envoy.max_connections,
                },
            }],
        },
    })
}

/// The type of an Envoy extension.
fn type_url(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

/// `HOST:PORT` as an address of Envoy.
fn socket_address(address: &str) -> Value {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap_or_default()}})
}

/// A duration in seconds, as protobuf JSON writes it.
fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
