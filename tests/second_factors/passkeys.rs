//! Users register passkeys and sign in with them, over REST.

use drystone::Reason;
use drystone_backends::{Smtp, SmtpOptions};
use drystone_tests::{
    Mesh, RestResponse, Tokens, User,
    mails::{links, setup, wait_for_link, wait_for_subject},
    wait,
};
use serde_json::{Value, json};

use crate::{
    authenticator::{Authenticator, ORIGIN},
    calls::{challenge, claims, complete, post, verify_email},
};

/// A mesh with passkeys for [`ORIGIN`].
pub fn start() -> (Smtp, Mesh) {
    let smtp = Smtp::start(SmtpOptions::default());
    let origins = json!([ORIGIN, "https://example.org"]).to_string();
    let mesh = setup(&smtp).set("auth.passkeys.rp_id", "example.com").set("auth.passkeys.origins", &origins).start();
    (smtp, mesh)
}

/// A user with a verified address, and the tokens of a session.
pub async fn verified(mesh: &Mesh, smtp: &Smtp) -> (User, Tokens) {
    let (user, tokens) = User::signed_in(mesh).await;
    verify_email(mesh, smtp, &user).await;
    (user, tokens)
}

/// The options of a ceremony.
pub async fn begin(mesh: &Mesh, ceremony: &str, body: Value, token: Option<&str>) -> Value {
    let begun = post(mesh, &format!("/v1/passkeys:begin{ceremony}"), body, token).await.expect(200).json();
    assert!(begun["expireTime"].is_string(), "{begun}");
    begun["options"].clone()
}

pub async fn register(mesh: &Mesh, token: &str, credential: &Value) -> RestResponse {
    post(mesh, "/v1/passkeys:register", json!({"displayName": "Key", "credential": credential}), Some(token)).await
}

/// Registers a passkey of a device.
pub async fn add(mesh: &Mesh, device: &mut Authenticator, token: &str, fault: &Value) -> Value {
    let options = begin(mesh, "Registration", json!({}), Some(token)).await;
    register(mesh, token, &device.create(&options, fault)).await.expect(200).json()
}

pub async fn sign_in(mesh: &Mesh, credential: &Value) -> RestResponse {
    post(mesh, "/v1/passkeys:signIn", json!({"credential": credential}), None).await
}

/// Signs in with a passkey of a device alone.
pub async fn use_alone(mesh: &Mesh, device: &mut Authenticator, fault: &Value) -> RestResponse {
    let options = begin(mesh, "SignIn", json!({}), None).await;
    sign_in(mesh, &device.get(&options, fault)).await
}

/// New tokens of a session.
pub async fn refreshed(mesh: &Mesh, refresh: &str) -> Tokens {
    Tokens::of(&post(mesh, "/v1/auth/refresh", json!({"refreshToken": refresh}), None).await.expect(200).json())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_registers_a_passkey_and_signs_in_with_it_alone_and_after_a_password() {
    let (smtp, mesh) = start();
    let (user, tokens) = User::signed_in(&mesh).await;
    let other = user.sign_in(&mesh).await;
    let token = Some(tokens.access.as_str());
    let path = "/v1/passkeys:beginRegistration";
    post(&mesh, path, json!({}), None).await.refused(Reason::TokenMissing);
    post(&mesh, path, json!({}), token).await.refused(Reason::EmailNotVerified);
    verify_email(&mesh, &smtp, &user).await;

    let mut device = Authenticator::new();
    let options = begin(&mesh, "Registration", json!({}), token).await;
    assert_eq!(options["rp"], json!({"id": "example.com", "name": "127.0.0.1"}));
    assert_eq!((&options["user"]["name"], &options["excludeCredentials"]), (&json!(user.email), &json!([])));
    let registered = register(&mesh, &tokens.access, &device.create(&options, &json!({}))).await.expect(200).json();
    assert_eq!(registered["factor"]["kind"], "FACTOR_KIND_PASSKEY");
    assert_eq!(registered["backupCodes"].as_array().unwrap().len(), 10);
    mesh.rest().get("/v1/users/me").bearer(&other.access).send().await.refused(Reason::TokenRevoked);
    wait_for_subject(&smtp, &user.email, "second factor").await;
    // A registration proves nothing of the key: it is used once before the next one.
    let session = refreshed(&mesh, &tokens.refresh).await;
    let access = session.access.clone();
    assert_eq!(claims(&access)["amr"], json!(["pwd"]));
    post(&mesh, path, json!({}), Some(&access)).await.refused(Reason::SecondFactorRequired);
    let proof = device.get(&begin(&mesh, "Verification", json!({}), Some(&access)).await, &json!({}));
    post(&mesh, "/v1/auth/verify", json!({"passkey": proof}), Some(&access)).await.expect(200);
    let access = refreshed(&mesh, &session.refresh).await.access;
    assert_eq!(claims(&access)["amr"], json!(["pwd", "hwk", "user", "mfa"]));
    let options = begin(&mesh, "Registration", json!({}), Some(&access)).await;
    let again = device.answer("create", &options, &json!({}));
    assert!(again["error"].as_str().unwrap().contains("InvalidStateError"), "{again}");

    let alone = use_alone(&mesh, &mut device, &json!({})).await.expect(200).json();
    let access = alone["accessToken"].as_str().unwrap();
    assert_eq!(claims(access)["amr"], json!(["hwk", "user", "mfa"]));
    mesh.rest().get("/v1/users/me").bearer(access).send().await.expect(200);
    let history = mesh.rest().get("/v1/signIns").bearer(access).send().await.expect(200).json();
    assert_eq!(history["signIns"][0]["method"], "SIGN_IN_METHOD_PASSKEY", "{history}");

    // The password alone no longer suffices; the passkey completes it.
    let waiting = challenge(&mesh, &user, &user.password).await;
    assert_eq!(waiting["factors"], json!(["FACTOR_KIND_PASSKEY", "FACTOR_KIND_BACKUP_CODE"]));
    let of_challenge = json!({"challengeToken": waiting["challengeToken"]});
    let options = begin(&mesh, "SignIn", of_challenge, None).await;
    assert_eq!(options["allowCredentials"].as_array().unwrap().len(), 1);
    let proof = device.get(&options, &json!({}));
    sign_in(&mesh, &proof).await.refused(Reason::PasskeyInvalid);
    let completed = complete(&mesh, &waiting, "passkey", proof).await.expect(200).json();
    let amr = &claims(completed["accessToken"].as_str().unwrap())["amr"];
    assert_eq!(amr, &json!(["pwd", "hwk", "user", "mfa"]));

    // A device that sends its token is known, once that is from after the passkey, by the second.
    let mut device_token = alone["deviceToken"].clone();
    let access = wait::until("a sign-in on a known device", async || {
        let options = begin(&mesh, "SignIn", json!({}), None).await;
        let again = json!({"credential": device.get(&options, &json!({})), "deviceToken": device_token});
        let again = post(&mesh, "/v1/passkeys:signIn", again, None).await.expect(200).json();
        device_token = again["deviceToken"].clone();
        let access = again["accessToken"].as_str().unwrap();
        let history = mesh.rest().get("/v1/signIns").bearer(access).send().await.expect(200).json();
        (history["signIns"][0]["isNewDevice"] == false).then(|| access.to_owned())
    })
    .await;

    let id = registered["factor"]["id"].as_str().unwrap();
    mesh.rest().delete(&format!("/v1/factors/{id}")).bearer(&access).send().await.expect(200);
    use_alone(&mesh, &mut device, &json!({})).await.refused(Reason::PasskeyUnknown);
    user.sign_in(&mesh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passkey_raises_a_session() {
    let (smtp, mesh) = start();
    let (user, tokens) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    let none = post(&mesh, "/v1/passkeys:beginVerification", json!({}), Some(&tokens.access)).await;
    none.refused(Reason::NoSecondFactor);
    let synced = json!({"backup_eligible": true, "backed_up": true, "algorithm": -8});
    let registered = add(&mesh, &mut device, &tokens.access, &synced).await;
    let code = registered["backupCodes"][0].clone();

    let waiting = challenge(&mesh, &user, &user.password).await;
    let session = complete(&mesh, &waiting, "backupCode", code).await.expect(200).json();
    let access = session["accessToken"].as_str().unwrap();
    assert_eq!(claims(access)["amr"], json!(["pwd", "otp", "mfa"]));
    let options = begin(&mesh, "Verification", json!({}), Some(access)).await;
    let proof = device.get(&options, &json!({}));
    // It is for this session alone.
    let other = use_alone(&mesh, &mut device, &json!({})).await.expect(200).json();
    let verify = json!({"passkey": proof});
    let of_other = post(&mesh, "/v1/auth/verify", verify.clone(), other["accessToken"].as_str()).await;
    of_other.refused(Reason::PasskeyInvalid);
    // The counter of the sign-in between is higher.
    post(&mesh, "/v1/auth/verify", verify, Some(access)).await.refused(Reason::PasskeyInvalid);
    let options = begin(&mesh, "Verification", json!({}), Some(access)).await;
    let verify = json!({"passkey": device.get(&options, &json!({}))});
    let verified = post(&mesh, "/v1/auth/verify", verify.clone(), Some(access)).await.expect(200).json();
    assert_eq!(verified["amr"], json!(["pwd", "swk", "user", "mfa"]));
    post(&mesh, "/v1/auth/verify", verify, Some(access)).await.refused(Reason::PasskeyInvalid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_owner_signs_in_with_a_passkey_although_the_tries_of_codes_are_used_up() {
    let (smtp, mesh) = start();
    let (user, tokens) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    add(&mesh, &mut device, &tokens.access, &json!({})).await;
    let waiting = challenge(&mesh, &user, &user.password).await;
    for _ in 0..5 {
        complete(&mesh, &waiting, "backupCode", "0000-0000-0000").await.refused(Reason::CodeInvalid);
    }
    complete(&mesh, &waiting, "backupCode", "0000-0000-0000").await.refused(Reason::ChallengeInvalid);
    let again = challenge(&mesh, &user, &user.password).await;
    complete(&mesh, &again, "backupCode", "0000-0000-0000").await.refused(Reason::RateLimited);
    let of_challenge = json!({"challengeToken": again["challengeToken"]});
    let proof = device.get(&begin(&mesh, "SignIn", of_challenge, None).await, &json!({}));
    complete(&mesh, &again, "passkey", proof).await.expect(200);
    use_alone(&mesh, &mut device, &json!({})).await.expect(200);
}

// It signs in alone: one that somebody else has registered, and used since, must not outlive that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reports_a_sign_in_by_a_passkey_removes_it() {
    let (smtp, mesh) = start();
    let (user, tokens) = verified(&mesh, &smtp).await;
    let mut device = Authenticator::new();
    add(&mesh, &mut device, &tokens.access, &json!({})).await;
    let (page, email) = ("report-sign-in", user.email.as_str());
    wait_for_link(&smtp, email, page, 0).await;
    let before = links(&smtp, email, page).len();
    use_alone(&mesh, &mut device, &json!({})).await.expect(200);
    let link = wait_for_link(&smtp, email, page, before).await;
    post(&mesh, "/v1/signIns:report", json!({"token": link}), None).await.expect(200);
    use_alone(&mesh, &mut device, &json!({})).await.refused(Reason::PasskeyUnknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_learn_which_origins_of_other_domains_may_use_passkeys() {
    let (_smtp, mesh) = start();
    let related = mesh.rest().get("/.well-known/webauthn").send().await.expect(200).json();
    assert_eq!(related, json!({"origins": ["https://example.org"]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_rp_id_there_are_no_passkeys() {
    let mesh = Mesh::start();
    let (_, tokens) = User::signed_in(&mesh).await;
    for ceremony in ["Registration", "SignIn", "Verification"] {
        let path = format!("/v1/passkeys:begin{ceremony}");
        post(&mesh, &path, json!({}), Some(&tokens.access)).await.refused(Reason::PasskeysDisabled);
    }
}
