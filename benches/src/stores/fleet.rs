//! A mesh as it is run for real: a process for each service, and one for the edge, on PostgreSQL and Redis.

use anyhow::{Context, Result};
use drystone_tests::{Home, Mesh, certs::Certificates, parts, ports::some_free_addresses, services_on_postgres};
use tonic::transport::Channel;

use crate::startup::resident_megabytes;

/// The issuer of the tokens, which all have to know.
pub(crate) const ISSUER: &str = "https://id.example.com";

/// A process for each part, until it is dropped.
#[derive(Debug)]
pub(crate) struct Fleet {
    running: Vec<(&'static str, Mesh)>,
    certificates: Certificates,
    _home: Home,
}

impl Fleet {
    /// Starts all of them, and waits until they are ready. Everything is as it is by default, but for the limits of
    /// attempts, of which there are none, and for the patience with Redis: on a busy machine the default 50 ms pass while
    /// nobody is let in at all, and a figure over failed calls would be none.
    pub(crate) fn start(database: &str, redis: &str) -> Self {
        let home = Home::new();
        let certificates = Certificates::make_in(&home.path().join("certs"));
        let parts = parts();
        let addresses = some_free_addresses(parts.len());
        let everyone = || parts.iter().zip(&addresses);
        // Some wait for others, so that all have to begin before any can be ready.
        let begin = |name: &'static str| {
            let setup = Mesh::setup()
                .serve(&[name], &certificates)
                .set("issuer", ISSUER)
                .set("session.store", "redis")
                .set("limits.store", "redis")
                .set("redis.url", redis)
                .set("redis.timeout", "2s");
            let setup =
                everyone().fold(setup, |setup, (other, at)| setup.set(&format!("{other}.listen"), &at.to_string()));
            let on_server = services_on_postgres().into_iter();
            let setup = on_server.fold(setup, |setup, name| setup.set(&format!("{name}.database.url"), database));
            (name, setup.begin())
        };
        let starting: Vec<_> = parts.iter().map(|name| begin(name)).collect();
        let running = starting.into_iter().map(|(name, starting)| (name, starting.ready())).collect();
        Self { running, certificates, _home: home }
    }

    /// A channel to a service, as the edge has it.
    pub(crate) fn channel(&self, service: &str) -> Result<Channel> {
        let (_, mesh) = self.running.iter().find(|(name, _)| *name == service).context("no such service")?;
        Ok(mesh.channel_with(service, Some(self.certificates.of("edge"))))
    }

    /// The resident memory of each process, in megabytes.
    pub(crate) fn memory(&self) -> Result<Vec<(&'static str, f64)>> {
        self.running.iter().map(|(name, mesh)| Ok((*name, resident_megabytes(mesh.id())?))).collect()
    }
}
