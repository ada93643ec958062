//! Limits count for all instances together.

use std::time::{Duration, Instant};

use drystone::Reason;
use drystone_tests::{Answer, Mesh, Production, Starting, User, cluster::listed};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_attempts_pass_through_two_instances_than_the_limit_allows() {
    // What nobody has configured: ten at once, and one more in each six seconds.
    const BURST: usize = 10;
    const INTERVAL: Duration = Duration::from_secs(6);
    const TIME: Duration = Duration::from_secs(7);
    let mesh = Production::exclusively().await;
    let cluster = &mesh.cluster;
    let user = User::register_at(cluster.rest(0)).await;
    // Two instances that limit, and an edge that knows of no others.
    let limiting: [Mesh; 2] = [(); 2].map(|()| cluster.one_more("auth").limited().begin()).map(Starting::ready);
    let addresses = [&limiting[0], &limiting[1]].map(|auth| auth.grpc_address("auth"));
    let edge = cluster.one_more("edge").set("peers.auth", &listed(&addresses)).start();
    let rest = edge.rest();
    let attempt = {
        let email = user.email.clone();
        move || {
            let body = json!({"email": email, "password": "not the password"});
            rest.post("/v1/auth/login", body).send()
        }
    };

    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let attempt = attempt.clone();
        clients.spawn(async move {
            let (mut passed, mut refused) = (0, 0);
            while begun.elapsed() < TIME {
                let answer = attempt().await;
                if answer.status == 401 {
                    answer.refused(Reason::InvalidCredentials);
                    passed += 1;
                } else {
                    says_when(&answer.refused(Reason::RateLimited), INTERVAL);
                    refused += 1;
                }
            }
            (passed, refused)
        });
    }
    let (mut passed, mut refused) = (0, 0);
    while let Some(counted) = clients.join_next().await {
        let (more_passed, more_refused) = counted.unwrap();
        passed += more_passed;
        refused += more_refused;
    }
    let time = begun.elapsed();
    let bound = BURST + usize::try_from(time.as_micros() / INTERVAL.as_micros()).unwrap();
    println!("{passed} passed and {refused} were refused in {time:?}; the bound is {bound}");
    assert!((BURST..=bound).contains(&passed), "{passed} of {} passed in {time:?}", passed + refused);
    for auth in &limiting {
        let metrics = auth.metrics().await;
        assert!(metrics.sum("drystone_rate_limited_total", &[]) >= 1.0, "both instances were asked");
        assert!(metrics.sum("drystone_rate_limit_fallbacks_total", &[]) < 0.5, "all were counted in Redis");
    }

    // Who comes back when they were told to is let in.
    let told = says_when(&attempt().await.refused(Reason::RateLimited), INTERVAL);
    tokio::time::sleep(told).await;
    attempt().await.refused(Reason::InvalidCredentials);
}

/// When a refusal says to come back: within the time of one attempt, with header and detail.
#[track_caller]
fn says_when(answer: &Answer, interval: Duration) -> Duration {
    let told = Duration::from_secs(answer.header("retry-after").parse().unwrap());
    assert!(Duration::from_secs(1) <= told && told <= interval, "{answer:?}");
    assert!(answer.detail("google.rpc.RetryInfo").is_some(), "{answer:?}");
    told
}
