//! Invalid access tokens at every service and at the edge.

use drystone::{
    Reason,
    contract::{Method, Subject, method::OUTSIDE},
};
use drystone_tests::{
    Mesh, User,
    bad_tokens::{GoodToken, bad_tokens},
    grpc::{assert_refused, call_raw, reason, with_token},
    methods, services,
};
use tonic::{Request, Status};

/// An RPC of this service that requires a user, and that the edge may call.
fn user_rpc(service: &str) -> &'static Method {
    let is_outside = |method: &Method| method.callers.iter().any(|caller| caller == OUTSIDE);
    let requires_user =
        |method: &&Method| *method.workload == *service && method.subject == Subject::User && is_outside(method);
    methods()
        .iter()
        .map(|method| &**method)
        .find(requires_user)
        .unwrap_or_else(|| panic!("{service} has no RPC for users"))
}

async fn call_with_token(mesh: &Mesh, service: &str, token: &str) -> Result<Vec<u8>, Status> {
    let method = user_rpc(service);
    call_raw(mesh.channel(service, "edge"), &method.path, with_token(Vec::new(), token), false).await
}

#[tokio::test]
async fn every_bad_token_is_refused_by_every_service() {
    let mesh = Mesh::shared();
    for service in services() {
        let good = GoodToken::of(mesh).await;
        let bad = bad_tokens(&good);
        assert!(bad.len() >= 30);
        let channel = mesh.channel(service, "edge");
        for bad in bad {
            let request = with_token(Vec::new(), &bad.token);
            let answer = call_raw(channel.clone(), &user_rpc(service).path, request, false).await;
            let Err(status) = answer else { panic!("{service} accepts a token: {}", bad.name) };
            let refused = [Some(Reason::TokenInvalid), Some(Reason::TokenExpired)].contains(&reason(&status));
            assert!(refused, "{service} answers `{}` with {status:?}", bad.name);
            // The error text repeats nothing of the token.
            assert!(!bad.token.split('.').any(|part| part.len() > 8 && status.message().contains(part)), "{status:?}");
        }
        // The good token is accepted: the call succeeds, or its empty message is invalid.
        if let Err(status) = call_with_token(mesh, service, &good.token()).await {
            assert_eq!(reason(&status), Some(Reason::InvalidRequest), "{service}: {status:?}");
        }
    }
}

#[tokio::test]
async fn every_bad_token_is_refused_at_the_edge() {
    let mesh = Mesh::shared();
    let good = GoodToken::of(mesh).await;
    for bad in bad_tokens(&good) {
        let answer = mesh.rest().get("/v1/users/me").bearer(&bad.token).send().await;
        assert_eq!(answer.status, 401, "{}: {}", bad.name, answer.text());
        assert!(answer.reason().starts_with("TOKEN_"), "{}: {}", bad.name, answer.text());
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{}: {:?}", bad.name, answer.headers);
    }
    mesh.rest().get("/v1/users/me").bearer(&good.token()).send().await.expect(200);
}

#[tokio::test]
async fn a_token_of_another_mesh_is_refused() {
    let other = Mesh::start();
    let (_, foreign) = User::signed_in(&other).await;
    let mesh = Mesh::shared();
    for service in services() {
        assert_refused(call_with_token(mesh, service, &foreign.access).await, Reason::TokenInvalid);
    }
}

#[tokio::test]
async fn an_expired_token_is_refused_although_it_was_cached() {
    let mesh = Mesh::setup().set("auth.access_token_lifetime", "1s").start();
    let (_, tokens) = User::signed_in(&mesh).await;
    call_with_token(&mesh, "user", &tokens.access).await.unwrap();
    let ended = drystone_tests::wait::until("the token expires", async || {
        call_with_token(&mesh, "user", &tokens.access).await.err()
    });
    assert_refused(Err::<(), _>(ended.await), Reason::TokenExpired);
}

#[tokio::test]
async fn only_a_single_bearer_token_is_accepted() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let token = &tokens.access;
    let call = async |values: &[String]| {
        let mut request = Request::new(Vec::new());
        for value in values {
            request.metadata_mut().append("authorization", value.parse().unwrap());
        }
        call_raw(mesh.channel("user", "edge"), "/drystone.user.v1.UserService/GetMe", request, false).await
    };
    for valid in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER {token}")] {
        call(&[valid]).await.unwrap();
    }
    assert_refused(call(&[]).await, Reason::TokenMissing);
    let invalid = [
        token.clone(),
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("Bearer\t{token}"),
        format!("Bearer: {token}"),
        format!("Bearer \"{token}\""),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},Bearer {token}"),
        format!("Basic {token}"),
        format!("DPoP {token}"),
        "Basic YWRtaW46YWRtaW4=".to_owned(),
    ];
    for value in invalid {
        assert_refused(call(std::slice::from_ref(&value)).await, Reason::TokenInvalid);
    }
    // One or more spaces (RFC 9110, section 11.4).
    call(&[format!("Bearer   {token}")]).await.unwrap();
    let good = format!("Bearer {token}");
    assert_refused(call(&[good.clone(), good]).await, Reason::TokenInvalid);
}

#[tokio::test]
async fn a_token_is_ignored_when_the_rule_requires_no_user() {
    let mesh = Mesh::shared();
    let answer = mesh.rest().get("/.well-known/jwks.json").bearer("nonsense").send().await;
    answer.expect(200);
}

#[tokio::test]
async fn permissions_come_from_the_token_and_not_from_headers() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let list = mesh.rest().get("/v1/users").bearer(&tokens.access);
    let list = list.header("x-user-roles", "admin").header("x-drystone-permissions", "users:read");
    list.send().await.refused(Reason::PermissionMissing);
}
