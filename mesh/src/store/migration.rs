//! Bringing a schema up to date, one numbered step after the other.

use std::path::Path;

use aws_lc_rs::digest;
use chrono::Utc;
use sqlx::SqliteExecutor;

use super::{
    Db,
    file::{self, OpenError},
};

/// One step of a schema. Once released it is never edited: the next change is the next step.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Its place in the order, from 1.
    pub version: i64,
    /// What it is about.
    pub name: &'static str,
    /// Its statements.
    pub sql: &'static str,
}

impl Migration {
    fn checksum(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, self.sql.as_bytes()).as_ref().to_vec()
    }
}

/// Applies the steps that are missing, all or none.
pub(super) async fn run(db: &Db, path: &Path, migrations: &'static [Migration]) -> Result<(), OpenError> {
    debug_assert!(
        migrations.windows(2).all(|pair| pair[0].version < pair[1].version),
        "migrations stand in the order of their versions"
    );
    let sql = |error| file::explain(path, &error);

    let mut transaction = db.begin().await.map_err(sql)?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS schema_migration (
             version BIGINT PRIMARY KEY,
             name TEXT NOT NULL,
             checksum BLOB NOT NULL,
             applied_at BIGINT NOT NULL
         )",
    )
    .execute(&mut *transaction)
    .await
    .map_err(sql)?;

    let applied: Vec<(i64, Vec<u8>)> =
        sqlx::query_as("SELECT version, checksum FROM schema_migration ORDER BY version")
            .fetch_all(&mut *transaction)
            .await
            .map_err(sql)?;
    let found = applied.last().map_or(0, |(version, _)| *version);
    check(path, &applied, migrations)?;

    for migration in migrations.iter().filter(|migration| migration.version > found) {
        sqlx::raw_sql(migration.sql).execute(&mut *transaction).await.map_err(sql)?;
        sqlx::query("INSERT INTO schema_migration (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)")
            .bind(migration.version)
            .bind(migration.name)
            .bind(migration.checksum())
            .bind(Utc::now().timestamp_micros())
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        tracing::info!(database = %path.display(), version = migration.version, name = migration.name, "migrated");
    }
    transaction.commit().await.map_err(sql)
}

/// Proves that what was applied is a beginning of what this program knows.
fn check(path: &Path, applied: &[(i64, Vec<u8>)], migrations: &'static [Migration]) -> Result<(), OpenError> {
    for (version, checksum) in applied {
        let Some(migration) = migrations.iter().find(|migration| migration.version == *version) else {
            let known = migrations.last().map_or(0, |migration| migration.version);
            let found = applied.last().map_or(*version, |(version, _)| *version);
            return Err(OpenError::Newer { path: path.to_owned(), found, known });
        };
        if migration.checksum() != *checksum {
            return Err(OpenError::Changed { path: path.to_owned(), version: *version, name: migration.name });
        }
    }
    Ok(())
}

/// The version that the schema has.
pub(super) async fn applied_version(executor: impl SqliteExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM schema_migration").fetch_one(executor).await
}
