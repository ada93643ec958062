//! A master key file that is read anew when its keys have changed.

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;

use super::{DataKey, KeyEncryption, MasterKeyError, MasterKeys, SealError};

/// The keys of a file. It is read anew when a value names a key that it did not have, and on request. Keys that the file no longer
/// has still open values until the process ends: values are rewrapped after the file has changed.
#[derive(Debug)]
pub struct MasterKeyFile {
    path: PathBuf,
    keys: ArcSwap<MasterKeys>,
}

impl MasterKeyFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`MasterKeyError`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, MasterKeyError> {
        let path = path.into();
        let keys = ArcSwap::from_pointee(MasterKeys::read(&path)?);
        Ok(Self { path, keys })
    }

    fn reload(&self) -> Result<(), MasterKeyError> {
        self.keys.store(Arc::new(MasterKeys::read(&self.path)?.with_earlier(&self.keys.load())?));
        Ok(())
    }
}

#[async_trait]
impl KeyEncryption for MasterKeyFile {
    fn key_id(&self) -> String {
        self.keys.load().key_id()
    }

    async fn encrypt(&self, key: &DataKey, context: &[u8]) -> Result<(String, Vec<u8>), SealError> {
        self.keys.load_full().encrypt(key, context).await
    }

    async fn decrypt(&self, key_id: &str, encrypted: &[u8], context: &[u8]) -> Result<DataKey, SealError> {
        match self.keys.load_full().decrypt(key_id, encrypted, context).await {
            Err(SealError::UnknownKey(_)) => {
                self.reload()?;
                self.keys.load_full().decrypt(key_id, encrypted, context).await
            }
            outcome => outcome,
        }
    }

    async fn refresh(&self) -> Result<(), SealError> {
        Ok(self.reload()?)
    }
}
