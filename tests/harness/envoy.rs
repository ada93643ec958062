//! Envoy with the exported configuration.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use drystone_testing::{Home, Mesh, RestClient, ports::free_addresses, process, process::Process, wait};

use crate::{Cluster, cluster::peer_list, readme};

/// Envoy in front of a mesh. It is stopped when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    /// The process; its output is the access log.
    pub process: Process,
    /// Where it listens for clients.
    pub address: SocketAddr,
    /// Its admin port.
    pub admin: RestClient,
    /// The exported files.
    pub directory: PathBuf,
    _home: Home,
}

/// As the meshes of tests: they send more from one address than the limits allow.
const UNLIMITED: [(&str, &str); 5] = [
    ("limits.requests_per_minute", "0"),
    ("limits.registration_per_minute", "0"),
    ("limits.password_reset_per_minute", "0"),
    ("limits.email_per_minute", "0"),
    ("limits.factor_per_minute", "0"),
];

impl Envoy {
    /// Starts Envoy in front of the services of a mesh, without limits.
    pub async fn start(mesh: &Mesh) -> Self {
        Self::of(mesh, &UNLIMITED).await
    }

    /// Starts Envoy in front of the services of a mesh, with these configuration values.
    pub async fn of(mesh: &Mesh, settings: &[(&str, &str)]) -> Self {
        Self::with_workers(1, mesh, settings).await
    }

    /// As [`Self::of`], with this many worker threads.
    pub async fn with_workers(workers: u32, mesh: &Mesh, settings: &[(&str, &str)]) -> Self {
        let [address, admin] = free_addresses();
        Self::run(workers, "services", [address, admin], Self::environment(mesh, address, admin), settings).await
    }

    /// Starts Envoy in front of edges, with these configuration values.
    pub async fn of_edges(edges: &[SocketAddr], settings: &[(&str, &str)]) -> Self {
        let [address, admin] = free_addresses();
        let edges: Vec<String> = edges.iter().map(ToString::to_string).collect();
        let mut environment = listening(address, admin);
        environment.push(("DRYSTONE_ENVOY__EDGES".to_owned(), serde_json::json!(edges).to_string()));
        Self::run(1, "edge", [address, admin], environment, settings).await
    }

    /// Starts Envoy in front of all instances of the services of a cluster, without limits.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn of_cluster(cluster: &Cluster) -> Self {
        let [address, admin] = free_addresses();
        let certificates = cluster.certificates().ca().parent().expect("the CA is in a directory").to_path_buf();
        let mut environment = environment(&certificates.display().to_string(), crate::cluster::ISSUER, address, admin);
        for service in crate::services() {
            let addresses: Vec<_> = (0..cluster.instances()).map(|number| cluster.address(service, number)).collect();
            environment.push((peers(service), peer_list(&addresses)));
        }
        Self::run(1, "services", [address, admin], environment, &UNLIMITED).await
    }

    /// The settings of a mesh for an Envoy at these addresses, as environment variables.
    ///
    /// # Panics
    /// If the certificates are in no directory.
    #[must_use]
    pub fn environment(mesh: &Mesh, address: SocketAddr, admin: SocketAddr) -> Vec<(String, String)> {
        let certificates = mesh.certificates().ca().parent().expect("the CA is in a directory").display().to_string();
        let issuer = format!("http://{}", mesh.rest().address());
        let mut environment = environment(&certificates, &issuer, address, admin);
        environment.extend(mesh.services().map(|service| (peers(service), mesh.grpc_address(service).to_string())));
        environment
    }

    /// Its REST API.
    #[must_use]
    pub fn rest(&self) -> RestClient {
        RestClient::at(self.address)
    }

    async fn run(
        workers: u32,
        upstream: &str,
        [address, admin]: [SocketAddr; 2],
        environment: Vec<(String, String)>,
        settings: &[(&str, &str)],
    ) -> Self {
        let home = Home::new();
        let directory = home.path().join("envoy");
        let variable = |key: &str| format!("DRYSTONE_{}", key.replace('.', "__").to_uppercase());
        let mut export = process::drystone(&["export", "envoy", "--of", upstream, "--output"]);
        export.arg(&directory).envs(environment);
        let exported = process::run_to_end(export.envs(settings.iter().map(|(key, value)| (variable(key), value))));
        assert!(exported.status.success(), "{exported:?}");

        let mut command = Command::new(readme::tool("envoy"));
        command.arg("--config-path").arg(directory.join("envoy.yaml"));
        command.args(["--concurrency", &workers.to_string(), "--disable-hot-restart", "--log-level", "warning"]);
        command.args(["--file-flush-interval-msec", "100"]);
        let mut process = Process::start(&mut command, &home.path().join("envoy.log"), home.path());
        let admin = RestClient::at(admin);
        wait::until("Envoy is ready", async || {
            assert!(process.exit_status().is_none(), "Envoy has exited: {}", process.log());
            let ready = admin.get("/ready").try_send().await.ok()?;
            (ready.status == 200).then_some(())
        })
        .await;
        Self { process, address, admin, directory, _home: home }
    }
}

fn environment(certificates: &str, issuer: &str, address: SocketAddr, admin: SocketAddr) -> Vec<(String, String)> {
    let mut environment = listening(address, admin);
    environment.push(("DRYSTONE_CERTS_DIR".to_owned(), certificates.to_owned()));
    environment.push(("DRYSTONE_ISSUER".to_owned(), issuer.to_owned()));
    environment
}

fn listening(address: SocketAddr, admin: SocketAddr) -> Vec<(String, String)> {
    vec![
        ("DRYSTONE_ENVOY__LISTEN".to_owned(), address.to_string()),
        ("DRYSTONE_ENVOY__ADMIN".to_owned(), admin.to_string()),
    ]
}

fn peers(service: &str) -> String {
    format!("DRYSTONE_PEERS__{}", service.to_uppercase())
}
