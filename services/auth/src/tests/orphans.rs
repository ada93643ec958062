//! Orphans: credentials whose account was never created.

use std::{sync::Arc, time::Duration};

use drystone_mesh::error::Reason;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    fake::{Availability, CreationFailure},
    fixture::{EMAIL, Fixture, PASSWORD},
};
use crate::{credential::Credential, orphan_sweep::OrphanSweep};

/// Longer than the minimum age of an orphan.
const PENDING_AGE: Duration = Duration::from_mins(61);

fn sweep(fixture: &Fixture) -> OrphanSweep {
    OrphanSweep {
        upstreams: Arc::clone(&fixture.upstreams) as _,
        store: fixture.store.clone(),
        clock: fixture.clock.clone(),
        factor_metrics: crate::metrics::FactorMetrics::new(&drystone_mesh::telemetry::Metrics::default()),
    }
}

/// The users of all pending credentials.
async fn pending(fixture: &Fixture) -> Vec<Uuid> {
    fixture.store.pending_credentials(fixture.clock.now(), 1000).await.unwrap()
}

/// Registers with this failure; returns the user of the credential that remains.
async fn fail_registration(fixture: &Fixture, failure: CreationFailure, request_id: &str) -> Uuid {
    fixture.upstreams.state().next_creation_failure = Some(failure);
    fixture.register(EMAIL, PASSWORD, request_id).await.unwrap_err();
    pending(fixture).await[0]
}

#[tokio::test]
async fn a_credential_is_not_pending_once_its_account_exists() {
    let fixture = Fixture::with_account().await;
    assert!(pending(&fixture).await.is_empty());
}

#[tokio::test]
async fn an_orphan_is_removed_after_an_hour_and_not_before() {
    let fixture = Fixture::new().await;
    let id = Uuid::now_v7().to_string();
    let user_id = fail_registration(&fixture, CreationFailure::Unavailable, &id).await;

    fixture.clock.advance(Duration::from_mins(59));
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());

    fixture.clock.advance(Duration::from_mins(1));
    sweep(&fixture).sweep().await.unwrap();
    assert_eq!(fixture.store.credential(user_id).await.unwrap(), None);

    fixture.register(EMAIL, PASSWORD, &id).await.unwrap();
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn a_credential_whose_account_exists_is_kept_and_looked_up_once() {
    let fixture = Fixture::new().await;
    fail_registration(&fixture, CreationFailure::ResponseLost, "").await;
    fixture.clock.advance(PENDING_AGE);
    sweep(&fixture).sweep().await.unwrap();
    assert!(pending(&fixture).await.is_empty());

    fixture.upstreams.state().calls.clear();
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.upstreams.state().calls.is_empty());
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn the_first_sign_in_confirms_a_credential() {
    let fixture = Fixture::new().await;
    fail_registration(&fixture, CreationFailure::ResponseLost, "").await;
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
    assert!(pending(&fixture).await.is_empty());
}

#[tokio::test]
async fn a_resumed_registration_is_not_swept() {
    let fixture = Fixture::new().await;
    let id = Uuid::now_v7().to_string();
    let user_id = fail_registration(&fixture, CreationFailure::Unavailable, &id).await;
    fixture.clock.advance(PENDING_AGE);
    assert_eq!(fail_registration(&fixture, CreationFailure::Unavailable, &id).await, user_id);
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_confirmed_credential_is_kept_after_its_account_is_deleted() {
    let fixture = Fixture::with_account().await;
    let user_id = *fixture.upstreams.state().users.keys().next().unwrap();
    fixture.upstreams.state().users.clear();
    fixture.clock.advance(PENDING_AGE);
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_removed_while_the_user_service_is_unavailable() {
    let fixture = Fixture::new().await;
    let user_id = fail_registration(&fixture, CreationFailure::Unavailable, "").await;
    fixture.clock.advance(PENDING_AGE);
    fixture.upstreams.state().user_service = Availability::Down;
    assert_eq!(sweep(&fixture).sweep().await.unwrap_err().reason(), Reason::Unavailable);
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());
}

#[tokio::test]
async fn orphans_of_several_batches_are_all_removed() {
    let fixture = Fixture::new().await;
    let first = fixture
        .store
        .credential(fail_registration(&fixture, CreationFailure::Unavailable, "").await)
        .await
        .unwrap()
        .unwrap();
    for _ in 0..120 {
        let another = Credential { user_id: Uuid::now_v7(), ..first.clone() };
        fixture.store.insert_credential(&another).await.unwrap();
    }
    fixture.clock.advance(PENDING_AGE);
    sweep(&fixture).sweep().await.unwrap();
    assert!(pending(&fixture).await.is_empty());
}

#[tokio::test]
async fn the_background_task_sweeps_and_ends_when_stopped() {
    let fixture = Fixture::new().await;
    let user_id = fail_registration(&fixture, CreationFailure::Unavailable, "").await;
    fixture.clock.advance(PENDING_AGE);
    let stop = CancellationToken::new();
    let task = tokio::spawn(sweep(&fixture).run(Duration::ZERO, stop.clone()));
    let swept = tokio::time::timeout(Duration::from_secs(20), async {
        while fixture.store.credential(user_id).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.unwrap();
    });
    swept.await.unwrap();
}
