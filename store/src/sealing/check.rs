//! The check value: proves at start that the master key is the one that seals the database.

use chrono::Utc;

use super::{Place, SealError, Sealer};
use crate::{Db, run};

/// The content of the check value.
const CONTENT: &[u8] = b"drystone";

const PLACE: Place<'_> = Place { table: "sealing_check", row: b"1", column: "envelope" };

/// Why a database is not used.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The database fails.
    #[error(transparent)]
    Store(#[from] sqlx::Error),
    /// The check value does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Checks that the master key of `sealer` opens what the database seals. The first check stores the check value.
///
/// # Errors
/// [`CheckError`].
pub async fn check(db: &Db, sealer: &Sealer) -> Result<(), CheckError> {
    if stored(db).await?.is_none() {
        let value = sealer.seal(PLACE, CONTENT).await?;
        // Of several instances that start at once, the first stores its value; the others check it.
        run!(db.writer(), |db| {
            sqlx::query(
                "INSERT INTO sealing_check (id, envelope, created_at)
                 VALUES (1, $1, $2)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(value.envelope)
            .bind(Utc::now().timestamp_micros())
            .execute(db)
            .await
            .map(drop)?;
        });
    }
    let envelope = stored(db).await?.ok_or(SealError::Malformed)?;
    let content = sealer.open(PLACE, &envelope).await?;
    if content.as_slice() == CONTENT { Ok(()) } else { Err(SealError::Malformed.into()) }
}

/// Puts the check value under the master key that seals now.
///
/// # Errors
/// [`CheckError`].
pub async fn rewrap_check(db: &Db, sealer: &Sealer) -> Result<(), CheckError> {
    let Some(before) = stored(db).await? else { return check(db, sealer).await };
    let value = sealer.rewrap(PLACE, &before).await?;
    run!(db.writer(), |db| {
        sqlx::query("UPDATE sealing_check SET envelope = $1 WHERE id = 1 AND envelope = $2")
            .bind(value.envelope)
            .bind(before)
            .execute(db)
            .await
            .map(drop)?;
    });
    Ok(())
}

/// Whether a master key seals the database.
///
/// # Errors
/// The database fails.
pub async fn is_in_use(db: &Db) -> sqlx::Result<bool> {
    stored(db).await.map(|stored| stored.is_some())
}

async fn stored(db: &Db) -> sqlx::Result<Option<Vec<u8>>> {
    run!(db.reader(), |db| {
        sqlx::query_scalar("SELECT envelope FROM sealing_check WHERE id = 1").fetch_optional(db).await
    })
}
