//! Sealing: encryption at rest of the values that must stay secret even from a reader of the database.
//!
//! A value is encrypted with a data key of its own (AES-256-GCM), and the data key with a master key, which is not in the
//! database ([`KeyEncryption`]). Both are in the envelope that is stored ([`Envelope`]). The [`Place`] of a value is
//! authenticated with it, so that an envelope opens only in the row and column where it was sealed.
//!
//! Beside an envelope a row holds the id of its master key, so that rows without sealing, of an earlier release, and rows of
//! an earlier master key are found. [`check`] refuses a database that another master key seals.
//!
//! A service that seals lists [`migration`] among its migrations, and gets its [`Sealer`] from its context:
//! `context.sealer().await`.

mod check;
mod config;
mod data_key;
mod envelope;
mod master_key_file;
mod master_keys;
mod vault;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use drystone_mesh::module::Migration;
use zeroize::Zeroizing;

pub use self::{
    check::{CheckError, check, is_in_use, rewrap_check},
    config::{SealingConfig, VaultConfig},
    data_key::DataKey,
    envelope::Envelope,
    master_key_file::MasterKeyFile,
    master_keys::{MasterKeyError, MasterKeys},
    vault::Vault,
};

/// The name of the migration.
const NAME: &str = "sealing";

/// The migration with the table of the check value, as the version of a service's schema.
#[must_use]
pub const fn migration(version: i64) -> Migration {
    Migration {
        version,
        name: NAME,
        sqlite: include_str!("sealing/sqlite.sql"),
        postgres: include_str!("sealing/postgres.sql"),
    }
}

/// Whether a service with these migrations seals values.
#[must_use]
pub fn seals(migrations: &[Migration]) -> bool {
    migrations.iter().any(|migration| migration.name == NAME)
}

/// Encrypts data keys: master keys in this process, or a key management service.
#[async_trait]
pub trait KeyEncryption: fmt::Debug + Send + Sync {
    /// The id of the key that encrypts. At most [`Envelope::MAX_KEY_ID`] bytes.
    fn key_id(&self) -> String;

    /// Encrypts a data key; returns the id of the key that did, and the result. `context` is authenticated.
    ///
    /// # Errors
    /// [`SealError::Unavailable`] and [`SealError::Random`].
    async fn encrypt(&self, key: &DataKey, context: &[u8]) -> Result<(String, Vec<u8>), SealError>;

    /// Decrypts a data key that the key `key_id` encrypted with the same context.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`], [`SealError::Invalid`], [`SealError::Refused`] and [`SealError::Unavailable`].
    async fn decrypt(&self, key_id: &str, encrypted: &[u8], context: &[u8]) -> Result<DataKey, SealError>;

    /// Reads the keys anew, where they may have changed.
    ///
    /// # Errors
    /// [`SealError::KeyFile`]; the keys stay as they were.
    async fn refresh(&self) -> Result<(), SealError> {
        Ok(())
    }
}

/// Why a value cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key that sealed the value is not there.
    #[error(
        "the master key `{0}` is missing, which seals this database; configure the key file that has it (section [sealing])"
    )]
    UnknownKey(String),
    /// The value does not open: another key with the same id sealed it, or it was changed or moved.
    #[error(
        "a sealed value does not open; the master key `{0}` is not the one that sealed it, or the value was changed"
    )]
    Invalid(String),
    /// The key management service does not decrypt the value.
    #[error(
        "a sealed value does not open; its key was replaced, the version of the key may not decrypt any more, or the value was \
         changed: {0}"
    )]
    Refused(String),
    /// The stored bytes are no envelope.
    #[error("a sealed value is malformed; restore the database from a backup")]
    Malformed,
    /// The key management service does not answer, or refuses.
    #[error("the key management service is unavailable: {0}")]
    Unavailable(String),
    /// The master key file cannot be read anew.
    #[error(transparent)]
    KeyFile(#[from] MasterKeyError),
    /// The random number generator of the system fails.
    #[error("the system has no random numbers")]
    Random,
}

/// Where a value is stored. It opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's primary key.
    pub row: &'a [u8],
    /// The column.
    pub column: &'a str,
}

impl Place<'_> {
    /// As additional data: each part with its length, so that no two places have the same.
    fn context(self) -> Vec<u8> {
        let mut context = Vec::new();
        for part in [self.table.as_bytes(), self.row, self.column.as_bytes()] {
            context.extend_from_slice(&(part.len() as u64).to_be_bytes());
            context.extend_from_slice(part);
        }
        context
    }
}

/// A sealed value, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The encoded [`Envelope`].
    pub envelope: Vec<u8>,
    /// The id of its master key.
    pub key_id: String,
}

/// A value in a row: sealed, or as an earlier release stored it.
#[derive(Clone, PartialEq, Eq)]
pub enum Stored {
    /// Sealed.
    Sealed(Sealed),
    /// Not sealed.
    Plain(Zeroizing<Vec<u8>>),
}

impl Stored {
    /// Of the column of the value and that of the master key's id, which is null where the value is not sealed.
    #[must_use]
    pub fn read(bytes: Vec<u8>, key_id: Option<String>) -> Self {
        match key_id {
            Some(key_id) => Self::Sealed(Sealed { envelope: bytes, key_id }),
            None => Self::Plain(Zeroizing::new(bytes)),
        }
    }
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sealed(sealed) => f.debug_tuple("Sealed").field(&sealed.key_id).finish(),
            Self::Plain(_) => f.write_str("Plain([redacted])"),
        }
    }
}

/// Seals and opens values. Clones share the master key.
#[derive(Debug, Clone)]
pub struct Sealer(Arc<dyn KeyEncryption>);

impl Sealer {
    /// With this master key.
    #[must_use]
    pub fn new(keys: Arc<dyn KeyEncryption>) -> Self {
        Self(keys)
    }

    /// The id of the master key that seals.
    #[must_use]
    pub fn key_id(&self) -> String {
        self.0.key_id()
    }

    /// Reads the master key anew, where it may have changed.
    ///
    /// # Errors
    /// [`SealError::KeyFile`]; the master key stays as it was.
    pub async fn refresh(&self) -> Result<(), SealError> {
        self.0.refresh().await
    }

    /// Seals a value for its place.
    ///
    /// # Errors
    /// [`SealError::Unavailable`] and [`SealError::Random`].
    pub async fn seal(&self, place: Place<'_>, value: &[u8]) -> Result<Sealed, SealError> {
        let (key, context) = (DataKey::generate()?, place.context());
        let (key_id, encrypted_key) = self.0.encrypt(&key, &context).await?;
        let ciphertext = key.encrypt(&context, value)?;
        Ok(Envelope { key_id, encrypted_key, ciphertext }.into())
    }

    /// Opens a value at its place.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn open(&self, place: Place<'_>, envelope: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (envelope, context) = (Envelope::decode(envelope)?, place.context());
        let key = self.0.decrypt(&envelope.key_id, &envelope.encrypted_key, &context).await?;
        key.decrypt(&context, &envelope.ciphertext).ok_or(SealError::Invalid(envelope.key_id))
    }

    /// Opens a value that an earlier release may have stored unsealed.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn read(&self, place: Place<'_>, stored: &Stored) -> Result<Zeroizing<Vec<u8>>, SealError> {
        match stored {
            Stored::Sealed(sealed) => self.open(place, &sealed.envelope).await,
            Stored::Plain(value) => Ok(value.clone()),
        }
    }

    /// The same envelope under the master key that seals now. Only the data key is encrypted anew.
    ///
    /// # Errors
    /// [`SealError`].
    pub async fn rewrap(&self, place: Place<'_>, envelope: &[u8]) -> Result<Sealed, SealError> {
        let (envelope, context) = (Envelope::decode(envelope)?, place.context());
        let key = self.0.decrypt(&envelope.key_id, &envelope.encrypted_key, &context).await?;
        let (key_id, encrypted_key) = self.0.encrypt(&key, &context).await?;
        Ok(Envelope { key_id, encrypted_key, ..envelope }.into())
    }
}

impl From<Envelope> for Sealed {
    fn from(envelope: Envelope) -> Self {
        Self { envelope: envelope.encode(), key_id: envelope.key_id }
    }
}

#[cfg(test)]
mod tests;
