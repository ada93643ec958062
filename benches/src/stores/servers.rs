//! The throw-away PostgreSQL and Redis, set as they are set for real, and their own benchmark programs.

use std::{env, fs, path::PathBuf, process::Output};

use anyhow::{Context, Result, bail};
use drystone_backends::{Postgres, Redis};
use tokio::process::Command;

/// What a server of the tests has otherwise. Commits wait for the disk; the cache is a common size for a small server; no
/// checkpoint is forced by the seeding while something is measured.
const POSTGRES: [&str; 4] = [
    "ALTER SYSTEM SET fsync = on",
    "ALTER SYSTEM SET synchronous_commit = on",
    "ALTER SYSTEM SET shared_buffers = '256MB'",
    "ALTER SYSTEM SET max_wal_size = '4GB'",
];

/// A PostgreSQL whose commits wait for the disk.
pub(crate) async fn postgres() -> Postgres {
    let server = Postgres::temporary().await;
    for setting in POSTGRES {
        server.execute_as_superuser(setting).await;
    }
    server.stop();
    server.start();
    server
}

/// A Redis that writes all to a file, and the file to the disk once a second, as docs/operations.md advises. It
/// does not rewrite that file while something is measured.
pub(crate) async fn redis() -> Result<Redis> {
    let server = Redis::start();
    let mut connection = connect(&server).await?;
    for (key, value) in [("appendfsync", "everysec"), ("auto-aof-rewrite-percentage", "0")] {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(key).arg(value).query_async::<()>(&mut connection).await?;
    }
    Ok(server)
}

/// A connection to it.
pub(crate) async fn connect(server: &Redis) -> Result<redis::aio::MultiplexedConnection> {
    Ok(redis::Client::open(server.url())?.get_multiplexed_async_connection().await?)
}

/// Runs a program to its end; answers what it said.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let path = find(program)?;
    let Output { status, stdout, stderr } = Command::new(&path).args(arguments).output().await?;
    if !status.success() {
        bail!("{program} ended with {status}: {}", String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// Debian keeps PostgreSQL's programs where no `PATH` leads.
fn find(program: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut of_postgres: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    of_postgres.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = of_postgres.into_iter().rev().chain(env::split_paths(&path));
    directories.map(|directory| directory.join(program)).find(|file| file.is_file()).with_context(|| {
        format!("there is no {program}: install it (Debian: apt-get install postgresql redis-server redis-tools)")
    })
}
