//! Links that were sent to users.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Transaction,
    outbox::{self, Message},
    run,
};
use uuid::Uuid;

use super::AuthStore;
use crate::{
    error::Error,
    link::Link,
    password::PasswordHash,
    token::link_token::{LinkToken, Purpose},
};

/// The query that inserts a link.
macro_rules! insert {
    ($link:ident, $max:ident, $since:ident) => {
        sqlx::query(
            "INSERT INTO link (id, purpose, user_id, email, created_at, expires_at)
             SELECT $1, $2, $3, $4,
                 -- After all others of the user, whatever the clocks of instances say: `void` goes by it.
                 COALESCE((SELECT MAX(created_at) + 1 FROM link WHERE user_id = $3 AND created_at >= $5), $5), $6
             WHERE (SELECT COUNT(*) FROM link WHERE user_id = $3 AND created_at > $7 AND purpose = $2) < $8
                 AND (SELECT COUNT(*) FROM link WHERE LOWER(email) = LOWER($4) AND created_at > $7 AND purpose = $2) < $8
             ON CONFLICT DO NOTHING",
        )
        .bind($link.id)
        .bind($link.purpose.name())
        .bind($link.user_id)
        .bind($link.email.as_deref())
        .bind(to_micros($link.created_at))
        .bind(to_micros($link.expires_at))
        .bind(to_micros($since))
        .bind(i64::from($max))
    };
}

/// How many links one statement forgets: bounded, so that writers do not wait long for it.
const FORGET_BATCH: i64 = 500;

type LinkRow = (Uuid, Option<String>, i64, i64);

impl AuthStore {
    /// Stores a link, unless there is one with its id, or the user has been sent `max` for this purpose since `since`. Returns the
    /// stored one.
    pub async fn insert_link(&self, link: &Link, max: u32, since: Timestamp) -> sqlx::Result<Option<Link>> {
        run!(self.db.writer(), |db| { insert!(link, max, since).execute(db).await?.rows_affected() });
        self.link(link.id, link.purpose).await
    }

    /// Stores a link together with the messages about it, unless the user has been sent `max` for this purpose since `since`. Returns
    /// whether it is stored.
    ///
    /// # Errors
    /// [`Error::InvalidCredentials`] if the stored hash is not `verified` any more, or the password no longer serves.
    pub async fn insert_link_with(
        &self,
        link: &Link,
        verified: &PasswordHash,
        messages: &[Message],
        max: u32,
        since: Timestamp,
    ) -> Result<bool, Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                // Also so that a change of the password waits, and then voids this link.
                let is_current = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE credential
                         SET updated_at = updated_at
                         WHERE user_id = $1 AND password_hash = $2 AND reset_required_at IS NULL",
                    )
                    .bind(link.user_id)
                    .bind(verified.as_str())
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if is_current == 0 {
                    return Err(Error::InvalidCredentials);
                }
                let inserted = run!(transaction.connection(), |connection| {
                    insert!(link, max, since).execute(connection).await?.rows_affected()
                });
                if inserted == 0 {
                    return Ok(false);
                }
                for message in messages {
                    outbox::put(&mut transaction, message).await?;
                }
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// A link, whether it serves or not.
    pub async fn link(&self, id: Uuid, purpose: Purpose) -> sqlx::Result<Option<Link>> {
        let stored: Option<LinkRow> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT user_id, email, created_at, expires_at FROM link WHERE id = $1 AND purpose = $2")
                .bind(id)
                .bind(purpose.name())
                .fetch_optional(db)
                .await?
        });
        Ok(stored.map(|row| read_link(id, purpose, row)))
    }

    /// A link that serves now; `None` if it was used, has expired or is unknown.
    pub async fn valid_link(&self, token: &LinkToken, now: Timestamp) -> sqlx::Result<Option<Link>> {
        let found: Option<LinkRow> = run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT user_id, email, created_at, expires_at
                 FROM link
                 WHERE id = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > $3",
            )
            .bind(token.id)
            .bind(token.purpose.name())
            .bind(to_micros(now))
            .fetch_optional(db)
            .await?
        });
        let link = found.map(|row| read_link(token.id, token.purpose, row));
        Ok(link.filter(|link| token.is_for(link.created_at)))
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

fn read_link(id: Uuid, purpose: Purpose, (user_id, email, created_at, expires_at): LinkRow) -> Link {
    Link { id, purpose, user_id, email, created_at: from_micros(created_at), expires_at: from_micros(expires_at) }
}

/// Stores a link in this transaction.
pub(super) async fn insert(transaction: &mut Transaction, link: &Link) -> sqlx::Result<()> {
    let (max, since) = (u32::MAX, link.created_at);
    run!(transaction.connection(), |connection| {
        insert!(link, max, since).execute(connection).await?.rows_affected()
    });
    Ok(())
}

/// Uses a link in this transaction: of two at once, one succeeds.
///
/// # Errors
/// [`Error::LinkInvalid`] if it was used or has expired.
pub(super) async fn consume(transaction: &mut Transaction, link: &Link, now: Timestamp) -> Result<(), Error> {
    let used = run!(transaction.connection(), |connection| {
        sqlx::query("UPDATE link SET used_at = $2 WHERE id = $1 AND used_at IS NULL AND expires_at > $2")
            .bind(link.id)
            .bind(to_micros(now))
            .execute(connection)
            .await?
            .rows_affected()
    });
    if used == 1 { Ok(()) } else { Err(Error::LinkInvalid) }
}

/// Makes the links of a user with this purpose useless that were made after `since`, in this transaction.
pub(super) async fn void(
    transaction: &mut Transaction,
    user_id: Uuid,
    purpose: Purpose,
    since: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "UPDATE link
             SET used_at = $4
             WHERE user_id = $1 AND purpose = $2 AND created_at >= $3 AND used_at IS NULL",
        )
        .bind(user_id)
        .bind(purpose.name())
        .bind(to_micros(since))
        .bind(to_micros(now))
        .execute(connection)
        .await?;
    });
    Ok(())
}
