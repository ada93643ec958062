//! Temporary PostgreSQL and Redis servers with production settings, and their benchmark programs.

use std::{env, fs, path::PathBuf, process::Output};

use anyhow::{Context, Result, bail};
use drystone_backends::{Postgres, Redis};
use tokio::process::Command;

/// Settings that differ from those of a test server: commits wait for the disk, the cache has a common size for a small
/// server, and seeding forces no checkpoint during a measurement.
const POSTGRES: [&str; 4] = [
    "ALTER SYSTEM SET fsync = on",
    "ALTER SYSTEM SET synchronous_commit = on",
    "ALTER SYSTEM SET shared_buffers = '1GB'",
    "ALTER SYSTEM SET max_wal_size = '4GB'",
];

/// A PostgreSQL server whose commits wait for the disk.
pub(crate) async fn postgres() -> Postgres {
    let server = Postgres::temporary().await;
    for setting in POSTGRES {
        server.execute_as_superuser(setting).await;
    }
    server.stop();
    server.start();
    server
}

/// A Redis server with an append-only file that is synced every second, as docs/operations.md recommends. It does not
/// rewrite the file during a measurement.
pub(crate) async fn redis() -> Result<Redis> {
    let server = Redis::start();
    let mut connection = connect(&server).await?;
    for (key, value) in [("appendfsync", "everysec"), ("auto-aof-rewrite-percentage", "0")] {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(key).arg(value).query_async::<()>(&mut connection).await?;
    }
    Ok(server)
}

/// Connects to a Redis server.
pub(crate) async fn connect(server: &Redis) -> Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(server.url())?.get_multiplexed_async_connection().await?)
}

/// Runs a program to completion; returns its standard output.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let path = find(program)?;
    let Output { status, stdout, stderr } = Command::new(&path).args(arguments).output().await?;
    if !status.success() {
        bail!("{program} exited with {status}: {}", String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Finds a program in PostgreSQL's directories on Debian, which are not in `PATH`, or in `PATH`.
fn find(program: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut of_postgres: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    of_postgres.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = of_postgres.into_iter().rev().chain(env::split_paths(&path));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file()).with_context(|| {
        format!("{program} not found: install it (Debian: apt-get install postgresql redis-server redis-tools)")
    })
}
