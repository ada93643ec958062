//! Calls to other services: to the right one, in time, and in the right name.
//!
//! A [`Dialer`] knows where the services are and who we are. [`Dialer::channel`] answers a [`Channel`] that a
//! generated client stands on:
//!
//! ```ignore
//! let users = UserServiceClient::new(node.dialer.channel("user")?);
//! let answer = users.clone().get_me(call.request_for_user(GetMeRequest {})).await?;
//! ```
//!
//! The way of a call: [`Channel`] (deadline, request id, token) -> `retry` (again, if it may) -> `instances` (which one,
//! by `load` and `breaker`) -> `instance` -> `connection` (HTTP/2 over mutual TLS). Which instances there are is found out
//! by `discovery`, and how they are by `probe`, both beside the calls.

mod breaker;
mod channel;
mod connection;
mod discovery;
mod instance;
mod instances;
mod load;
mod message;
mod probe;
mod retry;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use drystone::contract::Contracts;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::channel::Channel;
use self::{discovery::HostPort, instances::EndpointContext};
pub(crate) use self::{instance::Instance, instances::Instances};
use crate::{
    clock::Clock,
    health::{Health, Kind},
    identity::{Identity, SpiffeId},
    telemetry::Metrics,
};

/// Where the services are: by workload name one or several `HOST:PORT`. A name stands for all addresses that it has.
pub type Peers = HashMap<String, Vec<String>>;

/// Makes channels to services, under one identity.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    config: DialerConfig,
    /// Those that somebody has asked for: all channels to a service share its connections.
    services: Mutex<HashMap<String, Arc<Instances>>>,
}

/// What a dialer is made of.
pub struct DialerConfig {
    /// The workload that calls, as health reports and metrics name it.
    pub caller: &'static str,
    /// Its certificate, key and roots.
    pub identity: Identity,
    /// What the contracts say of its calls: whether one may be sent again.
    pub contracts: Contracts,
    /// By what it sees that a certificate has expired.
    pub clock: Clock,
    /// Where the services are.
    pub peers: Peers,
    /// Where it says how they are.
    pub health: Health,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it looks after them in the background.
    pub tasks: TaskTracker,
    /// Ends that.
    pub stop: CancellationToken,
}

/// A channel that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No contract says which workload serves it.
    #[error("no contract of this mesh has the service `{0}`; add the contracts of Drystone")]
    UnknownService(&'static str),
    /// The service has no address.
    #[error("the address of the service `{0}` is not known; add it under [peers] in the configuration")]
    UnknownPeer(String),
    /// The address is none.
    #[error("`{address}` is not an address for the service `{name}`; write HOST:PORT")]
    BadAddress {
        /// The service.
        name: String,
        /// What was given.
        address: String,
    },
}

impl Dialer {
    /// A dialer that knows these services.
    #[must_use]
    pub fn new(config: DialerConfig) -> Self {
        Self(Arc::new(Inner { config, services: Mutex::default() }))
    }

    /// A channel to the service of this workload name. It connects with its first call, and again after a break. Has to
    /// be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`DialError`] if the service's address is missing or none.
    pub fn channel(&self, service: &str) -> Result<Channel, DialError> {
        Ok(Channel::balanced(self.instances(service)?))
    }

    /// A channel to a service that this one depends on: its state is reported among the health components as
    /// `CALLER -> SERVICE`.
    ///
    /// # Errors
    /// As [`Dialer::channel`].
    pub fn dependency(&self, service: &str, kind: Kind) -> Result<Channel, DialError> {
        let DialerConfig { caller, health, .. } = &self.0.config;
        let instances = self.instances(service)?;
        instances.report_to(health.component(format!("{caller} -> {service}"), kind));
        Ok(Channel::balanced(instances))
    }

    /// The instances of a service, for whoever has something to say to each of them.
    ///
    /// # Errors
    /// As [`Dialer::channel`].
    pub(crate) fn instances(&self, service: &str) -> Result<Arc<Instances>, DialError> {
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instances) = services.get(service) {
            return Ok(instances.clone());
        }
        let instances = self.begin(service)?;
        services.insert(service.to_owned(), instances.clone());
        Ok(instances)
    }

    fn begin(&self, service: &str) -> Result<Arc<Instances>, DialError> {
        let DialerConfig { caller, identity, contracts, peers, metrics, tasks, stop, .. } = &self.0.config;
        let addresses = peers.get(service).filter(|addresses| !addresses.is_empty());
        let addresses = addresses.ok_or_else(|| DialError::UnknownPeer(service.to_owned()))?;
        let bad = |address: &str| DialError::BadAddress { name: service.to_owned(), address: address.to_owned() };
        let place = |address: &String| address.parse::<HostPort>().map_err(|()| bad(address));
        let places = addresses.iter().map(place).collect::<Result<Vec<_>, _>>()?;
        let expected = SpiffeId::for_workload(&identity.trust_domain(), service).map_err(|_| bad(&addresses[0]))?;
        let (retries, out) = metrics.client(caller, service);
        let context = EndpointContext {
            identity: identity.clone(),
            contracts: contracts.clone(),
            clock: self.0.config.clock.clone(),
            retries,
            out,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let instances = Instances::new(service, expected, context);
        if let Some(addresses) = discovery::all_addresses(&places) {
            instances.set(&addresses);
        } else {
            let discovering = discovery::run(instances.clone(), places);
            let stop = stop.clone();
            tasks.spawn(async move { stop.run_until_cancelled(discovering).await });
        }
        Ok(instances)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("caller", &self.0.config.caller).finish_non_exhaustive()
    }
}
