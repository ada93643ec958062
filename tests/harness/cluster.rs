//! A mesh whose services run apart, each instance a process of its own with a certificate of its own, and come and go.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tonic::transport::Channel;

use crate::{
    Front, Home, Mesh, Metrics, Rest, Setup, Starting,
    certs::{Certificates, Credentials},
    grpc, parts,
    ports::some_free_addresses,
    process, wait,
};

/// The issuer, which must be the same for all.
const ISSUER: &str = "https://id.example.com";

/// A part and which of its instances, from 0 on.
type Instance = (&'static str, usize);

/// A mesh in many processes, which end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    instances: usize,
    settings: Vec<(String, String)>,
    addresses: BTreeMap<&'static str, Vec<SocketAddr>>,
    /// A set for each instance number.
    certificates: Vec<Certificates>,
    running: Mutex<BTreeMap<Instance, Mesh>>,
    /// What those left that do not run.
    homes: Mutex<BTreeMap<Instance, Home>>,
    _home: Home,
}

impl Cluster {
    /// One of each, on embedded stores.
    pub async fn apart() -> Self {
        Self::start(1, &[]).await
    }

    /// So many of each, with these configuration values, and waits until all is well. Where there are several, databases
    /// and sessions have to be on servers.
    pub async fn start(instances: usize, settings: &[(&str, &str)]) -> Self {
        let home = Home::new();
        let first = Certificates::make_in(&home.path().join("certs-0"));
        let more = (1..instances).map(|number| first.make_more_in(&home.path().join(format!("certs-{number}"))));
        let certificates: Vec<_> = more.collect();
        let certificates: Vec<_> = [first].into_iter().chain(certificates).collect();
        // Each has to know where the others will be.
        let mut free = some_free_addresses(parts().len() * instances).into_iter();
        let addresses = parts().into_iter().map(|part| (part, free.by_ref().take(instances).collect())).collect();
        let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (running, homes) = (Mutex::default(), Mutex::default());
        let this = Self { instances, settings, addresses, certificates, running, homes, _home: home };
        this.complete().await;
        this
    }

    /// Starts whatever does not run, and waits until all is well.
    pub async fn complete(&self) {
        let missing: Vec<Instance> = {
            let running = self.running();
            self.all().filter(|instance| !running.contains_key(instance)).collect()
        };
        // Some wait for others, so that all have to begin before any need be ready.
        let starting: Vec<_> = missing.into_iter().map(|instance| (instance, self.begin(instance))).collect();
        let started: Vec<_> = starting.into_iter().map(|(instance, starting)| (instance, starting.ready())).collect();
        self.running().extend(started);
        self.until_well().await;
    }

    /// Starts an instance that does not run, and waits until it says that it is ready.
    ///
    /// # Panics
    /// If it runs, or does not become ready.
    pub fn start_one(&self, part: &'static str, number: usize) {
        assert!(!self.running().contains_key(&(part, number)), "{part} {number} runs already");
        let mesh = self.begin((part, number)).ready();
        self.running().insert((part, number), mesh);
    }

    /// Stops an instance as an operator does, and waits until it is gone.
    ///
    /// # Panics
    /// If it does not run, or does not end in order.
    pub fn stop_one(&self, part: &'static str, number: usize) {
        let home = self.take(part, number).stop();
        self.homes().insert((part, number), home);
    }

    /// Ends an instance as a power cut does.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_one(&self, part: &'static str, number: usize) {
        let home = self.take(part, number).kill();
        self.homes().insert((part, number), home);
    }

    /// Lets an instance stand still: connections to it stay, and nothing comes of them.
    pub fn pause_one(&self, part: &'static str, number: usize) {
        process::send("STOP", self.running()[&(part, number)].id());
    }

    /// Lets it go on.
    pub fn resume_one(&self, part: &'static str, number: usize) {
        process::send("CONT", self.running()[&(part, number)].id());
    }

    /// One more process of a part, which the others do not know of. Configuration values can be added to it.
    #[must_use]
    pub fn one_more(&self, part: &'static str) -> Setup {
        self.setup((part, 0), Home::new()).set(&format!("{part}.listen"), "127.0.0.1:0")
    }

    /// The process id of an instance.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn id(&self, part: &'static str, number: usize) -> u32 {
        self.running()[&(part, number)].id()
    }

    /// How many there are of each.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.instances
    }

    /// Where an instance is.
    #[must_use]
    pub fn address(&self, part: &str, number: usize) -> SocketAddr {
        self.addresses[part][number]
    }

    /// The REST API, at one of the edges.
    #[must_use]
    pub fn rest(&self, number: usize) -> Rest {
        Rest::at(self.address("edge", number))
    }

    /// The REST API, at all of the edges.
    #[must_use]
    pub fn front(&self) -> Front {
        Front::new((0..self.instances).map(|number| self.rest(number)))
    }

    /// A channel to an instance, as the workload of this name.
    #[must_use]
    pub fn channel(&self, service: &str, number: usize, workload: &str) -> Channel {
        let certificates = &self.certificates[0];
        grpc::channel(self.address(service, number), service, certificates, Some(certificates.of(workload)))
    }

    /// What an instance shows to prove itself.
    #[must_use]
    pub fn credentials(&self, part: &str, number: usize) -> Credentials {
        self.certificates[number].of(part)
    }

    /// The certificates of the tests, and of the first of each.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates[0]
    }

    /// What an instance says of its health.
    pub async fn health(&self, part: &'static str, number: usize) -> Value {
        self.admin(part, number).get("/health/detailed").send().await.expect(200).json()
    }

    /// What an instance counts, as it stands now.
    pub async fn metrics(&self, part: &'static str, number: usize) -> Metrics {
        Metrics::parse(&self.admin(part, number).get("/metrics").send().await.expect(200).text())
    }

    /// How many calls an instance has answered since it was started: an edge over REST, a service by gRPC, questions for
    /// its health and what everybody listens to left out.
    pub async fn served(&self, part: &'static str, number: usize) -> f64 {
        let metrics = self.metrics(part, number).await;
        if part == "edge" {
            return metrics.sum("drystone_edge_requests_total", &[]);
        }
        let all = metrics.sum("drystone_calls_total", &[]);
        let background = ["Check", "WatchRevocations", "GetJwks"];
        all - background.map(|method| metrics.sum("drystone_calls_total", &[("method", method)])).iter().sum::<f64>()
    }

    /// All that an instance has logged.
    #[must_use]
    pub fn log(&self, part: &'static str, number: usize) -> String {
        self.running()[&(part, number)].log()
    }

    /// Waits until every instance that runs says that all is well.
    pub async fn until_well(&self) {
        let running: Vec<Instance> = self.running().keys().copied().collect();
        for (part, number) in running {
            wait::until(&format!("{part} {number} is well"), async || {
                (self.health(part, number).await["status"] == "ok").then_some(())
            })
            .await;
        }
    }

    fn all(&self) -> impl Iterator<Item = Instance> {
        parts().into_iter().flat_map(|part| (0..self.instances).map(move |number| (part, number)))
    }

    fn admin(&self, part: &'static str, number: usize) -> Rest {
        Rest::at(self.running()[&(part, number)].admin_address())
    }

    fn begin(&self, instance: Instance) -> Starting {
        let home = self.homes().remove(&instance).unwrap_or_default();
        let (part, number) = instance;
        self.setup(instance, home).set(&format!("{part}.listen"), &self.address(part, number).to_string()).begin()
    }

    fn setup(&self, (part, number): Instance, home: Home) -> Setup {
        let setup = Mesh::setup().home(home).serve(&[part], &self.certificates[number]).set("issuer", ISSUER);
        let setup = crate::services()
            .into_iter()
            .fold(setup, |setup, other| setup.set(&format!("peers.{other}"), &listed(&self.addresses[other])));
        self.settings.iter().fold(setup, |setup, (key, value)| setup.set(key, value))
    }

    fn take(&self, part: &'static str, number: usize) -> Mesh {
        self.running().remove(&(part, number)).unwrap_or_else(|| panic!("{part} {number} does not run"))
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Instance, Mesh>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn homes(&self) -> MutexGuard<'_, BTreeMap<Instance, Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses as `[peers]` takes them.
#[must_use]
pub fn listed(addresses: &[SocketAddr]) -> String {
    match addresses {
        [one] => one.to_string(),
        several => {
            let quoted: Vec<_> = several.iter().map(|address| format!("\"{address}\"")).collect();
            format!("[{}]", quoted.join(","))
        }
    }
}
