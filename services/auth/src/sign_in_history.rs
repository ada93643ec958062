//! The sign-ins to accounts, as their users see them, and the mail about one on a new device.
//!
//! One that succeeds is stored before its tokens are issued, together with the mail. One that fails is stored after it was answered, so
//! that its time does not tell that the account exists; where too many fail at once some are not stored.

use std::{sync::Arc, time::Duration};

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
    error::Chain,
    id,
    page::Page,
};
use drystone_store::outbox::{Message, Relay};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    challenge::Challenge,
    credential::Credential,
    error::Error,
    factor::{Change, FactorUse, management::told, passkey::PasskeyUse},
    follow_up::{FollowUp, Origin},
    store::AuthStore,
    trusted_device::{NewTrust, Trust, TrustedDevice},
};

/// How long sign-ins are kept.
pub(crate) const RETENTION: Duration = Duration::from_hours(90 * 24);

/// How long after its registration the first sign-in to an account is that of its user, on a device that must be new.
const FIRST_SIGN_IN: Duration = Duration::from_hours(1);

/// How long after its answer a failure is stored.
const FAILURE_DELAY: Duration = Duration::from_millis(50);

/// How many failures are stored at once.
const MAX_PENDING: usize = 64;

/// The longest address and client that are stored, in characters, as for sessions.
const MAX_ADDRESS: usize = 64;
const MAX_DEVICE: usize = 256;

/// How a user proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By a password.
    Password,
    /// By a password and a code of an authenticator app.
    PasswordAndTotp,
    /// By a password and a backup code.
    PasswordAndBackupCode,
    /// By a password and a passkey.
    PasswordAndPasskey,
    /// By a passkey alone.
    Passkey,
    /// By what a later release knows.
    Unknown,
}

impl Method {
    /// As mails show it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::PasswordAndTotp => "password and authenticator app",
            Self::PasswordAndBackupCode => "password and backup code",
            Self::PasswordAndPasskey => "password and passkey",
            Self::Passkey => "passkey",
            Self::Unknown => "unknown",
        }
    }

    pub(crate) const fn to_column(self) -> i16 {
        match self {
            Self::Unknown => 0,
            Self::Password => 1,
            Self::PasswordAndTotp => 2,
            Self::PasswordAndBackupCode => 3,
            Self::PasswordAndPasskey => 4,
            Self::Passkey => 5,
        }
    }

    pub(crate) const fn from_column(column: i16) -> Self {
        match column {
            1 => Self::Password,
            2 => Self::PasswordAndTotp,
            3 => Self::PasswordAndBackupCode,
            4 => Self::PasswordAndPasskey,
            5 => Self::Passkey,
            _ => Self::Unknown,
        }
    }
}

/// What became of a sign-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It started a session.
    Succeeded,
    /// The password was wrong.
    WrongPassword,
    /// The account is disabled.
    AccountDisabled,
    /// The address has to be verified first.
    EmailNotVerified,
    /// The password has to be replaced first.
    PasswordResetRequired,
    /// The password was right, and the second factor was wrong.
    WrongCode,
    /// What a later release knows.
    Unknown,
}

impl Outcome {
    /// Of an error of a sign-in; `None` for those that say nothing about the user.
    pub(crate) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::InvalidCredentials => Some(Self::WrongPassword),
            Error::AccountDisabled => Some(Self::AccountDisabled),
            Error::EmailNotVerified => Some(Self::EmailNotVerified),
            Error::PasswordResetRequired => Some(Self::PasswordResetRequired),
            error if error.is_refused_proof() => Some(Self::WrongCode),
            _ => None,
        }
    }

    pub(crate) const fn to_column(self) -> i16 {
        match self {
            Self::Unknown => 0,
            Self::Succeeded => 1,
            Self::WrongPassword => 2,
            Self::AccountDisabled => 3,
            Self::EmailNotVerified => 4,
            Self::PasswordResetRequired => 5,
            Self::WrongCode => 6,
        }
    }

    pub(crate) const fn from_column(column: i16) -> Self {
        match column {
            1 => Self::Succeeded,
            2 => Self::WrongPassword,
            3 => Self::AccountDisabled,
            4 => Self::EmailNotVerified,
            5 => Self::PasswordResetRequired,
            6 => Self::WrongCode,
            _ => Self::Unknown,
        }
    }
}

/// A sign-in to an account, or an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignInRecord {
    /// Its id, a UUID of version 7.
    pub id: Uuid,
    /// The user.
    pub user_id: Uuid,
    /// When it was.
    pub at: Timestamp,
    /// How the user proved who they are.
    pub method: Method,
    /// What became of it.
    pub outcome: Outcome,
    /// The address of the client.
    pub address: String,
    /// The client, as it states itself.
    pub device: String,
    /// Whether the device had not signed in to the account before.
    pub is_new_device: bool,
    /// The session that it started.
    pub session_id: Option<Uuid>,
}

/// A sign-in that a second factor completes.
#[derive(Clone, Copy)]
pub(crate) struct Completion<'a> {
    pub(crate) credential: &'a Credential,
    pub(crate) challenge: &'a Challenge,
    /// What it uses up.
    pub(crate) factor: &'a FactorUse,
    pub(crate) method: Method,
    pub(crate) session_id: Uuid,
    /// If its device is trusted from now on.
    pub(crate) trust: Option<NewTrust>,
}

/// Stores and lists sign-ins.
#[derive(Clone)]
pub struct SignInHistory {
    store: AuthStore,
    relay: Relay,
    clock: Clock,
    pending: Arc<Semaphore>,
}

impl SignInHistory {
    pub(crate) fn new(store: AuthStore, relay: Relay, clock: Clock) -> Self {
        Self { store, relay, clock, pending: Arc::new(Semaphore::new(MAX_PENDING)) }
    }

    /// Stores a sign-in with this address that succeeded, unless its password has been changed since it was verified, or serves no
    /// longer, or the trust in its device has ended that it relies on: returns whether it is stored. If the device is new, its user gets a
    /// mail and a message in their inbox.
    pub(crate) async fn succeeded(
        &self,
        call: &Call,
        credential: &Credential,
        email: &str,
        session_id: Uuid,
        is_new_device: bool,
        trust: Option<Trust>,
    ) -> Result<bool, Error> {
        let record = self.record(call, credential.user_id, Outcome::Succeeded, is_new_device);
        let record = SignInRecord { session_id: Some(session_id), ..record };
        if let Some(trust) = trust {
            // Nothing follows from it: a trusted device is not new.
            return Ok(self.store.insert_trusted_success(&record, credential, trust).await?);
        }
        let messages = self.messages(call, &record, email).await?;
        let stored = self.store.insert_success(&record, credential, &messages).await?;
        if stored && !messages.is_empty() {
            self.relay.wake();
        }
        Ok(stored)
    }

    /// Stores a sign-in that was completed by a second factor, and uses up its challenge and the code, all or nothing. Its user gets a
    /// mail as for [`Self::succeeded`], and a message if it was a backup code.
    ///
    /// # Errors
    /// [`Error::ChallengeInvalid`]; [`Error::CodeInvalid`].
    pub(crate) async fn completed(&self, call: &Call, completion: Completion<'_>) -> Result<(), Error> {
        let Completion { credential, challenge, factor, method, session_id, trust } = completion;
        let user_id = credential.user_id;
        let record = self.record(call, user_id, Outcome::Succeeded, challenge.is_new_device());
        let record = SignInRecord { session_id: Some(session_id), method, ..record };
        let mut messages = self.messages(call, &record, &challenge.email).await?;
        if let FactorUse::Backup { .. } = factor {
            messages.push(told(call, user_id, Change::BackupCodeUsed, record.at)?);
        }
        let trusted = trust.map(|NewTrust { device, expires_at }| TrustedDevice {
            id: device,
            user_id,
            name: record.device.clone(),
            created_at: record.at,
            expires_at,
            last_used_at: None,
        });
        self.store.complete_challenge(challenge, factor, &record, credential, trusted.as_ref(), &messages).await?;
        if !messages.is_empty() {
            self.relay.wake();
        }
        Ok(())
    }

    /// Stores a sign-in by a passkey alone, and uses up its challenge, all or nothing. Its user gets a mail as for [`Self::succeeded`].
    ///
    /// # Errors
    /// As [`AuthStore::sign_in_with_passkey`].
    pub(crate) async fn succeeded_with_passkey(
        &self,
        call: &Call,
        used: &PasskeyUse,
        email: &str,
        session_id: Uuid,
        is_new_device: bool,
    ) -> Result<(), Error> {
        let record = self.record(call, used.user_id, Outcome::Succeeded, is_new_device);
        let record = SignInRecord { session_id: Some(session_id), method: Method::Passkey, ..record };
        let messages = self.messages(call, &record, email).await?;
        self.store.sign_in_with_passkey(used, &record, &messages).await?;
        if !messages.is_empty() {
            self.relay.wake();
        }
        Ok(())
    }

    /// What follows from a sign-in with this address: on a new device, its user gets a mail and a message in their inbox.
    async fn messages(&self, call: &Call, record: &SignInRecord, email: &str) -> Result<Vec<Message>, Error> {
        let user_id = record.user_id;
        if !record.is_new_device || self.is_first(user_id).await? {
            return Ok(Vec::new());
        }
        let client = Origin::of(&call.fields().client, record.at);
        let (email, method) = (email.to_owned(), record.method.name().to_owned());
        Ok(vec![FollowUp::TellNewDevice { user_id, email, client, method }.message(record.at)?])
    }

    /// Stores a sign-in that failed, in the background.
    pub(crate) fn failed(&self, call: &Call, user_id: Uuid, method: Method, outcome: Outcome, is_new_device: bool) {
        let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() else { return };
        let record = SignInRecord { method, ..self.record(call, user_id, outcome, is_new_device) };
        let store = self.store.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // Once the response is on its way: work beside it would show that the account exists.
            tokio::time::sleep(FAILURE_DELAY).await;
            if let Err(error) = store.insert_failure(&record).await {
                tracing::warn!(%user_id, cause = %Chain(&error), "a failed sign-in was not stored");
            }
        });
    }

    /// The sign-ins of a user, newest first: one more than the page has, if there are more.
    pub(crate) async fn list(&self, user_id: Uuid, page: &Page) -> Result<Vec<SignInRecord>, Error> {
        Ok(self.store.sign_ins(user_id, page, self.clock.now() - RETENTION).await?)
    }

    fn record(&self, call: &Call, user_id: Uuid, outcome: Outcome, is_new_device: bool) -> SignInRecord {
        let (client, at) = (&call.fields().client, self.clock.now());
        SignInRecord {
            id: id::v7_at(at),
            user_id,
            at,
            method: Method::Password,
            outcome,
            address: client.address.chars().take(MAX_ADDRESS).collect(),
            device: client.agent.chars().filter(|c| !c.is_control()).take(MAX_DEVICE).collect(),
            is_new_device,
            session_id: None,
        }
    }

    /// Whether nobody has signed in to an account that was registered a moment ago: its id has the time.
    async fn is_first(&self, user_id: Uuid) -> Result<bool, Error> {
        let registered = user_id.get_timestamp().map(|time| time.to_unix().0);
        let age = registered.and_then(|seconds| self.clock.now().timestamp().checked_sub_unsigned(seconds));
        let is_recent = age.is_some_and(|age| age < FIRST_SIGN_IN.as_secs().cast_signed());
        Ok(is_recent && !self.store.has_signed_in(user_id).await?)
    }
}
