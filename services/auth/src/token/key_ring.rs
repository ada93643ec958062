//! All signing keys: the newest signs, all are published, so that tokens of an older one stay good until they end.

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
        refresh_token::{RefreshTokenSeal, SECRET_LENGTH},
        signing_key::{SigningKey, StoredKey},
    },
};

/// How long to wait before the database is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// The name that the refresh tokens' secret is kept under.
const REFRESH_SECRET: &str = "refresh_token";

/// The keys of a running service.
#[derive(Debug)]
pub struct KeyRing {
    signing: SigningKey,
    published: Vec<Jwk>,
}

impl KeyRing {
    /// Reads the keys, and makes the first where there is none.
    ///
    /// # Errors
    /// The store fails, or holds a key that cannot be used.
    pub async fn open(store: &AuthStore, clock: &Clock) -> Result<Self, StartError> {
        let mut stored = store.signing_keys().await?;
        if stored.is_empty() {
            // Two that start at once both find none. The store keeps the key of the first, and both then read it.
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

    /// The key that signs.
    #[must_use]
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The public halves of all keys, newest first.
    #[must_use]
    pub fn published(&self) -> &[Jwk] {
        &self.published
    }
}

/// Reads the secret of the refresh tokens, and makes it where there is none.
///
/// # Errors
/// The store fails, or holds a secret of another length.
pub async fn refresh_token_seal(store: &AuthStore, clock: &Clock) -> Result<RefreshTokenSeal, StartError> {
    let mut fresh = Zeroizing::new([0; SECRET_LENGTH]);
    rand::fill(fresh.as_mut()).map_err(|_| StartError::Random)?;
    let kept = store.secret(REFRESH_SECRET, fresh.as_ref(), clock.now()).await?;
    let secret: &[u8; SECRET_LENGTH] = kept.as_slice().try_into().map_err(|_| StartError::SecretDamaged)?;
    Ok(RefreshTokenSeal::new(secret))
}

/// Reads what the service cannot start without. A database that goes away just then is waited for, as it is when it is
/// opened.
///
/// # Errors
/// What will be no better in a moment.
pub(crate) async fn once_there<T, F>(mut read: impl FnMut() -> F) -> Result<T, StartError>
where
    F: Future<Output = Result<T, StartError>>,
{
    loop {
        match read().await {
            Err(StartError::Store(error)) if Failure::of(&error) == Failure::Unavailable => {
                tracing::warn!(%error, "waiting for the database of auth");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}
