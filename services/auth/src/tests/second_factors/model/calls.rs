//! The calls of clients. Each is compared with the specification.

use std::{fmt::Debug, sync::Arc};

use drystone::auth::v1::{
    BeginPasskeyRegistrationRequest, BeginPasskeySignInRequest, BeginPasskeyVerificationRequest, CompleteSignInRequest,
    DisableMfaRequest, RegenerateBackupCodesRequest, RegisterPasskeyRequest, SignInRequest, SignInResponse,
    SignInWithPasskeyRequest, VerifyCredentialRequest, auth_service_server::AuthService,
    mfa_service_server::MfaService, passkey_service_server::PasskeyService,
};
use drystone_mesh::{
    error::{Reason, reason_of},
    time::from_proto,
    token::Principal,
};
use drystone_testing::Passkey;
use prost_types::{Struct, Timestamp as ProtoTimestamp, Value as ProtoValue, value::Kind};
use serde_json::{Value, json};
use tonic::{Response, Status};
use totp_rs::Totp;
use uuid::Uuid;

use super::{
    Key, ORIGIN, World,
    specification::{Assertion, BY_PASSWORD, Factor, First, Proof, Purpose, Registration},
};
use crate::tests::fixture::from_outside;

/// A call, which can be repeated.
#[derive(Debug, Clone)]
pub(super) enum Call {
    SignIn { user: usize, password: String, device: Option<usize> },
    Complete { challenge: String, proof: Proof, device: Option<usize> },
    SignInWithPasskey { assertion: Assertion, device: Option<usize> },
    VerifyPassword { session: Uuid, password: String },
    Verify { session: Uuid, proof: Proof },
    Begin { session: Uuid },
    Confirm { session: Uuid, id: String, code: String },
    Register { session: Uuid, registration: Registration },
    Remove { session: Uuid, id: String },
    Disable { session: Uuid },
    Regenerate { session: Uuid },
    ChangePassword { session: Uuid, current: String, new: String },
}

impl Call {
    fn session(&self) -> Option<Uuid> {
        match self {
            Self::SignIn { .. } | Self::Complete { .. } | Self::SignInWithPasskey { .. } => None,
            Self::VerifyPassword { session, .. }
            | Self::Verify { session, .. }
            | Self::Begin { session }
            | Self::Confirm { session, .. }
            | Self::Register { session, .. }
            | Self::Remove { session, .. }
            | Self::Disable { session }
            | Self::Regenerate { session }
            | Self::ChangePassword { session, .. } => Some(*session),
        }
    }
}

/// What a sign-in returns.
struct Issued {
    access: String,
    refresh: String,
    device: String,
}

impl Proof {
    /// An app's code, a backup code, and a passkey, as requests have them.
    fn fields(&self) -> [String; 3] {
        let none = String::new;
        match self {
            Self::Code(code) => [code.clone(), none(), none()],
            Self::Backup(code) => [none(), code.clone(), none()],
            Self::Passkey(assertion) => [none(), none(), assertion.text.clone()],
        }
    }
}

/// Both results, or why both refuse.
#[track_caller]
fn agree<E, A>(call: &dyn Debug, expected: Result<E, Reason>, answer: Result<A, Status>) -> Result<(E, A), Reason> {
    match (expected, answer) {
        (Ok(expected), Ok(answer)) => Ok((expected, answer)),
        (Err(expected), Err(status)) => {
            assert_eq!(reason_of(&status), Some(expected), "{call:?}: {status:?}");
            Err(expected)
        }
        (Ok(_), Err(status)) => panic!("{call:?} must succeed: {status:?}"),
        (Err(expected), Ok(_)) => panic!("{call:?} must be refused: {}", expected.name()),
    }
}

impl World<'_> {
    /// Makes a call, unless its session has ended: services refuse its tokens before they look at the call.
    pub(super) async fn perform(&mut self, call: Call) {
        if call.session().is_some_and(|session| !self.model.sessions.contains_key(&session)) {
            return;
        }
        match &call {
            Call::SignIn { user, password, device } => self.sign_in(&call, *user, password, *device).await,
            Call::Complete { challenge, proof, device } => self.complete(&call, challenge, proof, *device).await,
            Call::SignInWithPasskey { assertion, device } => {
                self.sign_in_with_passkey(&call, assertion, *device).await;
            }
            Call::VerifyPassword { session, password } => self.verify_password(&call, *session, password).await,
            Call::Verify { session, proof } => self.verify(&call, *session, proof).await,
            Call::Begin { session } => self.begin(&call, *session).await,
            Call::Confirm { session, id, code } => self.confirm(&call, *session, id, code).await,
            Call::Register { session, registration } => self.register(&call, *session, registration).await,
            Call::Remove { session, id } => self.remove(&call, *session, id).await,
            Call::Disable { session } => self.disable(&call, *session).await,
            Call::Regenerate { session } => self.regenerate(&call, *session).await,
            Call::ChangePassword { session, current, new } => {
                self.change_password(&call, *session, current, new).await;
            }
        }
        self.last = Some(call);
    }

    async fn sign_in(&mut self, call: &Call, user: usize, password: &str, device: Option<usize>) {
        let expected = self.model.sign_in(user, password);
        let request = SignInRequest {
            email: self.model.users[user].email.clone(),
            password: password.to_owned(),
            device_token: self.device_token(device),
        };
        let answer = self.running.fixture.service.auth.sign_in(from_outside(request, None)).await;
        let Ok((first, response)) = agree(call, expected, answer.map(Response::into_inner)) else { return };
        match first {
            First::Session => {
                assert_eq!(response.challenge, None, "{call:?}");
                let issued = Issued {
                    access: response.access_token.unwrap(),
                    refresh: response.refresh_token.unwrap(),
                    device: response.device_token.unwrap(),
                };
                self.started(user, &[BY_PASSWORD], device, issued).await;
            }
            First::Challenge => {
                let challenge = response.challenge.clone().unwrap();
                let nothing = SignInResponse { challenge: Some(challenge.clone()), ..SignInResponse::default() };
                assert_eq!(response, nothing, "a challenge grants nothing");
                assert_eq!(challenge.factors().collect::<Vec<_>>(), self.model.users[user].kinds(), "{call:?}");
                let token = challenge.challenge_token;
                let expires_at = self.model.challenge(token.clone(), user, self.now());
                assert_eq!(from_proto(&challenge.expire_time.unwrap()), Some(expires_at));
                self.challenges.push((token, device));
            }
        }
    }

    async fn complete(&mut self, call: &Call, challenge: &str, proof: &Proof, device: Option<usize>) {
        let expected = self.model.complete(challenge, proof, self.now());
        let user = self.model.challenges.get(challenge).map(|challenge| challenge.user);
        let [totp_code, backup_code, passkey] = proof.fields();
        let challenge_token = challenge.to_owned();
        let request =
            CompleteSignInRequest { challenge_token, totp_code, backup_code, passkey, remember_device: false };
        let answer = self.running.fixture.service.auth.complete_sign_in(from_outside(request, None)).await;
        if user.is_some_and(|user| self.has_to_wait(user, proof, answer.as_ref().err())) {
            return;
        }
        match agree(call, expected, answer.map(Response::into_inner)) {
            Ok(((user, found), response)) => {
                let method = found.method();
                self.model.spend(user, found);
                self.model.challenges.remove(challenge);
                self.proofs.push(proof.clone());
                let issued = Issued {
                    access: response.access_token,
                    refresh: response.refresh_token,
                    device: response.device_token,
                };
                self.started(user, &[BY_PASSWORD, method], device, issued).await;
            }
            Err(Reason::CodeInvalid) => self.model.refuse_code(user.unwrap(), Some(challenge)),
            Err(Reason::PasskeyInvalid | Reason::PasskeyUnknown) => self.model.refuse_passkey(challenge),
            Err(_) => {}
        }
    }

    async fn sign_in_with_passkey(&mut self, call: &Call, assertion: &Assertion, device: Option<usize>) {
        let expected = self.model.sign_in_with_passkey(assertion, self.now());
        let device_token = self.device_token(device);
        let request = SignInWithPasskeyRequest { credential: assertion.text.clone(), device_token };
        let answer = self.running.fixture.service.passkeys.sign_in_with_passkey(from_outside(request, None)).await;
        let Ok(((user, found), response)) = agree(call, expected, answer.map(Response::into_inner)) else { return };
        let method = found.method();
        self.model.spend(user, found);
        let issued =
            Issued { access: response.access_token, refresh: response.refresh_token, device: response.device_token };
        self.started(user, &[method], device, issued).await;
    }

    async fn verify_password(&mut self, call: &Call, session: Uuid, password: &str) {
        let expected = self.model.verify_password(session, password);
        let by = self.principal(session).await;
        let answer = self.running.verify(&by, [password, "", ""]).await;
        if agree(call, expected, answer).is_ok() {
            self.model.raise_session(session, BY_PASSWORD);
        }
    }

    async fn verify(&mut self, call: &Call, session: Uuid, proof: &Proof) {
        let expected = self.model.verify(session, proof, self.now());
        let by = self.principal(session).await;
        let [totp_code, backup_code, passkey] = proof.fields();
        let request = VerifyCredentialRequest { password: String::new(), totp_code, backup_code, passkey };
        let answer = self.running.fixture.service.auth.verify_credential(from_outside(request, Some(by))).await;
        let user = self.model.sessions[&session].user;
        if self.has_to_wait(user, proof, answer.as_ref().err()) {
            return;
        }
        match agree(call, expected, answer.map(Response::into_inner)) {
            Ok((found, response)) => {
                self.model.raise_session(session, found.method());
                self.model.spend(user, found);
                self.proofs.push(proof.clone());
                assert_eq!(sorted(&response.amr), self.model.sessions[&session].amr(), "{call:?}");
            }
            Err(Reason::CodeInvalid) => self.model.refuse_code(user, None),
            Err(_) => {}
        }
    }

    async fn begin(&mut self, call: &Call, session: Uuid) {
        let expected = self.model.begin_factor(session);
        let by = self.principal(session).await;
        let answer = self.running.begin(&by).await;
        if let Ok((user, begun)) = agree(call, expected, answer) {
            let app = Totp::from_url(&begun.uri).unwrap();
            self.model.begin(user, begun.factor_id.clone(), app.clone(), self.now());
            self.begun = Some((session, begun.factor_id, app));
        }
    }

    async fn confirm(&mut self, call: &Call, session: Uuid, id: &str, code: &str) {
        let expected = self.model.confirm(session, id, code, self.now());
        let by = self.principal(session).await;
        let answer = self.running.confirm(&by, id, code).await;
        let Ok((found, confirmed)) = agree(call, expected, answer) else { return };
        let user = self.model.sessions[&session].user;
        let method = found.method();
        let begun = self.model.users[user].begun.take().unwrap();
        self.apps.push(begun.app.clone());
        self.added(session, begun.id, Factor::App(begun.app), confirmed.backup_codes);
        self.model.spend(user, found);
        // A session with a factor stays as it is: it may be a stronger one.
        if !self.model.sessions[&session].has_second_factor() {
            self.model.raise_session(session, method);
        }
        self.proofs.push(Proof::Code(code.to_owned()));
    }

    async fn register(&mut self, call: &Call, session: Uuid, registration: &Registration) {
        let expected = self.model.register(session, registration, self.now());
        let by = self.principal(session).await;
        let request = RegisterPasskeyRequest { display_name: String::new(), credential: registration.text.clone() };
        let answer = self.running.fixture.service.passkeys.register_passkey(from_outside(request, Some(by))).await;
        // It proves nothing of the key: the session stays as it is.
        if let Ok(((), registered)) = agree(call, expected, answer.map(Response::into_inner)) {
            self.model.use_registration(registration);
            let factor = Factor::Passkey { key: registration.key, counter: 0 };
            self.added(session, registered.factor.unwrap().id, factor, registered.backup_codes);
        }
    }

    async fn remove(&mut self, call: &Call, session: Uuid, id: &str) {
        let expected = self.model.remove(session, id);
        let by = self.principal(session).await;
        let answer = self.running.remove(&by, id).await;
        if let Ok((user, ())) = agree(call, expected, answer) {
            self.model.remove_factors(user, Some(id));
        }
    }

    async fn disable(&mut self, call: &Call, session: Uuid) {
        let expected = self.model.may_change_factors(session);
        let by = self.principal(session).await;
        let answer = self.running.fixture.service.mfa.disable_mfa(from_outside(DisableMfaRequest {}, Some(by))).await;
        if let Ok((user, _)) = agree(call, expected, answer) {
            self.model.remove_factors(user, None);
        }
    }

    async fn regenerate(&mut self, call: &Call, session: Uuid) {
        let expected = self.model.regenerate(session);
        let request = from_outside(RegenerateBackupCodesRequest {}, Some(self.principal(session).await));
        let answer = self.running.fixture.service.mfa.regenerate_backup_codes(request).await;
        if let Ok((user, response)) = agree(call, expected, answer.map(Response::into_inner)) {
            self.model.replace_backup_codes(user, &response.backup_codes);
            self.backup_codes.extend(response.backup_codes);
        }
    }

    async fn change_password(&mut self, call: &Call, session: Uuid, current: &str, new: &str) {
        let expected = self.model.change_password(session, current);
        let by = self.principal(session).await;
        let answer = self.running.change(&by, current, new).await;
        if agree(call, expected, answer).is_ok() {
            self.model.set_password(session, new);
            self.former_passwords.push(current.to_owned());
        }
    }

    /// A factor was added, perhaps with backup codes.
    fn added(&mut self, session: Uuid, id: String, factor: Factor, backup_codes: Vec<String>) {
        self.model.add(session, id.clone(), factor, &backup_codes);
        self.factors.push(id);
        self.backup_codes.extend(backup_codes);
    }

    /// A sign-in has started a session: its token says how, and nothing else.
    async fn started(&mut self, user: usize, methods: &[&'static str], device: Option<usize>, issued: Issued) {
        let principal = self.running.fixture.verify(&issued.access).await;
        self.model.start_session(principal.session_id, user, methods);
        self.assert_claims(&principal);
        self.refresh_tokens.insert(principal.session_id, issued.refresh);
        if let Some(device) = device {
            self.devices[device] = issued.device;
        }
    }

    /// The user of the next token of a session.
    async fn principal(&mut self, session: Uuid) -> Arc<Principal> {
        let refreshed = self.running.fixture.refresh(&self.refresh_tokens[&session]).await.unwrap().into_inner();
        let principal = self.running.fixture.verify(&refreshed.access_token).await;
        assert_eq!(principal.session_id, session);
        self.assert_claims(&principal);
        self.refresh_tokens.insert(session, refreshed.refresh_token);
        principal
    }

    fn assert_claims(&self, principal: &Principal) {
        let session = &self.model.sessions[&principal.session_id];
        assert_eq!(principal.user_id, self.model.users[session.user].id);
        assert_eq!(sorted(&principal.amr), session.amr(), "exactly what was proved");
    }

    fn device_token(&self, device: Option<usize>) -> String {
        device.map(|device| self.devices[device].clone()).unwrap_or_default()
    }

    /// Whether a code was not looked at, since too many wrong ones were tried. How long somebody waits has tests of its own.
    fn has_to_wait(&self, user: usize, proof: &Proof, refused: Option<&Status>) -> bool {
        let is_limited = refused.and_then(reason_of) == Some(Reason::RateLimited);
        is_limited && self.model.may_have_to_wait(user, proof)
    }

    /// Has a new passkey created for a session.
    pub(super) async fn create(&mut self, session: Uuid, has_counter: bool) -> Option<Registration> {
        let expected = self.model.begin_factor(session);
        let by = self.principal(session).await;
        let request = from_outside(BeginPasskeyRegistrationRequest {}, Some(by));
        let answer = self.running.fixture.service.passkeys.begin_passkey_registration(request).await;
        let (_, begun) = agree(&session, expected, answer.map(Response::into_inner)).ok()?;
        let options = to_json(begun.options.unwrap());
        let (passkey, text) = Passkey::create(ORIGIN, &options);
        let (passkey, counter) = if has_counter { (passkey, Some(0)) } else { (passkey.without_counter(), None) };
        self.keys.push(Key { passkey, counter });
        Some(Registration {
            key: self.keys.len() - 1,
            session,
            challenge: options["challenge"].as_str().unwrap().to_owned(),
            expires_at: from_proto(&begun.expire_time.unwrap()).unwrap(),
            text,
        })
    }

    /// Has a passkey sign a challenge of any user.
    pub(super) async fn sign(&mut self, key: usize, purpose: Purpose) -> Option<Assertion> {
        let expected = self.model.may_ask(&purpose, self.now());
        let answer = self.ask(&purpose).await;
        let ((), (options, expire_time)) = agree(&purpose, expected, answer).ok()?;
        let options = to_json(options.unwrap());
        let Key { passkey, counter } = &mut self.keys[key];
        *counter = counter.map(|counter| counter + 1);
        let assertion = Assertion {
            key,
            purpose,
            challenge: options["challenge"].as_str().unwrap().to_owned(),
            expires_at: from_proto(&expire_time.unwrap()).unwrap(),
            counter: *counter,
            text: passkey.get(ORIGIN, &options),
        };
        self.assertions.push(assertion.clone());
        Some(assertion)
    }

    async fn ask(&mut self, purpose: &Purpose) -> Result<(Option<Struct>, Option<ProtoTimestamp>), Status> {
        let challenge_token = match purpose {
            Purpose::SignIn => String::new(),
            Purpose::Complete(token) => token.clone(),
            Purpose::Verify(session) => {
                let by = self.principal(*session).await;
                let request = from_outside(BeginPasskeyVerificationRequest {}, Some(by));
                let begun = self.running.fixture.service.passkeys.begin_passkey_verification(request).await?;
                let begun = begun.into_inner();
                return Ok((begun.options, begun.expire_time));
            }
        };
        let request = from_outside(BeginPasskeySignInRequest { challenge_token }, None);
        let begun = self.running.fixture.service.passkeys.begin_passkey_sign_in(request).await?.into_inner();
        Ok((begun.options, begun.expire_time))
    }
}

/// A claim whose order does not matter.
pub(super) fn sorted(amr: &[String]) -> Vec<&str> {
    let mut sorted: Vec<&str> = amr.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted
}

fn to_json(message: Struct) -> Value {
    message.fields.into_iter().map(|(name, value)| (name, value_to_json(value))).collect()
}

fn value_to_json(value: ProtoValue) -> Value {
    match value.kind.unwrap() {
        Kind::NullValue(_) => Value::Null,
        Kind::BoolValue(value) => json!(value),
        // Whole numbers without a fraction, as they were.
        Kind::NumberValue(value) => Value::Number(value.to_string().parse().unwrap()),
        Kind::StringValue(value) => json!(value),
        Kind::ListValue(list) => list.values.into_iter().map(value_to_json).collect(),
        Kind::StructValue(message) => to_json(message),
    }
}
