//! Since when users need a second factor.

use drystone_mesh::{
    clock::Timestamp,
    time::{from_micros, to_micros},
};
use drystone_store::run;
use uuid::Uuid;

use super::AuthStore;

impl AuthStore {
    /// Since when a user needs a second factor: since now, if that is not stored yet.
    pub async fn factor_required_since(&self, user_id: Uuid, now: Timestamp) -> sqlx::Result<Timestamp> {
        if let Some(since) = self.stored_requirement(user_id).await? {
            return Ok(since);
        }
        run!(self.db.writer(), |db| {
            sqlx::query("INSERT INTO factor_requirement (user_id, since) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(user_id)
                .bind(to_micros(now))
                .execute(db)
                .await?;
        });
        // Another sign-in may have been first.
        Ok(self.stored_requirement(user_id).await?.unwrap_or(now))
    }

    async fn stored_requirement(&self, user_id: Uuid) -> sqlx::Result<Option<Timestamp>> {
        let since: Option<i64> = run!(self.db.reader(), |db| {
            sqlx::query_scalar("SELECT since FROM factor_requirement WHERE user_id = $1")
                .bind(user_id)
                .fetch_optional(db)
                .await?
        });
        Ok(since.map(from_micros))
    }
}
