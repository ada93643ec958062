//! The SQL of the outbox.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use uuid::Uuid;

use super::{Message, Outcome};
use crate::{Db, Either, run};

/// A message that is leased to this instance.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) sequence: i64,
    pub(super) message: Message,
    /// Attempts, with this one.
    pub(super) attempts: u32,
}

/// How much there is to deliver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) live: i64,
    pub(super) oldest: Option<Timestamp>,
    pub(super) dead: i64,
}

type Row = (i64, Uuid, String, String, Vec<u8>, i64, i64);

/// The first live message of each key that is due. `$SKIP` is where PostgreSQL skips what another instance is leasing.
macro_rules! lease {
    ($skip:literal) => {
        concat!(
            "UPDATE outbox
             SET lease = $1, next_attempt_at = $2, attempts = attempts + 1
             WHERE sequence IN (
                 SELECT sequence
                 FROM outbox AS due
                 WHERE dead_at IS NULL
                   AND next_attempt_at <= $3
                   AND NOT EXISTS (
                       SELECT 1
                       FROM outbox AS earlier
                       WHERE earlier.key = due.key AND earlier.sequence < due.sequence AND earlier.dead_at IS NULL
                   )
                 ORDER BY sequence
                 LIMIT $4 ",
            $skip,
            ")
             RETURNING sequence, id, kind, key, payload, created_at, attempts"
        )
    };
}

/// Leases messages that are due to `lease`, until `until`.
pub(super) async fn lease(
    db: &Db,
    lease: Uuid,
    now: Timestamp,
    until: Timestamp,
    limit: u32,
) -> sqlx::Result<Vec<Leased>> {
    let (now, until, limit) = (to_micros(now), to_micros(until), i64::from(limit));
    let mut rows: Vec<Row> = match db.writer() {
        Either::Sqlite(db) => {
            sqlx::query_as(lease!("")).bind(lease).bind(until).bind(now).bind(limit).fetch_all(db).await?
        }
        Either::Postgres(db) => {
            let query = sqlx::query_as(lease!("FOR UPDATE SKIP LOCKED"));
            query.bind(lease).bind(until).bind(now).bind(limit).fetch_all(db).await?
        }
    };
    rows.sort_unstable_by_key(|row| row.0);
    let leased = |(sequence, id, kind, key, payload, created_at, attempts): Row| Leased {
        sequence,
        message: Message { id, kind, key, payload, created_at: from_micros(created_at) },
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
    };
    Ok(rows.into_iter().map(leased).collect())
}

/// Deletes a delivered message, if it is still leased to `lease`.
pub(super) async fn delivered(db: &Db, lease: Uuid, sequence: i64) -> sqlx::Result<()> {
    run!(db.writer(), |db| {
        sqlx::query("DELETE FROM outbox WHERE sequence = $1 AND lease = $2")
            .bind(sequence)
            .bind(lease)
            .execute(db)
            .await
            .map(drop)
    })
}

/// Ends the lease of a message that was not delivered: until its next attempt, or for ever.
pub(super) async fn failed(
    db: &Db,
    lease: Uuid,
    sequence: i64,
    error: &str,
    next: Result<Timestamp, Timestamp>,
) -> sqlx::Result<()> {
    let (next_attempt_at, dead_at) = match next {
        Ok(next) => (Some(to_micros(next)), None),
        Err(dead) => (None, Some(to_micros(dead))),
    };
    run!(db.writer(), |db| {
        sqlx::query(
            "UPDATE outbox
             SET lease = NULL, last_error = $3, next_attempt_at = COALESCE($4, next_attempt_at), dead_at = $5
             WHERE sequence = $1 AND lease = $2",
        )
        .bind(sequence)
        .bind(lease)
        .bind(error)
        .bind(next_attempt_at)
        .bind(dead_at)
        .execute(db)
        .await
        .map(drop)
    })
}

/// How much there is to deliver.
pub(super) async fn backlog(db: &Db) -> sqlx::Result<Backlog> {
    let (live, oldest): (i64, Option<i64>) = run!(db.reader(), |db| {
        sqlx::query_as("SELECT COUNT(*), MIN(created_at) FROM outbox WHERE dead_at IS NULL").fetch_one(db).await?
    });
    let dead: i64 = run!(db.reader(), |db| {
        sqlx::query_scalar("SELECT COUNT(*) FROM outbox WHERE dead_at IS NOT NULL").fetch_one(db).await?
    });
    Ok(Backlog { live, oldest: oldest.map(from_micros), dead })
}

/// What has become of a message.
pub(super) async fn outcome(db: &Db, id: Uuid) -> sqlx::Result<Outcome> {
    let dead_at: Option<Option<i64>> = run!(db.reader(), |db| {
        sqlx::query_scalar("SELECT dead_at FROM outbox WHERE id = $1").bind(id).fetch_optional(db).await?
    });
    Ok(match dead_at {
        None => Outcome::Delivered,
        Some(Some(_)) => Outcome::GivenUp,
        Some(None) => Outcome::Pending,
    })
}
