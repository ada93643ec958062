//! Rotation of signing keys, on schedule and by an operator's command, and the withdrawal of compromised ones.
//!
//! | state | published | signs | private key |
//! |---|---|---|---|
//! | published | from its creation | [`LEAD`] later | stored |
//! | signing | yes | yes | stored |
//! | retired | until its last token has expired | no | deleted then |
//! | withdrawn | no | no | deleted at once |
//!
//! Every instance runs [`SigningKeys::run`]. The store makes one change of those that several instances begin at once.

mod withdrawal;

use std::{fmt, sync::Arc, time::Duration};

use chrono::TimeDelta;
use drystone_mesh::clock::{Clock, Timestamp};
use drystone_store::{outbox::Relay, sealing::Sealer};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(crate) use self::withdrawal::Withdrawn;
use crate::{
    config::SigningKeyConfig,
    error::{Error, StartError},
    store::{self, AuthStore, FormerKey, NewSigningKey},
    token::{
        key_ring::{KeyRing, Keys, LEAD, retires_at},
        key_rotation::KeyRotation,
        key_spec::KeySpec,
        signing_key::StoredKey,
    },
    upstreams::Upstreams,
};

/// How long a key signs at least before another algorithm in the configuration replaces it: while instances with the former
/// configuration run, each would replace the other's key.
const MIN_AGE: TimeDelta = TimeDelta::minutes(10);

/// How long after the start of a process no rotation begins by schedule: verifiers outside the mesh may have cached the key set of the
/// release before for an hour.
const MIN_UPTIME: Duration = Duration::from_hours(1);

/// How much later than [`LEAD`] a pending key may sign. One that signs later was made by a clock that was fast.
const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);

/// How often a change is planned anew because another instance has changed the keys meanwhile.
const MAX_ATTEMPTS: u32 = 5;

/// Rotates and withdraws signing keys.
pub(crate) struct SigningKeys {
    /// The keys in use, which are read anew after a change.
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) store: AuthStore,
    pub(crate) sealer: Sealer,
    pub(crate) clock: Clock,
    pub(crate) relay: Relay,
    /// The session service revokes the tokens of withdrawn keys.
    pub(crate) upstreams: Arc<dyn Upstreams>,
    /// The algorithm of new keys.
    pub(crate) spec: KeySpec,
    /// How long a key signs.
    pub(crate) period: TimeDelta,
    /// When the process started, in monotonic time.
    started_at: Duration,
}

/// What a signing key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyState {
    /// It is published, and will sign.
    Published,
    /// It signs.
    Signing,
    /// Another one has replaced it.
    Retired,
    /// It was compromised.
    Withdrawn,
}

/// A signing key, as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyInfo {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    pub(crate) state: KeyState,
    /// When it came into this state.
    pub(crate) since: Timestamp,
    /// When the state ends; of a retired key, when it leaves or has left the key set.
    pub(crate) until: Option<Timestamp>,
}

/// A rotation that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rotation {
    pub(crate) kid: String,
    pub(crate) algorithm: String,
    /// When the new key begins to sign.
    pub(crate) signs_from: Timestamp,
    /// Whether it had begun before.
    pub(crate) was_pending: bool,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("spec", &self.spec).field("period", &self.period).finish_non_exhaustive()
    }
}

impl SigningKeys {
    pub(crate) fn new(
        rotation: &KeyRotation,
        relay: Relay,
        upstreams: Arc<dyn Upstreams>,
        config: &SigningKeyConfig,
    ) -> Arc<Self> {
        let KeyRotation { keys, store, sealer, clock, spec } = rotation;
        Arc::new(Self {
            keys: Arc::clone(keys),
            store: store.clone(),
            sealer: sealer.clone(),
            clock: clock.clone(),
            relay,
            upstreams,
            spec: *spec,
            period: TimeDelta::from_std(config.rotation_period.duration()).unwrap_or(TimeDelta::MAX),
            started_at: clock.monotonic(),
        })
    }

    /// All keys in use and the last ones before, latest first.
    pub(crate) async fn list(&self) -> Result<Vec<KeyInfo>, Error> {
        self.reload().await?;
        let (keys, now) = (self.keys.current(), self.clock.now());
        let signing = keys.signing(now).map(|key| key.kid().to_owned());
        let in_use = keys.all_signing().map(|(timed, replaced_at)| {
            let (state, since, until) = match replaced_at {
                _ if signing.as_deref() == Some(timed.key.kid()) => {
                    (KeyState::Signing, timed.begins_at(), Some(replaced_at.unwrap_or(timed.begins_at() + self.period)))
                }
                Some(replaced_at) if replaced_at <= now => {
                    (KeyState::Retired, replaced_at, Some(retires_at(replaced_at)))
                }
                _ => (KeyState::Published, timed.created_at, Some(timed.signs_from)),
            };
            let algorithm = timed.key.jwk().alg.clone();
            KeyInfo { kid: timed.key.kid().to_owned(), algorithm, state, since, until }
        });
        let mut all: Vec<_> = in_use.collect();
        for FormerKey { kid, algorithm, replaced_at, ended_at, withdrawn_at } in self.store.former_keys().await? {
            all.push(match withdrawn_at {
                Some(since) => KeyInfo { kid, algorithm, state: KeyState::Withdrawn, since, until: None },
                None => KeyInfo { kid, algorithm, state: KeyState::Retired, since: replaced_at, until: Some(ended_at) },
            });
        }
        Ok(all)
    }

    /// Publishes a new key that signs [`LEAD`] later, unless one is published already that will. One that signs too late, by a clock that
    /// was fast, signs [`LEAD`] later as well.
    ///
    /// # Errors
    /// [`Error::KeysBusy`]; the store or the master key fails.
    pub(crate) async fn rotate(&self) -> Result<Rotation, Error> {
        for _ in 0..MAX_ATTEMPTS {
            self.reload().await?;
            let (keys, now) = (self.keys.current(), self.clock.now());
            let (last, _) = keys.all_signing().next().ok_or(Error::NoSigningKey)?;
            if last.signs_from > now {
                let (kid, algorithm) = (last.key.kid().to_owned(), last.key.jwk().alg.clone());
                let mut signs_from = last.signs_from;
                if is_too_late(signs_from, now) {
                    if !self.store.reschedule_key(&kid, signs_from, now + LEAD, now).await? {
                        continue;
                    }
                    tracing::warn!(kid, %signs_from, "a signing key was to sign too late, by a wrong clock; it signs earlier");
                    signs_from = now + LEAD;
                    self.reload().await?;
                }
                return Ok(Rotation { kid, algorithm, signs_from, was_pending: true });
            }
            let new = self.generate(now + LEAD, now).await?;
            if self.store.begin_key_rotation(&new, last.key.kid(), now).await? {
                self.reload().await?;
                let NewSigningKey { kid, algorithm, signs_from, .. } = new;
                tracing::info!(target: "audit", event = "signing_key_rotated", kid, algorithm, %signs_from, "a new signing key was published");
                return Ok(Rotation { kid, algorithm, signs_from, was_pending: false });
            }
        }
        Err(Error::KeysBusy)
    }

    async fn generate(&self, signs_from: Timestamp, now: Timestamp) -> Result<NewSigningKey, Error> {
        let key = StoredKey::generate_apart(self.spec, now).await.map_err(|error| Error::Keys(error.into()))?;
        let sealed = self.sealer.seal(store::signing_key_place(&key.kid), &key.private_key).await;
        let private_key = sealed.map_err(|error| Error::Keys(error.into()))?;
        Ok(NewSigningKey { kid: key.kid, algorithm: key.algorithm, private_key, signs_from })
    }

    async fn reload(&self) -> Result<(), Error> {
        self.keys.reload().await.map_err(to_error)
    }

    /// Reads the keys anew. If a withdrawal has left none, since the master key was unavailable, generates one that signs at once.
    async fn reload_or_generate(&self) -> Result<(), Error> {
        match self.keys.reload().await {
            Err(StartError::NoSigningKey) => {}
            outcome => return outcome.map_err(to_error),
        }
        let now = self.clock.now();
        let NewSigningKey { kid, algorithm, private_key, .. } = self.generate(now, now).await?;
        // Of several instances that get here, one inserts its key.
        self.store.insert_first_signing_key(&kid, &algorithm, &private_key, now).await?;
        tracing::info!("a signing key was generated, since a withdrawal had left none");
        self.reload().await
    }

    /// When the next rotation is due. Absent while one is pending.
    pub(crate) fn next_rotation(&self, keys: &Keys, now: Timestamp) -> Option<Timestamp> {
        let (last, _) = keys.all_signing().next()?;
        if last.signs_from > now {
            return is_too_late(last.signs_from, now).then_some(now);
        }
        let mut due_at = last.begins_at() + self.period - LEAD;
        if last.key.spec() != self.spec {
            due_at = due_at.min(last.begins_at() + MIN_AGE);
        }
        let uptime = self.clock.monotonic().saturating_sub(self.started_at);
        let wait = TimeDelta::from_std(MIN_UPTIME.saturating_sub(uptime)).unwrap_or_default();
        Some(if wait.is_zero() { due_at } else { due_at.max(now + wait) })
    }

    /// Does what is due: withdraws keys that are known as withdrawn, removes keys whose last token has expired, and rotates.
    ///
    /// # Errors
    /// The store or the master key fails.
    pub(crate) async fn tick(&self) -> Result<(), Error> {
        // Another instance may have changed the keys.
        self.reload_or_generate().await?;
        let (keys, now) = (self.keys.current(), self.clock.now());
        let kids = keys.all_signing().map(|(timed, _)| timed.key.kid().to_owned());
        let withdrawn: Vec<_> = kids.filter(|kid| self.keys.is_withdrawn(kid)).collect();
        if !withdrawn.is_empty() {
            // The database was restored from a backup of before the withdrawal.
            for kid in withdrawn {
                self.withdraw(&kid).await?;
            }
            return Ok(());
        }
        let retired = keys.all_signing().filter_map(|(timed, replaced_at)| {
            let replaced_at = replaced_at.filter(|at| retires_at(*at) <= now)?;
            let (kid, algorithm) = (timed.key.kid().to_owned(), timed.key.jwk().alg.clone());
            Some(FormerKey { kid, algorithm, replaced_at, ended_at: now, withdrawn_at: None })
        });
        let retired: Vec<_> = retired.collect();
        if !retired.is_empty() {
            for kid in self.store.retire_keys(&retired, now).await? {
                tracing::info!(target: "audit", event = "signing_key_retired", kid, "a signing key was removed");
            }
            self.reload().await?;
        }
        let is_due = |keys: &Keys| self.next_rotation(keys, now).is_some_and(|due_at| due_at <= now);
        if is_due(&self.keys.current()) {
            self.rotate().await?;
        }
        Ok(())
    }

    /// Does what is due in this interval until `stop`.
    pub(crate) async fn run(self: Arc<Self>, interval: Duration, stop: CancellationToken) {
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(interval.tick()).await.is_some() {
            if let Err(error) = self.tick().await {
                tracing::warn!(%error, "signing keys could not be rotated; they will be");
            }
        }
    }
}

/// Whether a pending key is to sign later than any instance with a right clock plans.
fn is_too_late(signs_from: Timestamp, now: Timestamp) -> bool {
    signs_from > now + LEAD + MAX_CLOCK_SKEW
}

fn to_error(error: StartError) -> Error {
    match error {
        StartError::Store(error) => Error::Store(error),
        error => Error::Keys(error),
    }
}
