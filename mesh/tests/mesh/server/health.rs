//! The health service, as load balancers and probes use it.

use std::collections::HashMap;

use drystone_mesh::health::Kind;
use futures_util::FutureExt;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{TestServer, refusal};

const KNOWN: &str = "drystone.user.v1.UserService";
const KEYS: &str = "drystone.auth.v1.KeyService";

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

async fn next(states: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    states.message().await.unwrap().unwrap().status()
}

#[tokio::test]
async fn a_check_of_an_unknown_service_is_not_found() {
    let server = TestServer::new().await;
    let mut client = HealthClient::new(server.channel("edge", "user"));
    for known in ["", KNOWN] {
        assert_eq!(client.check(of(known)).await.unwrap().into_inner().status(), ServingStatus::Serving, "{known}");
    }
    for unknown in ["acme.v1.Orders", "UserService", "grpc.health.v1.Health"] {
        assert_eq!(refusal(client.check(of(unknown)).await).0, Code::NotFound, "{unknown}");
    }
}

#[tokio::test]
async fn a_watch_of_an_unknown_service_reports_service_unknown_and_stays_open() {
    let server = TestServer::new().await;
    let mut client = HealthClient::new(server.channel("edge", "user"));
    let mut unknown = client.watch(of("acme.v1.Orders")).await.unwrap().into_inner();
    assert_eq!(next(&mut unknown).await, ServingStatus::ServiceUnknown);

    // What changes for the others does not concern it.
    let mut known = client.watch(of(KNOWN)).await.unwrap().into_inner();
    assert_eq!(next(&mut known).await, ServingStatus::Serving);
    let store = server.health.component("user store", Kind::Vital);
    assert_eq!(next(&mut known).await, ServingStatus::NotServing);
    assert!(unknown.message().now_or_never().is_none(), "it is still open");

    // Its own state goes with that of the server as a whole.
    store.up();
    assert_eq!(next(&mut known).await, ServingStatus::Serving);
    store.degraded("slow");
    store.down("disconnected");
    assert_eq!(next(&mut known).await, ServingStatus::NotServing, "what changes nothing is not reported");
    assert_eq!(refusal(client.watch(of(&"x".repeat(1000))).await).0, Code::InvalidArgument);
}

#[tokio::test]
async fn list_has_every_service() {
    #[derive(Clone, PartialEq, prost::Message)]
    struct ListResponse {
        #[prost(map = "string, message", tag = "1")]
        statuses: HashMap<String, HealthCheckResponse>,
    }

    let server = TestServer::new().await;
    let mut client = tonic::client::Grpc::new(server.channel("edge", "user"));
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/List");
    let codec = tonic_prost::ProstCodec::<(), ListResponse>::default();
    let statuses = client.unary(Request::new(()), path, codec).await.unwrap().into_inner().statuses;
    let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
    assert_eq!(statuses, HashMap::from([String::new(), KNOWN.to_owned(), KEYS.to_owned()].map(|name| (name, serving))));
}
