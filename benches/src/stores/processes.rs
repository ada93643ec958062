//! A mesh as in production: a process for each service, and one for the edge, on PostgreSQL and Redis.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context, Result};
use drystone_tests::{Home, Mesh, certs::Certificates, modules, ports::some_free_addresses, services_on_postgres};
use tonic::transport::Channel;

use crate::process::resident_megabytes;

/// The issuer of access tokens, configured in all processes.
pub(crate) const ISSUER: &str = "https://id.example.com";

/// One process per module. Dropping it kills the processes.
#[derive(Debug)]
pub(crate) struct MeshProcesses {
    running: Vec<(&'static str, Mesh)>,
    certificates: Certificates,
    _home: Home,
}

impl MeshProcesses {
    /// Starts the processes and waits until they are ready. Configured as by default, except that there are no rate
    /// limits, and the Redis timeout is longer: on a busy machine, calls would exceed the default of 50 ms and fail.
    pub(crate) fn start(database: &str, redis: &str) -> Self {
        let home = Home::new();
        let certificates = Certificates::generate_in(&home.path().join("certs"));
        let modules = modules();
        let addresses = some_free_addresses(modules.len());
        let listeners = || modules.iter().zip(&addresses);
        // Processes depend on each other to become ready, so all are spawned first.
        let spawn = |name: &'static str| {
            let setup = Mesh::setup()
                .serve(&[name], &certificates)
                .set("issuer", ISSUER)
                .set("session.store", "redis")
                .set("limits.store", "redis")
                .set("redis.url", redis)
                .set("redis.timeout", "2s");
            let setup =
                listeners().fold(setup, |setup, (other, at)| setup.set(&format!("{other}.listen"), &at.to_string()));
            let on_server = services_on_postgres().into_iter();
            let setup = on_server.fold(setup, |setup, name| setup.set(&format!("{name}.database.url"), database));
            (name, setup.spawn())
        };
        let starting: Vec<_> = modules.iter().map(|name| spawn(name)).collect();
        let running = starting.into_iter().map(|(name, starting)| (name, starting.ready())).collect();
        Self { running, certificates, _home: home }
    }

    /// A channel to a service with the edge's certificate.
    pub(crate) fn channel(&self, service: &str) -> Result<Channel> {
        self.channel_as("edge", service)
    }

    /// A channel to a service with the certificate of this workload.
    pub(crate) fn channel_as(&self, workload: &str, service: &str) -> Result<Channel> {
        let (_, mesh) = self.running.iter().find(|(name, _)| *name == service).context("no such service")?;
        Ok(mesh.channel_with(service, Some(self.certificates.of(workload))))
    }

    /// The directory of the certificates.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.certificates.ca().parent().map(PathBuf::from).unwrap_or_default()
    }

    /// The address of a service.
    pub(crate) fn address(&self, service: &str) -> Result<SocketAddr> {
        let (_, mesh) = self.running.iter().find(|(name, _)| *name == service).context("no such service")?;
        Ok(mesh.grpc_address(service))
    }

    /// The resident memory of each process, in megabytes.
    pub(crate) fn memory(&self) -> Result<Vec<(&'static str, f64)>> {
        self.running.iter().map(|(name, mesh)| Ok((*name, resident_megabytes(mesh.id())?))).collect()
    }
}
