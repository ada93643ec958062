//! A revocation through one instance is enforced by all.

use drystone::session::v1::{RevokeSessionRequest, session_service_client::SessionServiceClient};
use drystone_tests::{Production, RestResponse, Tokens, User, grpc::with_token, wait};
use serde_json::json;

use super::direct_clients::DirectClients;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sign_out_returns_after_every_instance_refuses_the_token() {
    let mesh = Production::lock().await;
    let (edges, direct) = (mesh.cluster.edges(), DirectClients::connect(&mesh.cluster));
    let user = User::register_at(edges.next()).await;
    for _ in 0..10 {
        let tokens = user.sign_in_at(edges.next()).await;
        direct.assert_accepted(&tokens).await;
        edges.next().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
        direct.assert_revoked(&tokens).await;
    }
    // Also for a session that another session revokes, and for all sessions of a user.
    let sessions = [user.sign_in_at(edges.next()).await, user.sign_in_at(edges.next()).await];
    let path = format!("/v1/sessions/{}", sessions[1].session_id);
    edges.next().delete(&path).bearer(&sessions[0].access).send().await.expect(200);
    direct.assert_revoked(&sessions[1]).await;
    edges.next().post("/v1/sessions:revokeAll", json!({})).bearer(&sessions[0].access).send().await.expect(200);
    direct.assert_revoked(&sessions[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoking_call_to_any_session_instance_waits_for_every_server() {
    let mesh = Production::lock().await;
    let (cluster, edges, direct) = (&mesh.cluster, mesh.cluster.edges(), DirectClients::connect(&mesh.cluster));
    let user = User::register_at(edges.next()).await;
    for number in 0..cluster.instances() {
        let tokens = user.sign_in_at(edges.next()).await;
        direct.assert_accepted(&tokens).await;
        cluster.pause_one("property", 0);
        let mut session = SessionServiceClient::new(cluster.channel("session", number, "edge"));
        let request = with_token(RevokeSessionRequest { id: tokens.session_id.clone() }, &tokens.access);
        let revoking = tokio::spawn(async move { session.revoke_session(request).await });
        wait::until("the running servers have applied the revocation", async || {
            let answer = edges.next().get("/v1/users/me").bearer(&tokens.access).send().await;
            (answer.status == 401).then_some(())
        })
        .await;
        assert!(!revoking.is_finished(), "the paused server has not acknowledged it");
        cluster.resume_one("property", 0);
        revoking.await.unwrap().unwrap();
        direct.assert_revoked(&tokens).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_revocation_is_lost_while_redis_connections_are_killed() {
    let mesh = Production::lock().await;
    let (edges, direct) = (mesh.cluster.edges(), DirectClients::connect(&mesh.cluster));
    let user = User::register_at(edges.next()).await;
    let mut signed_out = Vec::new();
    for round in 0..20 {
        let tokens = wait::until("sign-in works", async || {
            let body = json!({"email": user.email, "password": user.password});
            let answer = edges.send(edges.next().post("/v1/auth/login", body)).await;
            if_available(answer).map(|answer| Tokens::of(&answer.json()))
        })
        .await;
        wait::until("the sign-out is answered", async || {
            // All connections of the services, including subscriptions.
            mesh.redis.kill_connections();
            let call = edges.next().post("/v1/auth/logout", json!({})).bearer(&tokens.access);
            let answer = edges.send(call).await;
            // An earlier attempt that failed may have been applied.
            if answer.status == 401 { Some(()) } else { if_available(answer).map(drop) }
        })
        .await;
        if round % 2 == 0 {
            mesh.redis.kill_connections();
        }
        signed_out.push(tokens);
    }
    for tokens in &signed_out {
        wait::until("every instance has applied the revocation", async || {
            direct.is_refused_everywhere(tokens).await.then_some(())
        })
        .await;
        direct.assert_revoked(tokens).await;
    }
    mesh.cluster.wait_until_healthy().await;
}

/// The response, or `None` if it is 503.
fn if_available(answer: RestResponse) -> Option<RestResponse> {
    if answer.status == 503 {
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        return None;
    }
    Some(answer.expect(200))
}
