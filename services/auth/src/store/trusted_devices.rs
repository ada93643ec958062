//! Trusted devices.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, run};
use uuid::Uuid;

use super::{AuthStore, sign_ins};
use crate::{
    credential::Credential,
    sign_in_history::SignInRecord,
    trusted_device::{MAX_TRUSTED_DEVICES, Trust, TrustedDevice},
};

/// How many rows one statement forgets.
const FORGET_BATCH: i64 = 500;

type DeviceRow = (Uuid, Uuid, String, i64, i64, Option<i64>);

impl AuthStore {
    /// Whether a device of a user is trusted now.
    pub async fn is_trusted(&self, user_id: Uuid, trust: Trust, now: Timestamp) -> sqlx::Result<bool> {
        let found: Option<i64> = run!(self.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT expires_at
                 FROM trusted_device
                 WHERE user_id = $1 AND device = $2 AND created_at > $3 AND expires_at > $4",
            )
            .bind(user_id)
            .bind(trust.device)
            .bind(to_micros(trust.since))
            .bind(to_micros(now))
            .fetch_optional(db)
            .await?
        });
        Ok(found.is_some())
    }

    /// The devices of a user that are trusted now, and since a time after `since`; newest first.
    pub async fn trusted_devices(
        &self,
        user_id: Uuid,
        since: Timestamp,
        now: Timestamp,
    ) -> sqlx::Result<Vec<TrustedDevice>> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, DeviceRow>(
                "SELECT device, user_id, name, created_at, expires_at, last_used_at
                 FROM trusted_device
                 WHERE user_id = $1 AND created_at > $2 AND expires_at > $3
                 ORDER BY created_at DESC, device DESC",
            )
            .bind(user_id)
            .bind(to_micros(since))
            .bind(to_micros(now))
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read_device).collect())
    }

    /// Stores a sign-in that succeeded without a second factor, if its device is still trusted, and on the conditions of
    /// [`Self::insert_success`]. Returns whether they hold.
    pub async fn insert_trusted_success(
        &self,
        record: &SignInRecord,
        credential: &Credential,
        trust: Trust,
    ) -> sqlx::Result<bool> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                // It waits for a revocation, and finds nothing if that came first.
                let is_trusted = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE trusted_device
                         SET last_used_at = $4
                         WHERE user_id = $1 AND device = $2 AND created_at > $3 AND expires_at > $4",
                    )
                    .bind(record.user_id)
                    .bind(trust.device)
                    .bind(to_micros(trust.since))
                    .bind(to_micros(record.at))
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if is_trusted == 0 || !sign_ins::insert_success(&mut transaction, record, credential).await? {
                    return Ok(false);
                }
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// Ends the trust in a device of a user. Returns whether there was any.
    pub async fn revoke_trusted_device(&self, user_id: Uuid, device: Uuid) -> sqlx::Result<bool> {
        let deleted = run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM trusted_device WHERE user_id = $1 AND device = $2")
                .bind(user_id)
                .bind(device)
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(deleted == 1)
    }

    /// Ends the trust in all devices of a user. Returns how many there were.
    pub async fn revoke_trusted_devices(&self, user_id: Uuid) -> sqlx::Result<u64> {
        Ok(run!(self.db.writer(), |db| {
            sqlx::query("DELETE FROM trusted_device WHERE user_id = $1")
                .bind(user_id)
                .execute(db)
                .await?
                .rows_affected()
        }))
    }

    /// Forgets devices whose trust has expired.
    pub async fn forget_trusted_devices(&self, now: Timestamp) -> sqlx::Result<()> {
        loop {
            let forgotten = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM trusted_device WHERE expires_at <= $1 AND (user_id, device) IN (
                         SELECT user_id, device FROM trusted_device WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
                     )",
                )
                .bind(to_micros(now))
                .bind(FORGET_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            if forgotten < FORGET_BATCH.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// Trusts a device, in place of `replaced` and of the oldest beyond the limit, in this exclusive transaction.
pub(super) async fn trust(transaction: &mut Transaction, new: &TrustedDevice, replaced: Uuid) -> sqlx::Result<()> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "DELETE FROM trusted_device
             WHERE user_id = $1 AND device NOT IN (
                 SELECT device
                 FROM trusted_device
                 WHERE user_id = $1 AND device <> $2
                 ORDER BY created_at DESC, device DESC
                 LIMIT $3
             )",
        )
        .bind(new.user_id)
        .bind(replaced)
        .bind(i64::from(MAX_TRUSTED_DEVICES) - 1)
        .execute(connection)
        .await?;
    });
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO trusted_device (user_id, device, name, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(new.user_id)
        .bind(new.id)
        .bind(&new.name)
        .bind(to_micros(new.created_at))
        .bind(to_micros(new.expires_at))
        .execute(connection)
        .await?;
    });
    Ok(())
}

fn read_device(row: DeviceRow) -> TrustedDevice {
    let (id, user_id, name, created_at, expires_at, last_used_at) = row;
    TrustedDevice {
        id,
        user_id,
        name,
        created_at: from_micros(created_at),
        expires_at: from_micros(expires_at),
        last_used_at: last_used_at.map(from_micros),
    }
}
