//! The keys of a running service: those that sign access tokens, and the secrets of refresh, device and link tokens and of
//! passkey challenges.
//!
//! Instances share the keys by the store, and read them anew every few seconds. A new key is published at once and signs
//! [`LEAD`] later, so that every instance and verifier knows it by then. A replaced signing key stays published until the
//! last token that it signed has expired.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use aws_lc_rs::rand;
use chrono::TimeDelta;
use drystone::auth::v1::Jwk;
use drystone_mesh::{
    clock::{Clock, Timestamp},
    health::Component,
};
use drystone_store::{
    Failure,
    sealing::{SealError, Sealed, Sealer, Stored},
};
use tokio::{sync::Mutex, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    StartError,
    config::MAX_ACCESS_TOKEN_LIFETIME,
    store::{self, AuthStore, KeyRows},
    token::{
        device_token::DeviceTokenCodec,
        link_token::LinkTokenCodec,
        mac::SECRET_LENGTH,
        mac_keys::MacKeys,
        passkey_challenge::PasskeyChallengeCodec,
        refresh_token::RefreshTokenCodec,
        signing_key::{SigningKey, StoredKey},
    },
};

/// How much earlier a key is published than it signs: verifiers fetch the key set every minute, and instances read the keys
/// every [`RELOAD_INTERVAL`].
pub const LEAD: TimeDelta = TimeDelta::minutes(2);

/// How often the keys are read anew.
pub(crate) const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// How long keys may be stale until the instance is taken out of service: others do not sign with new ones before [`LEAD`].
const MAX_STALE: TimeDelta = TimeDelta::minutes(1);

/// The interval of retries while the database is unavailable at start.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// How long a replaced key stays published after its last token has expired: clocks differ.
const RETIREMENT_MARGIN: TimeDelta = TimeDelta::minutes(2);

/// The kinds of token with a secret: the name of the secret, and how tokens begin.
pub(crate) const REFRESH: (&str, [u8; 3]) = ("refresh_token", *b"drt");
pub(crate) const DEVICE: (&str, [u8; 3]) = ("device_token", *b"ddt");
pub(crate) const LINK: (&str, [u8; 3]) = ("link_token", *b"dlt");
pub(crate) const PASSKEY: (&str, [u8; 3]) = ("passkey_challenge", *b"dpc");

/// All kinds of token with a secret.
pub(crate) const KINDS: [(&str, [u8; 3]); 4] = [REFRESH, DEVICE, LINK, PASSKEY];

/// The keys of a running service, which follow the store.
#[derive(Debug)]
pub struct KeyRing {
    store: AuthStore,
    sealer: Sealer,
    clock: Clock,
    current: ArcSwap<Keys>,
    /// The rows that `current` was read from.
    rows: Mutex<KeyRows>,
    /// Whether the last attempt to read the keys anew failed.
    is_stale: AtomicBool,
}

/// The keys, as they were read last.
#[derive(Debug)]
pub struct Keys {
    /// With the time from which each signs, latest first.
    signing: Vec<(SigningKey, Timestamp)>,
    /// Of refresh tokens.
    pub refresh_tokens: RefreshTokenCodec,
    /// Of device tokens.
    pub device_tokens: DeviceTokenCodec,
    /// Of the tokens of links.
    pub link_tokens: LinkTokenCodec,
    /// Of the challenges of passkeys.
    pub passkey_challenges: PasskeyChallengeCodec,
}

impl Keys {
    /// The key that signs access tokens now. `None` if there is none at all, which [`KeyRing`] excludes.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&SigningKey> {
        let signing = self.signing.iter().find(|(_, signs_from)| *signs_from <= now);
        signing.or(self.signing.last()).map(|(key, _)| key)
    }

    /// The public keys of access tokens, latest first: the next one, the one that signs, and earlier ones whose tokens may be
    /// in use.
    #[must_use]
    pub fn published(&self, now: Timestamp) -> Vec<Jwk> {
        let mut published = Vec::new();
        let mut replaced_at: Option<Timestamp> = None;
        for (key, signs_from) in &self.signing {
            let lifetime = TimeDelta::from_std(MAX_ACCESS_TOKEN_LIFETIME.duration()).unwrap_or(TimeDelta::MAX);
            if replaced_at.is_none_or(|replaced_at| now < replaced_at + lifetime + RETIREMENT_MARGIN) {
                published.push(key.jwk().clone());
            }
            replaced_at = Some(*signs_from);
        }
        published
    }
}

impl KeyRing {
    /// Reads the keys, and generates those that are missing.
    ///
    /// # Errors
    /// The store or the master key fails, or a key is invalid.
    pub async fn open(store: AuthStore, sealer: Sealer, clock: Clock) -> Result<Self, StartError> {
        let rows = match store.keys().await? {
            rows if rows.is_complete() => rows,
            rows => {
                // Two instances that start concurrently both get here. The store keeps the first keys; both then read them.
                generate_missing(&store, &sealer, &clock, &rows).await?;
                store.keys().await?
            }
        };
        let keys = read(&sealer, &rows).await?;
        let (current, rows) = (ArcSwap::from_pointee(keys), Mutex::new(rows));
        Ok(Self { store, sealer, clock, current, rows, is_stale: AtomicBool::new(false) })
    }

    /// The keys as they were read last.
    #[must_use]
    pub fn current(&self) -> Arc<Keys> {
        self.current.load_full()
    }

    /// The time by which keys are chosen.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether the keys could not be read anew: other instances may use keys that this one does not know.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.is_stale.load(Ordering::Relaxed)
    }

    /// Reads the keys anew if they have changed in the store.
    ///
    /// # Errors
    /// As [`Self::open`], and [`StartError::UnsealedKey`]; the keys stay as they were.
    pub async fn reload(&self) -> Result<(), StartError> {
        let outcome = self.read_changed().await;
        self.is_stale.store(outcome.is_err(), Ordering::Relaxed);
        outcome
    }

    async fn read_changed(&self) -> Result<(), StartError> {
        let mut known = self.rows.lock().await;
        let rows = self.store.keys().await?;
        if rows != *known {
            if has_unsealed(&rows) && !has_unsealed(&known) {
                return Err(StartError::UnsealedKey);
            }
            self.current.store(Arc::new(read(&self.sealer, &rows).await?));
            *known = rows;
            tracing::info!("keys have changed and were read anew");
        }
        Ok(())
    }

    /// Reads the keys anew in this interval until `stop`. `health` is down while the keys have been stale for [`MAX_STALE`].
    pub async fn follow(self: Arc<Self>, interval: Duration, health: Component, stop: CancellationToken) {
        let mut stale_since = None;
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = stop.cancelled() => return,
            }
            let Err(error) = self.reload().await else {
                stale_since = None;
                health.up();
                continue;
            };
            tracing::warn!(%error, "keys could not be read anew; those that were read last stay in use");
            let now = self.clock.now();
            if now - *stale_since.get_or_insert(now) < MAX_STALE {
                health.degraded(error.to_string());
            } else {
                health.down(error.to_string());
            }
        }
    }
}

/// A new secret, sealed for this name.
///
/// # Errors
/// The master key fails.
pub(crate) async fn new_secret(sealer: &Sealer, name: &str) -> Result<Sealed, StartError> {
    let mut secret = Zeroizing::new([0; SECRET_LENGTH]);
    rand::fill(secret.as_mut()).map_err(|_| StartError::Random)?;
    Ok(sealer.seal(store::secret_place(name), secret.as_ref()).await?)
}

async fn generate_missing(store: &AuthStore, sealer: &Sealer, clock: &Clock, rows: &KeyRows) -> Result<(), StartError> {
    if rows.signing.is_empty() {
        let key = StoredKey::generate(clock.now())?;
        let private_key = sealer.seal(store::signing_key_place(&key.kid), &key.private_key).await?;
        store.insert_first_signing_key(&key.kid, &key.algorithm, &private_key, key.created_at).await?;
    }
    for (name, _) in KINDS {
        if !rows.secrets.iter().any(|secret| secret.name == name) {
            store.insert_secret(name, &new_secret(sealer, name).await?, clock.now()).await?;
        }
    }
    Ok(())
}

async fn read(sealer: &Sealer, rows: &KeyRows) -> Result<Keys, StartError> {
    let mut signing = Vec::new();
    for row in &rows.signing {
        let private_key = sealer.read(store::signing_key_place(&row.kid), &row.private_key).await?;
        let (kid, algorithm, created_at) = (row.kid.clone(), row.algorithm.clone(), row.created_at);
        signing.push((SigningKey::load(&StoredKey { kid, algorithm, private_key, created_at })?, row.signs_from));
    }
    if signing.is_empty() {
        return Err(StartError::NoSigningKey);
    }
    signing.sort_by_key(|(_, signs_from)| std::cmp::Reverse(*signs_from));
    Ok(Keys {
        signing,
        refresh_tokens: RefreshTokenCodec::new(secrets(sealer, rows, REFRESH).await?),
        device_tokens: DeviceTokenCodec::new(secrets(sealer, rows, DEVICE).await?),
        link_tokens: LinkTokenCodec::new(secrets(sealer, rows, LINK).await?),
        passkey_challenges: PasskeyChallengeCodec::new(secrets(sealer, rows, PASSKEY).await?),
    })
}

fn has_unsealed(rows: &KeyRows) -> bool {
    let mut values = rows.signing.iter().map(|row| &row.private_key).chain(rows.secrets.iter().map(|row| &row.value));
    values.any(|value| matches!(value, Stored::Plain(_)))
}

async fn secrets(sealer: &Sealer, rows: &KeyRows, (name, kind): (&str, [u8; 3])) -> Result<MacKeys, StartError> {
    let mut secrets = Vec::new();
    for row in rows.secrets.iter().filter(|row| row.kind() == name) {
        let opened = sealer.read(store::secret_place(&row.name), &row.value).await?;
        let mut secret = Zeroizing::new([0; SECRET_LENGTH]);
        if opened.len() != SECRET_LENGTH {
            return Err(StartError::CorruptSecret);
        }
        secret.copy_from_slice(&opened);
        secrets.push((row.number().ok_or(StartError::CorruptSecret)?, secret, row.signs_from));
    }
    if secrets.is_empty() {
        return Err(StartError::CorruptSecret);
    }
    Ok(MacKeys::new(kind, secrets.iter().map(|(number, secret, signs_from)| (*number, &**secret, *signs_from))))
}

/// Retries `read` until the database and the master key are available, as opening the database does.
///
/// # Errors
/// Errors other than an unavailable database or key management service.
pub(crate) async fn retry_while_unavailable<T, F>(mut read: impl FnMut() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, StartError>>,
{
    loop {
        match read().await {
            Err(StartError::Store(error)) if Failure::of(&error) == Failure::Unavailable => {
                tracing::warn!(%error, "auth database unavailable, retrying");
            }
            Err(StartError::Seal(error @ SealError::Unavailable(_))) => {
                tracing::warn!(%error, "master key unavailable, retrying");
            }
            outcome => return outcome,
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}
