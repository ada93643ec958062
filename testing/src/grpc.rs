//! A gRPC client with the credentials of a workload, other credentials, or none.

use std::{io, net::SocketAddr};

use bytes::{Buf, BufMut};
use drystone::Reason;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::{pki_types::ServerName, version::TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    IntoStreamingRequest, Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt;

use crate::certs::{Certificates, Credentials};

/// A channel that connects on first use, authenticates with `credentials`, and verifies that the server is `service` by
/// the DNS name in its certificate, as any gRPC client does.
pub fn channel(
    address: SocketAddr,
    service: &str,
    certificates: &Certificates,
    credentials: Option<Credentials>,
) -> Channel {
    let config = certificates.client_config(credentials, &[&TLS13]);
    let name = ServerName::try_from(service.to_owned()).expect("a workload name is a valid DNS name");
    let origin: Uri = format!("https://{service}").parse().expect("a workload name is a valid host");
    let connector = tower::service_fn(move |_: Uri| {
        let (config, name) = (config.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The endpoint's scheme is `http`, since the connector does TLS.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a URI").origin(origin);
    endpoint.connect_with_connector_lazy(connector)
}

/// A request with an access token.
///
/// # Panics
/// If the token is not a valid header value.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("the token is a valid header value");
    request.metadata_mut().insert("authorization", value);
    request
}

/// The reason code of an error, if it has one.
///
/// # Panics
/// If its domain is not Drystone's, or the reason is unknown.
#[must_use]
pub fn reason(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    assert_eq!(info.domain, Reason::DOMAIN, "{status:?}");
    Some(Reason::from_name(&info.reason).unwrap_or_else(|| panic!("unknown reason {}", info.reason)))
}

/// Asserts that a call failed with the reason `expected` and its status code.
///
/// # Panics
/// If it did not.
#[track_caller]
pub fn assert_refused<T>(result: Result<T, Status>, expected: Reason) {
    let Err(status) = result else { panic!("the call succeeded, expected {}", expected.name()) };
    assert_eq!(reason(&status), Some(expected), "{status:?}");
    assert_eq!(status.code(), expected.code(), "{status:?}");
}

/// Calls any RPC with an encoded message. For a streaming RPC, awaits only the response headers, since no message may
/// follow.
///
/// # Errors
/// The status that the call ends with.
pub async fn call_raw(
    channel: Channel,
    path: &str,
    request: Request<Vec<u8>>,
    is_stream: bool,
) -> Result<Vec<u8>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(format!("not connected: {error:?}")))?;
    let path = PathAndQuery::try_from(path).expect("the path of an RPC is valid");
    if is_stream {
        grpc.server_streaming(request, path, Raw).await?;
        return Ok(Vec::new());
    }
    grpc.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

/// Calls any streaming RPC with encoded messages.
///
/// # Errors
/// The status, if the call ends without a message.
pub async fn stream_raw<S>(channel: Channel, path: &str, messages: S) -> Result<Streaming<Vec<u8>>, Status>
where
    S: IntoStreamingRequest<Message = Vec<u8>>,
    S::Stream: Send + 'static,
{
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(format!("not connected: {error:?}")))?;
    let path = PathAndQuery::try_from(path).expect("the path of an RPC is valid");
    grpc.streaming(messages.into_streaming_request(), path, Raw).await.map(tonic::Response::into_inner)
}

/// A codec for encoded messages.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
