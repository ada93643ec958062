//! How many accounts and grants there are.

use std::collections::BTreeMap;

use drystone_store::run;

use super::UserStore;
use crate::{Error, Status};

/// How many changes are added to the totals at once.
const FOLD_BATCH: i64 = 5000;

/// How many accounts and grants there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Accounts by status.
    pub by_status: BTreeMap<&'static str, i64>,
    /// Grants by role, also expired ones. Everybody has `member`, without a grant.
    pub by_role: BTreeMap<String, i64>,
}

impl UserStore {
    /// Adds what has changed to the totals, and returns them.
    pub async fn totals(&self) -> Result<Totals, Error> {
        while self.db.retry(|| self.fold_once()).await? == FOLD_BATCH.unsigned_abs() {}
        let rows = run!(self.db.reader(), |db| {
            sqlx::query_as::<_, (String, i64)>("SELECT subject, amount FROM account_total").fetch_all(db).await?
        });
        let mut totals = Totals::default();
        for status in [Status::Active, Status::Disabled, Status::Deleted] {
            totals.by_status.insert(status.name(), 0);
        }
        for (subject, amount) in rows {
            match subject.split_once(' ') {
                Some(("status", status)) => {
                    let status = status.parse().map_or(Status::Disabled, Status::from_column);
                    *totals.by_status.entry(status.name()).or_default() += amount;
                }
                Some(("role", role)) => {
                    totals.by_role.insert(role.to_owned(), amount);
                }
                _ => {}
            }
        }
        Ok(totals)
    }

    /// Returns how many changes were added.
    async fn fold_once(&self) -> Result<u64, Error> {
        let mut transaction = self.db.begin().await?;
        // What another instance adds at the same time is deleted by it alone.
        let changes = run!(transaction.connection(), |connection| {
            sqlx::query_as::<_, (String, i64)>(
                "DELETE FROM account_tally
                 WHERE sequence IN (SELECT sequence FROM account_tally ORDER BY sequence LIMIT $1)
                 RETURNING subject, amount",
            )
            .bind(FOLD_BATCH)
            .fetch_all(connection)
            .await?
        });
        let count = changes.len() as u64;
        let mut sums = BTreeMap::<String, i64>::new();
        for (subject, amount) in changes {
            *sums.entry(subject).or_default() += amount;
        }
        // In the order of subjects, so that two instances do not wait for each other.
        for (subject, amount) in sums {
            run!(transaction.connection(), |connection| {
                sqlx::query(
                    "INSERT INTO account_total (subject, amount)
                     VALUES ($1, $2)
                     ON CONFLICT (subject) DO UPDATE
                     SET amount = account_total.amount + $2",
                )
                .bind(subject.as_str())
                .bind(amount)
                .execute(connection)
                .await?;
            });
        }
        transaction.commit().await?;
        Ok(count)
    }
}
