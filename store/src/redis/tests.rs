//! Against real servers, which come and go.

use std::time::Instant;

use tokio::time::timeout;

use super::*;
use drystone_mesh::{
    clock::Clock,
    config::{ConfigDuration, Secret},
    error::{Error, Reason},
    identity::Authority,
};

/// How long anything may take before a test gives up.
const BOUND: Duration = Duration::from_secs(30);

fn config(server: &drystone_backends::Redis) -> Config {
    Config { url: server.url().to_owned().into(), prefix: server.prefix(), ..Config::default() }
}

async fn ready(redis: &Redis) {
    timeout(BOUND, redis.ready()).await.expect("redis is connected in time");
}

/// Asks until the breaker is open: from then on nothing is sent.
async fn away(redis: &Redis) {
    timeout(BOUND, async {
        while !matches!(redis.ping().await, Err(Failure::Unavailable(_))) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("redis is found to be away in time");
}

#[tokio::test]
async fn a_script_that_redis_does_not_know_is_told_and_run() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    let script = Script::new("return {KEYS[1], ARGV[1]}");
    for _ in 0..2 {
        let answer: (String, u64) = redis.run(script.prepare_invoke().key("key").arg(7)).await.unwrap();
        assert_eq!(answer, ("key".to_owned(), 7));
        redis.query::<()>(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    }
}

#[tokio::test]
async fn a_redis_that_stops_is_unavailable_at_no_cost_and_comes_back_by_itself() {
    let mut server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    for _ in 0..2 {
        server.stop();
        away(&redis).await;
        let start = Instant::now();
        for _ in 0..1000 {
            assert!(matches!(redis.ping().await, Err(Failure::Unavailable(_))));
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        server.start_again();
        ready(&redis).await;
        redis.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_redis_that_hangs_costs_its_time_limit_and_then_nothing() {
    let mut server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    server.pause();
    let start = Instant::now();
    assert!(matches!(redis.ping().await, Err(Failure::TimedOut(_) | Failure::Redis(_))));
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    away(&redis).await;
    server.resume();
    ready(&redis).await;
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_redis_need_not_be_there_at_the_start() {
    let mut server = drystone_backends::Redis::start();
    server.stop();
    let redis = Redis::open(&config(&server)).unwrap();
    let failure = redis.ping().await.unwrap_err();
    assert!(matches!(failure, Failure::Unavailable(_)), "{failure}");
    let error = Error::from(failure);
    assert_eq!(error.reason(), Reason::Unavailable);
    server.start_again();
    ready(&redis).await;
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_no_absence() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    for _ in 0..20 {
        let failure = redis.query::<()>(&cmd("NONSENSE")).await.unwrap_err();
        assert!(!failure.is_unavailable(), "{failure}");
        assert_eq!(Error::from(failure).reason(), Reason::Internal);
    }
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_told() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    redis.query::<()>(cmd("CONFIG").arg("SET").arg("requirepass").arg("right")).await.unwrap();

    let with = |password: &str| Config {
        url: Secret::from(server.url().replace("redis://", &format!("redis://:{password}@"))),
        ..config(&server)
    };
    let wrong = Redis::open(&with("hunter2")).unwrap();
    let mut trouble = wrong.0.circuit.cause();
    let told = |trouble: &Option<String>| trouble.as_ref().is_some_and(|text| text.contains("uthentication"));
    let told = timeout(BOUND, trouble.wait_for(told)).await.expect("it is told in time").unwrap().clone().unwrap();
    assert!(!told.contains("hunter2"), "{told}");

    let right = Redis::open(&with("right")).unwrap();
    ready(&right).await;
    right.ping().await.unwrap();
}

#[tokio::test]
async fn a_password_in_a_file_is_used_and_followed_when_it_changes() {
    let server = drystone_backends::Redis::start();
    let administrator = Redis::open(&config(&server)).unwrap();
    ready(&administrator).await;
    // Whoever is logged in stays so.
    let set = async |password: &str| {
        administrator.query::<()>(cmd("CONFIG").arg("SET").arg("requirepass").arg(password)).await.unwrap();
    };
    set("right").await;

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "right\n").unwrap();
    let with_file = Config { password_file: Some(file.path().to_owned()), ..config(&server) };
    let redis = Redis::open(&with_file).unwrap();
    ready(&redis).await;
    redis.ping().await.unwrap();
    redis.dedicated(Duration::ZERO).await.unwrap().query::<()>(&cmd("PING")).await.unwrap();

    set("other").await;
    administrator
        .query::<()>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes"))
        .await
        .unwrap();
    away(&redis).await;
    std::fs::write(file.path(), "other\n").unwrap();
    ready(&redis).await;
    redis.ping().await.unwrap();

    std::fs::remove_file(file.path()).unwrap();
    let refusal = Redis::open(&with_file).unwrap_err().to_string();
    assert!(refusal.starts_with("redis.password_file"), "{refusal}");
}

#[tokio::test]
async fn tls_is_spoken_with_a_server_that_the_given_roots_prove() {
    let directory = tempfile::tempdir().unwrap();
    let domain = "drystone.local".parse().unwrap();
    let authority = Authority::open_or_create(directory.path(), &domain, Clock::system()).unwrap();
    let files = authority.issue("redis").unwrap();
    let server = drystone_backends::Redis::start_with_tls(&files.certificate, &files.key);

    let timeout_of_tests = ConfigDuration::seconds(5);
    let known = Config { ca: authority.certificate(), timeout: timeout_of_tests, ..config(&server) };
    let redis = Redis::open(&known).unwrap();
    ready(&redis).await;
    redis.ping().await.unwrap();

    let stranger = Redis::open(&config(&server)).unwrap();
    let mut trouble = stranger.0.circuit.cause();
    let told = |trouble: &Option<String>| trouble.as_ref().is_some_and(|text| text.contains("certificate"));
    timeout(BOUND, trouble.wait_for(told)).await.expect("it is told in time").unwrap();

    let missing = Config { ca: directory.path().join("missing.pem"), ..config(&server) };
    assert!(Redis::open(&missing).unwrap_err().to_string().starts_with("redis.ca"));
}

#[tokio::test]
async fn a_cluster_is_reached_by_any_of_its_nodes() {
    let server = drystone_backends::RedisCluster::shared();
    let url = server.url().split(',').next().unwrap().to_owned();
    let timeout = ConfigDuration::seconds(5);
    let redis = Redis::open(&Config { url: url.into(), cluster: true, timeout, ..Config::default() }).unwrap();
    ready(&redis).await;
    let script = Script::new("return redis.call('INCR', KEYS[1])");
    let prefix = server.prefix();
    for key in 0..20 {
        let count: u32 = redis.run(script.prepare_invoke().key(format!("{prefix}{key}"))).await.unwrap();
        assert_eq!(count, 1);
    }
}

#[tokio::test]
async fn nothing_is_left_running_when_the_last_clone_is_gone() {
    let mut server = drystone_backends::Redis::start();
    server.stop();
    let redis = Redis::open(&config(&server)).unwrap();
    let inner = Arc::downgrade(&redis.0);
    drop(redis);
    timeout(BOUND, async {
        while inner.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the task that connects lets go");
}
