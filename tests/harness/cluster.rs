//! A mesh in which each service instance is a process with its own certificate, and can be stopped and started.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    Edges, Home, Mesh, MetricsSnapshot, RestClient, Setup, Starting,
    certs::{Certificates, Credentials},
    grpc, modules,
    ports::some_free_addresses,
    process, wait,
};

/// The token issuer of all instances.
pub(crate) const ISSUER: &str = "https://id.example.com";

/// A service or the edge, and the number of the instance, from 0.
type InstanceKey = (&'static str, usize);

/// A mesh in many processes, which are killed when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    instances: usize,
    settings: Vec<(String, String)>,
    addresses: BTreeMap<&'static str, Vec<SocketAddr>>,
    /// One set for each instance number.
    certificates: Vec<Certificates>,
    running: Mutex<BTreeMap<InstanceKey, Mesh>>,
    /// The directories of stopped instances.
    homes: Mutex<BTreeMap<InstanceKey, Home>>,
    _home: Home,
}

impl Cluster {
    /// One instance of each service, on embedded stores.
    pub async fn single_instances() -> Self {
        Self::start(1, &[]).await
    }

    /// Starts this many instances of each service with these configuration values, and waits until all are healthy. With
    /// more than one instance, the stores have to be PostgreSQL and Redis.
    pub async fn start(instances: usize, settings: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let first = Certificates::generate_in(&home.path().join("certs-0"));
        let others = (1..instances).map(|number| first.reissue_in(&home.path().join(format!("certs-{number}"))));
        let others: Vec<_> = others.collect();
        let certificates: Vec<_> = [first].into_iter().chain(others).collect();
        // Every instance is configured with the addresses of all others.
        let mut free = some_free_addresses(modules().len() * instances).into_iter();
        let addresses = modules().into_iter().map(|part| (part, free.by_ref().take(instances).collect())).collect();
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (running, homes) = (Mutex::default(), Mutex::default());
        let this = Self { instances, settings, addresses, certificates, running, homes, _home: home };
        this.start_missing().await;
        this
    }

    /// Starts all instances that do not run, and waits until all are healthy.
    pub async fn start_missing(&self) {
        let missing: Vec<InstanceKey> = {
            let running = self.running();
            self.all().filter(|instance| !running.contains_key(instance)).collect()
        };
        // Some instances become ready only after others have started.
        let starting: Vec<_> = missing.into_iter().map(|instance| (instance, self.spawn(instance))).collect();
        let started: Vec<_> = starting.into_iter().map(|(instance, starting)| (instance, starting.ready())).collect();
        self.running().extend(started);
        self.wait_until_healthy().await;
    }

    /// Starts an instance and waits until it is ready.
    ///
    /// # Panics
    /// If it is running, or does not become ready.
    pub fn start_one(&self, part: &'static str, number: usize) {
        assert!(!self.running().contains_key(&(part, number)), "{part} {number} is already running");
        let mesh = self.spawn((part, number)).ready();
        self.running().insert((part, number), mesh);
    }

    /// Stops an instance gracefully and waits until its process has exited.
    ///
    /// # Panics
    /// If it is not running, or does not exit with success.
    pub fn stop_one(&self, part: &'static str, number: usize) {
        let home = self.take(part, number).stop();
        self.homes().insert((part, number), home);
    }

    /// Kills an instance (SIGKILL).
    ///
    /// # Panics
    /// If it is not running.
    pub fn kill_one(&self, part: &'static str, number: usize) {
        let home = self.take(part, number).kill();
        self.homes().insert((part, number), home);
    }

    /// Pauses an instance (SIGSTOP): its connections stay open and are not served.
    pub fn pause_one(&self, part: &'static str, number: usize) {
        process::send("STOP", self.running()[&(part, number)].id());
    }

    /// Resumes a paused instance.
    pub fn resume_one(&self, part: &'static str, number: usize) {
        process::send("CONT", self.running()[&(part, number)].id());
    }

    /// An additional instance that is in no other instance's configuration.
    #[must_use]
    pub fn extra_instance(&self, part: &'static str) -> Setup {
        self.setup((part, 0), Home::new()).set(&format!("{part}.listen"), "127.0.0.1:0")
    }

    /// The process id of an instance.
    ///
    /// # Panics
    /// If it is not running.
    #[must_use]
    pub fn process_id(&self, part: &'static str, number: usize) -> u32 {
        self.running()[&(part, number)].id()
    }

    /// Instances of each service.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// The address of an instance.
    #[must_use]
    pub fn address(&self, part: &str, number: usize) -> SocketAddr {
        self.addresses[part][number]
    }

    /// The REST API of one edge.
    #[must_use]
    pub fn rest(&self, number: usize) -> RestClient {
        RestClient::at(self.address("edge", number))
    }

    /// The REST API, balanced over all edges.
    #[must_use]
    pub fn edges(&self) -> Edges {
        Edges::new((0..self.instances).map(|number| self.rest(number)))
    }

    /// A channel to an instance, with the certificate of this workload.
    #[must_use]
    pub fn channel(&self, service: &str, number: usize, workload: &str) -> Channel {
        let certificates = &self.certificates[0];
        grpc::channel(self.address(service, number), service, certificates, Some(certificates.of(workload)))
    }

    /// The certificate and key of an instance.
    #[must_use]
    pub fn credentials(&self, part: &str, number: usize) -> Credentials {
        self.certificates[number].of(part)
    }

    /// The certificates of the test clients and of the first instances.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates[0]
    }

    /// The certificates of the instances of this number.
    #[must_use]
    pub fn certificates_of(&self, number: usize) -> &Certificates {
        &self.certificates[number]
    }

    /// The detailed health report of an instance.
    pub async fn health(&self, part: &'static str, number: usize) -> Value {
        self.admin(part, number).get("/health/detailed").send().await.expect(200).json()
    }

    /// The current metrics of an instance.
    pub async fn metrics(&self, part: &'static str, number: usize) -> MetricsSnapshot {
        MetricsSnapshot::parse(&self.admin(part, number).get("/metrics").send().await.expect(200).text())
    }

    /// How many calls an instance has served since its start: REST for the edge, gRPC for a service, without health checks,
    /// key fetches and revocation streams.
    pub async fn served_calls(&self, part: &'static str, number: usize) -> f64 {
        let metrics = self.metrics(part, number).await;
        if part == "edge" {
            return metrics.sum("drystone_edge_requests_total", &[]);
        }
        let all = metrics.sum("drystone_calls_total", &[]);
        let background = ["Check", "WatchRevocations", "GetJwks"];
        all - background.map(|method| metrics.sum("drystone_calls_total", &[("method", method)])).iter().sum::<f64>()
    }

    /// The log of an instance.
    #[must_use]
    pub fn log(&self, part: &'static str, number: usize) -> String {
        self.running()[&(part, number)].log()
    }

    /// Waits until every running instance reports the status `ok`.
    pub async fn wait_until_healthy(&self) {
        let running: Vec<InstanceKey> = self.running().keys().copied().collect();
        for (part, number) in running {
            wait::until(&format!("{part} {number} is healthy"), async || {
                (self.health(part, number).await["status"] == "ok").then_some(())
            })
            .await;
        }
    }

    fn all(&self) -> impl Iterator<Item = InstanceKey> {
        modules().into_iter().flat_map(|part| (0..self.instances).map(move |number| (part, number)))
    }

    fn admin(&self, part: &'static str, number: usize) -> RestClient {
        RestClient::at(self.running()[&(part, number)].admin_address())
    }

    fn spawn(&self, instance: InstanceKey) -> Starting {
        let home = self.homes().remove(&instance).unwrap_or_default();
        let (part, number) = instance;
        self.setup(instance, home).set(&format!("{part}.listen"), &self.address(part, number).to_string()).spawn()
    }

    fn setup(&self, (part, number): InstanceKey, home: Home) -> Setup {
        let setup = Mesh::setup().home(home).serve(&[part], &self.certificates[number]).set("issuer", ISSUER);
        let setup = crate::services()
            .into_iter()
            .fold(setup, |setup, other| setup.set(&format!("peers.{other}"), &peer_list(&self.addresses[other])));
        self.settings.iter().fold(setup, |setup, (key, value)| setup.set(key, value))
    }

    fn take(&self, part: &'static str, number: usize) -> Mesh {
        self.running().remove(&(part, number)).unwrap_or_else(|| panic!("{part} {number} is not running"))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Mesh>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn homes(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses as a value of `[peers]`.
#[must_use]
pub fn peer_list(addresses: &[SocketAddr]) -> String {
    match addresses {
        [one] => one.to_string(),
        several => {
            let quoted: Vec<_> = several.iter().map(|address| format!("\"{address}\"")).collect();
            format!("[{}]", quoted.join(","))
        }
    }
}
