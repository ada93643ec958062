//! An HTTP/2 client with the identity of a workload, for requests that a client of gRPC would not send.

use std::sync::Arc;

use bytes::Bytes;
use drystone_mesh::identity::Identity;
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{TestServer, order};

pub const LOOK_UP: &str = "/drystone.user.v1.UserService/LookUpForSignIn";

pub async fn tls(server: &TestServer) -> TlsStream<TcpStream> {
    let identity: Identity = server.identity("auth");
    let config: Arc<_> = identity.client_config(&"spiffe://drystone.local/service/user".parse().unwrap()).unwrap();
    let stream = TcpStream::connect(server.address).await.unwrap();
    TlsConnector::from(config).connect(ServerName::try_from("user").unwrap(), stream).await.unwrap()
}

/// A client with the identity `auth`.
pub async fn connect(server: &TestServer) -> SendRequest<Full<Bytes>> {
    connect_with_window(server, 1 << 16).await
}

/// The same, which takes so many bytes of a response before it has read them.
pub async fn connect_with_window(server: &TestServer, window: u32) -> SendRequest<Full<Bytes>> {
    let stream = TokioIo::new(tls(server).await);
    let mut client = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = client.initial_stream_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub fn request(
    method: Method,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: Vec<u8>,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = method;
    *request.uri_mut() = format!("https://user{path}").parse().unwrap();
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

/// A message with its prefix.
pub fn framed(command: &str) -> Vec<u8> {
    let message = order(command).encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    body
}
