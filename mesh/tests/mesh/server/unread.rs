//! Responses that a user does not read, on the connection of a workload that calls for many.

use std::time::Duration;

use bytes::Bytes;
use drystone_mesh::{connections::ConnectionLimits, server::ServerLimits};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use tokio::time::timeout;

use super::{
    TestServer,
    http2::{LOOK_UP, connect_with_window, framed, request},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// The bytes of responses that callers have not taken.
fn unsent(server: &TestServer) -> f64 {
    let text = server.metrics.render();
    let line = text.lines().find_map(|line| line.strip_prefix("drystone_server_unsent_bytes{service=\"user\"} "));
    line.expect("the metric exists").parse().unwrap()
}

fn call(command: &str) -> Request<Full<Bytes>> {
    request(Method::POST, LOOK_UP, &[("content-type", "application/grpc"), ("te", "trailers")], framed(command))
}

#[tokio::test]
async fn an_unread_response_ends_alone() {
    let server = TestServer::with(|limits| {
        let connections = ConnectionLimits { send_timeout: Duration::from_secs(1), ..limits.connections };
        ServerLimits { connections, ..limits }
    })
    .await;
    let mut workload = connect_with_window(&server, 1 << 16).await;
    let unread = workload.send_request(call("large")).await.unwrap();
    assert!(unsent(&server) > 100_000.0);
    let others = async {
        while unsent(&server) > 1000.0 {
            let response = workload.send_request(call("describe")).await.expect("the connection is kept");
            response.into_body().collect().await.expect("the other call is answered");
        }
    };
    timeout(TIMEOUT, others).await.expect("the response is given up");
    let response = workload.send_request(call("describe")).await.expect("the connection is kept");
    response.into_body().collect().await.unwrap();
    unread.into_body().collect().await.unwrap_err();
}
