//! The sign-ins to accounts.

use drystone_mesh::{
    clock::Timestamp,
    page::Page,
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
    credential::Credential,
    sign_in_history::{Method, Outcome, SignInRecord},
};

/// How many rows one statement forgets.
const FORGET_BATCH: i64 = 500;

type SignInRow = (Uuid, Uuid, i64, i16, i16, String, String, i16, Option<Uuid>);

/// The statement that inserts a record, for either database.
macro_rules! insert {
    ($values:literal, $record:expr) => {
        sqlx::query(concat!(
            "INSERT INTO sign_in (id, user_id, created_at, method, outcome, address, device, is_new_device, session_id) ",
            $values
        ))
        .bind($record.id)
        .bind($record.user_id)
        .bind(to_micros($record.at))
        .bind($record.method.to_column())
        .bind($record.outcome.to_column())
        .bind($record.address.as_str())
        .bind($record.device.as_str())
        .bind(i16::from($record.is_new_device))
        .bind($record.session_id)
    };
}

/// The same, if the password is still the one of the credential and serves, and the user has a second factor or not as then.
macro_rules! success {
    ($record:expr, $credential:expr) => {
        insert!(
            "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
             FROM credential
             WHERE user_id = $2 AND password_hash = $10 AND reset_required_at IS NULL
                 AND EXISTS (SELECT 1 FROM factor WHERE user_id = $2 AND confirmed_at IS NOT NULL) = $11",
            $record
        )
        .bind($credential.password_hash.as_str())
        .bind($credential.has_second_factor())
    };
}

impl AuthStore {
    /// Stores a sign-in that succeeded, with what follows from it, if its password is still the one of `credential` and serves, and no
    /// second factor was added. Returns whether that is so.
    pub async fn insert_success(
        &self,
        record: &SignInRecord,
        credential: &Credential,
        messages: &[Message],
    ) -> sqlx::Result<bool> {
        if messages.is_empty() {
            let stored = run!(self.db.writer(), |db| success!(record, credential).execute(db).await?.rows_affected());
            return Ok(stored == 1);
        }
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                if !insert_success(&mut transaction, record, credential).await? {
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

    /// Stores a sign-in that failed.
    pub async fn insert_failure(&self, record: &SignInRecord) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            insert!("VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", record).execute(db).await?;
        });
        Ok(())
    }

    /// Whether a sign-in of this user is stored that succeeded.
    pub async fn has_signed_in(&self, user_id: Uuid) -> sqlx::Result<bool> {
        let found: Option<i64> = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT created_at FROM sign_in WHERE user_id = $1 AND outcome = 1 LIMIT 1")
                .bind(user_id)
                .fetch_optional(db)
                .await?
        });
        Ok(found.is_some())
    }

    /// The sign-ins of a user since `since`, newest first: one more than the page has, if there are more.
    pub async fn sign_ins(&self, user_id: Uuid, page: &Page, since: Timestamp) -> sqlx::Result<Vec<SignInRecord>> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, SignInRow>(
                "SELECT id, user_id, created_at, method, outcome, address, device, is_new_device, session_id
                 FROM sign_in
                 WHERE user_id = $1 AND id < $2 AND created_at > $3
                 ORDER BY id DESC
                 LIMIT $4",
            )
            .bind(user_id)
            .bind(page.after.unwrap_or(Uuid::max()))
            .bind(to_micros(since))
            .bind(i64::from(page.size) + 1)
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read_sign_in).collect())
    }

    /// Forgets sign-ins from before this time. Returns how many.
    pub async fn forget_sign_ins(&self, before: Timestamp) -> sqlx::Result<u64> {
        let mut total = 0;
        loop {
            let forgotten = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM sign_in WHERE id IN (SELECT id FROM sign_in WHERE id < $1 ORDER BY id LIMIT $2)",
                )
                .bind(first_id(before))
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

/// Stores a sign-in that succeeded in this transaction, as [`AuthStore::insert_success`] does.
pub(super) async fn insert_success(
    transaction: &mut Transaction,
    record: &SignInRecord,
    credential: &Credential,
) -> sqlx::Result<bool> {
    let stored =
        run!(transaction.connection(), |db| { success!(record, credential).execute(db).await?.rows_affected() });
    Ok(stored == 1)
}

/// Stores a sign-in by a passkey alone that succeeded, in this transaction, unless its user has to choose a new password first. Returns
/// whether it was stored.
pub(super) async fn insert_passkey_success(transaction: &mut Transaction, record: &SignInRecord) -> sqlx::Result<bool> {
    let stored = run!(transaction.connection(), |db| {
        insert!(
            "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
             FROM credential
             WHERE user_id = $2 AND reset_required_at IS NULL",
            record
        )
        .execute(db)
        .await?
        .rows_affected()
    });
    Ok(stored == 1)
}

fn read_sign_in(row: SignInRow) -> SignInRecord {
    let (id, user_id, created_at, method, outcome, address, device, is_new_device, session_id) = row;
    SignInRecord {
        id,
        user_id,
        at: from_micros(created_at),
        method: Method::from_column(method),
        outcome: Outcome::from_column(outcome),
        address,
        device,
        is_new_device: is_new_device != 0,
        session_id,
    }
}

/// An id that is less than each UUID of version 7 of this time.
fn first_id(time: Timestamp) -> Uuid {
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}
