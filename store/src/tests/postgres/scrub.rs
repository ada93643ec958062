//! Earlier values of rows in the files of a table.

use drystone_backends::Postgres;
use sqlx::PgPool;

use super::{super::*, notes};

/// Whether the file of a table has this text.
async fn file_has(superuser: &PgPool, path: &str, text: &str) -> bool {
    sqlx::raw_sql("CHECKPOINT").execute(superuser).await.unwrap();
    let found = "SELECT coalesce(position($2::bytea IN pg_read_binary_file($1, 0, 1000000, true)) > 0, false)";
    sqlx::query_scalar(found).bind(path).bind(text.as_bytes()).fetch_one(superuser).await.unwrap()
}

#[tokio::test]
async fn a_scrubbed_table_has_no_earlier_values_though_an_older_transaction_is_open() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let db = Db::open(notes(database.url()), FIRST).await.unwrap();
    let superuser = PgPool::connect(database.as_str()).await.unwrap();
    let path = || async {
        let path = "SELECT pg_relation_filepath('drystone_notes.secret')";
        sqlx::query_scalar::<_, String>(path).fetch_one(&superuser).await.unwrap()
    };
    database
        .run(
            "CREATE TABLE drystone_notes.secret (value TEXT);
             INSERT INTO drystone_notes.secret VALUES ('earlier'), ('kept')",
        )
        .await;
    // An older snapshot, for which VACUUM keeps the earlier value.
    let mut older = superuser.begin().await.unwrap();
    let snapshot = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM drystone_notes.note";
    sqlx::raw_sql(snapshot).execute(&mut *older).await.unwrap();
    database.run("UPDATE drystone_notes.secret SET value = 'sealed' WHERE value = 'earlier'").await;
    database.run("VACUUM (FULL) drystone_notes.secret").await;
    let before = path().await;
    assert!(file_has(&superuser, &before, "earlier").await, "the test would find it");

    db.scrub(&["secret"]).await.unwrap();
    let after = path().await;
    for path in [&before, &after] {
        assert!(!file_has(&superuser, path, "earlier").await, "{path}");
    }
    assert!(file_has(&superuser, &after, "sealed").await && file_has(&superuser, &after, "kept").await);
    let logged = "SELECT relpersistence = 'p' FROM pg_class WHERE oid = 'drystone_notes.secret'::regclass";
    assert!(sqlx::query_scalar::<_, bool>(logged).fetch_one(&superuser).await.unwrap());
    older.commit().await.unwrap();

    // A role that may not write the table anew does not report that it has.
    server.execute_as_superuser("CREATE ROLE worker LOGIN PASSWORD 'throw-away'").await;
    database.run("GRANT USAGE ON SCHEMA drystone_notes TO worker; GRANT ALL ON ALL TABLES IN SCHEMA drystone_notes TO worker").await;
    let mut url = database.url().clone();
    url.set_username("worker").unwrap();
    let worker = Db::open(notes(&url), FIRST).await.unwrap();
    let error = worker.scrub(&["secret"]).await.unwrap_err().to_string();
    assert!(error.contains("must be owner of table secret"), "{error}");
}
