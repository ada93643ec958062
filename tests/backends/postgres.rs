//! PostgreSQL for tests.

use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use crate::{ports::free_address, watchdog::Watchdog};

/// The URL of a server to use instead of a temporary one, with a user who may create databases.
const URL_VARIABLE: &str = "DRYSTONE_TEST_POSTGRES";

/// Timeout for starting and stopping a server.
const SERVER_TIMEOUT: Duration = Duration::from_mins(1);

/// The superuser of temporary servers.
const USER: &str = "mason";

/// The password of the superuser.
const PASSWORD: &str = "throw-away";

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    url: Url,
    process: Option<PostgresProcess>,
}

/// The process of a temporary server.
#[derive(Debug)]
struct PostgresProcess {
    directory: TempDir,
    binaries: PathBuf,
    port: u16,
    running: Mutex<Option<(Child, Watchdog)>>,
}

impl Postgres {
    /// The server that all tests of this process share: the one in `DRYSTONE_TEST_POSTGRES`, or a temporary one. Do not stop
    /// it.
    ///
    /// # Panics
    /// If there is none, and none can be started.
    pub async fn shared() -> &'static Self {
        SHARED
            .get_or_init(async || match env::var(URL_VARIABLE) {
                Ok(url) => {
                    let url = url.parse().unwrap_or_else(|error| panic!("{URL_VARIABLE} is not a URL: {error}"));
                    Self { url, process: None }
                }
                Err(_) => Self::temporary().await,
            })
            .await
    }

    /// A temporary server for one test, which may stop and start it.
    ///
    /// # Panics
    /// If none can be started.
    pub async fn temporary() -> Self {
        tokio::task::spawn_blocking(PostgresProcess::prepare).await.expect("a server can be prepared")
    }

    /// A new, empty database. It is removed on drop.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn database(&self) -> Database {
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.execute_as_superuser(&format!("CREATE DATABASE {name}")).await;
        let mut url = self.url.clone();
        url.set_path(&name);
        Database { url, administrator: self.url.clone(), name }
    }

    /// Runs a statement as the superuser.
    ///
    /// # Panics
    /// If it fails.
    pub async fn execute_as_superuser(&self, statement: &str) {
        execute(&self.url, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// The root certificate of a temporary server, whose certificate is for `localhost` and not for 127.0.0.1.
    ///
    /// # Panics
    /// If the server is not a temporary one.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.process().directory.path().join("root.pem")
    }

    /// Stops a temporary server without waiting for its sessions (fast shutdown).
    ///
    /// # Panics
    /// If the server is not a temporary one, or does not stop.
    pub fn stop(&self) {
        self.process().end("INT");
    }

    /// Stops a temporary server without a checkpoint (immediate shutdown), as in a crash.
    ///
    /// # Panics
    /// If the server is not a temporary one, or does not stop.
    pub fn kill(&self) {
        self.process().end("QUIT");
    }

    /// Starts a stopped temporary server on the same port.
    ///
    /// # Panics
    /// If the server is not a temporary one, is running, or does not start.
    pub fn start(&self) {
        self.process().start().unwrap_or_else(|error| panic!("{error}"));
    }

    fn process(&self) -> &PostgresProcess {
        self.process
            .as_ref()
            .unwrap_or_else(|| panic!("only a temporary server can be stopped, not the one in {URL_VARIABLE}"))
    }
}

/// A database for one test.
#[derive(Debug)]
pub struct Database {
    url: Url,
    administrator: Url,
    name: String,
}

impl Database {
    /// Its URL, user and password included.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Its URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// Runs statements.
    ///
    /// # Panics
    /// If one fails.
    pub async fn run(&self, statements: &str) {
        execute(&self.url, statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Resets the scan counters.
    pub async fn reset_scan_counts(&self) {
        self.wait_until_disconnected().await;
        self.run("SELECT pg_stat_reset()").await;
    }

    /// Sequential and index scans of each table of a schema since [`Self::reset_scan_counts`]. Waits for all other
    /// connections to be closed, since only then are their scans counted.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn scans(&self, schema: &str) -> BTreeMap<String, Scans> {
        self.wait_until_disconnected().await;
        let mut connection = PgConnection::connect(self.url.as_str()).await.expect("the server accepts connections");
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT relname::TEXT, seq_scan, COALESCE(idx_scan, 0) FROM pg_stat_user_tables WHERE schemaname = $1",
        )
        .bind(schema)
        .fetch_all(&mut connection)
        .await
        .expect("the statistics can be read");
        rows.into_iter().map(|(table, sequential, index)| (table, Scans { sequential, index })).collect()
    }

    /// Waits until all other connections are closed, and their statistics are reported.
    async fn wait_until_disconnected(&self) {
        let mut connection = PgConnection::connect(self.url.as_str()).await.expect("the server accepts connections");
        let started = Instant::now();
        loop {
            let others: i64 = sqlx::query_scalar(
                "SELECT COUNT(*)
                 FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )
            .fetch_one(&mut connection)
            .await
            .expect("the connections can be counted");
            if others == 0 {
                return;
            }
            assert!(started.elapsed() < SERVER_TIMEOUT, "{others} connections are still open");
        }
    }
}

/// How often a table was scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scans {
    /// Sequential scans.
    pub sequential: i64,
    /// Index scans.
    pub index: i64,
}

impl Drop for Database {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let url = self.administrator.clone();
        // `drop` cannot block on the runtime that it may run on. Errors are ignored: the server may have been stopped.
        let _ = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(execute(&url, &statement)))
        })
        .join();
    }
}

async fn execute(url: &Url, statement: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url.as_str()).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
    connection.close().await
}

impl PostgresProcess {
    fn prepare() -> Postgres {
        let binaries = binaries().unwrap_or_else(|| {
            panic!(
                "the tests need PostgreSQL: install 15 or newer (Debian: apt-get install postgresql), or name \
                 a server in {URL_VARIABLE}, such as postgres://USER:PASSWORD@localhost/postgres, whose user may create databases"
            )
        });
        let directory =
            tempfile::Builder::new().prefix("drystone-postgres-").tempdir().expect("a directory can be created");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
        let mut process = Self { directory, binaries, port: 0, running: Mutex::new(None) };
        process.initialise();
        // Another process may take the port before the server binds it.
        for attempt in 1.. {
            process.port = free_address().port();
            match process.start() {
                Ok(()) => break,
                Err(error) if attempt == 5 => panic!("{error}"),
                Err(_) => {}
            }
        }
        let url = format!("postgres://{USER}:{PASSWORD}@localhost:{}/postgres?sslmode=disable", process.port);
        Postgres { url: url.parse().expect("a valid URL"), process: Some(process) }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn initialise(&self) {
        let password = self.directory.path().join("password");
        fs::write(&password, PASSWORD).expect("a file can be written");
        let data = self.data();
        fs::create_dir(&data).expect("a directory can be created");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("a mode can be set");
        if let Some((user, group)) = unprivileged_user() {
            for path in [self.directory.path(), &password, &data] {
                std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root can change the owner");
            }
        }
        let output = self
            .command("initdb")
            .args(["--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username", USER])
            .arg("--pwfile")
            .arg(&password)
            .arg("--pgdata")
            .arg(&data)
            .output()
            .expect("initdb can be run");
        assert!(output.status.success(), "initdb failed: {}", stderr_of(&output));
        let settings = "
            listen_addresses = 'localhost'
            max_connections = 300
            # Data may be lost in a crash of the machine, not of the server.
            fsync = off
            shared_buffers = 64MB
            ssl = on
            ssl_cert_file = 'server.pem'
            ssl_key_file = 'server.key'
            log_min_messages = warning
            deadlock_timeout = 100ms
        ";
        fs::write(data.join("postgresql.auto.conf"), settings).expect("a file can be written");
        self.write_certificate();
    }

    fn write_certificate(&self) {
        let mut root = CertificateParams::default();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.distinguished_name.push(rcgen::DnType::CommonName, "root of a temporary server");
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
        let mut leaf = CertificateParams::new(["localhost".to_owned()]).expect("a valid name");
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "temporary server");
        let key = KeyPair::generate().expect("a key");
        let leaf = leaf.signed_by(&key, &root).expect("a certificate");
        for (name, text, mode) in [
            ("root.pem", root.pem(), 0o644),
            ("server.pem", leaf.pem(), 0o644),
            ("server.key", key.serialize_pem(), 0o600),
        ] {
            let path = self.data().join(name);
            fs::write(&path, text).expect("a file can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode can be set");
            if let Some((user, group)) = unprivileged_user() {
                std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root can change the owner");
            }
        }
        // For the tests, which may run as another user than the server.
        let copy = self.directory.path().join("root.pem");
        fs::copy(self.data().join("root.pem"), copy).expect("a file can be copied");
    }

    fn start(&self) -> Result<(), String> {
        let mut running = self.running.lock().expect("the lock is not poisoned");
        assert!(running.is_none(), "the server runs already");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.directory.path().join("log"))
            .expect("a log can be written");
        let mut server = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the file handle can be cloned"))
            .stderr(log)
            .spawn()
            .map_err(|error| format!("postgres cannot be run: {error}"))?;
        let watchdog = Watchdog::start(server.id(), self.directory.path(), "QUIT");

        let started = Instant::now();
        loop {
            if let Some(status) = server.try_wait().expect("a child can be polled") {
                return Err(format!("postgres exited with {status}:\n{}", self.log()));
            }
            // Line 8 is `ready` once the server accepts connections.
            let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let is_current = state.lines().next() == Some(&*server.id().to_string());
            if is_current && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                *running = Some((server, watchdog));
                return Ok(());
            }
            if started.elapsed() > SERVER_TIMEOUT {
                let _ = server.kill();
                return Err(format!("postgres is not ready after {SERVER_TIMEOUT:?}:\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&self, signal: &str) {
        let mut running = self.running.lock().expect("the lock is not poisoned");
        let Some((mut server, mut watchdog)) = running.take() else { return };
        watchdog.cancel();
        let status = Command::new("kill").arg(format!("-{signal}")).arg(server.id().to_string()).status();
        assert!(status.is_ok_and(|status| status.success()), "the server cannot be signalled");
        let _ = server.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A PostgreSQL program, run as an unprivileged user.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(self.directory.path()).env("LC_ALL", "C").env_remove("PGDATA");
        if let Some((user, group)) = unprivileged_user() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for PostgresProcess {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The directory of the newest installed PostgreSQL.
fn binaries() -> Option<PathBuf> {
    let has_server = |directory: &Path| directory.join("postgres").is_file() && directory.join("initdb").is_file();
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(version, directory)| *version >= 15 && has_server(directory))
        .max()
        .map(|(_, directory)| directory);
    let path = env::var_os("PATH").unwrap_or_default();
    newest.or_else(|| env::split_paths(&path).find(|directory| has_server(directory)))
}

/// PostgreSQL refuses to run as root: the user and the group to run it as in that case.
fn unprivileged_user() -> Option<(u32, u32)> {
    let own_id = fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata)).ok()?;
    if own_id != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let ids = |name: &str| {
        let user = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = user.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody"))
}
