//! Sessions and revocations in a SQL database.

mod revocations;
mod row;

use async_trait::async_trait;
use drystone_mesh::{clock::Timestamp, page::Page, time::to_micros};
use drystone_store::{Db, Migration, Transaction, migration, run};
use uuid::Uuid;

use self::row::{RevocationRow, SessionRow, from_column, read_revocation, read_session, to_column};
use super::{EndedSessions, SessionStore, StoreError, Swept};
use crate::{
    revocation::{Holder, Revocation},
    rotation::{Presented, PresentedBy, Rotation},
    session::{Lifetimes, Session},
};

/// The migrations of the schema.
pub const MIGRATIONS: &[Migration] = &[
    migration!("0001", "session"),
    migration!("0002", "rotation"),
    migration!("0003", "role_tokens"),
    migration!("0004", "authentication"),
    migration!("0005", "revoked_keys"),
];

/// The columns of a session, in the order of [`SessionRow`].
macro_rules! session_columns {
    () => {
        "id, user_id, device, address, created_at, last_seen_at, idle_expires_at, expires_at, counter, confirmed,
         repeats, replacements, repeated_rotations, last_device, last_address, authentication"
    };
}

/// How many rows one statement of a sweep deletes: bounded, so that writers do not wait long for it.
const SWEEP_BATCH: i64 = 1000;

/// Sessions and revocations in a SQL database.
#[derive(Debug, Clone)]
pub struct SqlStore {
    db: Db,
}

impl SqlStore {
    /// A store in a database that was opened with [`MIGRATIONS`].
    #[must_use]
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl SessionStore for SqlStore {
    async fn insert(&self, session: &Session) -> Result<(), StoreError> {
        run!(self.db.writer(), |db| {
            sqlx::query(
                "INSERT INTO session
                     (id, user_id, device, address, created_at, last_seen_at, idle_expires_at, expires_at, counter,
                      confirmed, last_device, last_address, authentication)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
            )
            .bind(session.id)
            .bind(session.user_id)
            .bind(&session.device)
            .bind(&session.address)
            .bind(to_micros(session.created_at))
            .bind(to_micros(session.last_seen_at))
            .bind(to_micros(session.idle_expires_at))
            .bind(to_micros(session.expires_at))
            .bind(to_column(session.counter))
            .bind(to_column(session.confirmed))
            .bind(&session.last_device)
            .bind(&session.last_address)
            .bind(session.authentication.to_text())
            .execute(db)
            .await?;
        });
        Ok(())
    }

    async fn rotate(
        &self,
        id: Uuid,
        counter: u64,
        by: &PresentedBy,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Rotation, StoreError> {
        // The usual case of `Lifetimes::present` in one statement.
        let mut advanced = run!(self.db.writer(), |db| {
            sqlx::query_as::<_, SessionRow>(concat!(
                "UPDATE session
                 SET counter = counter + 1,
                     confirmed = counter,
                     repeats = 0,
                     replacements = 0,
                     repeated_rotations = CASE WHEN repeats > 0 THEN repeated_rotations ELSE 0 END,
                     last_seen_at = $3,
                     idle_expires_at = CASE WHEN $4 < expires_at THEN $4 ELSE expires_at END,
                     last_device = $5,
                     last_address = $6
                 WHERE id = $1 AND counter = $2 AND idle_expires_at > $3
                 RETURNING ",
                session_columns!()
            ))
            .bind(id)
            .bind(to_column(counter))
            .bind(to_micros(now))
            .bind(to_micros(now + lifetimes.idle_timeout))
            .bind(&by.device)
            .bind(&by.address)
            .fetch_all(db)
            .await?
        });
        if let Some(row) = advanced.pop() {
            return Ok(Rotation::Advanced(read_session(row)));
        }
        loop {
            let rotation = self.db.retry(|| self.rotate_not_current(id, counter, by, lifetimes, now)).await?;
            if let Some(rotation) = rotation {
                return Ok(rotation);
            }
        }
    }

    async fn raise(
        &self,
        user_id: Uuid,
        id: Uuid,
        methods: &[String],
        now: Timestamp,
    ) -> Result<Option<Session>, StoreError> {
        loop {
            let row = run!(self.db.reader(), |db| {
                sqlx::query_as::<_, SessionRow>(concat!("SELECT ", session_columns!(), " FROM session WHERE id = $1"))
                    .bind(id)
                    .fetch_optional(db)
                    .await?
            });
            let stored = row.as_ref().map(|row| row.15.clone()).unwrap_or_default();
            let session = row.map(read_session).filter(|session| session.user_id == user_id && session.is_active(now));
            let Some(mut session) = session else { return Ok(None) };
            session.authentication = session.authentication.raised(now, methods);
            let raised = run!(self.db.writer(), |db| {
                sqlx::query("UPDATE session SET authentication = $3 WHERE id = $1 AND authentication = $2")
                    .bind(id)
                    .bind(&stored)
                    .bind(session.authentication.to_text())
                    .execute(db)
                    .await?
                    .rows_affected()
            });
            if raised == 1 {
                return Ok(Some(session));
            }
        }
    }

    async fn list(&self, user_id: Uuid, page: &Page, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        // The maximum UUID is greater than every UUID of version 7.
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, SessionRow>(concat!(
                "SELECT ",
                session_columns!(),
                " FROM session
                 WHERE user_id = $1 AND id < $2 AND idle_expires_at > $3
                 ORDER BY id DESC
                 LIMIT $4"
            ))
            .bind(user_id)
            .bind(page.after.unwrap_or(Uuid::max()))
            .bind(to_micros(now))
            .bind(page.limit())
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read_session).collect())
    }

    async fn count_of_user(&self, user_id: Uuid, now: Timestamp) -> Result<u64, StoreError> {
        let count: i64 = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM session WHERE user_id = $1 AND idle_expires_at > $2")
                .bind(user_id)
                .bind(to_micros(now))
                .fetch_one(db)
                .await?
        });
        Ok(count.unsigned_abs())
    }

    async fn end(
        &self,
        user_id: Uuid,
        id: Uuid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError> {
        self.db.retry(|| self.end_once(user_id, id, lifetimes, now)).await
    }

    async fn end_all(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError> {
        self.db.retry(|| self.end_all_once(user_id, keep, lifetimes, now)).await
    }

    async fn void_tokens(&self, of: &[Holder], lifetimes: &Lifetimes, now: Timestamp) -> Result<u64, StoreError> {
        self.db.retry(|| self.void_tokens_once(of, lifetimes, now)).await
    }

    async fn void_key(&self, key_id: &str, now: Timestamp) -> Result<u64, StoreError> {
        self.db.retry(|| self.void_key_once(key_id, now)).await
    }

    async fn revocations_after(&self, seq: u64, limit: u32, now: Timestamp) -> Result<Vec<Revocation>, StoreError> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, RevocationRow>(
                "SELECT seq, session_id, user_id, void_until, forget_at, role, key_id
                 FROM revocation
                 WHERE seq > $1 AND forget_at > $2
                 ORDER BY seq
                 LIMIT $3",
            )
            .bind(to_column(seq))
            .bind(to_micros(now))
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read_revocation).collect::<Result<_, _>>()?)
    }

    async fn newest_revocation(&self) -> Result<u64, StoreError> {
        let seq = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM revocation").fetch_one(db).await?
        });
        Ok(from_column(seq))
    }

    async fn sweep(&self, now: Timestamp, forget_until: Timestamp) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let sessions = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM session
                     WHERE idle_expires_at <= $1
                         AND id IN (SELECT id FROM session WHERE idle_expires_at <= $1 LIMIT $2)",
                )
                .bind(to_micros(now))
                .bind(SWEEP_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            let revocations = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM revocation
                     WHERE forget_at <= $1
                         AND seq IN (
                             SELECT seq
                             FROM revocation
                             WHERE forget_at <= $1 AND seq < (SELECT MAX(seq) FROM revocation)
                             LIMIT $2
                         )",
                )
                .bind(to_micros(forget_until))
                .bind(SWEEP_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            if sessions == 0 && revocations == 0 {
                return Ok(swept);
            }
            swept.sessions += sessions;
            swept.revocations += revocations;
        }
    }

    async fn count_active(&self, now: Timestamp) -> Result<u64, StoreError> {
        let count = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT COUNT(*) FROM session WHERE idle_expires_at > $1")
                .bind(to_micros(now))
                .fetch_one(db)
                .await?
        });
        Ok(from_column(count))
    }
}

/// Transactions that may be retried as a whole.
impl SqlStore {
    /// The outcome of a counter that is not the current one; `None` if the session was rotated concurrently.
    async fn rotate_not_current(
        &self,
        id: Uuid,
        counter: u64,
        by: &PresentedBy,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Option<Rotation>, StoreError> {
        let mut transaction = self.db.begin().await?;
        let row = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, SessionRow>(concat!("SELECT ", session_columns!(), " FROM session WHERE id = $1"))
                .bind(id)
                .fetch_optional(connection)
                .await?
        });
        let Some(session) = row.map(read_session) else { return Ok(Some(Rotation::Ended)) };
        match lifetimes.present(&session, counter, by, now) {
            Presented::Advance(_) => Ok(None),
            Presented::Repeat(next) => {
                let saved = save(transaction, &session, &next).await?;
                Ok(saved.then_some(Rotation::Repeated(next)))
            }
            Presented::Replace(next) => {
                let saved = save(transaction, &session, &next).await?;
                Ok(saved.then_some(Rotation::Replaced(next)))
            }
            Presented::RepeatedTooOften => Ok(Some(Rotation::RepeatedTooOften(session))),
            Presented::NeverIssued => Ok(Some(Rotation::NeverIssued)),
            Presented::Ended => Ok(Some(Rotation::Ended)),
            Presented::Reuse => {
                let ended = run!(transaction.connection(), |connection| {
                    sqlx::query("DELETE FROM session WHERE id = $1 AND counter = $2")
                        .bind(id)
                        .bind(to_column(session.counter))
                        .execute(connection)
                        .await?
                        .rows_affected()
                });
                if ended == 0 {
                    return Ok(None);
                }
                let revocation = revoke_session(&mut transaction, id, lifetimes.forget_at(now)).await?;
                transaction.commit().await?;
                Ok(Some(Rotation::Reused { session, revocation }))
            }
        }
    }

    async fn end_once(
        &self,
        user_id: Uuid,
        id: Uuid,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError> {
        let mut transaction = self.db.begin().await?;
        let ended = run!(transaction.connection(), |connection| {
            sqlx::query_scalar(
                "DELETE FROM session
                 WHERE user_id = $1 AND id = $2 AND idle_expires_at > $3
                 RETURNING id",
            )
            .bind(user_id)
            .bind(id)
            .bind(to_micros(now))
            .fetch_all(connection)
            .await?
        });
        revoke_sessions(transaction, ended, lifetimes.forget_at(now)).await
    }

    async fn end_all_once(
        &self,
        user_id: Uuid,
        keep: Option<Uuid>,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<EndedSessions, StoreError> {
        let mut transaction = self.db.begin().await?;
        // No session has the nil id.
        let ended = run!(transaction.connection(), |connection| {
            sqlx::query_scalar(
                "DELETE FROM session
                 WHERE user_id = $1 AND id <> $2 AND idle_expires_at > $3
                 RETURNING id",
            )
            .bind(user_id)
            .bind(keep.unwrap_or(Uuid::nil()))
            .bind(to_micros(now))
            .fetch_all(connection)
            .await?
        });
        revoke_sessions(transaction, ended, lifetimes.forget_at(now)).await
    }
}

/// Replaces the state of a session's rotation, and commits. Returns whether it was still the previous one.
async fn save(mut transaction: Transaction, previous: &Session, next: &Session) -> Result<bool, StoreError> {
    let saved = run!(transaction.connection(), |connection| {
        sqlx::query(
            "UPDATE session
             SET counter = $4,
                 repeats = $5,
                 replacements = $6,
                 repeated_rotations = $7,
                 last_seen_at = $8,
                 idle_expires_at = $9,
                 last_device = $10,
                 last_address = $11
             WHERE id = $1 AND counter = $2 AND repeats = $3",
        )
        .bind(previous.id)
        .bind(to_column(previous.counter))
        .bind(i64::from(previous.repeats))
        .bind(to_column(next.counter))
        .bind(i64::from(next.repeats))
        .bind(i64::from(next.replacements))
        .bind(i64::from(next.repeated_rotations))
        .bind(to_micros(next.last_seen_at))
        .bind(to_micros(next.idle_expires_at))
        .bind(&next.last_device)
        .bind(&next.last_address)
        .execute(connection)
        .await?
        .rows_affected()
    });
    transaction.commit().await?;
    Ok(saved == 1)
}

/// Revokes the tokens of sessions that were ended in this transaction, and commits it.
async fn revoke_sessions(
    mut transaction: Transaction,
    ended: Vec<Uuid>,
    forget_at: Timestamp,
) -> Result<EndedSessions, StoreError> {
    let mut outcome = EndedSessions::default();
    for id in ended {
        outcome.revocation = Some(revoke_session(&mut transaction, id, forget_at).await?);
        outcome.sessions += 1;
    }
    transaction.commit().await?;
    Ok(outcome)
}

async fn revoke_session(transaction: &mut Transaction, id: Uuid, forget_at: Timestamp) -> sqlx::Result<u64> {
    let seq = run!(transaction.connection(), |connection| {
        sqlx::query_scalar(
            "INSERT INTO revocation (session_id, forget_at)
             VALUES ($1, $2)
             RETURNING seq",
        )
        .bind(id)
        .bind(to_micros(forget_at))
        .fetch_one(connection)
        .await?
    });
    Ok(from_column(seq))
}
