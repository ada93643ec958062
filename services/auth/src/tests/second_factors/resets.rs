//! Administrators reset the second factors of users.

use drystone::auth::v1::{CancelResetRequest, ResetFactorsResponse};
use drystone_mesh::config::ConfigDuration;
use uuid::Uuid;

use super::*;
use crate::{
    Config,
    config::MfaConfig,
    tests::fixture::{Fixture, fast_hashing},
};

impl Running {
    /// A service whose resets wait for a day, with an account whose address is verified.
    async fn with_reset_delay() -> Self {
        let mfa = MfaConfig { reset_delay: ConfigDuration::days(1), ..MfaConfig::default() };
        let config = Config { mfa, ..fast_hashing() };
        let running = Self::of(Fixture::with_account().await.restart(config).await);
        running.verify_addresses();
        running
    }

    /// Another user, whom the user service lets reset second factors.
    async fn administrator(&self) -> Arc<Principal> {
        self.fixture.register("root@example.com", "another horse", "").await.unwrap();
        let tokens = self.fixture.sign_in("root@example.com", "another horse").await.unwrap().into_inner();
        self.fixture.verify(&tokens.access_token).await
    }

    async fn reset_factors(&self, by: &Arc<Principal>, user_id: Uuid) -> Result<ResetFactorsResponse, Status> {
        let request = ResetFactorsRequest { user_id: user_id.to_string() };
        let request = from_outside(request, Some(Arc::clone(by)));
        Ok(self.fixture.service.mfa.reset_factors(request).await?.into_inner())
    }

    async fn reset_factors_as_operator(&self, user_id: Uuid) -> ResetFactorsResponse {
        let request = as_operator(ResetFactorsRequest { user_id: user_id.to_string() });
        self.fixture.service.mfa.reset_factors(request).await.unwrap().into_inner()
    }

    async fn cancel_reset(&self, by: &Arc<Principal>) -> Result<(), Status> {
        let request = from_outside(CancelResetRequest {}, Some(Arc::clone(by)));
        self.fixture.service.mfa.cancel_reset(request).await.map(drop)
    }

    async fn carry_out_due_resets(&self) {
        self.fixture.service.mfa.factors.carry_out_due_resets().await.unwrap();
        self.settle().await;
    }

    fn has_asked_the_user_service(&self) -> bool {
        self.fixture.upstreams.state().calls.contains(&"authorize_factor_reset")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_resets_the_factors_of_a_user_below_who_is_told() {
    let running = Running::with_verified_account().await;
    let (user, _, _) = running.with_app().await;
    let administrator = running.administrator().await;
    for refusal in [Reason::AuthorityExceeded, Reason::PermissionMissing, Reason::Unavailable] {
        running.fixture.upstreams.state().reset_refusal = Some(refusal);
        assert_eq!(reason(running.reset_factors(&administrator, user.user_id).await), refusal);
    }
    running.fixture.upstreams.state().reset_refusal = None;
    assert_eq!(reason(running.reset_factors(&administrator, Uuid::now_v7()).await), Reason::UserNotFound);
    let request = from_outside(ResetFactorsRequest { user_id: user.user_id.to_string() }, None);
    assert_eq!(reason(running.fixture.service.mfa.reset_factors(request).await), Reason::TokenMissing);
    assert_eq!(running.factors(&user).await.factors.len(), 1);
    assert_eq!(running.changes().await, ["added"]);

    let reset = running.reset_factors(&administrator, user.user_id).await.unwrap();
    assert_eq!(reset, ResetFactorsResponse { sessions_ended: true, due_time: None });
    assert_eq!(running.factors(&user).await, ListFactorsResponse::default());
    running.sign_in(PASSWORD).await.expect("a password suffices");
    let told = running.messages("second_factor_changed").await;
    assert_eq!(told.len(), 1);
    let parameter = |name: &str| told[0].parameters[name].as_str();
    assert_eq!((parameter("change"), parameter("device"), parameter("address")), ("reset", "unknown", "unknown"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_resets_their_own_factors_and_the_operator_asks_nobody() {
    let running = Running::with_verified_account().await;
    let (user, _, _) = running.with_app().await;
    assert_eq!(reason(running.reset_factors(&user, user.user_id).await), Reason::AuthorityExceeded);
    assert_eq!(running.factors(&user).await.factors.len(), 1);
    running.reset_factors_as_operator(user.user_id).await;
    assert_eq!(running.factors(&user).await, ListFactorsResponse::default());
    assert!(!running.has_asked_the_user_service());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_waits_and_the_owner_is_told_at_once() {
    let running = Running::with_reset_delay().await;
    let administrator = running.administrator().await;
    let stranger = running.sign_in(PASSWORD).await.unwrap();
    let nothing = running.reset_factors(&administrator, stranger.user_id).await.unwrap();
    assert_eq!(nothing, ResetFactorsResponse { sessions_ended: true, due_time: None }, "there is none");
    assert!(running.changes().await.is_empty());

    let (user, _, _) = running.with_app().await;
    running.fixture.upstreams.state().ended.clear();
    let due = running.fixture.clock.now() + TimeDelta::days(1);
    let first = running.reset_factors(&administrator, user.user_id).await.unwrap();
    assert!(!first.sessions_ended);
    assert_eq!(first.due_time.as_ref().unwrap().seconds, due.timestamp());
    running.fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(running.reset_factors(&administrator, user.user_id).await.unwrap(), first, "the first time stays");
    let listed = running.factors(&user).await;
    assert_eq!(listed.factors.len(), 1);
    assert_eq!(listed.reset_time, first.due_time);
    let told = running.messages("second_factor_changed").await;
    assert_eq!(told.len(), 1, "once");
    assert_eq!(told[0].parameters["change"], "reset_requested");
    assert_eq!(told[0].parameters["time"], due.format("%Y-%m-%dT%H:%M:%SZ").to_string());
    running.carry_out_due_resets().await;
    running.challenge("").await;
    assert!(running.fixture.upstreams.state().ended.is_empty(), "nothing happens before it is due");

    running.fixture.clock.advance(Duration::from_hours(23));
    for _ in 0..2 {
        running.carry_out_due_resets().await;
    }
    assert_eq!(running.fixture.upstreams.state().ended, [(user.user_id, None)]);
    assert_eq!(running.factors(&user).await, ListFactorsResponse::default());
    assert_eq!(running.changes().await, ["added", "reset", "reset_requested"]);
    running.sign_in(PASSWORD).await.expect("a password suffices");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_cancels_a_reset_with_a_second_factor() {
    let running = Running::with_reset_delay().await;
    let (user, _, _) = running.with_app().await;
    running.cancel_reset(&user).await.expect("there is none");
    running.reset_factors_as_operator(user.user_id).await.due_time.unwrap();
    let thief = Arc::new(Principal { amr: vec!["pwd".to_owned()], ..Principal::clone(&user) });
    assert_eq!(reason(running.cancel_reset(&thief).await), Reason::SecondFactorRequired);
    assert!(running.factors(&user).await.reset_time.is_some());
    for _ in 0..2 {
        running.cancel_reset(&user).await.unwrap();
    }
    assert_eq!(running.factors(&user).await.reset_time, None);
    running.fixture.clock.advance(Duration::from_hours(25));
    running.carry_out_due_resets().await;
    assert_eq!(running.factors(&user).await.factors.len(), 1);
    assert_eq!(running.changes().await, ["added", "reset_cancelled", "reset_requested"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_an_account_back_cancels_a_reset() {
    let running = Running::with_reset_delay().await;
    let (user, own, _) = running.with_app().await;
    running.fixture.clock.advance(Duration::from_mins(5));
    running.complete(&running.challenge("").await, &own.code(&running)).await.unwrap();
    let link = running.link_in("new_device", "report-sign-in").await;
    running.reset_factors_as_operator(user.user_id).await.due_time.unwrap();
    running.report_sign_in(&link).await.unwrap();
    assert_eq!(running.factors(&user).await.reset_time, None);
    running.fixture.clock.advance(Duration::from_hours(25));
    running.carry_out_due_resets().await;
    assert_eq!(running.factors(&user).await.factors.len(), 1);
    running.stop().await;
}
