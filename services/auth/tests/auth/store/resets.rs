//! Resets of second factors that wait.

use drystone_auth::factor::FactorReset;
use drystone_mesh::clock::Timestamp;

use super::*;

impl Fixture {
    fn reset(&self, user_id: Uuid, due_at: Timestamp) -> FactorReset {
        FactorReset { user_id, requested_by: Some(Uuid::now_v7()), due_at, created_at: self.clock.now() }
    }
}

pub(super) async fn a_reset_waits_once_and_is_carried_out_once_when_it_is_due(fixture: Fixture) {
    let (store, now, id) = (fixture.store.clone(), fixture.clock.now(), fixture.user().await.user_id);
    let due_at = now + Duration::from_hours(1);
    let first = fixture.reset(id, due_at);
    assert_eq!(store.request_reset(&first, &[]).await.unwrap(), None, "there is no second factor");
    assert_eq!(store.pending_reset(id).await.unwrap(), None);
    fixture.add_app(id).await;
    assert_eq!(store.request_reset(&first, &[]).await.unwrap(), Some(due_at));
    let later = FactorReset { requested_by: None, ..fixture.reset(id, due_at + Duration::from_hours(1)) };
    assert_eq!(store.request_reset(&later, &[]).await.unwrap(), Some(due_at), "the first one stays");
    assert_eq!(store.pending_reset(id).await.unwrap(), Some(first));

    let other = fixture.user().await.user_id;
    fixture.add_app(other).await;
    let of_other = FactorReset { requested_by: None, ..fixture.reset(other, now) };
    store.request_reset(&of_other, &[]).await.unwrap().unwrap();
    assert_eq!(store.pending_reset(other).await.unwrap(), Some(of_other));
    assert_eq!(store.due_resets(due_at - Duration::from_secs(1), 10).await.unwrap(), [other]);
    assert_eq!(store.due_resets(due_at, 10).await.unwrap(), [other, id], "the longest due first");
    assert_eq!(store.due_resets(due_at, 1).await.unwrap(), [other]);
    assert!(!store.carry_out_reset(id, &[], due_at - Duration::from_secs(1)).await.unwrap());
    assert!(store.has_factor(id).await.unwrap());

    let mut tries = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tries.spawn(async move { store.carry_out_reset(id, &[], due_at).await.unwrap() });
    }
    let carried_out = tries.join_all().await.into_iter().filter(|was_due| *was_due).count();
    assert_eq!(carried_out, 1);
    assert!(!store.has_factor(id).await.unwrap());
    assert_eq!(store.backup_codes_left(id).await.unwrap(), 0);
    assert_eq!(store.due_resets(due_at, 10).await.unwrap(), [other]);
    assert!(store.has_factor(other).await.unwrap());
}

pub(super) async fn a_reset_is_cancelled_or_ends_with_the_last_factor(fixture: Fixture) {
    let (store, now, id) = (fixture.store.clone(), fixture.clock.now(), fixture.user().await.user_id);
    let (first, second) = (fixture.add_app(id).await, fixture.add_app(id).await);
    let request = async || store.request_reset(&fixture.reset(id, now), &[]).await.unwrap().unwrap();
    request().await;
    assert!(store.cancel_reset(id, &[]).await.unwrap());
    assert!(!store.cancel_reset(id, &[]).await.unwrap());
    assert!(!store.carry_out_reset(id, &[], now).await.unwrap(), "it was cancelled");

    request().await;
    assert!(store.remove_factors(id, Some(first.factor.id), &[], &[]).await.unwrap());
    assert!(store.pending_reset(id).await.unwrap().is_some(), "it concerns the other one");
    assert!(store.remove_factors(id, Some(second.factor.id), &[], &[]).await.unwrap());
    fixture.add_app(id).await;
    assert_eq!(store.pending_reset(id).await.unwrap(), None, "it does not concern those that are added later");

    request().await;
    store.delete_credential(id).await.unwrap();
    assert_eq!(store.pending_reset(id).await.unwrap(), None, "the user was removed");
}
