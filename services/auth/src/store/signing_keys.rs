//! Rotation, retirement and withdrawal of signing keys.

use chrono::TimeDelta;
use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Transaction,
    outbox::{self, Message},
    run,
};

use super::{AuthStore, NewSigningKey};

/// How long it is known which keys there were.
const FORMER_RETENTION: TimeDelta = TimeDelta::days(365);

/// The most former keys that are listed.
const MAX_LISTED: i64 = 200;

/// A signing key that is in use no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerKey {
    /// The key id.
    pub kid: String,
    /// The signature algorithm.
    pub algorithm: String,
    /// When another key began to sign instead, or when it was withdrawn, if that was before.
    pub replaced_at: Timestamp,
    /// When it was removed from the key set.
    pub ended_at: Timestamp,
    /// When it was withdrawn, if it was.
    pub withdrawn_at: Option<Timestamp>,
}

/// What signs instead of a withdrawn key.
#[derive(Debug)]
pub enum Successor {
    /// What is stored: the withdrawn key does not sign, or no new key can be made now.
    Unchanged,
    /// A published key, from this time on.
    Published(String, Timestamp),
    /// A new key.
    New(NewSigningKey),
}

/// The withdrawal of a key that is in use.
#[derive(Debug)]
pub struct Withdrawal<'a> {
    /// The key.
    pub key: &'a FormerKey,
    /// The key ids of all keys in use that it was planned with, sorted.
    pub planned_with: &'a [String],
    /// What signs instead.
    pub successor: &'a Successor,
    /// The message that revokes its tokens.
    pub message: &'a Message,
}

impl AuthStore {
    /// Inserts a key that signs later, if `replaces` is still the last one. Returns false without a change if another instance was
    /// faster.
    pub async fn begin_key_rotation(&self, new: &NewSigningKey, replaces: &str, now: Timestamp) -> sqlx::Result<bool> {
        self.db
            .retry(|| async {
                // Exclusive, so that of concurrent instances one inserts its key.
                let mut transaction = self.db.begin_exclusive().await?;
                let last: Option<String> = run!(transaction.connection(), |connection| {
                    sqlx::query_scalar(
                        "SELECT kid FROM signing_key ORDER BY COALESCE(signs_from, created_at) DESC, kid DESC LIMIT 1",
                    )
                    .fetch_optional(connection)
                    .await?
                });
                if last.as_deref() != Some(replaces) {
                    return Ok(false);
                }
                insert(&mut transaction, new, now).await?;
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Sets when a key begins to sign that a wrong clock has put too far into the future. Returns false without a change if another
    /// instance was faster.
    pub async fn reschedule_key(
        &self,
        kid: &str,
        from: Timestamp,
        to: Timestamp,
        now: Timestamp,
    ) -> sqlx::Result<bool> {
        let updated = run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE signing_key
                 SET signs_from = $3, created_at = CASE WHEN created_at > $4 THEN $4 ELSE created_at END
                 WHERE kid = $1
                 AND COALESCE(signs_from, created_at) = $2",
            )
            .bind(kid)
            .bind(to_micros(from))
            .bind(to_micros(to))
            .bind(to_micros(now))
            .execute(db)
            .await?
            .rows_affected()
        });
        Ok(updated > 0)
    }

    /// Deletes the private keys of these keys, of which no token is left, and what is known of keys that ended long ago. A key that no
    /// stored key has replaced by its `replaced_at` is kept. Returns the ids of the deleted keys.
    pub async fn retire_keys(&self, keys: &[FormerKey], now: Timestamp) -> sqlx::Result<Vec<String>> {
        self.db
            .retry(|| async {
                // Exclusive, so that no instance deletes the successor meanwhile.
                let mut transaction = self.db.begin_exclusive().await?;
                let mut deleted = Vec::new();
                for key in keys {
                    if delete_replaced(&mut transaction, key).await? {
                        record_end(&mut transaction, key).await?;
                        deleted.push(key.kid.clone());
                    }
                }
                run!(transaction.connection(), |connection| {
                    sqlx::query("DELETE FROM former_signing_key WHERE ended_at < $1")
                        .bind(to_micros(now - FORMER_RETENTION))
                        .execute(connection)
                        .await?;
                });
                transaction.commit().await?;
                Ok(deleted)
            })
            .await
    }

    /// Deletes a key that is in use, has another one sign if it did, and stores the message. Returns false without a change if the
    /// keys are not those that this was planned with.
    pub async fn withdraw_key(&self, withdrawal: &Withdrawal<'_>) -> sqlx::Result<bool> {
        let Withdrawal { key, planned_with, successor, message } = withdrawal;
        self.db
            .retry(|| async {
                // Exclusive, so that no instance replaces the key meanwhile.
                let mut transaction = self.db.begin_exclusive().await?;
                let mut stored: Vec<String> = run!(transaction.connection(), |connection| {
                    sqlx::query_scalar("SELECT kid FROM signing_key").fetch_all(connection).await?
                });
                stored.sort_unstable();
                if stored != **planned_with {
                    return Ok(false);
                }
                delete(&mut transaction, &key.kid).await?;
                record_end(&mut transaction, key).await?;
                match successor {
                    Successor::Unchanged => {}
                    Successor::New(new) => insert(&mut transaction, new, key.ended_at).await?,
                    Successor::Published(kid, signs_from) => {
                        run!(transaction.connection(), |connection| {
                            sqlx::query("UPDATE signing_key SET signs_from = $2 WHERE kid = $1")
                                .bind(kid)
                                .bind(to_micros(*signs_from))
                                .execute(connection)
                                .await?;
                        });
                    }
                }
                outbox::put(&mut transaction, message).await?;
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Withdraws a key that is in use no more, and stores the message. Returns false without a change if there was no such key.
    pub async fn withdraw_former_key(&self, kid: &str, now: Timestamp, message: &Message) -> sqlx::Result<bool> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                let updated = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE former_signing_key SET withdrawn_at = COALESCE(withdrawn_at, $2) WHERE kid = $1",
                    )
                    .bind(kid)
                    .bind(to_micros(now))
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if updated == 0 {
                    return Ok(false);
                }
                outbox::put(&mut transaction, message).await?;
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// The last keys that are in use no more, newest first.
    pub async fn former_keys(&self) -> sqlx::Result<Vec<FormerKey>> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, (String, String, i64, i64, Option<i64>)>(
                "SELECT kid, algorithm, replaced_at, ended_at, withdrawn_at
                 FROM former_signing_key
                 ORDER BY ended_at DESC, kid
                 LIMIT $1",
            )
            .bind(MAX_LISTED)
            .fetch_all(db)
            .await?
        });
        let former = rows.into_iter().map(|(kid, algorithm, replaced_at, ended_at, withdrawn_at)| FormerKey {
            kid,
            algorithm,
            replaced_at: from_micros(replaced_at),
            ended_at: from_micros(ended_at),
            withdrawn_at: withdrawn_at.map(from_micros),
        });
        Ok(former.collect())
    }
}

async fn insert(transaction: &mut Transaction, key: &NewSigningKey, now: Timestamp) -> sqlx::Result<()> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO signing_key (kid, algorithm, private_key, sealed_by, created_at, signs_from)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(key.kid.as_str())
        .bind(key.algorithm.as_str())
        .bind(key.private_key.envelope.as_slice())
        .bind(key.private_key.key_id.as_str())
        .bind(to_micros(now))
        .bind(to_micros(key.signs_from))
        .execute(connection)
        .await
        .map(drop)
    })
}

/// Deletes a key with its private key.
async fn delete(transaction: &mut Transaction, kid: &str) -> sqlx::Result<()> {
    run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM signing_key WHERE kid = $1").bind(kid).execute(connection).await.map(drop)
    })
}

/// Deletes a key with its private key, if another stored key had replaced it by `replaced_at`. So a plan that is outdated leaves at
/// least one key.
async fn delete_replaced(transaction: &mut Transaction, key: &FormerKey) -> sqlx::Result<bool> {
    let deleted = run!(transaction.connection(), |connection| {
        sqlx::query(
            "DELETE FROM signing_key
             WHERE kid = $1
             AND EXISTS (
                 SELECT 1
                 FROM signing_key AS successor
                 WHERE successor.kid <> signing_key.kid
                 AND COALESCE(successor.signs_from, successor.created_at)
                     >= COALESCE(signing_key.signs_from, signing_key.created_at)
                 AND COALESCE(successor.signs_from, successor.created_at) <= $2
             )",
        )
        .bind(key.kid.as_str())
        .bind(to_micros(key.replaced_at))
        .execute(connection)
        .await?
        .rows_affected()
    });
    Ok(deleted > 0)
}

/// Keeps what may be known of a key that has ended. A withdrawal stays recorded, whichever of several instances ends the key first.
async fn record_end(transaction: &mut Transaction, key: &FormerKey) -> sqlx::Result<()> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO former_signing_key (kid, algorithm, replaced_at, ended_at, withdrawn_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (kid) DO UPDATE
             SET withdrawn_at = COALESCE(former_signing_key.withdrawn_at, excluded.withdrawn_at)",
        )
        .bind(key.kid.as_str())
        .bind(key.algorithm.as_str())
        .bind(to_micros(key.replaced_at))
        .bind(to_micros(key.ended_at))
        .bind(key.withdrawn_at.map(to_micros))
        .execute(connection)
        .await
        .map(drop)
    })
}
