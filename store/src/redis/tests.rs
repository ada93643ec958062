//! Tests with real servers that are stopped, paused and restarted.

use std::time::Instant;

use tokio::time::timeout;

use super::*;
use drystone_mesh::{
    clock::Clock,
    config::{ConfigDuration, Secret},
    error::{Error, Reason},
    identity::Authority,
};

/// The maximum duration of any step of a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(30);

fn config(server: &drystone_backends::Redis) -> Config {
    Config { url: server.url().to_owned().into(), prefix: server.prefix(), ..Config::default() }
}

async fn ready(redis: &Redis) {
    timeout(TEST_TIMEOUT, redis.ready()).await.expect("redis is connected in time");
}

/// Pings until the circuit is open: from then on nothing is sent.
async fn wait_until_unavailable(redis: &Redis) {
    timeout(TEST_TIMEOUT, async {
        while !matches!(redis.ping().await, Err(CommandError::Unavailable(_))) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the circuit opens in time");
}

#[tokio::test]
async fn a_script_that_is_not_loaded_is_loaded_and_run() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    let script = Script::new("return {KEYS[1], ARGV[1]}");
    for _ in 0..2 {
        let reply: (String, u64) = redis.run(script.prepare_invoke().key("key").arg(7)).await.unwrap();
        assert_eq!(reply, ("key".to_owned(), 7));
        redis.query::<()>(cmd("SCRIPT").arg("FLUSH")).await.unwrap();
    }
}

#[tokio::test]
async fn commands_fail_at_once_while_redis_is_stopped_and_succeed_after_its_restart() {
    let mut server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    for _ in 0..2 {
        server.stop();
        wait_until_unavailable(&redis).await;
        let start = Instant::now();
        for _ in 0..1000 {
            assert!(matches!(redis.ping().await, Err(CommandError::Unavailable(_))));
        }
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        server.start_again();
        ready(&redis).await;
        redis.ping().await.unwrap();
    }
}

#[tokio::test]
async fn a_hanging_redis_costs_one_timeout_until_the_circuit_opens() {
    let mut server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    server.pause();
    let start = Instant::now();
    assert!(matches!(redis.ping().await, Err(CommandError::TimedOut(_) | CommandError::Redis(_))));
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    wait_until_unavailable(&redis).await;
    server.resume();
    ready(&redis).await;
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn redis_need_not_be_available_at_the_start() {
    let mut server = drystone_backends::Redis::start();
    server.stop();
    let redis = Redis::open(&config(&server)).unwrap();
    let error = redis.ping().await.unwrap_err();
    assert!(matches!(error, CommandError::Unavailable(_)), "{error}");
    let error = Error::from(error);
    assert_eq!(error.reason(), Reason::Unavailable);
    server.start_again();
    ready(&redis).await;
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn an_error_reply_does_not_open_the_circuit() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    for _ in 0..20 {
        let error = redis.query::<()>(&cmd("NONSENSE")).await.unwrap_err();
        assert!(!error.is_unavailable(), "{error}");
        assert_eq!(Error::from(error).reason(), Reason::Internal);
    }
    redis.ping().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_reported_and_not_logged() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&config(&server)).unwrap();
    ready(&redis).await;
    redis.query::<()>(cmd("CONFIG").arg("SET").arg("requirepass").arg("right")).await.unwrap();

    let with = |password: &str| Config {
        url: Secret::from(server.url().replace("redis://", &format!("redis://:{password}@"))),
        ..config(&server)
    };
    let wrong = Redis::open(&with("hunter2")).unwrap();
    let mut cause = wrong.0.circuit.cause();
    let is_reported = |cause: &Option<String>| cause.as_ref().is_some_and(|text| text.contains("uthentication"));
    let reported =
        timeout(TEST_TIMEOUT, cause.wait_for(is_reported)).await.expect("reported in time").unwrap().clone().unwrap();
    assert!(!reported.contains("hunter2"), "{reported}");

    let right = Redis::open(&with("right")).unwrap();
    ready(&right).await;
    right.ping().await.unwrap();
}

#[tokio::test]
async fn a_password_file_is_used_and_reloaded_when_it_changes() {
    let server = drystone_backends::Redis::start();
    let administrator = Redis::open(&config(&server)).unwrap();
    ready(&administrator).await;
    // Connections that are authenticated stay so.
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
    wait_until_unavailable(&redis).await;
    std::fs::write(file.path(), "other\n").unwrap();
    ready(&redis).await;
    redis.ping().await.unwrap();

    std::fs::remove_file(file.path()).unwrap();
    let error = Redis::open(&with_file).unwrap_err().to_string();
    assert!(error.starts_with("redis.password_file"), "{error}");
}

#[tokio::test]
async fn tls_requires_a_certificate_from_the_configured_root() {
    let directory = tempfile::tempdir().unwrap();
    let domain = "drystone.local".parse().unwrap();
    let authority = Authority::open_or_create(directory.path(), &domain, Clock::system()).unwrap();
    let files = authority.issue("redis").unwrap();
    let server = drystone_backends::Redis::start_with_tls(&files.certificate, &files.key);

    let trusted = Config { ca: authority.certificate(), timeout: ConfigDuration::seconds(5), ..config(&server) };
    let redis = Redis::open(&trusted).unwrap();
    ready(&redis).await;
    redis.ping().await.unwrap();

    let untrusted = Redis::open(&config(&server)).unwrap();
    let mut cause = untrusted.0.circuit.cause();
    let is_reported = |cause: &Option<String>| cause.as_ref().is_some_and(|text| text.contains("certificate"));
    timeout(TEST_TIMEOUT, cause.wait_for(is_reported)).await.expect("reported in time").unwrap();

    let missing = Config { ca: directory.path().join("missing.pem"), ..config(&server) };
    assert!(Redis::open(&missing).unwrap_err().to_string().starts_with("redis.ca"));
}

#[tokio::test]
async fn a_cluster_is_discovered_from_any_of_its_nodes() {
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
async fn reconnecting_stops_when_the_last_clone_is_dropped() {
    let mut server = drystone_backends::Redis::start();
    server.stop();
    let redis = Redis::open(&config(&server)).unwrap();
    let inner = Arc::downgrade(&redis.0);
    drop(redis);
    timeout(TEST_TIMEOUT, async {
        while inner.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the reconnecting task stops");
}
