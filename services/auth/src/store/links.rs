//! Links that were sent to users.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, run};
use uuid::Uuid;

use super::AuthStore;
use crate::{
    error::Error,
    link::Link,
    token::link_token::{LinkToken, Purpose},
};

/// How many links one statement forgets: bounded, so that writers do not wait long for it.
const FORGET_BATCH: i64 = 500;

impl AuthStore {
    /// Stores a link, unless there is one with its id, or the user has been sent `max` for this purpose since `since`. Returns the
    /// stored one.
    pub async fn insert_link(&self, link: &Link, max: u32, since: Timestamp) -> sqlx::Result<Option<Link>> {
        run!(self.db.writer(), |db| {
            sqlx::query(
                "INSERT INTO link (id, purpose, user_id, created_at, expires_at)
                 SELECT $1, $2, $3, $4, $5
                 WHERE (SELECT COUNT(*) FROM link WHERE user_id = $3 AND created_at > $6 AND purpose = $2) < $7
                 ON CONFLICT DO NOTHING",
            )
            .bind(link.id)
            .bind(link.purpose.name())
            .bind(link.user_id)
            .bind(to_micros(link.created_at))
            .bind(to_micros(link.expires_at))
            .bind(to_micros(since))
            .bind(i64::from(max))
            .execute(db)
            .await?;
        });
        let stored: Option<(Uuid, i64, i64)> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT user_id, created_at, expires_at FROM link WHERE id = $1 AND purpose = $2")
                .bind(link.id)
                .bind(link.purpose.name())
                .fetch_optional(db)
                .await?
        });
        Ok(stored.map(|(user_id, created_at, expires_at)| Link {
            user_id,
            created_at: from_micros(created_at),
            expires_at: from_micros(expires_at),
            ..*link
        }))
    }

    /// The user of a link that serves now; `None` if it was used, has expired or is unknown.
    pub async fn valid_link(&self, token: &LinkToken, purpose: Purpose, now: Timestamp) -> sqlx::Result<Option<Uuid>> {
        let found: Option<(Uuid, i64)> = run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT user_id, created_at
                 FROM link
                 WHERE id = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > $3",
            )
            .bind(token.id)
            .bind(purpose.name())
            .bind(to_micros(now))
            .fetch_optional(db)
            .await?
        });
        Ok(found.filter(|(_, created_at)| token.is_for(from_micros(*created_at))).map(|(user_id, _)| user_id))
    }

    /// Forgets links that expired before this time. Returns how many.
    pub async fn forget_links(&self, before: Timestamp) -> sqlx::Result<u64> {
        let mut total = 0;
        loop {
            let forgotten = run!(self.db.writer(), |db| {
                sqlx::query("DELETE FROM link WHERE id IN (SELECT id FROM link WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)")
                    .bind(to_micros(before))
                    .bind(FORGET_BATCH)
                    .execute(db)
                    .await?
                    .rows_affected()
            });
            total += forgotten;
            if forgotten < FORGET_BATCH.unsigned_abs() {
                return Ok(total);
            }
        }
    }
}

/// Uses a link in this transaction: of two at once, one succeeds.
///
/// # Errors
/// [`Error::LinkInvalid`] if it was used or has expired.
pub(super) async fn consume(
    transaction: &mut Transaction,
    id: Uuid,
    user_id: Uuid,
    now: Timestamp,
) -> Result<(), Error> {
    let used = run!(transaction.connection(), |connection| {
        sqlx::query(
            "UPDATE link SET used_at = $3 WHERE id = $1 AND user_id = $2 AND used_at IS NULL AND expires_at > $3",
        )
        .bind(id)
        .bind(user_id)
        .bind(to_micros(now))
        .execute(connection)
        .await?
        .rows_affected()
    });
    if used == 1 { Ok(()) } else { Err(Error::LinkInvalid) }
}

/// Makes all links of a user useless in this transaction.
pub(super) async fn void(transaction: &mut Transaction, user_id: Uuid, now: Timestamp) -> Result<(), Error> {
    run!(transaction.connection(), |connection| {
        sqlx::query("UPDATE link SET used_at = $2 WHERE user_id = $1 AND used_at IS NULL")
            .bind(user_id)
            .bind(to_micros(now))
            .execute(connection)
            .await?;
    });
    Ok(())
}
