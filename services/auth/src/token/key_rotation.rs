//! Sealing and replacement of the stored keys, by an operator's command, while all instances serve.

use std::sync::Arc;

use drystone_mesh::{clock::Clock, token::WithdrawnKeys};
use drystone_store::sealing::{Sealed, Sealer, Stored};

use uuid::Uuid;

use crate::{
    StartError,
    store::{self, AuthStore, KeyRows, NewSecret, NewSigningKey, SealedKeys},
    token::{
        key_ring::{self, KINDS, KeyRing, LEAD, new_secret},
        key_spec::KeySpec,
        signing_key::StoredKey,
    },
};

/// How many secrets of second factors are read at once.
const FACTOR_BATCH: u32 = 100;

/// Seals, replaces and rewraps keys.
#[derive(Debug)]
pub struct KeyRotation {
    /// The keys in use, which are read anew after a change.
    pub keys: Arc<KeyRing>,
    /// The keys.
    pub store: AuthStore,
    /// The master key.
    pub sealer: Sealer,
    /// Source of time.
    pub clock: Clock,
    /// The algorithm of new signing keys.
    pub spec: KeySpec,
}

impl KeyRotation {
    /// Reads the keys, once the database and the master key are available, and generates those that are missing.
    ///
    /// # Errors
    /// As [`KeyRing::open`].
    pub async fn open(
        store: &AuthStore,
        sealer: &Sealer,
        clock: &Clock,
        spec: KeySpec,
        withdrawn: &WithdrawnKeys,
    ) -> Result<Self, StartError> {
        let open = || KeyRing::open(store.clone(), sealer.clone(), clock.clone(), spec, withdrawn.clone());
        let keys = Arc::new(key_ring::retry_while_unavailable(open).await?);
        Ok(Self { keys, store: store.clone(), sealer: sealer.clone(), clock: clock.clone(), spec })
    }

    /// Seals every key that an earlier release stored unsealed, and replaces it: who has a copy of the database from before
    /// has the key as well. Returns how many keys that were. Can be repeated.
    ///
    /// # Errors
    /// The store or the master key fails: nothing is changed. [`StartError::Scrub`]: keys are sealed and replaced, and the files of
    /// the database still have earlier bytes, which a repetition removes.
    pub async fn seal(&self) -> Result<u32, StartError> {
        let rows = self.store.keys().await?;
        let plan = self.plan(&rows).await?;
        let count = plan.signing.len() + plan.secrets.len();
        if count > 0 && self.store.seal_keys(&plan).await? {
            tracing::info!(count, "keys were sealed and replaced");
        }
        self.keys.reload().await?;
        // Also after an attempt that did not get here.
        self.store.scrub_keys().await.map_err(StartError::Scrub)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Puts every sealed key, and every secret of a second factor, under the master key that seals now. Returns how many that were. Can be repeated.
    ///
    /// # Errors
    /// The store or the master key fails; some keys may be done by then.
    pub async fn rewrap(&self) -> Result<u32, StartError> {
        self.sealer.refresh().await?;
        let rows = self.store.keys().await?;
        let mut count = 0;
        for row in &rows.signing {
            if let Stored::Sealed(old) = &row.private_key {
                let new = self.sealer.rewrap(store::signing_key_place(&row.kid), &old.envelope).await?;
                count += u32::from(self.store.replace_signing_key_envelope(&row.kid, old, &new).await?);
            }
        }
        for row in &rows.secrets {
            if let Stored::Sealed(old) = &row.value {
                let new = self.sealer.rewrap(store::secret_place(&row.name), &old.envelope).await?;
                count += u32::from(self.store.replace_secret_envelope(&row.name, old, &new).await?);
            }
        }
        count += self.rewrap_factors().await?;
        self.store.rewrap_check(&self.sealer).await?;
        tracing::info!(count, key = self.sealer.key_id(), "keys were put under the master key that seals now");
        Ok(count)
    }

    async fn rewrap_factors(&self) -> Result<u32, StartError> {
        let (mut after, mut count) = (Uuid::nil(), 0);
        loop {
            let batch = self.store.factor_secrets(after, FACTOR_BATCH).await?;
            for (id, old) in &batch {
                let new = self.sealer.rewrap(store::factor_place(id), &old.envelope).await?;
                count += u32::from(self.store.replace_factor_envelope(*id, old, &new).await?);
            }
            match batch.last() {
                Some((id, _)) => after = *id,
                None => return Ok(count),
            }
        }
    }

    async fn plan(&self, rows: &KeyRows) -> Result<SealedKeys, StartError> {
        let now = self.clock.now();
        let mut plan = SealedKeys { now, ..SealedKeys::default() };
        for row in &rows.signing {
            if let Stored::Plain(key) = &row.private_key {
                plan.signing.push((row.kid.clone(), self.sealer.seal(store::signing_key_place(&row.kid), key).await?));
            }
        }
        for row in &rows.secrets {
            if let Stored::Plain(secret) = &row.value {
                plan.secrets.push((row.name.clone(), self.sealer.seal(store::secret_place(&row.name), secret).await?));
            }
        }
        if !plan.signing.is_empty() {
            let key = StoredKey::generate_apart(self.spec, now).await?;
            let private_key = self.sealer.seal(store::signing_key_place(&key.kid), &key.private_key).await?;
            let (kid, algorithm) = (key.kid, key.algorithm);
            plan.new_signing_key = Some(NewSigningKey { kid, algorithm, private_key, signs_from: now + LEAD });
        }
        for (kind, _) in KINDS {
            if rows.secrets.iter().any(|row| row.kind() == kind && matches!(row.value, Stored::Plain(_))) {
                let last =
                    rows.secrets.iter().filter(|row| row.kind() == kind).filter_map(store::SecretRow::number).max();
                let name = format!("{kind}/{}", last.unwrap_or(0) + 1);
                let value: Sealed = new_secret(&self.sealer, &name).await?;
                plan.new_secrets.push(NewSecret { name, value, signs_from: now + LEAD });
            }
        }
        Ok(plan)
    }
}
