//! What a database promises at its opening and after.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{Db, Migration, OpenError};

const NOTE: Migration = Migration {
    version: 1,
    name: "note",
    sql: "CREATE TABLE note (id BIGINT PRIMARY KEY, text TEXT NOT NULL);
          CREATE TABLE mark (note_id BIGINT NOT NULL REFERENCES note (id))",
};
const COLOUR: Migration =
    Migration { version: 2, name: "colour", sql: "ALTER TABLE note ADD COLUMN colour TEXT NOT NULL DEFAULT 'grey'" };
const FIRST: &[Migration] = &[NOTE];
const SECOND: &[Migration] = &[NOTE, COLOUR];
const EDITED: &[Migration] = &[Migration { sql: "CREATE TABLE note (id BIGINT PRIMARY KEY)", ..NOTE }];
const BROKEN: &[Migration] = &[NOTE, COLOUR, Migration { version: 3, name: "broken", sql: "CREATE GARDEN" }];

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data").join("notes.db");
    (directory, path)
}

async fn write(db: &Db, id: i64, text: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO note (id, text) VALUES ($1, $2)").bind(id).bind(text).execute(db.writer()).await.map(drop)
}

async fn texts(db: &Db) -> Vec<String> {
    sqlx::query_scalar("SELECT text FROM note ORDER BY id").fetch_all(db.reader()).await.unwrap()
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_and_a_migration() {
    let (_directory, path) = place();
    let db = Db::open(&path, FIRST).await.unwrap();
    write(&db, 1, "stays").await.unwrap();
    db.close().await;

    let db = Db::open(&path, SECOND).await.unwrap();
    assert_eq!(texts(&db).await, ["stays"]);
    let colour: String = sqlx::query_scalar("SELECT colour FROM note").fetch_one(db.reader()).await.unwrap();
    assert_eq!(colour, "grey");
    db.ping().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let (_directory, path) = place();
    Db::open(&path, SECOND).await.unwrap().close().await;

    let error = Db::open(&path, FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error:?}");
    assert!(
        error.to_string().contains("notes.db has schema version 2, but this program knows only up to 1"),
        "{error}"
    );
    Db::open(&path, SECOND).await.unwrap();
}

#[tokio::test]
async fn a_migration_that_was_edited_after_it_was_applied_is_refused() {
    let (_directory, path) = place();
    Db::open(&path, FIRST).await.unwrap().close().await;
    let error = Db::open(&path, EDITED).await.unwrap_err();
    assert!(matches!(error, OpenError::Changed { version: 1, .. }), "{error:?}");
}

#[tokio::test]
async fn migrations_are_applied_all_or_none() {
    let (_directory, path) = place();
    Db::open(&path, FIRST).await.unwrap().close().await;
    let error = Db::open(&path, BROKEN).await.unwrap_err();
    assert!(matches!(error, OpenError::Failed { .. }), "{error:?}");
    Db::open(&path, FIRST).await.unwrap();
}

#[tokio::test]
async fn two_programs_that_start_at_once_both_find_the_schema() {
    let (_directory, path) = place();
    let (one, other) = tokio::join!(Db::open(&path, SECOND), Db::open(&path, SECOND));
    let (one, other) = (one.unwrap(), other.unwrap());
    write(&one, 1, "seen by both").await.unwrap();
    assert_eq!(texts(&other).await, ["seen by both"]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_named() {
    let (directory, _) = place();
    fs::write(directory.path().join("data"), "a file in the way").unwrap();
    let path = directory.path().join("data").join("notes.db");

    let error = Db::open(&path, FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&directory.path().join("data").display().to_string()), "{text}");
    assert!(text.contains("cannot be written") && text.contains("choose another data directory"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_as_it_is() {
    let (_directory, path) = place();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let rubbish = "no database at all ".repeat(100);
    fs::write(&path, &rubbish).unwrap();

    let error = Db::open(&path, FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), rubbish);
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, path) = place();
    let db = Db::open(&path, FIRST).await.unwrap();
    write(&db, 1, "private").await.unwrap();

    let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.len() > 1, "the write-ahead log is there too");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn readers_refuse_to_write_and_references_are_held() {
    let (_directory, path) = place();
    let db = Db::open(&path, FIRST).await.unwrap();
    assert!(sqlx::query("DELETE FROM note").execute(db.reader()).await.is_err());
    assert!(sqlx::query("INSERT INTO mark (note_id) VALUES (7)").execute(db.writer()).await.is_err());
}

#[tokio::test]
async fn a_transaction_that_is_dropped_leaves_nothing() {
    let (_directory, path) = place();
    let db = Db::open(&path, FIRST).await.unwrap();
    let mut transaction = db.begin().await.unwrap();
    sqlx::query("INSERT INTO note (id, text) VALUES (1, 'never')").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    write(&db, 2, "kept").await.unwrap();
    assert_eq!(texts(&db).await, ["kept"]);
}

#[tokio::test]
async fn writers_queue_and_none_is_turned_away() {
    let (_directory, path) = place();
    let db = Db::open(&path, FIRST).await.unwrap();
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
