//! The gRPC call to the service that owns the RPC, with messages that are known by their descriptors only.

use drystone_mesh::error::Error;
use http::{Request, Response};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::{
    Status,
    body::Body,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, StdError},
};

use crate::{http::error::RequestError, routing::route::Route};

/// A channel to a service: in a running mesh a `drystone_mesh::client::Channel`.
pub trait Backend:
    Service<Request<Body>, Response = Response<Body>, Error: Into<StdError> + Send, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Backend for S where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<StdError> + Send, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Calls the RPC of a route.
///
/// # Errors
/// The service's status, or `UNAVAILABLE`.
pub(crate) async fn call<C: Backend>(
    channel: C,
    route: &Route,
    request: tonic::Request<DynamicMessage>,
) -> Result<DynamicMessage, RequestError> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Error::unavailable("an upstream service", error.into()))?;
    let codec = DynamicCodec { output: route.output.clone() };
    let response = grpc.unary(request, route.path.clone(), codec).await.map_err(RequestError::upstream)?;
    Ok(response.into_inner())
}

/// Encodes and decodes messages by their descriptors, in the buffers of the connection.
struct DynamicCodec {
    output: MessageDescriptor,
}

impl Codec for DynamicCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = DynamicEncoder;
    type Decoder = DynamicDecoder;

    fn encoder(&mut self) -> DynamicEncoder {
        DynamicEncoder
    }

    fn decoder(&mut self) -> DynamicDecoder {
        DynamicDecoder(self.output.clone())
    }
}

struct DynamicEncoder;

impl Encoder for DynamicEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Error::internal(error).into())
    }
}

struct DynamicDecoder(MessageDescriptor);

impl Decoder for DynamicDecoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.clone(), buffer).map(Some).map_err(|error| Error::internal(error).into())
    }
}
