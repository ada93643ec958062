//! Whom Envoy calls.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::{Input, secrets, socket_address, type_url};

/// The listener and the cluster of the key set, for Envoy itself.
pub(super) const KEYS: &str = "keys";

/// The cluster of the rate-limit service.
pub(super) const RATE_LIMIT: &str = "rate_limit";

/// The name of a cluster's HTTP options.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The cluster of the edges.
pub(super) const EDGE: &str = "edge";

/// A service of the mesh, by mutual TLS as the workload `ingress`; the service must have its SPIFFE ID.
pub(super) fn service(input: &Input<'_>, workload: &str) -> Value {
    let addresses = input.peers.get(workload).map(|peer| peer.addresses.clone()).unwrap_or_default();
    let mut cluster = cluster(input, workload, &addresses);
    let members = json!({
        "typed_extension_protocol_options": http2(),
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": type_url("transport_sockets.tls.v3.UpstreamTlsContext"),
                "sni": workload,
                // A resumed session would outlive the certificate.
                "max_session_keys": 0,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                    "tls_certificate_sds_secret_configs": [secrets::of_ingress(input)],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": [{
                                "san_type": "URI",
                                "matcher": {"exact": format!("spiffe://{}/service/{workload}", input.domain.as_str())},
                            }],
                        },
                        "validation_context_sds_secret_config": secrets::of_roots(input),
                    },
                },
            },
        },
        "health_checks": [health_check("grpc_health_check", &json!({}))],
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "30s",
            // The last one is always called.
            "max_ejection_percent": 50,
        },
    });
    extend(&mut cluster, members);
    cluster
}

/// Envoy's own listener of the key set.
pub(super) fn keys(input: &Input<'_>) -> Value {
    json!({
        "name": KEYS,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": KEYS,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": keys_address(input)}}]}],
        },
    })
}

/// A socket without a file, which only processes of the same host or container reach. An internal listener would not do:
/// Envoy fetches keys in its main thread, which has none.
pub(super) fn keys_address(input: &Input<'_>) -> Value {
    json!({"pipe": {"path": format!("@drystone-keys-{}", input.envoy.listen.port())}})
}

/// The rate-limit service, over HTTP/2 without TLS.
pub(super) fn rate_limit(input: &Input<'_>, address: &str) -> Value {
    let mut cluster = cluster(input, RATE_LIMIT, &[address.to_owned()]);
    extend(&mut cluster, json!({"typed_extension_protocol_options": http2()}));
    cluster
}

/// The edges, over HTTP/2 without TLS.
pub(super) fn edge(input: &Input<'_>, addresses: &[String]) -> Value {
    let mut cluster = cluster(input, EDGE, addresses);
    let members = json!({
        "typed_extension_protocol_options": http2(),
        "health_checks": [health_check("http_health_check", &json!({"path": "/health", "codec_client_type": "HTTP2"}))],
        "outlier_detection": {
            "consecutive_5xx": 0,
            "enforcing_consecutive_5xx": 0,
            "split_external_local_origin_errors": true,
            "consecutive_local_origin_failure": 3,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 50,
        },
    });
    extend(&mut cluster, members);
    if input.has_proxy_protocol {
        // A header states the client, so each client has a connection of its own, which it does not close itself.
        cluster["typed_extension_protocol_options"][HTTP_OPTIONS]["common_http_protocol_options"] =
            json!({"idle_timeout": "2s"});
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.upstream_proxy_protocol",
            "typed_config": {
                "@type": type_url("transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"),
                // Health checks have no client.
                "config": {"version": "V2"},
                "allow_unspecified_address": true,
                "transport_socket": {
                    "name": "envoy.transport_sockets.raw_buffer",
                    "typed_config": {"@type": type_url("transport_sockets.raw_buffer.v3.RawBuffer")},
                },
            },
        });
    }
    cluster
}

fn cluster(input: &Input<'_>, name: &str, addresses: &[String]) -> Value {
    let are_numeric = addresses.iter().all(|address| {
        address.parse::<SocketAddr>().is_ok()
            || address.rsplit_once(':').is_some_and(|(host, _)| host.parse::<IpAddr>().is_ok())
    });
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({"endpoint": {"address": socket_address(address)}})).collect();
    let mut cluster = json!({
        "name": name,
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        // Otherwise workers learn of a second change within a second late, such as that the only healthy instance is another.
        "common_lb_config": {"update_merge_window": "0s"},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [{
            // Of all clients: what one of them may use is limited elsewhere.
            "max_connections": input.envoy.max_connections,
            "max_pending_requests": input.envoy.max_connections,
            "max_requests": input.envoy.max_connections,
            "retry_budget": {"budget_percent": {"value": 20.0}, "min_retry_concurrency": 10},
        }]},
    });
    if are_numeric {
        cluster["type"] = "STATIC".into();
    } else {
        // A name stands for all its addresses.
        cluster["cluster_type"] = json!({
            "name": "envoy.clusters.dns",
            "typed_config": {"@type": type_url("clusters.dns.v3.DnsCluster"), "dns_refresh_rate": "5s"},
        });
    }
    cluster
}

/// A check of this kind, which finds an instance that starts or stops within seconds.
fn health_check(kind: &str, check: &Value) -> Value {
    json!({
        "timeout": "1s",
        "interval": "2s",
        "no_traffic_interval": "2s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        kind: check,
    })
}

/// HTTP/2, with pings that find dead connections.
fn http2() -> Value {
    json!({
        HTTP_OPTIONS: {
            "@type": type_url("upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": {
                "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "5s"}},
            },
        },
    })
}

fn extend(value: &mut Value, members: Value) {
    if let (Some(object), Value::Object(members)) = (value.as_object_mut(), members) {
        object.extend(members);
    }
}
