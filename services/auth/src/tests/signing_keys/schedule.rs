//! When signing keys are replaced.

use chrono::TimeDelta;

use super::*;

#[tokio::test]
async fn keys_sign_for_as_long_as_the_configuration_says() {
    let fixture = Fixture::with_account().await;
    let mut config = fast_hashing();
    config.signing_keys.rotation_period = ConfigDuration::hours(1);
    let fixture = fixture.restart(config).await;
    fixture.clock.advance(Duration::from_hours(1));
    tick(&fixture).await;
    assert_eq!(published(&fixture).await.len(), 2);
    // However short the period, few keys are published at once.
    for _ in 0..200 {
        fixture.clock.advance(Duration::from_mins(2));
        tick(&fixture).await;
        assert!((1..=3).contains(&published(&fixture).await.len()));
    }
}

/// Verifiers outside the mesh may have cached the key set of the release before for an hour.
#[tokio::test]
async fn no_rotation_begins_by_schedule_within_an_hour_of_the_start() {
    let fixture = Fixture::with_account().await;
    fixture.clock.advance(PERIOD * 2);
    let fixture = fixture.restart(fast_hashing()).await;
    for _ in 0..2 {
        tick(&fixture).await;
        assert_eq!(published(&fixture).await.len(), 1);
        fixture.clock.advance(Duration::from_mins(30));
    }
    tick(&fixture).await;
    assert_eq!(published(&fixture).await.len(), 2);
}

#[tokio::test]
async fn a_pending_key_of_a_clock_that_was_fast_delays_no_rotation() {
    let fixture = Fixture::with_account().await;
    let first = signing_kid(&fixture).await;
    fixture.clock.set_by(TimeDelta::days(400));
    let begun = rotate(&fixture).await;
    fixture.clock.set_by(-TimeDelta::days(400));
    tick(&fixture).await;
    assert_eq!(signing_kid(&fixture).await, first);
    let again = rotate(&fixture).await;
    assert_eq!((again.kid, again.was_pending), (begun.kid.clone(), true));
    assert_eq!(again.sign_time, Some(to_proto(fixture.clock.now() + LEAD)));
    fixture.clock.advance(lead());
    assert_eq!(signing_kid(&fixture).await, begun.kid);
    // The next one on schedule.
    fixture.clock.advance(PERIOD);
    tick(&fixture).await;
    let states = [SigningKeyState::Published, SigningKeyState::Signing];
    assert!(listed(&fixture).await.iter().take(2).map(|(_, state)| *state).eq(states));
}
