//! Authenticator apps and backup codes over REST and gRPC. Codes are those of `totp-rs`.

use std::time::{SystemTime, UNIX_EPOCH};

use drystone::{
    Reason,
    auth::v1::{
        BeginTotpRequest, CompleteSignInRequest, ConfirmTotpRequest, DisableMfaRequest, ListFactorsRequest,
        RegenerateBackupCodesRequest, RemoveFactorRequest, RenameFactorRequest, ResetFactorsRequest, SignInRequest,
        VerifyCredentialRequest, auth_service_client::AuthServiceClient, mfa_service_client::MfaServiceClient,
    },
    user::v1::{SetUserRolesRequest, user_service_client::UserServiceClient},
};
use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{
    User,
    grpc::{assert_refused, with_token},
    mails::{setup, start, wait_for_link, wait_for_subject},
    wait,
};
use serde_json::json;
use totp_rs::Totp;

use crate::calls::{challenge, claims, complete, post, verify_email};

/// An authenticator app that shows each code once: this one, and the next one a little early.
struct App {
    totp: Totp,
    shown: u64,
}

impl App {
    fn of(uri: &str) -> Self {
        Self { totp: Totp::from_url(uri).unwrap(), shown: 0 }
    }

    fn next_code(&mut self) -> String {
        let step = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 30;
        self.shown = step.max(self.shown + 1);
        self.totp.generate(self.shown * 30).to_string()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_adds_an_app_and_signs_in_with_it_over_rest() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let other = user.sign_in(&mesh).await;
    let token = Some(tokens.access.as_str());
    post(&mesh, "/v1/factors:beginTotp", json!({}), None).await.refused(Reason::TokenMissing);
    post(&mesh, "/v1/factors:beginTotp", json!({}), token).await.refused(Reason::EmailNotVerified);
    verify_email(&mesh, &smtp, &user).await;
    let begun = post(&mesh, "/v1/factors:beginTotp", json!({"displayName": "Phone"}), token).await.expect(200).json();
    assert!(begun["qrCodeSvg"].as_str().unwrap().contains("<svg"), "{begun}");
    let mut app = App::of(begun["uri"].as_str().unwrap());
    let confirm = json!({"factorId": begun["factorId"], "code": "000000"});
    post(&mesh, "/v1/factors:confirmTotp", confirm, token).await.refused(Reason::CodeInvalid);
    let confirm = json!({"factorId": begun["factorId"], "code": app.next_code()});
    let confirmed = post(&mesh, "/v1/factors:confirmTotp", confirm, token).await.expect(200).json();
    let codes: Vec<&str> =
        confirmed["backupCodes"].as_array().unwrap().iter().map(|code| code.as_str().unwrap()).collect();
    assert_eq!((codes.len(), &confirmed["sessionsEnded"]), (10, &json!(true)));
    mesh.rest().get("/v1/users/me").bearer(&other.access).send().await.refused(Reason::TokenRevoked);
    let told = wait_for_subject(&smtp, &user.email, "second factor").await;
    assert!(told.text.unwrap().contains("report-sign-in#token="));
    let refreshed =
        post(&mesh, "/v1/auth/refresh", json!({"refreshToken": tokens.refresh}), None).await.expect(200).json();
    assert_eq!(claims(refreshed["accessToken"].as_str().unwrap())["amr"], json!(["pwd", "otp", "mfa"]));

    let waiting = challenge(&mesh, &user, &user.password).await;
    assert_eq!(waiting["factors"], json!(["FACTOR_KIND_TOTP", "FACTOR_KIND_BACKUP_CODE"]));
    complete(&mesh, &waiting, "totpCode", "000000").await.refused(Reason::CodeInvalid);
    complete(&mesh, &json!({"challengeToken": "dsc_forged"}), "totpCode", "000000")
        .await
        .refused(Reason::ChallengeInvalid);
    let none = json!({"challengeToken": waiting["challengeToken"]});
    post(&mesh, "/v1/auth/login:complete", none, None).await.refused(Reason::InvalidRequest);
    let code = app.next_code();
    let completed = complete(&mesh, &waiting, "totpCode", code.as_str()).await.expect(200).json();
    let access = completed["accessToken"].as_str().unwrap();
    assert_eq!(claims(access)["amr"], json!(["pwd", "otp", "mfa"]));
    mesh.rest().get("/v1/users/me").bearer(access).send().await.expect(200);
    complete(&mesh, &waiting, "totpCode", code.as_str()).await.refused(Reason::ChallengeInvalid);
    let again = challenge(&mesh, &user, &user.password).await;
    complete(&mesh, &again, "totpCode", code.as_str()).await.refused(Reason::CodeInvalid);
    complete(&mesh, &again, "backupCode", codes[4]).await.expect(200);
    let listed = mesh.rest().get("/v1/factors").bearer(access).send().await.expect(200).json();
    assert_eq!((&listed["factors"][0]["displayName"], &listed["backupCodesLeft"]), (&json!("Phone"), &json!(9)));

    // A forgotten password is no way around it.
    post(&mesh, "/v1/password:requestReset", json!({"email": user.email}), None).await.expect(200);
    let link = wait_for_link(&smtp, &user.email, "reset-password", 0).await;
    let new = "a new horse in the stable";
    post(&mesh, "/v1/password:reset", json!({"token": link, "newPassword": new}), None).await.expect(200);
    let waiting = challenge(&mesh, &user, new).await;
    complete(&mesh, &waiting, "backupCode", codes[5]).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_factors_are_managed_over_grpc() {
    let (smtp, mesh) = start();
    let (user, mut tokens) = User::signed_in(&mesh).await;
    verify_email(&mesh, &smtp, &user).await;
    let (mut factors, mut auth) =
        (MfaServiceClient::new(mesh.channel("auth", "edge")), AuthServiceClient::new(mesh.channel("auth", "edge")));
    macro_rules! call {
        ($client:ident . $method:ident($request:expr)) => {
            $client.$method(with_token($request, &tokens.access)).await.map(tonic::Response::into_inner)
        };
    }
    assert_refused(call!(factors.regenerate_backup_codes(RegenerateBackupCodesRequest {})), Reason::NoSecondFactor);
    let begun = call!(factors.begin_totp(BeginTotpRequest::default())).unwrap();
    let mut app = App::of(&begun.uri);
    let confirm = ConfirmTotpRequest { factor_id: begun.factor_id.clone(), code: app.next_code() };
    let confirmed = call!(factors.confirm_totp(confirm.clone())).unwrap();
    assert_refused(call!(factors.confirm_totp(confirm)), Reason::SecondFactorRequired);
    // The token is that of the password alone.
    let refused = call!(factors.regenerate_backup_codes(RegenerateBackupCodesRequest {}));
    assert_refused(refused, Reason::SecondFactorRequired);
    tokens = tokens.refresh(mesh.rest()).await;
    let rename = |id: &str| RenameFactorRequest { id: id.to_owned(), display_name: "Tablet".to_owned() };
    assert_eq!(call!(factors.rename_factor(rename(&begun.factor_id))).unwrap().display_name, "Tablet");
    let unknown = uuid::Uuid::now_v7().to_string();
    assert_refused(call!(factors.rename_factor(rename(&unknown))), Reason::FactorNotFound);

    let verify = |password: &str, totp: &str, backup: &str| VerifyCredentialRequest {
        password: password.to_owned(),
        totp_code: totp.to_owned(),
        backup_code: backup.to_owned(),
        passkey: String::new(),
    };
    assert_refused(auth.verify_credential(verify("", "000000", "")).await, Reason::TokenMissing);
    assert_refused(call!(auth.verify_credential(verify(&user.password, "", ""))), Reason::SecondFactorRequired);
    assert_refused(call!(auth.verify_credential(verify("", "000000", ""))), Reason::CodeInvalid);
    assert_refused(call!(auth.verify_credential(verify("", "", ""))), Reason::InvalidRequest);
    let raised = call!(auth.verify_credential(verify("", &app.next_code(), ""))).unwrap();
    assert_eq!(raised.amr, ["pwd", "otp", "mfa"]);

    let login =
        SignInRequest { email: user.email.clone(), password: user.password.clone(), ..SignInRequest::default() };
    let waiting = auth.sign_in(login.clone()).await.unwrap().into_inner().challenge.unwrap();
    let complete = |backup: &str| CompleteSignInRequest {
        challenge_token: waiting.challenge_token.clone(),
        backup_code: backup.to_owned(),
        ..CompleteSignInRequest::default()
    };
    assert_refused(auth.complete_sign_in(complete("nonsense")).await, Reason::CodeInvalid);
    auth.complete_sign_in(complete(&confirmed.backup_codes[0])).await.unwrap();
    assert_refused(auth.complete_sign_in(complete(&confirmed.backup_codes[1])).await, Reason::ChallengeInvalid);
    let new = call!(factors.regenerate_backup_codes(RegenerateBackupCodesRequest {})).unwrap().backup_codes;
    assert_eq!(new.len(), 10);
    let listed = call!(factors.list_factors(ListFactorsRequest {})).unwrap();
    assert_eq!((listed.factors.len(), listed.backup_codes_left), (1, 10));

    assert_refused(call!(factors.remove_factor(RemoveFactorRequest { id: unknown })), Reason::FactorNotFound);
    call!(factors.remove_factor(RemoveFactorRequest { id: begun.factor_id })).unwrap();
    assert_eq!(call!(factors.list_factors(ListFactorsRequest {})).unwrap().factors, []);
    assert!(auth.sign_in(login.clone()).await.unwrap().into_inner().access_token.is_some());

    let begun = call!(factors.begin_totp(BeginTotpRequest::default())).unwrap();
    let code = App::of(&begun.uri).next_code();
    call!(factors.confirm_totp(ConfirmTotpRequest { factor_id: begun.factor_id, code })).unwrap();
    let reset = ResetFactorsRequest { user_id: claims(&tokens.access)["sub"].as_str().unwrap().to_owned() };
    assert_refused(factors.reset_factors(reset.clone()).await, Reason::TokenMissing);
    assert_refused(call!(factors.reset_factors(reset.clone())), Reason::PermissionMissing);
    let reset_again = reset.clone();
    let mut operator = MfaServiceClient::new(mesh.channel("auth", "operator"));
    assert!(operator.reset_factors(reset).await.unwrap().into_inner().sessions_ended);
    assert_refused(call!(factors.list_factors(ListFactorsRequest {})), Reason::TokenRevoked);
    assert!(operator.reset_factors(reset_again).await.unwrap().into_inner().sessions_ended);
    let again = auth.sign_in(login).await.unwrap().into_inner();
    let disable = with_token(DisableMfaRequest {}, again.access_token.as_deref().unwrap());
    factors.disable_mfa(disable).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_resets_the_second_factors_of_users_below_over_rest() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    verify_email(&mesh, &smtp, &user).await;
    let token = Some(tokens.access.as_str());
    let begun = post(&mesh, "/v1/factors:beginTotp", json!({}), token).await.expect(200).json();
    let code = App::of(begun["uri"].as_str().unwrap()).next_code();
    let confirm = json!({"factorId": begun["factorId"], "code": code});
    post(&mesh, "/v1/factors:confirmTotp", confirm, token).await.expect(200);
    post(&mesh, "/v1/factors:cancelReset", json!({}), token).await.refused(Reason::SecondFactorRequired);
    let tokens = tokens.refresh(mesh.rest()).await;
    post(&mesh, "/v1/factors:cancelReset", json!({}), Some(&tokens.access)).await.expect(200);

    let (administrator, before) = User::signed_in(&mesh).await;
    let mut operator = UserServiceClient::new(mesh.channel("user", "operator"));
    let roles = SetUserRolesRequest { id: administrator.id.clone(), roles: vec!["admin".to_owned()] };
    operator.set_user_roles(roles).await.unwrap();
    let by = before.refresh(mesh.rest()).await;
    let path = |user: &User| format!("/v1/users/{}/factors:reset", user.id);
    post(&mesh, &path(&user), json!({}), Some(&tokens.access)).await.refused(Reason::PermissionMissing);
    let own = path(&administrator);
    post(&mesh, &own, json!({}), Some(&by.access)).await.refused(Reason::AuthorityExceeded);
    let unknown = format!("/v1/users/{}/factors:reset", uuid::Uuid::now_v7());
    post(&mesh, &unknown, json!({}), Some(&by.access)).await.refused(Reason::UserNotFound);
    let reset = post(&mesh, &path(&user), json!({}), Some(&by.access)).await.expect(200).json();
    assert_eq!(reset["sessionsEnded"], json!(true));
    mesh.rest().get("/v1/users/me").bearer(&tokens.access).send().await.refused(Reason::TokenRevoked);
    let told = wait_for_subject(&smtp, &user.email, "have changed").await;
    assert!(told.text.unwrap().contains("An administrator removed the second factors"));
    user.sign_in(&mesh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_a_device_remembered_and_revokes_it() {
    let smtp = Smtp::start(SmtpOptions::default());
    let mesh = setup(&smtp).set("auth.mfa.trusted_device_lifetime", "30d").start();
    let (user, tokens) = User::signed_in(&mesh).await;
    verify_email(&mesh, &smtp, &user).await;
    let token = Some(tokens.access.as_str());
    let begun = post(&mesh, "/v1/factors:beginTotp", json!({}), token).await.expect(200).json();
    let mut app = App::of(begun["uri"].as_str().unwrap());
    let confirm = json!({"factorId": begun["factorId"], "code": app.next_code()});
    post(&mesh, "/v1/factors:confirmTotp", confirm, token).await.expect(200);
    // Device tokens have whole seconds, and those up to the first factor count for nothing.
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let confirmed_at = seconds();
    wait::until("the next second", async || (seconds() > confirmed_at).then_some(())).await;

    let waiting = challenge(&mesh, &user, &user.password).await;
    let body = json!({
        "challengeToken": waiting["challengeToken"], "totpCode": app.next_code(), "rememberDevice": true,
    });
    let completed = post(&mesh, "/v1/auth/login:complete", body, None).await.expect(200).json();
    assert!(completed["trustedUntil"].is_string(), "{completed}");
    let login = json!({"email": user.email, "password": user.password, "deviceToken": completed["deviceToken"]});
    let signed_in = post(&mesh, "/v1/auth/login", login.clone(), None).await.expect(200).json();
    let access = signed_in["accessToken"].as_str().unwrap();
    assert_eq!(claims(access)["amr"], json!(["pwd"]));
    post(&mesh, "/v1/factors:disable", json!({}), Some(access)).await.refused(Reason::SecondFactorRequired);

    let list = || mesh.rest().get("/v1/trustedDevices").bearer(access).send();
    let listed = list().await.expect(200).json();
    let device = &listed["trustedDevices"][0];
    assert_eq!(device["expireTime"], completed["trustedUntil"]);
    assert!(device["lastUseTime"].is_string(), "{device}");
    let path = format!("/v1/trustedDevices/{}", device["id"].as_str().unwrap());
    mesh.rest().delete(&path).bearer(access).send().await.expect(200);
    mesh.rest().delete(&path).bearer(access).send().await.refused(Reason::DeviceNotFound);
    assert_eq!(list().await.expect(200).json()["trustedDevices"], json!([]));
    let asked = post(&mesh, "/v1/auth/login", login, None).await.expect(200).json();
    assert!(asked["challenge"].is_object() && asked["accessToken"].is_null(), "{asked}");
    let revoked = post(&mesh, "/v1/trustedDevices:revokeAll", json!({}), Some(access)).await.expect(200).json();
    assert_eq!(revoked["revokedCount"], json!(0));
}

#[test]
fn what_an_attacker_wants_to_change_asks_for_a_recent_authentication() {
    let methods = drystone_tests::methods();
    let changes = [
        (
            "auth.v1.MfaService",
            &["BeginTotp", "ConfirmTotp", "RegenerateBackupCodes", "RemoveFactor", "DisableMfa", "ResetFactors"][..],
        ),
        ("auth.v1.PasskeyService", &["BeginPasskeyRegistration", "RegisterPasskey"]),
        ("auth.v1.PasswordService", &["ChangePassword"]),
        ("auth.v1.EmailService", &["ChangeEmail"]),
        ("user.v1.UserService", &["DeleteUser", "PurgeUser"]),
        ("user.v1.RoleService", &["CreateRole", "UpdateRole", "DeleteRole"]),
        ("user.v1.RoleService", &["GrantRole", "RevokeRole", "SetOverride", "RemoveOverride"]),
    ];
    for (service, names) in changes {
        for name in names {
            let path = format!("/drystone.{service}/{name}");
            let method = methods.iter().find(|method| *method.path == *path).unwrap();
            assert_eq!(method.max_auth_age, Some(std::time::Duration::from_mins(10)), "{path}");
        }
    }
}
