//! Seeds the stores of a mesh quickly: by `COPY` into the tables of the services, and by concurrent inserts through the
//! session service's own store.

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use drystone_mesh::{clock::Clock, config::ConfigDuration, time::to_micros};
use drystone_session::{Config, Lifetimes, NewSession, RedisStore, Session, SessionStore};
use drystone_store::redis;
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection};

use super::users::SeedUser;

/// The size of a chunk of `COPY` data, in bytes.
const CHUNK_SIZE: usize = 256 * 1024;

/// The number of concurrent inserts into Redis.
const IN_FLIGHT: usize = 512;

/// The device of all sessions.
pub(crate) const DEVICE: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0";

/// Inserts the account, session and property of each user; returns the duration.
pub(crate) async fn fill(database: &str, redis: &str, users: u64) -> Result<Duration> {
    let started = Instant::now();
    let now = to_micros(Clock::system().now());
    let accounts = copy(
        database,
        "drystone_user.account",
        "id, email, email_key, display_name, roles, has_words, version, created_at, updated_at",
        1,
        users,
        move |row, user| {
            let (id, number) = (user.user_id(), user.0);
            writeln!(
                row,
                "{id}\tUser-{number}@example.com\tuser-{number}@example.com\tUser {number}\tmember\t1\t1\t{now}\t{now}"
            )
        },
    );
    let properties = copy(
        database,
        "drystone_property.property",
        "id, owner_id, display_name, description, labels, version, created_at, updated_at",
        1,
        users,
        move |row, user| {
            let (id, owner, number) = (user.property_id(), user.user_id(), user.0);
            writeln!(row, "{id}\t{owner}\tBarn {number}\tBehind the house\t{{\"use\": \"hay\"}}\t1\t{now}\t{now}")
        },
    );
    tokio::try_join!(accounts, properties, sessions(redis, users))?;
    // They refer to the accounts.
    copy(database, "drystone_user.account_word", "word, user_id", 3, users, |row, user| {
        let (id, number) = (user.user_id(), user.0);
        writeln!(row, "user-{number}@example.com\t{id}\nuser\t{id}\n{number}\t{id}")
    })
    .await?;
    let mut connection = PgConnection::connect(database).await?;
    // Of one user in sixteen.
    let grants = "INSERT INTO drystone_user.role_grant (user_id, role, granted_by, granted_at)
         SELECT id, 'manager', 'operator', created_at FROM drystone_user.account WHERE id::text LIKE '%0'";
    sqlx::raw_sql(grants).execute(&mut connection).await?;
    sqlx::raw_sql("VACUUM (ANALYZE) drystone_user.role_grant").execute(&mut connection).await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut connection).await?;
    connection.close().await?;
    Ok(started.elapsed())
}

async fn copy(
    database: &str,
    table: &str,
    columns: &str,
    rows_of_each: u64,
    users: u64,
    write: impl Fn(&mut String, SeedUser) -> std::fmt::Result,
) -> Result<()> {
    let mut connection = PgConnection::connect(database).await?;
    let mut copy = connection.copy_in_raw(&format!("COPY {table} ({columns}) FROM STDIN")).await?;
    let mut rows = String::with_capacity(CHUNK_SIZE + 1024);
    for number in 0..users {
        write(&mut rows, SeedUser(number))?;
        if rows.len() >= CHUNK_SIZE || number + 1 == users {
            copy.send(rows.as_bytes()).await?;
            rows.clear();
        }
    }
    let copied = copy.finish().await?;
    ensure!(copied == rows_of_each * users, "{copied} rows of {users} users were copied into {table}");
    // Otherwise autovacuum would do it during the measurement.
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("VACUUM (ANALYZE) {table}"))).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

async fn sessions(url: &str, users: u64) -> Result<()> {
    let config =
        redis::Config { url: url.to_owned().into(), timeout: ConfigDuration::seconds(5), ..redis::Config::default() };
    let redis = redis::Redis::open(&config)?;
    redis.ready().await;
    let store = Arc::new(RedisStore::new(redis));
    let rules = Lifetimes::from(&Config::default());
    let now = Clock::system().now();
    let session = |user: SeedUser| {
        let new = NewSession {
            user_id: user.user_id(),
            device: DEVICE.to_owned(),
            address: "192.0.2.7".to_owned(),
            methods: Vec::new(),
        };
        Session { id: user.session_id(), ..rules.start(new, now) }
    };
    stream::iter((0..users).map(|number| {
        let (store, session) = (&store, session(SeedUser(number)));
        async move { store.insert(&session).await }
    }))
    .buffer_unordered(IN_FLIGHT)
    .try_collect::<()>()
    .await?;
    Ok(())
}
