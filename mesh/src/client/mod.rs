//! Calls to other services: to the right one, in time, and in the right name.
//!
//! A [`Dialer`] knows where the services are and who we are. [`Dialer::channel`] answers a [`Channel`] that a
//! generated client stands on:
//!
//! ```ignore
//! let users = UserServiceClient::new(node.dialer.channel("user")?);
//! let answer = users.clone().get_me(call.request_for_user(GetMeRequest {})).await?;
//! ```

mod channel;
mod connector;
mod probe;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Endpoint, Uri};

pub use self::channel::Channel;
use crate::{
    health::{Health, Kind},
    identity::{Identity, SpiffeId},
};

/// Where the services are: `host:port` by workload name.
pub type Peers = HashMap<String, String>;

/// Makes channels to services, under one identity.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    /// Who calls, as health reports name it.
    caller: &'static str,
    identity: Identity,
    peers: Peers,
    health: Health,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A channel that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nobody said where the service is.
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
    /// A dialer for the workload `caller`, whose probes run among `tasks` until `stop`.
    pub fn new(
        caller: &'static str,
        identity: Identity,
        peers: Peers,
        health: Health,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { caller, identity, peers, health, tasks, stop }))
    }

    /// A channel to the service of this workload name. It connects with its first call, and again after a break.
    ///
    /// # Errors
    /// [`DialError`] if the service's address is missing or none.
    pub fn channel(&self, service: &str) -> Result<Channel, DialError> {
        let inner = &self.0;
        let address = inner.peers.get(service).ok_or_else(|| DialError::UnknownPeer(service.to_owned()))?;
        let bad_address = || DialError::BadAddress { name: service.to_owned(), address: address.clone() };
        let expected = SpiffeId::for_workload(&inner.identity.trust_domain(), service).map_err(|_| bad_address())?;
        let origin = Uri::try_from(format!("https://{service}")).map_err(|_| bad_address())?;
        let endpoint = Endpoint::try_from(format!("http://{address}"))
            .map_err(|_| bad_address())?
            .origin(origin)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(4 * 1024 * 1024)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true);
        let connector = connector::connector(inner.identity.clone(), expected, address.clone());
        Ok(Channel::new(service, endpoint.connect_with_connector_lazy(connector)))
    }

    /// A channel to a service that this one depends on: its state is probed and reported among the health
    /// components as `CALLER -> SERVICE`.
    ///
    /// # Errors
    /// As [`Dialer::channel`].
    pub fn dependency(&self, service: &str, kind: Kind) -> Result<Channel, DialError> {
        let channel = self.channel(service)?;
        let component = self.0.health.component(format!("{} -> {service}", self.0.caller), kind);
        self.0.tasks.spawn(probe::run(channel.clone(), component, self.0.stop.clone()));
        Ok(channel)
    }
}
