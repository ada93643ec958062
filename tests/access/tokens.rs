//! Access tokens that are wrong, at the door of every service.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use drystone::{
    Reason,
    contract::{Method, Subject},
};
use drystone_tests::{
    Mesh, Tokens, User,
    bad_tokens::{GoodToken, bad_tokens},
    grpc::{assert_refused, call_raw, reason, with_token},
    methods, services,
};
use serde_json::{Map, Value};
use sqlx::{ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tonic::{Request, Status};

/// The key that the mesh signs with, taken from where it keeps it: a token that is wrong in one thing has to be right
/// in all others, its signature first of all.
async fn signing_key(mesh: &Mesh) -> (String, Vec<u8>) {
    let options = SqliteConnectOptions::new().filename(mesh.home().data().join("auth.db")).read_only(true);
    let mut database = options.busy_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let query = "SELECT kid, private_key FROM signing_key ORDER BY created_at DESC LIMIT 1";
    let key = sqlx::query_as(query).fetch_one(&mut database).await.unwrap();
    database.close().await.unwrap();
    key
}

fn claims(tokens: &Tokens) -> Map<String, Value> {
    let payload = tokens.access.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// A real token, and the means to make others like it.
async fn good_token(mesh: &Mesh) -> GoodToken {
    let (_, tokens) = User::signed_in(mesh).await;
    let (kid, key) = signing_key(mesh).await;
    GoodToken { key, kid, claims: claims(&tokens) }
}

/// Something of this service that asks for a user, and that an empty message does no harm with.
fn guarded(service: &str) -> &'static Method {
    let guarded = |method: &&Method| *method.workload == *service && method.subject == Subject::User;
    methods().iter().map(|method| &**method).find(guarded).unwrap_or_else(|| panic!("{service} has no RPC for users"))
}

async fn show(mesh: &Mesh, service: &str, token: &str) -> Result<Vec<u8>, Status> {
    let method = guarded(service);
    call_raw(mesh.channel(service, "edge"), &method.path, with_token(Vec::new(), token), false).await
}

#[tokio::test]
async fn every_bad_token_is_refused_by_every_service() {
    let mesh = Mesh::shared();
    for service in services() {
        let good = good_token(mesh).await;
        let bad = bad_tokens(&good);
        assert!(bad.len() >= 30);
        let channel = mesh.channel(service, "edge");
        for bad in bad {
            let request = with_token(Vec::new(), &bad.token);
            let answer = call_raw(channel.clone(), &guarded(service).path, request, false).await;
            let Err(status) = answer else { panic!("{service} accepts a token: {}", bad.name) };
            let refused = [Some(Reason::TokenInvalid), Some(Reason::TokenExpired)].contains(&reason(&status));
            assert!(refused, "{service} answers `{}` with {status:?}", bad.name);
            // What the token says is not repeated to whoever sent it.
            assert!(!bad.token.split('.').any(|part| part.len() > 8 && status.message().contains(part)), "{status:?}");
        }
        // The good one is accepted: by its rule the call goes through, or what it asks for is found wanting.
        if let Err(status) = show(mesh, service, &good.token()).await {
            assert_eq!(reason(&status), Some(Reason::InvalidRequest), "{service}: {status:?}");
        }
    }
}

#[tokio::test]
async fn every_bad_token_is_refused_at_the_edge() {
    let mesh = Mesh::shared();
    let good = good_token(mesh).await;
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
        assert_refused(show(mesh, service, &foreign.access).await, Reason::TokenInvalid);
    }
}

#[tokio::test]
async fn a_token_that_has_ended_is_refused_though_it_was_remembered() {
    let mesh = Mesh::setup().set("auth.access_token_lifetime", "1s").start();
    let (_, tokens) = User::signed_in(&mesh).await;
    show(&mesh, "user", &tokens.access).await.unwrap();
    let ended = drystone_tests::wait::until("the token ends", async || show(&mesh, "user", &tokens.access).await.err());
    assert_refused(Err::<(), _>(ended.await), Reason::TokenExpired);
}

#[tokio::test]
async fn a_credential_is_one_bearer_token_and_nothing_else() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let token = &tokens.access;
    let show = async |values: &[String]| {
        let mut request = Request::new(Vec::new());
        for value in values {
            request.metadata_mut().append("authorization", value.parse().unwrap());
        }
        call_raw(mesh.channel("user", "edge"), "/drystone.user.v1.UserService/GetMe", request, false).await
    };
    for valid in [format!("Bearer {token}"), format!("bearer {token}"), format!("BEARER {token}")] {
        show(&[valid]).await.unwrap();
    }
    assert_refused(show(&[]).await, Reason::TokenMissing);
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
        assert_refused(show(std::slice::from_ref(&value)).await, Reason::TokenInvalid);
    }
    // One space or more (RFC 9110, section 11.4).
    show(&[format!("Bearer   {token}")]).await.unwrap();
    let good = format!("Bearer {token}");
    assert_refused(show(&[good.clone(), good]).await, Reason::TokenInvalid);
}

#[tokio::test]
async fn a_token_is_not_read_where_the_rule_asks_for_none() {
    let mesh = Mesh::shared();
    let answer = mesh.rest().get("/.well-known/jwks.json").bearer("nonsense").send().await;
    answer.expect(200);
}

#[tokio::test]
async fn a_permission_is_what_the_token_says_and_not_what_the_caller_claims() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let list = mesh.rest().get("/v1/users").bearer(&tokens.access);
    let list = list.header("x-user-roles", "admin").header("x-drystone-permissions", "users:read");
    list.send().await.refused(Reason::PermissionMissing);
}
