//! Sign-ins that a second factor completes.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_is_completed_by_a_code_which_serves_once() {
    let running = Running::with_verified_account().await;
    let (_, app, _) = running.with_app().await;
    let challenge = running.challenge("").await;
    assert_eq!(challenge.factors().collect::<Vec<_>>(), [FactorKind::Totp, FactorKind::BackupCode]);
    let used = app.code(&running);
    assert_eq!(reason(running.complete(&challenge, &used).await), Reason::CodeInvalid, "it confirmed the app");
    running.later();
    let code = app.code(&running);
    let completed = running.complete(&challenge, &code).await.unwrap();
    let signed_in = running.fixture.verify(&completed.access_token).await;
    assert_eq!(running.fixture.upstreams.state().sessions[&signed_in.session_id].amr, ["pwd", "otp", "mfa"]);
    assert_eq!(
        (completed.user_id, completed.session_id),
        (signed_in.user_id.to_string(), signed_in.session_id.to_string())
    );
    assert!(!completed.refresh_token.is_empty() && !completed.device_token.is_empty());
    let refreshed = running.fixture.refresh(&completed.refresh_token).await.unwrap().into_inner();
    assert_eq!(amr_of(&refreshed.access_token), ["pwd", "otp", "mfa"]);

    assert_eq!(reason(running.complete(&challenge, &code).await), Reason::ChallengeInvalid, "it was used");
    let next = running.challenge("").await;
    assert_eq!(reason(running.complete(&next, &code).await), Reason::CodeInvalid, "so was the code");
    let sign_ins = running.sign_ins(&signed_in, 0).await;
    let completed: Vec<&SignIn> =
        sign_ins.iter().filter(|sign_in| sign_in.method() == SignInMethod::PasswordAndTotp).collect();
    let succeeded = completed.iter().filter(|sign_in| sign_in.outcome() == SignInOutcome::Succeeded);
    assert_eq!(succeeded.count(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sign_ins_with_one_code_one_succeeds() {
    let running = Arc::new(Running::with_verified_account().await);
    let (_, app, codes) = running.with_app().await;
    for (round, backup) in codes.iter().take(5).enumerate() {
        running.later();
        let (totp, backup) = if round % 2 == 0 { (app.code(&running), "") } else { (String::new(), backup.as_str()) };
        let challenges = [running.challenge("").await, running.challenge("").await];
        let tries = challenges.map(|challenge| {
            let (running, totp, backup) = (Arc::clone(&running), totp.clone(), backup.to_owned());
            tokio::spawn(async move { running.complete_with(&challenge, &totp, &backup).await.is_ok() })
        });
        let mut successes = 0;
        for one in tries {
            successes += u32::from(one.await.unwrap());
        }
        assert_eq!(successes, 1, "round {round}");
    }
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_may_drift_by_one_step_and_no_clock_that_jumps_makes_one_serve_twice() {
    let running = Running::with_verified_account().await;
    let (_, app, _) = running.with_app().await;
    running.fixture.clock.advance(Duration::from_mins(10));
    let challenge = running.challenge("").await;
    for drift in [-60, 60] {
        let code = app.code_in(&running, TimeDelta::seconds(drift));
        assert_eq!(reason(running.complete(&challenge, &code).await), Reason::CodeInvalid, "{drift}");
    }
    for drift in [30, -30] {
        let code = app.code_in(&running, TimeDelta::seconds(drift));
        running.complete(&running.challenge("").await, &code).await.unwrap();
    }
    let code = app.code(&running);
    running.complete(&running.challenge("").await, &code).await.unwrap();
    running.fixture.clock.set_by(TimeDelta::minutes(100));
    running.complete(&running.challenge("").await, &app.code(&running)).await.unwrap();
    running.fixture.store.forget_factors(running.fixture.clock.now()).await.unwrap();
    running.fixture.clock.set_by(TimeDelta::minutes(-100));
    assert_eq!(reason(running.complete(&running.challenge("").await, &code).await), Reason::CodeInvalid);
    running.later();
    running.later();
    running.complete(&running.challenge("").await, &app.code(&running)).await.expect("later codes serve at once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_challenge_has_five_tries_and_five_minutes() {
    let running = Running::with_verified_account().await;
    let (user, app, _) = running.with_app().await;
    running.later();
    let challenge = running.challenge("").await;
    for _ in 0..5 {
        assert_eq!(reason(running.complete(&challenge, WRONG).await), Reason::CodeInvalid);
    }
    running.fixture.clock.advance(Duration::from_mins(2));
    assert_eq!(reason(running.complete(&challenge, &app.code(&running)).await), Reason::ChallengeInvalid);
    let late = running.challenge("").await;
    running.fixture.clock.advance(Duration::from_mins(5));
    assert_eq!(reason(running.complete(&late, &app.code(&running)).await), Reason::ChallengeInvalid);
    let forged = SignInChallenge { challenge_token: "dsc_forged".to_owned(), ..late };
    assert_eq!(reason(running.complete(&forged, &app.code(&running)).await), Reason::ChallengeInvalid);
    let wrong = |sign_in: &SignIn| sign_in.outcome() == SignInOutcome::WrongCode;
    while running.sign_ins(&user, 0).await.iter().filter(|sign_in| wrong(sign_in)).count() < 5 {
        tokio::task::yield_now().await;
    }
    running.fixture.store.forget_challenges(running.fixture.clock.now() + TimeDelta::seconds(1)).await.unwrap();
    assert_eq!(count(&running, "challenge").await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_of_who_knows_the_password_do_not_keep_the_owner_out() {
    let running = Running::with_verified_account().await;
    let (_, app, _) = running.with_app().await;
    running.later();
    let known = running.complete(&running.challenge("").await, &app.code(&running)).await.unwrap().device_token;
    let challenge = running.challenge("").await;
    for _ in 0..5 {
        assert_eq!(reason(running.complete(&challenge, WRONG).await), Reason::CodeInvalid);
    }
    running.later();
    // Another challenge does not help.
    let status = running.complete(&running.challenge("").await, &app.code(&running)).await.unwrap_err();
    let wait = tonic_types::StatusExt::get_details_retry_info(&status).unwrap().retry_delay.unwrap();
    assert_eq!(wait, Duration::from_secs(30));
    assert_eq!(reason::<()>(Err(status)), Reason::RateLimited);
    let completed = running.complete(&running.challenge(&known).await, &app.code(&running)).await;
    completed.expect("on a device that has signed in before");
    running.later();
    running.complete(&running.challenge("").await, &app.code(&running)).await.expect("after the wait");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_code_serves_once_and_its_user_is_told() {
    let running = Running::with_verified_account().await;
    let (user, _, codes) = running.with_app().await;
    for code in [codes[0].clone(), codes[9].to_lowercase().replace('-', " ")] {
        let challenge = running.challenge("").await;
        let completed = running.complete_with(&challenge, "", &code).await.unwrap();
        let session = running.fixture.verify(&completed.access_token).await.session_id;
        assert_eq!(running.fixture.upstreams.state().sessions[&session].amr, ["pwd", "otp", "mfa"]);
        let again = running.challenge("").await;
        assert_eq!(reason(running.complete_with(&again, "", &code).await), Reason::CodeInvalid);
    }
    let challenge = running.challenge("").await;
    for wrong in ["0000-0000-0000", "nonsense", "0"] {
        assert_eq!(reason(running.complete_with(&challenge, "", wrong).await), Reason::CodeInvalid, "{wrong}");
    }
    for [totp, backup] in [["", ""], ["123456", &codes[1]]] {
        assert_eq!(reason(running.complete_with(&challenge, totp, backup).await), Reason::InvalidRequest);
    }
    assert_eq!(running.factors(&user).await.backup_codes_left, 8);
    assert_eq!(running.changes().await, ["added", "backup_code_used", "backup_code_used"]);

    let request = from_outside(RegenerateBackupCodesRequest {}, Some(Arc::clone(&user)));
    let new = running.fixture.service.mfa.regenerate_backup_codes(request).await.unwrap().into_inner().backup_codes;
    assert_eq!((new.len(), running.factors(&user).await.backup_codes_left), (10, 10));
    assert_eq!(reason(running.complete_with(&challenge, "", &codes[1]).await), Reason::CodeInvalid, "replaced");
    running.fixture.clock.advance(Duration::from_mins(1));
    running.complete_with(&running.challenge("").await, "", &new[1]).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_voids_challenges_and_removes_no_second_factor() {
    let running = Running::with_verified_account().await;
    let (user, app, _) = running.with_app().await;
    running.later();
    let challenge = running.challenge("").await;
    running.request(EMAIL).await;
    let link = running.link().await;
    running.reset(&link, "a new horse in the stable").await.unwrap();
    assert_eq!(reason(running.complete(&challenge, &app.code(&running)).await), Reason::ChallengeInvalid);
    assert_eq!(running.factors(&user).await.factors.len(), 1);
    let request = SignInRequest {
        email: EMAIL.to_owned(),
        password: "a new horse in the stable".to_owned(),
        ..SignInRequest::default()
    };
    let response = running.fixture.service.auth.sign_in(from_outside(request, None)).await.unwrap().into_inner();
    let challenge = response.challenge.unwrap();
    running.complete(&challenge, &app.code(&running)).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_disabled_meanwhile_completes_no_sign_in() {
    let running = Running::with_verified_account().await;
    let (_, app, _) = running.with_app().await;
    running.later();
    let challenge = running.challenge("").await;
    running.fixture.upstreams.state().is_disabled = true;
    assert_eq!(reason(running.complete(&challenge, &app.code(&running)).await), Reason::AccountDisabled);
    running.fixture.upstreams.state().is_disabled = false;
    running.complete(&challenge, &app.code(&running)).await.expect("the code was not used up");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_that_a_second_factor_overtakes_needs_it() {
    let running = Arc::new(Running::with_verified_account().await);
    let user = running.sign_in(PASSWORD).await.unwrap();
    let gate = Arc::new(tokio::sync::Notify::new());
    running.fixture.upstreams.state().calls.clear();
    running.fixture.upstreams.state().session_gate = Some(Arc::clone(&gate));
    let sign_in = tokio::spawn({
        let running = Arc::clone(&running);
        async move { running.challenge("").await }
    });
    while !running.fixture.upstreams.state().calls.contains(&"start_session") {
        tokio::task::yield_now().await;
    }
    let (app, _) = running.add_app(&user).await;
    gate.notify_one();
    let challenge = sign_in.await.unwrap();
    running.fixture.upstreams.state().session_gate = None;
    running.later();
    running.complete(&challenge, &app.code(&running)).await.unwrap();
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_tokens_from_before_the_second_factor_are_worth_nothing() {
    let running = Running::with_verified_account().await;
    let hoarded = running.fixture.sign_in_on("192.0.2.7", PASSWORD, "").await.unwrap();
    running.later();
    let (_, app, _) = running.with_app().await;
    running.later();
    let challenge = running.challenge("").await;
    for _ in 0..5 {
        assert_eq!(reason(running.complete(&challenge, WRONG).await), Reason::CodeInvalid);
    }
    let refused = running.complete(&running.challenge(&hoarded).await, &app.code(&running)).await;
    assert_eq!(reason(refused), Reason::RateLimited);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_elsewhere_costs_neither_tries_nor_codes() {
    let running = Running::with_verified_account().await;
    let (user, app, codes) = running.with_app().await;
    running.later();
    let challenge = running.challenge("").await;
    running.fixture.upstreams.state().user_service = Availability::Down;
    for _ in 0..7 {
        assert_eq!(reason(running.complete(&challenge, &app.code(&running)).await), Reason::Unavailable);
    }
    running.fixture.upstreams.state().user_service = Availability::default();
    running.complete(&challenge, &app.code(&running)).await.unwrap();
    let session = running.fixture.upstreams.state().sessions.remove(&user.session_id).unwrap();
    assert_eq!(reason(running.verify(&user, ["", "", &codes[2]]).await), Reason::SessionEnded);
    running.fixture.upstreams.state().sessions.insert(user.session_id, session);
    running.verify(&user, ["", "", &codes[2]]).await.expect("the code was given back");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenges_proofs_and_users_with_a_second_factor_are_counted() {
    let running = Running::with_verified_account().await;
    let (_, app, codes) = running.with_app().await;
    let challenge = running.challenge("").await;
    running.complete(&challenge, WRONG).await.unwrap_err();
    running.complete_with(&challenge, "", "0000-0000-0000").await.unwrap_err();
    running.later();
    running.complete(&challenge, &app.code(&running)).await.unwrap();
    running.challenge("").await;
    running.complete_with(&running.challenge("").await, "", &codes[0]).await.unwrap();
    let users = running.fixture.store.users_by_factor().await.unwrap();
    let metrics = &running.fixture.service.auth.sign_in.factors.metrics;
    for (kind, count) in users {
        metrics.set_users(kind, count);
    }
    for metric in [
        "drystone_sign_in_challenges_total{outcome=\"issued\"} 3",
        "drystone_sign_in_challenges_total{outcome=\"completed\"} 2",
        "drystone_second_factor_proofs_total{factor=\"totp\",outcome=\"succeeded\"} 1",
        "drystone_second_factor_proofs_total{factor=\"totp\",outcome=\"failed\"} 1",
        "drystone_second_factor_proofs_total{factor=\"backup_code\",outcome=\"succeeded\"} 1",
        "drystone_second_factor_proofs_total{factor=\"backup_code\",outcome=\"failed\"} 1",
        "drystone_second_factor_proofs_total{factor=\"passkey\",outcome=\"failed\"} 0",
        "drystone_second_factor_users{factor=\"totp\"} 1",
        "drystone_second_factor_users{factor=\"passkey\"} 0",
    ] {
        assert!(running.fixture.has_metric(metric), "{metric}: {}", running.fixture.metrics.render());
    }
    running.stop().await;
}
