//! A fake gRPC backend for any contract, in the same process, which records its calls.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use prost::Message;
use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, Value};
use tokio::sync::{Notify, Semaphore};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service},
    server::{Grpc, UnaryService},
};

use drystone_tests::fixture;

/// Responds to calls.
pub(crate) type Handler =
    Arc<dyn Fn(FakeCall) -> futures_util::future::BoxFuture<'static, Result<DynamicMessage, Status>> + Send + Sync>;

/// A call as a handler sees it.
pub(crate) struct FakeCall {
    pub(crate) rpc: MethodDescriptor,
    pub(crate) message: DynamicMessage,
}

/// A call as a test sees it.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// As JSON, without fields with default values.
    pub(crate) message: serde_json::Value,
}

/// The backend. Clones share their record.
#[derive(Clone)]
pub(crate) struct FakeBackend {
    handler: Handler,
    received: Arc<Mutex<Vec<Received>>>,
}

impl FakeBackend {
    pub(crate) fn new(handler: Handler) -> Self {
        Self { handler, received: Arc::default() }
    }

    /// Echoes each request, as far as the output has the same fields.
    pub(crate) fn echo() -> Self {
        Self::new(Arc::new(|call| Box::pin(async move { Ok(echo(&call)) })))
    }

    /// Echoes each request once it is resumed: the first notification is sent by a call, the second awaited by it.
    pub(crate) fn blocking() -> (Self, Arc<Notify>, Arc<Notify>) {
        let (called, resume) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (notify, wait) = (called.clone(), resume.clone());
        let backend = Self::new(Arc::new(move |call| {
            let (notify, wait) = (notify.clone(), wait.clone());
            Box::pin(async move {
                notify.notify_one();
                wait.notified().await;
                Ok(echo(&call))
            })
        }));
        (backend, called, resume)
    }

    /// Echoes each request once it gets a permit of the semaphore, and gives the permit back.
    pub(crate) fn waiting() -> (Self, Arc<Semaphore>) {
        let permits = Arc::new(Semaphore::new(0));
        let handlers = permits.clone();
        let backend = Self::new(Arc::new(move |call| {
            let permits = handlers.clone();
            Box::pin(async move {
                let _permit = permits.acquire().await.unwrap();
                Ok(echo(&call))
            })
        }));
        (backend, permits)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn last(&self) -> Received {
        self.received().pop().expect("a call reached the backend")
    }
}

/// The output with the fields of the input.
pub(crate) fn echo(FakeCall { rpc, message }: &FakeCall) -> DynamicMessage {
    let mut output = DynamicMessage::new(rpc.output());
    for field in rpc.output().fields() {
        if let Some(same) = message.descriptor().get_field_by_name(field.name())
            && message.has_field(&same)
        {
            output.set_field(&field, message.get_field(&same).into_owned());
        }
    }
    output
}

/// Sets a field.
pub(crate) fn set(message: &mut DynamicMessage, field: &str, value: impl Into<Value>) {
    message.set_field_by_name(field, value.into());
}

impl Service<Request<Body>> for FakeBackend {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        let service = fixture::message("Everything").parent_pool().services().next().unwrap();
        let rpc = service.methods().find(|method| method.name() == name).expect("the fixture has this RPC");
        let call = Unary { backend: self.clone(), path, headers: request.headers().clone(), rpc: rpc.clone() };
        Box::pin(async move { Ok(Grpc::new(FakeCodec(rpc)).unary(call, request).await) })
    }
}

struct Unary {
    backend: FakeBackend,
    path: String,
    headers: HeaderMap,
    rpc: MethodDescriptor,
}

impl UnaryService<DynamicMessage> for Unary {
    type Response = DynamicMessage;
    type Future = BoxFuture<tonic::Response<DynamicMessage>, Status>;

    fn call(&mut self, request: tonic::Request<DynamicMessage>) -> Self::Future {
        let message = request.into_inner();
        let json = serde_json::to_value(&message).unwrap();
        let received = Received { path: self.path.clone(), headers: self.headers.clone(), message: json };
        self.backend.received.lock().unwrap().push(received);
        let response = (self.backend.handler)(FakeCall { rpc: self.rpc.clone(), message });
        Box::pin(async move { response.await.map(tonic::Response::new) })
    }
}

struct FakeCodec(MethodDescriptor);

impl Codec for FakeCodec {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = FakeEncoder;
    type Decoder = FakeCodec;

    fn encoder(&mut self) -> FakeEncoder {
        FakeEncoder
    }

    fn decoder(&mut self) -> FakeCodec {
        FakeCodec(self.0.clone())
    }
}

pub(crate) struct FakeEncoder;

impl Encoder for FakeEncoder {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for FakeCodec {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        DynamicMessage::decode(self.0.input(), buffer).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
