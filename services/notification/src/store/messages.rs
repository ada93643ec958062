//! Accepting messages.

use drystone_mesh::{clock::Timestamp, time::to_micros};
use drystone_store::{
    Transaction, run,
    sealing::{Sealed, Stored},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{NotificationStore, deliveries, inbox};
use crate::{
    Error,
    message::{Delivery, NewDelivery, NewMessage, State},
};

/// What has become of a message that was sent.
#[derive(Debug)]
pub struct Accepted {
    /// Its deliveries.
    pub deliveries: Vec<Delivery>,
    /// Whether it was accepted before.
    pub is_repeated: bool,
}

impl NotificationStore {
    /// Accepts a message: with its deliveries and what it adds to an inbox, or not at all. `parameters` are a JSON object, sealed or
    /// not. A message with the same id and the same fingerprint changes nothing.
    ///
    /// # Errors
    /// [`Error::MessageIdReused`].
    pub async fn accept(
        &self,
        message: &NewMessage,
        fingerprint: [u8; 32],
        parameters: &Stored,
        now: Timestamp,
    ) -> Result<Accepted, Error> {
        self.db.retry(|| self.accept_once(message, fingerprint, parameters, now)).await
    }

    async fn accept_once(
        &self,
        message: &NewMessage,
        fingerprint: [u8; 32],
        parameters: &Stored,
        now: Timestamp,
    ) -> Result<Accepted, Error> {
        let mut transaction = self.db.begin().await?;
        if !insert(&mut transaction, message, fingerprint, parameters, now).await? {
            // On PostgreSQL the conflicting transaction has ended by now.
            let known: Option<Vec<u8>> = run!(transaction.connection(), |connection| {
                sqlx::query_scalar("SELECT fingerprint FROM message WHERE id = $1")
                    .bind(message.id)
                    .fetch_optional(connection)
                    .await?
            });
            if known.as_deref() != Some(&fingerprint) {
                return Err(Error::MessageIdReused);
            }
            let deliveries = deliveries::of_message(&mut transaction, message.id).await?;
            return Ok(Accepted { deliveries, is_repeated: true });
        }
        for delivery in &message.deliveries {
            insert_delivery(&mut transaction, message, delivery, now).await?;
        }
        if let (Some(text), Some(user)) = (&message.inbox, message.recipient.user_id) {
            inbox::insert(&mut transaction, user, message, text, now).await?;
        }
        let deliveries = deliveries::of_message(&mut transaction, message.id).await?;
        transaction.commit().await?;
        Ok(Accepted { deliveries, is_repeated: false })
    }

    /// The encrypted parameters of at most `limit` messages after this id, with the ids of the messages.
    pub async fn sealed_after(&self, id: Uuid, limit: u32) -> Result<Vec<(Uuid, Vec<u8>)>, Error> {
        Ok(run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT id, parameters FROM message WHERE key_id IS NOT NULL AND id > $1 ORDER BY id LIMIT $2",
            )
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await?
        }))
    }

    /// Replaces the encrypted parameters of a message, if they are still these. Returns whether they were.
    pub async fn replace_parameters(&self, message: Uuid, old: &[u8], new: &Sealed) -> Result<bool, Error> {
        Ok(run!(self.db.writer(), |db| {
            sqlx::query("UPDATE message SET parameters = $3, key_id = $4 WHERE id = $1 AND parameters = $2")
                .bind(message)
                .bind(old)
                .bind(new.envelope.as_slice())
                .bind(new.key_id.as_str())
                .execute(db)
                .await?
                .rows_affected()
                > 0
        }))
    }
}

async fn insert(
    transaction: &mut Transaction,
    message: &NewMessage,
    fingerprint: [u8; 32],
    parameters: &Stored,
    now: Timestamp,
) -> Result<bool, Error> {
    let (parameters, key_id) = match parameters {
        // Nobody needs them.
        _ if message.deliveries.is_empty() => (None, None),
        Stored::Sealed(sealed) => (Some(Zeroizing::new(sealed.envelope.clone())), Some(sealed.key_id.as_str())),
        Stored::Plain(plain) => (Some(plain.clone()), None),
    };
    Ok(run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO message
                 (id, template, sender, fingerprint, user_id, email, display_name, locale, parameters, key_id, expires_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT DO NOTHING",
        )
        .bind(message.id)
        .bind(message.template.as_str())
        .bind(message.sender.as_str())
        .bind(fingerprint.as_slice())
        .bind(message.recipient.user_id)
        .bind(message.recipient.email.as_deref())
        .bind(message.recipient.display_name.as_str())
        .bind(message.recipient.locale.as_str())
        .bind(parameters.as_ref().map(|parameters| parameters.as_slice()))
        .bind(key_id)
        .bind(to_micros(message.expires_at))
        .bind(to_micros(now))
        .execute(connection)
        .await?
        .rows_affected()
            > 0
    }))
}

async fn insert_delivery(
    transaction: &mut Transaction,
    message: &NewMessage,
    delivery: &NewDelivery,
    now: Timestamp,
) -> Result<(), Error> {
    let now = to_micros(now);
    let (state, attempts, finished_at) =
        if delivery.is_immediate() { (State::Delivered, 1_i64, Some(now)) } else { (State::Queued, 0, None) };
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO delivery
                 (id, message_id, user_id, channel, destination, lane, state, attempts, leases, next_attempt_at, last_error, created_at, finished_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, '', $9, $10)",
        )
        .bind(delivery.id)
        .bind(message.id)
        .bind(message.recipient.user_id)
        .bind(delivery.channel.number())
        .bind(delivery.destination.as_str())
        .bind(delivery.lane())
        .bind(state.number())
        .bind(attempts)
        .bind(now)
        .bind(finished_at)
        .execute(connection)
        .await?;
    });
    Ok(())
}
