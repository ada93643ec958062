//! A route for each RPC that lists `outside`; everything else is 404.

use std::time::Duration;

use drystone::contract::{Idempotency, Method, Subject};
use drystone_mesh::call::header;
use serde_json::{Map, Value, json};

use super::{Input, clusters, seconds, type_url};

/// The deadline of an RPC whose contract has none, as the edge's default.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How much later than the service Envoy gives up, so that the service answers with its reason.
const MARGIN: Duration = Duration::from_secs(1);

/// The path of the health of an entry point.
pub(super) const HEALTH: &str = "/health";

/// Health checks of one address, as at the edge.
const HEALTH_CHECKS_PER_MINUTE: u32 = 600;

/// The name of the filter that limits all requests.
pub(super) const REQUEST_LIMIT: &str = "request_limit";

/// The name of the filter that limits classes of RPCs, as routes configure it.
pub(super) const CLASS_LIMIT: &str = "class_limit";

/// The routes to the services.
pub(super) fn of_services(input: &Input<'_>) -> Value {
    let mut routes: Vec<Value> = vec![health(input)];
    routes.extend(input.methods().into_iter().map(|method| route(input, method)));
    if !input.envoy.cors_origins.is_empty() {
        // The filter of CORS needs a route that leads to a cluster; Envoy's own listener answers 404.
        routes.push(json!({
            "match": {"prefix": "/", "headers": [{"name": "origin", "present_match": true}]},
            "route": {"cluster": clusters::KEYS, "timeout": "5s"},
        }));
    }
    // Also the route of REST requests until the transcoder has found their RPC.
    routes.push(json!({"match": {"prefix": "/"}, "direct_response": {"status": 404}}));
    let mut virtual_host = json!({
        "name": "mesh",
        "domains": ["*"],
        "request_headers_to_remove": identity_headers(),
        // Services trust these headers of an entry point, so values sent by clients are overwritten.
        "request_headers_to_add": [
            overwrite(header::CLIENT_ADDRESS.as_str(), "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
            overwrite(header::CLIENT_AGENT.as_str(), "%REQ(USER-AGENT):256%"),
        ],
        // Responses with tokens and personal data must not be cached.
        "response_headers_to_add": [
            {"append_action": "ADD_IF_ABSENT", "header": {"key": "cache-control", "value": "no-store"}},
        ],
        "routes": routes,
    });
    if !input.envoy.cors_origins.is_empty() {
        let origins: Vec<Value> = input.envoy.cors_origins.iter().map(|origin| json!({"exact": origin})).collect();
        virtual_host["typed_per_filter_config"] = json!({"envoy.filters.http.cors": {
            "@type": type_url("filters.http.cors.v3.CorsPolicy"),
            "allow_origin_string_match": origins,
            "allow_methods": "GET, POST, PUT, PATCH, DELETE",
            "allow_headers": "authorization, content-type, grpc-timeout, if-match, x-grpc-web, x-request-id, x-user-agent",
            "expose_headers": "etag, grpc-message, grpc-status, grpc-status-details-bin, retry-after, www-authenticate, x-request-id",
            "max_age": "600",
        }});
    }
    json!({"name": "mesh", "virtual_hosts": [virtual_host]})
}

/// The routes to the edges.
pub(super) fn of_edge() -> Value {
    json!({
        "name": "edge",
        "virtual_hosts": [{
            "name": "edge",
            "domains": ["*"],
            "request_headers_to_remove": identity_headers(),
            "routes": [
                // Safe methods (RFC 9110, section 9.2.1) may be sent twice.
                {
                    "match": {"prefix": "/", "headers": [safe_method()]},
                    "route": to_edge("connect-failure,refused-stream,reset"),
                },
                {"match": {"prefix": "/"}, "route": to_edge("connect-failure,refused-stream,reset-before-request")},
            ],
        }],
    })
}

fn to_edge(retry_on: &str) -> Value {
    // The edge has deadlines of its own.
    json!({"cluster": clusters::EDGE, "timeout": "75s", "retry_policy": retry(retry_on)})
}

fn safe_method() -> Value {
    json!({"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}})
}

/// The route to the key set, for Envoy itself.
pub(super) fn of_keys(method: Option<&Method>) -> Value {
    let mut routes: Vec<Value> = method
        .into_iter()
        .map(|method| json!({"match": {"path": &*method.path}, "route": {"cluster": &*method.workload, "timeout": "5s"}}))
        .collect();
    routes.push(json!({"match": {"prefix": "/"}, "direct_response": {"status": 404}}));
    json!({"name": "keys", "virtual_hosts": [{"name": "keys", "domains": ["*"], "routes": routes}]})
}

/// Envoy's own health, as the edge serves it: with a limit of its own, so that clients cannot use up that of the checks.
fn health(input: &Input<'_>) -> Value {
    let mut route = json!({
        "match": {
            "path": HEALTH,
            "headers": [safe_method()],
        },
        "direct_response": {"status": 200, "body": {"inline_string": r#"{"status":"ok"}"#}},
        "response_headers_to_add": [overwrite("content-type", "application/json")],
    });
    if input.request_limit().is_some() {
        route["typed_per_filter_config"] = json!({REQUEST_LIMIT: local_limit("health", HEALTH_CHECKS_PER_MINUTE)});
    }
    route
}

fn route(input: &Input<'_>, method: &Method) -> Value {
    let policy = method.policy.deadline;
    let max = policy.max.unwrap_or(DEFAULT_DEADLINE);
    let default = policy.default.unwrap_or(max).min(max);
    let mut action = json!({
        "cluster": &*method.workload,
        "retry_policy": retry(match method.idempotency {
            Idempotency::Unknown => "connect-failure,refused-stream",
            _ => "connect-failure,refused-stream,reset,unavailable",
        }),
    });
    let mut route = json!({"match": {"path": &*method.path}});
    if method.is_streaming() {
        // A stream may last for days.
        action["timeout"] = "0s".into();
        action["idle_timeout"] = "0s".into();
    } else {
        action["timeout"] = seconds(default + MARGIN).into();
        action["max_stream_duration"] =
            json!({"max_stream_duration": seconds(max + MARGIN), "grpc_timeout_header_max": seconds(max + MARGIN)});
        // The service gives up first, and says why.
        route["request_headers_to_add"] = json!([{
            "append_action": "ADD_IF_ABSENT",
            "header": {"key": header::GRPC_TIMEOUT.as_str(), "value": format!("{}m", default.as_millis())},
        }]);
    }
    if let Some(limit) = class_limit(input, method) {
        let mut filters = Map::new();
        filters.insert(CLASS_LIMIT.to_owned(), limit);
        route["typed_per_filter_config"] = filters.into();
    }
    if input.envoy.rate_limit_service.is_some() {
        action["rate_limits"] = rate_limits(method.policy.limit.as_deref());
    }
    route["route"] = action;
    route
}

/// The descriptors that are sent to the rate-limit service: the class and the client's address.
pub(super) fn rate_limits(class: Option<&str>) -> Value {
    json!([{"actions": [
        {"generic_key": {"descriptor_key": "class", "descriptor_value": class.unwrap_or("default")}},
        // As the services count: the first 64 bits of IPv6.
        {"masked_remote_address": {"v4_prefix_mask_len": 32, "v6_prefix_mask_len": 64}},
    ]}])
}

/// The local limit of a class that counts by address. Classes that count by user are left to the services, which have
/// verified the token.
fn class_limit(input: &Input<'_>, method: &Method) -> Option<Value> {
    let class = method.policy.limit.as_deref().filter(|_| method.subject == Subject::None)?;
    let per_minute = input.per_minute.get(class).copied().filter(|calls| *calls > 0)?;
    Some(local_limit(class, per_minute))
}

/// A filter that limits nothing unless the route configures it.
pub(super) fn no_limit() -> Value {
    json!({"@type": type_url("filters.http.local_ratelimit.v3.LocalRateLimit"), "stat_prefix": "limit_none"})
}

/// A limit of calls from one address, counted in Envoy.
pub(super) fn local_limit(class: &str, per_minute: u32) -> Value {
    json!({
        "@type": type_url("filters.http.local_ratelimit.v3.LocalRateLimit"),
        "stat_prefix": format!("limit_{class}"),
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
        // As the services: RESOURCE_EXHAUSTED and not UNAVAILABLE.
        "rate_limited_as_resource_exhausted": true,
        // When the next call is allowed.
        "response_headers_to_add": [overwrite("retry-after", &60_u32.div_ceil(per_minute.max(1)).to_string())],
        "always_consume_default_token_bucket": false,
        "max_dynamic_descriptors": 10_000,
        "rate_limits": rate_limits(Some(class)),
        // An empty value stands for each address.
        "descriptors": [{
            "entries": [{"key": "class", "value": class}, {"key": "masked_remote_address"}],
            "token_bucket": bucket(per_minute),
        }],
        // Of all addresses together; the limit that counts is that of each.
        "token_bucket": {"max_tokens": 1_000_000_000, "tokens_per_fill": 1_000_000_000, "fill_interval": "1s"},
    })
}

/// At once `per_minute` calls, and then one each time that so much of a minute has passed.
fn bucket(per_minute: u32) -> Value {
    let interval = Duration::from_mins(1) / per_minute.max(1);
    // Envoy fills at most every 50 ms.
    let fills =
        u32::try_from(Duration::from_millis(50).as_nanos().div_ceil(interval.as_nanos().max(1))).unwrap_or(1).max(1);
    json!({"max_tokens": per_minute, "tokens_per_fill": fills, "fill_interval": seconds(interval * fills)})
}

fn retry(on: &str) -> Value {
    json!({
        "retry_on": on,
        "num_retries": 3,
        "retry_host_predicate": [{
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {"@type": type_url("retry.host.previous_hosts.v3.PreviousHostsPredicate")},
        }],
        // An instance that has just failed is the one with fewest requests, and so chosen again and again.
        "host_selection_retry_max_attempts": 50,
    })
}

/// Headers by which proxies name an identity. No service reads them from outside; they end here all the same.
fn identity_headers() -> Value {
    json!(["x-forwarded-client-cert", "x-user-id", "x-user-email", "x-user-roles", "x-user-permissions"])
}

fn overwrite(key: &str, value: &str) -> Value {
    json!({"append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "header": {"key": key, "value": value}})
}
