//! Rotation, retirement and withdrawal of signing keys.

use chrono::TimeDelta;
use drystone_auth::store::{FormerKey, NewSigningKey, Successor, Withdrawal};
use drystone_mesh::{clock::Timestamp, id};
use drystone_store::outbox::Message;
use tokio::task::JoinSet;

use super::{Fixture, sealed};

fn new_key(kid: &str, signs_from: Timestamp) -> NewSigningKey {
    let (kid, algorithm) = (kid.to_owned(), "EdDSA".to_owned());
    NewSigningKey { kid, algorithm, private_key: sealed(b"key"), signs_from }
}

fn former(kid: &str, now: Timestamp, withdrawn_at: Option<Timestamp>) -> FormerKey {
    FormerKey { kid: kid.to_owned(), algorithm: "ES256".to_owned(), replaced_at: now, ended_at: now, withdrawn_at }
}

fn message(now: Timestamp) -> Message {
    let (kind, key) = ("follow_up".to_owned(), "key".to_owned());
    Message { id: id::v7_at(now), kind, key, payload: b"{}".to_vec(), created_at: now }
}

/// The keys in use, and from when on each signs.
async fn in_use(fixture: &Fixture) -> Vec<(String, Timestamp)> {
    let keys = fixture.store.keys().await.unwrap().signing;
    keys.into_iter().map(|row| (row.kid, row.signs_from)).collect()
}

pub(super) async fn of_concurrent_rotations_one_inserts_its_key(fixture: Fixture) {
    let (store, now) = (fixture.store.clone(), fixture.clock.now());
    store.insert_first_signing_key("first", "ES256", &sealed(b"first"), now).await.unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let (store, new) = (store.clone(), new_key(&number.to_string(), now + TimeDelta::minutes(2)));
        tasks.spawn(async move { store.begin_key_rotation(&new, "first", now).await.unwrap() });
    }
    let mut begun = 0;
    while let Some(has_begun) = tasks.join_next().await {
        begun += u32::from(has_begun.unwrap());
    }
    let keys = in_use(&fixture).await;
    assert_eq!((begun, keys.len()), (1, 2));
    assert_eq!(keys[0].1, now + TimeDelta::minutes(2));
    // The next one replaces that one.
    assert!(!store.begin_key_rotation(&new_key("x", now + TimeDelta::hours(1)), "first", now).await.unwrap());
    assert!(store.begin_key_rotation(&new_key("x", now + TimeDelta::hours(1)), &keys[0].0, now).await.unwrap());
}

pub(super) async fn a_retired_key_leaves_no_private_key_and_is_forgotten_after_a_year(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_first_signing_key("first", "ES256", &sealed(b"first"), now).await.unwrap();
    assert!(store.begin_key_rotation(&new_key("second", now), "first", now).await.unwrap());
    let first = former("first", now, None);
    assert_eq!(store.retire_keys(std::slice::from_ref(&first), now).await.unwrap(), ["first"]);
    let again = store.retire_keys(&[former("first", now + TimeDelta::days(1), None)], now).await.unwrap();
    assert!(again.is_empty());
    assert_eq!(in_use(&fixture).await, [("second".to_owned(), now)]);
    assert_eq!(store.former_keys().await.unwrap(), [first]);
    store.retire_keys(&[], now + TimeDelta::days(365)).await.unwrap();
    assert_eq!(store.former_keys().await.unwrap().len(), 1);
    store.retire_keys(&[], now + TimeDelta::days(366)).await.unwrap();
    assert_eq!(store.former_keys().await.unwrap(), []);
}

/// Whatever an instance with an outdated view of the keys plans, or one whose clock is fast.
pub(super) async fn a_key_is_retired_only_where_a_stored_key_has_replaced_it(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_first_signing_key("first", "ES256", &sealed(b"first"), now).await.unwrap();
    let later = now + TimeDelta::minutes(5);
    assert!(store.retire_keys(&[former("first", later, None)], later).await.unwrap().is_empty(), "it is the only one");
    assert!(store.begin_key_rotation(&new_key("second", later), "first", now).await.unwrap());
    assert!(store.retire_keys(&[former("first", now, None)], later).await.unwrap().is_empty(), "it signs until later");
    let both = [former("first", later, None), former("second", later, None)];
    assert_eq!(store.retire_keys(&both, later).await.unwrap(), ["first"]);
    assert_eq!(in_use(&fixture).await, [("second".to_owned(), later)]);
    assert_eq!(store.former_keys().await.unwrap(), both[..1]);
}

pub(super) async fn of_concurrent_changes_of_when_a_key_signs_one_is_made(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_first_signing_key("first", "ES256", &sealed(b"first"), now).await.unwrap();
    let (far, soon) = (now + TimeDelta::days(400), now + TimeDelta::minutes(5));
    assert!(store.begin_key_rotation(&new_key("second", far), "first", far).await.unwrap());
    assert!(store.reschedule_key("second", far, soon, now).await.unwrap());
    assert!(!store.reschedule_key("second", far, soon, now).await.unwrap());
    assert_eq!(in_use(&fixture).await[1], ("second".to_owned(), soon));
    assert_eq!(store.keys().await.unwrap().signing[1].created_at, now, "not in the future either");
}

/// A restored database may have the key again, beside the record of its end.
pub(super) async fn a_key_that_was_retired_before_is_recorded_as_withdrawn(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_first_signing_key("first", "ES256", &sealed(b"first"), now).await.unwrap();
    assert!(store.begin_key_rotation(&new_key("second", now), "first", now).await.unwrap());
    store.retire_keys(&[former("first", now, None)], now).await.unwrap();
    assert!(store.begin_key_rotation(&new_key("first", now), "second", now).await.unwrap());
    let (key, message) = (former("first", now, Some(now)), message(now));
    let (planned_with, successor) = (["first".to_owned(), "second".to_owned()], Successor::Unchanged);
    let withdrawal = Withdrawal { key: &key, planned_with: &planned_with, successor: &successor, message: &message };
    assert!(store.withdraw_key(&withdrawal).await.unwrap());
    assert_eq!(store.former_keys().await.unwrap(), [key]);
    assert_eq!(in_use(&fixture).await.len(), 1);
}

pub(super) async fn a_withdrawal_is_stored_as_it_was_planned_or_not_at_all(fixture: Fixture) {
    let (store, now) = (&fixture.store, fixture.clock.now());
    store.insert_first_signing_key("first", "ES256", &sealed(b"first"), now).await.unwrap();
    let (pending, later) = (new_key("second", now + TimeDelta::minutes(2)), now + TimeDelta::minutes(1));
    assert!(store.begin_key_rotation(&pending, "first", now).await.unwrap());
    let before = in_use(&fixture).await;

    let (key, message) = (former("first", later, Some(later)), message(now));
    let both = ["first".to_owned(), "second".to_owned()];
    let successor = Successor::Published("second".to_owned(), now);
    let planned = |planned_with| Withdrawal { key: &key, planned_with, successor: &successor, message: &message };
    assert!(!store.withdraw_key(&planned(&both[..1])).await.unwrap(), "another key was inserted meanwhile");
    assert_eq!((in_use(&fixture).await, store.former_keys().await.unwrap()), (before, vec![]));
    assert!(store.withdraw_key(&planned(&both)).await.unwrap());
    assert_eq!(in_use(&fixture).await, [("second".to_owned(), now)]);
    assert_eq!(store.former_keys().await.unwrap(), std::slice::from_ref(&key));

    // Again, and one that was never there.
    assert!(store.withdraw_former_key("first", later + TimeDelta::days(1), &message).await.unwrap());
    assert!(!store.withdraw_former_key("third", later, &message).await.unwrap());
    assert_eq!(store.former_keys().await.unwrap(), std::slice::from_ref(&key));

    // A key that signs and has no successor.
    let (second, new) = (former("second", later, Some(later)), Successor::New(new_key("third", now)));
    let planned_with = &both[1..];
    let withdrawal = Withdrawal { key: &second, planned_with, successor: &new, message: &message };
    assert!(store.withdraw_key(&withdrawal).await.unwrap());
    assert_eq!(in_use(&fixture).await, [("third".to_owned(), now)]);
    assert_eq!(store.keys().await.unwrap().signing[0].created_at, later);
}
