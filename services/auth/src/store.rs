//! Where credentials, signing keys and secrets are kept. All SQL of the service is here.

use async_trait::async_trait;
use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Db, Migration, run};
use sqlx::FromRow;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{credential::Credential, password::PasswordHash, signing_key::StoredKey, typed_password::PasswordForm};

/// The schema, step by step.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "credentials_and_keys",
        sqlite: include_str!("../migrations/sqlite/0001_credentials_and_keys.sql"),
        postgres: include_str!("../migrations/postgres/0001_credentials_and_keys.sql"),
    },
    Migration {
        version: 2,
        name: "password_form",
        sqlite: include_str!("../migrations/sqlite/0002_password_form.sql"),
        postgres: include_str!("../migrations/postgres/0002_password_form.sql"),
    },
];

/// Where credentials, signing keys and secrets are kept. What every store promises is written down in
/// `tests/store.rs`.
#[async_trait]
pub trait AuthStore: Send + Sync {
    /// Adds a credential. False, and nothing is changed, if its request id has been used.
    async fn insert_credential(&self, credential: &Credential) -> sqlx::Result<bool>;

    /// The credential of a user.
    async fn credential(&self, user_id: Uuid) -> sqlx::Result<Option<Credential>>;

    /// The credential that was made by the registration of this id, to go on with it. If it is pending, it is so as
    /// of now: see [`Self::delete_pending_credential`].
    async fn resume_credential(&self, request_id: Uuid, now: Timestamp) -> sqlx::Result<Option<Credential>>;

    /// The account of a credential is there: it is no longer pending.
    async fn confirm_credential(&self, user_id: Uuid) -> sqlx::Result<()>;

    /// The users of some of the credentials that are pending since this moment or longer, longest first.
    async fn pending_credentials(&self, until: Timestamp, limit: u32) -> sqlx::Result<Vec<Uuid>>;

    /// Removes a credential if it is pending since this moment or longer. False if there is none: it was confirmed, or
    /// its registration goes on.
    async fn delete_pending_credential(&self, user_id: Uuid, until: Timestamp) -> sqlx::Result<bool>;

    /// Puts a new hash, of this form of the password, in place of this old one. False if the old one is no longer there: somebody was faster.
    async fn replace_password_hash(
        &self,
        user_id: Uuid,
        old: &PasswordHash,
        new: &PasswordHash,
        form: PasswordForm,
        now: Timestamp,
    ) -> sqlx::Result<bool>;

    /// All signing keys, newest first.
    async fn signing_keys(&self) -> sqlx::Result<Vec<StoredKey>>;

    /// Adds a signing key if there is none yet; else nothing is changed.
    async fn insert_first_signing_key(&self, key: StoredKey) -> sqlx::Result<()>;

    /// The secret of this name; `fresh` becomes it if there is none yet.
    async fn secret(&self, name: &str, fresh: &[u8], now: Timestamp) -> sqlx::Result<Zeroizing<Vec<u8>>>;
}

/// Credentials and keys in a SQL database.
#[derive(Debug, Clone)]
pub struct SqlStore {
    db: Db,
}

impl SqlStore {
    /// The store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl AuthStore for SqlStore {
    async fn insert_credential(&self, credential: &Credential) -> sqlx::Result<bool> {
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

    async fn credential(&self, user_id: Uuid) -> sqlx::Result<Option<Credential>> {
        run!(self.db.reader(), |db| {
            sqlx::query_as::<_, CredentialRow>(
                "SELECT user_id, password_hash, form, request_id, pending_since, created_at, updated_at
                 FROM credential
                 WHERE user_id = $1",
            )
            .bind(user_id)
            .fetch_optional(db)
            .await?
        })
        .map(CredentialRow::read)
        .transpose()
    }

    async fn resume_credential(&self, request_id: Uuid, now: Timestamp) -> sqlx::Result<Option<Credential>> {
        // All rows, though there is at most one: a read that stops early would miss that the commit failed.
        let mut resumed = run!(self.db.writer(), |db| {
            sqlx::query_as::<_, CredentialRow>(
                "UPDATE credential
                 SET pending_since = CASE WHEN pending_since IS NOT NULL THEN $2 END
                 WHERE request_id = $1
                 RETURNING user_id, password_hash, form, request_id, pending_since, created_at, updated_at",
            )
            .bind(request_id)
            .bind(to_micros(now))
            .fetch_all(db)
            .await?
        });
        resumed.pop().map(CredentialRow::read).transpose()
    }

    async fn confirm_credential(&self, user_id: Uuid) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query("UPDATE credential SET pending_since = NULL WHERE user_id = $1")
                .bind(user_id)
                .execute(db)
                .await?;
        });
        Ok(())
    }

    async fn pending_credentials(&self, until: Timestamp, limit: u32) -> sqlx::Result<Vec<Uuid>> {
        run!(self.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT user_id
                 FROM credential
                 WHERE pending_since <= $1
                 ORDER BY pending_since
                 LIMIT $2",
            )
            .bind(to_micros(until))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await
        })
    }

    async fn delete_pending_credential(&self, user_id: Uuid, until: Timestamp) -> sqlx::Result<bool> {
        let deleted = run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM credential WHERE user_id = $1 AND pending_since <= $2")
                .bind(user_id)
                .bind(to_micros(until))
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(deleted == 1)
    }

    async fn replace_password_hash(
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

    async fn signing_keys(&self) -> sqlx::Result<Vec<StoredKey>> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, KeyRow>(
                "SELECT kid, algorithm, private_key, created_at
                 FROM signing_key
                 ORDER BY created_at DESC, kid",
            )
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(KeyRow::read).collect())
    }

    async fn insert_first_signing_key(&self, key: StoredKey) -> sqlx::Result<()> {
        // Whether there is a key yet can be told only while nobody else adds one.
        let mut transaction = self.db.begin_exclusive().await?;
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO signing_key (kid, algorithm, private_key, created_at)
                 SELECT $1, $2, $3, $4
                 WHERE NOT EXISTS (SELECT 1 FROM signing_key)",
            )
            .bind(key.kid)
            .bind(key.algorithm)
            .bind(key.private_key.as_slice())
            .bind(to_micros(key.created_at))
            .execute(connection)
            .await?;
        });
        transaction.commit().await
    }

    async fn secret(&self, name: &str, fresh: &[u8], now: Timestamp) -> sqlx::Result<Zeroizing<Vec<u8>>> {
        self.db.retry(|| self.secret_once(name, fresh, now)).await
    }
}

/// Transactions that may be repeated as a whole.
impl SqlStore {
    async fn secret_once(&self, name: &str, fresh: &[u8], now: Timestamp) -> sqlx::Result<Zeroizing<Vec<u8>>> {
        let mut transaction = self.db.begin().await?;
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "INSERT INTO secret (name, value, created_at)
                 VALUES ($1, $2, $3)
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(name)
            .bind(fresh)
            .bind(to_micros(now))
            .execute(connection)
            .await?;
        });
        let value: Vec<u8> = run!(transaction.connection(), |connection| {
            sqlx::query_scalar("SELECT value FROM secret WHERE name = $1").bind(name).fetch_one(connection).await?
        });
        transaction.commit().await?;
        Ok(Zeroizing::new(value))
    }
}

#[derive(FromRow)]
struct CredentialRow {
    user_id: Uuid,
    password_hash: String,
    form: String,
    request_id: Option<Uuid>,
    pending_since: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl CredentialRow {
    fn read(self) -> sqlx::Result<Credential> {
        let password_hash = self
            .password_hash
            .parse()
            .map_err(|error| sqlx::Error::ColumnDecode { index: "password_hash".into(), source: Box::new(error) })?;
        let form = self
            .form
            .parse()
            .map_err(|error| sqlx::Error::ColumnDecode { index: "form".into(), source: Box::new(error) })?;
        Ok(Credential {
            user_id: self.user_id,
            password_hash,
            form,
            request_id: self.request_id,
            pending_since: self.pending_since.map(from_micros),
            created_at: from_micros(self.created_at),
            updated_at: from_micros(self.updated_at),
        })
    }
}

#[derive(FromRow)]
struct KeyRow {
    kid: String,
    algorithm: String,
    private_key: Vec<u8>,
    created_at: i64,
}

impl KeyRow {
    fn read(self) -> StoredKey {
        StoredKey {
            kid: self.kid,
            algorithm: self.algorithm,
            private_key: Zeroizing::new(self.private_key),
            created_at: from_micros(self.created_at),
        }
    }
}
