//! Signing in with a password.
//!
//! An unknown address, a text that is not an address and a wrong password go the same way: one question to the user service, one to the property
//! service, one read of the store, one hash. Only then do they part from success.

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::Clock,
    email::Email,
    error::Chain,
    id,
};
use tracing::{debug, info};

use crate::{
    attempts::AttemptLimits,
    credential::Credential,
    error::Error,
    password::{PasswordHash, Verdict},
    password::{
        hasher::{HashingError, HashingPool},
        typed_password::{PasswordForm, TypedPassword},
    },
    property_claims::PropertyClaims,
    store::AuthStore,
    token::tokens::{TokenIssuer, Tokens},
    upstreams::Upstreams,
};

/// Signs people in.
pub struct SignIn {
    /// How often it may be tried.
    pub attempts: AttemptLimits,
    /// The other services.
    pub upstreams: Arc<dyn Upstreams>,
    /// Where the credentials are.
    pub store: AuthStore,
    /// Where passwords are checked.
    pub hashing: Arc<HashingPool>,
    /// What the password of an unknown address is checked against.
    pub dummy_hash: PasswordHash,
    /// What goes into the token, if it is there in time.
    pub property_claims: PropertyClaims,
    /// Who makes the tokens.
    pub issuer: Arc<TokenIssuer>,
    /// The time.
    pub clock: Clock,
}

impl SignIn {
    /// Checks a password, starts a session and makes its first tokens.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`]; [`Error::Limited`]; what the upstreams, the hashing pool and the store fail with.
    pub async fn sign_in(&self, call: &Call, email: &str, password: TypedPassword) -> Result<Tokens, Error> {
        self.attempts.sign_in(email).await?;
        let as_of = self.clock.now();
        // For an unknown address and for a text that is not one, an id of nobody goes through the same questions.
        let nobody = id::v7_at(as_of);
        let account = match Email::parse(email) {
            Ok(email) => self.upstreams.account_by_email(call, &email).await?,
            Err(_) => self.upstreams.account_by_id(call, nobody).await?,
        };
        let user_id = account.as_ref().map_or(nobody, |account| account.user_id);
        if account.is_some() {
            call::record_user(user_id);
        }
        let credential = self.store.credential(user_id).await?;

        // Asked first, so that it is asked in any case. A wrong password then ends both at once: nobody waits for the
        // claims of a token that is not made.
        let claims = async { Ok(self.property_claims.of(call, user_id).await) };
        let (claims, verdict) = tokio::try_join!(claims, self.check(call, &password, credential.as_ref()))?;
        let (Some(account), Some(credential)) = (account, credential) else {
            return Err(Error::InvalidCredentials);
        };
        let properties = self.property_claims.or_empty(call, claims);
        self.confirm(&credential).await;

        let session = self.upstreams.start_session(call, user_id).await?;
        if verdict == Verdict::RightButOutdated || credential.form != PasswordForm::Opaque {
            self.upgrade(credential, password, verdict);
        }
        self.issuer.issue(session, account, properties, as_of)
    }

    /// One hash in any case: of the form that the stored hash was made of, never of one form after the other.
    async fn check(
        &self,
        call: &Call,
        password: &TypedPassword,
        credential: Option<&Credential>,
    ) -> Result<Verdict, Error> {
        let (hash, form) = credential.map_or((&self.dummy_hash, PasswordForm::Opaque), |credential| {
            (&credential.password_hash, credential.form)
        });
        let password = password.in_form(form).clone();
        let verdict = self.hashing.verify(password, hash.clone(), call.fields().deadline).await?;
        if verdict.is_right() { Ok(verdict) } else { Err(Error::InvalidCredentials) }
    }

    /// The account is there, which the registration may not have come to know.
    async fn confirm(&self, credential: &Credential) {
        let Credential { user_id, pending_since, .. } = credential;
        if pending_since.is_some()
            && let Err(error) = self.store.confirm_credential(*user_id).await
        {
            debug!(%user_id, cause = %Chain(&error), "credential not confirmed");
        }
    }

    /// Replaces a hash that was made at another cost or of the raw text, after the response and only while no one else
    /// waits for a thread. What is not done now is done at another sign-in.
    fn upgrade(&self, credential: Credential, password: TypedPassword, verdict: Verdict) {
        let (hashing, store, now) = (Arc::clone(&self.hashing), self.store.clone(), self.clock.now());
        tokio::spawn(async move {
            let Credential { user_id, password_hash: old, .. } = credential;
            let form = PasswordForm::Opaque;
            // A current hash of a text that is its own normal form needs no more than to be marked so.
            let new = if verdict == Verdict::Right && password.forms_agree() {
                old.clone()
            } else {
                match hashing.hash_if_idle(password.in_form(form).clone()).await {
                    Ok(Some(new)) => new,
                    Ok(None) | Err(HashingError::Stopped) => return,
                    Err(error) => return debug!(%user_id, %error, "password hash not upgraded"),
                }
            };
            match store.replace_password_hash(user_id, &old, &new, form, now).await {
                Ok(true) => info!(%user_id, "password hash upgraded"),
                Ok(false) => {}
                Err(error) => debug!(%user_id, cause = %Chain(&error), "password hash not upgraded"),
            }
        });
    }
}
