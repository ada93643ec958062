//! Concurrent refreshes of one session through all instances.

use std::collections::BTreeSet;

use drystone_tests::{Production, Tokens, User};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_refreshes_of_one_session_return_the_same_refresh_token() {
    const CLIENTS: usize = 64;
    let mesh = Production::lock().await;
    let edges = mesh.cluster.edges();
    let user = User::register_at(edges.next()).await;
    let mut tokens = user.sign_in_at(edges.next()).await;
    let (mut succeeded, mut refused) = (0, 0);
    for round in 0..20 {
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let call = edges.next().post("/v1/auth/refresh", json!({"refreshToken": tokens.refresh}));
            clients.spawn(call.send());
        }
        let mut successors = Vec::new();
        while let Some(answer) = clients.join_next().await {
            let answer = answer.unwrap();
            if answer.status == 200 {
                successors.push(Tokens::of(&answer.json()));
            } else {
                assert!([429, 503].contains(&answer.status), "round {round}: {answer:?}");
                assert!(!answer.header("retry-after").is_empty(), "round {round}: {answer:?}");
                refused += 1;
            }
        }
        succeeded += successors.len();
        let different: BTreeSet<_> = successors.iter().map(|tokens| &tokens.refresh).collect();
        assert_eq!(different.len(), 1, "round {round}");
        assert!(!different.contains(&tokens.refresh), "round {round}");
        // The new tokens are valid.
        let last = successors.pop().unwrap();
        edges.next().get("/v1/users/me").bearer(&last.access).send().await.expect(200);
        tokens = last;
    }
    println!("{succeeded} refreshes succeeded, {refused} were refused with Retry-After");
    tokens.refresh(edges.next()).await;
}
