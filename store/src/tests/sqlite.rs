//! Tests specific to SQLite: the file.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{
    super::{Either, Failure, OpenError, to_mesh_error},
    *,
};
use drystone_mesh::error::Reason;

fn database_path() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data").join("notes.db");
    (directory, path)
}

#[tokio::test]
async fn an_unwritable_directory_is_rejected_with_its_path() {
    let (directory, _) = database_path();
    fs::write(directory.path().join("data"), "a file in the way").unwrap();
    let path = directory.path().join("data").join("notes.db");

    let error = Db::open(&path, FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&directory.path().join("data").display().to_string()), "{text}");
    assert!(text.contains("cannot be written") && text.contains("choose another data directory"), "{text}");
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_rejected_and_left_unchanged() {
    let (_directory, path) = database_path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let content = "not a database ".repeat(100);
    fs::write(&path, &content).unwrap();

    let error = Db::open(&path, FIRST).await.unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), content);
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_accessible_to_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, path) = database_path();
    let db = Db::open(&path, FIRST).await.unwrap();
    write(&db, 1, "private").await.unwrap();

    let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.len() > 1, "the write-ahead log exists too");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn readers_reject_writes() {
    let (_directory, path) = database_path();
    let db = Db::open(&path, FIRST).await.unwrap();
    let deleted = run!(db.reader(), |db| sqlx::query("DELETE FROM note").execute(db).await.map(drop));
    assert!(deleted.is_err());
}

#[tokio::test]
async fn a_full_database_is_reported_and_usable_after_space_is_freed() {
    let (_directory, path) = database_path();
    let db = Db::open(&path, FIRST).await.unwrap();
    let Either::Sqlite(writer) = db.writer() else { unreachable!() };
    sqlx::raw_sql("PRAGMA max_page_count = 10").execute(writer).await.unwrap();

    let long = "x".repeat(100_000);
    let error = to_mesh_error(write(&db, 1, &long).await.unwrap_err());
    assert_eq!(error.reason(), Reason::DatabaseFull);
    let status = tonic::Status::from(error);
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.message().starts_with("database full"), "{}", status.message());
    assert_eq!(texts(&db).await, [""; 0]);

    sqlx::raw_sql("PRAGMA max_page_count = 1000000").execute(writer).await.unwrap();
    write(&db, 1, &long).await.unwrap();
}

#[tokio::test]
async fn a_transaction_that_failed_on_a_full_database_does_not_block_the_next() {
    let (_directory, path) = database_path();
    let db = Db::open(&path, FIRST).await.unwrap();
    let Either::Sqlite(writer) = db.writer() else { unreachable!() };
    let long = "x".repeat(100_000);
    for id in 1..=3 {
        sqlx::raw_sql("PRAGMA max_page_count = 10").execute(writer).await.unwrap();
        let mut transaction = db.begin().await.unwrap();
        let full = run!(transaction.connection(), |connection| {
            let insert = sqlx::query("INSERT INTO note (id, text) VALUES ($1, $2)").bind(id).bind(&long);
            insert.execute(connection).await.map(drop)
        });
        assert_eq!(Failure::of(&full.unwrap_err()), Failure::Full);
        drop(transaction);

        let mut transaction = db.begin().await.unwrap();
        run!(transaction.connection(), |connection| {
            let insert = sqlx::query("INSERT INTO note (id, text) VALUES ($1, '')").bind(id);
            insert.execute(connection).await.unwrap();
        });
        transaction.commit().await.unwrap();
    }
    assert_eq!(texts(&db).await, [""; 3]);
}
