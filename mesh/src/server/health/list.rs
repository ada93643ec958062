//! `grpc.health.v1.Health/List`, which tonic-health does not have yet.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use http::{Request as HttpRequest, Response as HttpResponse};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::BoxFuture,
    server::{Grpc, NamedService, UnaryService},
};
use tonic_health::pb::{HealthCheckResponse, health_server::HealthServer};
use tonic_prost::ProstCodec;
use tower::Service;

use super::{HealthHandler, response};

const PATH: &str = "/grpc.health.v1.Health/List";

/// `HealthListRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct ListRequest {}

/// `HealthListResponse`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ListResponse {
    /// The status of each service by its name.
    #[prost(map = "string, message", tag = "1")]
    pub(super) statuses: HashMap<String, HealthCheckResponse>,
}

/// The health service with `List`.
#[derive(Debug, Clone)]
pub(in crate::server) struct HealthService {
    generated: HealthServer<HealthHandler>,
    api: HealthHandler,
}

impl HealthService {
    pub(super) fn new(generated: HealthServer<HealthHandler>, api: HealthHandler) -> Self {
        Self { generated, api }
    }
}

impl NamedService for HealthService {
    const NAME: &'static str = HealthServer::<HealthHandler>::NAME;
}

impl Service<HttpRequest<Body>> for HealthService {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.generated.call(request);
        }
        let list = List(self.api.clone());
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(list, request).await) })
    }
}

struct List(HealthHandler);

impl UnaryService<ListRequest> for List {
    type Response = ListResponse;
    type Future = Ready<Result<Response<ListResponse>, Status>>;

    fn call(&mut self, _: Request<ListRequest>) -> Self::Future {
        let statuses = self.0.0.borrow();
        let status = |name: &&str| Some(((*name).to_owned(), response(statuses.of(name)?)));
        let statuses = statuses.names.iter().filter_map(status).collect();
        ready(Ok(Response::new(ListResponse { statuses })))
    }
}
