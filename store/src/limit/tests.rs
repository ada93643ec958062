//! The contract of rate limiters, in the process and in Redis; and the fallback while Redis is unavailable.

use std::num::NonZeroU32;

use drystone_backends::RedisCluster;
use drystone_mesh::{
    config::ConfigDuration,
    limit::{LimiterFactory, LocalLimiter},
    telemetry::Metrics,
};

use super::*;
use crate::redis::Config;

fn rate(burst: u32, interval: Duration) -> Rate {
    Rate { burst: NonZeroU32::new(burst).unwrap(), interval }
}

fn key(text: &str) -> Key {
    Key::text(text)
}

/// Two limiters with a shared count, as in two instances of a service.
type LimiterPair<L> = [Arc<L>; 2];

async fn in_process(rate: Rate) -> LimiterPair<LocalLimiter> {
    // All callers in a process share one limiter.
    let limiter = Arc::new(LocalLimiter::new(rate));
    [limiter.clone(), limiter]
}

async fn in_redis(rate: Rate) -> LimiterPair<RedisLimiter> {
    let server = drystone_backends::Redis::shared();
    let config = Config { url: server.url().to_owned().into(), prefix: server.prefix(), ..with_long_timeout() };
    [instance(&config, rate).await, instance(&config, rate).await]
}

async fn in_redis_cluster(rate: Rate) -> LimiterPair<RedisLimiter> {
    let server = RedisCluster::shared();
    let config = Config { url: server.url().into(), cluster: true, prefix: server.prefix(), ..with_long_timeout() };
    [instance(&config, rate).await, instance(&config, rate).await]
}

async fn instance(config: &Config, rate: Rate) -> Arc<RedisLimiter> {
    let redis = Redis::open(config).unwrap();
    redis.ready().await;
    Arc::new(RedisLimiter::new(redis, "test", rate))
}

/// With a timeout that suits a test machine under load.
fn with_long_timeout() -> Config {
    Config { timeout: ConfigDuration::seconds(5), ..Config::default() }
}

macro_rules! suite {
    ($backend:ident) => {
        mod $backend {
            #[tokio::test]
            async fn a_burst_passes_and_then_the_wait_is_reported() {
                super::a_burst_passes_and_then_the_wait_is_reported(super::$backend).await;
            }

            #[tokio::test]
            async fn each_key_has_its_own_count() {
                super::each_key_has_its_own_count(super::$backend).await;
            }

            #[tokio::test]
            async fn a_refunded_attempt_is_not_counted() {
                super::a_refunded_attempt_is_not_counted(super::$backend).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn concurrent_callers_do_not_exceed_the_rate() {
                super::concurrent_callers_do_not_exceed_the_rate(super::$backend).await;
            }
        }
    };
}

suite!(in_process);
suite!(in_redis);
suite!(in_redis_cluster);

async fn a_burst_passes_and_then_the_wait_is_reported<L: RateLimiter>(open: impl AsyncFnOnce(Rate) -> LimiterPair<L>) {
    let interval = Duration::from_secs(2);
    let [limiter, other] = open(rate(3, interval)).await;
    let start = Instant::now();
    for _ in 0..3 {
        assert_eq!(limiter.check(key("key")).await.unwrap(), Decision::Allow);
    }
    let refused_at = Instant::now();
    let Decision::RetryAfter(wait) = other.check(key("key")).await.unwrap() else { panic!("the fourth passes") };
    assert!(wait <= interval && wait + start.elapsed() >= interval, "{wait:?}");

    // Refused attempts do not count, so the reported wait holds.
    let expected = refused_at + wait;
    loop {
        match limiter.check(key("key")).await.unwrap() {
            Decision::Allow => break,
            Decision::RetryAfter(wait) => tokio::time::sleep(wait.min(Duration::from_millis(50))).await,
        }
    }
    assert!(Instant::now() >= expected.checked_sub(Duration::from_millis(5)).unwrap());
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(matches!(limiter.check(key("key")).await.unwrap(), Decision::RetryAfter(_)), "one passes per interval");
}

async fn each_key_has_its_own_count<L: RateLimiter>(open: impl AsyncFnOnce(Rate) -> LimiterPair<L>) {
    let [limiter, other] = open(rate(1, Duration::from_mins(10))).await;
    let clients = ["192.0.2.7", "192.0.2.8", "2001:db8:1:2::1", "2001:db8:1:3::1"].map(|text| text.parse().unwrap());
    let texts = ["a", "b", "a b", "{a}", "", "ключ", "192.0.2.7"].map(key);
    for key in clients.into_iter().map(Key::client).chain(texts) {
        assert_eq!(limiter.check(key).await.unwrap(), Decision::Allow, "{key}");
        assert!(matches!(other.check(key).await.unwrap(), Decision::RetryAfter(_)), "{key}");
    }
}

async fn a_refunded_attempt_is_not_counted<L: RateLimiter>(open: impl AsyncFnOnce(Rate) -> LimiterPair<L>) {
    let [limiter, other] = open(rate(2, Duration::from_mins(10))).await;
    limiter.refund(key("key")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(limiter.check(key("key")).await.unwrap(), Decision::Allow);
        other.refund(key("key")).await.unwrap();
    }
    for _ in 0..2 {
        assert_eq!(other.check(key("key")).await.unwrap(), Decision::Allow);
    }
    assert!(matches!(limiter.check(key("key")).await.unwrap(), Decision::RetryAfter(_)));
    limiter.refund(key("key")).await.unwrap();
    assert_eq!(limiter.check(key("key")).await.unwrap(), Decision::Allow);
    assert!(matches!(limiter.check(key("key")).await.unwrap(), Decision::RetryAfter(_)));
}

/// In any period `T`, at most `burst + T / interval` attempts pass. Here `T` is from before the first attempt to after
/// the last result.
async fn concurrent_callers_do_not_exceed_the_rate<L: RateLimiter + 'static>(
    open: impl AsyncFnOnce(Rate) -> LimiterPair<L>,
) {
    let allowed = rate(20, Duration::from_millis(50));
    let pair = open(allowed).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let limiter = pair[task % 2].clone();
            tokio::spawn(async move {
                let mut passed = 0;
                while start.elapsed() < Duration::from_secs(1) {
                    passed += u32::from(limiter.check(key("key")).await.unwrap() == Decision::Allow);
                    tokio::task::yield_now().await;
                }
                passed
            })
        })
        .collect();
    let mut passed = 0;
    for task in tasks {
        passed += task.await.unwrap();
    }
    let max = f64::from(allowed.burst.get()) + start.elapsed().as_secs_f64() / allowed.interval.as_secs_f64();
    assert!(f64::from(passed) <= max, "{passed} passed, {max} are allowed");
    // At least the burst and most of the later attempts: a caller that retries is not locked out.
    assert!(passed >= 30, "{passed} passed");
}

#[tokio::test]
async fn a_stricter_local_limit_applies_while_redis_is_unavailable() {
    let mut server = drystone_backends::Redis::start();
    let redis = Redis::open(&Config { url: server.url().to_owned().into(), ..with_long_timeout() }).unwrap();
    redis.ready().await;
    let metrics = Metrics::default();
    let limit =
        LimiterFactory::in_process(&metrics).with_store(Arc::new(RedisLimits::new(redis.clone()))).limit("test", 10);
    let passed = async |text: &str| {
        let mut passed = 0;
        for _ in 0..20 {
            passed += u32::from(limit.check(key(text)).await.is_ok());
        }
        passed
    };
    assert_eq!(passed("before").await, 10);
    for _ in 0..9 {
        limit.check(key("almost")).await.unwrap();
    }
    server.stop();
    assert_eq!(passed("during").await, 5);
    assert_eq!(passed("almost").await, 5, "each process starts a new count with half the limit");
    assert!(
        metrics.render().contains(r#"drystone_rate_limit_fallbacks_total{limit="test"} 40"#),
        "{}",
        metrics.render()
    );

    server.start_empty();
    redis.ready().await;
    assert_eq!(passed("after").await, 10);
}

#[tokio::test]
async fn refused_attempts_with_one_key_are_not_sent_to_redis() {
    let server = drystone_backends::Redis::start();
    let redis = Redis::open(&Config { url: server.url().to_owned().into(), ..with_long_timeout() }).unwrap();
    redis.ready().await;
    let (interval, start) = (Duration::from_millis(100), Instant::now());
    let limiter = RedisLimiter::new(redis.clone(), "test", rate(5, interval));
    let (mut passed, mut refused) = (0, 0);
    while start.elapsed() < Duration::from_millis(550) {
        match limiter.check(key("key")).await.unwrap() {
            Decision::Allow => passed += 1,
            Decision::RetryAfter(_) => refused += 1,
        }
    }
    assert!(refused > 1000, "{refused} were refused");
    // One command per passed attempt, and one refusal after it.
    let sent = count_scripts(&redis).await;
    assert!(sent <= 2 * passed + 1, "{passed} passed, {refused} were refused, {sent} scripts were sent");
    // Another key is not affected, and the refused key passes after its wait.
    assert_eq!(limiter.check(key("another")).await.unwrap(), Decision::Allow);
    while let Decision::RetryAfter(wait) = limiter.check(key("key")).await.unwrap() {
        tokio::time::sleep(wait).await;
    }
}

/// How many scripts this Redis has run.
async fn count_scripts(redis: &Redis) -> u64 {
    let info: String = redis.query(crate::redis::cmd("INFO").arg("commandstats")).await.unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap();
    line.split(',').next().unwrap().parse().unwrap()
}
