//! Second factors.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{
    Transaction,
    outbox::Message,
    run,
    sealing::{Place, Sealed},
};
use uuid::Uuid;

use super::{AuthStore, backup_codes, factor_tries::clear_tries, passkeys, passwords::put_all};
use crate::{
    error::Error,
    factor::{CONFIRM_TIMEOUT, Factor, FactorKind, FactorUse, MAX_FACTORS, StoredFactor, USE_RETENTION, totp, tries},
    password::PasswordHash,
};

/// How many rows one statement of a sweep forgets.
const FORGET_BATCH: i64 = 500;

/// The columns of a factor, in the order of [`FactorRow`].
macro_rules! columns {
    () => {
        "id, user_id, kind, display_name, created_at, last_used_at, secret, sealed_by"
    };
}

type FactorRow = (Uuid, Uuid, i16, String, i64, Option<i64>, Vec<u8>, String);

/// Where the secret of a factor is sealed.
#[must_use]
pub fn factor_place(id: &Uuid) -> Place<'_> {
    Place { table: "factor", row: id.as_bytes(), column: "secret" }
}

impl AuthStore {
    /// Stores an authenticator app that is not confirmed yet, in place of another one that is not. Returns false without a change if the
    /// user has as many as they may have.
    pub async fn begin_factor(&self, new: &StoredFactor) -> sqlx::Result<bool> {
        self.db
            .retry(|| async {
                let StoredFactor { factor, secret } = new;
                // Exclusive, so that of two at once both are counted.
                let mut transaction = self.db.begin_exclusive().await?;
                run!(transaction.connection(), |connection| {
                    sqlx::query("DELETE FROM factor WHERE user_id = $1 AND confirmed_at IS NULL")
                        .bind(factor.user_id)
                        .execute(connection)
                        .await?;
                });
                let inserted = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "INSERT INTO factor (id, user_id, kind, display_name, secret, sealed_by, created_at)
                         SELECT $1, $2, $3, $4, $5, $6, $7
                         WHERE (SELECT COUNT(*) FROM factor WHERE user_id = $2) < $8",
                    )
                    .bind(factor.id)
                    .bind(factor.user_id)
                    .bind(factor.kind.to_column())
                    .bind(&factor.display_name)
                    .bind(&secret.envelope)
                    .bind(&secret.key_id)
                    .bind(to_micros(factor.created_at))
                    .bind(i64::from(MAX_FACTORS))
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if inserted == 0 {
                    return Ok(false);
                }
                transaction.commit().await?;
                Ok(true)
            })
            .await
    }

    /// An authenticator app of a user that can be confirmed now.
    pub async fn begun_factor(&self, user_id: Uuid, id: Uuid, now: Timestamp) -> sqlx::Result<Option<StoredFactor>> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, FactorRow>(concat!(
                "SELECT ",
                columns!(),
                " FROM factor WHERE id = $1 AND user_id = $2 AND confirmed_at IS NULL AND created_at > $3"
            ))
            .bind(id)
            .bind(user_id)
            .bind(to_micros(now - CONFIRM_TIMEOUT))
            .fetch_optional(db)
            .await?
        });
        Ok(row.map(read_factor))
    }

    /// The confirmed factors of a user, oldest first.
    pub async fn confirmed_factors(&self, user_id: Uuid) -> sqlx::Result<Vec<StoredFactor>> {
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, FactorRow>(concat!(
                "SELECT ",
                columns!(),
                " FROM factor WHERE user_id = $1 AND confirmed_at IS NOT NULL ORDER BY id"
            ))
            .bind(user_id)
            .fetch_all(db)
            .await?
        });
        Ok(rows.into_iter().map(read_factor).collect())
    }

    /// Whether a user has a confirmed factor.
    pub async fn has_factor(&self, user_id: Uuid) -> sqlx::Result<bool> {
        Ok(!self.confirmed_factors(user_id).await?.is_empty())
    }

    /// Confirms an authenticator app, and uses up the code of this step, if one is given. Backup codes are for the first one: returns false without a change if it is
    /// the first one and there are none, or the other way round.
    ///
    /// # Errors
    /// [`Error::FactorNotFound`] if it was confirmed or forgotten meanwhile; [`Error::SessionEnded`] if the account was taken back or removed
    /// after `auth_time`; [`Error::TooManyFactors`].
    pub async fn confirm_factor(
        &self,
        factor: &Factor,
        step: Option<i64>,
        backup_codes: &[PasswordHash],
        messages: &[Message],
        auth_time: Timestamp,
        now: Timestamp,
    ) -> Result<bool, Error> {
        self.db
            .retry(|| async {
                // Exclusive, so that one is the first, and none is added while the last one is removed.
                let mut transaction = self.db.begin_exclusive().await?;
                assert_current(&mut transaction, factor.user_id, auth_time).await?;
                let count = count(&mut transaction, factor.user_id).await?;
                if (count == 0) == backup_codes.is_empty() {
                    return Ok(false);
                }
                if count >= i64::from(MAX_FACTORS) {
                    return Err(Error::TooManyFactors);
                }
                let confirmed = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "UPDATE factor SET confirmed_at = $2, last_used_at = $2 WHERE id = $1 AND confirmed_at IS NULL",
                    )
                    .bind(factor.id)
                    .bind(to_micros(now))
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                if confirmed == 0 {
                    return Err(Error::FactorNotFound);
                }
                if let Some(step) = step {
                    let used = FactorUse::Totp { factor_id: factor.id, step };
                    use_up(&mut transaction, factor.user_id, &used, now).await?;
                }
                backup_codes::replace(&mut transaction, factor.user_id, backup_codes, now).await?;
                put_all(transaction, messages).await?;
                Ok(true)
            })
            .await
    }

    /// Renames a confirmed factor of a user. Returns it, or `None` if there is none.
    pub async fn rename_factor(&self, user_id: Uuid, id: Uuid, display_name: &str) -> sqlx::Result<Option<Factor>> {
        let mut renamed = run!(self.db.writer(), |db| {
            sqlx::query_as::<_, FactorRow>(concat!(
                "UPDATE factor
                 SET display_name = $3
                 WHERE id = $1 AND user_id = $2 AND confirmed_at IS NOT NULL
                 RETURNING ",
                columns!()
            ))
            .bind(id)
            .bind(user_id)
            .bind(display_name)
            .fetch_all(db)
            .await?
        });
        Ok(renamed.pop().map(|row| read_factor(row).factor))
    }

    /// Removes factors of a user: this one, or all. With the last one the backup codes go as well. Stores the messages of
    /// `always`, and `messages` if there was one that counted; returns whether there was.
    pub async fn remove_factors(
        &self,
        user_id: Uuid,
        id: Option<Uuid>,
        messages: &[Message],
        always: &[Message],
    ) -> Result<bool, Error> {
        self.remove_factors_unless(user_id, id, messages, always, false).await
    }

    /// Removes a factor of a user who keeps the last one. Returns whether there was one.
    ///
    /// # Errors
    /// [`Error::LastFactor`].
    pub async fn remove_factor_but_last(&self, user_id: Uuid, id: Uuid, messages: &[Message]) -> Result<bool, Error> {
        self.remove_factors_unless(user_id, Some(id), messages, &[], true).await
    }

    async fn remove_factors_unless(
        &self,
        user_id: Uuid,
        id: Option<Uuid>,
        messages: &[Message],
        always: &[Message],
        keeps_last: bool,
    ) -> Result<bool, Error> {
        self.db
            .retry(|| async {
                // Exclusive, so that of two that each remove one the later sees that none is left.
                let mut transaction = self.db.begin_exclusive().await?;
                let removed = run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "DELETE FROM factor
                         WHERE user_id = $1 AND (id = $2 OR $3) AND confirmed_at IS NOT NULL",
                    )
                    .bind(user_id)
                    .bind(id.unwrap_or_default())
                    .bind(id.is_none())
                    .execute(connection)
                    .await?
                    .rows_affected()
                });
                passkeys::remove_without_factor(&mut transaction, user_id).await?;
                if removed > 0 && count(&mut transaction, user_id).await? == 0 {
                    if keeps_last {
                        return Err(Error::LastFactor);
                    }
                    forget_user(&mut transaction, user_id).await?;
                }
                let told = if removed > 0 { messages } else { &[] };
                put_all(transaction, &[always, told].concat()).await?;
                Ok(removed > 0)
            })
            .await
    }

    /// Whether the code of this step was used.
    pub async fn is_used(&self, factor_id: Uuid, step: i64) -> sqlx::Result<bool> {
        let found: Option<i64> = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT step FROM totp_use WHERE factor_id = $1 AND step = $2")
                .bind(factor_id)
                .bind(step)
                .fetch_optional(db)
                .await?
        });
        Ok(found.is_some())
    }

    /// Uses up a code that is right, and clears the tries of its origin.
    ///
    /// # Errors
    /// [`Error::CodeInvalid`] if it was used meanwhile.
    pub async fn use_factor(
        &self,
        user_id: Uuid,
        origin: Uuid,
        used: &FactorUse,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<(), Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                use_up(&mut transaction, user_id, used, now).await?;
                clear_tries(&mut transaction, user_id, origin).await?;
                put_all(transaction, messages).await
            })
            .await
    }

    /// The secrets of up to `limit` factors after this id, in the order of ids.
    pub async fn factor_secrets(&self, after: Uuid, limit: u32) -> sqlx::Result<Vec<(Uuid, Sealed)>> {
        let rows: Vec<(Uuid, Vec<u8>, String)> = run!(self.db.reader(), |db| {
            sqlx::query_as("SELECT id, secret, sealed_by FROM factor WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await?
        });
        Ok(rows.into_iter().map(|(id, envelope, key_id)| (id, Sealed { envelope, key_id })).collect())
    }

    /// Replaces the envelope of a secret. Returns false if it is not `old`.
    pub async fn replace_factor_envelope(&self, id: Uuid, old: &Sealed, new: &Sealed) -> sqlx::Result<bool> {
        let updated = run!(self.db.writer(), |db| {
            sqlx::query("UPDATE factor SET secret = $3, sealed_by = $4 WHERE id = $1 AND secret = $2")
                .bind(id)
                .bind(&old.envelope)
                .bind(&new.envelope)
                .bind(&new.key_id)
                .execute(db)
                .await?
                .rows_affected()
        });
        Ok(updated == 1)
    }

    /// Forgets factors that were not confirmed in time, steps whose codes are not valid any more, and old tries.
    pub async fn forget_factors(&self, now: Timestamp) -> sqlx::Result<()> {
        let step = totp::step_at(now - USE_RETENTION);
        loop {
            let begun = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM factor WHERE confirmed_at IS NULL AND created_at < $1 AND id IN (
                         SELECT id FROM factor WHERE confirmed_at IS NULL AND created_at < $1 ORDER BY created_at LIMIT $2
                     )",
                )
                .bind(to_micros(now - CONFIRM_TIMEOUT))
                .bind(FORGET_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            let used = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM totp_use WHERE step < $1 AND (factor_id, step) IN (
                         SELECT factor_id, step FROM totp_use WHERE step < $1 ORDER BY step LIMIT $2
                     )",
                )
                .bind(step)
                .bind(FORGET_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            let tries = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM factor_attempt WHERE allowed_at < $1 AND (user_id, origin) IN (
                         SELECT user_id, origin FROM factor_attempt WHERE allowed_at < $1 ORDER BY allowed_at LIMIT $2
                     )",
                )
                .bind(to_micros(now - tries::RETENTION))
                .bind(FORGET_BATCH)
                .execute(db)
                .await?
                .rows_affected()
            });
            if begun.max(used).max(tries) < FORGET_BATCH.unsigned_abs() {
                return Ok(());
            }
        }
    }
}

/// Uses up a proof in this transaction: of two at once, one succeeds.
///
/// # Errors
/// As [`passkeys::use_passkey`] for a passkey; [`Error::CodeInvalid`] if it was used before, or the factor is gone.
pub(super) async fn use_up(
    transaction: &mut Transaction,
    user_id: Uuid,
    used: &FactorUse,
    now: Timestamp,
) -> Result<(), Error> {
    let used_up = match used {
        FactorUse::Passkey(used) => return passkeys::use_passkey(transaction, user_id, used, now).await,
        FactorUse::Totp { factor_id, step } => {
            run!(transaction.connection(), |connection| {
                sqlx::query("UPDATE factor SET last_used_at = $2 WHERE id = $1")
                    .bind(*factor_id)
                    .bind(to_micros(now))
                    .execute(connection)
                    .await?;
            });
            run!(transaction.connection(), |connection| {
                sqlx::query(
                    "INSERT INTO totp_use (factor_id, step)
                     SELECT id, $2 FROM factor WHERE id = $1 AND user_id = $3 AND confirmed_at IS NOT NULL
                     ON CONFLICT DO NOTHING",
                )
                .bind(*factor_id)
                .bind(*step)
                .bind(user_id)
                .execute(connection)
                .await?
                .rows_affected()
            })
        }
        FactorUse::Backup { number, hash } => run!(transaction.connection(), |connection| {
            sqlx::query(
                "UPDATE backup_code
                 SET used_at = $4
                 WHERE user_id = $1 AND number = $2 AND code_hash = $3 AND used_at IS NULL",
            )
            .bind(user_id)
            .bind(i16::from(*number))
            .bind(hash.as_str())
            .bind(to_micros(now))
            .execute(connection)
            .await?
            .rows_affected()
        }),
    };
    if used_up == 1 { Ok(()) } else { Err(Error::CodeInvalid) }
}

/// Removes what belongs to the second factors of a user in this transaction.
pub(super) async fn forget_user(transaction: &mut Transaction, user_id: Uuid) -> sqlx::Result<()> {
    for sql in [
        // First, as a sign-in that is completed does.
        "DELETE FROM challenge WHERE user_id = $1",
        "DELETE FROM factor WHERE user_id = $1",
        "DELETE FROM passkey WHERE user_id = $1",
        "DELETE FROM backup_code WHERE user_id = $1",
        "DELETE FROM factor_attempt WHERE user_id = $1",
        "DELETE FROM factor_reset WHERE user_id = $1",
        "DELETE FROM trusted_device WHERE user_id = $1",
    ] {
        run!(transaction.connection(), |connection| {
            sqlx::query(sql).bind(user_id).execute(connection).await?;
        });
    }
    Ok(())
}

/// Removes what was added for a user since this time, and passkeys that were used since, in this transaction: their owner takes the account
/// back.
pub(super) async fn forget_since(transaction: &mut Transaction, user_id: Uuid, since: Timestamp) -> sqlx::Result<()> {
    for sql in [
        // A passkey signs in alone: one that was used since may be the other one's.
        "DELETE FROM factor
         WHERE user_id = $1 AND (confirmed_at IS NULL OR confirmed_at >= $2 OR (kind = 2 AND last_used_at >= $2))",
        "DELETE FROM backup_code WHERE user_id = $1 AND created_at >= $2",
    ] {
        run!(transaction.connection(), |connection| {
            sqlx::query(sql).bind(user_id).bind(to_micros(since)).execute(connection).await?;
        });
    }
    passkeys::remove_without_factor(transaction, user_id).await?;
    if count(transaction, user_id).await? == 0 {
        forget_user(transaction, user_id).await?;
    }
    Ok(())
}

/// Holds the account of a session whose user has authenticated at this time, in this transaction.
///
/// # Errors
/// [`Error::SessionEnded`] if its owner has taken the account back since, or it was removed.
pub(super) async fn assert_current(
    transaction: &mut Transaction,
    user_id: Uuid,
    auth_time: Timestamp,
) -> Result<(), Error> {
    let held = run!(transaction.connection(), |connection| {
        sqlx::query(
            "UPDATE credential
             SET updated_at = updated_at
             WHERE user_id = $1 AND reset_required_at IS NULL AND (recovered_at IS NULL OR recovered_at < $2)",
        )
        .bind(user_id)
        .bind(to_micros(auth_time))
        .execute(connection)
        .await?
        .rows_affected()
    });
    if held == 1 { Ok(()) } else { Err(Error::SessionEnded) }
}

/// How many confirmed factors a user has.
pub(super) async fn count(transaction: &mut Transaction, user_id: Uuid) -> sqlx::Result<i64> {
    run!(transaction.connection(), |connection| {
        sqlx::query_scalar("SELECT COUNT(*) FROM factor WHERE user_id = $1 AND confirmed_at IS NOT NULL")
            .bind(user_id)
            .fetch_one(connection)
            .await
    })
}

fn read_factor(row: FactorRow) -> StoredFactor {
    let (id, user_id, kind, display_name, created_at, last_used_at, envelope, key_id) = row;
    let factor = Factor {
        id,
        user_id,
        kind: FactorKind::from_column(kind),
        display_name,
        created_at: from_micros(created_at),
        last_used_at: last_used_at.map(from_micros),
    };
    StoredFactor { factor, secret: Sealed { envelope, key_id } }
}
