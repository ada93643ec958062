//! The user journey, with each call sent to another edge than the one before.

use drystone::Reason;
use drystone_tests::{Edges, Production, Tokens, User, wait};
use serde_json::json;

use crate::{all_instances, direct_clients::DirectClients};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_journey_works_and_every_instance_serves_calls() {
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let mut before = Vec::new();
    for (part, number) in all_instances(cluster) {
        before.push(cluster.served_calls(part, number).await);
    }
    let edges = cluster.edges();
    wait::until("every instance has served calls", async || {
        run_journey(&edges, &DirectClients::connect(cluster)).await;
        for ((part, number), before) in all_instances(cluster).zip(&before) {
            // More than one, to exclude a stray background call.
            if cluster.served_calls(part, number).await < before + 3.0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// From sign-up to sign-out.
async fn run_journey(edges: &Edges, direct: &DirectClients) {
    let user = User::register_at(edges.next()).await;
    let tokens = user.sign_in_at(edges.next()).await;
    let get = async |path: &str, tokens: &Tokens| edges.next().get(path).bearer(&tokens.access).send().await;

    // The profile.
    let me = get("/v1/users/me", &tokens).await.expect(200).json();
    let path = format!("/v1/users/{}", user.id);
    let body = json!({"displayName": "Countess", "etag": me["etag"]});
    let changed = edges.next().patch(&path, body).bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(changed["displayName"], "Countess");
    assert_eq!(
        get(&path, &tokens).await.expect(200).json(),
        changed,
        "the change is visible through the other instance"
    );

    // The lifecycle of a property.
    let body = json!({"displayName": "The Engine"});
    let property = edges.next().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200).json();
    let list = get("/v1/properties", &tokens).await.expect(200).json();
    assert_eq!(list, json!({"properties": [property], "nextPageToken": ""}));
    let path = format!("/v1/properties/{}", property["id"].as_str().unwrap());
    let body = json!({"displayName": "The Analytical Engine", "etag": property["etag"]});
    let changed = edges.next().patch(&path, body).bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(get(&path, &tokens).await.expect(200).json(), changed);
    edges.next().delete(&path).bearer(&tokens.access).send().await.expect(200);
    get(&path, &tokens).await.refused(Reason::PropertyNotFound);

    let messages = get("/v1/messages", &tokens).await.expect(200).json();
    assert_eq!(messages["messages"], json!([]));

    // Sessions.
    let other = user.sign_in_at(edges.next()).await;
    let list = get("/v1/sessions", &tokens).await.expect(200).json();
    let ids: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()).collect();
    assert_eq!(ids, [&*other.session_id, &*tokens.session_id]);
    let refreshed = tokens.refresh(edges.next()).await;
    get("/v1/users/me", &refreshed).await.expect(200);

    // Sign-out: every instance refuses the tokens of this session; the other session stays valid.
    edges.next().post("/v1/auth/logout", json!({})).bearer(&refreshed.access).send().await.expect(200);
    for tokens in [&tokens, &refreshed] {
        direct.assert_revoked(tokens).await;
        for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
            for _ in 0..2 {
                get(path, tokens).await.refused(Reason::TokenRevoked);
            }
        }
    }
    let body = json!({"refreshToken": refreshed.refresh});
    edges.next().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
    get("/v1/users/me", &other).await.expect(200);
}
