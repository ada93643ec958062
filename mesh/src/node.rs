//! A node: the identity of one service, its outgoing calls and its token verification.

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use drystone::{
    auth::v1::{key_service_client::KeyServiceClient, key_service_server},
    contract::Contracts,
    session::v1::session_service_server,
};

use crate::{
    access::ShadowRules,
    client::{DialError, Dialer, DialerConfig, Peers},
    clock::Clock,
    health::{Component, Health, Kind},
    identity::Identity,
    limit::ClassLimits,
    server::ServerLimits,
    telemetry::Metrics,
    token::{KeySet, RevocationView, TokenMetrics, TokenVerifier, TokenVerifierConfig, watch_keys, watch_revocations},
};

/// The suffix of the health component that reports whether a node can verify tokens.
pub const TOKEN_CHECKS: &str = " token checks";

/// What a service needs from the mesh. Clones share the node.
#[derive(Clone)]
pub struct Node {
    /// The workload name.
    pub name: &'static str,
    /// The certificate, key and roots.
    pub identity: Identity,
    /// The contracts of the mesh.
    pub contracts: Contracts,
    /// The rules of coming contracts, which deny nothing.
    pub shadow_rules: ShadowRules,
    /// The rate limits of RPCs by class.
    pub limits: ClassLimits,
    /// The limits of its server.
    pub server_limits: ServerLimits,
    /// The source of time.
    pub clock: Clock,
    /// Receives metrics.
    pub metrics: Metrics,
    /// Receives the health of components.
    pub health: Health,
    /// Opens channels to other services.
    pub dialer: Dialer,
    /// Verifies access tokens.
    pub verifier: TokenVerifier,
    /// Stops background tasks.
    pub stop: CancellationToken,
    /// Tracks background tasks.
    pub tasks: TaskTracker,
}

/// The dependencies of a [`Node`].
pub struct NodeConfig {
    /// The workload name.
    pub name: &'static str,
    /// The certificate, key and roots.
    pub identity: Identity,
    /// The contracts of the mesh.
    pub contracts: Contracts,
    /// The rules of coming contracts, which deny nothing.
    pub shadow_rules: ShadowRules,
    /// The rate limits of RPCs by class.
    pub limits: ClassLimits,
    /// The limits of its server.
    pub server_limits: ServerLimits,
    /// The source of time.
    pub clock: Clock,
    /// Receives metrics.
    pub metrics: Metrics,
    /// Receives the health of components.
    pub health: Health,
    /// The addresses of other services.
    pub peers: Peers,
    /// The accepted tokens.
    pub tokens: TokenVerifierConfig,
    /// Tracks background tasks.
    pub tasks: TaskTracker,
    /// Stops background tasks.
    pub stop: CancellationToken,
}

impl Node {
    /// Creates a node, and keeps its keys and revocations up to date in the background until `stop`.
    ///
    /// # Errors
    /// [`DialError`] if the service of keys or revocations has no address.
    pub fn start(config: NodeConfig) -> Result<Self, DialError> {
        let NodeConfig { name, identity, contracts, shadow_rules, limits, server_limits, clock, .. } = config;
        let NodeConfig { metrics, health, peers, tokens, tasks, stop, .. } = config;
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
        let token_metrics = TokenMetrics::new(&metrics, name);
        let verifier = TokenVerifier::new(tokens, keys.clone(), revocations.clone(), clock.clone())
            .with_metrics(token_metrics.clone());
        let served_by = |service| contracts.workload_of(service).ok_or(DialError::UnknownService(service));
        let key_service = served_by(key_service_server::SERVICE_NAME)?;
        let revocation_service = served_by(session_service_server::SERVICE_NAME)?;
        // Optional: issued tokens work while either is unavailable.
        let key_client = KeyServiceClient::new(dialer.dependency(key_service, Kind::Optional)?);
        dialer.dependency(revocation_service, Kind::Optional)?;
        tasks.spawn(watch_keys(key_client, keys.clone(), revocations.withdrawn_keys().clone(), stop.clone()));
        tasks.spawn(watch_revocations(dialer.endpoints(revocation_service)?, revocations.clone(), stop.clone()));
        // Optional: services that wait for each other's readiness would wait forever.
        let component = health.component(format!("{name}{TOKEN_CHECKS}"), Kind::Optional);
        tasks.spawn(report_token_checks(keys, revocations, token_metrics, component, stop.clone()));

        Ok(Self {
            name,
            identity,
            contracts,
            shadow_rules,
            limits,
            server_limits,
            clock,
            metrics,
            health,
            dialer,
            verifier,
            stop,
            tasks,
        })
    }
}

/// Reports whether tokens can be verified: keys and revocations have been received, and revocations are fresh. Counts withdrawn keys.
async fn report_token_checks(
    keys: KeySet,
    revocations: RevocationView,
    metrics: TokenMetrics,
    component: Component,
    stop: CancellationToken,
) {
    loop {
        metrics.set_withdrawn(revocations.withdrawn_keys().len());
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
            component.degraded("no message about revocations has been received for 10 s");
            Duration::from_secs(1)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
