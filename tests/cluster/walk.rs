//! The whole walk of an end user, each call at the other edge than the one before.

use drystone::Reason;
use drystone_tests::{Front, Production, Tokens, User, wait};
use serde_json::json;

use crate::{direct::Direct, everything};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_walk_works_and_every_instance_does_its_share() {
    let mesh = Production::exclusively().await;
    let cluster = &mesh.cluster;
    let mut before = Vec::new();
    for (part, number) in everything(cluster) {
        before.push(cluster.served(part, number).await);
    }
    let front = cluster.front();
    wait::until("every instance has done its share", async || {
        walk(&front, &Direct::to(cluster)).await;
        for ((part, number), before) in everything(cluster).zip(&before) {
            // One call might be chance.
            if cluster.served(part, number).await < before + 3.0 {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// From sign-up to sign-out.
async fn walk(front: &Front, direct: &Direct) {
    let user = User::register_at(front.next()).await;
    let tokens = user.sign_in_at(front.next()).await;
    let get = async |path: &str, tokens: &Tokens| front.next().get(path).bearer(&tokens.access).send().await;

    // The profile.
    let me = get("/v1/users/me", &tokens).await.expect(200).json();
    let path = format!("/v1/users/{}", user.id);
    let body = json!({"displayName": "Countess", "etag": me["etag"]});
    let changed = front.next().patch(&path, body).bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(changed["displayName"], "Countess");
    assert_eq!(get(&path, &tokens).await.expect(200).json(), changed, "the other instance knows it");

    // A property from beginning to end.
    let body = json!({"displayName": "The Engine"});
    let property = front.next().post("/v1/properties", body).bearer(&tokens.access).send().await.expect(200).json();
    let list = get("/v1/properties", &tokens).await.expect(200).json();
    assert_eq!(list, json!({"properties": [property], "nextPageToken": ""}));
    let path = format!("/v1/properties/{}", property["id"].as_str().unwrap());
    let body = json!({"displayName": "The Analytical Engine", "etag": property["etag"]});
    let changed = front.next().patch(&path, body).bearer(&tokens.access).send().await.expect(200).json();
    assert_eq!(get(&path, &tokens).await.expect(200).json(), changed);
    front.next().delete(&path).bearer(&tokens.access).send().await.expect(200);
    get(&path, &tokens).await.refused(Reason::PropertyNotFound);

    // Sessions.
    let other = user.sign_in_at(front.next()).await;
    let list = get("/v1/sessions", &tokens).await.expect(200).json();
    let ids: Vec<_> = list["sessions"].as_array().unwrap().iter().map(|session| session["id"].clone()).collect();
    assert_eq!(ids, [&*other.session_id, &*tokens.session_id]);
    let refreshed = tokens.refresh(front.next()).await;
    get("/v1/users/me", &refreshed).await.expect(200);

    // Sign out: the tokens of this session are void everywhere, and the other session goes on.
    front.next().post("/v1/auth/logout", json!({})).bearer(&refreshed.access).send().await.expect(200);
    for tokens in [&tokens, &refreshed] {
        direct.refuses(tokens).await;
        for path in ["/v1/users/me", "/v1/properties", "/v1/sessions"] {
            for _ in 0..2 {
                get(path, tokens).await.refused(Reason::TokenRevoked);
            }
        }
    }
    let body = json!({"refreshToken": refreshed.refresh});
    front.next().post("/v1/auth/refresh", body).send().await.refused(Reason::SessionEnded);
    get("/v1/users/me", &other).await.expect(200);
}
