//! A running mesh: the real binary, on free ports, with real certificates.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, sync::OnceLock};

use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    Home, binary,
    certs::{Certificates, Credentials},
    grpc,
    metrics::MetricsSnapshot,
    process::{self, Process},
    rest::{self, RestClient, RestResponse},
    wait::until_blocking,
};

const READY_FILE: &str = "ready.json";

/// The master key of services that run apart: `drystone up` generates one in its data directory.
pub const MASTER_KEY: &str = "test AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A mesh that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Mesh {
    process: Process,
    ready: ReadyFile,
    home: Home,
}

/// The content of the ready file.
#[derive(Debug)]
struct ReadyFile {
    rest: Option<SocketAddr>,
    admin: SocketAddr,
    grpc: BTreeMap<String, SocketAddr>,
    certificates: Certificates,
}

/// The configuration of a mesh to start.
#[derive(Debug, Default)]
pub struct Setup {
    binary: Option<PathBuf>,
    home: Option<Home>,
    /// The modules for `drystone serve`; empty for `drystone up`.
    served: Vec<&'static str>,
    /// Whether `drystone up` runs without `--ephemeral`.
    is_interactive: bool,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    has_default_rate_limits: bool,
    /// The size of the tmpfs for its data, in MiB.
    tmpfs: Option<u32>,
}

/// A mesh that was started and may not be ready yet.
#[derive(Debug)]
#[must_use]
pub struct Starting {
    process: Process,
    home: Home,
}

impl Setup {
    /// Runs this binary instead of `drystone`, such as one with an additional service.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Runs with the data of an earlier mesh.
    #[must_use]
    pub fn home(mut self, home: Home) -> Self {
        self.home = Some(home);
        self
    }

    /// Runs without one of its services.
    #[must_use]
    pub fn without(self, service: &str) -> Self {
        self.argument("--without").argument(service)
    }

    /// Runs only these modules with `drystone serve`, with the certificates of an existing mesh. `peers.NAME` has the
    /// addresses of the other modules.
    #[must_use]
    pub fn serve(mut self, names: &[&'static str], certificates: &Certificates) -> Self {
        self.served = names.to_vec();
        let directory = certificates.ca().parent().expect("the CA's certificate is in a directory");
        let mut setup = self.set("certs_dir", directory.to_str().expect("the path is UTF-8"));
        for name in names.iter().chain(&["admin"]) {
            setup = setup.set(&format!("{name}.listen"), "127.0.0.1:0");
        }
        setup
    }

    /// Runs `drystone up` as a user does, so that it prints its banner; but on free ports.
    #[must_use]
    pub fn interactive(mut self) -> Self {
        self.is_interactive = true;
        let sections = crate::services().into_iter().chain(["admin", "edge"]);
        sections.fold(self, |setup, name| setup.set(&format!("{name}.listen"), "127.0.0.1:0"))
    }

    /// Sets a configuration value, such as `("log.filter", "debug")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("DRYSTONE_{}", key.replace('.', "__").to_ascii_uppercase());
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Keeps the default rate limits. They are disabled otherwise, since tests sign in from one address more often than
    /// the limits allow.
    #[must_use]
    pub fn with_default_rate_limits(mut self) -> Self {
        self.has_default_rate_limits = true;
        self
    }

    /// Mounts a private tmpfs of this size in MiB on the data directory while the process runs. [`Mesh::tmpfs_path`]
    /// is its path for other processes.
    #[must_use]
    pub fn tmpfs(mut self, size: u32) -> Self {
        self.tmpfs = Some(size);
        self
    }

    /// Adds a command-line argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the mesh and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn start(self) -> Mesh {
        self.spawn().ready()
    }

    /// Starts the mesh without waiting, for processes that depend on each other to become ready.
    ///
    /// # Panics
    /// If the program cannot be executed.
    pub fn spawn(self) -> Starting {
        let home = self.home.unwrap_or_default();
        let binary = self.binary.unwrap_or_else(binary::drystone);
        let ready_file = home.path().join(READY_FILE);
        // Left by an earlier mesh.
        let _may_not_exist = fs::remove_file(&ready_file);
        let mut command = if self.served.is_empty() {
            let mut command = process::command(&binary, &["up"]);
            if self.is_interactive {
                command.env("DRYSTONE_CERTS_DIR", home.data().join("certs"));
            } else {
                command.arg("--ephemeral");
            }
            command
        } else {
            let mut command = process::command(&binary, &["serve"]);
            command.args(&self.served);
            command.env("DRYSTONE_SEALING__KEYS", MASTER_KEY);
            command
        };
        command.arg("--ready-file").arg(&ready_file).env("DRYSTONE_DATA_DIR", home.data());
        if self.served.is_empty() {
            command.arg("--data-dir").arg(home.data());
        }
        if !self.has_default_rate_limits {
            command
                .env("DRYSTONE_LIMITS__REQUESTS_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__SIGN_IN_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__REFRESH_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__REGISTRATION_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__PASSWORD_RESET_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__EMAIL_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__FACTOR_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__WRITE_PER_MINUTE", "0");
        }
        command.args(&self.arguments).envs(self.environment);
        // Default paths are relative to the working directory.
        command.current_dir(home.path());
        if let Some(size) = self.tmpfs {
            fs::create_dir_all(home.data()).expect("the directory can be created");
            command = process::with_private_tmpfs(&command, &home.data(), size);
        }
        Starting { process: Process::start(&mut command, &home.log(), home.path()), home }
    }
}

impl Starting {
    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the mesh is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    #[must_use]
    pub fn ready(self) -> Mesh {
        // Drop order: on a panic, `process` prints the log before `home` deletes it.
        let Self { home, mut process } = self;
        let ready_file = home.path().join(READY_FILE);
        let ready = until_blocking(|| match process.exit_status() {
            Some(status) => Err(format!("the process exited with {status}")),
            None => Ok(ReadyFile::read(&ready_file)),
        });
        let ready = ready.unwrap_or_else(|error| panic!("the mesh did not become ready: {error}"));
        Mesh { process, ready, home }
    }
}

impl Mesh {
    /// The mesh that all tests of a process share. It ends with the process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Mesh> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts a mesh with the default configuration.
    #[must_use]
    pub fn start() -> Self {
        Self::setup().start()
    }

    /// Configures a mesh to start.
    #[must_use]
    pub fn setup() -> Setup {
        Setup::default()
    }

    /// Stops the mesh with SIGTERM; returns its directory.
    ///
    /// # Panics
    /// If it does not exit, or with a code other than zero.
    #[must_use = "dropping the directory deletes it"]
    pub fn stop(self) -> Home {
        self.process.stop();
        self.home
    }

    /// Stops the mesh with SIGINT, as Ctrl-C does; returns its directory.
    ///
    /// # Panics
    /// If it does not exit, or with a code other than zero.
    #[must_use = "dropping the directory deletes it"]
    pub fn interrupt(self) -> Home {
        self.process.interrupt();
        self.home
    }

    /// Kills the mesh with SIGKILL; returns its directory.
    #[must_use = "dropping the directory deletes it"]
    pub fn kill(self) -> Home {
        self.process.kill();
        self.home
    }

    /// The REST API.
    ///
    /// # Panics
    /// If the mesh runs without an edge.
    #[must_use]
    pub fn rest(&self) -> RestClient {
        RestClient::at(self.ready.rest.expect("the ready file has the address of the edge"))
    }

    /// Sends a GET request to the admin port.
    pub async fn admin(&self, path: &str) -> RestResponse {
        RestClient::at(self.ready.admin).get(path).send().await
    }

    /// The address of the admin port.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.ready.admin
    }

    /// The current metrics.
    pub async fn metrics(&self) -> MetricsSnapshot {
        MetricsSnapshot::parse(&self.admin("/metrics").await.expect(200).text())
    }

    /// The address of a service's gRPC port.
    ///
    /// # Panics
    /// If the mesh runs without it.
    #[must_use]
    pub fn grpc_address(&self, service: &str) -> SocketAddr {
        self.ready.grpc.get(service).copied().unwrap_or_else(|| panic!("the ready file has no address of `{service}`"))
    }

    /// The services that run here and have a gRPC address.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.ready.grpc.keys().map(String::as_str)
    }

    /// A channel to a service, as the workload of this name.
    ///
    /// # Panics
    /// If there is no such service or no such workload.
    #[must_use]
    pub fn channel(&self, service: &str, workload: &str) -> Channel {
        let credentials = self.certificates().of(workload);
        grpc::channel(self.grpc_address(service), service, self.certificates(), Some(credentials))
    }

    /// A channel to a service with any credentials, or none.
    #[must_use]
    pub fn channel_with(&self, service: &str, credentials: Option<Credentials>) -> Channel {
        grpc::channel(self.grpc_address(service), service, self.certificates(), credentials)
    }

    /// The certificates of the mesh and its CA.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.ready.certificates
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.process.output()
    }

    /// The working directory.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The path of the tmpfs of [`Setup::tmpfs`], as seen by other processes.
    #[must_use]
    pub fn tmpfs_path(&self) -> PathBuf {
        let data = self.home.data();
        let relative = data.strip_prefix("/").expect("the path is absolute");
        PathBuf::from(format!("/proc/{}/root", self.id())).join(relative)
    }

    /// The ready file.
    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        self.home.path().join(READY_FILE)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl ReadyFile {
    /// `None` while the file does not exist.
    fn read(path: &std::path::Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let file: Value = serde_json::from_slice(&text)
            .unwrap_or_else(|error| panic!("the ready file is not JSON, or not written atomically: {error}"));
        let grpc = object(&file["grpc"]).map(|(name, address)| (name.clone(), socket(text_of(address)))).collect();
        let certificates = object(&file["certs"])
            .filter(|(name, _)| *name != "ca")
            .map(|(name, pair)| (name.clone(), [&pair["cert"], &pair["key"]].map(|path| PathBuf::from(text_of(path)))))
            .collect();
        Some(Self {
            rest: file["rest"].as_str().map(rest::address),
            admin: rest::address(text_of(&file["admin"])),
            grpc,
            certificates: Certificates::new(PathBuf::from(text_of(&file["certs"]["ca"])), certificates),
        })
    }
}

fn object(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().unwrap_or_else(|| panic!("the ready file has {value} instead of an object")).iter()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("the ready file has {value} instead of a string"))
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("`{text}` in the ready file is not an address: {error}"))
}
