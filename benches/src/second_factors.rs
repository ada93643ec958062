//! Sign-ins with a second factor and with a passkey alone, compared with sign-ins by a password alone of other users of the same mesh.
//! All are on known devices.
//!
//! A code of an authenticator app serves once and there is a new one each 30 seconds, so that many users sign in once in each run. Passkeys
//! have no such limit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use drystone::{
    auth::v1::{
        BeginPasskeyRegistrationRequest, BeginPasskeySignInRequest, BeginTotpRequest, CompleteSignInRequest,
        ConfirmTotpRequest, ImportOutcome, ImportUsersRequest, ImportedUser, RegisterPasskeyRequest, SignInRequest,
        SignInResponse, SignInWithPasskeyRequest, auth_service_client::AuthServiceClient,
        mfa_service_client::MfaServiceClient, passkey_service_client::PasskeyServiceClient,
    },
    user::v1::User,
};
use drystone_tests::{Mesh, Passkey, grpc::with_token};
use futures_util::{StreamExt, TryStreamExt, stream};
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde_json::Value;
use tokio::time::sleep;
use tonic::transport::Channel;
use totp_rs::Totp;

use crate::{
    load,
    report::{Measurement, micros},
    sign_in::password_hash,
};

const ORIGIN: &str = "https://app.example.com";
const PASSWORD: &str = "correct horse battery staple";

const RUNS: usize = 3;
const IN_FLIGHT: usize = 16;

/// Users without a second factor, with an authenticator app and with a passkey. Together no more than an import takes at once, 500.
const WITHOUT: usize = 192;
const WITH_APP: usize = 192;
const WITH_PASSKEY: usize = 64;

/// How often each passkey signs in, in each run. Fewer than the maximum number of sessions, beyond which each sign-in ends another one.
const PASSKEY_SIGN_INS: usize = 16;

/// A user's first factor takes ten hashes for backup codes: so many at once do not fill the hashing queue of one core.
const SET_UP_IN_FLIGHT: usize = 4;

/// The time step of an app, in seconds (RFC 6238).
const STEP: u64 = 30;
/// For how much longer a code has to be valid, in seconds, to be sent.
const MARGIN: u64 = 5;

/// Measures them alternately.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let mesh = Mesh::setup()
        .set("auth.passkeys.rp_id", "example.com")
        .set("auth.passkeys.origins", &format!("[\"{ORIGIN}\"]"))
        .set("notification.mails_per_minute", "0")
        .start();
    let clients = &Clients::of(&mesh);
    let mut emails = (0..WITHOUT + WITH_APP + WITH_PASSKEY).map(|user| format!("factor-{user}@example.com"));
    import(&mesh, emails.clone()).await.context("importing")?;
    let mut without: Vec<_> = emails.by_ref().take(WITHOUT).map(Account::of).collect();
    let mut with_app = set_up(emails.by_ref().take(WITH_APP), async |email| AppUser::new(clients, email).await).await?;
    let mut with_passkey = set_up(emails, async |email| PasskeyUser::new(clients, email).await).await?;

    // Device tokens of the second in which a factor was added, or before, do not count.
    sleep(Duration::from_secs(2)).await;
    let by_password = async |user: &mut Account| user.sign_in(clients).await;
    let by_code = async |user: &mut AppUser| user.sign_in(clients).await;
    let by_passkey = async |user: &mut PasskeyUser| user.sign_in(clients).await;
    load::each(IN_FLIGHT, &mut without, 1, &by_password).await.context("signing in")?;
    let by_backup_code = async |user: &mut AppUser| user.sign_in_with_backup_code(clients).await;
    load::each(IN_FLIGHT, &mut with_app, 1, &by_backup_code).await.context("signing in with backup codes")?;
    load::each(IN_FLIGHT, &mut with_passkey, 1, &by_passkey).await.context("signing in with passkeys")?;
    wait_for_mails(&mesh).await?;

    let (mut passwords, mut codes, mut passkeys) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let run = load::each(IN_FLIGHT, &mut without, 1, &by_password).await;
        passwords.push(run.context("signing in")?);
        wait_for_codes(&with_app).await;
        let run = load::each(IN_FLIGHT, &mut with_app, 1, &by_code).await;
        codes.push(run.context("signing in with codes")?);
        let run = load::each(IN_FLIGHT, &mut with_passkey, PASSKEY_SIGN_INS, &by_passkey).await;
        passkeys.push(run.context("signing in with passkeys")?);
    }
    drop(mesh.stop());

    let [passwords, codes, passkeys] = [passwords, codes, passkeys].map(load::median);
    let baseline = Measurement::plain(
        format!("sign-in without second factor, {WITHOUT} users, {IN_FLIGHT} in flight"),
        passwords.rate,
        "sign-ins/s",
    );
    let with_app = format!("sign-in with TOTP, {WITH_APP} users, {IN_FLIGHT} in flight");
    let with_passkey = format!("sign-in with passkey, {WITH_PASSKEY} users, {IN_FLIGHT} in flight");
    Ok(vec![
        Measurement::plain(with_app.as_str(), codes.rate, "sign-ins/s").compared_with(&baseline, None),
        Measurement::plain(format!("{with_app}, p50"), micros(codes.p50), "us"),
        Measurement::plain(with_passkey.as_str(), passkeys.rate, "sign-ins/s").compared_with(&baseline, None),
        Measurement::plain(format!("{with_passkey}, p50"), micros(passkeys.p50), "us"),
        Measurement::plain(format!("{}, p50", baseline.name), micros(passwords.p50), "us"),
        baseline,
    ])
}

/// The services that users sign in with.
struct Clients {
    auth: AuthServiceClient<Channel>,
    factors: MfaServiceClient<Channel>,
    passkeys: PasskeyServiceClient<Channel>,
}

impl Clients {
    fn of(mesh: &Mesh) -> Self {
        let channel = mesh.channel("auth", "edge");
        Self {
            auth: AuthServiceClient::new(channel.clone()),
            factors: MfaServiceClient::new(channel.clone()),
            passkeys: PasskeyServiceClient::new(channel),
        }
    }
}

/// Creates accounts whose addresses are verified, without which there are no second factors.
async fn import(mesh: &Mesh, emails: impl Iterator<Item = String>) -> Result<()> {
    let password_hash = password_hash(PASSWORD)?;
    let users = emails.map(|email| ImportedUser {
        user: Some(User { email, display_name: "Bench".to_owned(), ..Default::default() }),
        password_hash: password_hash.clone(),
        email_verified: true,
        ..Default::default()
    });
    let request = ImportUsersRequest { source: "bench".to_owned(), users: users.collect() };
    let mut client = AuthServiceClient::new(mesh.channel("auth", "operator"));
    let mut answers = client.import_users(stream::iter([request])).await?.into_inner();
    let answer = answers.message().await?.context("there is no answer")?;
    for result in answer.results {
        ensure!(result.outcome() == ImportOutcome::Imported, "an account was refused: {}", result.refusal);
    }
    Ok(())
}

async fn set_up<T>(emails: impl Iterator<Item = String>, new: impl AsyncFn(String) -> Result<T>) -> Result<Vec<T>> {
    let new = &new;
    let users = stream::iter(emails.map(|email| async move { new(email).await.context("setting up a user") }));
    users.buffered(SET_UP_IN_FLIGHT).try_collect().await
}

/// An account, and the device that its user signs in on.
struct Account {
    email: String,
    device_token: String,
}

impl Account {
    fn of(email: String) -> Self {
        Self { email, device_token: String::new() }
    }

    async fn try_password(&self, clients: &Clients) -> Result<SignInResponse> {
        let (email, device_token) = (self.email.clone(), self.device_token.clone());
        let request = SignInRequest { email, password: PASSWORD.to_owned(), device_token };
        Ok(clients.auth.clone().sign_in(request).await?.into_inner())
    }

    async fn sign_in(&mut self, clients: &Clients) -> Result<()> {
        let signed_in = self.try_password(clients).await?;
        self.device_token = signed_in.device_token.context("the sign-in is not complete")?;
        Ok(())
    }

    async fn access_token(&self, clients: &Clients) -> Result<String> {
        self.try_password(clients).await?.access_token.context("the sign-in is not complete")
    }
}

/// A user with an authenticator app.
struct AppUser {
    account: Account,
    app: Totp,
    /// The last time step whose code was sent.
    last_step: u64,
    backup_code: String,
}

impl AppUser {
    async fn new(clients: &Clients, email: String) -> Result<Self> {
        let account = Account::of(email);
        let token = account.access_token(clients).await?;
        let mut factors = clients.factors.clone();
        let begun = factors.begin_totp(with_token(BeginTotpRequest::default(), &token)).await?.into_inner();
        let app = Totp::from_url(&begun.uri)?;
        let mut user = Self { account, app, last_step: 0, backup_code: String::new() };
        let request = ConfirmTotpRequest { factor_id: begun.factor_id, code: user.next_code() };
        let confirmed = factors.confirm_totp(with_token(request, &token)).await?.into_inner();
        user.backup_code = confirmed.backup_codes.into_iter().next().context("there are no backup codes")?;
        Ok(user)
    }

    /// The oldest code that was not sent yet and stays valid for a while: that of the step before the current one is valid as well.
    fn next_code(&mut self) -> String {
        let oldest = (unix_seconds() + MARGIN) / STEP - 1;
        self.last_step = oldest.max(self.last_step + 1);
        self.app.generate(self.last_step * STEP).to_string()
    }

    async fn sign_in(&mut self, clients: &Clients) -> Result<()> {
        let totp_code = self.next_code();
        self.complete(clients, CompleteSignInRequest { totp_code, ..Default::default() }).await
    }

    async fn sign_in_with_backup_code(&mut self, clients: &Clients) -> Result<()> {
        let backup_code = self.backup_code.clone();
        self.complete(clients, CompleteSignInRequest { backup_code, ..Default::default() }).await
    }

    async fn complete(&mut self, clients: &Clients, proof: CompleteSignInRequest) -> Result<()> {
        let challenge =
            self.account.try_password(clients).await?.challenge.context("no second factor was asked for")?;
        let request = CompleteSignInRequest { challenge_token: challenge.challenge_token, ..proof };
        self.account.device_token = clients.auth.clone().complete_sign_in(request).await?.into_inner().device_token;
        Ok(())
    }
}

/// A user with a passkey.
struct PasskeyUser {
    passkey: Passkey,
    device_token: String,
}

impl PasskeyUser {
    async fn new(clients: &Clients, email: String) -> Result<Self> {
        let token = Account::of(email).access_token(clients).await?;
        let mut passkeys = clients.passkeys.clone();
        let request = with_token(BeginPasskeyRegistrationRequest {}, &token);
        let begun = passkeys.begin_passkey_registration(request).await?.into_inner();
        let (passkey, credential) = Passkey::create(ORIGIN, &json_object(begun.options.unwrap_or_default()));
        let request = RegisterPasskeyRequest { display_name: String::new(), credential };
        passkeys.register_passkey(with_token(request, &token)).await?;
        Ok(Self { passkey, device_token: String::new() })
    }

    async fn sign_in(&mut self, clients: &Clients) -> Result<()> {
        let mut passkeys = clients.passkeys.clone();
        let begun = passkeys.begin_passkey_sign_in(BeginPasskeySignInRequest::default()).await?.into_inner();
        let credential = self.passkey.get(ORIGIN, &json_object(begun.options.unwrap_or_default()));
        let request = SignInWithPasskeyRequest { credential, device_token: self.device_token.clone() };
        self.device_token = passkeys.sign_in_with_passkey(request).await?.into_inner().device_token;
        Ok(())
    }
}

/// Waits until each user has a code for the next sign-in. Codes of the step after the current one are valid.
async fn wait_for_codes(users: &[AppUser]) {
    let last_step = users.iter().map(|user| user.last_step).max().unwrap_or_default();
    sleep(Duration::from_secs((last_step * STEP).saturating_sub(unix_seconds()))).await;
}

/// Waits until no more mails are written: users are told of new second factors and devices.
async fn wait_for_mails(mesh: &Mesh) -> Result<()> {
    let mut before = 0.0;
    for _ in 0..30 {
        sleep(Duration::from_secs(1)).await;
        let attempts = mesh.metrics().await.sum("drystone_notification_attempts_total", &[]);
        if attempts > 0.0 && attempts <= before {
            return Ok(());
        }
        before = attempts;
    }
    bail!("mails are still written after 30 seconds")
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn json_object(object: Struct) -> Value {
    object.fields.into_iter().map(|(name, value)| (name, json(value))).collect()
}

fn json(value: ProtoValue) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(number)) => number.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::StructValue(object)) => json_object(object),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json).collect(),
    }
}
