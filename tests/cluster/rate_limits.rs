//! Rate limits are shared by all instances.

use std::time::{Duration, Instant};

use drystone::Reason;
use drystone_tests::{Mesh, Production, RestResponse, Starting, User, cluster::peer_list};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_enforce_one_shared_sign_in_limit() {
    // The default limit: a burst of ten, then one every six seconds.
    const BURST: usize = 10;
    const INTERVAL: Duration = Duration::from_secs(6);
    const TEST_DURATION: Duration = Duration::from_secs(7);
    let mesh = Production::lock().await;
    let cluster = &mesh.cluster;
    let user = User::register_at(cluster.rest(0)).await;
    // Two auth instances with limits, and an edge that calls only these.
    let limiting: [Mesh; 2] =
        [(); 2].map(|()| cluster.extra_instance("auth").with_default_rate_limits().spawn()).map(Starting::ready);
    let addresses = [&limiting[0], &limiting[1]].map(|auth| auth.grpc_address("auth"));
    let edge = cluster.extra_instance("edge").set("peers.auth", &peer_list(&addresses)).start();
    let rest = edge.rest();
    let attempt = {
        let email = user.email.clone();
        move || {
            let body = json!({"email": email, "password": "not the password"});
            rest.post("/v1/auth/login", body).send()
        }
    };

    let start = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..32 {
        let attempt = attempt.clone();
        clients.spawn(async move {
            let (mut passed, mut refused) = (0, 0);
            while start.elapsed() < TEST_DURATION {
                let answer = attempt().await;
                if answer.status == 401 {
                    answer.refused(Reason::InvalidCredentials);
                    passed += 1;
                } else {
                    retry_after(&answer.refused(Reason::RateLimited), INTERVAL);
                    refused += 1;
                }
            }
            (passed, refused)
        });
    }
    let (mut passed, mut refused) = (0, 0);
    while let Some(counted) = clients.join_next().await {
        let (client_passed, client_refused) = counted.unwrap();
        passed += client_passed;
        refused += client_refused;
    }
    let elapsed = start.elapsed();
    let bound = BURST + usize::try_from(elapsed.as_micros() / INTERVAL.as_micros()).unwrap();
    println!("{passed} attempts passed and {refused} were refused in {elapsed:?}; the bound is {bound}");
    assert!((BURST..=bound).contains(&passed), "{passed} of {} passed in {elapsed:?}", passed + refused);
    for auth in &limiting {
        let metrics = auth.metrics().await;
        assert!(metrics.sum("drystone_rate_limited_total", &[]) >= 1.0, "both instances refused attempts");
        assert!(metrics.sum("drystone_rate_limit_fallbacks_total", &[]) < 0.5, "every attempt is counted in Redis");
    }

    // A retry after the advised delay passes.
    let delay = retry_after(&attempt().await.refused(Reason::RateLimited), INTERVAL);
    tokio::time::sleep(delay).await;
    attempt().await.refused(Reason::InvalidCredentials);
}

/// The `Retry-After` of a response: at most the interval of one attempt, as header and as `RetryInfo`.
#[track_caller]
fn retry_after(answer: &RestResponse, interval: Duration) -> Duration {
    let delay = Duration::from_secs(answer.header("retry-after").parse().unwrap());
    assert!(Duration::from_secs(1) <= delay && delay <= interval, "{answer:?}");
    assert!(answer.detail("google.rpc.RetryInfo").is_some(), "{answer:?}");
    delay
}
