//! Drystone's own contracts, with a generated server as backend.

use std::sync::{Arc, Mutex};

use drystone::user::v1::{
    GetMeRequest, GetUserRequest, ListUsersRequest, ListUsersResponse, UpdateUserRequest, User,
    user_service_server::UserServiceServer,
};
use drystone_edge::Config;
use drystone_tests::PartialService;
use serde_json::json;
use tonic::{Request, Response};

use crate::{Edge, backend::FakeBackend};

const ID: &str = "0190b3c4-0000-7000-8000-000000000001";

/// Echoes updates, and records their masks.
#[derive(Default)]
struct Users {
    masks: Arc<Mutex<Vec<Vec<String>>>>,
}

fn user(id: &str) -> User {
    User { id: id.to_owned(), email: "ada@example.org".to_owned(), ..User::default() }
}

async fn start(users: Users) -> Edge {
    let masks = users.masks;
    let server = PartialService::<UserServiceServer<()>>::new()
        .unary("GetMe", |_: Request<GetMeRequest>| async { Ok(Response::new(user("me"))) })
        .unary("GetUser", |request: Request<GetUserRequest>| async {
            Ok(Response::new(user(&request.into_inner().id)))
        })
        .unary("UpdateUser", move |request: Request<UpdateUserRequest>| {
            let UpdateUserRequest { user, update_mask } = request.into_inner();
            masks.lock().unwrap().push(update_mask.unwrap_or_default().paths);
            async { Ok(Response::new(user.unwrap_or_default())) }
        })
        .unary("ListUsers", |request: Request<ListUsersRequest>| async {
            let next_page_token = format!("{:?}", request.into_inner());
            Ok(Response::new(ListUsersResponse { users: vec![], next_page_token }))
        });
    Edge::start(drystone::contracts().unwrap(), server, FakeBackend::echo(), Config::default()).await
}

#[tokio::test]
async fn me_is_not_a_user_id() {
    let edge = start(Users::default()).await;
    assert_eq!(edge.request("GET /v1/users/me", "").await.json()["id"], "me");
    let other = edge.request(&format!("GET /v1/users/{ID}"), "").await.json();
    assert_eq!((&other["id"], &other["roles"], &other["displayName"]), (&json!(ID), &json!([]), &json!("")));
}

#[tokio::test]
async fn invalid_fields_are_named_in_json() {
    let edge = start(Users::default()).await;
    let reply = edge.request("GET /v1/users/7", "").await;
    assert_eq!((reply.status, reply.reason().as_str(), reply.violation().0.as_str()), (400, "INVALID_REQUEST", "id"));

    let reply = edge.request("GET /v1/users?pageSize=201", "").await;
    assert_eq!((reply.status, reply.violation().0.as_str()), (400, "pageSize"));
    assert!(reply.json()["message"].as_str().unwrap().starts_with("pageSize: "), "{}", reply.text());

    let long = json!({ "displayName": "x".repeat(201) }).to_string();
    let reply = edge.request(&format!("PATCH /v1/users/{ID}"), &long).await;
    assert_eq!((reply.status, reply.violation().0.as_str()), (400, "displayName"));
}

#[tokio::test]
async fn the_mask_of_a_patch_excludes_output_only_fields() {
    let users = Users::default();
    let masks = users.masks.clone();
    let edge = start(users).await;
    let body = json!({"id": ID, "displayName": "Ada", "roles": ["admin"], "etag": "1", "createTime": null}).to_string();
    let reply = edge.request(&format!("PATCH /v1/users/{ID}"), &body).await;
    assert_eq!((reply.status, &reply.json()["displayName"]), (200, &json!("Ada")));
    let mut mask = masks.lock().unwrap().pop().unwrap();
    mask.sort_unstable();
    assert_eq!(mask, ["display_name", "etag"]);
}

#[tokio::test]
async fn lists_are_paged_by_query_parameters() {
    let edge = start(Users::default()).await;
    let page = edge.request("GET /v1/users?pageSize=5&page_token=abc", "").await.json();
    let debug = page["nextPageToken"].as_str().unwrap();
    assert!(debug.contains("page_size: 5") && debug.contains("\"abc\""), "{debug}");
    assert_eq!(page["users"], json!([]));
}

#[tokio::test]
async fn internal_rpcs_have_no_route() {
    let edge = start(Users::default()).await;
    for request in [
        "POST /drystone.user.v1.UserService/ProvisionUser",
        "POST /drystone.user.v1.UserService/SetUserRoles",
        "GET /v1/users:lookUpForSignIn",
        "GET /v1/propertyClaims",
    ] {
        let reply = edge.request(request, "").await;
        assert!(matches!(reply.status, 404 | 405), "{request}: {}", reply.status);
    }
}
