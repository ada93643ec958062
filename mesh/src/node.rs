//! One service's share of the mesh: who it is, whom it can call, and how it checks tokens.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use drystone::{
    auth::v1::{key_service_client::KeyServiceClient, key_service_server},
    contract::Contracts,
    session::v1::session_service_server,
};

use crate::{
    client::{DialError, Dialer, DialerConfig, Peers},
    clock::Clock,
    health::{Component, Health, Kind},
    identity::Identity,
    limit::ClassLimits,
    telemetry::Metrics,
    token::{KeySet, RevocationView, TokenVerifier, TokenVerifierConfig, watch_keys, watch_revocations},
};

/// The end of the name of the component that says whether a node can check tokens.
pub const TOKEN_CHECKS: &str = " token checks";

/// What a service stands on. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    /// The workload name.
    pub name: &'static str,
    /// Its certificate, key and roots.
    pub identity: Identity,
    /// The contracts of the mesh.
    pub contracts: Contracts,
    /// How often the RPCs that name a limit may be called.
    pub limits: ClassLimits,
    /// Its time.
    pub clock: Clock,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it says how it is.
    pub health: Health,
    /// How it calls others.
    pub dialer: Dialer,
    /// How it checks access tokens.
    pub verifier: TokenVerifier,
    /// Ends its background work.
    pub stop: CancellationToken,
    /// Its background work.
    pub tasks: TaskTracker,
}

/// What a node is made of.
pub struct NodeConfig {
    /// The workload name.
    pub name: &'static str,
    /// Its certificate, key and roots.
    pub identity: Identity,
    /// The contracts of the mesh.
    pub contracts: Contracts,
    /// How often the RPCs that name a limit may be called.
    pub limits: ClassLimits,
    /// Its time.
    pub clock: Clock,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where it says how it is.
    pub health: Health,
    /// Where the others are.
    pub peers: Peers,
    /// Which tokens it accepts.
    pub tokens: TokenVerifierConfig,
    /// Its background work.
    pub tasks: TaskTracker,
    /// Ends its background work.
    pub stop: CancellationToken,
}

impl Node {
    /// A node whose view of keys and revocations is kept up to date in the background until its `stop`.
    ///
    /// # Errors
    /// [`DialError`] if it is not known where keys or revocations come from.
    pub fn start(config: NodeConfig) -> Result<Self, DialError> {
        let NodeConfig { name, identity, contracts, limits, clock, metrics, health, peers, tokens, tasks, stop } =
            config;
        let dialer = Dialer::new(DialerConfig {
            caller: name,
            identity: identity.clone(),
            contracts: contracts.clone(),
            clock: clock.clone(),
            peers,
            health: health.clone(),
            metrics: metrics.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });

        let (keys, revocations) = (KeySet::default(), RevocationView::new(clock.clone()));
        let verifier = TokenVerifier::new(tokens, keys.clone(), revocations.clone(), clock.clone());
        let served_by = |service| contracts.workload_of(service).ok_or(DialError::UnknownService(service));
        let key_service = served_by(key_service_server::SERVICE_NAME)?;
        let revocation_service = served_by(session_service_server::SERVICE_NAME)?;
        // Tokens that were issued keep working while either is unavailable, so neither is vital.
        let key_client = KeyServiceClient::new(dialer.dependency(key_service, Kind::Optional)?);
        dialer.dependency(revocation_service, Kind::Optional)?;
        tasks.spawn(watch_keys(key_client, keys.clone(), stop.clone()));
        tasks.spawn(watch_revocations(dialer.endpoints(revocation_service)?, revocations.clone(), stop.clone()));
        // Not vital either: services that wait for each other's readiness would wait for ever.
        let component = health.component(format!("{name}{TOKEN_CHECKS}"), Kind::Optional);
        tasks.spawn(report_token_checks(keys, revocations, component, stop.clone()));

        Ok(Self { name, identity, contracts, limits, clock, metrics, health, dialer, verifier, stop, tasks })
    }
}

/// Reports whether tokens can be checked: with keys at all, and with news of what has been revoked.
async fn report_token_checks(keys: KeySet, revocations: RevocationView, component: Component, stop: CancellationToken) {
    loop {
        let pause = if !keys.is_loaded() {
            component.down("the signing keys have not been fetched yet");
            Duration::from_millis(20)
        } else if revocations.last_update().is_none() {
            component.down("the revocations have not been fetched yet");
            Duration::from_millis(20)
        } else if revocations.is_fresh() {
            component.up();
            Duration::from_secs(2)
        } else {
            component.degraded("nothing has been heard of revocations for a while");
            Duration::from_secs(1)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
