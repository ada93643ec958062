//! The signing keys. The newest signs; all are published, so that tokens of older keys stay valid until they expire.

use std::time::Duration;

use aws_lc_rs::rand;
use drystone::auth::v1::Jwk;
use drystone_mesh::clock::Clock;
use drystone_store::{
    Failure,
    sealing::{SealError, Sealer},
};
use zeroize::Zeroizing;

use crate::{
    StartError,
    store::{self, AuthStore},
    token::{
        device_token::DeviceTokenCodec,
        mac::SECRET_LENGTH,
        refresh_token::RefreshTokenCodec,
        signing_key::{SigningKey, StoredKey},
    },
};

/// The interval of retries while the database is unavailable.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The name of the refresh token secret in the store.
const REFRESH_SECRET: &str = "refresh_token";
/// The name of the device token secret in the store.
const DEVICE_SECRET: &str = "device_token";

/// The signing keys of a running service.
#[derive(Debug)]
pub struct KeyRing {
    signing: SigningKey,
    published: Vec<Jwk>,
}

impl KeyRing {
    /// Reads the keys, and generates the first one if there is none.
    ///
    /// # Errors
    /// The store fails, or has an invalid key.
    pub async fn open(store: &AuthStore, sealer: &Sealer, clock: &Clock) -> Result<Self, StartError> {
        let mut stored = store.signing_keys().await?;
        if stored.is_empty() {
            // Two instances that start concurrently both get here. The store keeps the first key; both then read it.
            let key = StoredKey::generate(clock.now())?;
            let private_key = sealer.seal(store::signing_key_place(&key.kid), &key.private_key).await?;
            store.insert_first_signing_key(&key.kid, &key.algorithm, &private_key, key.created_at).await?;
            stored = store.signing_keys().await?;
        }
        let mut keys = Vec::new();
        for row in stored {
            let private_key = sealer.read(store::signing_key_place(&row.kid), &row.private_key).await?;
            let (kid, algorithm, created_at) = (row.kid, row.algorithm, row.created_at);
            keys.push(SigningKey::load(&StoredKey { kid, algorithm, private_key, created_at })?);
        }
        let published = keys.iter().map(|key| key.jwk().clone()).collect();
        if keys.is_empty() {
            return Err(StartError::NoSigningKey);
        }
        Ok(Self { signing: keys.swap_remove(0), published })
    }

    /// The key for new signatures.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The public keys, newest first.
    #[must_use]
    pub fn published(&self) -> &[Jwk] {
        &self.published
    }
}

/// Reads the secret of the refresh tokens, or generates it if there is none.
///
/// # Errors
/// The store fails, or has a secret of invalid length.
pub async fn refresh_token_codec(
    store: &AuthStore,
    sealer: &Sealer,
    clock: &Clock,
) -> Result<RefreshTokenCodec, StartError> {
    secret(store, sealer, REFRESH_SECRET, clock).await.map(|secret| RefreshTokenCodec::new(&secret))
}

/// The codec of device tokens, with the stored secret; generates the secret if it is missing.
///
/// # Errors
/// The store fails, or has a secret of invalid length.
pub async fn device_token_codec(
    store: &AuthStore,
    sealer: &Sealer,
    clock: &Clock,
) -> Result<DeviceTokenCodec, StartError> {
    secret(store, sealer, DEVICE_SECRET, clock).await.map(|secret| DeviceTokenCodec::new(&secret))
}

async fn secret(
    store: &AuthStore,
    sealer: &Sealer,
    name: &str,
    clock: &Clock,
) -> Result<Zeroizing<[u8; SECRET_LENGTH]>, StartError> {
    let mut stored = store.secret(name).await?;
    if stored.is_none() {
        let mut fresh = Zeroizing::new([0; SECRET_LENGTH]);
        rand::fill(fresh.as_mut()).map_err(|_| StartError::Random)?;
        let fresh = sealer.seal(store::secret_place(name), fresh.as_ref()).await?;
        // As with signing keys, the first one is kept.
        store.insert_secret(name, &fresh, clock.now()).await?;
        stored = store.secret(name).await?;
    }
    let stored = sealer.read(store::secret_place(name), &stored.ok_or(StartError::CorruptSecret)?).await?;
    let mut secret = Zeroizing::new([0; SECRET_LENGTH]);
    if stored.len() != SECRET_LENGTH {
        return Err(StartError::CorruptSecret);
    }
    secret.copy_from_slice(&stored);
    Ok(secret)
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
