//! The kinds of second factors that users have.

use drystone_store::run;
use uuid::Uuid;

use super::AuthStore;
use crate::factor::FactorKind;

impl AuthStore {
    /// The kinds of factors that a user can complete a sign-in with.
    pub async fn factor_kinds(&self, user_id: Uuid) -> sqlx::Result<Vec<FactorKind>> {
        let kinds: Vec<i16> = run!(self.db.reader(), |db| {
            sqlx::query_scalar(
                "SELECT DISTINCT kind FROM factor WHERE user_id = $1 AND confirmed_at IS NOT NULL ORDER BY kind",
            )
            .bind(user_id)
            .fetch_all(db)
            .await?
        });
        let mut kinds: Vec<FactorKind> = kinds.into_iter().map(FactorKind::from_column).collect();
        if self.backup_codes_left(user_id).await? > 0 {
            kinds.push(FactorKind::BackupCode);
        }
        Ok(kinds)
    }

    /// How many users have a factor of each kind. Reads all of them.
    pub async fn users_by_factor(&self) -> sqlx::Result<Vec<(FactorKind, i64)>> {
        let counts: Vec<(i16, i64)> = run!(self.db.reader(), |db| {
            sqlx::query_as(
                "SELECT kind, COUNT(DISTINCT user_id) FROM factor WHERE confirmed_at IS NOT NULL GROUP BY kind",
            )
            .fetch_all(db)
            .await?
        });
        let count_of =
            |kind: FactorKind| counts.iter().find(|(found, _)| *found == kind.to_column()).map_or(0, |row| row.1);
        Ok([FactorKind::Totp, FactorKind::Passkey].map(|kind| (kind, count_of(kind))).into())
    }
}
