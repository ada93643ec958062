//! The listeners: TLS, HTTP, the filters, the access log, and the errors that Envoy itself answers.

use drystone::Reason;
use serde_json::{Value, json};

use super::{DESCRIPTORS, Input, clusters, routes, secrets, socket_address, type_url};

/// The REST path of the key set.
const KEY_SET: &str = "/.well-known/jwks.json";

/// The prefix of the metadata that only workloads may send.
const METADATA_PREFIX: &str = "x-drystone-";

/// The listener in front of the services.
pub(super) fn of_services(input: &Input<'_>) -> Value {
    // By the order of a request. What needs the RPC comes after the transcoder, which finds it.
    let mut filters = vec![
        filter(
            "header_mutation",
            "header_mutation.v3.HeaderMutation",
            json!({"mutations": {"request_mutations": [
                {"remove_on_match": {"key_matcher": {"prefix": METADATA_PREFIX, "ignore_case": true}}},
            ]}}),
        ),
        health_check(),
        filter("cors", "cors.v3.Cors", json!({})),
        filter("grpc_web", "grpc_web.v3.GrpcWeb", json!({})),
    ];
    if let Some(per_minute) = input.request_limit() {
        let limit = routes::local_limit("default", per_minute);
        filters.push(json!({"name": routes::REQUEST_LIMIT, "typed_config": limit}));
    }
    filters.push(transcoder(input, true));
    filters.push(json!({"name": routes::CLASS_LIMIT, "typed_config": routes::no_limit()}));
    filters.push(jwt_authn(input));
    if input.envoy.rate_limit_service.is_some() {
        filters.push(filter(
            "ratelimit",
            "ratelimit.v3.RateLimit",
            json!({
                "domain": "drystone",
                "timeout": "0.05s",
                // The local limits still hold.
                "failure_mode_deny": false,
                "rate_limited_as_resource_exhausted": true,
                "rate_limit_service": {
                    "grpc_service": {"envoy_grpc": {"cluster_name": clusters::RATE_LIMIT}},
                    "transport_api_version": "V3",
                },
            }),
        ));
    }
    filters.push(router());
    listener(input, "services", &routes::of_services(input), &filters)
}

/// The listener in front of the edges.
pub(super) fn of_edge(input: &Input<'_>) -> Value {
    listener(input, "edge", &routes::of_edge(), &[health_check(), router()])
}

/// The listener at which Envoy itself fetches the key set, which services serve over gRPC alone.
pub(super) fn of_keys(input: &Input<'_>) -> Value {
    let serves_keys = |method: &&drystone::contract::Method| {
        method.rest.iter().any(|binding| binding.template.to_string() == KEY_SET)
    };
    let method = input.methods().into_iter().find(serves_keys);
    json!({
        "name": clusters::KEYS,
        "address": clusters::keys_address(input),
        "filter_chains": [{"filters": [manager(json!({
            "stat_prefix": "keys",
            "route_config": routes::of_keys(method),
            "local_reply_config": local_replies(),
            "http_filters": [transcoder(input, false), router()],
        }))]}],
    })
}

fn listener(input: &Input<'_>, name: &str, routes: &Value, filters: &[Value]) -> Value {
    let mut chain = json!({"filters": [manager(json!({
        "stat_prefix": name,
        "codec_type": "AUTO",
        "server_name": "drystone",
        "route_config": routes,
        "http_filters": filters,
        "access_log": [access_log()],
        "local_reply_config": local_replies(),
        // The client's address: the peer's, or what trusted proxies in front of Envoy append.
        "use_remote_address": true,
        "xff_num_trusted_hops": input.envoy.trusted_hops,
        "forward_client_cert_details": "SANITIZE",
        // A request id of the client is kept, as by the edge.
        "generate_request_id": true,
        "preserve_external_request_id": true,
        "always_set_request_id_in_response": true,
        // A path is what is sent: nothing is normalized that a service would read in another way.
        "normalize_path": false,
        "merge_slashes": false,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "10s",
        "request_timeout": "30s",
        "stream_idle_timeout": "75s",
        "drain_timeout": "10s",
        "max_request_headers_kb": 16,
        "common_http_protocol_options": {
            "idle_timeout": "75s",
            "max_headers_count": 100,
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
    }))]});
    if input.envoy.certificate.is_some() {
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": type_url("transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificate_sds_secret_configs": [secrets::of_listener(input)],
                },
            },
        });
        chain["transport_socket_connect_timeout"] = "5s".into();
    }
    json!({
        "name": name,
        "address": socket_address(&input.envoy.listen.to_string()),
        "per_connection_buffer_limit_bytes": 1_048_576,
        "filter_chains": [chain],
    })
}

fn manager(mut config: Value) -> Value {
    config["@type"] = type_url("filters.network.http_connection_manager.v3.HttpConnectionManager").into();
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

fn filter(name: &str, kind: &str, mut config: Value) -> Value {
    config["@type"] = type_url(&format!("filters.http.{kind}")).into();
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

/// Answers health checks with 503 once an operator drains this Envoy (`POST /healthcheck/fail` at the admin port).
fn health_check() -> Value {
    filter(
        "health_check",
        "health_check.v3.HealthCheck",
        json!({
            "pass_through_mode": true,
            "headers": [{"name": ":path", "string_match": {"safe_regex": {"regex": format!("{}(\\?.*)?", routes::HEALTH)}}}],
        }),
    )
}

fn router() -> Value {
    filter("router", "router.v3.Router", json!({}))
}

/// REST paths of the contracts. `is_strict`: paths that are none, and unknown query parameters, are refused.
fn transcoder(input: &Input<'_>, is_strict: bool) -> Value {
    let mut services: Vec<&str> = input.methods().iter().map(|method| method.service()).collect();
    services.sort_unstable();
    services.dedup();
    let mut config = json!({
        "proto_descriptor": input.file(DESCRIPTORS),
        "services": services,
        "convert_grpc_status": true,
        "print_options": {"always_print_primitive_fields": true},
        "max_request_body_size": 1_048_576,
    });
    if is_strict {
        config["request_validation_options"] = json!({"reject_unknown_query_parameters": true});
    }
    filter("grpc_json_transcoder", "grpc_json_transcoder.v3.GrpcJsonTranscoder", config)
}

/// Verifies tokens ahead of the services, for the access log and for limits. Requests without a valid token go on: the
/// services answer, so that a refusal reads the same everywhere.
fn jwt_authn(input: &Input<'_>) -> Value {
    filter(
        "jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": {"drystone": {
                "issuer": input.issuer,
                "audiences": [drystone_auth::AUDIENCE],
                "forward": true,
                "clock_skew_seconds": 5,
                "payload_in_metadata": "token",
                "remote_jwks": {
                    "http_uri": {"uri": format!("http://{}{KEY_SET}", clusters::KEYS), "cluster": clusters::KEYS, "timeout": "5s"},
                    "cache_duration": "60s",
                    "async_fetch": {"fast_listener": true, "failed_refetch_duration": "1s"},
                    "retry_policy": {"num_retries": 3},
                },
            }},
            "rules": [{
                "match": {"prefix": "/"},
                "requires": {"requires_any": {"requirements": [{"provider_name": "drystone"}, {"allow_missing_or_failed": {}}]}},
            }],
        }),
    )
}

/// One JSON object for each request, without query and headers that could hold a secret.
fn access_log() -> Value {
    json!({
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": type_url("access_loggers.stream.v3.StdoutAccessLog"),
            "log_format": {"json_format": {
                "timestamp": "%START_TIME%",
                "request_id": "%REQ(X-REQUEST-ID)%",
                "traceparent": "%REQ(TRACEPARENT)%",
                "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "method": "%REQ(:METHOD)%",
                "path": "%PATH(NQ:ORIG)%",
                "rpc": "%PATH(NQ:PATH)%",
                "user": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:token:sub)%",
                "status": "%RESPONSE_CODE%",
                "grpc_status": "%GRPC_STATUS%",
                "flags": "%RESPONSE_FLAGS%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "duration_ms": "%DURATION%",
                "bytes_received": "%BYTES_RECEIVED%",
                "bytes_sent": "%BYTES_SENT%",
                "upstream": "%UPSTREAM_HOST%",
            }},
        },
    })
}

/// Errors of Envoy's own in the form of the edge's.
fn local_replies() -> Value {
    let replies = [
        (400, Reason::MalformedBody, "%LOCAL_REPLY_BODY%"),
        (404, Reason::RouteNotFound, "nothing is served at this path; check its spelling and a slash at its end"),
        (408, Reason::BodyTooSlow, "the body did not arrive in time; send it again"),
        (413, Reason::BodyTooLarge, "the body is larger than the limit"),
        (429, Reason::RateLimited, "too many requests; try again shortly"),
        (503, Reason::Unavailable, "the service is unavailable; try again shortly"),
        (504, Reason::DeadlineExceeded, "the deadline passed before the work was done"),
    ];
    let mappers: Vec<Value> = replies
        .into_iter()
        .map(|(status, reason, message)| {
            json!({
                "filter": {"and_filter": {"filters": [
                    {"status_code_filter": {"comparison": {
                        "op": "EQ",
                        "value": {"default_value": status, "runtime_key": format!("local_reply_{status}")},
                    }}},
                    // A gRPC client gets a status. The transcoder has made gRPC of a REST request.
                    {"or_filter": {"filters": [
                        {"header_filter": {"header": {"name": "x-envoy-original-path", "present_match": true}}},
                        {"header_filter": {"header": {
                            "name": "content-type",
                            "string_match": {"prefix": "application/grpc"},
                            "treat_missing_header_as_empty": true,
                            "invert_match": true,
                        }}},
                    ]}},
                ]}},
                "body_format_override": {"json_format": {
                    "code": reason.code() as i32,
                    "message": message,
                    "details": [{
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": reason.name(),
                        "domain": "drystone",
                    }],
                }},
            })
        })
        .collect();
    json!({"mappers": mappers})
}
