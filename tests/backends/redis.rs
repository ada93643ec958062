//! Redis for tests, as a single server or as a cluster.

use std::{
    env,
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use uuid::Uuid;

use crate::{ports, watchdog::Watchdog};

/// The URL of a server to use instead of a temporary one.
const URL_VARIABLE: &str = "DRYSTONE_TEST_REDIS";
/// Timeout for starting a server and for a command.
const SERVER_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A Redis server.
#[derive(Debug)]
pub struct Redis {
    url: String,
    /// The process of a temporary server; `None` for the one in the environment.
    process: Option<RedisProcess>,
}

#[derive(Debug)]
struct RedisProcess {
    address: SocketAddr,
    arguments: Vec<String>,
    directory: TempDir,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    watchdog: Watchdog,
}

impl Redis {
    /// The server that the tests of this process share: the one in `DRYSTONE_TEST_REDIS`, or a temporary one.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| match env::var(URL_VARIABLE) {
            Ok(url) if !url.is_empty() => Self { url, process: None },
            _ => Self::start(),
        })
    }

    /// A temporary server, which can be stopped and started. Every acknowledged write survives a kill (`appendfsync
    /// always`).
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A temporary server with TLS, with this certificate and key.
    #[must_use]
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let [certificate, key] = [certificate, key].map(|path| path.to_str().expect("the path is UTF-8"));
        let port = free_address().port().to_string();
        let files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate];
        let options = ["--tls-port", &port, "--tls-auth-clients", "no"];
        let server = Self::start_with(&[files.as_slice(), options.as_slice()].concat());
        Self { url: format!("rediss://{}:{port}", Ipv4Addr::LOCALHOST), ..server }
    }

    /// A temporary server with only these arguments.
    ///
    /// # Panics
    /// If it does not start, or does not answer an unauthenticated PING.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let directory =
            tempfile::Builder::new().prefix("drystone-redis-").tempdir().expect("a directory can be created");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        // Another process may take the port before the server binds it.
        for _ in 0..10 {
            let address = free_address();
            if let Some(running) = run(address, &arguments, directory.path()) {
                let process = RedisProcess { address, arguments, directory, running: Some(running) };
                return Self { url: format!("redis://{address}"), process: Some(process) };
            }
        }
        panic!("redis-server does not start; its log is in {}", directory.keep().display());
    }

    /// Its URL, such as `redis://127.0.0.1:6379`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A key prefix that no other test uses.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("test-{}:", Uuid::now_v7().simple())
    }

    /// Stops a temporary server gracefully. It keeps its data.
    pub fn stop(&mut self) {
        self.process().end("-TERM");
    }

    /// Kills a temporary server (SIGKILL).
    pub fn kill(&mut self) {
        self.process().end("-KILL");
    }

    /// Pauses a temporary server (SIGSTOP): connections are accepted and not served.
    pub fn pause(&mut self) {
        self.process().signal("-STOP");
    }

    /// Resumes a paused server.
    pub fn resume(&mut self) {
        self.process().signal("-CONT");
    }

    /// Kills all client connections of a temporary server.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn kill_connections(&self) {
        let process = self.process.as_ref().expect("the server is a temporary one");
        let killed = command(process.address, "CLIENT KILL TYPE normal SKIPME yes");
        assert!(killed.as_deref().is_some_and(|answer| answer.starts_with(':')), "{killed:?}");
    }

    /// Starts a stopped temporary server on the same port with its data.
    pub fn start_again(&mut self) {
        let process = self.process();
        assert!(process.running.is_none(), "the server has not been stopped");
        process.running = run(process.address, &process.arguments, process.directory.path());
        assert!(process.running.is_some(), "redis-server does not start again on {}", process.address);
    }

    /// Starts a stopped temporary server without its data.
    pub fn start_empty(&mut self) {
        for entry in fs::read_dir(self.process().directory.path()).expect("the directory exists").flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        self.start_again();
    }

    fn process(&mut self) -> &mut RedisProcess {
        self.process.as_mut().expect("the server is a temporary one")
    }
}

/// A cluster of three nodes.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// The cluster that the tests of this process share.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisCluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start_with(&["--cluster-enabled", "yes"])).collect();
        let addresses: Vec<SocketAddr> =
            nodes.iter().flat_map(|node| &node.process).map(|process| process.address).collect();
        let slots = [(0, 5460), (5461, 10922), (10923, 16383)];
        for (address, (first, last)) in addresses.iter().zip(slots) {
            let assigned = command(*address, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            assert_eq!(assigned.as_deref(), Some("+OK\r\n"), "slots of {address}");
        }
        for other in &addresses[1..] {
            let met = command(addresses[0], &format!("CLUSTER MEET {} {}", other.ip(), other.port()));
            assert_eq!(met.as_deref(), Some("+OK\r\n"), "CLUSTER MEET with {other}");
        }
        let knows_all = |address: &SocketAddr| {
            command(*address, "CLUSTER INFO").is_some_and(|info| {
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && info.contains("cluster_known_nodes:3")
            })
        };
        assert!(wait_until(|| addresses.iter().all(knows_all)), "the nodes do not form a cluster");
        Self { nodes }
    }

    /// The URLs of its nodes, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }

    /// A key prefix that no other test uses.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.nodes[0].prefix()
    }
}

impl RedisProcess {
    fn signal(&self, signal: &str) {
        let running = self.running.as_ref().expect("the server is running");
        let status = Command::new("kill").args([signal, &running.child.id().to_string()]).status();
        assert!(status.expect("`kill` can be run").success());
    }

    fn end(&mut self, signal: &str) {
        self.signal(signal);
        if let Some(mut running) = self.running.take() {
            running.watchdog.cancel();
            running.child.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for RedisProcess {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.end("-KILL");
        }
    }
}

/// Starts a server and waits until it answers; `None` if it exited.
fn run(address: SocketAddr, arguments: &[String], directory: &Path) -> Option<Running> {
    let log = File::create(directory.join("log")).expect("the log can be written");
    let mut command = Command::new(binary());
    command
        .args(["--bind", &address.ip().to_string(), "--port", &address.port().to_string(), "--save", ""])
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let watchdog = Watchdog::start(child.id(), directory, "KILL");
    let mut running = true;
    let answers = wait_until(|| {
        running = child.try_wait().expect("a child can be polled").is_none();
        !running || self::command(address, "PING").as_deref() == Some("+PONG\r\n")
    });
    let mut server = Running { child, watchdog };
    if answers && running {
        return Some(server);
    }
    server.watchdog.cancel();
    let _may_have_exited = server.child.kill();
    let _ = server.child.wait();
    None
}

/// The installed server.
fn binary() -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|directory| directory.join("redis-server")).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "these tests need Redis 7 or newer: install it (Debian: `apt-get install redis-server`), or name a running \
             one in {URL_VARIABLE}, such as {URL_VARIABLE}=redis://127.0.0.1:6379"
        )
    })
}

fn free_address() -> SocketAddr {
    // A cluster node also binds the port 10000 above (cluster bus).
    loop {
        let address = ports::free_address();
        let bus = address.port().checked_add(10_000);
        if bus.is_some_and(|bus| TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok()) {
            return address;
        }
    }
}

/// The reply to a command; `None` if there is none.
fn command(address: SocketAddr, text: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, SERVER_TIMEOUT).ok()?;
    stream.set_read_timeout(Some(SERVER_TIMEOUT)).ok()?;
    write!(stream, "{text}\r\n").ok()?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < SERVER_TIMEOUT {
        if condition() {
            return true;
        }
        thread::sleep(POLL_INTERVAL);
    }
    false
}
