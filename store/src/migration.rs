//! Migrates schemas, in the order of the versions.

use std::path::Path;

use aws_lc_rs::digest;
use chrono::Utc;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgExecutor, SqliteExecutor,
    sqlite::{SqliteConnectOptions, SqliteConnection},
};

use drystone_mesh::module::Migration;

use super::{Location, OpenError, location::PostgresLocation, postgres, sqlite::SqliteDb};

/// The state of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaState {
    /// The version that is applied; 0 if there is none.
    pub applied: i64,
    /// The newest version that this program knows.
    pub known: i64,
}

/// The applied migrations: versions and checksums, in order.
type Applied = Vec<(i64, Vec<u8>)>;

/// Reads the state of a database's schema, without changing or creating anything.
///
/// # Errors
/// As [`Db::open`](super::Db::open).
pub async fn schema_state(location: &Location, migrations: &'static [Migration]) -> Result<SchemaState, OpenError> {
    let applied = match location {
        Location::File(path) => {
            let applied = applied_in_file(path).await.map_err(|error| OpenError::of_file(path, &error))?;
            check(location, &applied, migrations, |migration| migration.sqlite)?;
            applied
        }
        Location::Server(server) => {
            let mut connection = postgres::connect(server, &server.options()?).await?;
            let applied = applied_on_server(&mut connection, server).await;
            let _ = connection.close().await;
            let applied = applied.map_err(|error| OpenError::of_server(server, &error))?;
            check(location, &applied, migrations, |migration| migration.postgres)?;
            applied
        }
    };
    Ok(SchemaState { applied: newest(&applied), known: known(migrations) })
}

/// Applies the missing migrations, all or none.
pub(super) async fn run_on_file(
    sqlite: &SqliteDb,
    path: &Path,
    migrations: &'static [Migration],
) -> Result<(), OpenError> {
    let open_error = |error| OpenError::of_file(path, &error);
    let location = Location::from(path);

    // Excludes other writers.
    let mut transaction = sqlite.writer.begin_with("BEGIN IMMEDIATE").await.map_err(open_error)?;
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
    .map_err(open_error)?;
    let applied: Applied = sqlx::query_as(APPLIED).fetch_all(&mut *transaction).await.map_err(open_error)?;
    check(&location, &applied, migrations, |migration| migration.sqlite)?;

    for migration in missing(&applied, migrations) {
        sqlx::raw_sql(migration.sqlite).execute(&mut *transaction).await.map_err(open_error)?;
        sqlx::query(INSERT)
            .bind(migration.version)
            .bind(migration.name)
            .bind(checksum(migration.sqlite))
            .bind(Utc::now().timestamp_micros())
            .execute(&mut *transaction)
            .await
            .map_err(open_error)?;
        tracing::info!(database = %location, version = migration.version, name = migration.name, "migrated");
    }
    transaction.commit().await.map_err(open_error)
}

/// Applies the missing migrations, all or none. Concurrent instances wait for the one that does.
pub(super) async fn run_on_server(
    connection: &mut PgConnection,
    server: &PostgresLocation,
    migrations: &'static [Migration],
) -> Result<(), OpenError> {
    let open_error = |error| OpenError::of_server(server, &error);
    let location = Location::Server(server.clone());
    let sql_of = |migration: &Migration| migration.postgres;

    // If no migration is missing, the database user needs no privilege beyond reading.
    let applied = applied_on_server(connection, server).await.map_err(open_error)?;
    check(&location, &applied, migrations, sql_of)?;
    if missing(&applied, migrations).next().is_none() {
        return Ok(());
    }

    let mut transaction = connection.begin().await.map_err(open_error)?;
    // A migration may take long, and so may waiting for another instance.
    sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        .execute(&mut *transaction)
        .await
        .map_err(open_error)?;
    let lock = format!("drystone migrate {}", server.schema());
    let is_first: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(&lock)
        .fetch_one(&mut *transaction)
        .await
        .map_err(open_error)?;
    if !is_first {
        tracing::info!(database = %location, schema = server.schema(), "waiting for another instance to migrate");
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(&lock)
            .execute(&mut *transaction)
            .await
            .map_err(open_error)?;
    }

    // The user may have the privilege to use an existing schema, but not to create one.
    if !schema_exists(&mut transaction, &server.schema()).await.map_err(open_error)? {
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA \"{}\"", server.schema())))
            .execute(&mut *transaction)
            .await
            .map_err(open_error)?;
    }
    let applied = applied_on_server(&mut transaction, server).await.map_err(open_error)?;
    check(&location, &applied, migrations, sql_of)?;
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
        .map_err(open_error)?;
    }
    for migration in missing(&applied, migrations) {
        sqlx::raw_sql(migration.postgres).execute(&mut *transaction).await.map_err(open_error)?;
        sqlx::query(INSERT)
            .bind(migration.version)
            .bind(migration.name)
            .bind(checksum(migration.postgres))
            .bind(Utc::now().timestamp_micros())
            .execute(&mut *transaction)
            .await
            .map_err(open_error)?;
        let (version, name) = (migration.version, migration.name);
        tracing::info!(database = %location, schema = server.schema(), version, name, "migrated");
    }
    transaction.commit().await.map_err(open_error)
}

const APPLIED: &str = "SELECT version, checksum FROM schema_migration ORDER BY version";

const INSERT: &str = "INSERT INTO schema_migration (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)";

const VERSION: &str = "SELECT COALESCE(MAX(version), 0) FROM schema_migration";

/// The schema version of a file.
pub(super) async fn version_in_file(executor: impl SqliteExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar(VERSION).fetch_one(executor).await
}

/// The schema version on a server.
pub(super) async fn version_on_server(executor: impl PgExecutor<'_>) -> sqlx::Result<i64> {
    sqlx::query_scalar(VERSION).fetch_one(executor).await
}

/// The migrations applied to a file, which need not exist.
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

/// The migrations applied on a server, where the schema need not exist.
async fn applied_on_server(connection: &mut PgConnection, server: &PostgresLocation) -> sqlx::Result<Applied> {
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT 1
             FROM pg_catalog.pg_tables
             WHERE schemaname = $1 AND tablename = 'schema_migration'
         )",
    )
    .bind(server.schema())
    .fetch_one(&mut *connection)
    .await?;
    if exists { sqlx::query_as(APPLIED).fetch_all(connection).await } else { Ok(Applied::new()) }
}

async fn schema_exists(connection: &mut PgConnection, schema: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(connection)
        .await
}

/// Checks that the applied migrations are a prefix of the known ones, with equal checksums.
fn check(
    location: &Location,
    applied: &Applied,
    migrations: &'static [Migration],
    sql_of: impl Fn(&Migration) -> &'static str,
) -> Result<(), OpenError> {
    debug_assert!(
        migrations.windows(2).all(|pair| pair[0].version < pair[1].version),
        "migrations must be sorted by version"
    );
    for (version, applied_checksum) in applied {
        let Some(migration) = migrations.iter().find(|migration| migration.version == *version) else {
            return Err(OpenError::SchemaTooNew {
                database: location.to_string(),
                found: newest(applied),
                known: known(migrations),
            });
        };
        if checksum(sql_of(migration)) != *applied_checksum {
            return Err(OpenError::MigrationChanged {
                database: location.to_string(),
                version: *version,
                name: migration.name,
            });
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

fn checksum(sql: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, sql.as_bytes()).as_ref().to_vec()
}
