//! Bringing a schema up to date, one numbered step after the other.

use std::path::Path;

use aws_lc_rs::digest;
use chrono::Utc;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgExecutor, SqliteExecutor,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};

use drystone_mesh::module::Migration;

use super::{Location, OpenError, location::Server, postgres, sqlite::Sqlite};

/// How far a schema is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaState {
    /// The version that it has; 0 if there is nothing yet.
    pub applied: i64,
    /// The newest version that this program has.
    pub known: i64,
}

/// What was applied: versions and checksums, in order.
type Applied = Vec<(i64, Vec<u8>)>;

/// How far the schema of a database is. Nothing is changed, and nothing created.
///
/// # Errors
/// As [`Db::open`](super::Db::open).
pub async fn schema_state(place: &Location, migrations: &'static [Migration]) -> Result<SchemaState, OpenError> {
    let applied = match place {
        Location::File(path) => {
            let applied = applied_in_file(path).await.map_err(|error| OpenError::of_file(path, &error))?;
            check(place, &applied, migrations, |migration| migration.sqlite)?;
            applied
        }
        Location::Server(server) => {
            let mut connection = postgres::connect(server, &server.options()?).await?;
            let applied = applied_on_server(&mut connection, server).await;
            let _ = connection.close().await;
            let applied = applied.map_err(|error| OpenError::of_server(server, &error))?;
            check(place, &applied, migrations, |migration| migration.postgres)?;
            applied
        }
    };
    Ok(SchemaState { applied: newest(&applied), known: known(migrations) })
}

/// Applies the steps that are missing, all or none.
pub(super) async fn run_on_file(
    sqlite: &Sqlite,
    path: &Path,
    migrations: &'static [Migration],
) -> Result<(), OpenError> {
    let sql = |error| OpenError::of_file(path, &error);
    let place = Location::from(path);

    // No other process can write meanwhile.
    let mut transaction = sqlite.writer.begin_with("BEGIN IMMEDIATE").await.map_err(sql)?;
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
    let applied: Applied = sqlx::query_as(APPLIED).fetch_all(&mut *transaction).await.map_err(sql)?;
    check(&place, &applied, migrations, |migration| migration.sqlite)?;

    for migration in missing(&applied, migrations) {
        sqlx::raw_sql(migration.sqlite).execute(&mut *transaction).await.map_err(sql)?;
        sqlx::query(INSERT)
            .bind(migration.version)
            .bind(migration.name)
            .bind(checksum(migration.sqlite))
            .bind(Utc::now().timestamp_micros())
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        tracing::info!(database = %place, version = migration.version, name = migration.name, "migrated");
    }
    transaction.commit().await.map_err(sql)
}

/// Applies the steps that are missing, all or none. Of several instances one does, while the others wait.
pub(super) async fn run_on_server(
    connection: &mut PgConnection,
    server: &Server,
    migrations: &'static [Migration],
) -> Result<(), OpenError> {
    let sql = |error| OpenError::of_server(server, &error);
    let place = Location::Server(server.clone());
    let by_text = |migration: &Migration| migration.postgres;

    // Where nothing is missing, nothing but reading is asked of the user that the service runs as.
    let applied = applied_on_server(connection, server).await.map_err(sql)?;
    check(&place, &applied, migrations, by_text)?;
    if missing(&applied, migrations).next().is_none() {
        return Ok(());
    }

    let mut transaction = connection.begin().await.map_err(sql)?;
    // Another instance may take long, and so may a step.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        .execute(&mut *transaction)
        .await
        .map_err(sql)?;
    let lock = format!("drystone migrate {}", server.schema());
    let is_first: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(&lock)
        .fetch_one(&mut *transaction)
        .await
        .map_err(sql)?;
    if !is_first {
        tracing::info!(database = %place, schema = server.schema(), "waiting for another instance that migrates");
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(&lock)
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
    }

    // The user may be allowed to use a schema that somebody made for it, and not to make one.
    if !exists(&mut transaction, &server.schema()).await.map_err(sql)? {
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{}\"", server.schema())))
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
    }
    let applied = applied_on_server(&mut transaction, server).await.map_err(sql)?;
    check(&place, &applied, migrations, by_text)?;
    if applied.is_empty() {
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS schema_migration (
                 version BIGINT PRIMARY KEY,
                 name TEXT NOT NULL,
                 checksum BYTEA NOT NULL,
                 applied_at BIGINT NOT NULL
             )",
        )
        .execute(&mut *transaction)
        .await
        .map_err(sql)?;
    }
    for migration in missing(&applied, migrations) {
        sqlx::raw_sql(migration.postgres).execute(&mut *transaction).await.map_err(sql)?;
        sqlx::query(INSERT)
            .bind(migration.version)
            .bind(migration.name)
            .bind(checksum(migration.postgres))
            .bind(Utc::now().timestamp_micros())
            .execute(&mut *transaction)
            .await
            .map_err(sql)?;
        let (version, name) = (migration.version, migration.name);
        tracing::info!(database = %place, schema = server.schema(), version, name, "migrated");
    }
    transaction.commit().await.map_err(sql)
}

const APPLIED: &str = "SELECT version, checksum FROM schema_migration ORDER BY version";

const INSERT: &str = "INSERT INTO schema_migration (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)";

const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM schema_migration";

/// The version that the schema of a file has.
pub(super) async fn version_in_file(executor: impl SqliteExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar(VERSION).fetch_one(executor).await
}

/// The version that the schema on a server has.
pub(super) async fn version_on_server(executor: impl PgExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar(VERSION).fetch_one(executor).await
}

/// What was applied to a file, which need not be there.
async fn applied_in_file(path: &Path) -> sqlx::Result<Applied> {
    if !path.exists() {
        return Ok(Applied::new());
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema WHERE name = 'schema_migration'")
        .fetch_one(&mut connection)
        .await?;
    let applied = if tables == 0 { Applied::new() } else { sqlx::query_as(APPLIED).fetch_all(&mut connection).await? };
    connection.close().await?;
    Ok(applied)
}

/// What was applied on a server, where there need not even be a schema.
async fn applied_on_server(connection: &mut PgConnection, server: &Server) -> sqlx::Result<Applied> {
    let is_there: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT 1
             FROM pg_catalog.pg_tables
             WHERE schemaname = $1 AND tablename = 'schema_migration'
         )",
    )
    .bind(server.schema())
    .fetch_one(&mut *connection)
    .await?;
    if is_there { sqlx::query_as(APPLIED).fetch_all(connection).await } else { Ok(Applied::new()) }
}

async fn exists(connection: &mut PgConnection, schema: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(connection)
        .await
}

/// Proves that what was applied is a beginning of what this program knows.
fn check(
    place: &Location,
    applied: &Applied,
    migrations: &'static [Migration],
    text: impl Fn(&Migration) -> &'static str,
) -> Result<(), OpenError> {
    debug_assert!(
        migrations.windows(2).all(|pair| pair[0].version < pair[1].version),
        "migrations are in the order of their versions"
    );
    for (version, its_checksum) in applied {
        let Some(migration) = migrations.iter().find(|migration| migration.version == *version) else {
            return Err(OpenError::Newer {
                database: place.to_string(),
                found: newest(applied),
                known: known(migrations),
            });
        };
        if checksum(text(migration)) != *its_checksum {
            return Err(OpenError::Changed { database: place.to_string(), version: *version, name: migration.name });
        }
    }
    Ok(())
}

fn missing(applied: &Applied, migrations: &'static [Migration]) -> impl Iterator<Item = &'static Migration> + use<> {
    let newest = newest(applied);
    migrations.iter().filter(move |migration| migration.version > newest)
}

fn newest(applied: &Applied) -> i64 {
    applied.last().map_or(0, |(version, _)| *version)
}

fn known(migrations: &[Migration]) -> i64 {
    migrations.last().map_or(0, |migration| migration.version)
}

fn checksum(text: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
}
