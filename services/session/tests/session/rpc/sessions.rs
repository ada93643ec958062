//! Sessions from sign-in to their end.

use super::*;

#[tokio::test]
async fn a_session_is_listed_with_all_that_is_known_of_it() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let now = running.clock.now();
    let user = Uuid::now_v7();
    let (first, second) = (running.sign_in(user).await, running.sign_in(user).await);
    running.sign_in(Uuid::now_v7()).await;

    assert_eq!(first.device, "curl/8.5.0");
    assert_eq!(first.address, "192.0.2.7");
    assert_eq!(first.create_time, Some(to_proto(now)));
    assert_eq!(from_proto(&first.idle_expire_time.unwrap()), Some(now + chrono::TimeDelta::days(14)));
    assert_eq!(from_proto(&first.expire_time.unwrap()), Some(now + chrono::TimeDelta::days(90)));
    let expected = [second.clone(), Session { current: true, ..first.clone() }];
    assert_eq!(running.list(&first).await, expected);
    running.stop().await;
}

#[tokio::test]
async fn a_list_is_read_in_pages_and_takes_no_token_but_its_own() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let user = Uuid::now_v7();
    let mut signed_in = Vec::new();
    for _ in 0..5 {
        signed_in.insert(0, running.sign_in(user).await.id);
    }
    let caller = Session { user_id: user.to_string(), id: signed_in[0].clone(), ..Session::default() };

    let (mut found, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = as_user(&caller, ListSessionsRequest { page_size: 2, page_token });
        let page = running.client.clone().list_sessions(request).await.unwrap().into_inner();
        found.extend(page.sessions.into_iter().map(|session| session.id));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, pages), (signed_in, 3));

    let request = as_user(&caller, ListSessionsRequest { page_size: 2, page_token: "rubbish".to_owned() });
    assert_refused(running.client.clone().list_sessions(request).await, Reason::InvalidPageToken);
    running.stop().await;
}

#[tokio::test]
async fn a_used_refresh_token_ends_the_session_and_every_watcher_hears_of_it() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(ConfigDuration::millis(50))).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    assert_eq!(running.rotate(&session, 1).await.unwrap().counter, 2);
    assert_eq!(running.rotate(&session, 1).await.unwrap().counter, 2, "an answer may be lost");
    running.clock.advance(Duration::from_secs(11));
    assert_eq!(running.rotate(&session, 2).await.unwrap().counter, 3);

    let mut watcher = running.watch(0).await;
    assert_refused(running.rotate(&session, 1).await, Reason::RefreshTokenReused);
    assert_eq!(session_ids(&watcher.news().await.revocations), [&session.id]);
    assert_refused(running.rotate(&session, 3).await, Reason::SessionEnded);
    assert_refused(running.rotate(&session, 1).await, Reason::SessionEnded);
    assert!(running.list(&session).await.is_empty());
    assert!(running.metrics.render().contains(r#"drystone_sessions_ended_total{cause="reuse"} 1"#));
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_refresh_token_from_nowhere_is_refused() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    assert_refused(running.rotate(&session, 2).await, Reason::RefreshTokenInvalid);
    assert_refused(running.rotate(&session, u64::MAX).await, Reason::RefreshTokenInvalid);
    let unknown = Session { id: Uuid::now_v7().to_string(), ..Session::default() };
    assert_refused(running.rotate(&unknown, 1).await, Reason::SessionEnded);

    running.clock.advance(Duration::from_hours(14 * 24));
    assert_refused(running.rotate(&session, 1).await, Reason::SessionEnded);
    running.stop().await;
}

#[tokio::test]
async fn nobody_ends_the_session_of_another() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let (mine, theirs) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    assert_refused(running.revoke(&mine, &theirs.id).await, Reason::SessionNotFound);
    assert_eq!(running.list(&theirs).await.len(), 1);
    running.revoke(&mine, &mine.id).await.unwrap();
    assert_refused(running.revoke(&mine, &mine.id).await, Reason::SessionNotFound);
    running.stop().await;
}

#[tokio::test]
async fn signing_out_everywhere_can_keep_the_session_that_asks() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let user = Uuid::now_v7();
    let kept = running.sign_in(user).await;
    for _ in 0..3 {
        running.sign_in(user).await;
    }
    let revoke_all = async |keep_current| {
        let request = as_user(&kept, RevokeAllSessionsRequest { keep_current });
        running.client.clone().revoke_all_sessions(request).await.unwrap().into_inner().revoked_count
    };
    assert_eq!(revoke_all(true).await, 3);
    assert_eq!(running.list(&kept).await, [Session { current: true, ..kept.clone() }]);
    assert_eq!(revoke_all(false).await, 1);
    assert_eq!(revoke_all(false).await, 0);
    running.stop().await;
}

#[tokio::test]
async fn voided_tokens_are_those_made_up_to_now_and_the_session_goes_on() {
    let directory = directory();
    let running = Running::start_with(directory.path(), patient(ConfigDuration::millis(50))).await;
    let session = running.sign_in(Uuid::now_v7()).await;
    let mut watcher = running.watch(0).await;
    let request = VoidTokensRequest { user_id: session.user_id.clone() };
    running.client.clone().void_tokens(request).await.unwrap();

    let news = watcher.news().await;
    let Some(Scope::UserTokens(tokens)) = &news.revocations[0].scope else { panic!("{news:?}") };
    assert_eq!(tokens.user_id, session.user_id);
    let now = running.clock.now();
    assert_eq!(tokens.before_time, Some(to_proto(now)));
    assert_eq!(news.revocations[0].expire_time, Some(to_proto(now + chrono::TimeDelta::hours(1))));
    assert_eq!(running.rotate(&session, 1).await.unwrap().counter, 2);
    drop(watcher);
    running.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_sessions_and_revocations() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    let (kept, ended) = (running.sign_in(Uuid::now_v7()).await, running.sign_in(Uuid::now_v7()).await);
    running.rotate(&kept, 1).await.unwrap();
    running.revoke(&ended, &ended.id).await.unwrap();
    running.stop().await;

    let running = Running::start(directory.path()).await;
    assert_eq!(session_ids(&running.watch(0).await.news().await.revocations), [&ended.id]);
    assert_refused(running.rotate(&ended, 1).await, Reason::SessionEnded);
    assert_eq!(running.rotate(&kept, 2).await.unwrap().counter, 3);
    running.stop().await;
}

#[tokio::test]
async fn a_store_that_fails_is_said_without_its_insides() {
    let directory = directory();
    let running = Running::start(directory.path()).await;
    running.db.close().await;
    let request = StartSessionRequest { user_id: Uuid::now_v7().to_string(), ..StartSessionRequest::default() };
    let refused = running.client.clone().start_session(request).await.unwrap_err();
    assert_eq!(reason_of(&refused), Some(Reason::Unavailable));
    assert!(!refused.message().contains("pool"), "{}", refused.message());
    running.stop().await;
}
