//! Rotations of the counter of a session.

use chrono::TimeDelta;
use drystone_mesh::clock::Timestamp;
use drystone_session::{
    FIRST_COUNTER, LATE_REPLACEMENT, MAX_REPEATS, MAX_REPLACEMENTS, Revocation, Rotation, Scope, Session,
};
use uuid::Uuid;

use super::{LIFETIMES, Store, add, client, present, revocations, seconds, sessions, start};

fn session_of(rotation: Rotation) -> Session {
    match rotation {
        Rotation::Advanced(session) | Rotation::Repeated(session) | Rotation::Replaced(session) => session,
        other => panic!("no session is left after {other:?}"),
    }
}

pub(super) async fn the_current_counter_advances_the_session(store: Store) {
    let mut session = add(&store, Uuid::now_v7(), start()).await;
    for step in 1..5 {
        let now = start() + seconds(step * 3600);
        let rotation = present(&store, &session, session.counter, now).await;
        let expected = Session {
            counter: session.counter + 1,
            confirmed: session.counter,
            last_seen_at: now,
            idle_expires_at: now + LIFETIMES.idle_timeout,
            last_device: client().device,
            last_address: client().address,
            ..session
        };
        assert_eq!(rotation, Rotation::Advanced(expected.clone()));
        session = expected;
    }
    assert!(revocations(&store, 0, start()).await.is_empty());
}

pub(super) async fn a_rotation_extends_the_idle_expiry_up_to_the_absolute_one(store: Store) {
    let mut session = add(&store, Uuid::now_v7(), start()).await;
    for week in 1..13 {
        session = session_of(present(&store, &session, session.counter, start() + TimeDelta::weeks(week)).await);
    }
    assert_eq!(session.idle_expires_at, session.expires_at);
    assert_eq!(session.expires_at, start() + LIFETIMES.lifetime);
    assert_eq!(present(&store, &session, session.counter, session.expires_at).await, Rotation::Ended);
}

pub(super) async fn the_previous_counter_gets_the_same_successor_within_the_grace_period(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let next = session_of(present(&store, &session, FIRST_COUNTER, start()).await);
    for (repeats, later) in [(1, 0), (2, 5), (3, 10)] {
        let rotation = present(&store, &session, FIRST_COUNTER, start() + seconds(later)).await;
        let expected = Session { repeats, repeated_rotations: 1, ..next.clone() };
        assert_eq!(rotation, Rotation::Repeated(expected), "after {later} s");
    }
    let rotation = present(&store, &session, next.counter, start() + seconds(11)).await;
    assert!(matches!(rotation, Rotation::Advanced(_)), "{rotation:?}");
}

pub(super) async fn a_counter_is_repeated_a_limited_number_of_times(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let next = session_of(present(&store, &session, FIRST_COUNTER, start()).await);
    for _ in 0..MAX_REPEATS {
        let rotation = present(&store, &session, FIRST_COUNTER, start()).await;
        assert!(matches!(rotation, Rotation::Repeated(_)), "{rotation:?}");
    }
    let rotation = present(&store, &session, FIRST_COUNTER, start()).await;
    assert!(matches!(rotation, Rotation::RepeatedTooOften(_)), "{rotation:?}");
    let rotation = present(&store, &session, next.counter, start()).await;
    assert!(matches!(rotation, Rotation::Advanced(_)), "the session continues: {rotation:?}");
}

/// A lost response never ends a session, however long the outage.
pub(super) async fn a_used_counter_gets_a_new_successor_while_the_last_one_is_unused(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let mut latest = session_of(present(&store, &session, FIRST_COUNTER, start()).await);
    let mut now = start();
    for replacements in 1..=MAX_REPLACEMENTS {
        now += TimeDelta::hours(1);
        let rotation = present(&store, &session, FIRST_COUNTER, now).await;
        let Rotation::Replaced(next) = rotation else { panic!("{rotation:?}") };
        assert_eq!((next.counter, next.confirmed), (latest.counter + 1, FIRST_COUNTER));
        assert_eq!((next.replacements, next.last_seen_at), (replacements, now));
        latest = next;
    }
    // Within the grace period of the last one.
    let rotation = present(&store, &session, FIRST_COUNTER, now + seconds(10)).await;
    assert!(matches!(&rotation, Rotation::Repeated(repeated) if repeated.counter == latest.counter), "{rotation:?}");
    // Using the last one confirms it.
    let rotation = present(&store, &session, latest.counter, now).await;
    let Rotation::Advanced(next) = rotation else { panic!("{rotation:?}") };
    assert_eq!((next.confirmed, next.replacements), (latest.counter, 0));
}

pub(super) async fn new_successors_are_issued_less_often_after_some(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let mut latest = session_of(present(&store, &session, FIRST_COUNTER, start()).await);
    let mut now = start();
    for _ in 0..MAX_REPLACEMENTS {
        now += seconds(11);
        latest = session_of(present(&store, &session, FIRST_COUNTER, now).await);
    }
    let rotation = present(&store, &session, FIRST_COUNTER, now + seconds(11)).await;
    assert!(matches!(&rotation, Rotation::RepeatedTooOften(session) if *session == latest), "{rotation:?}");
    let rotation = present(&store, &session, FIRST_COUNTER, now + LATE_REPLACEMENT).await;
    assert!(matches!(rotation, Rotation::Replaced(_)), "nobody is signed out for good: {rotation:?}");
}

/// A thief who uses the owner's last token before or after the owner: the next token of one of the two ends the session.
pub(super) async fn a_superseded_counter_ends_the_session(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    // The owner's token.
    let own = session_of(present(&store, &session, FIRST_COUNTER, start()).await);
    // The thief presents the copy of the former one, later.
    let now = start() + seconds(11);
    let stolen = session_of(present(&store, &session, FIRST_COUNTER, now).await);
    assert_eq!(stolen.counter, own.counter + 1);
    ends_by_reuse(&store, &stolen, own.counter, now).await;
}

pub(super) async fn repeats_on_consecutive_rotations_are_counted(store: Store) {
    let mut session = add(&store, Uuid::now_v7(), start()).await;
    for (rotation, repeats) in [2, 1, 3, 0, 1].into_iter().enumerate() {
        let token = session.counter;
        session = session_of(present(&store, &session, token, start()).await);
        for _ in 0..repeats {
            session = session_of(present(&store, &session, token, start()).await);
        }
        let expected = [1, 2, 3, 3, 1][rotation];
        assert_eq!(session.repeated_rotations, expected, "rotation {rotation}");
        assert_eq!(session.is_suspicious(), expected >= 2);
    }
}

pub(super) async fn an_older_counter_ends_the_session_at_once(store: Store) {
    let mut session = add(&store, Uuid::now_v7(), start()).await;
    for _ in 0..2 {
        session = session_of(present(&store, &session, session.counter, start()).await);
    }
    ends_by_reuse(&store, &session, FIRST_COUNTER, start()).await;
}

async fn ends_by_reuse(store: &Store, session: &Session, counter: u64, now: Timestamp) {
    let rotation = present(store, session, counter, now).await;
    let Rotation::Reused { session: ended, revocation } = rotation else { panic!("{rotation:?}") };
    assert_eq!(ended, *session);
    let expected = Revocation {
        seq: revocation,
        scope: Scope::Session(session.id),
        forget_at: now + LIFETIMES.token_lifetime_max,
    };
    assert_eq!(revocations(store, 0, now).await, [expected]);

    for counter in [counter, session.counter] {
        assert_eq!(present(store, session, counter, now).await, Rotation::Ended);
    }
    assert!(sessions(store, session.user_id, now).await.is_empty());
    assert_eq!(revocations(store, 0, now).await.len(), 1);
}

pub(super) async fn a_counter_that_was_never_issued_changes_nothing(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    for counter in [FIRST_COUNTER + 1, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX, 0] {
        assert_eq!(present(&store, &session, counter, start()).await, Rotation::NeverIssued, "{counter}");
    }
    assert_eq!(sessions(&store, session.user_id, start()).await, [session]);
}

pub(super) async fn an_expired_or_unknown_session_has_ended(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let just_before = session.idle_expires_at - TimeDelta::microseconds(1);
    for counter in [0, FIRST_COUNTER, FIRST_COUNTER + 1] {
        assert_eq!(present(&store, &session, counter, session.idle_expires_at).await, Rotation::Ended, "{counter}");
    }
    assert!(matches!(present(&store, &session, FIRST_COUNTER, just_before).await, Rotation::Advanced(_)));
    assert_eq!(
        store.rotate(Uuid::now_v7(), FIRST_COUNTER, &client(), &LIFETIMES, start()).await.unwrap(),
        Rotation::Ended
    );
}

pub(super) async fn concurrent_rotations_of_one_session_have_one_successor(store: Store) {
    let session = add(&store, Uuid::now_v7(), start()).await;
    let tasks: Vec<_> = (0..=MAX_REPEATS)
        .map(|_| {
            let (store, session) = (store.clone(), session.clone());
            tokio::spawn(async move { present(&store, &session, FIRST_COUNTER, start()).await })
        })
        .collect();
    let mut advanced = 0;
    for task in tasks {
        let rotation = task.await.unwrap();
        advanced += u32::from(matches!(rotation, Rotation::Advanced(_)));
        assert_eq!(session_of(rotation).counter, FIRST_COUNTER + 1);
    }
    assert_eq!(advanced, 1);
    assert_eq!(sessions(&store, session.user_id, start()).await[0].counter, FIRST_COUNTER + 1);
}

pub(super) async fn concurrent_reuse_of_a_counter_revokes_once(store: Store) {
    let mut session = add(&store, Uuid::now_v7(), start()).await;
    for _ in 0..2 {
        session = session_of(present(&store, &session, session.counter, start()).await);
    }
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let (store, session) = (store.clone(), session.clone());
            tokio::spawn(async move { present(&store, &session, FIRST_COUNTER, start()).await })
        })
        .collect();
    let mut reused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Rotation::Reused { .. } => reused += 1,
            other => assert_eq!(other, Rotation::Ended),
        }
    }
    assert_eq!(reused, 1);
    assert_eq!(revocations(&store, 0, start()).await.len(), 1);
}
