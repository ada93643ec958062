//! Sessions: refresh, refresh token reuse, revocation and its propagation.

use drystone::{
    Reason,
    auth::v1::{SignOutRequest, auth_service_client::AuthServiceClient},
    contract::{Method, Subject, method::OUTSIDE},
    property::v1::{ListPropertiesRequest, property_service_client::PropertyServiceClient},
    session::v1::{ListSessionsRequest, session_service_client::SessionServiceClient},
    user::v1::{GetMeRequest, SetUserRolesRequest, user_service_client::UserServiceClient},
};
use drystone_tests::{
    Mesh, RestResponse, Tokens, User,
    grpc::{assert_refused, call_raw, with_token},
    methods, wait,
};
use serde_json::json;

async fn refresh(mesh: &Mesh, token: &str) -> RestResponse {
    mesh.rest().post("/v1/auth/refresh", json!({"refreshToken": token})).send().await
}

async fn me(mesh: &Mesh, token: &str) -> RestResponse {
    mesh.rest().get("/v1/users/me").bearer(token).send().await
}

async fn session_ids(mesh: &Mesh, token: &str) -> Vec<String> {
    let list = mesh.rest().get("/v1/sessions").bearer(token).send().await.expect(200).json();
    let sessions = list["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn refresh_token_reuse_ends_the_session() {
    let mesh = Mesh::shared();
    let (_, first) = User::signed_in(mesh).await;
    let second = first.refresh(mesh.rest()).await;
    let third = second.refresh(mesh.rest()).await;

    refresh(mesh, &first.refresh).await.refused(Reason::RefreshTokenReused);

    // Every token of the session is refused, to the attacker and to the user.
    for tokens in [&first, &second, &third] {
        refresh(mesh, &tokens.refresh).await.refused(Reason::SessionEnded);
        me(mesh, &tokens.access).await.refused(Reason::TokenRevoked);
    }
}

#[tokio::test]
async fn a_repeated_refresh_returns_the_same_refresh_token() {
    let mesh = Mesh::shared();
    let (_, first) = User::signed_in(mesh).await;
    let second = first.refresh(mesh.rest()).await;
    let again = first.refresh(mesh.rest()).await;
    assert_eq!(again.refresh, second.refresh, "the same refresh token, not another one");
    assert_eq!(again.session_id, second.session_id);
    for token in [&first.access, &second.access, &again.access] {
        me(mesh, token).await.expect(200);
    }
    // The session continues from there.
    let third = second.refresh(mesh.rest()).await;
    me(mesh, &third.access).await.expect(200);
}

#[tokio::test]
async fn two_concurrent_refreshes_return_the_same_refresh_token() {
    let mesh = Mesh::shared();
    let (_, first) = User::signed_in(mesh).await;
    let (one, other) = tokio::join!(first.refresh(mesh.rest()), first.refresh(mesh.rest()));
    assert_eq!(one.refresh, other.refresh);
    me(mesh, &one.refresh(mesh.rest()).await.access).await.expect(200);
}

/// After the grace period the last used token gets a new successor: the response may have been lost in a long outage.
#[tokio::test]
async fn a_lost_refresh_response_never_signs_a_client_out() {
    let mesh = Mesh::setup().set("session.rotation_grace", "0s").start();
    let (_, first) = User::signed_in(&mesh).await;
    let mut refreshed = first.refresh(mesh.rest()).await;
    for _ in 0..5 {
        let again = first.refresh(mesh.rest()).await;
        assert_ne!(again.refresh, refreshed.refresh, "a new one");
        refreshed = again;
    }
    let next = refreshed.refresh(mesh.rest()).await;
    me(&mesh, &next.access).await.expect(200);
}

/// A thief who refreshes with a copy of the owner's last used token supersedes the owner's token, which exposes both.
#[tokio::test]
async fn a_superseded_refresh_token_ends_the_session() {
    let mesh = Mesh::setup().set("session.rotation_grace", "0s").start();
    let (_, first) = User::signed_in(&mesh).await;
    let own = first.refresh(mesh.rest()).await;
    let stolen = first.refresh(mesh.rest()).await;
    refresh(&mesh, &own.refresh).await.refused(Reason::RefreshTokenReused);
    refresh(&mesh, &stolen.refresh).await.refused(Reason::SessionEnded);
    me(&mesh, &stolen.access).await.refused(Reason::TokenRevoked);
}

/// A thief who follows the owner within the grace period every time.
#[tokio::test]
async fn a_shared_refresh_token_ends_its_session_if_configured() {
    let mesh = Mesh::setup().set("session.end_shared", "true").start();
    let (_, first) = User::signed_in(&mesh).await;
    let own = first.refresh(mesh.rest()).await;
    assert_eq!(first.refresh(mesh.rest()).await.refresh, own.refresh);
    let next = own.refresh(mesh.rest()).await;
    refresh(&mesh, &own.refresh).await.refused(Reason::RefreshTokenReused);
    refresh(&mesh, &next.refresh).await.refused(Reason::SessionEnded);
}

/// By default the owner is told, and decides.
#[tokio::test]
async fn a_shared_refresh_token_is_told_audited_and_counted() {
    let mesh = Mesh::start();
    let (user, first) = User::signed_in(&mesh).await;
    let own = first.refresh(mesh.rest()).await;
    assert_eq!(first.refresh(mesh.rest()).await.refresh, own.refresh);
    let next = own.refresh(mesh.rest()).await;
    assert_eq!(own.refresh(mesh.rest()).await.refresh, next.refresh, "the session goes on");
    let told = wait::until("a message in the inbox", async || {
        let inbox = mesh.rest().get("/v1/messages").bearer(&next.access).send().await.expect(200).json();
        let messages = inbox["messages"].as_array()?.clone();
        messages
            .into_iter()
            .find(|message| message["title"].as_str().is_some_and(|title| title.contains("one session")))
    })
    .await;
    assert!(told["body"].as_str().unwrap().contains("127.0.0.1"), "{told}");
    assert!(mesh.log().contains("refresh_token_shared") && mesh.log().contains(&user.id));
    let shared = mesh.metrics().await.sum("drystone_session_rotations_total", &[("outcome", "shared")]);
    assert!((shared - 1.0).abs() < f64::EPSILON, "{shared}");
    // The list of sessions shows from where it was last renewed.
    let listed = mesh.rest().get("/v1/sessions").bearer(&next.access).send().await.expect(200).json();
    assert_eq!(listed["sessions"][0]["lastAddress"], "127.0.0.1");
}

#[tokio::test]
async fn a_refresh_token_is_repeated_at_most_20_times() {
    let mesh = Mesh::shared();
    let (_, first) = User::signed_in(mesh).await;
    let second = first.refresh(mesh.rest()).await;
    for _ in 0..20 {
        assert_eq!(first.refresh(mesh.rest()).await.refresh, second.refresh);
    }
    refresh(mesh, &first.refresh).await.refused(Reason::RateLimited);
    second.refresh(mesh.rest()).await;
}

#[tokio::test]
async fn a_tampered_refresh_token_is_refused_and_the_session_continues() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let length = tokens.refresh.len();
    for index in 0..length {
        let mut damaged = tokens.refresh.clone().into_bytes();
        damaged[index] = if damaged[index] == b'A' { b'B' } else { b'A' };
        refresh(mesh, std::str::from_utf8(&damaged).unwrap()).await.refused(Reason::RefreshTokenInvalid);
    }
    let variants =
        [&tokens.refresh[..length - 1], &format!("{}A", tokens.refresh), &format!("{}=", tokens.refresh), "x"];
    for damaged in variants {
        refresh(mesh, damaged).await.refused(Reason::RefreshTokenInvalid);
    }
    // A refresh token is not an access token.
    me(mesh, &tokens.refresh).await.refused(Reason::TokenInvalid);

    tokens.refresh(mesh.rest()).await;
}

#[tokio::test]
async fn an_access_token_is_refused_by_every_service_immediately_after_sign_out() {
    let mesh = Mesh::shared();
    let (_, tokens) = User::signed_in(mesh).await;
    let stolen = tokens.access.as_str();
    let mut users = UserServiceClient::new(mesh.channel("user", "edge"));
    let mut sessions = SessionServiceClient::new(mesh.channel("session", "edge"));
    let mut properties = PropertyServiceClient::new(mesh.channel("property", "edge"));
    let mut auth = AuthServiceClient::new(mesh.channel("auth", "edge"));

    // Each service has verified and cached the token.
    users.get_me(with_token(GetMeRequest {}, stolen)).await.unwrap();
    sessions.list_sessions(with_token(ListSessionsRequest::default(), stolen)).await.unwrap();
    properties.list_properties(with_token(ListPropertiesRequest::default(), stolen)).await.unwrap();

    auth.sign_out(with_token(SignOutRequest {}, stolen)).await.unwrap();

    // No waiting: sign-out returns after every service has applied the revocation.
    assert_refused(users.get_me(with_token(GetMeRequest {}, stolen)).await, Reason::TokenRevoked);
    let list = sessions.list_sessions(with_token(ListSessionsRequest::default(), stolen)).await;
    assert_refused(list, Reason::TokenRevoked);
    let list = properties.list_properties(with_token(ListPropertiesRequest::default(), stolen)).await;
    assert_refused(list, Reason::TokenRevoked);
    assert_refused(auth.sign_out(with_token(SignOutRequest {}, stolen)).await, Reason::TokenRevoked);

    // The same for every other RPC that requires a user, through each entry point.
    let is_outside = |method: &Method| method.callers.iter().any(|caller| caller == OUTSIDE);
    for method in methods().iter().filter(|method| method.subject == Subject::User && is_outside(method)) {
        for entry_point in ["edge", "ingress"] {
            let channel = mesh.channel(&method.workload, entry_point);
            let answer = call_raw(channel, &method.path, with_token(Vec::new(), stolen), method.server_streaming).await;
            assert_refused(answer, Reason::TokenRevoked);
        }
    }
}

#[tokio::test]
async fn sign_out_returns_after_every_service_has_applied_the_revocation() {
    let mesh = Mesh::shared();
    let user = User::register(mesh).await;
    let mut users = UserServiceClient::new(mesh.channel("user", "edge"));
    for _ in 0..20 {
        let token = user.sign_in(mesh).await.access;
        users.get_me(with_token(GetMeRequest {}, &token)).await.unwrap();
        mesh.rest().post("/v1/auth/logout", json!({})).bearer(&token).send().await.expect(200);
        assert_refused(users.get_me(with_token(GetMeRequest {}, &token)).await, Reason::TokenRevoked);
    }
}

#[tokio::test]
async fn one_session_can_be_ended_from_another() {
    let mesh = Mesh::shared();
    let (user, laptop) = User::signed_in(mesh).await;
    let phone = user.sign_in(mesh).await;
    assert_eq!(session_ids(mesh, &laptop.access).await, [phone.session_id.clone(), laptop.session_id.clone()]);

    let path = format!("/v1/sessions/{}", phone.session_id);
    mesh.rest().delete(&path).bearer(&laptop.access).send().await.expect(200);
    me(mesh, &phone.access).await.refused(Reason::TokenRevoked);
    refresh(mesh, &phone.refresh).await.refused(Reason::SessionEnded);
    me(mesh, &laptop.access).await.expect(200);
    assert_eq!(session_ids(mesh, &laptop.access).await, std::slice::from_ref(&laptop.session_id));
    mesh.rest().delete(&path).bearer(&laptop.access).send().await.refused(Reason::SessionNotFound);
}

#[tokio::test]
async fn a_user_cannot_end_a_session_of_another_user() {
    let mesh = Mesh::shared();
    let (_, victim) = User::signed_in(mesh).await;
    let (_, attacker) = User::signed_in(mesh).await;
    let path = format!("/v1/sessions/{}", victim.session_id);
    mesh.rest().delete(&path).bearer(&attacker.access).send().await.refused(Reason::SessionNotFound);
    me(mesh, &victim.access).await.expect(200);
    assert_eq!(session_ids(mesh, &attacker.access).await, std::slice::from_ref(&attacker.session_id));
}

async fn revoke_all(mesh: &Mesh, tokens: &Tokens, body: serde_json::Value) -> serde_json::Value {
    mesh.rest().post("/v1/sessions:revokeAll", body).bearer(&tokens.access).send().await.expect(200).json()
}

#[tokio::test]
async fn all_sessions_can_be_ended_at_once() {
    let mesh = Mesh::shared();
    let (user, first) = User::signed_in(mesh).await;
    let second = user.sign_in(mesh).await;
    assert_eq!(revoke_all(mesh, &first, json!({})).await, json!({"revokedCount": 2}));
    for tokens in [&first, &second] {
        me(mesh, &tokens.access).await.refused(Reason::TokenRevoked);
        refresh(mesh, &tokens.refresh).await.refused(Reason::SessionEnded);
    }
    // The user can sign in again.
    let third = user.sign_in(mesh).await;
    me(mesh, &third.access).await.expect(200);
}

#[tokio::test]
async fn all_other_sessions_can_be_ended_and_this_one_kept() {
    let mesh = Mesh::shared();
    let (user, first) = User::signed_in(mesh).await;
    let second = user.sign_in(mesh).await;
    let third = user.sign_in(mesh).await;
    assert_eq!(revoke_all(mesh, &second, json!({"keepCurrent": true})).await, json!({"revokedCount": 2}));
    for tokens in [&first, &third] {
        me(mesh, &tokens.access).await.refused(Reason::TokenRevoked);
        refresh(mesh, &tokens.refresh).await.refused(Reason::SessionEnded);
    }
    me(mesh, &second.access).await.expect(200);
    let refreshed = second.refresh(mesh.rest()).await;
    me(mesh, &refreshed.access).await.expect(200);
}

#[tokio::test]
async fn a_session_expires_after_its_idle_timeout() {
    let mesh = Mesh::setup().set("session.idle_timeout", "1s").set("session.rotation_grace", "0s").start();
    let (_, tokens) = User::signed_in(&mesh).await;
    drystone_tests::wait::until("the session has expired", async || {
        // Listing sessions does not extend it.
        let list = mesh.rest().get("/v1/sessions").bearer(&tokens.access).send().await;
        (list.status != 200 || list.json()["sessions"] == json!([])).then_some(())
    })
    .await;
    refresh(&mesh, &tokens.refresh).await.refused(Reason::SessionEnded);
}

#[tokio::test]
async fn a_role_change_revokes_tokens_and_new_tokens_carry_the_new_roles() {
    let mesh = Mesh::shared();
    let (user, tokens) = User::signed_in(mesh).await;
    let list = mesh.rest().get("/v1/users").bearer(&tokens.access).send().await;
    list.refused(Reason::PermissionMissing);

    let mut operator = UserServiceClient::new(mesh.channel("user", "operator"));
    let roles = vec!["admin".to_owned(), "member".to_owned()];
    let changed = operator.set_user_roles(SetUserRolesRequest { id: user.id.clone(), roles: roles.clone() }).await;
    assert_eq!(changed.unwrap().into_inner().roles, roles);

    me(mesh, &tokens.access).await.refused(Reason::TokenRevoked);
    // The session stays.
    let refreshed = tokens.refresh(mesh.rest()).await;
    let list = mesh.rest().get("/v1/users?pageSize=1").bearer(&refreshed.access).send().await.expect(200).json();
    assert_eq!(list["users"].as_array().unwrap().len(), 1);
    assert_eq!(me(mesh, &refreshed.access).await.expect(200).json()["roles"], json!(roles));
}
