//! Roles whose users need a second factor.

use drystone::auth::v1::{
    BeginTotpEnrolmentRequest, BeginTotpEnrolmentResponse, ConfirmTotpEnrolmentRequest, ConfirmTotpEnrolmentResponse,
    SignInResponse,
};
use drystone_mesh::config::ConfigDuration;

use super::*;
use crate::{
    Config,
    config::MfaConfig,
    tests::fixture::{Fixture, fast_hashing},
};

impl Running {
    /// A user with a role that asks for a second factor within this time.
    async fn requiring(grace_period: ConfigDuration) -> Self {
        let mfa = MfaConfig { required_roles: vec!["admin".to_owned()], grace_period, ..MfaConfig::default() };
        let fixture = Fixture::with_account().await.restart(Config { mfa, ..fast_hashing() }).await;
        let running = Self::of(fixture);
        running.verify_addresses();
        running.has_roles(&["member", "admin"]);
        running
    }

    fn has_roles(&self, roles: &[&str]) {
        self.fixture.upstreams.state().roles = roles.iter().map(|&role| role.to_owned()).collect();
    }

    async fn try_sign_in(&self) -> SignInResponse {
        let (email, password) = (EMAIL.to_owned(), PASSWORD.to_owned());
        let request = SignInRequest { email, password, device_token: String::new() };
        self.fixture.service.auth.sign_in(from_outside(request, None)).await.unwrap().into_inner()
    }

    async fn begin_enrolment(&self, challenge: &SignInChallenge) -> Result<BeginTotpEnrolmentResponse, Status> {
        let challenge_token = challenge.challenge_token.clone();
        let request = BeginTotpEnrolmentRequest { challenge_token, display_name: String::new() };
        Ok(self.fixture.service.mfa.begin_totp_enrolment(from_outside(request, None)).await?.into_inner())
    }

    async fn confirm_enrolment(
        &self,
        challenge: &SignInChallenge,
        factor_id: &str,
        code: &str,
    ) -> Result<ConfirmTotpEnrolmentResponse, Status> {
        let request = ConfirmTotpEnrolmentRequest {
            challenge_token: challenge.challenge_token.clone(),
            factor_id: factor_id.to_owned(),
            code: code.to_owned(),
        };
        Ok(self.fixture.service.mfa.confirm_totp_enrolment(from_outside(request, None)).await?.into_inner())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_a_second_factor_adds_one_while_they_sign_in() {
    let running = Running::requiring(ConfigDuration::seconds(0)).await;
    let response = running.try_sign_in().await;
    assert_eq!((&response.access_token, &response.device_token), (&None, &None), "no session without one");
    let challenge = response.challenge.unwrap();
    assert!(challenge.enrolment_required && challenge.factors.is_empty());
    assert_eq!(reason(running.complete(&challenge, WRONG).await), Reason::CodeInvalid);

    let forged = SignInChallenge { challenge_token: "dsc_forged".to_owned(), ..challenge.clone() };
    assert_eq!(reason(running.begin_enrolment(&forged).await), Reason::ChallengeInvalid);
    let begun = running.begin_enrolment(&challenge).await.unwrap();
    let app = App(Totp::from_url(&begun.uri).unwrap());
    let confirm = async |code: &str| running.confirm_enrolment(&challenge, &begun.factor_id, code).await;
    assert_eq!(reason(confirm(WRONG).await), Reason::CodeInvalid);
    let code = app.code(&running);
    let confirmed = confirm(&code).await.unwrap();
    assert_eq!(confirmed.backup_codes.len(), 10);
    // Who has one completes the sign-in, and adds no other.
    assert_eq!(reason(running.begin_enrolment(&challenge).await), Reason::SecondFactorRequired);
    assert_eq!(reason(confirm(&code).await), Reason::SecondFactorRequired);
    let completed = running.complete(&challenge, &code).await.unwrap();
    let user = running.fixture.verify(&completed.access_token).await;
    assert!(user.has_used("mfa"));
    assert_eq!(running.changes().await, ["added"]);
    let next = running.challenge("").await;
    assert_eq!(reason(running.complete(&next, &code).await), Reason::CodeInvalid, "it was used");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn within_the_grace_period_a_user_is_told_when_they_need_one() {
    let running = Running::requiring(ConfigDuration::days(7)).await;
    let first = running.try_sign_in().await;
    let due = first.second_factor_required_time.unwrap();
    let week = TimeDelta::days(7);
    assert_eq!(due.seconds, (running.fixture.clock.now() + week).timestamp());
    let refresh = async |token: &str| running.fixture.refresh(token).await;
    running.fixture.clock.advance(Duration::from_hours(24));
    let second = running.try_sign_in().await;
    assert_eq!(second.second_factor_required_time, Some(due), "it does not begin anew");
    refresh(first.refresh_token.as_deref().unwrap()).await.unwrap();
    running.fixture.clock.advance(Duration::from_hours(6 * 24));
    assert!(running.try_sign_in().await.challenge.unwrap().enrolment_required);
    let second = second.refresh_token.unwrap();
    assert_eq!(reason(refresh(&second).await), Reason::SecondFactorRequired);
    // It did not use up the token.
    running.has_roles(&["member"]);
    refresh(&second).await.unwrap();
    assert_eq!(running.try_sign_in().await.second_factor_required_time, None, "other roles need none");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_a_second_factor_keeps_the_last_one() {
    let running = Running::requiring(ConfigDuration::days(7)).await;
    let (user, ..) = running.with_app().await;
    let only = running.factors(&user).await.factors[0].id.clone();
    assert_eq!(reason(running.remove(&user, &only).await), Reason::LastFactor);
    let disable = from_outside(DisableMfaRequest {}, Some(Arc::clone(&user)));
    assert_eq!(reason(running.fixture.service.mfa.disable_mfa(disable).await), Reason::LastFactor);
    running.later();
    running.add_app(&user).await;
    running.remove(&user, &only).await.unwrap();
    running.stop().await;
}
