//! The check of a code or passkey.

use std::sync::Arc;

use drystone_mesh::{call::Call, clock::Clock};
use drystone_store::sealing::Sealer;
use uuid::Uuid;

use super::{
    FactorKind, FactorProof, FactorUse, StoredFactor, backup_code::BackupCode, passkey::Passkeys, totp::Secret,
};
use crate::{
    error::Error,
    metrics::FactorMetrics,
    password::{
        PasswordHash,
        hasher::{HashingPool, JobOrigin},
    },
    password_check::PasswordCheck,
    store::{AuthStore, factor_place},
    token::passkey_challenge::Ceremony,
};

/// Checks codes and passkeys.
#[derive(Clone)]
pub struct FactorCheck {
    pub(crate) store: AuthStore,
    pub(crate) sealer: Sealer,
    pub(crate) passkeys: Passkeys,
    pub(crate) metrics: FactorMetrics,
    pub(crate) hashing: Arc<HashingPool>,
    pub(crate) clock: Clock,
    /// What a backup code is verified against that the user does not have.
    pub(crate) dummy_hash: PasswordHash,
}

impl FactorCheck {
    /// With the store, the hashing pool and the dummy hash of `passwords`.
    pub(crate) fn new(sealer: Sealer, passkeys: Passkeys, passwords: PasswordCheck, clock: Clock) -> Self {
        let PasswordCheck { hashing, store, dummy_hash, .. } = passwords;
        let metrics = passkeys.metrics.clone();
        Self { store, sealer, passkeys, metrics, hashing, clock, dummy_hash }
    }

    /// What a proof of a user uses up, if it is right; a passkey is asked for by this ceremony. Uses up nothing.
    ///
    /// # Errors
    /// [`Error::CodeInvalid`]; [`Error::PasskeyInvalid`], [`Error::PasskeyUnknown`]; errors of the store, the master key and the hashing pool.
    pub(crate) async fn find(
        &self,
        call: &Call,
        user_id: Uuid,
        proof: &FactorProof,
        ceremony: Ceremony,
    ) -> Result<FactorUse, Error> {
        let found = self.try_find(call, user_id, proof, ceremony).await;
        match &found {
            // Counted where passkeys are found.
            _ if proof.kind() == FactorKind::Passkey => {}
            Ok(_) => self.metrics.proof(proof.kind(), true),
            Err(Error::CodeInvalid) => self.metrics.proof(proof.kind(), false),
            // It says nothing about the code.
            Err(_) => {}
        }
        found
    }

    async fn try_find(
        &self,
        call: &Call,
        user_id: Uuid,
        proof: &FactorProof,
        ceremony: Ceremony,
    ) -> Result<FactorUse, Error> {
        match proof {
            FactorProof::Passkey(response) => {
                Ok(FactorUse::Passkey(self.passkeys.find(response, ceremony, Some(user_id)).await?))
            }
            FactorProof::Totp(code) => {
                let factors = self.store.confirmed_factors(user_id).await?.into_iter();
                for stored in factors.filter(|stored| stored.factor.kind == FactorKind::Totp) {
                    if let Some(step) = self.step_of(&stored, code).await? {
                        if self.store.is_used(stored.factor.id, step).await? {
                            return Err(Error::CodeInvalid);
                        }
                        return Ok(FactorUse::Totp { factor_id: stored.factor.id, step });
                    }
                }
                Err(Error::CodeInvalid)
            }
            FactorProof::Backup(typed) => {
                let code = BackupCode::parse(typed).ok_or(Error::CodeInvalid)?;
                let stored = self.store.backup_code(user_id, code.number()).await?;
                let hash = stored.as_ref().unwrap_or(&self.dummy_hash).clone();
                let (origin, deadline) = (JobOrigin::unknown(&call.fields().client), call.fields().deadline);
                let verification = self.hashing.verify(code.to_password(), hash, origin, deadline).await?;
                let hash = stored.filter(|_| verification.is_match()).ok_or(Error::CodeInvalid)?;
                Ok(FactorUse::Backup { number: code.number(), hash })
            }
        }
    }

    /// The step whose code this is.
    pub(super) async fn step_of(&self, stored: &StoredFactor, code: &str) -> Result<Option<i64>, Error> {
        let secret =
            self.sealer.open(factor_place(&stored.factor.id), &stored.secret.envelope).await.map_err(Error::Seal)?;
        Ok(Secret::from_bytes(secret).step_of(code, self.clock.now()))
    }
}
