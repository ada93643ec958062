//! Rate limits counted in the process.

use std::{num::NonZeroU32, time::Duration};

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
        let limiter = LocalLimiter::new(rate(burst, Duration::from_millis(interval)));
        let (mut now, mut allowed) = (0, Vec::new());
        for gap in gaps {
            now += gap;
            if limiter.check_at(key("key"), now * 1_000_000) == Decision::Allow {
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
    const MINUTE: u64 = 60_000_000_000;
    let limiter = LocalLimiter::new(rate(10, Duration::from_secs(1)));
    let check = |from: u32, to: u32, now| {
        for number in from..to {
            limiter.check_at(Key::client(std::net::Ipv4Addr::from_bits(number).into()), now);
        }
    };
    check(0, 10_000, 0);
    assert_eq!(limiter.keys(), 10_000);
    // Each shard is swept at its next attempt.
    check(20_000, 20_200, MINUTE);
    assert_eq!(limiter.keys(), 200);
}

#[test]
fn a_refunded_attempt_is_not_counted() {
    let limiter = LocalLimiter::new(rate(2, Duration::from_nanos(100)));
    let allowed = |now| limiter.check_at(key("key"), now) == Decision::Allow;
    for now in [0, 1, 2] {
        assert!(allowed(now));
        limiter.refund_at(key("key"), now);
    }
    assert_eq!(limiter.keys(), 0);
    // Refunds of others' attempts do not add up to more than the burst.
    limiter.refund_at(key("key"), 3);
    assert!(allowed(4) && allowed(4) && !allowed(4));
    limiter.refund_at(key("key"), 5);
    assert!(allowed(5) && !allowed(5));
}

#[tokio::test]
async fn a_reservation_counts_until_it_is_refunded() {
    let limit = LimiterFactory::in_process(&Metrics::default()).limit("sign_in_account", 1);
    let reservation = limit.reserve(key("key")).await.unwrap();
    assert!(limit.reserve(key("key")).await.is_err());
    reservation.refund().await;
    drop(limit.reserve(key("key")).await.unwrap());
    assert!(limit.reserve(key("key")).await.is_err());
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

#[test]
fn a_simulated_day_of_attempts_leaves_only_live_keys() {
    const SECOND: u64 = 1_000_000_000;
    let limiter = LocalLimiter::new(rate(10, Duration::from_secs(6)));
    let mut most = 0;
    for second in 0..24 * 60 * 60_u32 {
        // A new address each second, beside one that comes again and again.
        for address in [second, u32::MAX] {
            limiter.check_at(Key::client(std::net::Ipv4Addr::from_bits(address).into()), u64::from(second) * SECOND);
        }
        most = most.max(limiter.keys());
    }
    // An address has its full burst again after 6 s, and a shard is swept every 10 s if it is used.
    assert!(most < 200, "{most}");
}
