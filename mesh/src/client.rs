//! Calls to other services.
//!
//! A [`Dialer`] has the addresses of the services and the identity of the caller. [`Dialer::channel`] returns a [`Channel`]
//! for a generated client:
//!
//! ```ignore
//! let users = UserServiceClient::new(node.dialer.channel("user")?);
//! let answer = users.clone().get_me(call.request_for_user(GetMeRequest {})).await?;
//! ```
//!
//! Request path: [`Channel`] (deadline, request id, token) -> `retry` -> `endpoints` (load balancing by `load` and
//! `breaker`, in the `group` of the call) -> `endpoint` -> `connection` (HTTP/2 over mutual TLS). In the background, `discovery` resolves addresses and
//! `probe` checks health.

mod breaker;
mod channel;
mod connection;
mod discovery;
mod endpoint;
mod endpoints;
mod group;
mod io;
mod load;
mod message;
mod metrics;
mod peer;
mod probe;
mod retry;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use drystone::contract::Contracts;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    breaker::BreakerState,
    channel::Channel,
    peer::{BreakerSettings, Peer, PeerGroup, Peers, ProbeSettings},
};
use self::{
    discovery::HostPort,
    endpoints::EndpointContext,
    group::{GroupId, Groups},
    metrics::EndpointMetrics,
};
pub(crate) use self::{endpoint::Endpoint, endpoints::Endpoints};
use crate::{
    clock::Clock,
    health::{Health, Kind},
    identity::{Identity, SpiffeId},
    telemetry::Metrics,
};

/// Creates channels to services, with the identity of one workload.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    config: DialerConfig,
    /// By service, created on first use: all channels to a service share its connections.
    services: Mutex<HashMap<String, Arc<Endpoints>>>,
}

/// The dependencies of a [`Dialer`].
pub struct DialerConfig {
    /// The calling workload, as named in health reports and metrics.
    pub caller: &'static str,
    /// Its certificate, key and roots.
    pub identity: Identity,
    /// The contracts, which say whether a call can be retried.
    pub contracts: Contracts,
    /// The time that certificates are checked against.
    pub clock: Clock,
    /// Where services are, and how they are called.
    pub peers: Peers,
    /// Receives the health of services.
    pub health: Health,
    /// Receives counters.
    pub metrics: Metrics,
    /// Tracks background tasks.
    pub tasks: TaskTracker,
    /// Stops background tasks.
    pub stop: CancellationToken,
}

/// Why a channel cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No contract names the workload that serves it.
    #[error("no contract of this mesh has the service `{0}`; add the contracts of Drystone")]
    UnknownService(&'static str),
    /// The service has no address.
    #[error("the address of the service `{0}` is not known; add it under [peers] in the configuration")]
    UnknownPeer(String),
    /// The address is invalid.
    #[error("`{address}` is not an address for the service `{name}`; write HOST:PORT")]
    BadAddress {
        /// The service.
        name: String,
        /// The invalid address.
        address: String,
    },
}

impl Dialer {
    /// Creates a dialer.
    #[must_use]
    pub fn new(config: DialerConfig) -> Self {
        Self(Arc::new(Inner { config, services: Mutex::default() }))
    }

    /// A channel to the service with this workload name. It connects with the first call, and reconnects. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// [`DialError`] if the service's address is missing or invalid.
    pub fn channel(&self, service: &str) -> Result<Channel, DialError> {
        Ok(Channel::balanced(self.endpoints(service)?))
    }

    /// A channel to a service that this one depends on: its state is reported among the health components as
    /// `CALLER -> SERVICE`.
    ///
    /// # Errors
    /// As [`Dialer::channel`].
    pub fn dependency(&self, service: &str, kind: Kind) -> Result<Channel, DialError> {
        let DialerConfig { caller, health, .. } = &self.0.config;
        let endpoints = self.endpoints(service)?;
        endpoints.report_to(health.component(format!("{caller} -> {service}"), kind));
        Ok(Channel::balanced(endpoints))
    }

    /// The endpoints of a service, for streams to each of them.
    ///
    /// # Errors
    /// As [`Dialer::channel`].
    pub(crate) fn endpoints(&self, service: &str) -> Result<Arc<Endpoints>, DialError> {
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoints) = services.get(service) {
            return Ok(endpoints.clone());
        }
        let endpoints = self.begin(service)?;
        services.insert(service.to_owned(), endpoints.clone());
        Ok(endpoints)
    }

    fn begin(&self, service: &str) -> Result<Arc<Endpoints>, DialError> {
        let DialerConfig { caller, identity, contracts, peers, metrics, tasks, stop, .. } = &self.0.config;
        let peer = peers.get(service).filter(|peer| !peer.addresses.is_empty());
        let peer = peer.ok_or_else(|| DialError::UnknownPeer(service.to_owned()))?;
        let bad = |address: &str| DialError::BadAddress { name: service.to_owned(), address: address.to_owned() };
        let of_default = peer.addresses.iter().map(|address| (address, GroupId::DEFAULT));
        let of_groups = peer.groups.iter().enumerate();
        let of_groups = of_groups
            .flat_map(|(position, group)| group.addresses.iter().map(move |address| (address, Groups::id(position))));
        let target = |(address, group): (&String, GroupId)| match address.parse::<HostPort>() {
            Ok(target) => Ok((target, group)),
            Err(()) => Err(bad(address)),
        };
        let targets = of_default.chain(of_groups).map(target).collect::<Result<Vec<_>, _>>()?;
        let expected =
            SpiffeId::for_workload(&identity.trust_domain(), service).map_err(|_| bad(&peer.addresses[0]))?;
        let (retries, ejected) = metrics.client(caller, service);
        let context = EndpointContext {
            identity: identity.clone(),
            contracts: contracts.clone(),
            clock: self.0.config.clock.clone(),
            retries,
            ejected,
            metrics: EndpointMetrics::new(metrics, caller, service),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let endpoints = Endpoints::new(service, expected, peer, context);
        if let Some(addresses) = discovery::all_addresses(&targets) {
            endpoints.set(&addresses);
        } else {
            let discovering = discovery::run(endpoints.clone(), targets);
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(discovering).await });
        }
        Ok(endpoints)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("caller", &self.0.config.caller).finish_non_exhaustive()
    }
}
