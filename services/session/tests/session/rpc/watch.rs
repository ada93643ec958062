//! The watch of revocations, and how a revoking call waits for it.

use tonic_types::StatusExt;

use super::*;

/// Puts a revocation where nobody announces it.
const REVOKE: &str = "INSERT INTO revocation (session_id, forget_at) VALUES ($1, $2)";

#[tokio::test]
async fn a_revoking_call_returns_when_every_watcher_has_acknowledged() {
    let directory = directory();
    let running = Arc::new(Running::start_with(directory.path(), patient(ConfigDuration::seconds(60))).await);
    let session = running.sign_in(Uuid::now_v7()).await;
    let (mut one, mut other) = (running.watch(0).await, running.watch(0).await);

    let revoking = tokio::spawn({
        let (running, session) = (running.clone(), session.clone());
        async move { running.revoke(&session, &session.id).await }
    });
    let cursor = one.news().await.cursor;
    one.acknowledge(cursor).await;
    assert_eq!(other.news().await.cursor, cursor);
    assert!(!revoking.is_finished(), "one of them has not answered");
    other.acknowledge(cursor).await;
    timeout(BOUND, revoking).await.expect("all have answered").unwrap().unwrap();

    drop((one, other));
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test]
async fn a_mute_watcher_delays_one_call_by_its_bound_and_is_told_to_come_back() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(ConfigDuration::millis(200))).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    let mut mute = running.watch(0).await;
    let begin = Instant::now();
    running.revoke(&session, &session.id).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(200));

    let cursor = mute.news().await.cursor;
    assert_refused(mute.next().await, Reason::Unavailable);
    assert!(running.metrics.render().contains("drystone_revocation_watchers 0"));
    assert!(running.metrics.render().contains("drystone_revocation_watchers_dropped_total 1"));

    let mut back = running.watch(0).await;
    assert_eq!(back.news().await.cursor, cursor, "it had acknowledged nothing, and misses nothing");
    drop((mute, back));
    running.stop().await;
}

#[tokio::test]
async fn a_watcher_that_was_away_goes_on_from_its_cursor() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(ConfigDuration::millis(50))).await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(running.sign_in(Uuid::now_v7()).await);
    }
    let ids: Vec<&str> = sessions.iter().map(|session| session.id.as_str()).collect();

    running.revoke(&sessions[0], ids[0]).await.unwrap();
    let mut watcher = running.watch(0).await;
    let first = watcher.news().await;
    assert_eq!(session_ids(&first.revocations), ids[..1]);
    drop(watcher);
    for session in &sessions[1..3] {
        running.revoke(session, &session.id).await.unwrap();
    }
    let mut watcher = running.watch(first.cursor).await;
    let second = watcher.news().await;
    assert_eq!(session_ids(&second.revocations), ids[1..3], "what it missed, and nothing twice");
    watcher.acknowledge(second.cursor).await;
    running.revoke(&sessions[3], ids[3]).await.unwrap();
    assert_eq!(session_ids(&watcher.news().await.revocations), ids[3..]);

    let mut newcomer = running.watch(0).await;
    assert_eq!(session_ids(&newcomer.news().await.revocations), ids, "a newcomer gets all that is of use");
    running.clock.advance(Duration::from_hours(1));
    let mut latecomer = running.watch(0).await;
    assert!(latecomer.next().await.unwrap().unwrap().revocations.is_empty(), "no token is left that it concerns");
    drop((watcher, newcomer, latecomer));
    running.stop().await;
}

#[tokio::test]
async fn a_long_history_comes_in_parts_that_miss_nothing() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::hours(1), ..Config::default() };
    let running = Running::start_with(directory.path(), config).await;
    let mut insert = running.db.begin().await.unwrap();
    for _ in 0..2500 {
        run!(insert.connection(), |connection| {
            sqlx::query(REVOKE).bind(Uuid::now_v7()).bind(i64::MAX / 2).execute(connection).await.unwrap();
        });
    }
    insert.commit().await.unwrap();
    let mut watcher = running.watch(0).await;
    let mut cursors = Vec::new();
    let mut found = 0;
    while found < 2500 {
        let news = watcher.news().await;
        found += news.revocations.len();
        cursors.push(news.cursor);
    }
    assert_eq!((found, cursors), (2500, vec![1000, 2000, 2500]));
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_cursor_outlives_what_it_was_read_with() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(ConfigDuration::millis(50))).await;
    let (one, other) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    running.revoke(&one, &one.id).await.unwrap();
    let cursor = running.watch(0).await.news().await.cursor;
    running.clock.advance(Duration::from_hours(1));

    let mut watcher = running.watch(cursor).await;
    let quiet = WatchRevocationsResponse { revocations: vec![], cursor };
    assert_eq!(watcher.next().await.unwrap(), Some(quiet), "the cursor is not lost with what it stands for");
    running.revoke(&other, &other.id).await.unwrap();
    assert_eq!(session_ids(&watcher.news().await.revocations), [&other.id]);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_cursor_of_a_database_that_was_lost_starts_over() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    running.revoke(&session, &session.id).await.unwrap();
    let mut watcher = running.watch(1_000_000).await;
    assert_eq!(session_ids(&watcher.news().await.revocations), [&session.id]);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_quiet_watch_gives_signs_of_life() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::millis(20), ..Config::default() };
    let running = Running::start_with(directory.path(), config).await;
    let mut watcher = running.watch(0).await;
    for _ in 0..3 {
        assert_eq!(watcher.next().await.unwrap(), Some(WatchRevocationsResponse::default()));
    }
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_sign_of_life_finds_what_nobody_announced() {
    let directory = directory();
    let config = Config { heartbeat: ConfigDuration::millis(20), ..Config::default() };
    let running = Running::start_with(directory.path(), config).await;
    let mut watcher = running.watch(0).await;
    let session = Uuid::now_v7();
    run!(running.db.writer(), |db| {
        sqlx::query(REVOKE).bind(session).bind(i64::MAX / 2).execute(db).await.unwrap();
    });
    assert_eq!(session_ids(&watcher.news().await.revocations), [session.to_string()]);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn watches_end_when_the_service_stops() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let mut watcher = running.watch(0).await;
    assert!(watcher.next().await.unwrap().is_some());
    running.stop.cancel();
    assert_eq!(watcher.next().await.unwrap(), None);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_watcher_has_to_say_where_to_go_on() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let silence = tokio_stream::empty::<WatchRevocationsRequest>();
    assert_refused(running.client.clone().watch_revocations(silence).await, Reason::InvalidRequest);
    running.stop().await;
}

#[tokio::test]
async fn a_watcher_that_lags_delays_one_call_and_stays_connected() {
    let directory = directory();
    let running = Arc::new(Running::start_with(directory.path(), patient(ConfigDuration::seconds(1))).await);
    let (one, other) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    let mut slow = running.watch(0).await;

    let begin = Instant::now();
    let revoking = tokio::spawn({
        let (running, session) = (running.clone(), one.clone());
        async move { running.revoke(&session, &session.id).await }
    });
    assert_eq!(session_ids(&slow.news().await.revocations), [&one.id]);
    // It says something, and not that it has applied what it was sent.
    slow.acknowledge(0).await;
    revoking.await.unwrap().unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert!(running.metrics.render().contains("drystone_revocation_watchers_lagging 1"));

    let begin = Instant::now();
    running.revoke(&other, &other.id).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(1), "it is not waited for again");
    let news = slow.news().await;
    assert_eq!(session_ids(&news.revocations), [&other.id], "it is told all the same");
    slow.acknowledge(news.cursor).await;
    let caught_up = async {
        while !running.metrics.render().contains("drystone_revocation_watchers_lagging 0") {
            tokio::task::yield_now().await;
        }
    };
    timeout(BOUND, caught_up).await.expect("it has caught up");
    drop(slow);
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test]
async fn the_watchers_of_a_workload_are_bounded() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let mut watchers = Vec::new();
    for _ in 0..64 {
        watchers.push(running.watch_as("orders", 0).await.unwrap());
    }
    let refused = running.watch_as("orders", 0).await.err().unwrap();
    assert_eq!((refused.code(), reason_of(&refused)), (tonic::Code::ResourceExhausted, Some(Reason::Overloaded)));
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    let mut another = running.watch_as("user", 0).await.unwrap();
    assert!(another.next().await.unwrap().is_some(), "others are not affected");

    drop(watchers.pop());
    let place = async {
        loop {
            if let Ok(watcher) = running.watch_as("orders", 0).await {
                break watcher;
            }
        }
    };
    let again = timeout(BOUND, place).await.expect("a place is free again");
    drop((watchers, another, again));
    running.stop().await;
}
