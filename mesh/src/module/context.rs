//! The start context of a service.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use drystone::{
    auth::v1::{key_service_client::KeyServiceClient, key_service_server},
    contract::Contracts,
};
use http::Extensions;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::ShadowRules,
    client::{DialError, Dialer, DialerConfig, Peers},
    clock::Clock,
    health::{Health, Kind},
    identity::Identity,
    limit::{ClassLimits, LimitStore, LimiterFactory, SharedLimits},
    node::{Node, NodeConfig},
    server::ServerLimits,
    telemetry::Metrics,
    token::{KeySet, TokenMetrics, TokenVerifier, TokenVerifierConfig, WithdrawnKeys, watch_keys},
};

use super::StartError;

/// The start context of one service.
pub struct Context<C> {
    /// The workload's name.
    pub name: &'static str,
    /// The service's own configuration.
    pub config: C,
    /// The certificate, key and roots.
    pub identity: Identity,
    /// Resources opened by the binary, by type, such as the database.
    pub resources: Extensions,
    /// Shared with other services of the process.
    pub shared: Arc<Shared>,
    /// Tracks background tasks, which are awaited after the stop.
    pub tasks: TaskTracker,
    /// Stops background tasks.
    pub stop: CancellationToken,
    /// Stops serving; background tasks continue until `stop`.
    pub stop_serving: CancellationToken,
}

/// What the services of one process share.
pub struct Shared {
    /// The contracts of the mesh.
    pub contracts: Contracts,
    /// The rules of coming contracts, which deny nothing.
    pub shadow_rules: ShadowRules,
    /// The `iss` of access tokens.
    pub issuer: String,
    /// The accepted tokens.
    pub tokens: TokenVerifierConfig,
    /// The addresses of all services.
    pub peers: Peers,
    /// The directory for files of services.
    pub data_dir: PathBuf,
    /// The source of time.
    pub clock: Clock,
    /// Receives metrics.
    pub metrics: Metrics,
    /// Receives the health of components.
    pub health: Health,
    /// Calls per minute by class of limit, and `default` for requests to the edge.
    pub limits_per_minute: BTreeMap<String, u32>,
    /// Rate limits.
    pub limits: SharedLimits,
    /// The limits of each gRPC server.
    pub server_limits: ServerLimits,
}

impl<C> Context<C> {
    /// Creates the service's node, which keeps keys and revocations up to date.
    ///
    /// # Errors
    /// The auth or session service has no address, or the store of limits is misconfigured.
    pub fn node(&self) -> Result<Node, StartError> {
        let Shared { contracts, shadow_rules, tokens, peers, clock, metrics, health, server_limits, .. } =
            &*self.shared;
        Ok(Node::start(NodeConfig {
            name: self.name,
            identity: self.identity.clone(),
            contracts: contracts.clone(),
            shadow_rules: shadow_rules.clone(),
            limits: self.class_limits()?,
            server_limits: server_limits.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            peers: peers.clone(),
            tokens: tokens.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        })?)
    }

    /// Calls to other services, for a service that verifies no tokens.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        let Shared { contracts, clock, peers, health, metrics, .. } = &*self.shared;
        Dialer::new(DialerConfig {
            caller: self.name,
            identity: self.identity.clone(),
            contracts: contracts.clone(),
            clock: clock.clone(),
            peers: peers.clone(),
            health: health.clone(),
            metrics: metrics.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        })
    }

    /// A token verifier for an entry point, with keys that are kept up to date. It leaves revocation to the services.
    ///
    /// # Errors
    /// The service of keys has no address.
    pub fn entry_point_verifier(&self, dialer: &Dialer) -> Result<TokenVerifier, StartError> {
        let Shared { contracts, tokens, clock, metrics, .. } = &*self.shared;
        let keys = KeySet::default();
        let service = key_service_server::SERVICE_NAME;
        let workload = contracts.workload_of(service).ok_or(DialError::UnknownService(service))?;
        let client = KeyServiceClient::new(dialer.channel(workload)?);
        self.tasks.spawn(watch_keys(client, keys.clone(), WithdrawnKeys::default(), self.stop.clone()));
        let token_metrics = TokenMetrics::new(metrics, self.name);
        Ok(TokenVerifier::for_entry_point(tokens.clone(), keys, clock.clone()).with_metrics(token_metrics))
    }

    /// The rate limits of the process. While a shared store is unavailable, a stricter local limit applies, so the store is
    /// optional.
    ///
    /// # Errors
    /// The store is misconfigured.
    pub fn limits(&self) -> Result<LimiterFactory, StartError> {
        let probe = |store: &dyn LimitStore| {
            let component = self.shared.health.component(format!("{} limits", self.name), Kind::Optional);
            self.tasks.spawn(store.probe(component, self.stop.clone()));
        };
        self.shared.limits.factory(probe).cloned()
    }

    /// The rate limits of this service's RPCs.
    fn class_limits(&self) -> Result<ClassLimits, StartError> {
        let Shared { contracts, limits_per_minute, .. } = &*self.shared;
        let own = contracts.methods().iter().filter(|method| *method.workload == *self.name);
        let in_process = self.shared.limits.in_process();
        ClassLimits::new(own.map(Arc::as_ref), limits_per_minute, in_process, || self.limits())
    }

    /// Replaces the configuration.
    #[must_use]
    pub fn map_config<D>(self, map: impl FnOnce(C) -> D) -> Context<D> {
        let Self { name, config, identity, resources, shared, tasks, stop, stop_serving } = self;
        Context { name, config: map(config), identity, resources, shared, tasks, stop, stop_serving }
    }
}

impl<C> fmt::Debug for Context<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("name", &self.name).finish_non_exhaustive()
    }
}
