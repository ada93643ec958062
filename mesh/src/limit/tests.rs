//! Rate limits counted in the process.

use std::{num::NonZeroU32, time::Duration};

use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

fn rate(burst: u32, interval: Duration) -> Rate {
    Rate { burst: NonZeroU32::new(burst).unwrap(), interval }
}

fn key(text: &str) -> Key {
    Key::text(text)
}

#[test]
fn the_interval_is_a_minute_divided_by_the_count() {
    let rate = Rate::per_minute(10).unwrap();
    assert_eq!((rate.burst.get(), rate.interval), (10, Duration::from_secs(6)));
    assert_eq!(Rate::per_minute(0), None);
    assert_eq!(Rate::per_minute(7).unwrap().interval, Duration::from_micros(8_571_429));
    assert_eq!(rate.halved(), super::tests::rate(5, Duration::from_secs(12)));
    assert_eq!(Rate::per_minute(1).unwrap().halved(), super::tests::rate(1, Duration::from_mins(2)));
}

proptest! {
    #[test]
    fn no_interval_has_more_attempts_than_guaranteed(
        burst in 1_u32..8,
        interval in 1_u64..50,
        gaps in prop::collection::vec(0_u64..60, 1..200),
    ) {
        let clock = FakeRelativeClock::default();
        let limiter = LocalLimiter::with_clock(rate(burst, Duration::from_millis(interval)), clock.clone());
        let (mut now, mut allowed) = (0, Vec::new());
        for gap in gaps {
            clock.advance(Duration::from_millis(gap));
            now += gap;
            if limiter.check_now(key("key")) == Decision::Allow {
                allowed.push(now);
            }
        }
        for (i, from) in allowed.iter().enumerate() {
            for (j, to) in allowed.iter().enumerate().skip(i) {
                prop_assert!((j - i + 1) as u64 <= u64::from(burst) + (to - from) / interval);
            }
        }
    }
}

#[test]
fn keys_with_a_full_burst_are_removed() {
    let clock = FakeRelativeClock::default();
    let limiter = LocalLimiter::with_clock(rate(10, Duration::from_secs(1)), clock.clone());
    for number in 0..1000_u32 {
        limiter.check_now(Key::client(std::net::Ipv4Addr::from_bits(number).into()));
    }
    assert_eq!(limiter.keys(), 1000);
    clock.advance(Duration::from_mins(1));
    limiter.check_now(key("another"));
    assert!(limiter.keys() <= 2, "{}", limiter.keys());
}

#[tokio::test]
async fn a_denied_attempt_is_rate_limited_and_counted() {
    let metrics = Metrics::default();
    let limit = LimiterFactory::in_process(&metrics).limit("sign_in_address", 2);
    limit.check(key("key")).await.unwrap();
    limit.check(key("key")).await.unwrap();
    let error = limit.check(key("key")).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RateLimited);
    assert_eq!(error.to_string(), "RATE_LIMITED: too many attempts; try again in 30 s");
    assert!(metrics.render().contains(r#"drystone_rate_limited_total{limit="sign_in_address"} 1"#));

    let unlimited = LimiterFactory::in_process(&Metrics::default()).limit("sign_in_address", 0);
    for _ in 0..1000 {
        unlimited.check(key("key")).await.unwrap();
    }
}
