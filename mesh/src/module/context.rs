//! What a service is started with.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, OnceLock},
};

use drystone::contract::Contracts;
use http::Extensions;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    client::{Dialer, DialerConfig, Peers},
    clock::Clock,
    health::{Health, Kind},
    identity::Identity,
    limit::{ClassLimits, LimiterFactory},
    node::{Node, NodeConfig},
    telemetry::Metrics,
    token::TokenVerifierConfig,
};

use super::StartError;

/// What one service is started with.
pub struct Context<C> {
    /// The workload's name.
    pub name: &'static str,
    /// Its own keys of its section of the configuration.
    pub config: C,
    /// Its certificate, key and roots.
    pub identity: Identity,
    /// What the binary has opened for it, by type, such as its database.
    pub resources: Extensions,
    /// What it shares with the other services of the process.
    pub shared: Arc<Shared>,
    /// Its background work, which is waited for after it has been stopped.
    pub tasks: TaskTracker,
    /// Ends its background work.
    pub stop: CancellationToken,
    /// Tells it to stop serving; background work goes on until `stop`.
    pub stop_serving: CancellationToken,
}

/// What the services of one process share.
pub struct Shared {
    /// The contracts of the mesh.
    pub contracts: Contracts,
    /// The `iss` of access tokens: where clients reach the mesh.
    pub issuer: String,
    /// Which tokens are accepted.
    pub tokens: TokenVerifierConfig,
    /// Where every service is.
    pub peers: Peers,
    /// The time.
    pub clock: Clock,
    /// Where to count.
    pub metrics: Metrics,
    /// Where to say how one is.
    pub health: Health,
    /// How many calls a minute each limit allows, by its name in the contracts, and `default` for requests to the edge.
    pub limits_per_minute: BTreeMap<String, u32>,
    /// What counts attempts.
    pub limits: SharedLimits,
}

/// What counts attempts for all services of a process, opened by the first that counts.
pub struct SharedLimits {
    open: Box<dyn Fn() -> Result<LimiterFactory, StartError> + Send + Sync>,
    opened: OnceLock<LimiterFactory>,
}

impl SharedLimits {
    /// Opened so when it is first asked for.
    pub fn new(open: impl Fn() -> Result<LimiterFactory, StartError> + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open), opened: OnceLock::new() }
    }
}

impl<C> Context<C> {
    /// The service's node: it calls others, and checks tokens with keys and revocations that are kept up to date.
    ///
    /// # Errors
    /// It is not known where the auth or the session service is, or what counts attempts cannot be used.
    pub fn node(&self) -> Result<Node, StartError> {
        let Shared { contracts, tokens, peers, clock, metrics, health, .. } = &*self.shared;
        Ok(Node::start(NodeConfig {
            name: self.name,
            identity: self.identity.clone(),
            contracts: contracts.clone(),
            limits: self.class_limits()?,
            clock: clock.clone(),
            metrics: metrics.clone(),
            health: health.clone(),
            peers: peers.clone(),
            tokens: tokens.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        })?)
    }

    /// Calls to other services, for one that checks no tokens itself.
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

    /// What counts attempts, for all of the process. While a shared store is unavailable, a stricter limit of the process
    /// applies, so that the store is not vital to a service that counts there.
    ///
    /// # Errors
    /// The store is not configured as it has to be.
    pub fn limits(&self) -> Result<LimiterFactory, StartError> {
        let SharedLimits { open, opened } = &self.shared.limits;
        if let Some(limits) = opened.get() {
            return Ok(limits.clone());
        }
        let limits = open()?;
        if let Some(store) = limits.store() {
            let component = self.shared.health.component(format!("{} limits", self.name), Kind::Optional);
            self.tasks.spawn(store.probe(component, self.stop.clone()));
        }
        Ok(opened.get_or_init(|| limits).clone())
    }

    /// The limits that the RPCs of this service count for.
    fn class_limits(&self) -> Result<ClassLimits, StartError> {
        let Shared { contracts, limits_per_minute, .. } = &*self.shared;
        let own = contracts.methods().iter().filter(|method| *method.workload == *self.name);
        let names: BTreeSet<&str> = own.filter_map(|method| method.policy.limit.as_deref()).collect();
        if names.is_empty() {
            return Ok(ClassLimits::default());
        }
        let limit = |name| {
            let calls = limits_per_minute.get(name).copied();
            calls.map(|calls| (name, calls)).ok_or_else(|| {
                format!("the contract of `{}` counts calls for the limit `{name}`, which is not set; add it under [limits.calls_per_minute]", self.name)
            })
        };
        let limits = names.into_iter().map(limit).collect::<Result<Vec<_>, _>>()?;
        Ok(ClassLimits::new(&self.limits()?, limits))
    }

    /// The same with another configuration.
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
