//! A running mesh: the real binary, on free ports, with real certificates.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, sync::OnceLock};

use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    Home, binary,
    certs::{Certificates, Credentials},
    grpc,
    metrics::Metrics,
    process::{self, Process},
    rest::{self, Answer, Rest},
    wait::until_blocking,
};

const READY_FILE: &str = "ready.json";

/// A mesh that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Mesh {
    process: Process,
    ready: Ready,
    home: Home,
}

/// What the ready file says.
#[derive(Debug)]
struct Ready {
    rest: Option<SocketAddr>,
    admin: SocketAddr,
    grpc: BTreeMap<String, SocketAddr>,
    certificates: Certificates,
}

/// How a mesh is to be started.
#[derive(Debug, Default)]
pub struct Setup {
    binary: Option<PathBuf>,
    home: Option<Home>,
    /// What is run with `drystone serve`; nothing for `drystone up`.
    served: Vec<&'static str>,
    /// Whether `drystone up` is told that nobody is looking.
    is_for_a_person: bool,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    limited: bool,
    /// How many MiB there are for its data.
    disk: Option<u32>,
}

/// A mesh that has been started and may not be ready yet.
#[derive(Debug)]
#[must_use]
pub struct Starting {
    process: Process,
    home: Home,
}

impl Setup {
    /// With this binary instead of `drystone`: one of another team, with a service more.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// On the data of a mesh that was there before.
    #[must_use]
    pub fn home(mut self, home: Home) -> Self {
        self.home = Some(home);
        self
    }

    /// Without one of its services.
    #[must_use]
    pub fn without(self, service: &str) -> Self {
        self.argument("--without").argument(service)
    }

    /// Only these services, as `drystone serve` runs them: with the certificates of a mesh that is there already, and
    /// knowing the others by `peers.NAME`.
    #[must_use]
    pub fn serve(mut self, names: &[&'static str], certificates: &Certificates) -> Self {
        self.served = names.to_vec();
        let directory = certificates.ca().parent().expect("the CA's certificate lies in a directory");
        let mut setup = self.set("certs_dir", directory.to_str().expect("the path is UTF-8"));
        for name in names.iter().chain(&["admin"]) {
            setup = setup.set(&format!("{name}.listen"), "127.0.0.1:0");
        }
        setup
    }

    /// As a person starts it, so that it says what runs where; the ports are free ones all the same.
    #[must_use]
    pub fn for_a_person(mut self) -> Self {
        self.is_for_a_person = true;
        let sections = crate::services().into_iter().chain(["admin", "edge"]);
        sections.fold(self, |setup, name| setup.set(&format!("{name}.listen"), "127.0.0.1:0"))
    }

    /// With a configuration value, such as `("log.filter", "debug")`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        let name = format!("DRYSTONE_{}", key.replace('.', "__").to_ascii_uppercase());
        self.environment.push((name, value.to_owned()));
        self
    }

    /// With the limits of a mesh that nobody has configured. Others have none: their tests sign in from one address, and
    /// more often than anybody may.
    #[must_use]
    pub fn limited(mut self) -> Self {
        self.limited = true;
        self
    }

    /// With a disk of so many MiB of its own for its data. It is there as long as the process, and [`Mesh::disk`] says
    /// where to find it.
    #[must_use]
    pub fn disk(mut self, size: u32) -> Self {
        self.disk = Some(size);
        self
    }

    /// With an argument of the command line.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts it, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become so.
    #[must_use]
    pub fn start(self) -> Mesh {
        self.begin().ready()
    }

    /// Starts it, and does not wait: it may be that it needs others to become ready.
    ///
    /// # Panics
    /// If the program cannot be run at all.
    pub fn begin(self) -> Starting {
        let home = self.home.unwrap_or_default();
        let binary = self.binary.unwrap_or_else(binary::drystone);
        let ready_file = home.path().join(READY_FILE);
        // One that an earlier mesh left says nothing of ours.
        let _there_may_be_none = fs::remove_file(&ready_file);
        let mut command = if self.served.is_empty() {
            let mut command = process::command(&binary, &["up"]);
            if self.is_for_a_person {
                command.env("DRYSTONE_CERTS_DIR", home.data().join("certs"));
            } else {
                command.arg("--ephemeral");
            }
            command
        } else {
            let mut command = process::command(&binary, &["serve"]);
            command.args(&self.served);
            command
        };
        command.arg("--ready-file").arg(&ready_file).env("DRYSTONE_DATA_DIR", home.data());
        if self.served.is_empty() {
            command.arg("--data-dir").arg(home.data());
        }
        if !self.limited {
            command
                .env("DRYSTONE_LIMITS__REQUESTS_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__SIGN_IN_PER_MINUTE", "0")
                .env("DRYSTONE_LIMITS__REGISTRATION_PER_MINUTE", "0");
        }
        command.args(&self.arguments).envs(self.environment);
        // What a process that is not told otherwise would write, it writes here.
        command.current_dir(home.path());
        if let Some(size) = self.disk {
            fs::create_dir_all(home.data()).expect("a directory can be made");
            command = process::on_a_disk_of_its_own(&command, &home.data(), size);
        }
        Starting { process: Process::start(&mut command, &home.log(), home.path()), home }
    }
}

impl Starting {
    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// If it does not become so.
    #[must_use]
    pub fn ready(self) -> Mesh {
        // In this order, so that the log is still there for a process that goes with a failure.
        let Self { home, mut process } = self;
        let ready_file = home.path().join(READY_FILE);
        let ready = until_blocking(|| match process.ended() {
            Some(status) => Err(format!("it ended with {status}")),
            None => Ok(Ready::read(&ready_file)),
        });
        let ready = ready.unwrap_or_else(|error| panic!("the mesh did not become ready: {error}"));
        Mesh { process, ready, home }
    }
}

impl Mesh {
    /// The mesh that the tests of one file share. It ends with their process.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Mesh> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A mesh of one's own, with nothing out of the ordinary.
    #[must_use]
    pub fn start() -> Self {
        Self::setup().start()
    }

    /// A mesh of one's own, that can be told how it is to be.
    #[must_use]
    pub fn setup() -> Setup {
        Setup::default()
    }

    /// Stops it as an operator does, and hands back what it leaves behind.
    ///
    /// # Panics
    /// If it does not end, or with a code other than zero.
    #[must_use = "what is left goes away with it"]
    pub fn stop(self) -> Home {
        self.process.stop();
        self.home
    }

    /// Stops it as a person does, with Ctrl-C, and hands back what it leaves behind.
    ///
    /// # Panics
    /// If it does not end, or with a code other than zero.
    #[must_use = "what is left goes away with it"]
    pub fn interrupt(self) -> Home {
        self.process.interrupt();
        self.home
    }

    /// Ends it as a power cut does, and hands back what it leaves behind.
    #[must_use = "what is left goes away with it"]
    pub fn kill(self) -> Home {
        self.process.kill();
        self.home
    }

    /// The REST API.
    ///
    /// # Panics
    /// If the mesh runs without an edge.
    #[must_use]
    pub fn rest(&self) -> Rest {
        Rest::at(self.ready.rest.expect("the ready file has the address of the edge"))
    }

    /// Asks the admin port.
    pub async fn admin(&self, path: &str) -> Answer {
        Rest::at(self.ready.admin).get(path).send().await
    }

    /// The address of the admin port.
    #[must_use]
    pub fn admin_address(&self) -> SocketAddr {
        self.ready.admin
    }

    /// What is counted, as it stands now.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.admin("/metrics").await.expect(200).text())
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

    /// A channel to a service with whatever certificate, or none.
    #[must_use]
    pub fn channel_with(&self, service: &str, credentials: Option<Credentials>) -> Channel {
        grpc::channel(self.grpc_address(service), service, self.certificates(), credentials)
    }

    /// The mesh's certificates, and the CA that makes more.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.ready.certificates
    }

    /// All that it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What it has said on standard output.
    #[must_use]
    pub fn greeting(&self) -> String {
        self.process.output()
    }

    /// Where it lives.
    #[must_use]
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The disk that it was given with [`Setup::disk`], as others can see it.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        let data = self.home.data();
        let from_the_root = data.strip_prefix("/").expect("the path is absolute");
        PathBuf::from(format!("/proc/{}/root", self.id())).join(from_the_root)
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

impl Ready {
    /// `None` as long as the file is not there.
    fn read(path: &std::path::Path) -> Option<Self> {
        let text = fs::read(path).ok()?;
        let file: Value = serde_json::from_slice(&text)
            .unwrap_or_else(|error| panic!("the ready file is not JSON, or not written at one go: {error}"));
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
    value.as_object().unwrap_or_else(|| panic!("the ready file has {value} where an object belongs")).iter()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("the ready file has {value} where a text belongs"))
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("`{text}` in the ready file is no address: {error}"))
}
