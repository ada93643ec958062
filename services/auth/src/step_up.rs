//! A signed-in user proves again who they are.

use std::sync::Arc;

use drystone_mesh::{
    call::Call,
    clock::{Clock, Timestamp},
};
use drystone_store::outbox::Relay;

use crate::{
    authentication::{Method, with_password},
    error::Error,
    factor::{Change, FactorProof, FactorUse, check::FactorCheck, management::told, passkey::Begun},
    password::typed_password::TypedPassword,
    password_check::PasswordCheck,
    store::AuthStore,
    token::passkey_challenge::Ceremony,
    upstreams::Upstreams,
};

/// What a user proves who they are with.
pub(crate) enum Proof {
    Password(TypedPassword),
    Factor(FactorProof),
}

/// Verifies proofs of signed-in users, and raises their sessions.
pub(crate) struct StepUp {
    pub(crate) passwords: PasswordCheck,
    pub(crate) factors: FactorCheck,
    pub(crate) upstreams: Arc<dyn Upstreams>,
    pub(crate) store: AuthStore,
    pub(crate) relay: Relay,
    pub(crate) clock: Clock,
}

impl StepUp {
    /// Begins to verify the user of this call by a passkey.
    ///
    /// # Errors
    /// [`Error::PasskeysDisabled`]; [`Error::NoSecondFactor`] if they have none.
    pub(crate) async fn begin_passkey(&self, call: &Call) -> Result<Begun, Error> {
        let principal = call.principal()?;
        let (user_id, session_id) = (principal.user_id, principal.session_id);
        let passkeys = &self.factors.passkeys;
        passkeys.relying_party()?;
        let allowed = self.store.passkeys_of(user_id).await?;
        if allowed.is_empty() {
            return Err(Error::NoSecondFactor);
        }
        passkeys.begin(Ceremony::Verification { user_id, session_id }, &allowed)
    }

    /// Verifies a proof of the user of this call. Returns when and how the user of the session has authenticated.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`]; [`Error::SecondFactorRequired`] for a password of a user who has a second factor: who has stolen it
    /// gets no further; [`Error::CodeInvalid`], [`Error::PasskeyInvalid`], [`Error::PasskeyUnknown`]; [`Error::TooManyTries`].
    pub(crate) async fn verify(&self, call: &Call, proof: Proof) -> Result<(Timestamp, Vec<String>), Error> {
        let principal = call.principal()?;
        let (user_id, session_id) = (principal.user_id, principal.session_id);
        match proof {
            Proof::Password(password) => {
                if self.store.has_factor(user_id).await? {
                    return Err(Error::SecondFactorRequired);
                }
                let attempt = self.passwords.attempts.password_check(user_id).await?;
                self.passwords.verify(call, user_id, &password).await?;
                attempt.succeeded().await;
                self.upstreams.raise_session(call, user_id, session_id, &[Method::Password]).await
            }
            Proof::Factor(proof) => {
                let now = self.clock.now();
                // By session: who has stolen a token of one keeps the user out of none of the others.
                let is_code = !matches!(proof, FactorProof::Passkey(_));
                if is_code {
                    self.store.count_try(user_id, session_id, now).await?;
                }
                let ceremony = Ceremony::Verification { user_id, session_id };
                let found = self.factors.find(call, user_id, &proof, ceremony).await;
                if let Err(error) = &found
                    && is_code
                    && !matches!(error, Error::CodeInvalid)
                {
                    self.store.uncount_try(user_id, session_id, now).await?;
                }
                let used = found?;
                let messages = match used {
                    FactorUse::Backup { .. } => vec![told(call, user_id, Change::BackupCodeUsed, now)?],
                    FactorUse::Totp { .. } | FactorUse::Passkey(_) => Vec::new(),
                };
                self.store.use_factor(user_id, session_id, &used, &messages, now).await?;
                if !messages.is_empty() {
                    self.relay.wake();
                }
                let methods = with_password(principal, used.method());
                let raised = self.upstreams.raise_session(call, user_id, session_id, &methods).await;
                if let (Err(_), FactorUse::Backup { number, hash }) = (&raised, &used) {
                    self.store.give_back(user_id, *number, hash, now).await?;
                }
                raised
            }
        }
    }
}
