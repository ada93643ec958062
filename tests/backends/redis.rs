//! Redis, alone or as a cluster.

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

/// Names a server to use instead of a throw-away one.
const VARIABLE: &str = "DRYSTONE_TEST_REDIS";
/// How long a server may take to answer.
const BOUND: Duration = Duration::from_secs(30);
/// How often it is asked.
const PACE: Duration = Duration::from_millis(10);

/// A Redis.
#[derive(Debug)]
pub struct Redis {
    url: String,
    /// What a server of our own is made of; `None` for one that the environment names.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
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
    /// The server that the tests of one process share: the one that `DRYSTONE_TEST_REDIS` names, or a throw-away one.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| match env::var(VARIABLE) {
            Ok(url) if !url.is_empty() => Self { url, own: None },
            _ => Self::start(),
        })
    }

    /// A throw-away server of one's own, which can be stopped and started. What it has written is safe from a stop
    /// with the answer (`appendfsync always`).
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// The same, over TLS with this certificate and key.
    #[must_use]
    pub fn start_with_tls(certificate: &Path, key: &Path) -> Self {
        let [certificate, key] = [certificate, key].map(|path| path.to_str().expect("the path is UTF-8"));
        let port = free_address().port().to_string();
        let files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate];
        let own = ["--tls-port", &port, "--tls-auth-clients", "no"];
        let server = Self::start_with(&[files.as_slice(), own.as_slice()].concat());
        Self { url: format!("rediss://{}:{port}", Ipv4Addr::LOCALHOST), ..server }
    }

    /// The same, with these arguments and no others.
    ///
    /// # Panics
    /// If it does not start, or does not answer a PING of somebody who has not logged in.
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let directory = tempfile::Builder::new().prefix("drystone-redis-").tempdir().expect("it can be made");
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        // Somebody may take the port between our asking for a free one and the server's taking it.
        for _ in 0..10 {
            let address = free_address();
            if let Some(running) = run(address, &arguments, directory.path()) {
                let own = Own { address, arguments, directory, running: Some(running) };
                return Self { url: format!("redis://{address}"), own: Some(own) };
            }
        }
        panic!("redis-server does not start; its log is in {}", directory.keep().display());
    }

    /// Where it is, such as `redis://127.0.0.1:6379`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A prefix for keys that no other test has.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("test-{}:", Uuid::now_v7().simple())
    }

    /// Ends a server of one's own, as an operator does. What it has written stays.
    pub fn stop(&mut self) {
        self.own().end("-TERM");
    }

    /// Ends a server of one's own, as a power cut does.
    pub fn kill(&mut self) {
        self.own().end("-KILL");
    }

    /// Lets a server of one's own stand still: it takes connections, and answers nothing.
    pub fn pause(&mut self) {
        self.own().signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.own().signal("-CONT");
    }

    /// Cuts the connections that clients have to a server of one's own.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn cut_connections(&self) {
        let own = self.own.as_ref().expect("a server that the environment names is not ours to disturb");
        let cut = command(own.address, "CLIENT KILL TYPE normal SKIPME yes");
        assert!(cut.as_deref().is_some_and(|answer| answer.starts_with(':')), "{cut:?}");
    }

    /// Starts a server of one's own again, where it was and with what it had written.
    pub fn start_again(&mut self) {
        let own = self.own();
        assert!(own.running.is_none(), "it has not been stopped");
        own.running = run(own.address, &own.arguments, own.directory.path());
        assert!(own.running.is_some(), "redis-server does not start again on {}", own.address);
    }

    /// Starts a server of one's own again, and all that it had written is lost.
    pub fn start_empty(&mut self) {
        for entry in fs::read_dir(self.own().directory.path()).expect("it is there").flatten() {
            let path = entry.path();
            let _it_may_be_the_other = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        self.start_again();
    }

    fn own(&mut self) -> &mut Own {
        self.own.as_mut().expect("a server that the environment names is not ours to stop")
    }
}

/// Three nodes that share all slots.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// The cluster that the tests of one process share.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisCluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn start() -> Self {
        let nodes: Vec<Redis> = (0..3).map(|_| Redis::start_with(&["--cluster-enabled", "yes"])).collect();
        let addresses: Vec<SocketAddr> = nodes.iter().flat_map(|node| &node.own).map(|own| own.address).collect();
        let slots = [(0, 5460), (5461, 10922), (10923, 16383)];
        for (address, (first, last)) in addresses.iter().zip(slots) {
            let assigned = command(*address, &format!("CLUSTER ADDSLOTSRANGE {first} {last}"));
            assert_eq!(assigned.as_deref(), Some("+OK\r\n"), "slots of {address}");
        }
        for other in &addresses[1..] {
            let met = command(addresses[0], &format!("CLUSTER MEET {} {}", other.ip(), other.port()));
            assert_eq!(met.as_deref(), Some("+OK\r\n"), "meeting of {other}");
        }
        let knows_all = |address: &SocketAddr| {
            command(*address, "CLUSTER INFO").is_some_and(|info| {
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && info.contains("cluster_known_nodes:3")
            })
        };
        assert!(becomes_so(|| addresses.iter().all(knows_all)), "the nodes do not become a cluster");
        Self { nodes }
    }

    /// Where its nodes are, divided by commas.
    #[must_use]
    pub fn url(&self) -> String {
        self.nodes.iter().map(Redis::url).collect::<Vec<_>>().join(",")
    }

    /// A prefix for keys that no other test has.
    #[must_use]
    pub fn prefix(&self) -> String {
        self.nodes[0].prefix()
    }
}

impl Own {
    fn signal(&self, signal: &str) {
        let running = self.running.as_ref().expect("it runs");
        let status = Command::new("kill").args([signal, &running.child.id().to_string()]).status();
        assert!(status.expect("`kill` can be run").success());
    }

    fn end(&mut self, signal: &str) {
        self.signal(signal);
        if let Some(mut running) = self.running.take() {
            running.watchdog.dismiss();
            running.child.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.end("-KILL");
        }
    }
}

/// A server that answers, or `None` if it ended at once.
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
    let answers = becomes_so(|| {
        running = child.try_wait().expect("a child can be asked how it is").is_none();
        !running || self::command(address, "PING").as_deref() == Some("+PONG\r\n")
    });
    let mut server = Running { child, watchdog };
    if answers && running {
        return Some(server);
    }
    server.watchdog.dismiss();
    let _it_may_have_ended = server.child.kill();
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
             one in {VARIABLE}, such as {VARIABLE}=redis://127.0.0.1:6379"
        )
    })
}

fn free_address() -> SocketAddr {
    // A node of a cluster takes the port that lies 10000 above as well.
    loop {
        let address = ports::free_address();
        let bus = address.port().checked_add(10_000);
        if bus.is_some_and(|bus| TcpListener::bind((Ipv4Addr::LOCALHOST, bus)).is_ok()) {
            return address;
        }
    }
}

/// What the server says to a command; `None` if it says nothing.
fn command(address: SocketAddr, text: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address, BOUND).ok()?;
    stream.set_read_timeout(Some(BOUND)).ok()?;
    write!(stream, "{text}\r\n").ok()?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).into_owned())
}

fn becomes_so(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < BOUND {
        if condition() {
            return true;
        }
        thread::sleep(PACE);
    }
    false
}
