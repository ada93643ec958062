//! Credentials.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    outbox::{self, Message},
    places, run, values,
};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{AuthStore, factors};
use crate::{
    credential::Credential,
    password::{PasswordHash, typed_password::PasswordForm},
};

/// The columns of a credential, in the order of [`CredentialRow`].
macro_rules! columns {
    () => {
        "user_id, password_hash, form, request_id, pending_since, created_at, updated_at, reset_required_at, recovered_at,
         (SELECT MIN(confirmed_at) FROM factor WHERE factor.user_id = credential.user_id AND confirmed_at IS NOT NULL)"
    };
}

/// How many credentials one statement inserts or changes: those of one message of an import, so that it is one commit.
const BATCH: usize = 500;

type CredentialRow = (Uuid, String, String, Option<Uuid>, Option<i64>, i64, i64, Option<i64>, Option<i64>, Option<i64>);

impl AuthStore {
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

    /// Deletes the credential, the links, the sign-ins and the second factors of a user, if there are any.
    pub async fn delete_credential(&self, user_id: Uuid) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM credential WHERE user_id = $1").bind(user_id).execute(db).await?;
        });
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM link WHERE user_id = $1").bind(user_id).execute(db).await?;
        });
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM sign_in WHERE user_id = $1").bind(user_id).execute(db).await?;
        });
        run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM factor_requirement WHERE user_id = $1").bind(user_id).execute(db).await?;
        });
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                factors::forget_user(&mut transaction, user_id).await?;
                transaction.commit().await
            })
            .await
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

    /// Inserts the pending credential of a new user with the message that creates the account. Does nothing if its request id has been
    /// used.
    pub async fn insert_credential_with(&self, credential: &Credential, message: &Message) -> sqlx::Result<()> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                let inserted = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "INSERT INTO credential
                             (user_id, password_hash, form, request_id, pending_since, created_at, updated_at)
                         VALUES ($1, $2, $3, $4, $5, $6, $6)
                         ON CONFLICT (request_id) DO NOTHING",
                    )
                    .bind(credential.user_id)
                    .bind(credential.password_hash.as_str())
                    .bind(credential.form.name())
                    .bind(credential.request_id)
                    .bind(credential.pending_since.map(to_micros))
                    .bind(to_micros(credential.created_at))
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if inserted == 0 {
                    return Ok(());
                }
                outbox::put(&mut transaction, message).await?;
                transaction.commit().await
            })
            .await
    }

    /// Lets a pending credential count as pending since `now`, which protects it from [`Self::delete_pending_credential`] for a while.
    /// Returns false if there is none.
    pub async fn keep_pending_credential(&self, user_id: Uuid, now: Timestamp) -> sqlx::Result<bool> {
        let kept = run!(self.db.writer(), |db| {
            sqlx::query("UPDATE credential SET pending_since = $2 WHERE user_id = $1 AND pending_since IS NOT NULL")
                .bind(user_id)
                .bind(to_micros(now))
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(kept == 1)
    }

    /// Marks a credential as no longer pending, since its account exists, and stores a message with that. Does nothing if it was not
    /// pending.
    pub async fn confirm_credential_with(&self, user_id: Uuid, message: &Message) -> sqlx::Result<()> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                let confirmed = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE credential SET pending_since = NULL WHERE user_id = $1 AND pending_since IS NOT NULL",
                    )
                    .bind(user_id)
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if confirmed == 0 {
                    return Ok(());
                }
                outbox::put(&mut transaction, message).await?;
                transaction.commit().await
            })
            .await
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
}

fn read_credential(row: CredentialRow) -> sqlx::Result<Credential> {
    let (user_id, password_hash, form, request_id, pending_since, ..) = row;
    let (.., created_at, updated_at, reset_required_at, recovered_at, second_factor_since) = row;
    Ok(Credential {
        user_id,
        password_hash: password_hash.parse().map_err(|error| undecodable("password_hash", error))?,
        form: form.parse().map_err(|error| undecodable("form", error))?,
        request_id,
        pending_since: pending_since.map(from_micros),
        created_at: from_micros(created_at),
        updated_at: from_micros(updated_at),
        reset_required_at: reset_required_at.map(from_micros),
        recovered_at: recovered_at.map(from_micros),
        second_factor_since: second_factor_since.map(from_micros),
    })
}

pub(super) fn undecodable(column: &str, error: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}
