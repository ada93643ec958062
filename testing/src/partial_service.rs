//! A gRPC service that implements the RPCs a test needs.

use std::{
    collections::HashMap,
    convert::Infallible,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use drystone::codec::ValidatingCodec;
use tokio_stream::Stream;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::Codec,
    codegen::BoxFuture,
    server::{Grpc, NamedService},
};
use tower::{Service, service_fn};

use crate::contracts;

type Handler = Arc<dyn Fn(http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible> + Send + Sync>;

/// A service with some of its RPCs; all others return UNIMPLEMENTED. Unlike an implementation of the generated trait,
/// it does not change when its contract gains an RPC. `S` is the generated server, such as `UserServiceServer<()>`.
pub struct PartialService<S> {
    handlers: HashMap<String, Handler>,
    service: PhantomData<fn() -> S>,
}

impl<S: NamedService> PartialService<S> {
    /// A service without RPCs.
    #[must_use]
    pub fn new() -> Self {
        Self { handlers: HashMap::new(), service: PhantomData }
    }

    /// Adds a unary RPC: `GetMe`. Requests are validated, as generated servers do.
    #[must_use]
    pub fn unary<Req, Res, F, Fut>(mut self, rpc: &str, handler: F) -> Self
    where
        ValidatingCodec<Res, Req>: Codec<Encode = Res, Decode = Req> + Send,
        Req: Send + 'static,
        Res: Send + 'static,
        F: Fn(Request<Req>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Res>, Status>> + Send + 'static,
    {
        let path = Self::path(rpc, false);
        let handle: Handler = Arc::new(move |request| {
            let handler = handler.clone();
            Box::pin(async move {
                let mut grpc = Grpc::new(ValidatingCodec::<Res, Req>::default());
                Ok(grpc.unary(service_fn(handler), request).await)
            })
        });
        self.handlers.insert(path, handle);
        self
    }

    /// Adds an RPC with streams of requests and responses.
    #[must_use]
    pub fn streaming<Req, Res, F, Fut, R>(mut self, rpc: &str, handler: F) -> Self
    where
        ValidatingCodec<Res, Req>: Codec<Encode = Res, Decode = Req> + Send,
        Req: Send + 'static,
        Res: Send + 'static,
        F: Fn(Request<Streaming<Req>>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<R>, Status>> + Send + 'static,
        R: Stream<Item = Result<Res, Status>> + Send + 'static,
    {
        let path = Self::path(rpc, true);
        let handle: Handler = Arc::new(move |request| {
            let handler = handler.clone();
            Box::pin(async move {
                let mut grpc = Grpc::new(ValidatingCodec::<Res, Req>::default());
                Ok(grpc.streaming(service_fn(handler), request).await)
            })
        });
        self.handlers.insert(path, handle);
        self
    }

    /// The path of an RPC, which a contract of Drystone must have in this form.
    fn path(rpc: &str, is_streaming: bool) -> String {
        let path = format!("/{}/{rpc}", S::NAME);
        if S::NAME.starts_with("drystone.") {
            let method = contracts().method(&path).unwrap_or_else(|| panic!("no contract has {path}"));
            assert_eq!(method.is_streaming(), is_streaming, "{path}");
        }
        path
    }
}

impl<S: NamedService> Default for PartialService<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Clone for PartialService<S> {
    fn clone(&self) -> Self {
        Self { handlers: self.handlers.clone(), service: PhantomData }
    }
}

impl<S: NamedService> NamedService for PartialService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for PartialService<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.handlers.get(request.uri().path()) {
            Some(handler) => handler(request),
            None => Box::pin(async { Ok(Status::unimplemented("this test has no handler for the RPC").into_http()) }),
        }
    }
}
