//! `drystone users import` of a hundred thousand accounts with hashes of passwords.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use drystone_tests::{
    Mesh,
    process::{drystone, run_to_end},
};
use tempfile::TempDir;

use super::{processes::MeshProcesses, servers};
use crate::report::Measurement;

const ACCOUNTS: u32 = 100_000;

/// Accounts a minute.
const AIM: f64 = 100_000.0;

/// By bcrypt, of the cost that other systems have.
const HASH: &str = "$2b$12$QngHF5oa/jfYB7FuZ7UN7.nBpB8.oMxB4P8qD0ILfS9T5KaLK.oPG";

/// Measures both engines.
pub(crate) async fn measure() -> Result<Vec<Measurement>> {
    let directory = TempDir::new()?;
    let file = directory.path().join("users.ndjson");
    let mut lines = String::new();
    for number in 0..ACCOUNTS {
        writeln!(
            lines,
            r#"{{"email":"user-{number}@example.com","displayName":"User {number}","externalId":"{number}","givenName":"Ada","familyName":"Lovelace{number}","locale":"en-GB","roles":["manager"],"passwordHash":"{HASH}"}}"#
        )?;
    }
    fs::write(&file, lines)?;

    let mesh = Mesh::start();
    let certificates = mesh.certificates().ca().parent().unwrap_or(Path::new(".")).to_owned();
    let on_sqlite = import(&file, certificates.clone(), mesh.grpc_address("auth"))?;
    let again = import(&file, certificates, mesh.grpc_address("auth"))?;
    drop(mesh);

    let (postgres, redis) = (servers::postgres().await, servers::redis().await?);
    let database = postgres.database().await;
    let processes = MeshProcesses::start(database.as_str(), redis.url());
    let on_postgres = import(&file, processes.certificates(), processes.address("auth")?)?;
    let row = |name: &str, time: Duration| {
        Measurement::plain(
            format!("import of 100,000 accounts, {name}"),
            f64::from(ACCOUNTS) * 60.0 / time.as_secs_f64(),
            "a minute",
        )
    };
    Ok(vec![
        row("one process on SQLite", on_sqlite).at_least(AIM),
        row("a process for each service on PostgreSQL", on_postgres).at_least(AIM),
        row("one process on SQLite, when they are imported already", again),
    ])
}

fn import(file: &Path, certificates: PathBuf, auth: SocketAddr) -> Result<Duration> {
    let mut command = drystone(&["users", "import", &file.to_string_lossy()]);
    command.env("DRYSTONE_CERTS_DIR", certificates).env("DRYSTONE_PEERS__AUTH", auth.to_string());
    let started = Instant::now();
    let output = run_to_end(&mut command);
    ensure!(output.status.success(), "the import failed: {output:?}");
    Ok(started.elapsed())
}
