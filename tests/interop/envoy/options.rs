//! What `[envoy]` switches on: TLS for clients, browsers, and limits that all Envoys share.

use std::{convert::Infallible, fs, net::SocketAddr, process::Command, sync::Arc};

use bytes::Bytes;
use drystone::Reason;
use drystone_tests::{Envoy, Home, Mesh, process, unique_email};
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{net::TcpListener, sync::Mutex};

#[tokio::test]
async fn clients_speak_http_1_and_2_over_tls_with_the_configured_certificate() {
    let (mesh, home) = (Mesh::start(), Home::new());
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = home.write("tls.crt", &cert.pem());
    let key = home.write("tls.key", &signing_key.serialize_pem());
    let settings = [("envoy.certificate", certificate.to_str().unwrap()), ("envoy.key", key.to_str().unwrap())];
    let envoy = Envoy::of(&mesh, &settings).await;
    let url = format!("https://localhost:{}/.well-known/jwks.json", envoy.address.port());
    for (version, expected) in [("--http1.1", "200 1.1"), ("--http2", "200 2")] {
        let mut curl = Command::new("curl");
        curl.args(["-s", version, "--output", "/dev/null", "--write-out", "%{http_code} %{http_version}", "--cacert"]);
        let output = process::run_to_end(curl.arg(&certificate).arg(&url));
        assert_eq!(output.stdout, expected, "{output:?}");
    }
    let plain = envoy.rest().get("/.well-known/jwks.json").try_send().await;
    assert!(plain.is_err(), "HTTP without TLS is not served: {plain:?}");
    // The key stays private, whatever the configuration is copied to.
    let written = fs::read_to_string(envoy.directory.join("sds-listener.yaml")).unwrap();
    assert!(written.contains("tls.key") && !written.contains("PRIVATE"), "{written}");
}

#[tokio::test]
async fn only_configured_origins_may_call_from_browsers() {
    let mesh = Mesh::start();
    let envoy = Envoy::of(&mesh, &[("envoy.cors_origins", r#"["https://app.example.org"]"#)]).await;
    let preflight = async |origin: &str| {
        let request = envoy.rest().request(Method::OPTIONS, "/v1/users/me").header("origin", origin);
        let request = request.header("access-control-request-method", "GET");
        request.header("access-control-request-headers", "authorization").send().await
    };
    let allowed = preflight("https://app.example.org").await.expect(200);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://app.example.org");
    assert!(allowed.header("access-control-allow-headers").contains("authorization"));
    let foreign = preflight("https://evil.example.org").await;
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (404, ""));
    let read = async |origin: &str, path: &str| envoy.rest().get(path).header("origin", origin).send().await;
    let answer = read("https://app.example.org", "/.well-known/jwks.json").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "https://app.example.org");
    let exposed = answer.header("access-control-expose-headers");
    assert!(exposed.contains("retry-after") && exposed.contains("www-authenticate"), "{exposed}");
    let foreign = read("https://evil.example.org", "/.well-known/jwks.json").await.expect(200);
    assert_eq!(foreign.header("access-control-allow-origin"), "");
    read("https://app.example.org", "/v1/nothing").await.refused(Reason::RouteNotFound);
}

/// A rate-limit service that refuses registrations, and what it was asked.
async fn rate_limit_service() -> (SocketAddr, Arc<Mutex<Vec<Bytes>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Bytes>>>::default());
    let seen = asked.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let seen = seen.clone();
                async move {
                    assert_eq!(request.uri().path(), "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let is_registration = body.windows(12).any(|window| window == b"registration");
                    seen.lock().await.push(body);
                    // RateLimitResponse.overall_code: OK or OVER_LIMIT.
                    let message = Bytes::from(vec![0, 0, 0, 0, 2, 8, if is_registration { 2 } else { 1 }]);
                    let trailers =
                        HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
                    let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
                    let body = StreamBody::new(tokio_stream::iter(frames));
                    Ok::<_, Infallible>(
                        Response::builder().header("content-type", "application/grpc").body(body).unwrap(),
                    )
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_rate_limit_service_is_asked_by_class_and_address() {
    let mesh = Mesh::start();
    let (address, asked) = rate_limit_service().await;
    let envoy = Envoy::of(&mesh, &[("envoy.rate_limit_service", &address.to_string())]).await;
    let body = json!({"email": unique_email(), "password": "correct horse", "displayName": "Ada"});
    envoy.rest().post("/v1/auth/register", body).send().await.refused(Reason::RateLimited);
    let asked = asked.lock().await;
    let has = |text: &[u8]| asked.iter().any(|request| request.windows(text.len()).any(|window| window == text));
    assert!(has(b"drystone") && has(b"class") && has(b"remote_address") && has(b"127.0.0.1"), "{asked:?}");
}
