//! Watching revocations, and how revoking calls wait for acknowledgements.

use tonic_types::StatusExt;

use super::*;

/// Adds a revocation that is not announced.
const REVOKE: &str = "INSERT INTO revocation (session_id, forget_at) VALUES ($1, $2)";

#[tokio::test]
async fn a_revoking_call_returns_when_every_watcher_has_acknowledged() {
    let directory = directory();
    let service =
        Arc::new(TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::seconds(60))).await);
    let session = service.sign_in(Uuid::now_v7()).await;
    let (mut one, mut other) = (service.watch(0).await, service.watch(0).await);

    let revoking = tokio::spawn({
        let (service, session) = (service.clone(), session.clone());
        async move { service.revoke(&session, &session.id).await }
    });
    let cursor = one.next_revocations().await.cursor;
    one.acknowledge(cursor).await;
    assert_eq!(other.next_revocations().await.cursor, cursor);
    assert!(!revoking.is_finished(), "one watcher has not acknowledged");
    other.acknowledge(cursor).await;
    timeout(TEST_TIMEOUT, revoking).await.expect("all watchers have acknowledged").unwrap().unwrap();

    drop((one, other));
    Arc::into_inner(service).unwrap().stop().await;
}

#[tokio::test]
async fn an_unresponsive_watcher_delays_one_call_and_is_asked_to_reconnect() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(200))).await;
    let session = service.sign_in(Uuid::now_v7()).await;
    let mut unresponsive = service.watch(0).await;
    let begin = Instant::now();
    service.revoke(&session, &session.id).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200));

    let cursor = unresponsive.next_revocations().await.cursor;
    assert_rejected(unresponsive.next().await, Reason::Unavailable);
    assert!(service.metrics.render().contains("drystone_revocation_watchers 0"));
    assert!(service.metrics.render().contains("drystone_revocation_watchers_evicted_total 1"));

    let mut reconnected = service.watch(0).await;
    assert_eq!(reconnected.next_revocations().await.cursor, cursor, "it had acknowledged nothing, and misses nothing");
    drop((unresponsive, reconnected));
    service.stop().await;
}

#[tokio::test]
async fn a_reconnected_watcher_continues_from_its_cursor() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(service.sign_in(Uuid::now_v7()).await);
    }
    let ids: Vec<&str> = sessions.iter().map(|session| session.id.as_str()).collect();

    service.revoke(&sessions[0], ids[0]).await.unwrap();
    let mut watcher = service.watch(0).await;
    let first = watcher.next_revocations().await;
    assert_eq!(session_ids(&first.revocations), ids[..1]);
    drop(watcher);
    for session in &sessions[1..3] {
        service.revoke(session, &session.id).await.unwrap();
    }
    let mut watcher = service.watch(first.cursor).await;
    let second = watcher.next_revocations().await;
    assert_eq!(session_ids(&second.revocations), ids[1..3], "the revocations it missed, and none twice");
    watcher.acknowledge(second.cursor).await;
    service.revoke(&sessions[3], ids[3]).await.unwrap();
    assert_eq!(session_ids(&watcher.next_revocations().await.revocations), ids[3..]);

    let mut new_watcher = service.watch(0).await;
    assert_eq!(
        session_ids(&new_watcher.next_revocations().await.revocations),
        ids,
        "a new watcher gets a snapshot of all unexpired revocations"
    );
    service.clock.advance(Duration::from_hours(3));
    let mut late_watcher = service.watch(0).await;
    assert!(late_watcher.next().await.unwrap().unwrap().revocations.is_empty(), "all revoked tokens have expired");
    drop((watcher, new_watcher, late_watcher));
    service.stop().await;
}

#[tokio::test]
async fn a_long_history_is_sent_in_batches_without_gaps() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::hours(1), ..Config::default() };
    let service = TestService::start_with(directory.path(), config).await;
    let mut insert = service.db.begin().await.unwrap();
    for _ in 0..2500 {
        run!(insert.connection(), |connection| {
            sqlx::query(REVOKE).bind(Uuid::now_v7()).bind(i64::MAX / 2).execute(connection).await.unwrap();
        });
    }
    insert.commit().await.unwrap();
    let mut watcher = service.watch(0).await;
    let mut cursors = Vec::new();
    let mut found = 0;
    while found < 2500 {
        let response = watcher.next_revocations().await;
        found += response.revocations.len();
        cursors.push(response.cursor);
    }
    assert_eq!((found, cursors), (2500, vec![1000, 2000, 2500]));
    drop(watcher);
    service.stop().await;
}

/// Until then the watcher takes its revocations for incomplete.
#[tokio::test]
async fn a_full_batch_is_followed_by_a_heartbeat_at_once_if_nothing_is_pending() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::hours(1), ..Config::default() };
    let service = TestService::start_with(directory.path(), config).await;
    let mut insert = service.db.begin().await.unwrap();
    for _ in 0..1000 {
        run!(insert.connection(), |connection| {
            sqlx::query(REVOKE).bind(Uuid::now_v7()).bind(i64::MAX / 2).execute(connection).await.unwrap();
        });
    }
    insert.commit().await.unwrap();
    let mut watcher = service.watch(0).await;
    let full = watcher.next_revocations().await;
    assert_eq!(full.revocations.len(), 1000);
    let heartbeat = WatchRevocationsResponse { revocations: vec![], cursor: full.cursor };
    assert_eq!(watcher.next().await.unwrap(), Some(heartbeat));
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn a_cursor_stays_valid_after_its_revocations_have_expired() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let (one, other) = (service.sign_in(Uuid::now_v7()).await, service.sign_in(Uuid::now_v7()).await);
    service.revoke(&one, &one.id).await.unwrap();
    let cursor = service.watch(0).await.next_revocations().await.cursor;
    service.clock.advance(Duration::from_hours(1));

    let mut watcher = service.watch(cursor).await;
    let heartbeat = WatchRevocationsResponse { revocations: vec![], cursor };
    assert_eq!(watcher.next().await.unwrap(), Some(heartbeat), "the cursor outlives the expired revocation");
    service.revoke(&other, &other.id).await.unwrap();
    assert_eq!(session_ids(&watcher.next_revocations().await.revocations), [&other.id]);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn a_cursor_of_a_lost_database_restarts_with_a_snapshot() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let session = service.sign_in(Uuid::now_v7()).await;
    service.revoke(&session, &session.id).await.unwrap();
    let mut watcher = service.watch(1_000_000).await;
    assert_eq!(session_ids(&watcher.next_revocations().await.revocations), [&session.id]);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn an_idle_watch_sends_heartbeats() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::millis(20), ..Config::default() };
    let service = TestService::start_with(directory.path(), config).await;
    let mut watcher = service.watch(0).await;
    for _ in 0..3 {
        assert_eq!(watcher.next().await.unwrap(), Some(WatchRevocationsResponse::default()));
    }
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn a_heartbeat_finds_revocations_that_were_not_announced() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::millis(20), ..Config::default() };
    let service = TestService::start_with(directory.path(), config).await;
    let mut watcher = service.watch(0).await;
    let session = Uuid::now_v7();
    run!(service.db.writer(), |db| {
        sqlx::query(REVOKE).bind(session).bind(i64::MAX / 2).execute(db).await.unwrap();
    });
    assert_eq!(session_ids(&watcher.next_revocations().await.revocations), [session.to_string()]);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn watches_end_when_the_service_stops() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let mut watcher = service.watch(0).await;
    assert!(watcher.next().await.unwrap().is_some());
    service.stop.cancel();
    assert_eq!(watcher.next().await.unwrap(), None);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn the_first_message_of_a_watcher_is_required() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let no_requests = tokio_stream::empty::<WatchRevocationsRequest>();
    assert_rejected(service.client.clone().watch_revocations(no_requests).await, Reason::InvalidRequest);
    service.stop().await;
}

#[tokio::test]
async fn a_lagging_watcher_delays_one_call_and_stays_connected() {
    let directory = directory();
    let service =
        Arc::new(TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::seconds(1))).await);
    let (one, other) = (service.sign_in(Uuid::now_v7()).await, service.sign_in(Uuid::now_v7()).await);
    let mut slow = service.watch(0).await;

    let begin = Instant::now();
    let revoking = tokio::spawn({
        let (service, session) = (service.clone(), one.clone());
        async move { service.revoke(&session, &session.id).await }
    });
    assert_eq!(session_ids(&slow.next_revocations().await.revocations), [&one.id]);
    // It acknowledges, but not what it was sent.
    slow.acknowledge(0).await;
    revoking.await.unwrap().unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(service.metrics.render().contains("drystone_revocation_watchers_lagging 1"));

    let begin = Instant::now();
    service.revoke(&other, &other.id).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "no call waits for it again");
    let response = slow.next_revocations().await;
    assert_eq!(session_ids(&response.revocations), [&other.id], "it is still notified");
    slow.acknowledge(response.cursor).await;
    let caught_up = async {
        while !service.metrics.render().contains("drystone_revocation_watchers_lagging 0") {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, caught_up).await.expect("it has caught up");
    drop(slow);
    Arc::into_inner(service).unwrap().stop().await;
}

#[tokio::test]
async fn the_watchers_of_a_workload_are_limited() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let mut watchers = Vec::new();
    for _ in 0..64 {
        watchers.push(service.watch_as("orders", 0).await.unwrap());
    }
    let error = service.watch_as("orders", 0).await.err().unwrap();
    assert_eq!((error.code(), reason_of(&error)), (tonic::Code::ResourceExhausted, Some(Reason::Overloaded)));
    assert!(error.get_details_retry_info().unwrap().retry_delay.is_some());
    let mut another = service.watch_as("user", 0).await.unwrap();
    assert!(another.next().await.unwrap().is_some(), "other workloads are not affected");

    drop(watchers.pop());
    let free_slot = async {
        loop {
            if let Ok(watcher) = service.watch_as("orders", 0).await {
                break watcher;
            }
        }
    };
    let again = timeout(TEST_TIMEOUT, free_slot).await.expect("a slot is free again");
    drop((watchers, another, again));
    service.stop().await;
}
