//! Request ids: a creation that is repeated with its request id returns what it has created, for a day.
//!
//! A creation claims its request id in its own transaction. What it has created is recorded with a hash of the whole request, so
//! that the id cannot be used for another one; the record outlives the resource, so that a late repetition does not bring it back.
//!
//! A service lists [`migration`] among its migrations, and calls [`forget`] periodically.

use std::time::Duration;

use drystone_mesh::{clock::Timestamp, module::Migration, time::to_micros};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{Db, Transaction, run};

/// How long a creation can be repeated with its request id.
pub const LIFETIME: Duration = Duration::from_hours(24);

/// How many request ids one statement forgets: bounded, so that writers do not wait long for it.
const FORGET_BATCH: i64 = 1000;

/// The migration with the table of request ids, as the version of a service's schema.
#[must_use]
pub const fn migration(version: i64) -> Migration {
    Migration {
        version,
        name: "request_ids",
        sqlite: include_str!("request_id/sqlite.sql"),
        postgres: include_str!("request_id/postgres.sql"),
    }
}

/// The request ids of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestIds {
    /// The maximum number of one owner's request ids in [`LIFETIME`].
    pub max: u32,
    /// The column with what was created.
    resource_column: &'static str,
}

/// A creation with a request id.
#[derive(Debug, Clone, Copy)]
pub struct Creation {
    /// Who creates: request ids of different owners are independent.
    pub owner: Uuid,
    /// The id of the request.
    pub request_id: Uuid,
    /// What it creates.
    pub resource: Uuid,
    /// SHA-256 of the whole request.
    pub fingerprint: [u8; 32],
}

/// What is known of a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It is new: the creation goes on.
    New,
    /// The same request has created this.
    Created(Uuid),
    /// Another request has used it.
    Reused,
    /// The owner has used as many as they may.
    TooMany,
}

impl RequestIds {
    /// Those of [`migration`], at most `max` for each owner.
    #[must_use]
    pub const fn new(max: u32) -> Self {
        Self { max, resource_column: "resource_id" }
    }

    /// Those of a table that calls what was created otherwise.
    #[must_use]
    pub const fn with_column(self, resource_column: &'static str) -> Self {
        Self { resource_column, ..self }
    }

    /// Claims the request id in the transaction of the creation, which is rolled back unless the id is [`Claimed::New`].
    ///
    /// # Errors
    /// The database fails.
    pub async fn claim(
        &self,
        transaction: &mut Transaction,
        creation: &Creation,
        now: Timestamp,
    ) -> sqlx::Result<Claimed> {
        let Creation { owner, request_id, resource, fingerprint } = creation;
        let column = self.resource_column;
        let insert = format!(
            "INSERT INTO creation (owner_id, request_id, {column}, fingerprint, created_at)
             SELECT $1, $2, $3, $4, $5
             WHERE NOT EXISTS (SELECT 1 FROM creation WHERE owner_id = $1 LIMIT 1 OFFSET $6)
             ON CONFLICT DO NOTHING"
        );
        let claimed = run!(transaction.connection(), |connection| {
            sqlx::query(AssertSqlSafe(insert))
                .bind(*owner)
                .bind(*request_id)
                .bind(*resource)
                .bind(fingerprint.as_slice())
                .bind(to_micros(now))
                .bind(i64::from(self.max).saturating_sub(1))
                .execute(connection)
                .await?
                .rows_affected()
        });
        if claimed > 0 {
            return Ok(Claimed::New);
        }
        let select = format!("SELECT {column}, fingerprint FROM creation WHERE owner_id = $1 AND request_id = $2");
        let recorded = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, (Uuid, Vec<u8>)>(AssertSqlSafe(select))
                .bind(*owner)
                .bind(*request_id)
                .fetch_optional(connection)
                .await?
        });
        Ok(match recorded {
            None => Claimed::TooMany,
            Some((created, recorded)) if recorded == fingerprint => Claimed::Created(created),
            Some(_) => Claimed::Reused,
        })
    }
}

/// Forgets the request ids of creations before this time. Returns how many.
///
/// # Errors
/// The database fails.
pub async fn forget(db: &Db, before: Timestamp) -> sqlx::Result<u64> {
    let mut total = 0;
    loop {
        let forgotten = run!(db.writer(), |db| {
            sqlx::query(
                "DELETE FROM creation
                 WHERE (owner_id, request_id) IN (
                     SELECT owner_id, request_id FROM creation WHERE created_at < $1 ORDER BY created_at LIMIT $2
                 )",
            )
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
