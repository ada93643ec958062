//! Calls of the command line to services, as the workload `operator`.

use anyhow::{Result, anyhow};
use drystone_mesh::{
    client::{Channel, Dialer, DialerConfig},
    clock::Clock,
    error::reason_of,
    health::Health,
    identity::Identity,
    telemetry::Metrics,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use crate::{App, config::Config};

/// The workload of operators.
const NAME: &str = "operator";

/// A connection to the services of the mesh.
pub(crate) struct Operator {
    dialer: Dialer,
}

impl Operator {
    /// With the certificate `operator.pem` in `certs_dir`, and the addresses of the configuration. Must be called within a
    /// Tokio runtime.
    pub(crate) fn connect(app: &App, config: &Config) -> Result<Self> {
        let files = config.identity_files(NAME);
        let contracts = config.contracts(app)?;
        let dialer = Dialer::new(DialerConfig {
            caller: NAME,
            identity: Identity::load(&files)?,
            metrics: Metrics::new(&contracts),
            contracts,
            clock: Clock::system(),
            peers: config.peers(),
            health: Health::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        Ok(Self { dialer })
    }

    /// A channel to the service of this workload.
    pub(crate) fn channel(&self, workload: &str) -> Result<Channel> {
        Ok(self.dialer.channel(workload)?)
    }
}

/// The sentence of a refused or failed call.
pub(crate) fn failure(status: &Status) -> anyhow::Error {
    match reason_of(status) {
        Some(reason) => anyhow!("{} ({})", status.message(), reason.name()),
        None => anyhow!("{}", status.message()),
    }
}
