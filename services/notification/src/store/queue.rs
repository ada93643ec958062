//! The queue of deliveries: an instance leases those that are due, attempts them, and records what has become of them.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Either, places, run};
use sqlx::AssertSqlSafe;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::NotificationStore;
use crate::{
    Error,
    channel::Channel,
    message::{Job, Parameters},
};

/// Of how many due deliveries the next ones are chosen, so that those of one lane do not hold up the others.
const WINDOW: i64 = 1000;

/// How many ids one statement names: fewer are filled up, so that there is one statement to prepare.
const BATCH: usize = 64;

/// Leases the first due deliveries of each lane of a channel in turn.
macro_rules! lease {
    ($skip:literal) => {
        concat!(
            "UPDATE delivery
             SET lease = $1, next_attempt_at = $2, leases = leases + 1
             WHERE id IN (
                 SELECT id
                 FROM (
                     SELECT id, row_number() OVER (PARTITION BY lane ORDER BY next_attempt_at, id) AS place
                     FROM (
                         SELECT id, lane, next_attempt_at
                         FROM delivery
                         WHERE state = 1 AND next_attempt_at <= $3 AND channel = $6
                         ORDER BY next_attempt_at
                         LIMIT $4 ",
            $skip,
            "
                     ) AS due
                 ) AS ranked
                 ORDER BY place
                 LIMIT $5
             )
             RETURNING id"
        )
    };
}

const JOB: &str = "SELECT delivery.id, message_id, delivery.user_id, channel, destination, lane, attempts, leases, template, display_name, locale, parameters, key_id,
     expires_at, message.created_at
 FROM delivery
 JOIN message ON message.id = delivery.message_id
 WHERE delivery.id IN (";

type JobRow = (
    Uuid,
    Uuid,
    Option<Uuid>,
    i64,
    String,
    String,
    i64,
    i64,
    String,
    String,
    String,
    Option<Vec<u8>>,
    Option<String>,
    i64,
    i64,
);

/// What has become of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has accepted it.
    Delivered,
    /// It failed, and is attempted again.
    Failed {
        /// Why.
        error: String,
        /// When.
        next: Timestamp,
    },
    /// It is given up.
    Dead {
        /// Why.
        error: String,
    },
    /// It was not attempted, and will be.
    Deferred {
        /// When.
        next: Timestamp,
        /// Why, if something has to be mended.
        error: Option<String>,
    },
}

/// How much there is to deliver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries that will be attempted.
    pub queued: i64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
    /// Deliveries that were given up.
    pub dead: i64,
}

impl NotificationStore {
    /// Leases at most `limit` due deliveries of a channel until `until`, for a round with this id.
    pub async fn lease(
        &self,
        lease: Uuid,
        channel: Channel,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
    ) -> Result<Vec<Job>, Error> {
        let limit = i64::try_from(limit.min(BATCH)).unwrap_or(i64::MAX);
        let (now, until) = (to_micros(now), to_micros(until));
        let ids: Vec<Uuid> = match self.db.writer() {
            Either::Sqlite(db) => {
                let query = sqlx::query_scalar(lease!(""));
                let query = query.bind(lease).bind(until).bind(now).bind(WINDOW).bind(limit);
                query.bind(channel.number()).fetch_all(db).await?
            }
            Either::Postgres(db) => {
                let query = sqlx::query_scalar(lease!("FOR UPDATE SKIP LOCKED"));
                let query = query.bind(lease).bind(until).bind(now).bind(WINDOW).bind(limit);
                query.bind(channel.number()).fetch_all(db).await?
            }
        };
        let Some(first) = ids.first() else { return Ok(Vec::new()) };
        let sql = format!("{JOB}{}) ORDER BY delivery.id", places(1, BATCH));
        let rows: Vec<JobRow> = run!(self.db.reader(), |db| {
            let mut query = sqlx::query_as(AssertSqlSafe(sql));
            for id in ids.iter().chain(std::iter::repeat_n(first, BATCH - ids.len())) {
                query = query.bind(*id);
            }
            query.fetch_all(db).await?
        });
        Ok(rows.into_iter().map(read).collect())
    }

    /// Whether a delivery of a channel is due, without a lock.
    pub async fn has_due(&self, channel: Channel, now: Timestamp) -> Result<bool, Error> {
        Ok(run!(self.db.reader(), |db| {
            sqlx::query_scalar::<_, i64>(
                "SELECT next_attempt_at FROM delivery WHERE state = 1 AND next_attempt_at <= $1 AND channel = $2 LIMIT 1",
            )
            .bind(to_micros(now))
            .bind(channel.number())
            .fetch_optional(db)
            .await?
            .is_some()
        }))
    }

    /// Records what has become of an attempt, if the delivery is still leased to `lease`; that the receiver has accepted it, in any
    /// case. The parameters of a message are removed with its last delivery, if they are encrypted.
    pub async fn settle(&self, lease: Uuid, job: &Job, outcome: &Outcome, now: Timestamp) -> Result<(), Error> {
        let (state, error, next, finished, ended) = match outcome {
            Outcome::Delivered => return self.db.retry(|| self.settle_delivered(job, now)).await,
            Outcome::Failed { error, next } => (1_i64, Some(error.as_str()), Some(*next), None, 1_i64),
            Outcome::Dead { error } => (3, Some(error.as_str()), None, Some(now), 1),
            Outcome::Deferred { next, error } => (1, error.as_deref(), Some(*next), None, 0),
        };
        run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE delivery
                 SET lease = NULL,
                     leases = 0,
                     state = $3,
                     last_error = COALESCE($4, last_error),
                     next_attempt_at = COALESCE($5, next_attempt_at),
                     finished_at = $6,
                     attempts = attempts + $7
                 WHERE id = $1 AND lease = $2",
            )
            .bind(job.id)
            .bind(lease)
            .bind(state)
            .bind(error)
            .bind(next.map(to_micros))
            .bind(finished.map(to_micros))
            .bind(ended)
            .execute(db)
            .await?;
        });
        Ok(())
    }

    async fn settle_delivered(&self, job: &Job, now: Timestamp) -> Result<(), Error> {
        let is_secret = matches!(job.parameters, Parameters::Sealed(_));
        let mut transaction = self.db.begin().await?;
        if is_secret {
            // Before the deliveries, so that of two that end at once the second one sees the first.
            run!(transaction.connection(), |connection| {
                sqlx::query("UPDATE message SET created_at = created_at WHERE id = $1")
                    .bind(job.message_id)
                    .execute(connection)
                    .await?;
            });
        }
        run!(transaction.connection(), |connection| {
            sqlx::query(
                "UPDATE delivery
                 SET lease = NULL, leases = 0, state = 2, last_error = '', finished_at = $2, attempts = attempts + 1
                 WHERE id = $1 AND state <> 2",
            )
            .bind(job.id)
            .bind(to_micros(now))
            .execute(connection)
            .await?;
        });
        if is_secret {
            run!(transaction.connection(), |connection| {
                sqlx::query(
                    "UPDATE message
                     SET parameters = NULL, key_id = NULL
                     WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = $1 AND state <> 2)",
                )
                .bind(job.message_id)
                .execute(connection)
                .await?;
            });
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Removes the encrypted parameters of messages that have expired.
    pub async fn remove_expired_secrets(&self, now: Timestamp) -> Result<(), Error> {
        run!(self.db.writer(), |db| {
            sqlx::query(
                "UPDATE message SET parameters = NULL, key_id = NULL WHERE key_id IS NOT NULL AND expires_at < $1",
            )
            .bind(to_micros(now))
            .execute(db)
            .await?;
        });
        Ok(())
    }

    /// Ends all leases, where the database is a file of SQLite: a process that starts has it for itself.
    pub async fn release_file(&self, now: Timestamp) -> Result<(), Error> {
        if let Either::Sqlite(db) = self.db.writer() {
            sqlx::query("UPDATE delivery SET lease = NULL, next_attempt_at = $1 WHERE state = 1 AND lease IS NOT NULL")
                .bind(to_micros(now))
                .execute(db)
                .await?;
        }
        Ok(())
    }

    /// How much there is to deliver.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        let (queued, dead): (i64, i64) = run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT (SELECT COUNT(*) FROM delivery WHERE state = 1), (SELECT COUNT(*) FROM delivery WHERE state = 3)",
            )
            .fetch_one(db)
            .await?
        });
        // Ids are in the order of time.
        let oldest: Option<i64> = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT created_at FROM delivery WHERE state = 1 ORDER BY id LIMIT 1")
                .fetch_optional(db)
                .await?
        });
        Ok(Backlog { queued, oldest: oldest.map(from_micros), dead })
    }
}

fn read(row: JobRow) -> Job {
    let (
        id,
        message_id,
        user_id,
        channel,
        destination,
        lane,
        attempts,
        leases,
        template,
        display_name,
        locale,
        parameters,
        key_id,
        expires,
        created,
    ) = row;
    let parameters = parameters.unwrap_or_else(|| b"{}".to_vec());
    Job {
        id,
        message_id,
        user_id,
        channel: Channel::from_number(channel),
        destination,
        lane,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX).saturating_add(1),
        leases: u32::try_from(leases).unwrap_or(u32::MAX),
        template,
        display_name,
        locale,
        parameters: match key_id {
            Some(_) => Parameters::Sealed(parameters),
            None => Parameters::Plain(Zeroizing::new(parameters)),
        },
        expires_at: from_micros(expires),
        created_at: from_micros(created),
    }
}
