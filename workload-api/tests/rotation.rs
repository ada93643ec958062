//! Changes at the agent while a process runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use drystone::contract::Contracts;
use drystone_mesh::{
    clock::Clock,
    health::{Health, Kind, State},
    identity::{CertificateMetrics, CredentialSource as _, Follower, Identity},
    telemetry::Metrics,
};
use drystone_workload_api::WorkloadApiSource;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::{
    AUTH, USER,
    agent::{Agent, X509Svid, endpoint},
    certificates::{Ca, bundle},
};

/// The component of the follower.
const CERTIFICATE: &str = "auth certificate";

/// A process with the identity of an agent, and a follower that runs.
struct Process {
    identity: Identity,
    source: Arc<WorkloadApiSource>,
    metrics: Metrics,
    health: Health,
    socket: PathBuf,
    _directory: TempDir,
    _stop: DropGuard,
}

impl Process {
    async fn start(svids: &[X509Svid]) -> (Self, Agent) {
        let directory = TempDir::new().unwrap();
        let socket = directory.path().join("agent.sock");
        let agent = Agent::issuing(&socket, svids);
        let source = Arc::new(WorkloadApiSource::connect(endpoint(&socket), AUTH.parse().unwrap()));
        let identity = Identity::new(source.load().await.unwrap()).unwrap();
        let (health, stop) = (Health::new(), CancellationToken::new());
        let metrics = Metrics::new(&Contracts::load([]).unwrap());
        let (of_certificates, clock) = (CertificateMetrics::of(&metrics), Clock::system());
        let follower = Follower::new("auth", identity.clone(), source.clone(), of_certificates, clock);
        tokio::spawn(follower.run(health.component(CERTIFICATE, Kind::Vital), stop.clone()));
        let process =
            Self { identity, source, metrics, health, socket, _directory: directory, _stop: stop.drop_guard() };
        (process, agent)
    }

    async fn until(&self, what: &str, mut is_met: impl FnMut(&Self) -> bool) {
        let wait = async {
            while !is_met(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), wait).await;
        assert!(waited.is_ok(), "not within 20 s: {what}\n{:?}\n{}", self.state(), self.metrics.render());
    }

    fn state(&self) -> (State, String) {
        let report = self.health.report().components.remove(CERTIFICATE).unwrap();
        (report.state, report.detail)
    }

    /// Waits until a new certificate is refused for this cause, and checks that the old one stays.
    async fn refuses(&self, cause: &str) {
        let before = self.identity.svid();
        self.until(cause, |this| this.state().0 == State::Degraded && this.state().1.contains(cause)).await;
        assert_eq!(self.identity.svid(), before);
    }

    /// Waits until the process has a certificate other than this.
    async fn replaces(&self, serial: &str) {
        self.until("a new certificate", |this| this.identity.svid().serial != serial).await;
        self.until("health", |this| this.state().0 == State::Up).await;
    }

    fn serial(&self) -> String {
        self.identity.svid().serial.clone()
    }
}

#[tokio::test]
async fn a_rotated_certificate_is_followed_and_a_repeated_one_is_not() {
    let ca = Ca::new("one");
    let own = ca.svid(AUTH);
    let (process, agent) = Process::start(std::slice::from_ref(&own)).await;
    let before = process.serial();
    // Of another workload: nothing to do.
    agent.delivered(1).await;
    for count in 2..4 {
        agent.issue(&[ca.svid(USER), own.clone()]);
        agent.delivered(count).await;
    }
    agent.issue(&[ca.svid(USER), ca.svid(AUTH)]);
    process.replaces(&before).await;
    assert_eq!((process.identity.generation(), process.identity.id().as_str()), (1, AUTH));
}

#[tokio::test]
async fn a_new_root_is_followed() {
    let (old, new) = (Ca::new("old"), Ca::new("new"));
    let own = old.svid(AUTH);
    let (process, agent) = Process::start(std::slice::from_ref(&own)).await;
    let first = process.serial();
    agent.issue(&[X509Svid { bundle: bundle(&[&old, &new]), ..own }]);
    process.until("the new root beside the old one", |process| process.identity.generation() == 1).await;
    assert!(!process.identity.has_removed_root_since(0) && process.serial() == first);

    agent.issue(&[X509Svid { bundle: bundle(&[&old, &new]), ..new.svid(AUTH) }]);
    process.replaces(&first).await;
    assert!(!process.identity.has_removed_root_since(0));

    agent.issue(&[new.svid(AUTH)]);
    process.until("the old root removed", |process| process.identity.has_removed_root_since(2)).await;
}

#[tokio::test]
async fn a_restart_of_the_agent_keeps_the_certificate_and_the_next_one_is_followed() {
    let ca = Ca::new("one");
    let own = ca.svid(AUTH);
    let (process, agent) = Process::start(std::slice::from_ref(&own)).await;
    let before = process.serial();
    agent.stop().await;
    // Several attempts to connect.
    let waited = tokio::time::timeout(Duration::from_secs(1), process.source.changed()).await;
    assert!(waited.is_err(), "no change without an agent");
    assert!(process.source.load().await.is_ok());

    // The same again, then a new one.
    let agent = Agent::issuing(&process.socket, &[own]);
    let waited = tokio::time::timeout(Duration::from_secs(2), process.source.changed()).await;
    assert!(waited.is_err(), "the agent has nothing new");
    assert_eq!((process.identity.generation(), process.state().0), (0, State::Up));
    agent.issue(&[ca.svid(AUTH)]);
    process.replaces(&before).await;
    agent.stop().await;
    let before = process.serial();
    let _agent = Agent::issuing(&process.socket, &[ca.svid(AUTH)]);
    process.replaces(&before).await;
}

#[tokio::test]
async fn a_context_that_cannot_be_used_is_refused_and_the_old_certificate_stays() {
    let (ca, other) = (Ca::new("one"), Ca::new("other"));
    let (process, agent) = Process::start(&[ca.svid(AUTH)]).await;
    agent.issue(&[X509Svid { chain: b"certificate".to_vec(), ..ca.svid(AUTH) }]);
    process.refuses("failed to parse X.509 SVID").await;
    agent.issue(&[X509Svid { key: ca.svid(AUTH).key, ..ca.svid(AUTH) }]);
    process.refuses("does not belong to the certificate").await;
    agent.issue(&[X509Svid { bundle: other.der(), ..ca.svid(AUTH) }]);
    process.refuses("is not trusted by the trust bundle drystone.test from unix:///").await;

    let before = process.serial();
    agent.issue(&[ca.svid(AUTH)]);
    process.replaces(&before).await;
}

#[tokio::test]
async fn a_removed_entry_is_reported_and_the_old_certificate_stays() {
    let ca = Ca::new("one");
    let (process, agent) = Process::start(&[ca.svid(AUTH)]).await;
    agent.issue(&[ca.svid(USER)]);
    process.refuses(&format!("issues no certificate for {AUTH}: it issues {USER};")).await;
    agent.answer(Err(Status::permission_denied("no identity issued")));
    process.refuses("no entry matches this process").await;
    let before = process.serial();
    agent.issue(&[ca.svid(AUTH)]);
    process.replaces(&before).await;
}
