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

/// Names a server to use instead of a throw-away one: the URL of a user who may create databases.
const VARIABLE: &str = "DRYSTONE_TEST_POSTGRES";

/// How long a server may take to start or to stop.
const BOUND: Duration = Duration::from_mins(1);

/// The superuser of throw-away servers.
const USER: &str = "mason";

/// That user's password.
const PASSWORD: &str = "throw-away";

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    url: Url,
    own: Option<Own>,
}

/// A server that we started.
#[derive(Debug)]
struct Own {
    directory: TempDir,
    binaries: PathBuf,
    port: u16,
    running: Mutex<Option<(Child, Watchdog)>>,
}

impl Postgres {
    /// The server that all tests of this process share: the one that `DRYSTONE_TEST_POSTGRES` names, else a throw-away
    /// one. It is not to be stopped.
    ///
    /// # Panics
    /// If there is none, and none can be started.
    pub async fn shared() -> &'static Self {
        SHARED
            .get_or_init(async || match env::var(VARIABLE) {
                Ok(url) => {
                    let url = url.parse().unwrap_or_else(|error| panic!("{VARIABLE} is no URL: {error}"));
                    Self { url, own: None }
                }
                Err(_) => Self::throw_away().await,
            })
            .await
    }

    /// A throw-away server for one test alone, which may stop it and start it again.
    ///
    /// # Panics
    /// If none can be started.
    pub async fn throw_away() -> Self {
        tokio::task::spawn_blocking(Own::prepare).await.expect("a server can be prepared")
    }

    /// A fresh, empty database. It is removed when it is dropped.
    ///
    /// # Panics
    /// If the server cannot be reached.
    pub async fn database(&self) -> Database {
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.administer(&format!("CREATE DATABASE {name}")).await;
        let mut url = self.url.clone();
        url.set_path(&name);
        Database { url, administrator: self.url.clone(), name }
    }

    /// Runs a statement as the superuser.
    ///
    /// # Panics
    /// If it fails.
    pub async fn administer(&self, statement: &str) {
        administer(&self.url, statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// The root of the certificate that a throw-away server shows, which names `localhost` and not 127.0.0.1.
    ///
    /// # Panics
    /// If the server is not one of ours.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.own().directory.path().join("root.pem")
    }

    /// Ends a throw-away server as its operator does, without waiting for sessions to end.
    ///
    /// # Panics
    /// If the server is not one of ours, or does not stop.
    pub fn stop(&self) {
        self.own().end("INT");
    }

    /// Ends a throw-away server as a power cut does.
    ///
    /// # Panics
    /// If the server is not one of ours, or does not stop.
    pub fn kill(&self) {
        self.own().end("QUIT");
    }

    /// Starts a throw-away server again, where it was.
    ///
    /// # Panics
    /// If the server is not one of ours, is running, or does not start.
    pub fn start(&self) {
        self.own().start().unwrap_or_else(|error| panic!("{error}"));
    }

    fn own(&self) -> &Own {
        self.own.as_ref().unwrap_or_else(|| panic!("the server that {VARIABLE} names is not ours"))
    }
}

/// A fresh database on a server.
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
        administer(&self.url, statements).await.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Forgets what has been counted up to now.
    pub async fn count_anew(&self) {
        self.wait_until_left().await;
        self.run("SELECT pg_stat_reset()").await;
    }

    /// How often each table of a schema was read from its beginning to its end since [`Self::count_anew`], and how
    /// often by an index. All others must have closed their connections: only then is everything counted.
    ///
    /// # Panics
    /// If the server cannot be asked.
    pub async fn scans(&self, schema: &str) -> BTreeMap<String, Scans> {
        self.wait_until_left().await;
        let mut connection = PgConnection::connect(self.url.as_str()).await.expect("the server is there");
        let rows: Vec<(String, i64, i64)> = sqlx::query_as(
            "SELECT relname::TEXT, seq_scan, COALESCE(idx_scan, 0) FROM pg_stat_user_tables WHERE schemaname = $1",
        )
        .bind(schema)
        .fetch_all(&mut connection)
        .await
        .expect("the server counts");
        rows.into_iter().map(|(table, whole, by_index)| (table, Scans { whole, by_index })).collect()
    }

    /// Waits until everybody who had a connection has closed it, and what each has counted is there.
    async fn wait_until_left(&self) {
        let mut connection = PgConnection::connect(self.url.as_str()).await.expect("the server is there");
        let started = Instant::now();
        loop {
            let others: i64 = sqlx::query_scalar(
                "SELECT COUNT(*)
                 FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )
            .fetch_one(&mut connection)
            .await
            .expect("the server knows who is there");
            if others == 0 {
                return;
            }
            assert!(started.elapsed() < BOUND, "{others} connections are still open");
        }
    }
}

/// How often a table was read, by way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scans {
    /// From its beginning to its end.
    pub whole: i64,
    /// By an index.
    pub by_index: i64,
}

impl Drop for Database {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let url = self.administrator.clone();
        // A destructor cannot wait on the runtime that it may be called on. A server that is gone took it along.
        let _ = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(administer(&url, &statement)))
        })
        .join();
    }
}

async fn administer(url: &Url, statement: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(url.as_str()).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut connection).await?;
    connection.close().await
}

impl Own {
    fn prepare() -> Postgres {
        let binaries = binaries().unwrap_or_else(|| {
            panic!(
                "there is no PostgreSQL to test with: install 15 or newer (Debian: apt-get install postgresql), or name \
                 a server in {VARIABLE}, such as postgres://USER:PASSWORD@localhost/postgres, whose user may create databases"
            )
        });
        let directory =
            tempfile::Builder::new().prefix("drystone-postgres-").tempdir().expect("a directory can be made");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode can be set");
        let mut own = Self { directory, binaries, port: 0, running: Mutex::new(None) };
        own.initialise();
        // Somebody else may take a free port between our finding it and using it.
        for attempt in 1.. {
            own.port = free_address().port();
            match own.start() {
                Ok(()) => break,
                Err(error) if attempt == 5 => panic!("{error}"),
                Err(_) => {}
            }
        }
        let url = format!("postgres://{USER}:{PASSWORD}@localhost:{}/postgres?sslmode=disable", own.port);
        Postgres { url: url.parse().expect("a valid URL"), own: Some(own) }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn initialise(&self) {
        let password = self.directory.path().join("password");
        fs::write(&password, PASSWORD).expect("a file can be written");
        let data = self.data();
        fs::create_dir(&data).expect("a directory can be made");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("a mode can be set");
        if let Some((user, group)) = servant() {
            for path in [self.directory.path(), &password, &data] {
                std::os::unix::fs::chown(path, Some(user), Some(group)).expect("root can give files away");
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
        assert!(output.status.success(), "initdb failed: {}", said(&output));
        let settings = "
            listen_addresses = 'localhost'
            max_connections = 300
            # What the tests write may be lost with the machine, not with the server.
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
        root.distinguished_name.push(rcgen::DnType::CommonName, "root of a throw-away server");
        let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
        let mut leaf = CertificateParams::new(["localhost".to_owned()]).expect("a valid name");
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "throw-away server");
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
            if let Some((user, group)) = servant() {
                std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root can give files away");
            }
        }
        // The root is for the tests, which may run as somebody else than the server.
        let copy = self.directory.path().join("root.pem");
        fs::copy(self.data().join("root.pem"), copy).expect("a file can be copied");
    }

    fn start(&self) -> Result<(), String> {
        let mut running = self.running.lock().expect("nobody panics while starting");
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
            .stdout(log.try_clone().expect("a file has a second handle"))
            .stderr(log)
            .spawn()
            .map_err(|error| format!("postgres cannot be run: {error}"))?;
        let watchdog = Watchdog::start(server.id(), self.directory.path(), "QUIT");

        let started = Instant::now();
        loop {
            if let Some(status) = server.try_wait().expect("a child can be asked how it is") {
                return Err(format!("postgres ended with {status}:\n{}", self.log()));
            }
            // It writes `ready` there once it takes connections.
            let state = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let is_ours = state.lines().next() == Some(&*server.id().to_string());
            if is_ours && state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                *running = Some((server, watchdog));
                return Ok(());
            }
            if started.elapsed() > BOUND {
                let _ = server.kill();
                return Err(format!("postgres is not ready after {BOUND:?}:\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn end(&self, signal: &str) {
        let mut running = self.running.lock().expect("nobody panics while stopping");
        let Some((mut server, mut watchdog)) = running.take() else { return };
        watchdog.dismiss();
        let told = Command::new("kill").arg(format!("-{signal}")).arg(server.id().to_string()).status();
        assert!(told.is_ok_and(|status| status.success()), "the server can be told to stop");
        let _ = server.wait();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A program of PostgreSQL, as a user that it agrees to run as.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command.current_dir(self.directory.path()).env("LC_ALL", "C").env_remove("PGDATA");
        if let Some((user, group)) = servant() {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.end("QUIT");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Where the newest installed PostgreSQL is.
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

/// PostgreSQL refuses to run as root: the user and the group that it is to run as then.
fn servant() -> Option<(u32, u32)> {
    let us = fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata)).ok()?;
    if us != 0 {
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
