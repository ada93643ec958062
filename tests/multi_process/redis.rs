//! A mesh with sessions and rate limits in Redis.

use drystone::Reason;
use drystone_backends::Redis;
use drystone_tests::{Mesh, RestResponse, Setup, Tokens, User, wait};
use serde_json::{Value, json};

fn setup(server: &Redis) -> Setup {
    let setup = Mesh::setup().set("session.store", "redis").set("limits.store", "redis");
    // Test machines are slow under load.
    setup.set("redis.url", server.url()).set("redis.prefix", &server.prefix()).set("redis.timeout", "1s")
}

async fn refresh(mesh: &Mesh, token: &str) -> RestResponse {
    mesh.rest().post("/v1/auth/refresh", json!({"refreshToken": token})).send().await
}

async fn me(mesh: &Mesh, token: &str) -> RestResponse {
    mesh.rest().get("/v1/users/me").bearer(token).send().await
}

async fn component_state(mesh: &Mesh, name: &str) -> String {
    let report: Value = mesh.admin("/health/detailed").await.json();
    report["components"][name]["state"].as_str().unwrap_or_else(|| panic!("{name} is not in {report}")).to_owned()
}

#[tokio::test]
async fn the_session_lifecycle_works_on_redis() {
    let mesh = setup(Redis::shared()).start();
    let (user, first) = User::signed_in(&mesh).await;
    let second = first.refresh(mesh.rest()).await;
    assert_eq!(first.refresh(mesh.rest()).await.refresh, second.refresh, "a repeated refresh returns the same token");
    let third = second.refresh(mesh.rest()).await;

    let other = user.sign_in(&mesh).await;
    let list = mesh.rest().get("/v1/sessions").bearer(&third.access).send().await.expect(200).json();
    let ids: Vec<&str> =
        list["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&other.session_id, &third.session_id], "newest first");

    let path = format!("/v1/sessions/{}", other.session_id);
    mesh.rest().delete(&path).bearer(&third.access).send().await.expect(200);
    me(&mesh, &other.access).await.refused(Reason::TokenRevoked);
    refresh(&mesh, &other.refresh).await.refused(Reason::SessionEnded);

    refresh(&mesh, &first.refresh).await.refused(Reason::RefreshTokenReused);
    me(&mesh, &third.access).await.refused(Reason::TokenRevoked);
    refresh(&mesh, &third.refresh).await.refused(Reason::SessionEnded);
    user.sign_in(&mesh).await;
}

#[tokio::test]
async fn during_a_redis_outage_tokens_are_accepted_and_sessions_recover_afterwards() {
    let mut server = Redis::start();
    let mesh = setup(&server).start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let both = async |state: &str| {
        component_state(&mesh, "session redis").await == state && component_state(&mesh, "auth limits").await == state
    };
    wait::until("both are up", async || both("up").await.then_some(())).await;

    server.stop();
    wait::until("health reports Redis as down", async || both("down").await.then_some(())).await;
    me(&mesh, &tokens.access).await.expect(200);
    for answer in [
        refresh(&mesh, &tokens.refresh).await,
        mesh.rest().get("/v1/sessions").bearer(&tokens.access).send().await,
        mesh.rest().post("/v1/auth/login", json!({"email": user.email, "password": user.password})).send().await,
    ] {
        let answer = answer.refused(Reason::Unavailable);
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds >= 1), "{answer:?}");
    }
    me(&mesh, &tokens.access).await.expect(200);

    server.start_again();
    let next = wait::until("a refresh succeeds", async || {
        let answer = refresh(&mesh, &tokens.refresh).await;
        (answer.status == 200).then(|| Tokens::of(&answer.json()))
    })
    .await;
    me(&mesh, &next.access).await.expect(200);
    wait::until("health reports Redis as up", async || both("up").await.then_some(())).await;
    mesh.admin("/ready").await.expect(200);
    mesh.rest().delete(&format!("/v1/sessions/{}", next.session_id)).bearer(&next.access).send().await.expect(200);
    me(&mesh, &next.access).await.refused(Reason::TokenRevoked);
}

#[tokio::test]
async fn after_redis_loses_its_data_users_sign_in_again() {
    let mut server = Redis::start();
    let mesh = setup(&server).start();
    let (user, tokens) = User::signed_in(&mesh).await;
    // Revocations that services have received stay in force.
    let ended = user.sign_in(&mesh).await;
    mesh.rest().delete(&format!("/v1/sessions/{}", ended.session_id)).bearer(&ended.access).send().await.expect(200);
    server.stop();
    server.start_empty();

    let refused = wait::until("Redis is available", async || {
        let answer = refresh(&mesh, &tokens.refresh).await;
        (answer.status != 503).then_some(answer)
    });
    refused.await.refused(Reason::SessionEnded);
    me(&mesh, &tokens.access).await.expect(200);
    me(&mesh, &ended.access).await.refused(Reason::TokenRevoked);

    let again = user.sign_in(&mesh).await;
    again.refresh(mesh.rest()).await;
    mesh.rest().delete(&format!("/v1/sessions/{}", again.session_id)).bearer(&again.access).send().await.expect(200);
    me(&mesh, &again.access).await.refused(Reason::TokenRevoked);
}

#[tokio::test]
async fn a_mesh_waits_for_redis_at_startup() {
    let mut server = Redis::start();
    let setup = setup(&server);
    server.stop();
    let starting = setup.spawn();
    server.start_again();
    let mesh = starting.ready();
    let (_, tokens) = User::signed_in(&mesh).await;
    me(&mesh, &tokens.access).await.expect(200);
}
