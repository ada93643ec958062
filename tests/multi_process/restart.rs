//! State after a graceful stop or a kill, and a restart.

use std::sync::Arc;

use drystone::Reason;
use drystone_tests::{Mesh, RestResponse, Setup, Tokens, User};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinSet};

/// The state of a user before the restart.
struct Snapshot {
    user: User,
    tokens: Tokens,
    ended: Tokens,
    me: Value,
    properties: Value,
    sessions: Value,
    keys: Value,
}

/// The issuer is part of every token. Its default is the address of the edge, which changes here with each start.
fn setup() -> Setup {
    Mesh::setup().set("issuer", "https://id.example.com")
}

async fn get(mesh: &Mesh, path: &str, token: &str) -> RestResponse {
    mesh.rest().get(path).bearer(token).send().await
}

async fn create_state(mesh: &Mesh) -> Snapshot {
    let (user, first) = User::signed_in(mesh).await;
    let ended = user.sign_in(mesh).await;
    mesh.rest().post("/v1/auth/logout", json!({})).bearer(&ended.access).send().await.expect(200);
    for name in ["Barn", "Field"] {
        let body = json!({"displayName": name, "labels": {"for": "restart"}});
        mesh.rest().post("/v1/properties", body).bearer(&first.access).send().await.expect(200);
    }
    let tokens = first.refresh(mesh.rest()).await;
    let read = async |path| get(mesh, path, &tokens.access).await.expect(200).json();
    Snapshot {
        me: read("/v1/users/me").await,
        properties: read("/v1/properties").await,
        sessions: read("/v1/sessions").await,
        keys: read("/.well-known/jwks.json").await,
        user,
        tokens,
        ended,
    }
}

async fn assert_unchanged(mesh: &Mesh, before: &Snapshot) {
    let Snapshot { user, tokens, ended, me, properties, sessions, keys } = before;
    let read = async |path| get(mesh, path, &tokens.access).await.expect(200).json();
    assert_eq!(&read("/v1/users/me").await, me);
    assert_eq!(&read("/v1/properties").await, properties);
    assert_eq!(&read("/v1/sessions").await, sessions);
    assert_eq!(&read("/.well-known/jwks.json").await, keys);

    // Revoked tokens are refused by every service from the first call on.
    for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
        get(mesh, path, &ended.access).await.refused(Reason::TokenRevoked);
    }
    let body = json!({"refreshToken": ended.refresh});
    mesh.rest().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);

    // The other session stays valid.
    let refreshed = tokens.refresh(mesh.rest()).await;
    assert_eq!(refreshed.session_id, tokens.session_id);
    get(mesh, "/v1/users/me", &refreshed.access).await.expect(200);
    user.sign_in(mesh).await;
}

#[tokio::test]
async fn state_survives_a_graceful_stop() {
    let mesh = setup().start();
    let before = create_state(&mesh).await;
    let mesh = setup().home(mesh.stop()).start();
    assert_unchanged(&mesh, &before).await;
}

#[tokio::test]
async fn state_survives_a_kill() {
    let mesh = setup().start();
    let before = create_state(&mesh).await;
    let mesh = setup().home(mesh.kill()).start();
    assert_unchanged(&mesh, &before).await;
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let mut mesh = setup().start();
    for _ in 0..3 {
        let user = User::register(&mesh).await;
        mesh = setup().home(mesh.kill()).start();
        let tokens = user.sign_in(&mesh).await;
        mesh = setup().home(mesh.kill()).start();
        let refreshed = tokens.refresh(mesh.rest()).await;
        mesh = setup().home(mesh.kill()).start();
        // A repeated refresh returns the same token across a restart.
        assert_eq!(tokens.refresh(mesh.rest()).await.refresh, refreshed.refresh);
    }
}

#[tokio::test]
async fn refresh_token_reuse_is_detected_after_a_restart() {
    let mesh = setup().start();
    let (_, first) = User::signed_in(&mesh).await;
    let second = first.refresh(mesh.rest()).await;
    let third = second.refresh(mesh.rest()).await;
    let mesh = setup().home(mesh.stop()).start();
    let refresh = async |token| mesh.rest().post("/v1/auth/refresh", json!({"refreshToken": token})).send().await;
    refresh(&first.refresh).await.refused(Reason::RefreshTokenReused);
    refresh(&third.refresh).await.refused(Reason::SessionEnded);
    get(&mesh, "/v1/users/me", &third.access).await.refused(Reason::TokenRevoked);
}

#[tokio::test]
async fn a_graceful_stop_finishes_calls_in_flight() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    let rest = mesh.rest();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let token = tokens.access.clone();
            tokio::spawn(async move {
                // Until the connection is refused, each call gets a complete response.
                let mut answered = 0;
                while let Ok(answer) = rest.get("/v1/users/me").bearer(&token).try_send().await {
                    assert!(answer.status == 200 || answer.status == 503, "{answer:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let counted = drystone_tests::wait::until("calls have been served", async || {
        let count = mesh.metrics().await.sum("drystone_calls_total", &[("method", "GetMe"), ("code", "OK")]);
        (count > 50.0).then_some(())
    });
    counted.await;
    let home = tokio::task::spawn_blocking(|| mesh.stop()).await.unwrap();
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    drop(home);
}

/// Refreshes that are in flight when the process is killed, and an outage that is longer than the grace period: a lost response is not
/// taken for an attack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_with_refreshes_in_flight_signs_nobody_out() {
    const CLIENTS: usize = 40;
    let setup = || setup().set("session.rotation_grace", "50ms");
    let mesh = setup().start();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(User::signed_in(&mesh).await.1);
    }
    let mut refreshing = JoinSet::new();
    let started = Arc::new(Semaphore::new(0));
    for mut tokens in clients {
        let (rest, started) = (mesh.rest(), Arc::clone(&started));
        refreshing.spawn(async move {
            // Until there is no answer. Returns the token that the client has then.
            loop {
                let body = json!({"refreshToken": tokens.refresh});
                match rest.post("/v1/auth/refresh", body).try_send().await {
                    Ok(answer) if answer.status == 200 => tokens = Tokens::of(&answer.json()),
                    _ => return tokens,
                }
                started.add_permits(1);
            }
        });
    }
    // In the middle of their refreshes.
    drop(started.acquire_many(u32::try_from(CLIENTS).unwrap()).await.unwrap());
    let mesh = setup().home(mesh.kill()).start();
    for tokens in refreshing.join_all().await {
        let refreshed = tokens.refresh(mesh.rest()).await;
        assert_eq!(refreshed.session_id, tokens.session_id);
    }
}
