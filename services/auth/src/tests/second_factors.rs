//! Second factors: authenticator apps, backup codes, and sign-ins that they complete. Codes are those of `totp-rs`.

mod model;
mod requirement;
mod resets;
mod sign_in;
mod timing;
mod trusted_devices;

use std::{sync::Arc, time::Duration};

use chrono::TimeDelta;
use drystone::auth::v1::{
    BeginTotpRequest, BeginTotpResponse, CompleteSignInRequest, CompleteSignInResponse, ConfirmTotpRequest,
    ConfirmTotpResponse, DisableMfaRequest, FactorKind, ListFactorsRequest, ListFactorsResponse,
    RegenerateBackupCodesRequest, RemoveFactorRequest, RenameFactorRequest, ResetFactorsRequest, SignIn,
    SignInChallenge, SignInMethod, SignInOutcome, SignInRequest, VerifyCredentialRequest, VerifyCredentialResponse,
    auth_service_server::AuthService, mfa_service_server::MfaService,
};
use drystone_mesh::{error::Reason, token::Principal};
use tonic::Status;
use totp_rs::{Secret, Totp};

use super::{
    fake::Availability,
    fixture::{EMAIL, PASSWORD, as_operator, from_outside},
    reason,
    running::Running,
};

/// An authenticator app of a user.
struct App(Totp);

impl App {
    fn of(begun: &BeginTotpResponse) -> Self {
        Self(Totp::from_url(&begun.uri).unwrap())
    }

    /// The code that it shows now.
    fn code(&self, running: &Running) -> String {
        self.code_in(running, TimeDelta::zero())
    }

    fn code_in(&self, running: &Running, later: TimeDelta) -> String {
        self.0.generate((running.fixture.clock.now() + later).timestamp().cast_unsigned()).to_string()
    }
}

/// A code that is wrong, now and for a long time.
const WRONG: &str = "000000";

impl Running {
    async fn begin(&self, by: &Arc<Principal>) -> Result<BeginTotpResponse, Status> {
        let request = BeginTotpRequest { display_name: "Phone".to_owned() };
        let request = from_outside(request, Some(Arc::clone(by)));
        Ok(self.fixture.service.mfa.begin_totp(request).await?.into_inner())
    }

    async fn confirm(&self, by: &Arc<Principal>, factor_id: &str, code: &str) -> Result<ConfirmTotpResponse, Status> {
        let request = ConfirmTotpRequest { factor_id: factor_id.to_owned(), code: code.to_owned() };
        let request = from_outside(request, Some(Arc::clone(by)));
        Ok(self.fixture.service.mfa.confirm_totp(request).await?.into_inner())
    }

    /// A user with an authenticator app, and backup codes. Its code of now is used.
    async fn with_app(&self) -> (Arc<Principal>, App, Vec<String>) {
        let user = self.sign_in(PASSWORD).await.unwrap();
        let (app, codes) = self.add_app(&user).await;
        (self.refreshed(&user), app, codes)
    }

    /// The user of the next token of the session.
    fn refreshed(&self, user: &Principal) -> Arc<Principal> {
        let amr = self.fixture.upstreams.state().sessions[&user.session_id].amr.clone();
        Arc::new(Principal { amr, ..user.clone() })
    }

    /// Like [`Self::with_account`], with an address that is verified.
    async fn with_verified_account() -> Self {
        let running = Self::with_account().await;
        running.verify_addresses();
        running
    }

    fn verify_addresses(&self) {
        for user in self.fixture.upstreams.state().users.values_mut() {
            user.email_verified = true;
        }
    }

    async fn add_app(&self, user: &Arc<Principal>) -> (App, Vec<String>) {
        let begun = self.begin(user).await.unwrap();
        let app = App::of(&begun);
        let confirmed = self.confirm(user, &begun.factor_id, &app.code(self)).await.unwrap();
        (app, confirmed.backup_codes)
    }

    async fn factors(&self, by: &Arc<Principal>) -> ListFactorsResponse {
        let request = from_outside(ListFactorsRequest {}, Some(Arc::clone(by)));
        self.fixture.service.mfa.list_factors(request).await.unwrap().into_inner()
    }

    async fn remove(&self, by: &Arc<Principal>, id: &str) -> Result<(), Status> {
        let request = from_outside(RemoveFactorRequest { id: id.to_owned() }, Some(Arc::clone(by)));
        self.fixture.service.mfa.remove_factor(request).await.map(drop)
    }

    async fn challenge(&self, device_token: &str) -> SignInChallenge {
        let request = SignInRequest {
            email: EMAIL.to_owned(),
            password: PASSWORD.to_owned(),
            device_token: device_token.to_owned(),
        };
        let response = self.fixture.service.auth.sign_in(from_outside(request, None)).await.unwrap().into_inner();
        assert_eq!((&response.access_token, &response.refresh_token, &response.session_id), (&None, &None, &None));
        assert_eq!((&response.device_token, &response.user_id), (&None, &None), "a challenge grants nothing");
        response.challenge.unwrap()
    }

    async fn complete(&self, challenge: &SignInChallenge, totp: &str) -> Result<CompleteSignInResponse, Status> {
        self.complete_with(challenge, totp, "").await
    }

    async fn complete_with(
        &self,
        challenge: &SignInChallenge,
        totp: &str,
        backup: &str,
    ) -> Result<CompleteSignInResponse, Status> {
        let request = CompleteSignInRequest {
            challenge_token: challenge.challenge_token.clone(),
            totp_code: totp.to_owned(),
            backup_code: backup.to_owned(),
            ..CompleteSignInRequest::default()
        };
        Ok(self.fixture.service.auth.complete_sign_in(from_outside(request, None)).await?.into_inner())
    }

    async fn verify(
        &self,
        by: &Arc<Principal>,
        [password, totp, backup]: [&str; 3],
    ) -> Result<VerifyCredentialResponse, Status> {
        let request = VerifyCredentialRequest {
            password: password.to_owned(),
            totp_code: totp.to_owned(),
            backup_code: backup.to_owned(),
            passkey: String::new(),
        };
        let request = from_outside(request, Some(Arc::clone(by)));
        Ok(self.fixture.service.auth.verify_credential(request).await?.into_inner())
    }

    fn later(&self) {
        self.fixture.clock.advance(Duration::from_secs(30));
    }

    /// What the user was told, sorted.
    async fn changes(&self) -> Vec<String> {
        let messages = self.messages("second_factor_changed").await;
        let mut changes: Vec<String> = messages.iter().map(|message| message.parameters["change"].clone()).collect();
        changes.extend(self.messages("second_factor_added").await.iter().map(|_| "added".to_owned()));
        assert_eq!(
            self.messages("second_factor_added").await.len(),
            self.messages("second_factor_added_notice").await.len()
        );
        changes.sort_unstable();
        changes
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_is_added_by_a_code_that_it_shows() {
    let running = Running::with_account().await;
    let stranger = running.sign_in(PASSWORD).await.unwrap();
    assert_eq!(reason(running.begin(&stranger).await), Reason::EmailNotVerified);
    running.stop().await;
    let running = Running::with_verified_account().await;
    let other = running.sign_in(PASSWORD).await.unwrap();
    let user = running.sign_in(PASSWORD).await.unwrap();
    let begun = running.begin(&user).await.unwrap();
    let app = App::of(&begun);
    assert_eq!((app.0.issuer(), app.0.account_name()), (Some("id.example.com"), EMAIL));
    assert!(begun.uri.contains(&format!("secret={}&", begun.secret)), "{}", begun.uri);
    assert_eq!(read_qr_code(&begun.qr_code_svg), begun.uri);
    assert_eq!(running.factors(&user).await, ListFactorsResponse::default(), "not yet");
    running.sign_in(PASSWORD).await.expect("a password suffices until it is confirmed");

    assert_eq!(reason(running.confirm(&user, &begun.factor_id, WRONG).await), Reason::CodeInvalid);
    let stranger = uuid::Uuid::now_v7().to_string();
    assert_eq!(reason(running.confirm(&user, &stranger, &app.code(&running)).await), Reason::FactorNotFound);
    let confirmed = running.confirm(&user, &begun.factor_id, &app.code(&running)).await.unwrap();
    assert_eq!(confirmed.backup_codes.len(), 10);
    assert!(confirmed.sessions_ended && !running.fixture.upstreams.state().sessions.contains_key(&other.session_id));
    assert_eq!(running.fixture.upstreams.state().sessions[&user.session_id].amr, ["pwd", "otp", "mfa"]);
    let user = running.refreshed(&user);
    assert_eq!(reason(running.confirm(&user, &begun.factor_id, &app.code(&running)).await), Reason::FactorNotFound);
    let listed = running.factors(&user).await;
    assert_eq!((listed.factors.len(), listed.backup_codes_left), (1, 10));
    let factor = &listed.factors[0];
    assert_eq!((factor.id.as_str(), factor.display_name.as_str()), (begun.factor_id.as_str(), "Phone"));
    assert_eq!((factor.kind(), confirmed.factor.as_ref()), (FactorKind::Totp, Some(factor)));
    assert_eq!(running.changes().await, ["added"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_was_begun_is_forgotten_after_a_while_and_by_the_next() {
    let running = Running::with_verified_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let (first, second) = (running.begin(&user).await.unwrap(), running.begin(&user).await.unwrap());
    let code = App::of(&first).code(&running);
    assert_eq!(reason(running.confirm(&user, &first.factor_id, &code).await), Reason::FactorNotFound);
    running.fixture.clock.advance(Duration::from_mins(15));
    let code = App::of(&second).code(&running);
    assert_eq!(reason(running.confirm(&user, &second.factor_id, &code).await), Reason::FactorNotFound);
    running.fixture.store.forget_factors(running.fixture.clock.now() + TimeDelta::seconds(1)).await.unwrap();
    assert_eq!(count(&running, "factor").await, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_second_factor_there_are_no_backup_codes() {
    let running = Running::with_verified_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let request = from_outside(RegenerateBackupCodesRequest {}, Some(Arc::clone(&user)));
    let refused = running.fixture.service.mfa.regenerate_backup_codes(request).await;
    assert_eq!(reason(refused), Reason::NoSecondFactor);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_last_app_the_backup_codes_are_removed() {
    let running = Running::with_verified_account().await;
    let (user, _, _) = running.with_app().await;
    let (_, codes) = running.add_app(&user).await;
    assert!(codes.is_empty(), "with the first one only");
    let factors = running.factors(&user).await.factors;
    assert_eq!(factors.len(), 2);
    let rename = |by: &Arc<Principal>, id: &str| {
        let request = RenameFactorRequest { id: id.to_owned(), display_name: "Tablet".to_owned() };
        running.fixture.service.mfa.rename_factor(from_outside(request, Some(Arc::clone(by))))
    };
    assert_eq!(rename(&user, &factors[1].id).await.unwrap().into_inner().display_name, "Tablet");
    running.fixture.register("bob@example.com", "another horse", "").await.unwrap();
    let tokens = running.fixture.sign_in("bob@example.com", "another horse").await.unwrap().into_inner();
    let bob = running.fixture.verify(&tokens.access_token).await;
    assert_eq!(reason(rename(&bob, &factors[1].id).await), Reason::FactorNotFound);
    assert_eq!(reason(running.remove(&bob, &factors[1].id).await), Reason::FactorNotFound);

    running.remove(&user, &factors[0].id).await.unwrap();
    assert_eq!(reason(running.remove(&user, &factors[0].id).await), Reason::FactorNotFound);
    assert_eq!(running.factors(&user).await.backup_codes_left, 10);
    running.challenge("").await;
    running.remove(&user, &factors[1].id).await.unwrap();
    assert_eq!(running.factors(&user).await, ListFactorsResponse::default());
    assert_eq!((count(&running, "backup_code").await, count(&running, "challenge").await), (0, 0));
    running.sign_in(PASSWORD).await.expect("a password suffices");
    assert_eq!(running.changes().await, ["added", "added", "removed", "removed"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_ten_apps_at_most() {
    let running = Running::with_verified_account().await;
    let (user, _, _) = running.with_app().await;
    for _ in 1..10 {
        running.add_app(&user).await;
    }
    assert_eq!(reason(running.begin(&user).await), Reason::TooManyFactors);
    assert_eq!(running.factors(&user).await.factors.len(), 10);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_switch_their_second_factors_off_and_operators_those_of_others() {
    let running = Running::with_verified_account().await;
    let (user, _, _) = running.with_app().await;
    let disable = || {
        let request = from_outside(DisableMfaRequest {}, Some(Arc::clone(&user)));
        running.fixture.service.mfa.disable_mfa(request)
    };
    disable().await.unwrap();
    disable().await.unwrap();
    assert_eq!(running.changes().await, ["added", "disabled"]);
    running.sign_in(PASSWORD).await.unwrap();

    running.add_app(&running.refreshed(&user)).await;
    running.fixture.upstreams.state().ended.clear();
    let reset = || {
        let request = ResetFactorsRequest { user_id: user.user_id.to_string() };
        running.fixture.service.mfa.reset_factors(as_operator(request))
    };
    assert!(reset().await.unwrap().into_inner().sessions_ended);
    assert!(reset().await.unwrap().into_inner().sessions_ended);
    assert_eq!(running.fixture.upstreams.state().ended, [(user.user_id, None); 2], "each time");
    running.sign_in(PASSWORD).await.unwrap();
    assert_eq!(running.changes().await, ["added", "added", "disabled", "reset"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_raised_by_the_strongest_that_its_user_has() {
    let running = Running::with_verified_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    running.fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(reason(running.verify(&user, ["wrong horse", "", ""]).await), Reason::InvalidCredentials);
    assert_eq!(reason(running.verify(&user, ["", WRONG, ""]).await), Reason::CodeInvalid);
    for none_or_several in [["", "", ""], [PASSWORD, WRONG, ""], [PASSWORD, "", "0000-0000-0000"]] {
        assert_eq!(reason(running.verify(&user, none_or_several).await), Reason::InvalidRequest);
    }
    let raised = running.verify(&user, [PASSWORD, "", ""]).await.unwrap();
    assert_eq!(raised.amr, ["pwd"]);
    assert_eq!(raised.auth_time.unwrap().seconds, running.fixture.clock.now().timestamp());

    let (app, codes) = running.add_app(&user).await;
    running.fixture.clock.advance(Duration::from_hours(1));
    assert_eq!(reason(running.verify(&user, [PASSWORD, "", ""]).await), Reason::SecondFactorRequired);
    let code = app.code(&running);
    let raised = running.verify(&user, ["", &code, ""]).await.unwrap();
    assert_eq!(raised.amr, ["pwd", "otp", "mfa"]);
    assert_eq!(raised.auth_time.unwrap().seconds, running.fixture.clock.now().timestamp());
    assert_eq!(reason(running.verify(&user, ["", &code, ""]).await), Reason::CodeInvalid, "it serves once");
    running.verify(&user, ["", "", &codes[3]]).await.unwrap();
    assert_eq!(running.changes().await, ["added", "backup_code_used"]);
    for _ in 0..5 {
        assert_eq!(reason(running.verify(&user, ["", WRONG, ""]).await), Reason::CodeInvalid);
    }
    assert_eq!(reason(running.verify(&user, ["", WRONG, ""]).await), Reason::RateLimited);
    running.later();
    running
        .complete(&running.challenge("").await, &app.code(&running))
        .await
        .expect("who has stolen a token locks nobody out");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_a_password_alone_changes_no_second_factor() {
    let running = Running::with_verified_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let id = {
        let begun = running.begin(&user).await.unwrap();
        running.confirm(&user, &begun.factor_id, &App::of(&begun).code(&running)).await.unwrap();
        begun.factor_id
    };
    let by = || from_outside((), Some(Arc::clone(&user)));
    let mfa = &running.fixture.service.mfa;
    assert_eq!(reason(running.begin(&user).await), Reason::SecondFactorRequired);
    assert_eq!(reason(running.confirm(&user, &id, WRONG).await), Reason::SecondFactorRequired);
    assert_eq!(reason(running.remove(&user, &id).await), Reason::SecondFactorRequired);
    assert_eq!(reason(mfa.disable_mfa(by().map(|()| DisableMfaRequest {})).await), Reason::SecondFactorRequired);
    let regenerated = mfa.regenerate_backup_codes(by().map(|()| RegenerateBackupCodesRequest {})).await;
    assert_eq!(reason(regenerated), Reason::SecondFactorRequired);
    running.remove(&running.refreshed(&user), &uuid::Uuid::nil().to_string()).await.unwrap_err();
    running.remove(&running.refreshed(&user), &id).await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_an_account_back_keeps_their_own_factors_alone() {
    let running = Running::with_verified_account().await;
    let (user, own, _) = running.with_app().await;
    running.fixture.clock.advance(Duration::from_mins(5));
    running.complete(&running.challenge("").await, &own.code(&running)).await.unwrap();
    let link = running.link_in("new_device", "report-sign-in").await;
    running.fixture.clock.advance(Duration::from_mins(1));
    running.add_app(&user).await;
    let request = from_outside(RegenerateBackupCodesRequest {}, Some(Arc::clone(&user)));
    running.fixture.service.mfa.regenerate_backup_codes(request).await.unwrap();
    assert_eq!(running.factors(&user).await.factors.len(), 2);
    running.report_sign_in(&link).await.unwrap();
    let left = running.factors(&user).await;
    assert_eq!((left.factors.len(), left.backup_codes_left), (1, 0));
    assert_eq!(own.0.account_name(), EMAIL);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mail_about_an_app_has_a_link_that_removes_it() {
    let running = Running::with_verified_account().await;
    let (user, _, _) = running.with_app().await;
    let link = running.link_in("second_factor_added", "report-sign-in").await;
    assert!(running.report_sign_in(&link).await.unwrap());
    assert_eq!(running.factors(&user).await, ListFactorsResponse::default());
    assert_eq!(reason(running.sign_in(PASSWORD).await), Reason::PasswordResetRequired);
    running.reset(&running.link().await, "a new horse in the stable").await.unwrap();
    running.sign_in("a new horse in the stable").await.unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_sealed_and_put_under_the_next_master_key() {
    let running = Running::with_verified_account().await;
    let user = running.sign_in(PASSWORD).await.unwrap();
    let begun = running.begin(&user).await.unwrap();
    let app = App::of(&begun);
    running.confirm(&user, &begun.factor_id, &app.code(&running)).await.unwrap();
    let stored: Vec<u8> = drystone_store::run!(running.fixture.store.db().reader(), |db| {
        sqlx::query_scalar("SELECT secret FROM factor").fetch_one(db).await.unwrap()
    });
    let secret = Secret::try_from_base32(&begun.secret).unwrap();
    assert!(!stored.windows(20).any(|window| window == secret.as_bytes()));
    assert_eq!(running.fixture.service.keys.rotation.rewrap().await.unwrap(), 6, "five keys and the secret");
    running.later();
    running.complete(&running.challenge("").await, &app.code(&running)).await.unwrap();
    running.stop().await;
}

fn amr_of(jwt: &str) -> Vec<String> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
    let claims: drystone_mesh::token::Claims = serde_json::from_slice(&payload).unwrap();
    claims.amr
}

async fn count(running: &Running, table: &str) -> i64 {
    let sql = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}"));
    drystone_store::run!(running.fixture.store.db().reader(), |db| {
        sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
    })
}

/// The text of a QR code, an image whose dark modules are rectangles `M x y h w v h`.
fn read_qr_code(svg: &str) -> String {
    let attribute = |name: &str| -> usize {
        let value = svg.split(&format!(" {name}=\"")).nth(1).unwrap().split('"').next().unwrap();
        value.parse().unwrap()
    };
    let (width, height) = (attribute("width"), attribute("height"));
    let mut pixels = vec![255; width * height];
    let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
    for rectangle in path.split('M').skip(1) {
        let numbers: Vec<usize> =
            rectangle.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
        let (x, y, w, h) = (numbers[0], numbers[1], numbers[2], numbers[3]);
        for row in y..y + h {
            pixels[row * width + x..row * width + x + w].fill(0);
        }
    }
    let mut image = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * width + x]);
    image.detect_grids()[0].decode().unwrap().1
}
