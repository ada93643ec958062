//! Passkeys.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::{Transaction, outbox::Message, run, sealing::Sealed};
use drystone_webauthn::CredentialDescriptor;
use uuid::Uuid;

use super::{AuthStore, backup_codes, factors, passwords::put_all, sign_ins};
use crate::{
    error::Error,
    factor::{
        Factor, FactorKind, MAX_FACTORS,
        passkey::{PasskeyUse, StoredPasskey},
    },
    password::PasswordHash,
    sign_in_history::SignInRecord,
    token::passkey_challenge::PasskeyChallenge,
};

/// How many rows one statement forgets.
const FORGET_BATCH: i64 = 500;

type PasskeyRow = (Uuid, Uuid, String, i64, Option<i64>, Vec<u8>, Vec<u8>, i64, i16, i16, Uuid, String);

impl AuthStore {
    /// Adds a passkey and uses up the challenge of its registration. `secret` is of nothing: the release before takes a passkey for an
    /// authenticator app, which nobody then has. Backup codes are for the first factor: returns false without a change
    /// if it is the first one and there are none, or the other way round.
    ///
    /// # Errors
    /// [`Error::PasskeyChallengeUsed`]; [`Error::PasskeyRegistered`] if a user has it; [`Error::TooManyFactors`]; [`Error::SessionEnded`] if
    /// the account was taken back or removed after `auth_time`.
    pub async fn add_passkey(
        &self,
        new: &StoredPasskey,
        secret: &Sealed,
        challenge: PasskeyChallenge,
        auth_time: Timestamp,
        backup_codes: &[PasswordHash],
        messages: &[Message],
    ) -> Result<bool, Error> {
        let StoredPasskey { factor, .. } = new;
        self.db
            .retry(|| async {
                // Exclusive, so that one is the first, and of two at once both are counted.
                let mut transaction = self.db.begin_exclusive().await?;
                factors::assert_current(&mut transaction, factor.user_id, auth_time).await?;
                let count = factors::count(&mut transaction, factor.user_id).await?;
                if count >= i64::from(MAX_FACTORS) {
                    return Err(Error::TooManyFactors);
                }
                if (count == 0) == backup_codes.is_empty() {
                    return Ok(false);
                }
                use_challenge(&mut transaction, challenge).await?;
                if !insert(&mut transaction, new, secret).await? {
                    return Err(Error::PasskeyRegistered);
                }
                backup_codes::replace(&mut transaction, factor.user_id, backup_codes, factor.created_at).await?;
                put_all(transaction, messages).await?;
                Ok(true)
            })
            .await
    }

    /// The passkey with this id of its credential.
    pub async fn passkey(&self, credential_id: &[u8]) -> sqlx::Result<Option<StoredPasskey>> {
        let row = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, PasskeyRow>(
                "SELECT factor.id, factor.user_id, display_name, created_at, last_used_at, credential_id, public_key, sign_count,
                     is_backup_eligible, is_backed_up, aaguid, transports
                 FROM passkey
                 JOIN factor ON factor.id = passkey.factor_id
                 WHERE credential_id = $1 AND factor.confirmed_at IS NOT NULL",
            )
            .bind(credential_id)
            .fetch_optional(db)
            .await?
        });
        Ok(row.map(read_passkey))
    }

    /// The passkeys of a user, as options name them.
    pub async fn passkeys_of(&self, user_id: Uuid) -> sqlx::Result<Vec<CredentialDescriptor>> {
        let rows: Vec<(Vec<u8>, String)> = run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT credential_id, transports
                 FROM passkey
                 JOIN factor ON factor.id = passkey.factor_id
                 WHERE passkey.user_id = $1 AND factor.confirmed_at IS NOT NULL
                 ORDER BY factor_id",
            )
            .bind(user_id)
            .fetch_all(db)
            .await?
        });
        let read = |(id, transports): (Vec<u8>, String)| CredentialDescriptor { id, transports: words(&transports) };
        Ok(rows.into_iter().map(read).collect())
    }

    /// Whether a challenge was used.
    pub async fn is_passkey_challenge_used(&self, challenge: PasskeyChallenge) -> sqlx::Result<bool> {
        let found: Option<i64> = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT expires_at FROM passkey_challenge_use WHERE id = $1")
                .bind(challenge.id)
                .fetch_optional(db)
                .await?
        });
        Ok(found.is_some())
    }

    /// Uses up a proof by a passkey alone and stores the sign-in with what follows from it, all or nothing.
    ///
    /// # Errors
    /// [`Error::PasskeyChallengeUsed`]; [`Error::PasskeyUnknown`] if it was removed meanwhile; [`Error::PasswordResetRequired`] if its
    /// user has to choose a new password first.
    pub async fn sign_in_with_passkey(
        &self,
        used: &PasskeyUse,
        record: &SignInRecord,
        messages: &[Message],
    ) -> Result<(), Error> {
        self.db
            .retry(|| async {
                let mut transaction = self.db.begin().await?;
                use_passkey(&mut transaction, record.user_id, used, record.at).await?;
                if !sign_ins::insert_passkey_success(&mut transaction, record).await? {
                    return Err(Error::PasswordResetRequired);
                }
                put_all(transaction, messages).await
            })
            .await
    }

    /// Forgets used challenges that have expired before this time.
    pub async fn forget_passkey_challenges(&self, before: Timestamp) -> sqlx::Result<()> {
        loop {
            let forgotten = run!(self.db.writer(), |db| {
                sqlx::query(
                    "DELETE FROM passkey_challenge_use WHERE expires_at < $1 AND id IN (
                         SELECT id FROM passkey_challenge_use WHERE expires_at < $1 ORDER BY expires_at LIMIT $2
                     )",
                )
                .bind(to_micros(before))
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

async fn insert(transaction: &mut Transaction, new: &StoredPasskey, secret: &Sealed) -> sqlx::Result<bool> {
    let StoredPasskey { factor, .. } = new;
    // The release before removes factors alone.
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "DELETE FROM passkey
             WHERE credential_id = $1 AND NOT EXISTS (SELECT 1 FROM factor WHERE factor.id = passkey.factor_id)",
        )
        .bind(new.credential_id.as_slice())
        .execute(connection)
        .await?;
    });
    let inserted = run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO passkey
                 (factor_id, user_id, credential_id, public_key, sign_count, is_backup_eligible, is_backed_up, aaguid, transports)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
             ON CONFLICT DO NOTHING",
        )
        .bind(factor.id)
        .bind(factor.user_id)
        .bind(new.credential_id.as_slice())
        .bind(new.public_key.as_slice())
        .bind(i64::from(new.sign_count))
        .bind(i16::from(new.is_backup_eligible))
        .bind(i16::from(new.is_backed_up))
        .bind(new.aaguid)
        .bind(new.transports.join(" "))
        .execute(connection)
        .await?
        .rows_affected()
    });
    if inserted == 0 {
        return Ok(false);
    }
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "INSERT INTO factor (id, user_id, kind, display_name, secret, sealed_by, created_at, confirmed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
        )
        .bind(factor.id)
        .bind(factor.user_id)
        .bind(FactorKind::Passkey.to_column())
        .bind(&factor.display_name)
        .bind(&secret.envelope)
        .bind(&secret.key_id)
        .bind(to_micros(factor.created_at))
        .execute(connection)
        .await?;
    });
    Ok(true)
}

/// Uses up a proof by a passkey in this transaction: of two at once, one succeeds.
///
/// # Errors
/// [`Error::PasskeyChallengeUsed`]; [`Error::PasskeyUnknown`] if it was removed meanwhile; the failure of a counter that another proof
/// has increased meanwhile.
pub(super) async fn use_passkey(
    transaction: &mut Transaction,
    user_id: Uuid,
    used: &PasskeyUse,
    now: Timestamp,
) -> Result<(), Error> {
    let found = run!(transaction.connection(), |connection| {
        sqlx::query("UPDATE factor SET last_used_at = $3 WHERE id = $1 AND user_id = $2 AND confirmed_at IS NOT NULL")
            .bind(used.factor_id)
            .bind(user_id)
            .bind(to_micros(now))
            .execute(connection)
            .await?
            .rows_affected()
    });
    if found == 0 {
        return Err(Error::PasskeyUnknown);
    }
    use_challenge(transaction, used.challenge).await?;
    let counted = run!(transaction.connection(), |connection| {
        sqlx::query(
            "UPDATE passkey
             SET sign_count = $2, is_backed_up = $3
             WHERE factor_id = $1 AND (sign_count < $2 OR (sign_count = 0 AND $2 = 0))",
        )
        .bind(used.factor_id)
        .bind(i64::from(used.sign_count))
        .bind(i16::from(used.is_backed_up))
        .execute(connection)
        .await?
        .rows_affected()
    });
    if counted == 1 { Ok(()) } else { Err(drystone_webauthn::Failure::Counter.into()) }
}

/// Removes the passkeys of a user whose factor was removed in this transaction.
pub(super) async fn remove_without_factor(transaction: &mut Transaction, user_id: Uuid) -> sqlx::Result<()> {
    run!(transaction.connection(), |connection| {
        sqlx::query(
            "DELETE FROM passkey
             WHERE user_id = $1 AND NOT EXISTS (SELECT 1 FROM factor WHERE factor.id = passkey.factor_id)",
        )
        .bind(user_id)
        .execute(connection)
        .await?;
    });
    Ok(())
}

async fn use_challenge(transaction: &mut Transaction, challenge: PasskeyChallenge) -> Result<(), Error> {
    let used = run!(transaction.connection(), |connection| {
        sqlx::query("INSERT INTO passkey_challenge_use (id, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(challenge.id)
            .bind(to_micros(challenge.expires_at))
            .execute(connection)
            .await?
            .rows_affected()
    });
    if used == 1 { Ok(()) } else { Err(Error::PasskeyChallengeUsed) }
}

fn read_passkey(row: PasskeyRow) -> StoredPasskey {
    let (id, user_id, display_name, created_at, last_used_at, credential_id, public_key, ..) = row;
    let (.., sign_count, is_backup_eligible, is_backed_up, aaguid, transports) = row;
    StoredPasskey {
        factor: Factor {
            id,
            user_id,
            kind: FactorKind::Passkey,
            display_name,
            created_at: from_micros(created_at),
            last_used_at: last_used_at.map(from_micros),
        },
        credential_id,
        public_key,
        sign_count: u32::try_from(sign_count).unwrap_or(u32::MAX),
        is_backup_eligible: is_backup_eligible != 0,
        is_backed_up: is_backed_up != 0,
        aaguid,
        transports: words(&transports),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}
