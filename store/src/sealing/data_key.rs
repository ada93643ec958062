//! The key of one value.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use zeroize::Zeroizing;

use super::SealError;

/// The length of a key in bytes: AES-256.
const LENGTH: usize = 32;

/// A key for one value, or a master key. It is wiped when it is dropped.
#[derive(Clone)]
pub struct DataKey(Zeroizing<[u8; LENGTH]>);

impl DataKey {
    /// A new key.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn generate() -> Result<Self, SealError> {
        let mut key = Zeroizing::new([0; LENGTH]);
        rand::fill(key.as_mut()).map_err(|_| SealError::Random)?;
        Ok(Self(key))
    }

    /// A key of these bytes; `None` if it has another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; LENGTH]);
        (bytes.len() == LENGTH).then(|| {
            key.copy_from_slice(bytes);
            Self(key)
        })
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Encrypts with AES-256-GCM (NIST SP 800-38D): nonce, ciphertext and tag.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub(super) fn encrypt(&self, context: &[u8], value: &[u8]) -> Result<Vec<u8>, SealError> {
        // The value is encrypted in place: its copy must not remain in memory.
        let mut buffer = Zeroizing::new(Vec::with_capacity(value.len() + AES_256_GCM.tag_len()));
        buffer.extend_from_slice(value);
        let nonce = self
            .aead()
            .ok_or(SealError::Random)?
            .seal_in_place_append_tag(Aad::from(context), &mut *buffer)
            .map_err(|_| SealError::Random)?;
        Ok([nonce.as_ref().as_slice(), buffer.as_slice()].concat())
    }

    /// Decrypts; `None` if the key, the context or the bytes are others.
    pub(super) fn decrypt(&self, context: &[u8], encrypted: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, ciphertext) = encrypted.split_first_chunk::<NONCE_LEN>()?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.aead()?.open_in_place(nonce, Aad::from(context), &mut buffer).ok()?.len();
        buffer.truncate(length);
        Some(buffer)
    }

    fn aead(&self) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.0.as_slice()).ok()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey([redacted])")
    }
}
