//! The keys of a running service: those that sign access tokens, and the secrets of refresh, device and link tokens and of
//! passkey challenges.
//!
//! Instances share the keys by the store, and read them anew every few seconds. A new key is published at once and signs
//! [`LEAD`] later, so that every instance and verifier knows it by then. A replaced signing key stays published until the
//! last token that it signed has expired. `signing_keys.rs` replaces and withdraws signing keys.
//!
//! A key that another instance has withdrawn is known by its revocation first. It signs nothing from then on, and the keys are read
//! anew at once.

use std::{
    collections::BTreeSet,
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
    token::WithdrawnKeys,
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
    error::Error,
    store::{self, AuthStore, KeyRows},
    token::{
        device_token::DeviceTokenCodec,
        key_spec::KeySpec,
        link_token::LinkTokenCodec,
        mac::SECRET_LENGTH,
        mac_keys::MacKeys,
        passkey_challenge::PasskeyChallengeCodec,
        refresh_token::RefreshTokenCodec,
        signing_key::{SigningKey, StoredKey},
    },
};

/// How much earlier a key is published than it signs: an instance may publish stale keys for [`MAX_STALE`], the key set may be cached for a
/// minute, and verifiers fetch it every minute. Instances read the keys every [`RELOAD_INTERVAL`].
pub const LEAD: TimeDelta = TimeDelta::minutes(5);

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
    /// The signing keys of which tokens are refused everywhere.
    withdrawn: WithdrawnKeys,
    current: ArcSwap<Keys>,
    /// The signing keys that the last change has removed from the store. While the keys that are left cannot be read, `current` has them
    /// still.
    removed: ArcSwap<BTreeSet<String>>,
    /// The rows that `current` was read from.
    rows: Mutex<KeyRows>,
    /// Whether the last attempt to read the keys anew failed.
    is_stale: AtomicBool,
}

/// The keys, as they were read last.
#[derive(Debug)]
pub struct Keys {
    /// By the time from which each signs, latest first.
    signing: Vec<TimedKey>,
    /// Of refresh tokens.
    pub refresh_tokens: RefreshTokenCodec,
    /// Of device tokens.
    pub device_tokens: DeviceTokenCodec,
    /// Of the tokens of links.
    pub link_tokens: LinkTokenCodec,
    /// Of the challenges of passkeys.
    pub passkey_challenges: PasskeyChallengeCodec,
}

/// A signing key, with its times.
#[derive(Debug)]
pub struct TimedKey {
    /// The key.
    pub key: SigningKey,
    /// Its place among the keys: the latest one whose time has come signs.
    pub signs_from: Timestamp,
    /// When it was generated.
    pub created_at: Timestamp,
}

impl TimedKey {
    /// When it begins to sign: at its place, or when it was generated, if it took the place of a withdrawn key.
    #[must_use]
    pub fn begins_at(&self) -> Timestamp {
        self.signs_from.max(self.created_at)
    }
}

/// When a key is removed from the key set that another one replaced at this time: its last token has expired by then.
#[must_use]
pub fn retires_at(replaced_at: Timestamp) -> Timestamp {
    let lifetime = TimeDelta::from_std(MAX_ACCESS_TOKEN_LIFETIME.duration()).unwrap_or(TimeDelta::MAX);
    replaced_at + lifetime + RETIREMENT_MARGIN
}

impl Keys {
    /// The key that signs access tokens now. `None` if there is none at all, which [`KeyRing`] excludes.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&SigningKey> {
        self.timed_signing(now).map(|timed| &timed.key)
    }

    /// The key that signs access tokens now, with its times.
    #[must_use]
    pub fn timed_signing(&self, now: Timestamp) -> Option<&TimedKey> {
        self.signing.iter().find(|timed| timed.signs_from <= now).or(self.signing.last())
    }

    /// All signing keys, latest first: with the time at which another one replaces or has replaced each, if one does.
    pub fn all_signing(&self) -> impl Iterator<Item = (&TimedKey, Option<Timestamp>)> {
        let replaced_at = std::iter::once(None).chain(self.signing.iter().map(|timed| Some(timed.signs_from)));
        self.signing.iter().zip(replaced_at)
    }

    /// The public keys of access tokens, latest first: the next one, the one that signs, and earlier ones whose tokens may be
    /// in use.
    #[must_use]
    pub fn published(&self, now: Timestamp) -> Vec<Jwk> {
        let is_published = |replaced_at: Option<Timestamp>| replaced_at.is_none_or(|at| now < retires_at(at));
        let published = self.all_signing().filter(|(_, replaced_at)| is_published(*replaced_at));
        published.map(|(timed, _)| timed.key.jwk().clone()).collect()
    }
}

impl KeyRing {
    /// Reads the keys, and generates those that are missing; a signing key as `spec` says. None of `withdrawn` signs.
    ///
    /// # Errors
    /// The store or the master key fails, or a key is invalid.
    pub async fn open(
        store: AuthStore,
        sealer: Sealer,
        clock: Clock,
        spec: KeySpec,
        withdrawn: WithdrawnKeys,
    ) -> Result<Self, StartError> {
        let rows = match store.keys().await? {
            rows if rows.is_complete() => rows,
            rows => {
                // Two instances that start concurrently both get here. The store keeps the first keys; both then read them.
                generate_missing(&store, &sealer, &clock, spec, &rows).await?;
                store.keys().await?
            }
        };
        let keys = read(&sealer, &rows).await?;
        let (current, rows) = (ArcSwap::from_pointee(keys), Mutex::new(rows));
        let (removed, is_stale) = (ArcSwap::default(), AtomicBool::new(false));
        Ok(Self { store, sealer, clock, withdrawn, current, removed, rows, is_stale })
    }

    /// The keys as they were read last.
    #[must_use]
    pub fn current(&self) -> Arc<Keys> {
        self.current.load_full()
    }

    /// The keys, with one that signs: if another instance has withdrawn the one that does, they are read anew.
    ///
    /// # Errors
    /// [`Error::KeysStale`] if they cannot be.
    pub async fn ready_to_sign(&self) -> Result<Arc<Keys>, Error> {
        let keys = self.current();
        if self.signing_key(&keys).is_ok() {
            return Ok(keys);
        }
        if let Err(error) = self.reload().await {
            tracing::warn!(%error, "the key that signs was withdrawn, and its successor cannot be read");
        }
        let keys = self.current();
        self.signing_key(&keys).map(|_| ())?;
        Ok(keys)
    }

    /// The key that signs now.
    ///
    /// # Errors
    /// [`Error::KeysStale`] if it was withdrawn: its tokens are refused everywhere.
    pub fn signing_key<'a>(&self, keys: &'a Keys) -> Result<&'a SigningKey, Error> {
        let key = keys.signing(self.now()).ok_or(Error::NoSigningKey)?;
        if self.is_withdrawn(key.kid()) { Err(Error::KeysStale) } else { Ok(key) }
    }

    /// Whether the tokens of this key are refused everywhere, or it was removed from the store.
    #[must_use]
    pub fn is_withdrawn(&self, kid: &str) -> bool {
        self.withdrawn.contains(kid) || self.removed.load().contains(kid)
    }

    /// The public keys of access tokens, as [`Keys::published`], without any that was withdrawn: not those of a restored backup either.
    #[must_use]
    pub fn published(&self, keys: &Keys) -> Vec<Jwk> {
        let mut published = keys.published(self.now());
        published.retain(|jwk| !self.is_withdrawn(&jwk.kid));
        published
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
            // Known also if the master key is unavailable.
            let is_stored = |kid: &str| rows.signing.iter().any(|row| row.kid == kid);
            let kids = self.current().all_signing().map(|(timed, _)| timed.key.kid().to_owned()).collect::<Vec<_>>();
            self.removed.store(Arc::new(kids.into_iter().filter(|kid| !is_stored(kid)).collect()));
            self.current.store(Arc::new(read(&self.sealer, &rows).await?));
            *known = rows;
            tracing::info!("keys have changed and were read anew");
        } else if self.is_stale() {
            // They are again what they were before the last attempts failed.
            self.removed.store(Arc::default());
        }
        Ok(())
    }

    /// Reads the keys anew in this interval until `stop`, and at once when a signing key was withdrawn. `health` is down while the keys have been stale for [`MAX_STALE`].
    pub async fn follow(self: Arc<Self>, interval: Duration, health: Component, stop: CancellationToken) {
        let (mut stale_since, mut withdrawals) = (None, self.withdrawn.watch());
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                _ = withdrawals.changed() => {}
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

async fn generate_missing(
    store: &AuthStore,
    sealer: &Sealer,
    clock: &Clock,
    spec: KeySpec,
    rows: &KeyRows,
) -> Result<(), StartError> {
    if rows.signing.is_empty() {
        let key = StoredKey::generate_apart(spec, clock.now()).await?;
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
        let key = SigningKey::load(&StoredKey { kid, algorithm, private_key, created_at })?;
        signing.push(TimedKey { key, signs_from: row.signs_from, created_at });
    }
    if signing.is_empty() {
        return Err(StartError::NoSigningKey);
    }
    // As `AuthStore::begin_key_rotation` orders them.
    signing.sort_by(|one, other| (other.signs_from, other.key.kid()).cmp(&(one.signs_from, one.key.kid())));
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
