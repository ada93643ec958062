//! The store of credentials, signing keys and secrets. All SQL of the service is here.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Db, Migration, migration, run,
    sealing::{self, Place, Sealed, Stored},
};
use uuid::Uuid;

use crate::{credential::Credential, password::PasswordHash, password::typed_password::PasswordForm};

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[
    migration!("0001", "credentials_and_keys"),
    migration!("0002", "password_form"),
    sealing::migration(3),
    migration!("0004", "sealed_keys"),
];

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

    /// All signing keys, newest first.
    pub async fn signing_keys(&self) -> sqlx::Result<Vec<SigningKeyRow>> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, (String, String, Vec<u8>, Option<String>, i64)>(
                "SELECT kid, algorithm, private_key, sealed_by, created_at
                 FROM signing_key
                 ORDER BY created_at DESC, kid",
            )
            .fetch_all(db)
            .await?
        });
        let read = |(kid, algorithm, private_key, sealed_by, created_at)| SigningKeyRow {
            kid,
            algorithm,
            private_key: Stored::read(private_key, sealed_by),
            created_at: from_micros(created_at),
        };
        Ok(rows.into_iter().map(read).collect())
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

    /// The secret with this name, at [`secret_place`].
    pub async fn secret(&self, name: &str) -> sqlx::Result<Option<Stored>> {
        let row: Option<(Vec<u8>, Option<String>)> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT value, sealed_by FROM secret WHERE name = $1").bind(name).fetch_optional(db).await?
        });
        Ok(row.map(|(value, sealed_by)| Stored::read(value, sealed_by)))
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
