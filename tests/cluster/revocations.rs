//! What is revoked through one instance is void at all of them.

use drystone::session::v1::{RevokeSessionRequest, session_service_client::SessionServiceClient};
use drystone_tests::{Answer, Production, Tokens, User, grpc::with_token, wait};
use serde_json::json;

use super::direct::Direct;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_out_is_known_to_every_instance_with_its_answer() {
    let mesh = Production::exclusively().await;
    let (front, direct) = (mesh.cluster.front(), Direct::to(&mesh.cluster));
    let user = User::register_at(front.next()).await;
    for _ in 0..10 {
        let tokens = user.sign_in_at(front.next()).await;
        direct.takes(&tokens).await;
        front.next().post("/v1/auth/logout", json!({})).bearer(&tokens.access).send().await.expect(200);
        direct.refuses(&tokens).await;
    }
    // The same for all sessions at once, and for one that another session ends.
    let sessions = [user.sign_in_at(front.next()).await, user.sign_in_at(front.next()).await];
    let path = format!("/v1/sessions/{}", sessions[1].session_id);
    front.next().delete(&path).bearer(&sessions[0].access).send().await.expect(200);
    direct.refuses(&sessions[1]).await;
    front.next().post("/v1/sessions:revokeAll", json!({})).bearer(&sessions[0].access).send().await.expect(200);
    direct.refuses(&sessions[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoking_call_at_either_instance_waits_for_every_server() {
    let mesh = Production::exclusively().await;
    let (cluster, front, direct) = (&mesh.cluster, mesh.cluster.front(), Direct::to(&mesh.cluster));
    let user = User::register_at(front.next()).await;
    for number in 0..cluster.instances() {
        let tokens = user.sign_in_at(front.next()).await;
        direct.takes(&tokens).await;
        cluster.pause_one("property", 0);
        let mut session = SessionServiceClient::new(cluster.channel("session", number, "edge"));
        let request = with_token(RevokeSessionRequest { id: tokens.session_id.clone() }, &tokens.access);
        let revoking = tokio::spawn(async move { session.revoke_session(request).await });
        wait::until("others know of it", async || {
            let answer = front.next().get("/v1/users/me").bearer(&tokens.access).send().await;
            (answer.status == 401).then_some(())
        })
        .await;
        assert!(!revoking.is_finished(), "one server has not heard of it");
        cluster.resume_one("property", 0);
        revoking.await.unwrap().unwrap();
        direct.refuses(&tokens).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_sign_out_is_lost_while_connections_to_redis_are_cut() {
    let mesh = Production::exclusively().await;
    let (front, direct) = (mesh.cluster.front(), Direct::to(&mesh.cluster));
    let user = User::register_at(front.next()).await;
    let mut signed_out = Vec::new();
    for round in 0..20 {
        let tokens = wait::until("sign-in works", async || {
            let body = json!({"email": user.email, "password": user.password});
            let answer = front.send(front.next().post("/v1/auth/login", body)).await;
            served(answer).map(|answer| Tokens::of(&answer.json()))
        })
        .await;
        wait::until("the sign-out is answered", async || {
            // All that the services have, those that wait for news among them.
            mesh.redis.cut_connections();
            let call = front.next().post("/v1/auth/logout", json!({})).bearer(&tokens.access);
            let answer = front.send(call).await;
            // One that was refused may have come to be.
            if answer.status == 401 { Some(()) } else { served(answer).map(drop) }
        })
        .await;
        if round % 2 == 0 {
            mesh.redis.cut_connections();
        }
        signed_out.push(tokens);
    }
    for tokens in &signed_out {
        wait::until("it is known everywhere", async || direct.has_refused(tokens).await.then_some(())).await;
        direct.refuses(tokens).await;
    }
    mesh.cluster.until_well().await;
}

/// The answer, unless somebody is away for a moment.
fn served(answer: Answer) -> Option<Answer> {
    if answer.status == 503 {
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        return None;
    }
    Some(answer.expect(200))
}
