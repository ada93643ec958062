//! The signing keys. The newest signs; all are published, so that tokens of older keys stay valid until they expire.

use std::time::Duration;

use aws_lc_rs::rand;
use drystone::auth::v1::Jwk;
use drystone_mesh::clock::Clock;
use drystone_store::Failure;
use zeroize::Zeroizing;

use crate::{
    StartError,
    store::AuthStore,
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
    pub async fn open(store: &AuthStore, clock: &Clock) -> Result<Self, StartError> {
        let mut stored = store.signing_keys().await?;
        if stored.is_empty() {
            // Two instances that start concurrently both get here. The store keeps the first key; both then read it.
            store.insert_first_signing_key(StoredKey::generate(clock.now())?).await?;
            stored = store.signing_keys().await?;
        }
        let mut keys = stored.iter().map(SigningKey::load).collect::<Result<Vec<_>, _>>()?;
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
pub async fn refresh_token_codec(store: &AuthStore, clock: &Clock) -> Result<RefreshTokenCodec, StartError> {
    secret(store, REFRESH_SECRET, clock).await.map(|secret| RefreshTokenCodec::new(&secret))
}

/// The codec of device tokens, with the stored secret; generates the secret if it is missing.
///
/// # Errors
/// The store fails, or has a secret of invalid length.
pub async fn device_token_codec(store: &AuthStore, clock: &Clock) -> Result<DeviceTokenCodec, StartError> {
    secret(store, DEVICE_SECRET, clock).await.map(|secret| DeviceTokenCodec::new(&secret))
}

async fn secret(store: &AuthStore, name: &str, clock: &Clock) -> Result<Zeroizing<[u8; SECRET_LENGTH]>, StartError> {
    let mut fresh = Zeroizing::new([0; SECRET_LENGTH]);
    rand::fill(fresh.as_mut()).map_err(|_| StartError::Random)?;
    let stored = store.secret(name, fresh.as_ref(), clock.now()).await?;
    let secret: [u8; SECRET_LENGTH] = stored.as_slice().try_into().map_err(|_| StartError::CorruptSecret)?;
    Ok(Zeroizing::new(secret))
}

/// Retries `read` until the database is available, as opening the database does.
///
/// # Errors
/// Errors other than an unavailable database.
pub(crate) async fn retry_while_unavailable<T, F>(mut read: impl FnMut() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, StartError>>,
{
    loop {
        match read().await {
            Err(StartError::Store(error)) if Failure::of(&error) == Failure::Unavailable => {
                tracing::warn!(%error, "auth database unavailable, retrying");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}
