//! Tests specific to PostgreSQL: the server, and the connections to it.

mod scrub;

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use drystone_backends::{Database, Postgres};
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Barrier,
};
use tonic_types::StatusExt;
use url::Url;

use super::{
    super::{Address, DatabaseConfig, Either, Failure, OpenError, PoolConfig, PostgresPool, to_mesh_error},
    *,
};
use drystone_mesh::{config::ConfigDuration, error::Reason};

/// The maximum duration of any step of a test.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

fn notes(url: &Url) -> Location {
    Location::server("notes", url.as_str()).unwrap()
}

fn with(url: &Url, pool: &PoolConfig, password_file: Option<&Path>) -> Location {
    let url = Address::try_from(url.to_string()).unwrap();
    let config = DatabaseConfig { url, password_file: password_file.map(Path::to_owned), pool: pool.clone() };
    config.location("notes", Path::new("unused"))
}

fn pool(db: &Db) -> PostgresPool {
    match db.writer() {
        Either::Postgres(pool) => pool,
        Either::Sqlite(_) => unreachable!(),
    }
}

async fn database() -> Database {
    Postgres::shared().await.database().await
}

async fn open_error(location: Location) -> OpenError {
    let error = Db::open(location, FIRST).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains("throw-away@") && !text.contains('\n'), "{text}");
    error
}

#[tokio::test]
async fn each_service_has_its_own_schema() {
    let database = database().await;
    let location = |service| Location::server(service, database.as_str()).unwrap();
    let (one, other) =
        (Db::open(location("user"), FIRST).await.unwrap(), Db::open(location("auth"), SECOND).await.unwrap());
    write(&one, 1, "user's").await.unwrap();
    assert_eq!(texts(&other).await, [""; 0]);
    let schemas: Vec<String> =
        sqlx::query_scalar("SELECT nspname::TEXT FROM pg_namespace WHERE nspname LIKE 'drystone%' ORDER BY nspname")
            .fetch_all(pool(&one))
            .await
            .unwrap();
    assert_eq!(schemas, ["drystone_auth", "drystone_user"]);
}

#[tokio::test]
async fn an_instance_waits_for_another_to_migrate() {
    let database = database().await;
    Db::open(notes(database.url()), FIRST).await.unwrap().close().await;
    let other = PgPool::connect(database.as_str()).await.unwrap();
    let mut migrating = other.begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('drystone migrate drystone_notes', 0))")
        .execute(&mut *migrating)
        .await
        .unwrap();

    // The wait is not subject to the statement timeout.
    let pool_config = PoolConfig { statement_timeout: ConfigDuration::millis(100), ..PoolConfig::default() };
    let start = tokio::spawn(Db::open(with(database.url(), &pool_config, None), SECOND));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!start.is_finished());
    migrating.commit().await.unwrap();
    start.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unreachable_server_is_a_temporary_error() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for host in [format!("127.0.0.1:{port}"), "nowhere.invalid:5432".to_owned()] {
        let error = open_error(notes(&format!("postgres://ada@{host}/mesh").parse().unwrap())).await;
        assert!(matches!(error, OpenError::Unavailable { .. }) && error.is_temporary(), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with(&format!("the database postgres://ada@{host}/mesh does not respond (")), "{text}");
        assert!(text.ends_with("start its server, or correct `notes.database.url`"), "{text}");
    }
}

#[tokio::test]
async fn connecting_to_an_unresponsive_server_times_out() {
    let unresponsive = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("postgres://ada@{}/mesh", unresponsive.local_addr().unwrap()).parse().unwrap();
    let pool_config = PoolConfig { acquire_timeout: ConfigDuration::millis(200), ..PoolConfig::default() };
    let error = open_error(with(&url, &pool_config, None)).await;
    assert!(error.to_string().contains("does not respond (no response within 200ms)"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_user_or_database_is_reported() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let changed = |change: fn(&mut Url)| {
        let mut url = database.url().clone();
        change(&mut url);
        notes(&url)
    };
    let error = open_error(changed(|url| url.set_password(Some("hidden")).unwrap())).await;
    assert!(matches!(error, OpenError::LoginRejected { .. }) && !error.is_temporary(), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("password authentication failed") && text.contains("`notes.database.password_file`"),
        "{text}"
    );
    assert!(!text.contains("hidden"), "{text}");

    let error = open_error(changed(|url| url.set_username("nobody").unwrap())).await;
    assert!(matches!(error, OpenError::LoginRejected { .. }), "{error:?}");
    let error = open_error(changed(|url| url.set_path("nothing"))).await;
    assert!(matches!(error, OpenError::DatabaseMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("create it on the server"), "{error}");
}

#[tokio::test]
async fn a_password_can_be_read_from_a_file() {
    let database = database().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, format!("{}\n", database.url().password().unwrap())).unwrap();
    let mut url = database.url().clone();
    url.set_password(None).unwrap();
    Db::open(with(&url, &PoolConfig::default(), Some(&path)), FIRST).await.unwrap();

    std::fs::remove_file(&path).unwrap();
    let error = open_error(with(&url, &PoolConfig::default(), Some(&path))).await;
    assert!(
        error.to_string().starts_with(&format!("notes.database.password_file, {}, cannot be read", path.display()))
    );
}

#[tokio::test]
async fn tls_follows_the_sslmode_of_the_url() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let with = |host: &str, query: &str| {
        let mut url = database.url().clone();
        url.set_host(Some(host)).unwrap();
        url.set_query(Some(query));
        notes(&url)
    };
    let root = format!("sslrootcert={}", server.root().display());

    let db = Db::open(with("localhost", &format!("sslmode=verify-full&{root}")), FIRST).await.unwrap();
    let encrypted: bool = sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        .fetch_one(pool(&db))
        .await
        .unwrap();
    assert!(encrypted);
    Db::open(with("127.0.0.1", &format!("sslmode=verify-ca&{root}")), FIRST).await.unwrap();

    for (host, query, part) in [
        ("127.0.0.1", format!("sslmode=verify-full&{root}"), "not valid for name"),
        ("localhost", "sslmode=verify-full".to_owned(), "UnknownIssuer"),
    ] {
        let error = open_error(with(host, &query)).await;
        assert!(matches!(error, OpenError::Tls { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains(part) && text.contains("name its root with `sslrootcert` in `notes.database.url`"),
            "{text}"
        );
    }
    let error = open_error(with("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem")).await;
    assert!(
        error.to_string().starts_with("the file of `sslrootcert` in notes.database.url, /nowhere.pem, cannot be read")
    );
}

#[tokio::test]
async fn nothing_is_sent_in_plaintext_to_a_server_without_tls_if_tls_is_required() {
    let plain = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("postgres://ada:hidden@{}/mesh?sslmode=require", plain.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        let (mut client, _) = plain.accept().await.unwrap();
        let mut request = [0; 8];
        client.read_exact(&mut request).await.unwrap();
        client.write_all(b"N").await.unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        rest
    });
    let error = open_error(notes(&url)).await;
    assert!(matches!(error, OpenError::Tls { .. }), "{error:?}");
    assert_eq!(server.await.unwrap(), b"", "nothing was sent in plaintext");
}

#[tokio::test]
async fn a_user_without_ddl_privileges_can_use_a_migrated_schema() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    server.execute_as_superuser("CREATE ROLE worker LOGIN PASSWORD 'throw-away'").await;
    let mut url = database.url().clone();
    url.set_username("worker").unwrap();

    let error = open_error(notes(&url)).await;
    assert!(matches!(error, OpenError::InsufficientPrivilege { .. }), "{error:?}");
    assert!(error.to_string().contains("grant it access to the tables of `drystone_notes`"), "{error}");

    let db = Db::open(notes(database.url()), FIRST).await.unwrap();
    sqlx::raw_sql(
        "GRANT USAGE ON SCHEMA drystone_notes TO worker;
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA drystone_notes TO worker",
    )
    .execute(pool(&db))
    .await
    .unwrap();
    let db = Db::open(notes(&url), FIRST).await.unwrap();
    write(&db, 1, "by the worker").await.unwrap();
}

#[tokio::test]
async fn deadlocked_transactions_both_succeed_after_a_retry() {
    let database = database().await;
    let db = Db::open(notes(database.url()), FIRST).await.unwrap();
    for id in [1, 2] {
        write(&db, id, "").await.unwrap();
    }
    let (attempts, barrier) = (AtomicUsize::new(0), Barrier::new(2));
    let append = async |first: i64, second: i64| -> sqlx::Result<()> {
        let mut transaction = db.begin().await?;
        for id in [first, second] {
            run!(transaction.connection(), |connection| {
                sqlx::query("UPDATE note SET text = text || 'x' WHERE id = $1").bind(id).execute(connection).await?;
            });
            // Both hold their first row before they update the second. A retry does not wait.
            if id == first && attempts.fetch_add(1, Ordering::Relaxed) < 2 {
                barrier.wait().await;
            }
        }
        transaction.commit().await
    };
    let (one, other) = tokio::join!(db.retry(|| append(1, 2)), db.retry(|| append(2, 1)));
    one.unwrap();
    other.unwrap();
    assert_eq!(texts(&db).await, ["xx", "xx"]);
    assert!(attempts.into_inner() > 2, "one of them was retried");
}

#[tokio::test]
async fn a_statement_that_exceeds_its_timeout_is_cancelled() {
    let database = database().await;
    let pool_config = PoolConfig { statement_timeout: ConfigDuration::millis(100), ..PoolConfig::default() };
    let db = Db::open(with(database.url(), &pool_config, None), FIRST).await.unwrap();
    let error = sqlx::query("SELECT pg_sleep(60)").execute(pool(&db)).await.unwrap_err();
    assert_eq!(to_mesh_error(error).reason(), Reason::Unavailable);
    db.ping().await.unwrap();
}

#[tokio::test]
async fn acquiring_a_connection_from_an_exhausted_pool_times_out() {
    let database = database().await;
    let pool_config =
        PoolConfig { connections: 1, acquire_timeout: ConfigDuration::millis(300), ..PoolConfig::default() };
    let db = Db::open(with(database.url(), &pool_config, None), FIRST).await.unwrap();
    let held = db.begin().await.unwrap();
    let error = to_mesh_error(write(&db, 1, "late").await.unwrap_err());
    assert_eq!(error.reason(), Reason::Unavailable);
    drop(held);
    write(&db, 1, "in time").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_pool_grows_to_its_maximum_size() {
    let database = database().await;
    let pool_config = PoolConfig { connections: 4, ..PoolConfig::default() };
    let db = Db::open(with(database.url(), &pool_config, None), FIRST).await.unwrap();
    let watch = Db::open(notes(database.url()), FIRST).await.unwrap();
    sqlx::query("SELECT 1").execute(pool(&db)).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let pool = pool(&db);
        callers.spawn(async move {
            loop {
                // It returns its connection before another one is opened.
                sqlx::query("SELECT 1").execute(pool.clone()).await.unwrap();
            }
        });
    }
    let other_connections =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let grown = async {
        while sqlx::query_scalar::<_, i64>(other_connections).fetch_one(pool(&watch)).await.unwrap() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TEST_TIMEOUT, grown).await.expect("the pool reaches its maximum size");
}

#[tokio::test]
async fn a_cancelled_statement_returns_its_connection() {
    let database = database().await;
    let pool_config = PoolConfig { connections: 1, ..PoolConfig::default() };
    let db = Db::open(with(database.url(), &pool_config, None), FIRST).await.unwrap();
    for round in 0..20 {
        let cancelled = sqlx::query("SELECT pg_sleep(0.05), 'unread'").execute(pool(&db));
        assert!(tokio::time::timeout(Duration::from_millis(5), cancelled).await.is_err());
        let transaction = db.begin().await.unwrap();
        drop(transaction);
        sqlx::query("SELECT no_such_column").execute(pool(&db)).await.unwrap_err();
        let answer: i32 = sqlx::query_scalar("SELECT $1").bind(round).fetch_one(pool(&db)).await.unwrap();
        assert_eq!(answer, round);
    }
}

#[tokio::test]
async fn a_cancelled_begin_leaves_no_open_transaction() {
    let database = database().await;
    let pool_config = PoolConfig { connections: 1, ..PoolConfig::default() };
    let db = Db::open(with(database.url(), &pool_config, None), FIRST).await.unwrap();
    let other = Db::open(notes(database.url()), FIRST).await.unwrap();
    for id in 0_i64..100 {
        let begin = tokio::time::timeout(Duration::from_micros(id.unsigned_abs() * 10), db.begin());
        // It may have completed.
        drop(begin.await);
        write(&db, id, "x").await.unwrap();
        let seen: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM note").fetch_one(pool(&other)).await.unwrap();
        assert_eq!(seen, id + 1, "every acknowledged write is committed");
    }
}

#[tokio::test]
async fn a_closed_database_has_no_connections_and_rejects_statements() {
    let database = database().await;
    let db = Db::open(notes(database.url()), FIRST).await.unwrap();
    let (late, watch) = (db.clone(), Db::open(notes(database.url()), FIRST).await.unwrap());
    let writers = (0..32).map(|id| write(&db, id, "x"));
    futures_util::future::join_all(writers).await.into_iter().for_each(Result::unwrap);
    db.close().await;
    assert!(matches!(write(&late, 99, "late").await, Err(sqlx::Error::PoolClosed)));
    let other_connections =
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let all_closed = async {
        while sqlx::query_scalar::<_, i64>(other_connections).fetch_one(pool(&watch)).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_closed).await.expect("the server reports no connection");
}

#[tokio::test]
async fn a_full_disk_is_reported_as_resource_exhausted() {
    let database = database().await;
    let db = Db::open(notes(database.url()), FIRST).await.unwrap();
    let full = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$";
    let error = sqlx::raw_sql(full).execute(pool(&db)).await.unwrap_err();
    assert_eq!(Failure::of(&error), Failure::Full);
    let status = tonic::Status::from(to_mesh_error(error));
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_used_again() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    let pool_config = PoolConfig { acquire_timeout: ConfigDuration::millis(300), ..PoolConfig::default() };
    let db = Db::open(with(database.url(), &pool_config, None), FIRST).await.unwrap();
    write(&db, 1, "before").await.unwrap();
    let mut transaction = db.begin().await.unwrap();

    for (is_graceful, id) in [(true, 2), (false, 3)] {
        if is_graceful {
            server.stop();
        } else {
            server.kill();
        }
        let aborted = run!(transaction.connection(), |connection| {
            sqlx::query("INSERT INTO note (id, text) VALUES (99, 'lost')").execute(connection).await.map(drop)
        });
        for error in [aborted.unwrap_err(), write(&db, id, "while it is stopped").await.unwrap_err()] {
            let status = tonic::Status::from(to_mesh_error(error));
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
            assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
        }
        assert!(db.ping().await.is_err());

        server.start();
        let waiting = Instant::now();
        while let Err(error) = write(&db, id, "after").await {
            assert_eq!(Failure::of(&error), Failure::Unavailable, "{error}");
            assert!(waiting.elapsed() < TEST_TIMEOUT, "{error}");
        }
        db.ping().await.unwrap();
        transaction = db.begin().await.unwrap();
    }
    drop(transaction);
    assert_eq!(texts(&db).await, ["before", "after", "after"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_file_is_reloaded() {
    let server = Postgres::temporary().await;
    let database = server.database().await;
    server.execute_as_superuser("CREATE ROLE worker LOGIN SUPERUSER PASSWORD 'old'").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "old").unwrap();
    let mut url = database.url().clone();
    url.set_username("worker").unwrap();
    url.set_password(None).unwrap();
    let db = Db::open(with(&url, &PoolConfig::default(), Some(&path)), FIRST).await.unwrap();

    server.execute_as_superuser("ALTER ROLE worker PASSWORD 'new'").await;
    std::fs::write(&path, "new").unwrap();
    server
        .execute_as_superuser("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'")
        .await;
    let waiting = Instant::now();
    while let Err(error) = db.ping().await {
        assert!(waiting.elapsed() < TEST_TIMEOUT, "{error}");
    }
    write(&db, 1, "with the new one").await.unwrap();
}

/// A proxy between the client and the server. Forwards bytes while `is_open`.
async fn proxy(listener: TcpListener, server: String, mut is_open: tokio::sync::watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut is_open = is_open.clone();
        let server = server.clone();
        tokio::spawn(async move {
            let mut server = tokio::net::TcpStream::connect(server).await.unwrap();
            let (mut up, mut down) = ([0; 4096], [0; 4096]);
            loop {
                if is_open.wait_for(|is_open| *is_open).await.is_err() {
                    return;
                }
                tokio::select! {
                    _ = is_open.changed() => {}
                    read = client.read(&mut up) => match read {
                        Ok(1..) => server.write_all(&up[..read.unwrap()]).await.unwrap(),
                        _ => return,
                    },
                    read = server.read(&mut down) => match read {
                        Ok(1..) => client.write_all(&down[..read.unwrap()]).await.unwrap(),
                        _ => return,
                    },
                }
            }
        });
    }
    let _ = is_open.changed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hanging_connections_are_replaced() {
    let database = database().await;
    let server = database.url().socket_addrs(|| None).unwrap()[0].to_string();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut url = database.url().clone();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let (open, is_open) = tokio::sync::watch::channel(true);
    let first = tokio::spawn(proxy(listener, server.clone(), is_open));

    let pool_config =
        PoolConfig { connections: 2, acquire_timeout: ConfigDuration::millis(300), ..PoolConfig::default() };
    let db = Db::open(with(&url, &pool_config, None), FIRST).await.unwrap();
    let both = (db.begin().await.unwrap(), db.begin().await.unwrap());
    drop(both);
    write(&db, 1, "before").await.unwrap();

    // The network drops everything, and callers time out.
    open.send(false).unwrap();
    for _ in 0..2 {
        assert!(tokio::time::timeout(Duration::from_millis(200), write(&db, 2, "dropped")).await.is_err());
    }
    assert!(db.ping().await.is_err());

    // The old connections stay silent; new ones work.
    let port = url.port().unwrap();
    first.abort();
    let _ = first.await;
    let (_open, is_open) = tokio::sync::watch::channel(true);
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(proxy(listener, server, is_open));
    let waiting = Instant::now();
    while db.ping().await.is_err() {
        assert!(waiting.elapsed() < TEST_TIMEOUT, "the hanging connections were not replaced");
    }
    write(&db, 3, "after").await.unwrap();
}
