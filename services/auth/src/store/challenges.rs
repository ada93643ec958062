//! Challenges: sign-ins that wait for a second factor.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, outbox::Message, run};
use uuid::Uuid;

use super::{AuthStore, factor_tries, factors, passwords::put_all, sign_ins, trusted_devices};
use crate::{
    challenge::{Challenge, MAX_TRIES},
    credential::Credential,
    error::Error,
    factor::FactorUse,
    sign_in_history::SignInRecord,
    trusted_device::TrustedDevice,
};

/// How many rows one statement forgets.
const FORGET_BATCH: i64 = 500;

impl AuthStore {
    /// Stores a challenge, if its password is still the one of `credential` and serves. Returns whether it does.
    pub async fn insert_challenge(&self, challenge: &Challenge, credential: &Credential) -> sqlx::Result<bool> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                // Also so that a change of the password waits, and then voids this challenge.
                let is_current = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE credential
                         SET updated_at = updated_at
                         WHERE user_id = $1 AND password_hash = $2 AND reset_required_at IS NULL",
                    )
                    .bind(challenge.user_id)
                    .bind(credential.password_hash.as_str())
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if is_current == 0 {
                    return Ok(false);
                }
                run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "INSERT INTO challenge (token_hash, user_id, email, device, tries, expires_at)
                         VALUES ($1, $2, $3, $4, 0, $5)",
                    )
                    .bind(challenge.token_hash.as_slice())
                    .bind(challenge.user_id)
                    .bind(&challenge.email)
                    .bind(challenge.device)
                    .bind(to_micros(challenge.expires_at))
                    .execute(connection)
                    .await?;
                });
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// A challenge that can be tried now.
    pub async fn challenge(&self, token_hash: [u8; 32], now: Timestamp) -> sqlx::Result<Option<Challenge>> {
        let row: Option<(Uuid, String, Uuid, i64)> = run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT user_id, email, device, expires_at
                 FROM challenge
                 WHERE token_hash = $1 AND tries < $2 AND expires_at > $3",
            )
            .bind(token_hash.as_slice())
            .bind(MAX_TRIES)
            .bind(to_micros(now))
            .fetch_optional(db)
            .await?
        });
        Ok(row.map(|(user_id, email, device, expires_at)| Challenge {
            token_hash,
            user_id,
            email,
            device,
            expires_at: from_micros(expires_at),
        }))
    }

    /// Counts a try of a challenge before its code is checked.
    ///
    /// # Errors
    /// [`Error::ChallengeInvalid`] if there is no further one.
    pub async fn try_challenge(&self, challenge: &Challenge) -> Result<(), Error> {
        let counted = run!(self.db.writer(), |db| {
            sqlx::query("UPDATE challenge SET tries = tries + 1 WHERE token_hash = $1 AND tries < $2")
                .bind(challenge.token_hash.as_slice())
                .bind(MAX_TRIES)
                .execute(db)
                .await?
                .rows_affected()
        });
        if counted == 1 { Ok(()) } else { Err(Error::ChallengeInvalid) }
    }

    /// Takes back a try of a challenge whose code was not refused: something else failed.
    pub async fn untry_challenge(&self, challenge: &Challenge) -> sqlx::Result<()> {
        run!(self.db.writer(), |db| {
            sqlx::query("UPDATE challenge SET tries = tries - 1 WHERE token_hash = $1 AND tries > 0")
                .bind(challenge.token_hash.as_slice())
                .execute(db)
                .await?;
        });
        Ok(())
    }

    /// Completes a sign-in: uses up the challenge and the code, trusts a device if there is one, and stores the sign-in with what follows
    /// from it, all or nothing.
    ///
    /// # Errors
    /// [`Error::ChallengeInvalid`] if the challenge is gone, or the password has been changed; [`Error::CodeInvalid`] if the code was
    /// used meanwhile.
    pub async fn complete_challenge(
        &self,
        challenge: &Challenge,
        used: &FactorUse,
        record: &SignInRecord,
        credential: &Credential,
        trusted: Option<&TrustedDevice>,
        messages: &[Message],
    ) -> Result<(), Error> {
        self.db
            .retry(|| async {
                // Exclusive, so that of two that are trusted at once both are counted.
                let is_exclusive = trusted.is_some();
                let begun = if is_exclusive { self.db.begin_exclusive().await } else { self.db.begin().await };
                let mut transaction = begun?;
                let deleted = run!(transaction.connection(), |connection| {
                    sqlx::query("DELETE FROM challenge WHERE token_hash = $1")
                        .bind(challenge.token_hash.as_slice())
                        .execute(connection)
                        .await?
                        .rows_affected()
                });
                if deleted == 0 {
                    return Err(Error::ChallengeInvalid);
                }
                factors::use_up(&mut transaction, challenge.user_id, used, record.at).await?;
                factor_tries::clear_tries(&mut transaction, challenge.user_id, challenge.device).await?;
                if let Some(trusted) = trusted {
                    trusted_devices::trust(&mut transaction, trusted, challenge.device).await?;
                }
                if !sign_ins::insert_success(&mut transaction, record, credential).await? {
                    return Err(Error::ChallengeInvalid);
                }
                put_all(transaction, messages).await
            })
            .await
    }

    /// Forgets challenges that have expired.
    pub async fn forget_challenges(&self, now: Timestamp) -> sqlx::Result<()> {
        loop {
            let forgotten = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM challenge WHERE token_hash IN (
                         SELECT token_hash FROM challenge WHERE expires_at < $1 ORDER BY expires_at LIMIT $2
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

/// Makes the challenges of a user useless in this transaction, whose password is changed by it, and ends the trust in their devices.
pub(super) async fn void(transaction: &mut Transaction, user_id: Uuid) -> sqlx::Result<()> {
    for sql in [
        // First: a sign-in that is completed meanwhile is waited for, and then the device that it trusts is found.
        "DELETE FROM challenge WHERE user_id = $1",
        "DELETE FROM trusted_device WHERE user_id = $1",
    ] {
        run!(transaction.connection(), |connection| {
            sqlx::query(sql).bind(user_id).execute(connection).await?;
        });
    }
    Ok(())
}
