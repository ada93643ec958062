//! Trusted devices: sign-ins on them need no second factor for a time.

use drystone::auth::v1::{
    ListTrustedDevicesRequest, RevokeTrustedDeviceRequest, RevokeTrustedDevicesRequest, SignInResponse, TrustedDevice,
};
use drystone_mesh::config::ConfigDuration;

use super::*;
use crate::{
    Config,
    config::MfaConfig,
    tests::fixture::{Fixture, fast_hashing},
};

const NEW_PASSWORD: &str = "a new horse in the stable";

/// A configuration in which devices can be trusted for this time.
fn trusting(trusted_device_lifetime: ConfigDuration) -> Config {
    Config { mfa: MfaConfig { trusted_device_lifetime, ..MfaConfig::default() }, ..fast_hashing() }
}

impl Running {
    /// Like [`Self::with_verified_account`], where devices can be trusted for 30 days.
    async fn trusting() -> Self {
        let fixture = Fixture::with_account().await.restart(trusting(ConfigDuration::days(30))).await;
        let running = Self::of(fixture);
        running.verify_all();
        running
    }

    fn verify_all(&self) {
        for user in self.fixture.upstreams.state().users.values_mut() {
            user.email_verified = true;
        }
    }

    /// Completes a sign-in, and has the device remembered.
    async fn remember(&self, challenge: &SignInChallenge, totp: &str, backup: &str) -> CompleteSignInResponse {
        let request = CompleteSignInRequest {
            challenge_token: challenge.challenge_token.clone(),
            totp_code: totp.to_owned(),
            backup_code: backup.to_owned(),
            passkey: String::new(),
            remember_device: true,
        };
        self.fixture.service.auth.complete_sign_in(from_outside(request, None)).await.unwrap().into_inner()
    }

    /// A user with an authenticator app, whose code of now is used, and the device token of a trusted device.
    async fn with_trusted_device(&self) -> (Arc<Principal>, App, String) {
        let (user, app, _) = self.with_app().await;
        self.later();
        let completed = self.remember(&self.challenge("").await, &app.code(self), "").await;
        (user, app, completed.device_token)
    }

    /// The response to a sign-in whose password is right.
    async fn log_in(&self, email: &str, password: &str, device_token: &str) -> SignInResponse {
        let request = SignInRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            device_token: device_token.to_owned(),
        };
        self.fixture.service.auth.sign_in(from_outside(request, None)).await.unwrap().into_inner()
    }

    /// Signs in with the password alone, on a trusted device.
    async fn sign_in_trusted(&self, device_token: &str) -> SignInResponse {
        let response = self.log_in(EMAIL, PASSWORD, device_token).await;
        assert_eq!(response.challenge, None);
        response
    }

    async fn trusted_devices(&self, by: &Arc<Principal>) -> Vec<TrustedDevice> {
        let request = from_outside(ListTrustedDevicesRequest {}, Some(Arc::clone(by)));
        self.fixture.service.mfa.list_trusted_devices(request).await.unwrap().into_inner().trusted_devices
    }

    async fn revoke(&self, by: &Arc<Principal>, id: &str) -> Result<(), Status> {
        let request = from_outside(RevokeTrustedDeviceRequest { id: id.to_owned() }, Some(Arc::clone(by)));
        self.fixture.service.mfa.revoke_trusted_device(request).await.map(drop)
    }

    async fn revoke_all(&self, by: &Arc<Principal>) -> i32 {
        let request = from_outside(RevokeTrustedDevicesRequest {}, Some(Arc::clone(by)));
        self.fixture.service.mfa.revoke_trusted_devices(request).await.unwrap().into_inner().revoked_count
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_trusted_device_the_password_suffices_and_the_session_is_one_of_it_alone() {
    let running = Running::trusting().await;
    let (_, app, token) = running.with_trusted_device().await;
    let response = running.sign_in_trusted(&token).await;
    let access = response.access_token.as_deref().unwrap();
    let signed_in = running.fixture.verify(access).await;
    assert_eq!(amr_of(access), ["pwd"]);
    assert_eq!(running.fixture.upstreams.state().sessions[&signed_in.session_id].amr, ["pwd"]);
    let refreshed = running.fixture.refresh(response.refresh_token.as_deref().unwrap()).await.unwrap().into_inner();
    assert_eq!(amr_of(&refreshed.access_token), ["pwd"]);
    running.later();
    running.sign_in_trusted(response.device_token.as_deref().unwrap()).await;
    let newest = running.sign_ins(&signed_in, 0).await.remove(0);
    assert_eq!((newest.method(), newest.outcome()), (SignInMethod::Password, SignInOutcome::Succeeded));
    assert!(!newest.is_new_device);

    let request = SignInRequest { email: EMAIL.to_owned(), password: "wrong horse".to_owned(), device_token: token };
    let refused = running.fixture.service.auth.sign_in(from_outside(request, None)).await;
    assert_eq!(reason(refused), Reason::InvalidCredentials);
    // Changes of second factors, of the password and of the address ask for one.
    let changed = running.change(&signed_in, PASSWORD, NEW_PASSWORD).await;
    assert_eq!(reason(changed), Reason::SecondFactorRequired);
    assert_eq!(
        reason(running.change_email(&signed_in, PASSWORD, "new@example.com").await),
        Reason::SecondFactorRequired
    );
    let factor = running.factors(&signed_in).await.factors[0].id.clone();
    assert_eq!(reason(running.begin(&signed_in).await), Reason::SecondFactorRequired);
    assert_eq!(reason(running.remove(&signed_in, &factor).await), Reason::SecondFactorRequired);
    assert_eq!(reason(running.verify(&signed_in, [PASSWORD, "", ""]).await), Reason::SecondFactorRequired);
    running.later();
    let raised = running.verify(&signed_in, ["", &app.code(&running), ""]).await.unwrap();
    assert_eq!(raised.amr, ["pwd", "otp", "mfa"]);
    running.remove(&running.refreshed(&signed_in), &factor).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_token_of_the_trusted_device_itself_is_trusted() {
    let running = Running::trusting().await;
    let (_, app, _) = running.with_app().await;
    running.later();
    let known = running.complete(&running.challenge("").await, &app.code(&running)).await.unwrap();
    assert_eq!(known.trusted_until, None);
    running.later();
    let completed = running.remember(&running.challenge(&known.device_token).await, &app.code(&running), "").await;
    assert_ne!(completed.trusted_until, None);
    running.sign_in_trusted(&completed.device_token).await;
    running.challenge("").await;
    running.challenge("ddt_forged").await;
    // A copy of the token from before the device was trusted.
    running.challenge(&known.device_token).await;

    let (other, password) = ("bob@example.com", "another horse");
    running.fixture.register(other, password, "").await.unwrap();
    running.verify_all();
    let tokens = running.fixture.sign_in(other, password).await.unwrap().into_inner();
    let (bobs, _) = running.add_app(&running.fixture.verify(&tokens.access_token).await).await;
    running.later();
    let challenge = running.log_in(other, password, &completed.device_token).await.challenge.unwrap();
    let trusted = running.remember(&challenge, &bobs.code(&running), "").await.device_token;
    assert_eq!(running.log_in(other, password, &trusted).await.challenge, None);
    running.challenge(&trusted).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trust_ends_after_the_time_that_is_configured_and_is_forgotten() {
    let running = Running::trusting().await;
    let (user, _, token) = running.with_trusted_device().await;
    let listed = running.trusted_devices(&user).await.remove(0);
    let now = running.fixture.clock.now().timestamp();
    let times = [listed.create_time, listed.expire_time].map(|time| time.unwrap().seconds);
    assert_eq!(times, [now, now + 30 * 86_400]);
    running.fixture.clock.advance(Duration::from_secs(30 * 86_400 - 1));
    // A sign-in does not prolong it.
    running.sign_in_trusted(&token).await;
    running.fixture.clock.advance(Duration::from_secs(1));
    running.challenge(&token).await;
    assert_eq!(running.trusted_devices(&user).await, []);
    running.fixture.store.forget_trusted_devices(running.fixture.clock.now()).await.unwrap();
    assert_eq!(count(&running, "trusted_device").await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_no_device_is_trusted_and_a_shorter_time_counts_for_those_that_are() {
    let running = Running::with_verified_account().await;
    let (user, app, _) = running.with_app().await;
    running.later();
    let completed = running.remember(&running.challenge("").await, &app.code(&running), "").await;
    assert_eq!((completed.trusted_until, count(&running, "trusted_device").await), (None, 0));
    running.challenge(&completed.device_token).await;

    let running = running.restart(trusting(ConfigDuration::days(30))).await;
    running.later();
    let token = running.remember(&running.challenge("").await, &app.code(&running), "").await.device_token;
    let running = running.restart(trusting(ConfigDuration::hours(2))).await;
    running.fixture.clock.advance(Duration::from_hours(1));
    running.sign_in_trusted(&token).await;
    let listed = running.trusted_devices(&user).await.remove(0);
    assert_eq!(listed.expire_time.unwrap().seconds - listed.create_time.unwrap().seconds, 2 * 3600);
    running.fixture.clock.advance(Duration::from_hours(1));
    running.challenge(&token).await;
    assert_eq!(running.trusted_devices(&user).await, []);
    let running = running.restart(fast_hashing()).await;
    running.challenge(&token).await;
    assert_eq!(running.revoke_all(&user).await, 1, "also while no device is trusted");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trusted_devices_are_listed_and_revoked_in_any_session_of_their_user() {
    let running = Running::trusting().await;
    let (user, _, codes) = running.with_app().await;
    running.later();
    // By a backup code as well.
    let first = running.remember(&running.challenge("").await, "", &codes[0]).await.device_token;
    running.later();
    let second = running.remember(&running.challenge("").await, "", &codes[1]).await.device_token;
    let response = running.sign_in_trusted(&second).await;
    let signed_in = running.fixture.verify(response.access_token.as_deref().unwrap()).await;
    let listed = running.trusted_devices(&signed_in).await;
    assert_eq!((listed.len(), listed[0].device.as_str()), (2, "test"), "newest first");
    assert!(listed[0].last_use_time.is_some() && listed[1].last_use_time.is_none());

    running.fixture.register("bob@example.com", "another horse", "").await.unwrap();
    let tokens = running.fixture.sign_in("bob@example.com", "another horse").await.unwrap().into_inner();
    let bob = running.fixture.verify(&tokens.access_token).await;
    assert_eq!(reason(running.revoke(&bob, &listed[1].id).await), Reason::DeviceNotFound);
    assert_eq!((running.revoke_all(&bob).await, running.trusted_devices(&bob).await), (0, Vec::new()));

    running.revoke(&signed_in, &listed[1].id).await.unwrap();
    assert_eq!(reason(running.revoke(&signed_in, &listed[1].id).await), Reason::DeviceNotFound);
    running.challenge(&first).await;
    running.sign_in_trusted(&second).await;
    assert_eq!((running.revoke_all(&user).await, running.revoke_all(&user).await), (1, 0));
    running.challenge(&second).await;
    assert!(running.fixture.upstreams.state().sessions.contains_key(&signed_in.session_id), "sessions stay");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sign_in_on_a_device_that_is_revoked_meanwhile_needs_the_second_factor() {
    let running = Arc::new(Running::trusting().await);
    let (user, app, token) = running.with_trusted_device().await;
    let gate = Arc::new(tokio::sync::Notify::new());
    running.fixture.upstreams.state().calls.clear();
    running.fixture.upstreams.state().session_gate = Some(Arc::clone(&gate));
    let sign_in = tokio::spawn({
        let running = Arc::clone(&running);
        async move { running.challenge(&token).await }
    });
    while !running.fixture.upstreams.state().calls.contains(&"start_session") {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.revoke_all(&user).await, 1);
    gate.notify_one();
    let challenge = sign_in.await.unwrap();
    running.fixture.upstreams.state().session_gate = None;
    running.later();
    running.complete(&challenge, &app.code(&running)).await.unwrap();
    Arc::into_inner(running).unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_password_ends_the_trust_in_devices() {
    let running = Running::trusting().await;
    let (user, app, token) = running.with_trusted_device().await;
    running.change(&user, PASSWORD, NEW_PASSWORD).await.unwrap();
    let challenge = running.log_in(EMAIL, NEW_PASSWORD, &token).await.challenge.unwrap();
    running.later();
    let token = running.remember(&challenge, &app.code(&running), "").await.device_token;
    assert_eq!(running.log_in(EMAIL, NEW_PASSWORD, &token).await.challenge, None);
    running.request(EMAIL).await;
    running.reset(&running.link().await, "yet another horse in the stable").await.unwrap();
    assert_ne!(running.log_in(EMAIL, "yet another horse in the stable", &token).await.challenge, None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_an_account_back_ends_the_trust_in_devices() {
    let running = Running::trusting().await;
    let (user, _, token) = running.with_trusted_device().await;
    running.sign_in_trusted(&token).await;
    let link = running.link_in("new_device", "report-sign-in").await;
    running.report_sign_in(&link).await.unwrap();
    assert_eq!(count(&running, "trusted_device").await, 0);
    assert_eq!(running.factors(&user).await.factors.len(), 1, "the factor stays");
    running.reset(&running.link().await, NEW_PASSWORD).await.unwrap();
    assert_ne!(running.log_in(EMAIL, NEW_PASSWORD, &token).await.challenge, None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_last_factor_the_trust_in_devices_ends() {
    let running = Running::trusting().await;
    let (user, _, token) = running.with_trusted_device().await;
    let request = from_outside(DisableMfaRequest {}, Some(Arc::clone(&user)));
    running.fixture.service.mfa.disable_mfa(request).await.unwrap();
    assert_eq!(count(&running, "trusted_device").await, 0);
    running.sign_in(PASSWORD).await.expect("a password suffices");
    running.later();
    running.add_app(&user).await;
    running.challenge(&token).await;
    running.stop().await;
}
