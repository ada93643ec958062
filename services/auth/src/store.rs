//! The store of credentials, signing keys and secrets. All SQL of the service is here.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Db, Migration, migration, places, run,
    sealing::{self, CheckError, Place, Sealed, Sealer, Stored},
    values,
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    credential::Credential,
    password::PasswordHash,
    password::typed_password::PasswordForm,
    token::key_ring::{DEVICE, REFRESH},
};

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[
    migration!("0001", "credentials_and_keys"),
    migration!("0002", "password_form"),
    sealing::migration(3),
    migration!("0004", "sealed_keys"),
    migration!("0005", "key_rotation"),
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
        !self.signing.is_empty() && has(REFRESH.0) && has(DEVICE.0)
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

/// The columns of a credential, in the order of [`CredentialRow`].
macro_rules! columns {
    () => {
        "user_id, password_hash, form, request_id, pending_since, created_at, updated_at"
    };
}

/// How many credentials one statement inserts or changes: those of one message of an import, so that it is one commit.
const BATCH: usize = 500;

type CredentialRow = (Uuid, String, String, Option<Uuid>, Option<i64>, i64, i64);

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

    /// Inserts a credential. Returns false without a change if its request id has been used.
    pub async fn insert_credential(&self, credential: &Credential) -> sqlx::Result<bool> {
        let inserted = run!(self.db.writer(), |db| {
            sqlx::query(
                "INSERT INTO credential
                     (user_id, password_hash, form, request_id, pending_since, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (request_id) DO NOTHING",
            )
            .bind(credential.user_id)
            .bind(credential.password_hash.as_str())
            .bind(credential.form.name())
            .bind(credential.request_id)
            .bind(credential.pending_since.map(to_micros))
            .bind(to_micros(credential.created_at))
            .bind(to_micros(credential.updated_at))
            .execute(db)
            .await?
            .rows_affected()
        });
        Ok(inserted == 1)
    }

    /// Inserts credentials with new user ids and without request ids.
    pub async fn insert_credentials(&self, credentials: &[Credential]) -> sqlx::Result<()> {
        for batch in credentials.chunks(BATCH) {
            let sql = format!(
                "INSERT INTO credential (user_id, password_hash, form, pending_since, created_at, updated_at) VALUES {}",
                values(batch.len(), 6)
            );
            run!(self.db.writer(), |db| {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for credential in batch {
                    query = query
                        .bind(credential.user_id)
                        .bind(credential.password_hash.as_str())
                        .bind(credential.form.name())
                        .bind(credential.pending_since.map(to_micros))
                        .bind(to_micros(credential.created_at))
                        .bind(to_micros(credential.updated_at));
                }
                query.execute(db).await?;
            });
        }
        Ok(())
    }

    /// Marks credentials as no longer pending, since their accounts exist.
    pub async fn confirm_credentials(&self, user_ids: &[Uuid]) -> sqlx::Result<()> {
        for batch in user_ids.chunks(BATCH) {
            let sql =
                format!("UPDATE credential SET pending_since = NULL WHERE user_id IN ({})", places(1, batch.len()));
            run!(self.db.writer(), |db| {
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for user_id in batch {
                    query = query.bind(*user_id);
                }
                query.execute(db).await?;
            });
        }
        Ok(())
    }

    /// Deletes the credentials of these users that have been pending since `cutoff` or longer.
    pub async fn delete_pending_credentials(&self, user_ids: &[Uuid], cutoff: Timestamp) -> sqlx::Result<()> {
        for batch in user_ids.chunks(BATCH) {
            let sql =
                format!("DELETE FROM credential WHERE pending_since <= $1 AND user_id IN ({})", places(2, batch.len()));
            run!(self.db.writer(), |db| {
                let mut query = sqlx::query(AssertSqlSafe(sql)).bind(to_micros(cutoff));
                for user_id in batch {
                    query = query.bind(*user_id);
                }
                query.execute(db).await?;
            });
        }
        Ok(())
    }

    /// Deletes the credential of a user, if there is one.
    pub async fn delete_credential(&self, user_id: Uuid) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM credential WHERE user_id = $1").bind(user_id).execute(db).await?;
        });
        Ok(())
    }

    /// The credential of a user.
    pub async fn credential(&self, user_id: Uuid) -> sqlx::Result<Option<Credential>> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, CredentialRow>(concat!("SELECT ", columns!(), " FROM credential WHERE user_id = $1"))
                .bind(user_id)
                .fetch_optional(db)
                .await?
        })
        .map(read_credential)
        .transpose()
    }

    /// The credential of the registration with this request id, to resume it. If the credential is pending, its
    /// `pending_since` is set to `now`, which protects it from [`Self::delete_pending_credential`].
    pub async fn resume_credential(&self, request_id: Uuid, now: Timestamp) -> sqlx::Result<Option<Credential>> {
        // Reads all rows, although there is at most one: stopping early would miss a failed commit.
        let mut resumed = run!(self.db.writer(), |db| {
            sqlx::query_as::<_, CredentialRow>(concat!(
                "UPDATE credential
                 SET pending_since = CASE WHEN pending_since IS NOT NULL THEN $2 END
                 WHERE request_id = $1
                 RETURNING ",
                columns!()
            ))
            .bind(request_id)
            .bind(to_micros(now))
            .fetch_all(db)
            .await?
        });
        resumed.pop().map(read_credential).transpose()
    }

    /// Marks a credential as no longer pending, since its account exists.
    pub async fn confirm_credential(&self, user_id: Uuid) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query("UPDATE credential SET pending_since = NULL WHERE user_id = $1")
                .bind(user_id)
                .execute(db)
                .await?;
        });
        Ok(())
    }

    /// The users of at most `limit` credentials that have been pending since `cutoff` or longer, oldest first.
    pub async fn pending_credentials(&self, cutoff: Timestamp, limit: u32) -> sqlx::Result<Vec<Uuid>> {
        run!(self.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT user_id
                 FROM credential
                 WHERE pending_since <= $1
                 ORDER BY pending_since
                 LIMIT $2",
            )
            .bind(to_micros(cutoff))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await
        })
    }

    /// Deletes a credential that has been pending since `cutoff` or longer. Returns false if there is none: it was
    /// confirmed, or its registration was resumed.
    pub async fn delete_pending_credential(&self, user_id: Uuid, cutoff: Timestamp) -> sqlx::Result<bool> {
        let deleted = run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM credential WHERE user_id = $1 AND pending_since <= $2")
                .bind(user_id)
                .bind(to_micros(cutoff))
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(deleted == 1)
    }

    /// Replaces the hash `old` with `new`, a hash of the password in this form. Returns false if the stored hash is not
    /// `old`, because of a concurrent change.
    pub async fn replace_password_hash(
        &self,
        user_id: Uuid,
        old: &PasswordHash,
        new: &PasswordHash,
        form: PasswordForm,
        now: Timestamp,
    ) -> sqlx::Result<bool> {
        let updated = run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE credential
                 SET password_hash = $3, form = $4, updated_at = $5
                 WHERE user_id = $1 AND password_hash = $2",
            )
            .bind(user_id)
            .bind(old.as_str())
            .bind(new.as_str())
            .bind(form.name())
            .bind(to_micros(now))
            .execute(db)
            .await?
            .rows_affected()
        });
        Ok(updated == 1)
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

fn read_credential(
    (user_id, password_hash, form, request_id, pending_since, created_at, updated_at): CredentialRow,
) -> sqlx::Result<Credential> {
    Ok(Credential {
        user_id,
        password_hash: password_hash.parse().map_err(|error| undecodable("password_hash", error))?,
        form: form.parse().map_err(|error| undecodable("form", error))?,
        request_id,
        pending_since: pending_since.map(from_micros),
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
    })
}

fn undecodable(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}
