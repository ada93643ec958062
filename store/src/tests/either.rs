//! What holds on both engines, each in a module of its name.

use std::any::Any;

use drystone_backends::Postgres;

use super::{
    super::{OpenError, SchemaState, schema_state},
    *,
};

/// Where there is no schema yet, and what has to stay for it to be there.
async fn sqlite() -> (Location, Box<dyn Any>) {
    let directory = tempfile::tempdir().unwrap();
    (Location::from(&directory.path().join("data").join("notes.db")), Box::new(directory))
}

async fn postgres() -> (Location, Box<dyn Any>) {
    let database = Postgres::shared().await.database().await;
    (Location::server("notes", database.as_str()).unwrap(), Box::new(database))
}

async fn what_was_written_is_there_after_a_restart_and_a_migration(place: Location) {
    let db = Db::open(place.clone(), FIRST).await.unwrap();
    write(&db, 1, "stays").await.unwrap();
    db.close().await;

    let db = Db::open(place, SECOND).await.unwrap();
    assert_eq!(texts(&db).await, ["stays"]);
    let colour: String =
        run!(db.reader(), |db| { sqlx::query_scalar("SELECT colour FROM note").fetch_one(db).await.unwrap() });
    assert_eq!(colour, "grey");
    db.ping().await.unwrap();
}

async fn a_newer_schema_is_refused_and_left_as_it_is(place: Location) {
    Db::open(place.clone(), SECOND).await.unwrap().close().await;

    let error = Db::open(place.clone(), FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error:?}");
    let expected = format!("{place} has schema version 2, but this program knows only up to 1");
    assert!(error.to_string().contains(&expected), "{error}");
    assert!(matches!(schema_state(&place, FIRST).await, Err(OpenError::Newer { .. })));
    Db::open(place, SECOND).await.unwrap();
}

async fn a_migration_that_was_edited_after_it_was_applied_is_refused(place: Location) {
    Db::open(place.clone(), FIRST).await.unwrap().close().await;
    let error = Db::open(place, EDITED).await.unwrap_err();
    assert!(matches!(error, OpenError::Changed { version: 1, .. }), "{error:?}");
}

async fn migrations_are_applied_all_or_none(place: Location) {
    Db::open(place.clone(), FIRST).await.unwrap().close().await;
    let error = Db::open(place.clone(), BROKEN).await.unwrap_err();
    assert!(matches!(error, OpenError::Failed { .. }), "{error:?}");
    Db::open(place, FIRST).await.unwrap();
}

async fn the_state_of_a_schema_is_told_without_making_it(place: Location) {
    for _ in 0..2 {
        assert_eq!(schema_state(&place, SECOND).await.unwrap(), SchemaState { applied: 0, known: 2 });
    }
    Db::open(place.clone(), FIRST).await.unwrap().close().await;
    assert_eq!(schema_state(&place, SECOND).await.unwrap(), SchemaState { applied: 1, known: 2 });
    assert_eq!(schema_state(&place, FIRST).await.unwrap(), SchemaState { applied: 1, known: 1 });
}

async fn programs_that_start_at_once_on_nothing_all_find_the_schema(place: Location) {
    let starts: Vec<_> = (0..6).map(|_| tokio::spawn(Db::open(place.clone(), SECOND))).collect();
    let mut dbs = Vec::new();
    for start in starts {
        dbs.push(start.await.unwrap().unwrap());
    }
    write(&dbs[0], 1, "seen by all").await.unwrap();
    for db in &dbs {
        assert_eq!(texts(db).await, ["seen by all"]);
    }
}

async fn references_are_held(place: Location) {
    let db = Db::open(place, FIRST).await.unwrap();
    let orphan =
        run!(db.writer(), |db| { sqlx::query("INSERT INTO mark (note_id) VALUES (7)").execute(db).await.map(drop) });
    assert!(orphan.is_err());
}

async fn a_transaction_that_is_dropped_leaves_nothing(place: Location) {
    let db = Db::open(place, FIRST).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    run!(transaction.connection(), |connection| {
        sqlx::query("INSERT INTO note (id, text) VALUES (1, 'never')").execute(connection).await.unwrap();
    });
    drop(transaction);
    write(&db, 2, "kept").await.unwrap();
    assert_eq!(texts(&db).await, ["kept"]);
}

async fn writers_queue_and_none_is_turned_away(place: Location) {
    let db = Db::open(place, FIRST).await.unwrap();
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

async fn who_begins_alone_is_alone(place: Location) {
    let db = Db::open(place, FIRST).await.unwrap();
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

async fn what_fails_for_good_is_not_repeated(place: Location) {
    let db = Db::open(place, FIRST).await.unwrap();
    write(&db, 1, "there").await.unwrap();
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let outcome: sqlx::Result<()> = db
        .retry(|| {
            tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            write(&db, 1, "again")
        })
        .await;
    assert!(outcome.unwrap_err().as_database_error().unwrap().is_unique_violation());
    assert_eq!(tries.into_inner(), 1);
}

macro_rules! on_each {
    ($backend:ident: $($promise:ident,)+) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let (place, _keep) = super::$backend().await;
                    super::$promise(place).await;
                }
            )+
        }
    };
    ($($backend:ident),+) => {
        $(on_each! { $backend:
            what_was_written_is_there_after_a_restart_and_a_migration,
            a_newer_schema_is_refused_and_left_as_it_is,
            a_migration_that_was_edited_after_it_was_applied_is_refused,
            migrations_are_applied_all_or_none,
            the_state_of_a_schema_is_told_without_making_it,
            programs_that_start_at_once_on_nothing_all_find_the_schema,
            references_are_held,
            a_transaction_that_is_dropped_leaves_nothing,
            writers_queue_and_none_is_turned_away,
            who_begins_alone_is_alone,
            what_fails_for_good_is_not_repeated,
        })+
    };
}

on_each!(sqlite, postgres);
