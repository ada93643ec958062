//! The access table as an oracle: every RPC that lists `outside`, with every kind of token, through Envoy and through the
//! edge. Both give the same verdict.

use drystone::{
    contract::{Method, Subject, method::OUTSIDE, rest::Segment},
    user::v1::{SetUserRolesRequest, user_service_client::UserServiceClient},
};
use drystone_tests::{
    Envoy, Mesh, RestClient, User,
    grpc::{call_raw, reason, with_token},
    methods,
};
use serde_json::json;
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Nobody,
    Member,
    Admin,
    /// A user who has signed out.
    Revoked,
}

const CALLERS: [Caller; 4] = [Caller::Nobody, Caller::Member, Caller::Admin, Caller::Revoked];

impl Caller {
    /// The token of a new user, since a call may end its session.
    async fn token(self, mesh: &Mesh) -> Option<String> {
        if self == Self::Nobody {
            return None;
        }
        let user = User::register(mesh).await;
        if self == Self::Admin {
            let mut operator = UserServiceClient::new(mesh.channel("user", "operator"));
            let roles = vec!["member".to_owned(), "admin".to_owned()];
            operator.set_user_roles(SetUserRolesRequest { id: user.id.clone(), roles }).await.unwrap();
        }
        let tokens = user.sign_in(mesh).await;
        if self == Self::Revoked {
            mesh.rest().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
        }
        Some(tokens.access)
    }
}

/// The status of the REST call of an RPC, and the reason of a refusal.
async fn rest(method: &Method, server: RestClient, token: Option<&str>) -> (u16, Option<String>) {
    let binding = &method.rest[0];
    let segments = binding.template.segments.iter().map(|segment| match segment {
        Segment::Literal(text) => text.clone(),
        _ => "01890000-0000-7000-8000-000000000000".to_owned(),
    });
    let verb = binding.template.verb.as_ref().map_or(String::new(), |verb| format!(":{verb}"));
    let path = format!("/{}{verb}", segments.collect::<Vec<_>>().join("/"));
    let mut request = server.request(binding.method.parse().unwrap(), &path);
    if !["GET", "DELETE"].contains(&binding.method.as_str()) {
        request = request.json(&json!({}));
    }
    let request = token.into_iter().fold(request, drystone_tests::RestRequest::bearer);
    let answer = request.send().await;
    let reason = (answer.status >= 400).then(|| answer.reason());
    (answer.status, reason)
}

/// The outcome of a call over gRPC.
async fn grpc(method: &Method, channel: Channel, token: Option<&str>) -> (tonic::Code, Option<drystone::Reason>) {
    let request = token.map_or_else(|| Request::new(Vec::new()), |token| with_token(Vec::new(), token));
    match call_raw(channel, &method.path, request, method.is_streaming()).await {
        Ok(_) => (tonic::Code::Ok, None),
        Err(status) => (status.code(), reason(&status)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_and_edge_give_the_same_verdict_for_every_rpc_and_caller() {
    let mesh = Mesh::start();
    let envoy = Envoy::start(&mesh).await;
    let through_envoy = Endpoint::from_shared(format!("http://{}", envoy.address)).unwrap().connect_lazy();
    let (mut compared, mut refused) = (0, 0);
    let outside = methods().iter().filter(|method| method.callers.iter().any(|caller| caller == OUTSIDE));
    for method in outside {
        for caller in CALLERS {
            let token = async || caller.token(&mesh).await;
            // A call without side effects can be made again with the same token.
            let keep = method.subject == Subject::None || method.rest.iter().all(|binding| binding.method == "GET");
            let first = token().await;
            let again = async || if keep { first.clone() } else { token().await };
            if !method.rest.is_empty() {
                let by_edge = rest(method, mesh.rest(), first.as_deref()).await;
                let by_envoy = rest(method, envoy.rest(), again().await.as_deref()).await;
                assert_eq!(by_envoy, by_edge, "REST, {} as {caller:?}", method.path);
                compared += 1;
                refused += u32::from(by_edge.0 == 401 || by_edge.0 == 403);
            }
            let channel = mesh.channel(&method.workload, "edge");
            let direct = grpc(method, channel, again().await.as_deref()).await;
            let by_envoy = grpc(method, through_envoy.clone(), again().await.as_deref()).await;
            assert_eq!(by_envoy, direct, "gRPC, {} as {caller:?}", method.path);
            compared += 1;
        }
    }
    assert!(compared > 100 && refused > 20, "{compared} compared, {refused} refused");
}
