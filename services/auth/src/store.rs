//! The store of credentials (`store/credentials.rs`), signing keys and secrets. All SQL of the service is here.

mod backup_codes;
mod challenges;
mod credentials;
mod factor_kinds;
mod factor_requirements;
mod factor_resets;
mod factor_tries;
mod factors;
mod links;
mod passkeys;
mod passwords;
mod sign_ins;
mod signing_keys;
mod trusted_devices;

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Db, Migration, migration, outbox, run,
    sealing::{self, CheckError, Place, Sealed, Sealer, Stored},
};

pub use self::{
    factors::factor_place,
    passwords::NewPassword,
    signing_keys::{FormerKey, Successor, Withdrawal},
};
use crate::token::key_ring::KINDS;

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[
    migration!("0001", "credentials_and_keys"),
    migration!("0002", "password_form"),
    sealing::migration(3),
    migration!("0004", "sealed_keys"),
    migration!("0005", "key_rotation"),
    outbox::migration(6),
    migration!("0007", "links"),
    migration!("0008", "email_and_sign_ins"),
    migration!("0009", "sign_ins_kept"),
    migration!("0010", "factors"),
    migration!("0011", "passkeys"),
    migration!("0012", "trusted_devices"),
    migration!("0013", "factor_requirements"),
    migration!("0014", "factor_resets"),
    migration!("0015", "former_signing_keys"),
];

/// All keys and secrets, as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRows {
    /// The signing keys of access tokens.
    pub signing: Vec<SigningKeyRow>,
    /// The secrets of other tokens.
    pub secrets: Vec<SecretRow>,
}

impl KeyRows {
    /// Whether there is a signing key, and a secret of each kind of token.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let has = |kind: &str| self.secrets.iter().any(|row| row.kind() == kind);
        !self.signing.is_empty() && KINDS.iter().all(|(kind, _)| has(kind))
    }
}

/// A signing key in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// The key id.
    pub kid: String,
    /// The signature algorithm.
    pub algorithm: String,
    /// The private key, at [`signing_key_place`].
    pub private_key: Stored,
    /// When it was generated.
    pub created_at: Timestamp,
    /// When it begins to sign.
    pub signs_from: Timestamp,
}

/// A secret in its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRow {
    /// The kind of token, and for later secrets of the kind a slash and the number: `refresh_token`, `refresh_token/1`.
    pub name: String,
    /// The secret, at [`secret_place`].
    pub value: Stored,
    /// When it begins to sign.
    pub signs_from: Timestamp,
}

impl SecretRow {
    /// The kind of token.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(kind, _)| kind)
    }

    /// The number among the secrets of its kind, from 0. `None` if the name is malformed.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        self.name.split_once('/').map_or(Some(0), |(_, number)| number.parse().ok())
    }
}

/// Keys that were not sealed, sealed, and the keys that replace them.
#[derive(Debug, Default)]
pub struct SealedKeys {
    /// Private keys of signing keys, by key id.
    pub signing: Vec<(String, Sealed)>,
    /// Secrets, by name.
    pub secrets: Vec<(String, Sealed)>,
    /// The signing key that replaces the others.
    pub new_signing_key: Option<NewSigningKey>,
    /// The secrets that replace the others.
    pub new_secrets: Vec<NewSecret>,
    /// The time of the change.
    pub now: Timestamp,
}

/// A signing key that replaces others.
#[derive(Debug)]
pub struct NewSigningKey {
    /// The key id.
    pub kid: String,
    /// The signature algorithm.
    pub algorithm: String,
    /// The private key.
    pub private_key: Sealed,
    /// When it begins to sign.
    pub signs_from: Timestamp,
}

/// A secret that replaces another one.
#[derive(Debug)]
pub struct NewSecret {
    /// The name: [`SecretRow::name`].
    pub name: String,
    /// The secret.
    pub value: Sealed,
    /// When it begins to sign.
    pub signs_from: Timestamp,
}

/// Where the private key of a signing key is sealed.
#[must_use]
pub fn signing_key_place(kid: &str) -> Place<'_> {
    Place { table: "signing_key", row: kid.as_bytes(), column: "private_key" }
}

/// Where a secret is sealed.
#[must_use]
pub fn secret_place(name: &str) -> Place<'_> {
    Place { table: "secret", row: name.as_bytes(), column: "value" }
}

/// The store of credentials, signing keys and secrets. `tests/auth/store.rs` tests its contract on both databases.
#[derive(Debug, Clone)]
pub struct AuthStore {
    db: Db,
}

impl AuthStore {
    /// The store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The database.
    #[must_use]
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// All keys and secrets.
    pub async fn keys(&self) -> sqlx::Result<KeyRows> {
        type SigningRow = (String, String, Vec<u8>, Option<String>, i64, Option<i64>);
        let signing = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, SigningRow>(
                "SELECT kid, algorithm, private_key, sealed_by, created_at, signs_from FROM signing_key ORDER BY kid",
            )
            .fetch_all(db)
            .await?
        });
        let secrets = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, (String, Vec<u8>, Option<String>, i64, Option<i64>)>(
                "SELECT name, value, sealed_by, created_at, signs_from FROM secret ORDER BY name",
            )
            .fetch_all(db)
            .await?
        });
        let signing =
            signing.into_iter().map(|(kid, algorithm, key, sealed_by, created_at, signs_from)| SigningKeyRow {
                kid,
                algorithm,
                private_key: Stored::read(key, sealed_by),
                created_at: from_micros(created_at),
                signs_from: from_micros(signs_from.unwrap_or(created_at)),
            });
        let secrets = secrets.into_iter().map(|(name, value, sealed_by, created_at, signs_from)| SecretRow {
            name,
            value: Stored::read(value, sealed_by),
            signs_from: from_micros(signs_from.unwrap_or(created_at)),
        });
        Ok(KeyRows { signing: signing.collect(), secrets: secrets.collect() })
    }

    /// Inserts a signing key if there is none; otherwise changes nothing.
    pub async fn insert_first_signing_key(
        &self,
        kid: &str,
        algorithm: &str,
        private_key: &Sealed,
        now: Timestamp,
    ) -> sqlx::Result<()> {
        // Exclusive, so that no concurrent transaction inserts a key after the check.
        let mut transaction = self.db.begin_exclusive().await?;
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO signing_key (kid, algorithm, private_key, sealed_by, created_at)
                 SELECT $1, $2, $3, $4, $5
                 WHERE NOT EXISTS (SELECT 1 FROM signing_key)",
            )
            .bind(kid)
            .bind(algorithm)
            .bind(private_key.envelope.as_slice())
            .bind(private_key.key_id.as_str())
            .bind(to_micros(now))
            .execute(connection)
            .await?;
        });
        transaction.commit().await
    }

    /// Inserts a secret if there is none with this name; otherwise changes nothing.
    pub async fn insert_secret(&self, name: &str, value: &Sealed, now: Timestamp) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query(
                "INSERT INTO secret (name, value, sealed_by, created_at)
                 VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(name)
            .bind(value.envelope.as_slice())
            .bind(value.key_id.as_str())
            .bind(to_micros(now))
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// Stores sealed keys in place of those that were not, with their replacements, all or nothing. Returns false without a
    /// change if another operator was faster.
    pub async fn seal_keys(&self, keys: &SealedKeys) -> sqlx::Result<bool> {
        // Exclusive, so that two operators do not both replace the keys.
        let mut transaction = self.db.begin_exclusive().await?;
        let mut changed = 0;
        for (kid, private_key) in &keys.signing {
            changed += run!(transaction.connection(), |connection| {
                sqlx::query(
                    "UPDATE signing_key SET private_key = $2, sealed_by = $3 WHERE kid = $1 AND sealed_by IS NULL",
                )
                .bind(kid)
                .bind(private_key.envelope.as_slice())
                .bind(private_key.key_id.as_str())
                .execute(connection)
                .await?
                .rows_affected()
            });
        }
        for (name, value) in &keys.secrets {
            changed += run!(transaction.connection(), |connection| {
                sqlx::query("UPDATE secret SET value = $2, sealed_by = $3 WHERE name = $1 AND sealed_by IS NULL")
                    .bind(name)
                    .bind(value.envelope.as_slice())
                    .bind(value.key_id.as_str())
                    .execute(connection)
                    .await?
                    .rows_affected()
            });
        }
        if changed != (keys.signing.len() + keys.secrets.len()) as u64 {
            return Ok(false);
        }
        if let Some(key) = &keys.new_signing_key {
            run!(transaction.connection(), |connection| {
                sqlx::query(
                    "INSERT INTO signing_key (kid, algorithm, private_key, sealed_by, created_at, signs_from)
                     VALUES ($1, $2, $3, $4, $5, $6)",
                )
                .bind(key.kid.as_str())
                .bind(key.algorithm.as_str())
                .bind(key.private_key.envelope.as_slice())
                .bind(key.private_key.key_id.as_str())
                .bind(to_micros(keys.now))
                .bind(to_micros(key.signs_from))
                .execute(connection)
                .await?;
            });
        }
        for secret in &keys.new_secrets {
            run!(transaction.connection(), |connection| {
                sqlx::query(
                    "INSERT INTO secret (name, value, sealed_by, created_at, signs_from) VALUES ($1, $2, $3, $4, $5)",
                )
                .bind(secret.name.as_str())
                .bind(secret.value.envelope.as_slice())
                .bind(secret.value.key_id.as_str())
                .bind(to_micros(keys.now))
                .bind(to_micros(secret.signs_from))
                .execute(connection)
                .await?;
            });
        }
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes what is left of earlier values of keys from the files of the database.
    pub async fn scrub_keys(&self) -> sqlx::Result<()> {
        self.db.scrub(&["signing_key", "secret"]).await
    }

    /// Replaces the envelope of a signing key. Returns false if it is not `old`.
    pub async fn replace_signing_key_envelope(&self, kid: &str, old: &Sealed, new: &Sealed) -> sqlx::Result<bool> {
        let updated = run!(self.db.writer(), |db| {
            sqlx::query("UPDATE signing_key SET private_key = $3, sealed_by = $4 WHERE kid = $1 AND private_key = $2")
                .bind(kid)
                .bind(old.envelope.as_slice())
                .bind(new.envelope.as_slice())
                .bind(new.key_id.as_str())
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(updated == 1)
    }

    /// Replaces the envelope of a secret. Returns false if it is not `old`.
    pub async fn replace_secret_envelope(&self, name: &str, old: &Sealed, new: &Sealed) -> sqlx::Result<bool> {
        let updated = run!(self.db.writer(), |db| {
            sqlx::query("UPDATE secret SET value = $3, sealed_by = $4 WHERE name = $1 AND value = $2")
                .bind(name)
                .bind(old.envelope.as_slice())
                .bind(new.envelope.as_slice())
                .bind(new.key_id.as_str())
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(updated == 1)
    }

    /// Puts the check value of the database under the master key that seals now.
    pub async fn rewrap_check(&self, sealer: &Sealer) -> Result<(), CheckError> {
        sealing::rewrap_check(&self.db, sealer).await
    }
}
