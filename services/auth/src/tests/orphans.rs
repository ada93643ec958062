//! What becomes of credentials whose account never came to be.

use std::{sync::Arc, time::Duration};

use drystone_mesh::error::Reason;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    fake::{Condition, Mishap},
    fixture::{EMAIL, Fixture, PASSWORD},
};
use crate::{credential::Credential, orphan_sweep::OrphanSweep};

const LONG: Duration = Duration::from_mins(61);

fn sweep(fixture: &Fixture) -> OrphanSweep {
    OrphanSweep {
        upstreams: Arc::clone(&fixture.upstreams) as _,
        store: fixture.store.clone(),
        clock: fixture.clock.clone(),
    }
}

/// The users of all credentials that are pending.
async fn pending(fixture: &Fixture) -> Vec<Uuid> {
    fixture.store.pending_credentials(fixture.clock.now(), 1000).await.unwrap()
}

/// A registration that goes wrong in this way; the user of its credential.
async fn broken_off(fixture: &Fixture, mishap: Mishap, request_id: &str) -> Uuid {
    fixture.upstreams.world().next_creation = Some(mishap);
    fixture.register(EMAIL, PASSWORD, request_id).await.unwrap_err();
    pending(fixture).await[0]
}

#[tokio::test]
async fn a_credential_is_not_pending_once_its_account_is_there() {
    let fixture = Fixture::with_account().await;
    assert!(pending(&fixture).await.is_empty());
}

#[tokio::test]
async fn an_orphan_is_removed_after_an_hour_and_not_before() {
    let fixture = Fixture::new().await;
    let id = Uuid::now_v7().to_string();
    let user_id = broken_off(&fixture, Mishap::Away, &id).await;

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
async fn a_credential_whose_account_is_there_stays_and_is_asked_for_once() {
    let fixture = Fixture::new().await;
    broken_off(&fixture, Mishap::AnswerLost, "").await;
    fixture.clock.advance(LONG);
    sweep(&fixture).sweep().await.unwrap();
    assert!(pending(&fixture).await.is_empty());

    fixture.upstreams.world().calls.clear();
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.upstreams.world().calls.is_empty());
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
}

#[tokio::test]
async fn the_first_sign_in_confirms_a_credential() {
    let fixture = Fixture::new().await;
    broken_off(&fixture, Mishap::AnswerLost, "").await;
    fixture.sign_in(EMAIL, PASSWORD).await.unwrap();
    assert!(pending(&fixture).await.is_empty());
}

#[tokio::test]
async fn a_registration_that_goes_on_is_not_swept_under_its_feet() {
    let fixture = Fixture::new().await;
    let id = Uuid::now_v7().to_string();
    let user_id = broken_off(&fixture, Mishap::Away, &id).await;
    fixture.clock.advance(LONG);
    assert_eq!(broken_off(&fixture, Mishap::Away, &id).await, user_id);
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_credential_that_is_confirmed_outlives_whatever_becomes_of_the_account() {
    let fixture = Fixture::with_account().await;
    let user_id = *fixture.upstreams.world().users.keys().next().unwrap();
    fixture.upstreams.world().users.clear();
    fixture.clock.advance(LONG);
    sweep(&fixture).sweep().await.unwrap();
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_removed_while_the_user_service_is_away() {
    let fixture = Fixture::new().await;
    let user_id = broken_off(&fixture, Mishap::Away, "").await;
    fixture.clock.advance(LONG);
    fixture.upstreams.world().user_service = Condition::Down;
    assert_eq!(sweep(&fixture).sweep().await.unwrap_err().reason(), Reason::Unavailable);
    assert!(fixture.store.credential(user_id).await.unwrap().is_some());
}

#[tokio::test]
async fn more_orphans_than_are_read_at_once_are_all_removed() {
    let fixture = Fixture::new().await;
    let first = fixture.store.credential(broken_off(&fixture, Mishap::Away, "").await).await.unwrap().unwrap();
    for _ in 0..120 {
        let another = Credential { user_id: Uuid::now_v7(), ..first.clone() };
        fixture.store.insert_credential(&another).await.unwrap();
    }
    fixture.clock.advance(LONG);
    sweep(&fixture).sweep().await.unwrap();
    assert!(pending(&fixture).await.is_empty());
}

#[tokio::test]
async fn the_background_work_sweeps_and_ends_when_told() {
    let fixture = Fixture::new().await;
    let user_id = broken_off(&fixture, Mishap::Away, "").await;
    fixture.clock.advance(LONG);
    let stop = CancellationToken::new();
    let work = tokio::spawn(sweep(&fixture).run(Duration::ZERO, stop.clone()));
    let swept = tokio::time::timeout(Duration::from_secs(20), async {
        while fixture.store.credential(user_id).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        work.await.unwrap();
    });
    swept.await.unwrap();
}
