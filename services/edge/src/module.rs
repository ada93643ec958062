//! The edge as a module of a binary.

use drystone_mesh::module::{Context, Service as Module, ShutdownStage, StartError, Started};

use crate::{Config, Deps, NAME, RequestLimit, Service};

/// The limit that applies to every request.
const REQUEST_LIMIT: &str = "default";

impl Module for Service {
    const NAME: &'static str = NAME;
    const SHUTDOWN_STAGE: ShutdownStage = ShutdownStage::EntryPoint;
    const PORT: Option<u16> = Some(8080);
    type Config = Config;

    fn check(config: &Config) -> Result<(), String> {
        config.check()
    }

    /// The edge has no database: it needs its identity and the addresses of the services.
    async fn start(context: Context<Config>) -> Result<Started, StartError> {
        let per_minute = context.shared.limits_per_minute.get(REQUEST_LIMIT).copied().unwrap_or_default();
        let requests = match per_minute {
            // Without a limit no store for counters is needed.
            0 => RequestLimit::none(),
            per_minute => RequestLimit::new(&context.limits()?, per_minute),
        };
        let dialer = context.dialer();
        let service = Self::new(Deps {
            tokens: context.entry_point_verifier(&dialer)?,
            contracts: context.shared.contracts.clone(),
            dialer,
            health: context.shared.health.clone(),
            metrics: context.shared.metrics.clone(),
            config: context.config,
            requests,
        })?;
        Ok(Started::new(|listener, stop| service.run(listener, stop)))
    }
}
