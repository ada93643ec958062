//! The RPCs for sessions, from sign-in to sign-out.

use super::*;

#[tokio::test]
async fn a_session_is_listed_with_all_its_fields() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let now = service.clock.now();
    let user = Uuid::now_v7();
    let (first, second) = (service.sign_in(user).await, service.sign_in(user).await);
    service.sign_in(Uuid::now_v7()).await;

    assert_eq!(first.device, "curl/8.5.0");
    assert_eq!(first.address, "192.0.2.7");
    assert_eq!(first.create_time, Some(to_proto(now)));
    assert_eq!(from_proto(&first.idle_expire_time.unwrap()), Some(now + chrono::TimeDelta::days(14)));
    assert_eq!(from_proto(&first.expire_time.unwrap()), Some(now + chrono::TimeDelta::days(90)));
    let expected = [second.clone(), Session { current: true, ..first.clone() }];
    assert_eq!(service.list(&first).await, expected);
    service.stop().await;
}

#[tokio::test]
async fn a_session_is_raised_by_another_authentication_of_its_user() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let session = service.sign_in(Uuid::now_v7()).await;
    assert_eq!((session.auth_time, &*session.amr), (session.create_time, &["pwd".to_owned()][..]));
    service.clock.advance(Duration::from_mins(2));
    let raise = async |user_id: String| {
        let request = RaiseSessionRequest { session_id: session.id.clone(), user_id, amr: vec!["otp".to_owned()] };
        service.client.clone().raise_session(request).await
    };
    assert_rejected(raise(Uuid::now_v7().to_string()).await, Reason::SessionEnded);
    let raised = raise(session.user_id.clone()).await.unwrap().into_inner().session.unwrap();
    let expected =
        Session { auth_time: Some(to_proto(service.clock.now())), amr: vec!["otp".to_owned()], ..session.clone() };
    assert_eq!(raised, expected);
    let rotated = service.rotate(&session, 1).await.unwrap().session.unwrap();
    assert_eq!((rotated.auth_time, rotated.amr), (expected.auth_time, expected.amr));
    service.stop().await;
}

#[tokio::test]
async fn a_list_is_paginated_and_rejects_foreign_page_tokens() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let user = Uuid::now_v7();
    let mut signed_in = Vec::new();
    for _ in 0..5 {
        signed_in.insert(0, service.sign_in(user).await.id);
    }
    let caller = Session { user_id: user.to_string(), id: signed_in[0].clone(), ..Session::default() };

    let (mut found, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = as_user(&caller, ListSessionsRequest { page_size: 2, page_token });
        let page = service.client.clone().list_sessions(request).await.unwrap().into_inner();
        found.extend(page.sessions.into_iter().map(|session| session.id));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, pages), (signed_in, 3));

    let request = as_user(&caller, ListSessionsRequest { page_size: 2, page_token: "invalid".to_owned() });
    assert_rejected(service.client.clone().list_sessions(request).await, Reason::InvalidPageToken);
    service.stop().await;
}

#[tokio::test]
async fn refresh_token_reuse_ends_the_session_and_notifies_watchers() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let session = service.sign_in(Uuid::now_v7()).await;
    assert_eq!(service.rotate(&session, 1).await.unwrap().counter, 2);
    assert_eq!(service.rotate(&session, 1).await.unwrap().counter, 2, "the response may have been lost");
    service.clock.advance(Duration::from_secs(11));
    assert_eq!(service.rotate(&session, 2).await.unwrap().counter, 3);

    let mut watcher = service.watch(0).await;
    assert_rejected(service.rotate(&session, 1).await, Reason::RefreshTokenReused);
    assert_eq!(session_ids(&watcher.next_revocations().await.revocations), [&session.id]);
    assert_rejected(service.rotate(&session, 3).await, Reason::SessionEnded);
    assert_rejected(service.rotate(&session, 1).await, Reason::SessionEnded);
    assert!(service.list(&session).await.is_empty());
    assert!(service.metrics.render().contains(r#"drystone_sessions_ended_total{cause="reuse"} 1"#));
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn a_refresh_token_that_was_never_issued_is_rejected() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let session = service.sign_in(Uuid::now_v7()).await;
    assert_rejected(service.rotate(&session, 2).await, Reason::RefreshTokenInvalid);
    assert_rejected(service.rotate(&session, u64::MAX).await, Reason::RefreshTokenInvalid);
    let unknown = Session { id: Uuid::now_v7().to_string(), ..Session::default() };
    assert_rejected(service.rotate(&unknown, 1).await, Reason::SessionEnded);

    service.clock.advance(Duration::from_hours(14 * 24));
    assert_rejected(service.rotate(&session, 1).await, Reason::SessionEnded);
    service.stop().await;
}

#[tokio::test]
async fn a_new_session_over_the_limit_ends_the_one_that_was_unused_longest() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), Config { max_sessions: 3, ..Config::default() }).await;
    let user = Uuid::now_v7();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(service.sign_in(user).await);
        service.clock.advance(Duration::from_mins(1));
    }
    service.rotate(&sessions[0], 1).await.unwrap();
    service.clock.advance(Duration::from_mins(1));
    let mut watcher = service.watch(0).await;
    let newest = service.sign_in(user).await;
    assert_eq!(session_ids(&watcher.next_revocations().await.revocations), [&sessions[1].id]);
    let left: Vec<String> = service.list(&newest).await.into_iter().map(|session| session.id).collect();
    assert_eq!(left, [&newest, &sessions[2], &sessions[0]].map(|session| session.id.clone()));
    assert_rejected(service.rotate(&sessions[1], 1).await, Reason::SessionEnded);
    service.sign_in(Uuid::now_v7()).await;
    assert_eq!(service.list(&newest).await.len(), 3, "another user has their own limit");
    assert!(service.metrics.render().contains(r#"drystone_sessions_ended_total{cause="evicted"} 1"#));
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn a_user_cannot_end_the_session_of_another_user() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let (mine, theirs) = (service.sign_in(Uuid::now_v7()).await, service.sign_in(Uuid::now_v7()).await);
    assert_rejected(service.revoke(&mine, &theirs.id).await, Reason::SessionNotFound);
    assert_eq!(service.list(&theirs).await.len(), 1);
    service.revoke(&mine, &mine.id).await.unwrap();
    assert_rejected(service.revoke(&mine, &mine.id).await, Reason::SessionNotFound);
    service.stop().await;
}

#[tokio::test]
async fn revoking_all_sessions_can_keep_the_current_one() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let user = Uuid::now_v7();
    let kept = service.sign_in(user).await;
    for _ in 0..3 {
        service.sign_in(user).await;
    }
    let revoke_all = async |keep_current| {
        let request = as_user(&kept, RevokeAllSessionsRequest { keep_current });
        service.client.clone().revoke_all_sessions(request).await.unwrap().into_inner().revoked_count
    };
    assert_eq!(revoke_all(true).await, 3);
    assert_eq!(service.list(&kept).await, [Session { current: true, ..kept.clone() }]);
    assert_eq!(revoke_all(false).await, 1);
    assert_eq!(revoke_all(false).await, 0);
    service.stop().await;
}

#[tokio::test]
async fn voiding_tokens_revokes_those_issued_so_far_and_keeps_the_session() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let session = service.sign_in(Uuid::now_v7()).await;
    let mut watcher = service.watch(0).await;
    let request = VoidTokensRequest { user_id: session.user_id.clone() };
    service.client.clone().void_tokens(request).await.unwrap();

    let response = watcher.next_revocations().await;
    let Some(Scope::UserTokens(tokens)) = &response.revocations[0].scope else { panic!("{response:?}") };
    assert_eq!(tokens.user_id, session.user_id);
    let now = service.clock.now();
    assert_eq!(tokens.before_time, Some(to_proto(now)));
    assert_eq!(response.revocations[0].expire_time, Some(to_proto(now + chrono::TimeDelta::hours(1))));
    assert_eq!(service.rotate(&session, 1).await.unwrap().counter, 2);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn voiding_the_tokens_of_roles_is_one_revocation_a_role() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let mut watcher = service.watch(0).await;
    let roles = vec!["editor".to_owned(), "manager".to_owned()];
    service.client.clone().void_role_tokens(VoidRoleTokensRequest { roles: roles.clone() }).await.unwrap();
    let mut voided = Vec::new();
    while voided.len() < roles.len() {
        for revocation in watcher.next_revocations().await.revocations {
            let Some(Scope::RoleTokens(tokens)) = revocation.scope else { panic!("{revocation:?}") };
            assert_eq!(tokens.before_time, Some(to_proto(service.clock.now())));
            voided.push(tokens.role);
        }
    }
    assert_eq!(voided, roles);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn voiding_the_tokens_of_a_key_waits_for_the_watchers() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::seconds(20))).await;
    let mut watcher = service.watch(0).await;
    let mut client = service.client.clone();
    let request = VoidKeyTokensRequest { key_id: "key-1_A".to_owned() };
    let call = tokio::spawn(async move { client.void_key_tokens(request).await });
    let response = watcher.next_revocations().await;
    assert_eq!(response.revocations[0].scope, Some(Scope::KeyId("key-1_A".to_owned())));
    let expire_time = service.clock.now() + drystone_session::KEY_RETENTION;
    assert_eq!(response.revocations[0].expire_time, Some(to_proto(expire_time)));
    assert!(!call.is_finished(), "the watcher has not acknowledged");
    watcher.acknowledge(response.cursor).await;
    call.await.unwrap().unwrap();
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn ending_the_other_sessions_of_a_user_keeps_one_with_its_tokens() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let user_id = Uuid::now_v7();
    let (ended, kept) = (service.sign_in(user_id).await, service.sign_in(user_id).await);
    for expected in [1, 0] {
        let request = EndUserSessionsRequest { user_id: user_id.to_string(), except_session_id: kept.id.clone() };
        let response = service.client.clone().end_user_sessions(request).await.unwrap().into_inner();
        assert_eq!(response.ended_count, expected);
    }
    let mut watcher = service.watch(0).await;
    let revoked = watcher.next_revocations().await.revocations;
    let scopes: Vec<_> = revoked.into_iter().map(|revocation| revocation.scope.unwrap()).collect();
    assert_eq!(scopes, [Scope::SessionId(ended.id)]);
    assert_eq!(service.rotate(&kept, 1).await.unwrap().counter, 2);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn ending_the_sessions_of_a_user_voids_the_tokens_of_a_sign_in_in_progress() {
    let directory = directory();
    let service = TestService::start_with(directory.path(), with_ack_timeout(ConfigDuration::millis(50))).await;
    let (user_id, other) = (Uuid::now_v7(), service.sign_in(Uuid::now_v7()).await);
    let sessions = [service.sign_in(user_id).await, service.sign_in(user_id).await];
    let request = EndUserSessionsRequest { user_id: user_id.to_string(), ..Default::default() };
    let ended = service.client.clone().end_user_sessions(request).await.unwrap().into_inner();
    assert_eq!(ended.ended_count, 2);
    let mut watcher = service.watch(0).await;
    let mut scopes = Vec::new();
    while scopes.len() < 3 {
        scopes.extend(
            watcher.next_revocations().await.revocations.into_iter().map(|revocation| revocation.scope.unwrap()),
        );
    }
    let tokens = Scope::UserTokens(UserTokens {
        user_id: user_id.to_string(),
        before_time: Some(to_proto(service.clock.now())),
    });
    assert_eq!(scopes.pop(), Some(tokens));
    for session in sessions {
        assert!(scopes.contains(&Scope::SessionId(session.id)));
    }
    assert_eq!(service.rotate(&other, 1).await.unwrap().counter, 2);
    drop(watcher);
    service.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_sessions_and_revocations() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    let (kept, ended) = (service.sign_in(Uuid::now_v7()).await, service.sign_in(Uuid::now_v7()).await);
    service.rotate(&kept, 1).await.unwrap();
    service.revoke(&ended, &ended.id).await.unwrap();
    service.stop().await;

    let service = TestService::start(directory.path()).await;
    assert_eq!(session_ids(&service.watch(0).await.next_revocations().await.revocations), [&ended.id]);
    assert_rejected(service.rotate(&ended, 1).await, Reason::SessionEnded);
    assert_eq!(service.rotate(&kept, 2).await.unwrap().counter, 3);
    service.stop().await;
}

#[tokio::test]
async fn an_error_of_the_store_does_not_expose_internals() {
    let directory = directory();
    let service = TestService::start(directory.path()).await;
    service.db.close().await;
    let request = StartSessionRequest { user_id: Uuid::now_v7().to_string(), ..StartSessionRequest::default() };
    let error = service.client.clone().start_session(request).await.unwrap_err();
    assert_eq!(reason_of(&error), Some(Reason::Unavailable));
    assert!(!error.message().contains("pool"), "{}", error.message());
    service.stop().await;
}
