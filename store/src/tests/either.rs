//! Tests that run on both engines, in one module each.

use std::any::Any;

use drystone_backends::Postgres;

use super::{
    super::{Either, OpenError, SchemaState, Transaction, schema_state},
    *,
};

/// An empty database, and a guard that keeps it.
async fn sqlite() -> (Location, Box<dyn Any>) {
    let directory = tempfile::tempdir().unwrap();
    (Location::from(&directory.path().join("data").join("notes.db")), Box::new(directory))
}

async fn postgres() -> (Location, Box<dyn Any>) {
    let database = Postgres::shared().await.database().await;
    (Location::server("notes", database.as_str()).unwrap(), Box::new(database))
}

async fn data_survives_a_restart_and_a_migration(location: Location) {
    let db = Db::open(location.clone(), FIRST).await.unwrap();
    write(&db, 1, "stays").await.unwrap();
    db.close().await;

    let db = Db::open(location, SECOND).await.unwrap();
    assert_eq!(texts(&db).await, ["stays"]);
    let colour: String =
        run!(db.reader(), |db| { sqlx::query_scalar("SELECT colour FROM note").fetch_one(db).await.unwrap() });
    assert_eq!(colour, "grey");
    db.ping().await.unwrap();
}

async fn a_newer_schema_is_rejected_and_left_unchanged(location: Location) {
    Db::open(location.clone(), SECOND).await.unwrap().close().await;

    let error = Db::open(location.clone(), FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::SchemaTooNew { found: 2, known: 1, .. }), "{error:?}");
    let expected = format!("{location} has schema version 2, but this program knows only up to 1");
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(matches!(schema_state(&location, FIRST).await, Err(OpenError::SchemaTooNew { .. })));
    Db::open(location, SECOND).await.unwrap();
}

async fn a_migration_that_was_edited_after_it_was_applied_is_rejected(location: Location) {
    Db::open(location.clone(), FIRST).await.unwrap().close().await;
    let error = Db::open(location, EDITED).await.unwrap_err();
    assert!(matches!(error, OpenError::MigrationChanged { version: 1, .. }), "{error:?}");
}

async fn migrations_are_applied_all_or_none(location: Location) {
    Db::open(location.clone(), FIRST).await.unwrap().close().await;
    let error = Db::open(location.clone(), BROKEN).await.unwrap_err();
    assert!(matches!(error, OpenError::Failed { .. }), "{error:?}");
    Db::open(location, FIRST).await.unwrap();
}

async fn the_schema_state_is_read_without_creating_the_schema(location: Location) {
    for _ in 0..2 {
        assert_eq!(schema_state(&location, SECOND).await.unwrap(), SchemaState { applied: 0, known: 2 });
    }
    Db::open(location.clone(), FIRST).await.unwrap().close().await;
    assert_eq!(schema_state(&location, SECOND).await.unwrap(), SchemaState { applied: 1, known: 2 });
    assert_eq!(schema_state(&location, FIRST).await.unwrap(), SchemaState { applied: 1, known: 1 });
}

async fn concurrent_starts_on_an_empty_database_create_the_schema_once(location: Location) {
    let starts: Vec<_> = (0..6).map(|_| tokio::spawn(Db::open(location.clone(), SECOND))).collect();
    let mut dbs = Vec::new();
    for start in starts {
        dbs.push(start.await.unwrap().unwrap());
    }
    write(&dbs[0], 1, "seen by all").await.unwrap();
    for db in &dbs {
        assert_eq!(texts(db).await, ["seen by all"]);
    }
}

async fn foreign_keys_are_enforced(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    let orphan =
        run!(db.writer(), |db| { sqlx::query("INSERT INTO mark (note_id) VALUES (7)").execute(db).await.map(drop) });
    assert!(orphan.is_err());
}

async fn a_dropped_transaction_is_rolled_back(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    run!(transaction.connection(), |connection| {
        sqlx::query("INSERT INTO note (id, text) VALUES (1, 'never')").execute(connection).await.unwrap();
    });
    drop(transaction);
    write(&db, 2, "kept").await.unwrap();
    assert_eq!(texts(&db).await, ["kept"]);
}

async fn concurrent_writers_queue_and_all_succeed(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    let writers: Vec<_> = (0..64)
        .map(|id| {
            let db = db.clone();
            tokio::spawn(async move { write(&db, id, "x").await })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(texts(&db).await.len(), 64);
}

async fn exclusive_transactions_exclude_each_other(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|id| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut transaction = db.begin_exclusive().await.unwrap();
                run!(transaction.connection(), |connection| {
                    sqlx::query(
                        "INSERT INTO note (id, text)
                         SELECT $1, 'the only one'
                         WHERE NOT EXISTS (SELECT 1 FROM note)",
                    )
                    .bind(id)
                    .execute(connection)
                    .await
                    .unwrap();
                });
                transaction.commit().await.unwrap();
            })
        })
        .collect::<Vec<tokio::task::JoinHandle<()>>>();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(texts(&db).await, ["the only one"]);
}

async fn a_permanent_error_is_not_retried(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    write(&db, 1, "there").await.unwrap();
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    let outcome: sqlx::Result<()> = db
        .retry(|| {
            attempts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            write(&db, 1, "again")
        })
        .await;
    assert!(outcome.unwrap_err().as_database_error().unwrap().is_unique_violation());
    assert_eq!(attempts.into_inner(), 1);
}

async fn statements_of_a_reading_transaction_see_one_state(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    write(&db, 1, "before").await.unwrap();
    let mut transaction = db.begin_read().await.unwrap();
    let count = async |transaction: &mut Transaction| -> i64 {
        run!(transaction.connection(), |connection| {
            sqlx::query_scalar("SELECT COUNT(*) FROM note").fetch_one(connection).await.unwrap()
        })
    };
    assert_eq!(count(&mut transaction).await, 1);
    write(&db, 2, "meanwhile").await.unwrap();
    assert_eq!(count(&mut transaction).await, 1);
    let refused = run!(transaction.connection(), |connection| {
        sqlx::query("DELETE FROM note").execute(connection).await.map(drop)
    });
    assert!(refused.is_err());
    drop(transaction);
    assert_eq!(texts(&db).await.len(), 2);
}

async fn the_size_is_that_of_all_tables(location: Location) {
    let db = Db::open(location, FIRST).await.unwrap();
    let before = db.size().await.unwrap().bytes;
    assert!(before > 0);
    for id in 0..100 {
        write(&db, id, &"x".repeat(1000)).await.unwrap();
    }
    if let Either::Postgres(pool) = db.writer() {
        sqlx::query("ANALYZE note").execute(pool).await.unwrap();
    }
    let size = db.size().await.unwrap();
    assert!(size.bytes >= before + 50_000, "{size:?}");
    // SQLite has no estimates.
    assert!(size.rows.is_empty() || size.rows.contains(&("note".to_owned(), 100)), "{size:?}");
}

macro_rules! on_each {
    ($backend:ident: $($test:ident,)+) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    let (location, _guard) = super::$backend().await;
                    super::$test(location).await;
                }
            )+
        }
    };
    ($($backend:ident),+) => {
        $(on_each! { $backend:
            data_survives_a_restart_and_a_migration,
            a_newer_schema_is_rejected_and_left_unchanged,
            a_migration_that_was_edited_after_it_was_applied_is_rejected,
            migrations_are_applied_all_or_none,
            the_schema_state_is_read_without_creating_the_schema,
            concurrent_starts_on_an_empty_database_create_the_schema_once,
            foreign_keys_are_enforced,
            a_dropped_transaction_is_rolled_back,
            concurrent_writers_queue_and_all_succeed,
            exclusive_transactions_exclude_each_other,
            a_permanent_error_is_not_retried,
            statements_of_a_reading_transaction_see_one_state,
            the_size_is_that_of_all_tables,
        })+
    };
}

on_each!(sqlite, postgres);
