//! Signing in with a password.
//!
//! An unknown address and a wrong password go the same way: one question to the user service, one to the property
//! service, one read of the store, one hash. Only then do they part from success.

use std::sync::Arc;

use drystone_mesh::{
    call::{self, Call},
    clock::Clock,
    error::Chain,
    token::new_token_id,
};
use tracing::{debug, info};

use crate::{
    attempts::AttemptLimits,
    credential::Credential,
    error::Error,
    hasher::{HashingError, HashingPool},
    neighbours::Neighbours,
    password::{Password, PasswordHash, Verdict},
    property_claims::PropertyClaims,
    store::AuthStore,
    tokens::{TokenIssuer, Tokens},
};

/// Signs people in.
pub struct SignIn {
    /// How often it may be tried.
    pub attempts: AttemptLimits,
    /// The other services.
    pub neighbours: Arc<dyn Neighbours>,
    /// Where the credentials are.
    pub store: Arc<dyn AuthStore>,
    /// Where passwords are checked.
    pub hashing: Arc<HashingPool>,
    /// What the password of an unknown address is checked against.
    pub no_password: PasswordHash,
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
    /// [`Error::InvalidCredentials`]; [`Error::Limited`]; what the neighbours, the hashing pool and the store fail with.
    pub async fn sign_in(&self, call: &Call, email: String, password: Password) -> Result<Tokens, Error> {
        self.attempts.sign_in(&call.parts().client, &email).await?;
        let as_of = self.clock.now();
        let account = self.neighbours.account_by_email(call, email).await?;
        // For an unknown address, the id of nobody goes through the same questions.
        let user_id = account.as_ref().map_or_else(|| new_token_id(as_of), |account| account.user_id);
        if account.is_some() {
            call::concerns(user_id);
        }
        let credential = self.store.credential(user_id).await?;

        // Asked first, so that it is asked in any case. A wrong password then ends both at once: nobody waits for the
        // claims of a token that is not made.
        let claims = async { Ok(self.property_claims.of(call, user_id).await) };
        let (claims, verdict) = tokio::try_join!(claims, self.check(call, &password, credential.as_ref()))?;
        let (Some(account), Some(credential)) = (account, credential) else {
            return Err(Error::InvalidCredentials);
        };
        let properties = self.property_claims.go_without(call, claims);
        self.confirm(&credential).await;

        let session = self.neighbours.create_session(call, user_id).await?;
        if verdict == Verdict::RightButOutdated {
            self.upgrade(credential, password);
        }
        self.issuer.issue(session, account, properties, as_of)
    }

    async fn check(&self, call: &Call, password: &Password, credential: Option<&Credential>) -> Result<Verdict, Error> {
        let hash = credential.map_or(&self.no_password, |credential| &credential.password_hash);
        let verdict = self.hashing.verify(password.clone(), hash.clone(), call.parts().deadline).await?;
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

    /// Hashes a password anew at today's cost, behind the answer and only while no one else waits for a thread. What
    /// does not come to pass now does at another sign-in.
    fn upgrade(&self, credential: Credential, password: Password) {
        let (hashing, store, now) = (Arc::clone(&self.hashing), Arc::clone(&self.store), self.clock.now());
        tokio::spawn(async move {
            let Credential { user_id, password_hash: old, .. } = credential;
            let new = match hashing.hash_if_idle(password).await {
                Ok(Some(new)) => new,
                Ok(None) | Err(HashingError::Stopped) => return,
                Err(error) => return debug!(%user_id, %error, "password hash not upgraded"),
            };
            match store.replace_password_hash(user_id, &old, &new, now).await {
                Ok(true) => info!(%user_id, "password hash upgraded"),
                Ok(false) => {}
                Err(error) => debug!(%user_id, cause = %Chain(&error), "password hash not upgraded"),
            }
        });
    }
}
