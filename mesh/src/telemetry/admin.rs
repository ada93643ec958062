//! The admin port: health and metrics over plain HTTP, for probes and Prometheus. It listens on the loopback address by
//! default, since it discloses internals to any client.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::{
    accept::accept,
    connections::{Connection, ConnectionLimits, Connections, MeteredBody, MeteredIo, PeerKind},
    health::{Health, Status},
    host,
    limit::Key,
};

/// The limits of connections. A full port closes the idlest connection, so that a probe always gets one.
const LIMITS: ConnectionLimits = ConnectionLimits {
    max_connections: 64,
    max_per_peer: 64,
    idle_timeout: Some(Duration::from_secs(75)),
    send_timeout: Duration::from_secs(10),
    max_unsent_per_connection: 16 << 20,
    max_unsent_per_peer: 16 << 20,
    max_unsent: 64 << 20,
    max_request_bytes_per_peer: usize::MAX,
    max_request_bytes: usize::MAX,
};
/// How long a client may take to send its request.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long responses in progress may take during shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Serves `/health`, `/health/detailed`, `/ready` and `/metrics` until `stop`.
///
/// # Errors
/// Only if the listener fails.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics, stop: CancellationToken) -> io::Result<()> {
    let connections = Connections::new(LIMITS);
    let accepting = async {
        loop {
            let (stream, remote) = accept(&listener).await;
            if let Ok(connection) = connections.register(PeerKind::Client(Key::client(remote.ip()))).await {
                tokio::spawn(serve_connection(stream, connection, health.clone(), metrics.clone()));
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accepting => {}
        () = connections.sweep() => {}
    }
    if time::timeout(DRAIN_TIMEOUT, connections.close()).await.is_err() {
        connections.evict_all();
    }
    Ok(())
}

async fn serve_connection(stream: TcpStream, open: Connection, health: Health, metrics: Metrics) {
    let usage = open.usage().clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = match host::check(request.version(), request.uri(), request.headers()) {
            Ok(()) => respond_to(request.method(), request.uri().path(), &health, &metrics),
            Err(error) => response(StatusCode::BAD_REQUEST, TEXT, format!("the header `host` {error}\n")),
        };
        let (head, body) = response.into_parts();
        let body = MeteredBody::whole(body, usage.start_request()).unwrap_or_else(MeteredBody::empty);
        async move { Ok::<_, Infallible>(Response::from_parts(head, body)) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT);
    let socket = TokioIo::new(MeteredIo::new(stream, open.usage().clone()));
    if let Err(error) = open.serve(http.serve_connection(socket, service)).await {
        tracing::debug!(%error, "admin connection failed");
    }
}

fn respond_to(method: &Method, path: &str, health: &Health, metrics: &Metrics) -> Response<Bytes> {
    let is_read = method == Method::GET || method == Method::HEAD;
    match path {
        "/health" | "/health/detailed" | "/ready" | "/metrics" if !is_read => {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET\n");
            refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            refusal
        }
        // Liveness: always 200, so that a probe does not restart the process because an upstream is unavailable.
        "/health" => json(StatusCode::OK, &HealthBody { status: health.status() }),
        "/health/detailed" => json(StatusCode::OK, &health.report()),
        "/ready" => {
            let ready = health.is_ready();
            let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(code, &ReadyBody { ready })
        }
        "/metrics" => response(StatusCode::OK, OPEN_METRICS, metrics.render()),
        _ => response(StatusCode::NOT_FOUND, TEXT, "not found; use /health, /health/detailed, /ready or /metrics\n"),
    }
}

#[derive(Serialize)]
struct HealthBody {
    status: Status,
}

#[derive(Serialize)]
struct ReadyBody {
    ready: bool,
}

fn json(code: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    match serde_json::to_vec(body) {
        Ok(body) => response(code, JSON, body),
        Err(error) => {
            tracing::error!(%error, "health cannot be serialized");
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "health cannot be serialized\n")
        }
    }
}

fn response(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
    };

    use super::*;
    use crate::health::Kind;

    const TEST_TIMEOUT: Duration = Duration::from_secs(10);

    struct Admin {
        address: SocketAddr,
        health: Health,
        metrics: Metrics,
        stop: CancellationToken,
        task: JoinHandle<io::Result<()>>,
    }

    async fn start() -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (health, metrics, stop) = (Health::new(), Metrics::default(), CancellationToken::new());
        let task = tokio::spawn(serve(listener, health.clone(), metrics.clone(), stop.clone()));
        Admin { address, health, metrics, stop, task }
    }

    impl Admin {
        async fn send(&self, request: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut response = String::new();
            time::timeout(TEST_TIMEOUT, stream.read_to_string(&mut response)).await.unwrap().unwrap();
            response
        }

        /// The status code, head and body of the response.
        async fn request(&self, method: &str, path: &str) -> (u16, String, String) {
            let answer =
                self.send(&format!("{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let code = head.split(' ').nth(1).unwrap().parse().unwrap();
            (code, head.to_lowercase(), body.to_owned())
        }

        async fn get(&self, path: &str) -> (u16, String) {
            let (code, _, body) = self.request("GET", path).await;
            (code, body)
        }
    }

    #[tokio::test]
    async fn probes_report_the_health() {
        let admin = start().await;
        let store = admin.health.component("store", Kind::Vital);
        let property = admin.health.component("property", Kind::Optional);
        assert_eq!(admin.get("/health").await, (200, r#"{"status":"down"}"#.to_owned()), "it is alive");
        assert_eq!(admin.get("/ready").await, (503, r#"{"ready":false}"#.to_owned()));

        store.up();
        property.up();
        assert_eq!(admin.get("/health").await, (200, r#"{"status":"ok"}"#.to_owned()));
        assert_eq!(admin.get("/ready").await, (200, r#"{"ready":true}"#.to_owned()));

        property.down("connection refused");
        assert_eq!(admin.get("/health").await, (200, r#"{"status":"degraded"}"#.to_owned()));
        assert_eq!(admin.get("/ready").await.0, 200);
        let (code, body) = admin.get("/health/detailed").await;
        let detailed: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(code, 200);
        assert_eq!(detailed["components"]["property"]["state"], "down");
        assert_eq!(detailed["components"]["property"]["detail"], "connection refused");
        assert_eq!(detailed["components"]["store"]["state"], "up");

        store.down("disk full");
        assert_eq!(admin.get("/health").await, (200, r#"{"status":"down"}"#.to_owned()));
        assert_eq!(admin.get("/ready").await.0, 503);
    }

    #[tokio::test]
    async fn metrics_are_served_as_open_metrics() {
        let admin = start().await;
        admin.metrics.handshake_refused("user", "expired");
        let (code, head, body) = admin.request("GET", "/metrics").await;
        assert_eq!(code, 200);
        assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{head}");
        assert!(body.contains(r#"drystone_handshakes_refused_total{service="user",reason="expired"} 1"#), "{body}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_rejected() {
        let admin = start().await;
        assert_eq!(admin.get("/").await.0, 404);
        assert_eq!(admin.get("/health/").await.0, 404);
        assert_eq!(admin.get("/health?probe=kubelet").await.0, 200);
        let (code, head, _) = admin.request("POST", "/health").await;
        assert_eq!(code, 405);
        assert!(head.contains("allow: get, head"), "{head}");
        let (code, _, body) = admin.request("HEAD", "/metrics").await;
        assert_eq!((code, body.as_str()), (200, ""));
        assert!(admin.send("garbage\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    }

    #[tokio::test]
    async fn a_request_must_have_one_valid_host() {
        let admin = start().await;
        let status = async |version: &str, hosts: &str| {
            let request = format!("GET /health {version}\r\n{hosts}connection: close\r\n\r\n");
            admin.send(&request).await.split(' ').nth(1).unwrap().to_owned()
        };
        for hosts in ["", "host: a\r\nhost: a\r\n", "host: a b\r\n", "host:\r\n"] {
            assert_eq!(status("HTTP/1.1", hosts).await, "400", "{hosts}");
        }
        assert_eq!(status("HTTP/1.1", "host: 127.0.0.1:8081\r\n").await, "200");
        assert_eq!(status("HTTP/1.0", "").await, "200");
    }

    #[tokio::test]
    async fn shutdown_closes_idle_connections() {
        let admin = start().await;
        let mut idle = TcpStream::connect(admin.address).await.unwrap();
        idle.write_all(b"GET /health HTTP/1.1\r\nhost: admin\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        time::timeout(TEST_TIMEOUT, idle.read_exact(&mut first)).await.unwrap().unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        admin.stop.cancel();
        time::timeout(TEST_TIMEOUT, admin.task).await.unwrap().unwrap().unwrap();
        assert!(TcpStream::connect(admin.address).await.is_err());
    }
}
