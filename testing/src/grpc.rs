//! gRPC as a workload of the mesh speaks it, or as somebody does who is none.

use std::{io, net::SocketAddr};

use bytes::{Buf, BufMut};
use drystone::Reason;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rustls::{pki_types::ServerName, version::TLS13};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint, Uri},
};
use tonic_types::StatusExt;

use crate::certs::{Certificates, Credentials};

/// A channel that connects when it is first used, proves itself with `credentials`, and takes the server for `service`
/// by the DNS name in its certificate, as any gRPC client does.
pub fn channel(
    address: SocketAddr,
    service: &str,
    certificates: &Certificates,
    credentials: Option<Credentials>,
) -> Channel {
    let config = certificates.client_config(credentials, &[&TLS13]);
    let name = ServerName::try_from(service.to_owned()).expect("a workload's name can be a DNS name");
    let origin: Uri = format!("https://{service}").parse().expect("a workload's name can be a host");
    let connector = tower::service_fn(move |_: Uri| {
        let (config, name) = (config.clone(), name.clone());
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The endpoint's own scheme is plain, since it is the connector that does TLS.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address is a URI").origin(origin);
    endpoint.connect_with_connector_lazy(connector)
}

/// A message with an access token.
///
/// # Panics
/// If the token cannot stand in a header.
pub fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("the token can stand in a header");
    request.metadata_mut().insert("authorization", value);
    request
}

/// The reason that a refusal gives, if it is one of ours.
#[must_use]
pub fn reason(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    assert_eq!(info.domain, Reason::DOMAIN, "{status:?}");
    Some(Reason::from_name(&info.reason).unwrap_or_else(|| panic!("{} is no reason of ours", info.reason)))
}

/// Asserts that a call was refused for `expected`, with the code that belongs to it.
///
/// # Panics
/// If it was not.
#[track_caller]
pub fn assert_refused<T>(result: Result<T, Status>, expected: Reason) {
    let Err(status) = result else { panic!("it was let in, where {} was expected", expected.name()) };
    assert_eq!(reason(&status), Some(expected), "{status:?}");
    assert_eq!(status.code(), expected.code(), "{status:?}");
}

/// Calls any RPC with bytes. Of an answer that is a stream, only the beginning is awaited, since it may be all that
/// comes.
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
    let path = PathAndQuery::try_from(path).expect("the path of an RPC is a path");
    if is_stream {
        grpc.server_streaming(request, path, Raw).await?;
        return Ok(Vec::new());
    }
    grpc.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

/// A codec that leaves the bytes as they are.
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
