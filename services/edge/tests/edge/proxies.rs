//! The client's address behind a trusted proxy, as seen by the rate limit.

use drystone_edge::{ClientAddressHeader, Config};

use crate::Edge;

/// Whether a request with the headers `lines` is counted for the same client as one whose header names only `client`.
async fn is_counted_for(header: ClientAddressHeader, lines: &str, client: &str) -> bool {
    let trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let config = Config { trusted_proxies, client_address_header: header, ..Config::default() };
    let edge = Edge::limited(1, config).await;
    let only_client = match (client, header) {
        ("127.0.0.1", _) => String::new(),
        (client, ClientAddressHeader::Forwarded) => format!("forwarded: for=\"{}\"", node(client)),
        (client, _) => format!("x-forwarded-for: {client}"),
    };
    assert_eq!(edge.request(&format!("GET /v1/things/one\n{lines}"), "").await.status, 200, "{lines}");
    edge.request(&format!("GET /v1/things/one\n{only_client}"), "").await.status == 429
}

fn node(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

#[tokio::test]
async fn the_client_is_the_address_that_a_trusted_proxy_reports() {
    use ClientAddressHeader::{Either, Forwarded, XForwardedFor};
    for (header, lines, client) in [
        (Either, "x-forwarded-for: 203.0.113.7:51234", "203.0.113.7"),
        (Either, "x-forwarded-for: [2001:db8::1]:443", "2001:db8::1"),
        (Either, "x-forwarded-for: [2001:db8::1]", "2001:db8::1"),
        (Either, "x-forwarded-for: 6.6.6.6\nx-forwarded-for: 203.0.113.7:1, 10.0.0.1:2", "203.0.113.7"),
        (Either, "forwarded: for=192.0.2.60;proto=http;by=203.0.113.43", "192.0.2.60"),
        (Either, "Forwarded: For=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
        (Either, "forwarded: for=6.6.6.6, for=192.0.2.60\nforwarded: for=10.0.0.1", "192.0.2.60"),
        (Either, "forwarded: for=192.0.2.60, for=unknown", "127.0.0.1"),
        (Either, "forwarded: for=192.0.2.60, for=_hidden", "127.0.0.1"),
        (Either, "forwarded: for=192.0.2.1\nx-forwarded-for: 192.0.2.2", "192.0.2.2"),
        (Forwarded, "forwarded: for=192.0.2.1\nx-forwarded-for: 192.0.2.2", "192.0.2.1"),
        (Forwarded, "forwarded: for=\"[2001:db8::1]:_x\"", "2001:db8::1"),
        (Forwarded, "x-forwarded-for: 192.0.2.2", "127.0.0.1"),
        (XForwardedFor, "forwarded: for=192.0.2.1", "127.0.0.1"),
    ] {
        assert!(is_counted_for(header, lines, client).await, "{lines} is not {client}");
        assert!(!is_counted_for(header, lines, "192.0.2.99").await, "{lines}");
    }
}
